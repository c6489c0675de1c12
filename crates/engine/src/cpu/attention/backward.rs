//! dq, dk and dv of attention. Its weights are recomputed from the log-sum-exp.
//!
//! Pᵀ = exp(k qᵀ/√E - lse), dPᵀ = v doutᵀ, δ = Σ out dout, dSᵀ = Pᵀ (dPᵀ - δ)/√E, then
//! dq = dS k, dk = dSᵀ q, dv = Pᵀ dout. P and dS are finished in the tiles of their products, and
//! rounded there if the activations are bf16.

use super::rounding::{RoundedScores, round_rows, round_tile};
use super::{Scores, Task, for_each_head, matrix_of, write_rows};
use crate::cpu::dispatch::multiversion;
use crate::cpu::gemm::{
    Matrix, NoHook, Owned, Shape, Span, Target, array, by_width, copy_a, multiply, pack,
};
use crate::cpu::math;
use crate::cpu::parallel::Scratch;
use crate::cpu::row::set_or_add;
use crate::device::{AttentionGrad, AttentionInput, HeadRows};
use crate::dtype::{Bf16, Dtype, Element};
use std::f32::consts::LOG2_E;

/// Queries and keys of a block. Its P and dS fill 400 kB, and another 300 kB if they are rounded
/// for pairs. This fits into the L2 of CPUs with AVX-512.
const QUERIES: usize = 192;
const KEYS: usize = 256;

/// Results of the forward pass and the gradient: out and dout [Rq, A E], lse [Rq, A].
#[derive(Clone, Copy)]
struct Saved<'a, T> {
    out: &'a [T],
    dout: &'a [T],
    lse: &'a [f32],
    heads: usize,
}

/// The gradients of q, k and v from the gradient of out.
pub(crate) fn attention_backward<T: Element>(
    grad: AttentionGrad<&mut [T]>,
    out: &[T],
    dout: &[T],
    lse: &[f32],
    input: AttentionInput<'_, &[T]>,
) {
    let saved = Saved { out, dout, lse, heads: input.heads };
    let width = input.heads * input.head_dim;
    match grad {
        AttentionGrad::Packed(grad) => set_or_add(grad, |grad| {
            let all = Target::new(grad, 3 * width);
            set_gradients(all, all, width, saved, input);
        }),
        AttentionGrad::Split(dq, dkv) => {
            let (dq, dkv) = (Target::new(dq, width), Target::new(dkv, 2 * width));
            set_gradients(dq, dkv, 0, saved, input);
        }
    }
}

/// Writes dq, and dk starting at column `k_column` of `dkv`, followed by dv.
fn set_gradients<T: Element>(
    dq: Target<T>,
    dkv: Target<T>,
    k_column: usize,
    saved: Saved<'_, T>,
    input: AttentionInput<'_, &[T]>,
) {
    let AttentionInput { q, k, v, heads, head_dim, .. } = input;
    let width = heads * head_dim;
    let plain = |data| HeadRows { data, stride: width, offset: 0 };
    let ask = |next: Task| {
        [q, plain(saved.out), plain(saved.dout)]
            .into_iter()
            .for_each(|rows| next.prefetch_queries(rows));
        [k, v].into_iter().for_each(|rows| next.prefetch_keys(rows));
    };
    for_each_head(&input, ask, |task, scratch| {
        let column = task.head * task.head_dim;
        // SAFETY: these rows of this head belong only to this task; q, k and v are in different
        // columns or buffers.
        let [dq, dk, dv] = unsafe {
            [
                dq.at(task.q_start, column),
                dkv.at(task.k_start, k_column + column),
                dkv.at(task.k_start, k_column + width + column),
            ]
        };
        // SAFETY: as above.
        let d_rows = unsafe { [dk, dv].map(|rows| rows.own(task.k_rows, task.head_dim)) };
        head(task, scratch, saved, [q, k, v], (dq, d_rows));
    });
}

/// Keys and values of one head, and their gradients: compact rows [Rk, E]. Keys and values are
/// pairs if the shape has them.
struct KeySide<'a> {
    keys: &'a mut [f32],
    /// A second copy of the keys, packed by blocks of [`KEYS`].
    packed: &'a mut [f32],
    values: &'a mut [f32],
    d_keys: &'a mut [f32],
    d_values: &'a mut [f32],
}

