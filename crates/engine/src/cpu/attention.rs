//! softmax(q kᵀ/√E) v by sample and head, in cache.
//!
//! One task per (sample, head). Keys and values are packed once; then a block of query rows at a
//! time: scores, softmax, times values. The scores of a block stay in L2 and are never kept: the
//! backward pass makes them again from the log-sum-exp (Dao et al. 2022, algorithm 4).

use super::gemm::{Matrix, Target, multiply, pack, packed_len};
use super::math;
use crate::cpu::dispatch::multiversion;
use rayon::prelude::*;
use std::cell::RefCell;

/// Query rows of a block: with 1,568 keys its scores fill 600 kB, within L2.
const BLOCK: usize = 96;

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

/// Where the gradients go; all of it is overwritten.
pub(crate) enum QkvGrad<'a> {
    /// dqkv [R, 3D]
    Packed(&'a mut [f32]),
    /// dq [Rq, D], dkv [Rk, 2D]
    Split { dq: &'a mut [f32], dkv: &'a mut [f32] },
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
    fn for_each(&self, run: impl Fn(Task, &mut Vec<f32>) + Sync) {
        thread_local! {
            static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
        }
        let samples = self.q_offsets.len() - 1;
        (0..samples * self.heads).into_par_iter().for_each(|task| {
            let (sample, head) = (task / self.heads, task % self.heads);
            let (q_start, k_start) = (self.q_offsets[sample], self.k_offsets[sample]);
            let task = Task {
                q_start,
                q_rows: self.q_offsets[sample + 1] - q_start,
                k_start,
                k_rows: self.k_offsets[sample + 1] - k_start,
                head,
                head_dim: self.head_dim,
                scale: (self.head_dim as f32).sqrt().recip(),
            };
            // A task runs no other task before it ends, so the scratch is free.
            SCRATCH.with_borrow_mut(|scratch| run(task, scratch));
        });
    }
}

/// Cuts a scratch vector into parts of the given lengths, growing it first.
fn parts<const COUNT: usize>(
    scratch: &mut Vec<f32>,
    lengths: [usize; COUNT],
) -> [&mut [f32]; COUNT] {
    let total = lengths.iter().sum();
    if scratch.len() < total {
        scratch.resize(total, 0.0);
    }
    let mut rest = &mut scratch[..];
    lengths.map(|length| {
        let (part, after) = std::mem::take(&mut rest).split_at_mut(length);
        rest = after;
        part
    })
}

/// out [Rq, A E] and lse [Rq, A]; scale E^-½. A query without keys gets zeros.
pub(crate) fn attention(
    out: &mut [f32],
    lse: &mut [f32],
    q: Rows<'_>,
    k: Rows<'_>,
    v: Rows<'_>,
    shape: &Ragged<'_>,
) {
    let (heads, head_dim) = (shape.heads, shape.head_dim);
    let (out, lse) = (Target::new(out, heads * head_dim), Target::new(lse, heads));
    shape.for_each(|task, scratch| {
        let Task { q_start, q_rows, k_start, k_rows, head, scale, .. } = task;
        let lengths = [packed_len(head_dim, k_rows), packed_len(k_rows, head_dim), BLOCK * k_rows];
        let [keys, values, scores] = parts(scratch, lengths);
        pack(keys, k.head(k_start, head, head_dim).t(), head_dim, k_rows);
        pack(values, v.head(k_start, head, head_dim), k_rows, head_dim);
        for first in (0..q_rows).step_by(BLOCK) {
            let rows = BLOCK.min(q_rows - first);
            let queries = q.head(q_start + first, head, head_dim);
            let block = Target::new(scores, k_rows);
            // SAFETY: the scratch is this thread's.
            unsafe { multiply([rows, k_rows, head_dim], queries, keys, block, false) };
            for (r, row) in scores.chunks_exact_mut(k_rows.max(1)).take(rows).enumerate() {
                let sum = softmax(row, scale);
                // SAFETY: row and head belong to this task alone.
                unsafe { lse.at(q_start + first + r, head).row_mut(0, 1)[0] = sum };
            }
            // SAFETY: these rows of this head belong to this task alone.
            unsafe {
                let part = out.at(q_start + first, head * head_dim);
                if k_rows == 0 {
                    (0..rows).for_each(|r| part.row_mut(r, head_dim).fill(0.0));
                }
                let weights = Matrix::new(scores, 0, k_rows);
                multiply([rows, head_dim, k_rows], weights, values, part, false);
            }
        }
    });
}

/// Gradients of q, k and v.
///
/// With P = exp(S - lse), δ_r = Σ dout_r out_r: dV = Pᵀ dO, dP = dO Vᵀ, dS = P (dP - δ) scale,
/// dQ = dS K, dK = dSᵀ Q.
#[allow(clippy::too_many_arguments)] // q, k, v and what forward saved
pub(crate) fn attention_backward(
    grad: QkvGrad<'_>,
    out: &[f32],
    dout: &[f32],
    lse: &[f32],
    q: Rows<'_>,
    k: Rows<'_>,
    v: Rows<'_>,
    shape: &Ragged<'_>,
) {
    let width = shape.heads * shape.head_dim;
    let (dq, dkv, k_column) = match grad {
        QkvGrad::Packed(grad) => {
            let all = Target::new(grad, 3 * width);
            (all, all, width)
        }
        QkvGrad::Split { dq, dkv } => (Target::new(dq, width), Target::new(dkv, 2 * width), 0),
    };
    let saved = Saved { out, dout, lse, heads: shape.heads, width };
    shape.for_each(|task, scratch| {
        let column = task.head * task.head_dim;
        // SAFETY: these rows of this head belong to this task alone; q, k and v lie in different
        // columns or buffers.
        let targets = unsafe {
            [
                dq.at(task.q_start, column),
                dkv.at(task.k_start, k_column + column),
                dkv.at(task.k_start, k_column + width + column),
            ]
        };
        backward_head(task, scratch, &saved, [q, k, v], targets);
    });
}

