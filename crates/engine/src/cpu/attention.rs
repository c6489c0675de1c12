//! softmax(q kᵀ/√E) v by sample and head, in cache.
//!
//! One task per (sample, head). Its keys and values are copied once, so that they are close
//! together in memory. Then each block of queries gets scores, softmax and the product with values.
//! The scores are transposed: a row per key, a column per query. So the softmax of sixteen queries
//! is one vector operation, and no row has a ragged end. The next product reads the scores in
//! place. Scores are never saved: the backward pass recomputes them from the log-sum-exp (Dao et
//! al. 2022, algorithm 4).
//!
//! In bf16, the weights and the gradients of scores are rounded to bf16 where a product reads them.
//! Until then they are f32, as all sums are.

mod backward;
mod forward;
mod rounding;
#[cfg(test)]
mod tests;

pub(crate) use backward::attention_backward;
pub(crate) use forward::attention;

use super::dispatch::multiversion;
use super::gemm::{Matrix, Owned, Shape, Span, prefetch};
use super::parallel::{Scratch, for_tasks, with_scratch};
use crate::device::{AttentionInput, HeadRows};
use crate::dtype::Element;

/// Head `head` of the rows starting at `row`, as a matrix [rows, E].
fn matrix_of<'a, T: Element>(
    rows: HeadRows<&'a [T]>,
    row: usize,
    head: usize,
    head_dim: usize,
) -> Matrix<'a, T> {
    let start = row * rows.stride + rows.offset + head * head_dim;
    Matrix::new(rows.data, start, rows.stride)
}

/// One task: a sample's rows and a head.
#[derive(Clone, Copy)]
struct Task {
    q_start: usize,
    q_rows: usize,
    k_start: usize,
    k_rows: usize,
    head: usize,
    head_dim: usize,
    scale: f32,
}

/// Runs the task of every sample and head. `ask` is called with the task that is probably next, to
/// prefetch its rows.
fn for_each_head<T: Element>(
    input: &AttentionInput<'_, &[T]>,
    ask: impl Fn(Task) + Send + Sync,
    run: impl Fn(Task, &mut Scratch) + Send + Sync,
) {
    let (heads, head_dim) = (input.heads, input.head_dim);
    let (of_queries, of_keys) = (input.q_segments, input.k_segments);
    assert_eq!(of_queries.len(), of_keys.len(), "samples of queries and of keys");
    let task = |index: usize| {
        let (sample, head) = (index / heads, index % heads);
        let (q, k) = (of_queries.range(sample), of_keys.range(sample));
        Task {
            q_start: q.start,
            q_rows: q.len(),
            k_start: k.start,
            k_rows: k.len(),
            head,
            head_dim,
            scale: (head_dim as f32).sqrt().recip(),
        }
    };
    let tasks = of_queries.len() * heads;
    for_tasks(tasks, |index| {
        if index + 1 < tasks {
            ask(task(index + 1));
        }
        with_scratch(|scratch| run(task(index), scratch));
    });
}

impl Task {
    /// Prefetches this head of the queries.
    fn prefetch_queries<T>(self, rows: HeadRows<&[T]>) {
        self.prefetch(rows, self.q_start, self.q_rows);
    }

    /// Prefetches this head of the keys or values.
    fn prefetch_keys<T>(self, rows: HeadRows<&[T]>) {
        self.prefetch(rows, self.k_start, self.k_rows);
    }

    fn prefetch<T>(self, from: HeadRows<&[T]>, row: usize, rows: usize) {
        // Long samples stream from memory anyway, and would evict this task's rows.
        const MOST: usize = 512;
        let column = from.offset + self.head * self.head_dim;
        let span = Span { row, column, rows: rows.min(MOST), columns: self.head_dim };
        prefetch(from.data.as_ptr(), from.stride, span);
    }
}

/// Values of a register on the widest instruction set. A loop of this length becomes one register
/// operation.
const LANES: usize = 16;

/// A block of transposed scores, [keys, queries].
#[derive(Clone, Copy)]
struct Scores {
    /// Columns that a product fills: the number of queries rounded up to a panel's width.
    columns: usize,
    /// Distance from one row to the next, a multiple of [`LANES`].
    stride: usize,
}

impl Scores {
    fn of(shape: Shape, queries: usize) -> Self {
        let columns = shape.padded(queries);
        Self { columns, stride: columns.next_multiple_of(LANES) }
    }
}

#[inline(always)]
fn write<const WIDTH: usize, T: Element>(to: &mut Owned<T>, from: &[f32]) {
    let columns = if WIDTH > 0 { WIDTH } else { to.columns() };
    for r in 0..to.rows() {
        for (to, from) in to.row(r)[..columns].iter_mut().zip(&from[r * columns..][..columns]) {
            *to = T::round(*from);
        }
    }
}

multiversion! {
    /// Copies compact rows to their places.
    fn write_rows<T: Element>(to: &mut Owned<T>, from: &[f32]) {
        match to.columns() {
            8 => write::<8, T>(to, from),
            16 => write::<16, T>(to, from),
            24 => write::<24, T>(to, from),
            32 => write::<32, T>(to, from),
            64 => write::<64, T>(to, from),
            _ => write::<0, T>(to, from),
        }
    }
}
