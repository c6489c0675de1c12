//! Matrix products of a linear layer, fused with the work after them.
//!
//! B is packed once by all threads. Then tasks of a fixed size (rows and columns of C) run. Each
//! sums over k in one order, so the bits are the same for any number of threads. A is read in
//! place, but each task copies an A that is transposed, or that has another type than its tiles.
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
use pack::pack_tiles;
pub(crate) use pack::{copy_a, pack, round_to_bf16};
pub(crate) use tile::{Shape, peak_tile};

use super::dispatch::multiversion;
use super::parallel::{for_tasks, with_scratch};
use crate::device::{Epilogue, LinearSize, Write};
use crate::dtype::{Dtype, Element};
use crate::pool::{HostBuffer, LANE};
use epilogue::{Finish, GeluSlope, Place, Plain, TileWork};
use rayon::prelude::*;

/// Number of products summed before C is written. A panel of B then fills a sixteenth of L2.
const K_BLOCK: usize = 512;
/// Rows of C in a task, a multiple of every tile's rows.
const TASK_ROWS: usize = 96;
/// Columns of C in a task, a multiple of every panel's width.
const TASK_COLUMNS: usize = 384;
/// Rows whose distance is a multiple of these bytes share a set of L1, which has eight or twelve
/// lines. A tile has twelve rows with AVX-512. Such rows are copied first. This costs nothing if
/// tiles have fewer rows.
const SAME_SET: usize = 4096;

/// y[R,O] = epilogue(x[R,I] w[O,I]ᵀ + b[O])
pub(crate) fn linear<T: Element>(
    y: &mut [T],
    x: &[T],
    w: &[f32],
    b: Option<&[f32]>,
    size: LinearSize,
    epilogue: Epilogue<&[T], &mut [T]>,
) {
    let LinearSize { rows: r, input: i, output: o } = size;
    let finish = Finish::new(b, epilogue, r, o);
    let product =
        Product { m: r, n: o, k: i, a: Matrix::new(x, 0, i), b: Matrix::new(w, 0, i).t() };
    product.run(y, Store::Set, &finish);
}

/// dx[R,I] = dy[R,O] w[O,I]
pub(crate) fn linear_grad_input<T: Element>(
    dx: Write<&mut [T]>,
    dy: &[T],
    w: &[f32],
    size: LinearSize,
) {
    let LinearSize { rows: r, input: i, output: o } = size;
    let product = Product { m: r, n: i, k: o, a: Matrix::new(dy, 0, o), b: Matrix::new(w, 0, i) };
    match dx {
        Write::Set(dx) => product.run(dx, Store::Set, &Plain),
        Write::Add(dx) => product.run(dx, Store::Add, &Plain),
    }
}

/// ds[R,I] = (dy[R,O] w[O,I]) GELU'(s); h[R,I] = GELU(s)
pub(crate) fn linear_grad_gelu<T: Element>(
    ds: &mut [T],
    h: &mut [T],
    dy: &[T],
    w: &[f32],
    s: &[T],
    size: LinearSize,
) {
    let LinearSize { rows: r, input: i, output: o } = size;
    let slope = GeluSlope::new(h, s, r, i);
    let product = Product { m: r, n: i, k: o, a: Matrix::new(dy, 0, o), b: Matrix::new(w, 0, i) };
    product.run(ds, Store::Set, &slope);
}

/// dw[O,I] += dy[R,O]ᵀ x[R,I]
pub(crate) fn linear_grad_weight<T: Element>(dw: &mut [f32], dy: &[T], x: &[T], size: LinearSize) {
    let LinearSize { rows: r, input: i, output: o } = size;
    let product =
        Product { m: o, n: i, k: r, a: Matrix::new(dy, 0, o).t(), b: Matrix::new(x, 0, i) };
    product.run(dw, Store::AddBlocks, &Plain);
}

