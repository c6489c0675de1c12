//! Matrix products of a linear layer, with what follows them folded in.
//!
//! B is packed once by all threads; then tasks of a fixed size (rows and columns of C) run, each
//! summing over k in one order. So results are the same bits for any number of threads.
//!
//! Blocking after Goto and van de Geijn (2008): a panel of B streams from L2 while a tile of C
//! stays in registers.

mod block;
mod tile;

pub(crate) use block::{Matrix, Target, multiply, pack, packed_len};
pub(crate) use tile::fma_rate;

use super::math;
use crate::cpu::dispatch::multiversion;
use crate::pool::HostBuffer;
use rayon::prelude::*;

/// Products summed before C is written: a panel of B then fills a sixteenth of L2.
const K_BLOCK: usize = 512;
/// Rows of C in a task: a multiple of every tile's rows.
const TASK_ROWS: usize = 96;
/// Columns of C in a task: a multiple of every panel's width.
const TASK_COLUMNS: usize = 384;

/// What happens to x wᵀ before it is stored.
pub(crate) enum Epilogue<'a> {
    /// Nothing.
    None,
    /// + b
    Bias(&'a [f32]),
    /// GELU(s), s = x wᵀ + b; s goes to `pre` unless that is empty.
    Gelu { bias: Option<&'a [f32]>, pre: &'a mut [f32] },
    /// + b + residual
    Residual { bias: Option<&'a [f32]>, residual: &'a [f32] },
}

/// y[R,O] = epilogue(x[R,I] w[O,I]ᵀ); dims are (R, I, O).
pub(crate) fn linear(
    y: &mut [f32],
    x: &[f32],
    w: &[f32],
    (r, i, o): (usize, usize, usize),
    epilogue: Epilogue<'_>,
) {
    let finish = Finish::new(epilogue, o);
    let product =
        Product { m: r, n: o, k: i, a: Matrix::new(x, 0, i), b: Matrix::new(w, 0, i).t() };
    // SAFETY of `apply`: `run` calls it once for each part of C, after that part is summed.
    product.run(y, false, |c, place| unsafe { finish.apply(c, place) });
}

/// dx[R,I] = dy[R,O] w[O,I]; dims are (R, I, O).
pub(crate) fn linear_grad_input(
    dx: &mut [f32],
    dy: &[f32],
    w: &[f32],
    (r, i, o): (usize, usize, usize),
) {
    let product = Product { m: r, n: i, k: o, a: Matrix::new(dy, 0, o), b: Matrix::new(w, 0, i) };
    product.run(dx, false, |_, _| {});
}

/// dw[O,I] += dy[R,O]ᵀ x[R,I]; dims are (R, I, O).
pub(crate) fn linear_grad_weight(
    dw: &mut [f32],
    dy: &[f32],
    x: &[f32],
    (r, i, o): (usize, usize, usize),
) {
    let product =
        Product { m: o, n: i, k: r, a: Matrix::new(dy, 0, o).t(), b: Matrix::new(x, 0, i) };
    product.run(dw, true, |_, _| {});
}

/// db[O] += Σ_r dy[R,O]
pub(crate) fn column_sum(db: &mut [f32], dy: &[f32], rows: usize, columns: usize) {
    debug_assert_eq!(dy.len(), rows * columns);
    // Each task owns some columns and walks the rows in order.
    db.par_chunks_mut(64).enumerate().for_each(|(task, db)| {
        for row in dy.chunks_exact(columns) {
            let row = &row[task * 64..task * 64 + db.len()];
            for (sum, value) in db.iter_mut().zip(row) {
                *sum += value;
            }
        }
    });
}

/// C[m, n] (+)= A[m, k] B[k, n]
struct Product<'a> {
    m: usize,
    n: usize,
    k: usize,
    a: Matrix<'a>,
    b: Matrix<'a>,
}

/// Which part of C a task has computed.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    column: usize,
    rows: usize,
    columns: usize,
}

