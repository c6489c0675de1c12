//! softmax(q kᵀ/√E) v by sample and head, in cache.
//!
//! One task per (sample, head). Its keys and values are copied once, so that they lie close
//! together; then some queries at a time: scores, softmax, times values. The scores are kept
//! transposed, keys down and queries across: so the softmax of sixteen queries is one vector
//! operation, the next product reads the scores where they lie, and no row has a ragged end.
//! They are never saved: the backward pass makes them again from the log-sum-exp (Dao et al. 2022,
//! algorithm 4).

mod backward;
mod forward;
#[cfg(test)]
mod tests;

pub(crate) use backward::{QkvGrad, attention_backward};
pub(crate) use forward::attention;

use super::gemm::{Matrix, Place, packed_len, prefetch};
use super::parallel::{Scratch, for_tasks, with_scratch};

/// Packed rows: head a of row r is `data[r * stride + offset + a * E ..][..E]`.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) offset: usize,
}

impl<'a> Rows<'a> {
    /// Head `head` of the rows from `row` on, as a matrix [rows, E].
    fn head(self, row: usize, head: usize, head_dim: usize) -> Matrix<'a> {
        Matrix::new(self.data, row * self.stride + self.offset + head * head_dim, self.stride)
    }
}

/// Which rows attend to which.
pub(crate) struct Ragged<'a> {
    /// B + 1 offsets into the query rows.
    pub(crate) q_offsets: &'a [usize],
    /// B + 1 offsets into the key rows.
    pub(crate) k_offsets: &'a [usize],
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
}

/// One task's sizes and places.
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

impl Ragged<'_> {
    /// Runs every task; `ask` is called with the one likely to be next, to prefetch its rows.
    fn for_each(
        &self,
        ask: impl Fn(Task) + Send + Sync,
        run: impl Fn(Task, &mut Scratch) + Send + Sync,
    ) {
        assert_eq!(self.q_offsets.len(), self.k_offsets.len(), "samples of queries and of keys");
        let tasks = self.q_offsets.len().saturating_sub(1) * self.heads;
        for_tasks(tasks, |task| {
            if task + 1 < tasks {
                ask(self.task(task + 1));
            }
            with_scratch(|scratch| run(self.task(task), scratch));
        });
    }

    fn task(&self, index: usize) -> Task {
        let (sample, head) = (index / self.heads, index % self.heads);
        let (q_start, k_start) = (self.q_offsets[sample], self.k_offsets[sample]);
        Task {
            q_start,
            q_rows: self.q_offsets[sample + 1] - q_start,
            k_start,
            k_rows: self.k_offsets[sample + 1] - k_start,
            head,
            head_dim: self.head_dim,
            scale: (self.head_dim as f32).sqrt().recip(),
        }
    }
}

impl Task {
    /// Asks for this head of the queries.
    fn prefetch_queries(self, rows: Rows<'_>) {
        self.prefetch(rows, self.q_start, self.q_rows);
    }

    /// Asks for this head of the keys or values.
    fn prefetch_keys(self, rows: Rows<'_>) {
        self.prefetch(rows, self.k_start, self.k_rows);
    }

    fn prefetch(self, from: Rows<'_>, row: usize, rows: usize) {
        // Long samples stream from memory anyway, and would push this task's rows out.
        const MOST: usize = 512;
        let column = from.offset + self.head * self.head_dim;
        let place = Place { row, column, rows: rows.min(MOST), columns: self.head_dim };
        prefetch(from.data.as_ptr(), from.stride, place);
    }
}

/// A register's worth on the widest instruction set: loops of this length become one.
const LANES: usize = 16;

/// A block of transposed scores, [keys, queries].
#[derive(Clone, Copy)]
struct Scores {
    /// Columns that a product fills: the queries rounded up to a panel's width.
    columns: usize,
    /// From one row to the next: a multiple of [`LANES`].
    stride: usize,
}

impl Scores {
    fn of(queries: usize) -> Self {
        let columns = packed_len(1, queries);
        Self { columns, stride: columns.next_multiple_of(LANES) }
    }
}
