//! softmax(q kᵀ/√E) v by sample and head, in cache.
//!
//! One task per (sample, head). Its keys and values are copied once, so that they are close
//! together in memory. Then each block of queries gets scores, softmax and the product with values.
//! The scores are transposed: a row per key, a column per query. So the softmax of sixteen queries
//! is one vector operation, and no row has a ragged end. The next product reads the scores in
//! place. Scores are never saved: the backward pass recomputes them from the log-sum-exp (Dao et
//! al. 2022, algorithm 4).

mod backward;
mod forward;
#[cfg(test)]
mod tests;

pub(crate) use backward::attention_backward;
pub(crate) use forward::attention;

use super::gemm::{Matrix, Span, packed_len, prefetch};
use super::parallel::{Scratch, for_tasks, with_scratch};
use crate::device::{AttentionInput, HeadRows};

impl<'a> HeadRows<&'a [f32]> {
    /// Head `head` of the rows starting at `row`, as a matrix [rows, E].
    fn head(self, row: usize, head: usize, head_dim: usize) -> Matrix<'a> {
        Matrix::new(self.data, row * self.stride + self.offset + head * head_dim, self.stride)
    }
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

impl AttentionInput<'_, &[f32]> {
    /// Runs every task. `ask` is called with the task that is probably next, to prefetch its rows.
    fn for_each(
        &self,
        ask: impl Fn(Task) + Send + Sync,
        run: impl Fn(Task, &mut Scratch) + Send + Sync,
    ) {
        let samples = self.q_segments.len();
        assert_eq!(samples, self.k_segments.len(), "samples of queries and of keys");
        let tasks = samples * self.heads;
        for_tasks(tasks, |task| {
            if task + 1 < tasks {
                ask(self.task(task + 1));
            }
            with_scratch(|scratch| run(self.task(task), scratch));
        });
    }

    fn task(&self, index: usize) -> Task {
        let (sample, head) = (index / self.heads, index % self.heads);
        let (q, k) = (self.q_segments.range(sample), self.k_segments.range(sample));
        Task {
            q_start: q.start,
            q_rows: q.len(),
            k_start: k.start,
            k_rows: k.len(),
            head,
            head_dim: self.head_dim,
            scale: (self.head_dim as f32).sqrt().recip(),
        }
    }
}

impl Task {
    /// Prefetches this head of the queries.
    fn prefetch_queries(self, rows: HeadRows<&[f32]>) {
        self.prefetch(rows, self.q_start, self.q_rows);
    }

    /// Prefetches this head of the keys or values.
    fn prefetch_keys(self, rows: HeadRows<&[f32]>) {
        self.prefetch(rows, self.k_start, self.k_rows);
    }

    fn prefetch(self, from: HeadRows<&[f32]>, row: usize, rows: usize) {
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
    fn of(queries: usize) -> Self {
        let columns = packed_len(1, queries);
        Self { columns, stride: columns.next_multiple_of(LANES) }
    }
}
