//! Multi-head attention with explicit scores. Weights and gradients of scores are rounded to the
//! type of the activations before they are multiplied, as the other factor is.

use super::{Real, set_or_add};
use crate::device::{AttentionGrad, AttentionInput, HeadRows, Write};
use std::ops::Range;

impl<T: Real> HeadRows<&[T]> {
    /// Value i of head a of row r.
    fn at(self, r: usize, a: usize, i: usize, head_dim: usize) -> f64 {
        self.data[r * self.stride + self.offset + a * head_dim + i].f64()
    }
}

/// out[Rq,D] = softmax(q kᵀ E^-½) v by sample and head; lse[Rq,A] = log Σ exp of the scores.
pub fn attention<T: Real, P: Real>(out: &mut [T], lse: &mut [P], input: AttentionInput<'_, &[T]>) {
    let AttentionInput { q, k, v, heads, head_dim: e, .. } = input;
    for (rows, keys) in samples(&input) {
        for r in rows {
            for a in 0..heads {
                let scores: Vec<f64> = keys.clone().map(|j| score(q, k, r, j, a, e)).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
                let total: f64 = weights.iter().sum();
                lse[r * heads + a] = P::of(max + total.ln());
                for i in 0..e {
                    let values = keys.clone().map(|j| v.at(j, a, i, e));
                    let terms = weights.iter().zip(values).map(|(w, v)| T::of(*w).f64() * v);
                    let sum: f64 = terms.sum();
                    // A query without keys gets zeros.
                    let mean = if keys.is_empty() { 0.0 } else { sum / total };
                    out[(r * heads + a) * e + i] = T::of(mean);
                }
            }
        }
    }
}

/// With p = softmax(s): dv = pᵀ dout; dp = dout vᵀ; ds = p (dp - Σ p dp); dq = ds k E^-½;
/// dk = dsᵀ q E^-½. Σ p dp over keys is Σ out dout over E.
pub fn attention_backward<T: Real, P: Real>(
    grad: AttentionGrad<&mut [T]>,
    out: &[T],
    dout: &[T],
    lse: &[P],
    input: AttentionInput<'_, &[T]>,
) {
    match grad {
        AttentionGrad::Packed(grad) => {
            set_or_add(grad, |qkv| set_gradients(Destination::Packed(qkv), out, dout, lse, input));
        }
        AttentionGrad::Split(dq, dkv) => {
            set_or_add(Write::Set(dq), |dq| {
                set_or_add(Write::Set(dkv), |dkv| {
                    set_gradients(Destination::Split { dq, dkv }, out, dout, lse, input);
                });
            });
        }
    }
}

/// The outputs of the gradients.
enum Destination<'a> {
    Packed(&'a mut [f64]),
    Split { dq: &'a mut [f64], dkv: &'a mut [f64] },
}

fn set_gradients<T: Real, P: Real>(
    mut grad: Destination<'_>,
    out: &[T],
    dout: &[T],
    lse: &[P],
    input: AttentionInput<'_, &[T]>,
) {
    let AttentionInput { q, k, v, heads, head_dim: e, .. } = input;
    let d = heads * e;
    grad.clear();
    for (rows, keys) in samples(&input) {
        for (r, a, j) in rows
            .flat_map(|r| (0..heads).map(move |a| (r, a)))
            .flat_map(|(r, a)| keys.clone().map(move |j| (r, a, j)))
        {
            let at = (r * heads + a) * e;
            let p = (score(q, k, r, j, a, e) - lse[r * heads + a].f64()).exp();
            let dp: f64 = (0..e).map(|i| dout[at + i].f64() * v.at(j, a, i, e)).sum();
            let mean: f64 = (0..e).map(|i| dout[at + i].f64() * out[at + i].f64()).sum();
            let ds = T::of(p * (dp - mean) / (e as f64).sqrt()).f64();
            let p = T::of(p).f64();
            for i in 0..e {
                *grad.q(r, a * e + i, d) += ds * k.at(j, a, i, e);
                *grad.k(j, a * e + i, d) += ds * q.at(r, a, i, e);
                *grad.v(j, a * e + i, d) += p * dout[at + i].f64();
            }
        }
    }
}