/// db[O] += Σ_r dy[R,O]
pub(crate) fn column_sum<T: Element>(db: &mut [f32], dy: &[T], rows: usize, columns: usize) {
    debug_assert_eq!(dy.len(), rows * columns);
    // Each task owns some columns and adds the rows in order.
    db.par_chunks_mut(64).enumerate().for_each(|(task, db)| {
        add_rows(db, &dy[(task * 64).min(dy.len())..], columns);
    });
}

multiversion! {
    /// Adds rows that are `stride` apart.
    fn add_rows<T: Element>(sum: &mut [f32], rows: &[T], stride: usize) {
        for row in rows.chunks(stride) {
            for (sum, value) in sum.iter_mut().zip(row) {
                *sum += value.wide();
            }
        }
    }
}

/// What a product does to the values that C has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    /// Overwrites them.
    Set,
    /// Adds its sums with one rounding.
    Add,
    /// Adds the sum of each block of k in turn. C is f32.
    AddBlocks,
}

/// C[m, n] (+)= A[m, k] B[k, n]
struct Product<'a, A, B> {
    m: usize,
    n: usize,
    k: usize,
    a: Matrix<'a, A>,
    b: Matrix<'a, B>,
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

impl<'a, A: Element, B: Element> Product<'a, A, B> {
    /// Computes C and does `work` for each tile.
    fn run<C: Element>(&self, c: &mut [C], store: Store, work: &impl TileWork<C>) {
        let Self { m, n, k, .. } = *self;
        assert_eq!(c.len(), m * n, "C of a product");
        if m == 0 || n == 0 {
            return;
        }
        let size = TaskSize::of(m, n);
        let group_len = Shape::of(A::DTYPE).packed_len(k, size.columns.min(n));
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
            self.block(part, span, &packed[group * group_len..], store, work);
        });
    }

    /// Packs the panels of B, ordered by group of columns, then by block of k. Weights are rounded
    /// to the type of the activations.
    fn pack_groups(&self, packed: &mut [f32], group_len: usize, group_columns: usize) {
        let Self { n, k, b, .. } = *self;
        let shape = Shape::of(A::DTYPE);
        let groups = packed.par_chunks_mut(group_len.max(1)).enumerate().with_max_len(1);
        groups.for_each(|(group, packed)| {
            let column = group * group_columns;
            let columns = group_columns.min(n - column);
            let width = shape.padded(columns);
            let steps = packed.par_chunks_mut(shape.depth(K_BLOCK) * width);
            let steps = steps.enumerate().with_max_len(1);
            steps.for_each(|(step, packed)| {
                let first = step * K_BLOCK;
                if first < k {
                    let count = K_BLOCK.min(k - first);
                    pack(shape, packed, b.at(first, column), [count, columns]);
                    let rounded = shape.pairs || B::DTYPE == A::DTYPE;
                    if A::DTYPE == Dtype::Bf16 && !rounded {
                        round_to_bf16(&mut packed[..count * width]);
                    }
                }
            });
        });
    }

    /// One task: its blocks of k in order.
    fn block<C: Element>(
        &self,
        c: Target<C>,
        task: Span,
        packed: &[f32],
        store: Store,
        work: &impl TileWork<C>,
    ) {
        let (shape, k) = (Shape::of(A::DTYPE), K_BLOCK.min(self.k));
        // One line more than a block, so that rows start in different sets.
        let copy_row = shape.depth(k) + LANE;
        let copied = match self.copy_of_a() {
            CopyOfA::No(_) => 0,
            CopyOfA::Rows => task.rows * copy_row,
            CopyOfA::Tiles => task.rows.next_multiple_of(shape.rows) * shape.depth(k),
        };
        with_scratch(|scratch| match c.floats() {
            Some(sums) if store != Store::Add || self.k <= K_BLOCK => {
                let [copy] = scratch.parts([copied]);
                let hook = TaskHook { work, task, c, in_place: true, add: false };
                self.blocks(sums, task, packed, store != Store::Set, (copy, copy_row), &hook);
            }
            _ => {
                let [copy, sums] = scratch.parts([copied, task.rows * task.columns]);
                let sums = Target::new(sums, task.columns);
                let hook = TaskHook { work, task, c, in_place: false, add: store != Store::Set };
                self.blocks(sums, task, packed, false, (copy, copy_row), &hook);
            }
        });
    }

    /// How a task copies its rows of A.
    fn copy_of_a(&self) -> CopyOfA<'a> {
        if self.a.row == 1 && self.a.column > 1 {
            // Else each k would be a new line and a new page: 1.05 to 1.37 times as fast for weight
            // gradients (measured: 2026-11-29, Zen 3, in turn within one process).
            return CopyOfA::Tiles;
        }
        let in_place = match Shape::of(A::DTYPE).pairs {
            true if self.k.is_multiple_of(2) => self.a.pairs(),
            true => None,
            false => self.a.floats(),
        };
        let crowded = (self.a.row * size_of::<A>()).is_multiple_of(SAME_SET);
        in_place.filter(|_| !crowded).map_or(CopyOfA::Rows, CopyOfA::No)
    }

    /// The blocks of k of one task, in order.
    fn blocks(
        &self,
        c: Target,
        task: Span,
        packed: &[f32],
        add: bool,
        (copy, copy_row): (&mut [f32], usize),
        hook: &impl TileHook,
    ) {
        let shape = Shape::of(A::DTYPE);
        let width = shape.padded(task.columns);
        // With k = 0 there is one empty block. C is zeroed or kept, and finished.
        let steps = self.k.div_ceil(K_BLOCK).max(1);
        for step in 0..steps {
            let first = step * K_BLOCK;
            let count = K_BLOCK.min(self.k - first);
            let (a, b) = (self.a.at(task.row, first), &packed[shape.depth(first) * width..]);
            let a = match self.copy_of_a() {
                CopyOfA::No(a) => a.at(task.row, shape.depth(first)),
                CopyOfA::Rows => copy_a(shape, copy, copy_row, a, [task.rows, count]),
                CopyOfA::Tiles => pack_tiles(shape, copy, a, [task.rows, count]),
            };
            let size = [task.rows, task.columns, count];
            let add = add || step > 0;
            // SAFETY: the task owns this part.
            unsafe {
                if step + 1 < steps {
                    multiply(shape, size, a, b, c, add, &Prefetch(c));
                } else {
                    multiply(shape, size, a, b, c, add, hook);
                }
            }
        }
    }
}

