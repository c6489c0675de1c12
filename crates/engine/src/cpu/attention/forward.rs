//! out = softmax(q kᵀ/√E) v, and log Σ exp of each row of scores.

use super::rounding::pair_rows;
use super::{LANES, Scores, Task, for_each_head, matrix_of, write_rows};
use crate::cpu::dispatch::multiversion;
use crate::cpu::gemm::{
    Matrix, NoHook, Owned, Shape, Span, Target, by_width, copy_a, multiply, pack, round_to_bf16,
};
use crate::cpu::math;
use crate::cpu::parallel::Scratch;
use crate::device::{AttentionInput, HeadRows};
use crate::dtype::{Dtype, Element};
use std::f32::consts::LOG2_E;

/// Queries of a block. With 196 keys its scores fill 25 kB, which fits into L1.
const QUERIES: usize = 32;

/// out [Rq, A E] and lse [Rq, A], with scale E^-½. A query without keys gets zeros.
pub(crate) fn attention<T: Element>(
    out: &mut [T],
    lse: &mut [f32],
    input: AttentionInput<'_, &[T]>,
) {
    let AttentionInput { q, k, v, heads, head_dim, .. } = input;
    let (out, lse) = (Target::new(out, heads * head_dim), Target::new(lse, heads));
    let ask = |next: Task| {
        next.prefetch_queries(q);
        next.prefetch_keys(k);
        next.prefetch_keys(v);
    };
    for_each_head(&input, ask, |task, scratch| {
        // SAFETY: these rows of this head belong only to this task.
        let out = unsafe { out.at(task.q_start, task.head * head_dim) };
        // SAFETY: as above.
        let lse = unsafe { lse.at(task.q_start, task.head).own(task.q_rows, 1) };
        head(task, scratch, [q, k, v], (out, lse));
    });
}

/// One head of one sample. The targets belong to this task.
fn head<T: Element>(
    task: Task,
    scratch: &mut Scratch,
    [q, k, v]: [HeadRows<&[T]>; 3],
    targets: (Target<T>, Owned),
) {
    let Task { q_start, q_rows, k_start, k_rows, head, head_dim, scale } = task;
    let (out, mut lse) = targets;
    let shape = Shape::of(T::DTYPE);
    let key_len = shape.depth(head_dim);
    let lengths = [
        k_rows * key_len,
        shape.packed_len(k_rows, head_dim),
        shape.packed_len(head_dim, QUERIES),
        k_rows * Scores::of(shape, QUERIES).stride,
        if out.floats().is_some() { 0 } else { QUERIES * head_dim },
    ];
    let [keys, values, queries_t, scores, sums_of_values] = scratch.parts(lengths);
    let keys =
        copy_a(shape, keys, key_len, matrix_of(k, k_start, head, head_dim), [k_rows, head_dim]);
    pack(shape, values, matrix_of(v, k_start, head, head_dim), [k_rows, head_dim]);
    for first in (0..q_rows).step_by(QUERIES) {
        let queries = QUERIES.min(q_rows - first);
        let block = matrix_of(q, q_start + first, head, head_dim);
        pack(shape, queries_t, block.t(), [head_dim, queries]);
        let Scores { columns, stride } = Scores::of(shape, queries);
        let scores = &mut scores[..k_rows * stride];
        if columns < stride {
            scores.chunks_exact_mut(stride).for_each(|row| row[columns..].fill(0.0));
        }
        let (size, c) = ([k_rows, columns, head_dim], Target::new(scores, stride));
        // SAFETY: the scratch belongs to this thread.
        unsafe { multiply(shape, size, keys, queries_t, c, false, &NoHook) };
        let mut sums = Sums { lse: [0.0; QUERIES], inverse: [0.0; QUERIES] };
        softmax_columns(scores, stride, scale, &mut sums);
        match T::DTYPE {
            Dtype::F32 => {}
            Dtype::Bf16 if shape.pairs => pair_rows(scores, stride),
            Dtype::Bf16 => round_to_bf16(scores),
        }
        for (r, &sum) in sums.lse[..queries].iter().enumerate() {
            lse.row(first + r)[0] = sum;
        }
        let weights = Matrix::new(scores, 0, stride).t();
        let divide = |tile: &mut Owned, span: Span| {
            scale_rows(tile, &sums.inverse[span.row..span.row + span.rows]);
        };
        let size = [queries, head_dim, k_rows];
        // SAFETY: `out` belongs to this task, and the scratch to this thread.
        unsafe {
            let out = out.at(first, 0);
            if let Some(out) = out.floats() {
                multiply(shape, size, weights, values, out, false, &divide);
            } else {
                let rows = Target::new(sums_of_values, head_dim);
                multiply(shape, size, weights, values, rows, false, &divide);
                write_rows(&mut out.own(queries, head_dim), sums_of_values);
            }
        }
    }
}

/// For each query of a block: log Σ exp(score), and 1 / Σ exp(score - most).
struct Sums {
    lse: [f32; QUERIES],
    inverse: [f32; QUERIES],
}

/// [`softmax_columns`] for rows of `STRIDE` scores.
#[inline(always)]
fn softmax<const STRIDE: usize>(scores: &mut [f32], scale: f32, sums: &mut Sums, fused: bool) {
    let factor = scale * LOG2_E;
    let (rows, _) = scores.as_chunks_mut::<STRIDE>();
    let mut most = [f32::NEG_INFINITY; STRIDE];
    for row in &*rows {
        for (most, score) in most.iter_mut().zip(row) {
            *most = if *score > *most { *score } else { *most };
        }
    }
    let top = most.map(|most| most * factor);
    let mut total = [0.0f32; STRIDE];
    for row in rows {
        for lane in 0..STRIDE {
            let weight = math::exp2(row[lane] * factor - top[lane], fused);
            row[lane] = weight;
            total[lane] += weight;
        }
    }
    for lane in 0..STRIDE {
        sums.lse[lane] = most[lane] * scale + total[lane].ln();
        // Without keys the result is zero, not 0/0.
        let sum = if total[lane] == 0.0 { 1.0 } else { total[lane] };
        sums.inverse[lane] = sum.recip();
    }
}

#[inline(always)]
fn scale<const WIDTH: usize>(tile: &mut Owned, factors: &[f32]) {
    for (r, factor) in factors.iter().enumerate() {
        let y = tile.array::<WIDTH>(r).map(|y| y * factor);
        tile.set(r, y);
        for x in &mut tile.row(r)[WIDTH..] {
            *x *= factor;
        }
    }
}

multiversion! {
    /// Each column of `scores` becomes exp(scale score - scale most) of that column.
    fn softmax_columns(scores: &mut [f32], stride: usize, scale: f32, sums: &mut Sums) {
        if stride == QUERIES {
            softmax::<QUERIES>(scores, scale, sums, FUSED);
        } else {
            assert_eq!(stride, LANES, "a block of queries has one stride or the other");
            softmax::<LANES>(scores, scale, sums, FUSED);
        }
    }

    /// Row r times factors[r].
    fn scale_rows(tile: &mut Owned, factors: &[f32]) {
        by_width!(tile.columns(), scale(tile, factors));
    }
}
