//! Matrix products of a linear layer, fused with the work after them.
//!
//! B is packed once by all threads. Then tasks of a fixed size (rows and columns of C) run. Each
//! sums over k in one order, so the bits are the same for any number of threads. A is read in
//! place, but each task packs a transposed A.
//!
//! Blocking after Goto and van de Geijn (2008): a panel of B streams from L2 while a tile of C
//! stays in registers.

mod block;
mod epilogue;
mod pack;
#[cfg(test)]
mod tests;
mod tile;

pub(crate) use block::{
    Matrix, NoHook, Owned, Span, Target, TileHook, array, by_width, multiply, prefetch,
};
pub(crate) use pack::{pack, packed_len};
use pack::{pack_tiles, packed_tiles_len};
pub(crate) use tile::peak_tile;

use super::parallel::{for_tasks, with_scratch};
use super::row::set_or_add;
use crate::device::{Epilogue, LinearSize, Write};
use crate::pool::HostBuffer;
use epilogue::{Finish, GeluSlope};
use rayon::prelude::*;

/// Number of products summed before C is written. A panel of B then fills a sixteenth of L2.
const K_BLOCK: usize = 512;
/// Rows of C in a task, a multiple of every tile's rows.
const TASK_ROWS: usize = 96;
/// Columns of C in a task, a multiple of every panel's width.
const TASK_COLUMNS: usize = 384;
/// Rows whose distance is a multiple of this share a set of L1, which has eight or twelve lines. A
/// tile has twelve rows with AVX-512. Such rows are copied first. This costs nothing if tiles have
/// fewer rows.
const SAME_SET: usize = 1024;

/// y[R,O] = epilogue(x[R,I] w[O,I]ᵀ + b[O])
pub(crate) fn linear(
    y: &mut [f32],
    x: &[f32],
    w: &[f32],
    b: Option<&[f32]>,
    size: LinearSize,
    epilogue: Epilogue<&[f32], &mut [f32]>,
) {
    let LinearSize { rows: r, input: i, output: o } = size;
    let finish = Finish::new(b, epilogue, r, o);
    let product =
        Product { m: r, n: o, k: i, a: Matrix::new(x, 0, i), b: Matrix::new(w, 0, i).t() };
    product.run(y, false, &finish);
}

/// dx[R,I] = dy[R,O] w[O,I]
pub(crate) fn linear_grad_input(dx: Write<&mut [f32]>, dy: &[f32], w: &[f32], size: LinearSize) {
    let LinearSize { rows: r, input: i, output: o } = size;
    let product = Product { m: r, n: i, k: o, a: Matrix::new(dy, 0, o), b: Matrix::new(w, 0, i) };
    match dx {
        // One block of k is summed in registers, then added with one rounding.
        Write::Add(dx) if o <= K_BLOCK => product.run(dx, true, &NoHook),
        dx => set_or_add(dx, |dx| product.run(dx, false, &NoHook)),
    }
}

/// ds[R,I] = (dy[R,O] w[O,I]) GELU'(s); h[R,I] = GELU(s)
pub(crate) fn linear_grad_gelu(
    ds: &mut [f32],
    h: &mut [f32],
    dy: &[f32],
    w: &[f32],
    s: &[f32],
    size: LinearSize,
) {
    let LinearSize { rows: r, input: i, output: o } = size;
    let slope = GeluSlope::new(h, s, r, i);
    let product = Product { m: r, n: i, k: o, a: Matrix::new(dy, 0, o), b: Matrix::new(w, 0, i) };
    product.run(ds, false, &slope);
}

/// dw[O,I] += dy[R,O]ᵀ x[R,I]
pub(crate) fn linear_grad_weight(dw: &mut [f32], dy: &[f32], x: &[f32], size: LinearSize) {
    let LinearSize { rows: r, input: i, output: o } = size;
    let product =
        Product { m: o, n: i, k: r, a: Matrix::new(dy, 0, o).t(), b: Matrix::new(x, 0, i) };
    product.run(dw, true, &NoHook);
}