impl Product<'_> {
    /// Computes C and calls `finish` with each part once it is summed.
    fn run(&self, c: &mut [f32], add: bool, finish: impl Fn(Target, Place) + Sync) {
        let Self { m, n, k, .. } = *self;
        assert_eq!(c.len(), m * n, "C of a product");
        if m == 0 || n == 0 {
            return;
        }
        let mut packed =
            HostBuffer::dirty(packed_len(k, TASK_COLUMNS.min(n)) * n.div_ceil(TASK_COLUMNS));
        let group_len = packed_len(k, TASK_COLUMNS.min(n));
        self.pack_groups(packed.as_mut_slice(), group_len);
        let packed = packed.as_slice();
        let c = Target::new(c, n);
        let row_tasks = m.div_ceil(TASK_ROWS);
        (0..row_tasks * n.div_ceil(TASK_COLUMNS)).into_par_iter().for_each(|task| {
            let (row, group) = (task % row_tasks * TASK_ROWS, task / row_tasks);
            let column = group * TASK_COLUMNS;
            let place = Place {
                row,
                column,
                rows: TASK_ROWS.min(m - row),
                columns: TASK_COLUMNS.min(n - column),
            };
            // SAFETY: tasks have disjoint rows or disjoint columns.
            let part = unsafe { c.at(row, column) };
            self.block(part, place, &packed[group * group_len..], add);
            finish(part, place);
        });
    }

    /// Packs B: for each group of columns, for each block of k, its panels.
    fn pack_groups(&self, packed: &mut [f32], group_len: usize) {
        let Self { n, k, b, .. } = *self;
        packed.par_chunks_mut(group_len.max(1)).enumerate().for_each(|(group, packed)| {
            let column = group * TASK_COLUMNS;
            let columns = TASK_COLUMNS.min(n - column);
            let width = packed_len(1, columns);
            packed.par_chunks_mut(K_BLOCK * width).enumerate().for_each(|(step, packed)| {
                let first = step * K_BLOCK;
                if first < k {
                    let count = K_BLOCK.min(k - first);
                    pack(packed, b.at(first, column), count, columns);
                }
            });
        });
    }

    fn block(&self, c: Target, place: Place, packed: &[f32], add: bool) {
        let width = packed_len(1, place.columns);
        if self.k == 0 && !add {
            for row in 0..place.rows {
                // SAFETY: the task owns this part.
                unsafe { c.row_mut(row, place.columns) }.fill(0.0);
            }
        }
        for first in (0..self.k).step_by(K_BLOCK) {
            let count = K_BLOCK.min(self.k - first);
            let a = self.a.at(place.row, first);
            let size = [place.rows, place.columns, count];
            // SAFETY: the task owns this part.
            unsafe { multiply(size, a, &packed[first * width..], c, add || first > 0) };
        }
    }
}

/// An epilogue that tasks can share.
enum Finish<'a> {
    None,
    Bias(&'a [f32]),
    Gelu { bias: Option<&'a [f32]>, pre: Option<Target> },
    Residual { bias: Option<&'a [f32]>, residual: &'a [f32], width: usize },
}

impl<'a> Finish<'a> {
    fn new(epilogue: Epilogue<'a>, width: usize) -> Self {
        match epilogue {
            Epilogue::None => Self::None,
            Epilogue::Bias(bias) => Self::Bias(bias),
            Epilogue::Gelu { bias, pre } => {
                let pre = (!pre.is_empty()).then(|| Target::new(pre, width));
                Self::Gelu { bias, pre }
            }
            Epilogue::Residual { bias, residual } => Self::Residual { bias, residual, width },
        }
    }

    /// # Safety
    /// The caller owns this part of C, and no other call gets it.
    unsafe fn apply(&self, c: Target, place: Place) {
        if matches!(self, Self::None) {
            return;
        }
        let columns = place.column..place.column + place.columns;
        for r in 0..place.rows {
            // SAFETY: the caller's promise; `pre` is cut the same way.
            let y = unsafe { c.row_mut(r, place.columns) };
            match self {
                Self::None => {}
                Self::Bias(bias) => add(y, &bias[columns.clone()]),
                Self::Gelu { bias, pre } => {
                    if let Some(bias) = bias {
                        add(y, &bias[columns.clone()]);
                    }
                    if let Some(pre) = pre {
                        // SAFETY: as above.
                        let pre = unsafe { pre.at(place.row + r, place.column) };
                        // SAFETY: as above.
                        unsafe { pre.row_mut(0, place.columns) }.copy_from_slice(y);
                    }
                    gelu(y);
                }
                Self::Residual { bias, residual, width } => {
                    if let Some(bias) = bias {
                        add(y, &bias[columns.clone()]);
                    }
                    let start = (place.row + r) * width;
                    add(y, &residual[start + columns.start..start + columns.end]);
                }
            }
        }
    }
}

multiversion! {
    /// y += x
    fn add(y: &mut [f32], x: &[f32]) {
        for (y, x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }

    /// y = GELU(y)
    fn gelu(y: &mut [f32]) {
        for y in y {
            *y = math::gelu(*y);
        }
    }
}