/// A block of queries and of dout, packed both plain and transposed, and its scores.
struct QuerySide<'a> {
    queries: &'a mut [f32],
    queries_t: &'a mut [f32],
    d_out: &'a mut [f32],
    d_out_t: &'a mut [f32],
    /// Pᵀ and dSᵀ, with [`KEYS`] rows.
    weights: &'a mut [f32],
    d_scores: &'a mut [f32],
    /// The same as rows of bf16, and dSᵀ as pairs of rows. They are empty without pairs.
    weights_bf16: &'a mut [Bf16],
    d_scores_bf16: &'a mut [Bf16],
    d_scores_pairs: &'a mut [f32],
    /// lse log₂ e and δ of each column of scores.
    lse: &'a mut [f32],
    delta: &'a mut [f32],
    /// Compact rows of dq, where they cannot be summed in place.
    d_queries: &'a mut [f32],
}

fn cut(
    scratch: &mut Scratch,
    shape: Shape,
    task: Task,
    in_place: bool,
) -> (KeySide<'_>, QuerySide<'_>) {
    let Task { q_rows, k_rows, head_dim, .. } = task;
    let most = QUERIES.min(q_rows);
    let (key_rows, rows) = (k_rows * shape.depth(head_dim), k_rows * head_dim);
    let (along, across) = (shape.packed_len(most, head_dim), shape.packed_len(head_dim, most));
    let stride = Scores::of(shape, most).stride;
    let keys = KEYS.min(k_rows);
    let pairs = if shape.pairs { keys.div_ceil(2) * stride } else { 0 };
    let [keys, packed, values, d_keys, d_values, queries, queries_t, d_out, d_out_t, rest @ ..] =
        scratch.parts([
            key_rows,
            shape.packed_len(k_rows, head_dim),
            key_rows,
            rows,
            rows,
            along,
            across,
            along,
            across,
            keys * stride,
            keys * stride,
            pairs,
            pairs,
            pairs,
            stride,
            stride,
            if in_place { 0 } else { most * head_dim },
        ]);
    let [weights, d_scores, weights_bf16, d_scores_bf16, d_scores_pairs, lse, delta, d_queries] =
        rest;
    let [weights_bf16, d_scores_bf16] = [weights_bf16, d_scores_bf16].map(bytemuck::cast_slice_mut);
    (
        KeySide { keys, packed, values, d_keys, d_values },
        QuerySide {
            queries,
            queries_t,
            d_out,
            d_out_t,
            weights,
            d_scores,
            weights_bf16,
            d_scores_bf16,
            d_scores_pairs,
            lse,
            delta,
            d_queries,
        },
    )
}

/// One head of one sample. The targets belong to this task.
fn head<T: Element>(
    task: Task,
    scratch: &mut Scratch,
    saved: Saved<'_, T>,
    [q, k, v]: [HeadRows<&[T]>; 3],
    (dq, [mut dk, mut dv]): (Target<T>, [Owned<T>; 2]),
) {
    let Task { q_rows, k_start, k_rows, head, head_dim, .. } = task;
    let shape = Shape::of(T::DTYPE);
    let (mut key_side, mut query_side) = cut(scratch, shape, task, dq.floats().is_some());
    key_side.fill(
        shape,
        matrix_of(k, k_start, head, head_dim),
        matrix_of(v, k_start, head, head_dim),
        task,
    );
    for first in (0..q_rows).step_by(QUERIES) {
        let queries = QUERIES.min(q_rows - first);
        query_side.fill(shape, q, saved, task, first..first + queries);
        // SAFETY: dq belongs to this task.
        let dq = unsafe { dq.at(first, 0) };
        let sums = dq.floats().unwrap_or_else(|| Target::new(query_side.d_queries, head_dim));
        // Without keys there is one empty block, and dq becomes zero.
        for step in 0..k_rows.div_ceil(KEYS).max(1) {
            let at = Block { first_query: first, queries, first_key: step * KEYS };
            block::<T>(task, &mut key_side, &mut query_side, at, sums);
        }
        if dq.floats().is_none() {
            // SAFETY: dq belongs to this task.
            write_rows(&mut unsafe { dq.own(queries, head_dim) }, query_side.d_queries);
        }
    }
    write_rows(&mut dk, key_side.d_keys);
    write_rows(&mut dv, key_side.d_values);
}