struct Saved<'a> {
    out: &'a [f32],
    dout: &'a [f32],
    lse: &'a [f32],
    heads: usize,
    width: usize,
}

fn backward_head(
    task: Task,
    scratch: &mut Vec<f32>,
    saved: &Saved<'_>,
    [q, k, v]: [Rows<'_>; 3],
    [dq, dk, dv]: [Target; 3],
) {
    let Task { q_start, q_rows, k_start, k_rows, head, head_dim, scale } = task;
    let across = packed_len(head_dim, k_rows);
    let along = packed_len(k_rows, head_dim);
    let block = packed_len(BLOCK, head_dim);
    let lengths = [across, across, along, block, block, BLOCK * k_rows, BLOCK * k_rows];
    let [keys_t, values_t, keys, queries, d_outs, weights, d_scores] = parts(scratch, lengths);
    let key_rows = k.head(k_start, head, head_dim);
    pack(keys_t, key_rows.t(), head_dim, k_rows);
    pack(keys, key_rows, k_rows, head_dim);
    pack(values_t, v.head(k_start, head, head_dim).t(), head_dim, k_rows);
    if q_rows == 0 {
        for r in 0..k_rows {
            // SAFETY: the gradients of these rows of this head are this task's.
            unsafe { dk.row_mut(r, head_dim).fill(0.0) };
            // SAFETY: as above.
            unsafe { dv.row_mut(r, head_dim).fill(0.0) };
        }
    }
    for first in (0..q_rows).step_by(BLOCK) {
        let rows = BLOCK.min(q_rows - first);
        let row = q_start + first;
        let q_block = q.head(row, head, head_dim);
        let d_out = Matrix::new(saved.dout, row * saved.width + head * head_dim, saved.width);
        let (p, ds) = (Target::new(weights, k_rows), Target::new(d_scores, k_rows));
        // SAFETY: the scratch is this thread's.
        unsafe { multiply([rows, k_rows, head_dim], q_block, keys_t, p, false) };
        // SAFETY: as above.
        unsafe { multiply([rows, k_rows, head_dim], d_out, values_t, ds, false) };
        for r in 0..rows {
            let from = (row + r) * saved.width + head * head_dim;
            let delta = dot(&saved.out[from..from + head_dim], &saved.dout[from..from + head_dim]);
            let lse = saved.lse[(row + r) * saved.heads + head];
            let range = r * k_rows..(r + 1) * k_rows;
            let (p, ds) = (&mut weights[range.clone()], &mut d_scores[range]);
            score_gradient(p, ds, [lse, delta, scale]);
        }
        pack(queries, q_block, rows, head_dim);
        pack(d_outs, d_out, rows, head_dim);
        let p = Matrix::new(weights, 0, k_rows);
        let ds = Matrix::new(d_scores, 0, k_rows);
        let add = first > 0;
        // SAFETY: the gradients of these rows of this head are this task's.
        unsafe {
            if k_rows == 0 {
                (0..rows).for_each(|r| dq.at(first + r, 0).row_mut(0, head_dim).fill(0.0));
            }
            multiply([rows, head_dim, k_rows], ds, keys, dq.at(first, 0), false);
            multiply([k_rows, head_dim, rows], ds.t(), queries, dk, add);
            multiply([k_rows, head_dim, rows], p.t(), d_outs, dv, add);
        }
    }
}

const LANES: usize = 16;

multiversion! {
    /// row = softmax(scale row); returns log Σ exp(scale row).
    fn softmax(row: &mut [f32], scale: f32) -> f32 {
        let mut most = [f32::NEG_INFINITY; LANES];
        let mut chunks = row.chunks_exact(LANES);
        for chunk in &mut chunks {
            for lane in 0..LANES {
                most[lane] = if chunk[lane] > most[lane] { chunk[lane] } else { most[lane] };
            }
        }
        let tail = chunks.remainder().iter().chain(&most).copied();
        let top = tail.fold(f32::NEG_INFINITY, f32::max) * scale;
        let mut sums = [0.0f32; LANES];
        let mut chunks = row.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for lane in 0..LANES {
                chunk[lane] = math::exp(chunk[lane] * scale - top);
                sums[lane] += chunk[lane];
            }
        }
        for (lane, x) in chunks.into_remainder().iter_mut().enumerate() {
            *x = math::exp(*x * scale - top);
            sums[lane] += *x;
        }
        let sum: f32 = sums.iter().sum();
        let inverse = sum.recip();
        for x in row {
            *x *= inverse;
        }
        top + sum.ln()
    }

    /// From scores s and dp: p = exp(scale s - lse) in place of s, p (dp - delta) scale in place
    /// of dp; the three numbers are [lse, delta, scale].
    fn score_gradient(s: &mut [f32], dp: &mut [f32], numbers: [f32; 3]) {
        let [lse, delta, scale] = numbers;
        for (s, dp) in s.iter_mut().zip(dp) {
            let p = math::exp(*s * scale - lse);
            *s = p;
            *dp = p * (*dp - delta) * scale;
        }
    }

    /// Σ a b
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        let mut sums = [0.0f32; LANES];
        for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
            for (lane, (a, b)) in a.iter().zip(b).enumerate() {
                sums[lane] += a * b;
            }
        }
        sums.iter().sum()
    }
}