impl Destination<'_> {
    fn clear(&mut self) {
        match self {
            Self::Packed(qkv) => qkv.fill(0.0),
            Self::Split { dq, dkv } => {
                dq.fill(0.0);
                dkv.fill(0.0);
            }
        }
    }

    fn q(&mut self, r: usize, column: usize, d: usize) -> &mut f64 {
        match self {
            Self::Packed(qkv) => &mut qkv[r * 3 * d + column],
            Self::Split { dq, .. } => &mut dq[r * d + column],
        }
    }

    fn k(&mut self, r: usize, column: usize, d: usize) -> &mut f64 {
        match self {
            Self::Packed(qkv) => &mut qkv[r * 3 * d + d + column],
            Self::Split { dkv, .. } => &mut dkv[r * 2 * d + column],
        }
    }

    fn v(&mut self, r: usize, column: usize, d: usize) -> &mut f64 {
        match self {
            Self::Packed(qkv) => &mut qkv[r * 3 * d + 2 * d + column],
            Self::Split { dkv, .. } => &mut dkv[r * 2 * d + d + column],
        }
    }
}

/// q_r · k_j E^-½ in head a.
fn score<T: Real>(
    q: HeadRows<&[T]>,
    k: HeadRows<&[T]>,
    r: usize,
    j: usize,
    a: usize,
    e: usize,
) -> f64 {
    (0..e).map(|i| q.at(r, a, i, e) * k.at(j, a, i, e)).sum::<f64>() / (e as f64).sqrt()
}

/// Each sample's query rows and key rows.
fn samples<T>(input: &AttentionInput<'_, &[T]>) -> Vec<(Range<usize>, Range<usize>)> {
    let samples = 0..input.q_segments.len();
    samples.map(|b| (input.q_segments.range(b), input.k_segments.range(b))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::Segments;
    use crate::naive::testing::{assert_close, gradient, numbers, wide};

    const HEADS: usize = 2;
    const HEAD_DIM: usize = 3;

    /// Σ out dout, out and lse of queries [5,6] with keys and values [7,12].
    fn run(q: &[f64], kv: &[f64], dout: &[f64]) -> (f64, Vec<f64>, Vec<f64>) {
        let (mut out, mut lse) = (vec![0.0; 30], vec![0.0; 10]);
        attention(&mut out, &mut lse, input([(q, 6, 0), (kv, 12, 0), (kv, 12, 6)], &segments()));
        (out.iter().zip(dout).map(|(y, dy)| y * dy).sum(), out, lse)
    }

    /// Data, stride and offset of q, k and v.
    fn input<'a>(
        rows: [(&'a [f64], usize, usize); 3],
        [q_segments, k_segments]: &'a [Segments; 2],
    ) -> AttentionInput<'a, &'a [f64]> {
        let [q, k, v] = rows.map(|(data, stride, offset)| HeadRows { data, stride, offset });
        let (heads, head_dim) = (HEADS, HEAD_DIM);
        AttentionInput { q, k, v, q_segments, k_segments, heads, head_dim }
    }

    fn segments() -> [Segments; 2] {
        [Segments::new([2, 3]), Segments::new([3, 4])]
    }

    #[test]
    fn attention_gradient_is_the_slope_of_its_forward() {
        let [q, kv, dout] = [30, 84, 30].map(|len| wide(&numbers(1, len)));
        let (_, out, lse) = run(&q, &kv, &dout);
        let (mut dq, mut dkv) = (vec![9.0; 30], vec![9.0; 84]);
        let segments = segments();
        let input = input([(&q, 6, 0), (&kv, 12, 0), (&kv, 12, 6)], &segments);
        attention_backward(AttentionGrad::Split(&mut dq, &mut dkv), &out, &dout, &lse, input);
        assert_close("dq", &dq, &gradient(&q, |q| run(q, &kv, &dout).0), 1e-7);
        assert_close("dkv", &dkv, &gradient(&kv, |kv| run(&q, kv, &dout).0), 1e-7);
    }

    #[test]
    fn packed_gradients_are_the_split_ones_side_by_side() {
        let (qkv, dout) = (wide(&numbers(1, 5 * 18)), wide(&numbers(2, 30)));
        let segments = [(); 2].map(|()| Segments::new([2, 3]));
        let input = input([0, 6, 12].map(|offset| (&qkv[..], 18, offset)), &segments);
        let (mut out, mut lse) = (vec![0.0; 30], vec![0.0; 10]);
        attention(&mut out, &mut lse, input);
        let (mut packed, mut dq, mut dkv) = (vec![9.0; 90], vec![9.0; 30], vec![9.0; 60]);
        let grad = AttentionGrad::Packed(Write::Set(&mut packed[..]));
        attention_backward(grad, &out, &dout, &lse, input);
        attention_backward(AttentionGrad::Split(&mut dq, &mut dkv), &out, &dout, &lse, input);
        let rows = dq.chunks(6).zip(dkv.chunks(12));
        let joined: Vec<f64> = rows.flat_map(|(q, kv)| [q, kv].concat()).collect();
        assert_eq!(packed, joined);
    }
}