impl KeySide<'_> {
    fn fill<T: Element>(&mut self, shape: Shape, k: Matrix<'_, T>, v: Matrix<'_, T>, task: Task) {
        let Task { q_rows, k_rows, head_dim, .. } = task;
        let row = shape.depth(head_dim);
        copy_a(shape, self.keys, row, k, [k_rows, head_dim]);
        copy_a(shape, self.values, row, v, [k_rows, head_dim]);
        for first in (0..k_rows).step_by(KEYS) {
            let packed = &mut self.packed[shape.packed_len(first, head_dim)..];
            pack(shape, packed, k.at(first, 0), [KEYS.min(k_rows - first), head_dim]);
        }
        if q_rows == 0 {
            self.d_keys.fill(0.0);
            self.d_values.fill(0.0);
        }
    }
}

impl QuerySide<'_> {
    /// Packs the given queries of the task.
    fn fill<T: Element>(
        &mut self,
        shape: Shape,
        q: HeadRows<&[T]>,
        saved: Saved<'_, T>,
        task: Task,
        range: std::ops::Range<usize>,
    ) {
        let Task { head, head_dim, .. } = task;
        let (row, count) = (task.q_start + range.start, range.len());
        let width = saved.heads * head_dim;
        let q = matrix_of(q, row, head, head_dim);
        let d_out = Matrix::new(saved.dout, row * width + head * head_dim, width);
        pack(shape, self.queries, q, [count, head_dim]);
        pack(shape, self.queries_t, q.t(), [head_dim, count]);
        pack(shape, self.d_out, d_out, [count, head_dim]);
        pack(shape, self.d_out_t, d_out.t(), [head_dim, count]);
        // Columns after the last query have weights of one. If the number of queries is odd, a
        // product of pairs reads the first of them, and multiplies it by zero.
        self.lse.fill(0.0);
        self.delta.fill(0.0);
        let delta = &mut self.delta[..count];
        let from = row * width + head * head_dim;
        row_products(delta, &saved.out[from..], &saved.dout[from..], [width, head_dim]);
        for (r, lse) in self.lse[..count].iter_mut().enumerate() {
            *lse = saved.lse[(row + r) * saved.heads + head] * LOG2_E;
        }
    }
}

/// A block of queries with a block of keys, which has at most [`KEYS`].
#[derive(Clone, Copy)]
struct Block {
    first_query: usize,
    queries: usize,
    first_key: usize,
}

/// Sets or adds to dq, dk and dv the part of one block.
fn block<T: Element>(
    task: Task,
    key_side: &mut KeySide<'_>,
    query_side: &mut QuerySide<'_>,
    at: Block,
    dq: Target,
) {
    let Task { head_dim, scale, .. } = task;
    let Block { first_query, queries, first_key: first } = at;
    let shape = Shape::of(T::DTYPE);
    let keys = KEYS.min(task.k_rows - first);
    let Scores { columns, stride } = Scores::of(shape, queries);
    let QuerySide { lse, delta, .. } = query_side;
    let weights = Target::new(query_side.weights, stride);
    let d_scores = Target::new(query_side.d_scores, stride);
    let rounded = RoundedScores {
        weights: Target::new(query_side.weights_bf16, stride),
        d_scores: Target::new(query_side.d_scores_bf16, stride),
        pairs: Target::new(query_side.d_scores_pairs, stride),
    };
    let finish_weights = |tile: &mut Owned, at: Span| {
        exp_weights(tile, &lse[at.column..at.column + at.columns], scale * LOG2_E);
    };
    let finish_scores = |tile: &mut Owned, at: Span| {
        // SAFETY: the weights are complete, and no other code writes them now.
        let mut p = unsafe { weights.at(at.row, at.column).own(at.rows, at.columns) };
        let delta = &delta[at.column..at.column + at.columns];
        score_gradient(tile, &mut p, delta, scale);
        match T::DTYPE {
            Dtype::F32 => {}
            // SAFETY: the scratch belongs to this thread, and no other code uses these now.
            Dtype::Bf16 if shape.pairs => round_tile(&mut p, tile, unsafe { rounded.tile(at) }),
            Dtype::Bf16 => [&mut p, tile].into_iter().for_each(round_rows),
        }
    };
    let row = shape.depth(head_dim);
    let [k, v] = [&*key_side.keys, &*key_side.values].map(|x| Matrix::new(x, first * row, row));
    let size = [keys, columns, head_dim];
    // SAFETY: the scratch belongs to this thread.
    unsafe {
        multiply(shape, size, k, query_side.queries_t, weights, false, &finish_weights);
        multiply(shape, size, v, query_side.d_out_t, d_scores, false, &finish_scores);
    }
    let [p, ds, ds_t] = if shape.pairs {
        let rows = [&*query_side.weights_bf16, &*query_side.d_scores_bf16];
        let [p, ds] = rows.map(|x| Matrix::new(bytemuck::cast_slice(x), 0, stride / 2));
        [p, ds, Matrix::new(query_side.d_scores_pairs, 0, stride).t()]
    } else {
        let rows = [&*query_side.weights, &*query_side.d_scores];
        let [p, ds] = rows.map(|x| Matrix::new(x, 0, stride));
        [p, ds, ds.t()]
    };
    let packed = &key_side.packed[shape.packed_len(first, head_dim)..];
    let [d_keys, d_values] = [&mut *key_side.d_keys, &mut *key_side.d_values]
        .map(|x| Target::new(&mut x[first * head_dim..], head_dim));
    let size = [keys, head_dim, queries];
    let add = first_query > 0;
    // SAFETY: dq belongs to this task, and the scratch to this thread.
    unsafe {
        multiply(shape, [queries, head_dim, keys], ds_t, packed, dq, first > 0, &NoHook);
        multiply(shape, size, ds, query_side.queries, d_keys, add, &NoHook);
        multiply(shape, size, p, query_side.d_out, d_values, add, &NoHook);
    }
}