/// What a task copies before it multiplies.
#[derive(Clone, Copy)]
enum CopyOfA<'a> {
    /// Nothing: tiles read this in place.
    No(Matrix<'a>),
    /// Its rows of A.
    Rows,
    /// Its rows of A, by tiles.
    Tiles,
}

/// The hook of a task's other blocks of k: C is not in cache yet.
struct Prefetch(Target);

impl TileHook for Prefetch {
    fn before(&self, tile: Span) {
        self.0.prefetch(tile);
    }

    fn after(&self, _: &mut Owned, _: Span) {}
}

/// The hook of a task's last block of k.
struct TaskHook<'a, C, W> {
    work: &'a W,
    task: Span,
    /// The task's part of C.
    c: Target<C>,
    /// Whether the sums are there.
    in_place: bool,
    /// Whether they are added to C, if they are elsewhere.
    add: bool,
}

impl<C, W> TaskHook<'_, C, W> {
    /// The span in C of a tile's span in the task.
    fn span(&self, tile: Span) -> Span {
        Span { row: self.task.row + tile.row, column: self.task.column + tile.column, ..tile }
    }
}

impl<C: Element, W: TileWork<C>> TileHook for TaskHook<'_, C, W> {
    fn before(&self, tile: Span) {
        self.c.prefetch(tile);
        self.work.before(self.span(tile));
    }

    fn after(&self, sums: &mut Owned, tile: Span) {
        let place = if self.in_place {
            Place::Here
        } else {
            // SAFETY: the task owns this part of C.
            let c = unsafe { self.c.at(tile.row, tile.column).own(tile.rows, tile.columns) };
            if self.add { Place::Onto(c) } else { Place::Over(c) }
        };
        self.work.finish(sums, place, self.span(tile));
    }
}