/// db[O] += Σ_r dy[R,O]
pub(crate) fn column_sum(db: &mut [f32], dy: &[f32], rows: usize, columns: usize) {
    debug_assert_eq!(dy.len(), rows * columns);
    // Each task owns some columns and adds the rows in order.
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

/// Rows and columns of C in a task.
#[derive(Clone, Copy)]
struct TaskSize {
    rows: usize,
    columns: usize,
}

impl TaskSize {
    /// Large tasks reuse cached panels. A small C has smaller tasks, so that all threads have work.
    /// The size depends only on the product, never on the number of threads.
    fn of(m: usize, n: usize) -> Self {
        const ENOUGH: usize = 16;
        let count = |task: Self| m.div_ceil(task.rows) * n.div_ceil(task.columns);
        let mut task = Self { rows: TASK_ROWS, columns: TASK_COLUMNS };
        while count(task) < ENOUGH && task.rows > 24 {
            task.rows /= 2;
        }
        while count(task) < ENOUGH && task.columns > 96 {
            task.columns /= 2;
        }
        task
    }
}

impl Product<'_> {
    /// Computes C and calls `hook` for each tile.
    fn run(&self, c: &mut [f32], add: bool, hook: &(impl TileHook + Sync)) {
        let Self { m, n, k, .. } = *self;
        assert_eq!(c.len(), m * n, "C of a product");
        if m == 0 || n == 0 {
            return;
        }
        let size = TaskSize::of(m, n);
        let group_len = packed_len(k, size.columns.min(n));
        let mut packed = HostBuffer::dirty(group_len * n.div_ceil(size.columns));
        self.pack_groups(packed.as_mut_slice(), group_len, size.columns);
        let packed = packed.as_slice();
        let c = Target::new(c, n);
        let row_tasks = m.div_ceil(size.rows);
        for_tasks(row_tasks * n.div_ceil(size.columns), |task| {
            let (row, group) = (task % row_tasks * size.rows, task / row_tasks);
            let column = group * size.columns;
            let span = Span {
                row,
                column,
                rows: size.rows.min(m - row),
                columns: size.columns.min(n - column),
            };
            // SAFETY: tasks have disjoint rows or disjoint columns.
            let part = unsafe { c.at(row, column) };
            self.block(part, span, &packed[group * group_len..], add, hook);
        });
    }

    /// Packs the panels of B, ordered by group of columns, then by block of k.
    fn pack_groups(&self, packed: &mut [f32], group_len: usize, group_columns: usize) {
        let Self { n, k, b, .. } = *self;
        let groups = packed.par_chunks_mut(group_len.max(1)).enumerate().with_max_len(1);
        groups.for_each(|(group, packed)| {
            let column = group * group_columns;
            let columns = group_columns.min(n - column);
            let width = packed_len(1, columns);
            let steps = packed.par_chunks_mut(K_BLOCK * width).enumerate().with_max_len(1);
            steps.for_each(|(step, packed)| {
                let first = step * K_BLOCK;
                if first < k {
                    let count = K_BLOCK.min(k - first);
                    pack(packed, b.at(first, column), count, columns);
                }
            });
        });
    }

    /// One task: its blocks of k in order.
    fn block(&self, c: Target, task: Span, packed: &[f32], add: bool, hook: &impl TileHook) {
        let width = packed_len(1, task.columns);
        let crowded = self.a.column == 1 && self.a.row.is_multiple_of(SAME_SET);
        // Else each k would be a new line and a new page: 1.05 to 1.37 times as fast for weight
        // gradients (measured: 2026-11-29, Zen 3, in turn within one process).
        let packs_a = self.a.row == 1 && self.a.column > 1;
        // One line more than a block, so that rows start in different sets.
        let copy_row = K_BLOCK.min(self.k) + 16;
        let copied = if crowded {
            task.rows * copy_row
        } else if packs_a {
            packed_tiles_len(task.rows, K_BLOCK.min(self.k))
        } else {
            0
        };
        with_scratch(|scratch| {
            let [copy] = scratch.parts([copied]);
            // With k = 0 there is one empty block. C is zeroed or kept, and finished.
            let steps = self.k.div_ceil(K_BLOCK).max(1);
            for step in 0..steps {
                let first = step * K_BLOCK;
                let count = K_BLOCK.min(self.k - first);
                let (mut a, b) = (self.a.at(task.row, first), &packed[first * width..]);
                if crowded {
                    a = a.copied(copy, copy_row, count);
                } else if packs_a {
                    a = pack_tiles(copy, a, task.rows, count);
                }
                let size = [task.rows, task.columns, count];
                let add = add || step > 0;
                // SAFETY: the task owns this part.
                unsafe {
                    if step + 1 < steps {
                        multiply(size, a, b, c, add, &NoHook);
                    } else {
                        multiply(size, a, b, c, add, &Offset { hook, task });
                    }
                }
            }
        });
    }
}

/// The hook of a task. It converts a tile's span in the task to its span in C.
struct Offset<'a, T> {
    hook: &'a T,
    task: Span,
}

impl<T> Offset<'_, T> {
    fn span(&self, tile: Span) -> Span {
        Span { row: self.task.row + tile.row, column: self.task.column + tile.column, ..tile }
    }
}

impl<T: TileHook> TileHook for Offset<'_, T> {
    fn before(&self, span: Span) {
        self.hook.before(self.span(span));
    }

    fn after(&self, tile: &mut Owned, span: Span) {
        self.hook.after(tile, self.span(span));
    }
}