#[inline(always)]
fn weights<const WIDTH: usize>(tile: &mut Owned, lse: &[f32], factor: f32, fused: bool) {
    let first = array::<WIDTH>(lse);
    for r in 0..tile.rows() {
        let mut s = tile.array::<WIDTH>(r);
        for i in 0..WIDTH {
            s[i] = math::exp2(s[i] * factor - first[i], fused);
        }
        tile.set(r, s);
        for (s, lse) in tile.row(r)[WIDTH..].iter_mut().zip(&lse[WIDTH..]) {
            *s = math::exp2(*s * factor - lse, fused);
        }
    }
}

#[inline(always)]
fn gradient<const WIDTH: usize>(tile: &mut Owned, p: &mut Owned, delta: &[f32], scale: f32) {
    let first = array::<WIDTH>(delta);
    for r in 0..tile.rows() {
        let (mut dp, p_row) = (tile.array::<WIDTH>(r), p.array::<WIDTH>(r));
        for i in 0..WIDTH {
            dp[i] = p_row[i] * (dp[i] - first[i]) * scale;
        }
        tile.set(r, dp);
        let rest = tile.row(r)[WIDTH..].iter_mut().zip(&p.row(r)[WIDTH..]);
        for ((dp, p), delta) in rest.zip(&delta[WIDTH..]) {
            *dp = p * (*dp - delta) * scale;
        }
    }
}

/// Σ a b
#[inline(always)]
fn dot<T: Element>(a: &[T], b: &[T]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0f32; 8];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..8 {
            sums[lane] += a[lane].wide() * b[lane].wide();
        }
    }
    for lane in 0..4 {
        sums[lane] += sums[lane + 4];
    }
    let mut sum = (sums[0] + sums[2]) + (sums[1] + sums[3]);
    for (a, b) in a_rest.iter().zip(b_rest) {
        sum += a.wide() * b.wide();
    }
    sum
}

multiversion! {
    /// s = exp(scale s - lse). factor = scale log₂ e, and `lse` holds each column's lse times log₂
    /// e.
    fn exp_weights(tile: &mut Owned, lse: &[f32], factor: f32) {
        by_width!(tile.columns(), weights(tile, lse, factor, FUSED));
    }

    /// dp = p (dp - δ) scale, with each column's δ.
    fn score_gradient(tile: &mut Owned, p: &mut Owned, delta: &[f32], scale: f32) {
        by_width!(tile.columns(), gradient(tile, p, delta, scale));
    }

    /// Σ a b of each row. Rows have `lengths[1]` values and start `lengths[0]` values apart.
    fn row_products<T: Element>(sums: &mut [f32], a: &[T], b: &[T], lengths: [usize; 2]) {
        for (r, sum) in sums.iter_mut().enumerate() {
            let row = r * lengths[0]..r * lengths[0] + lengths[1];
            *sum = dot(&a[row.clone()], &b[row]);
        }
    }
}
