//! Multi-head attention, every score written out.

use super::{Real, add};

/// Head a of row r lies at `data[r * stride + offset + a * E ..][..E]`.
#[derive(Clone, Copy)]
pub struct Rows<'a, T> {
    /// The packed rows.
    pub data: &'a [T],
    /// Values from one row to the next.
    pub stride: usize,
    /// Where head 0 begins in a row.
    pub offset: usize,
}

impl<T: Real> Rows<'_, T> {
    /// Value i of head a of row r.
    fn at(self, r: usize, a: usize, i: usize, head_dim: usize) -> f64 {
        self.data[r * self.stride + self.offset + a * head_dim + i].f64()
    }
}

/// Which rows belong to which sample, and the heads.
pub struct Ragged<'a> {
    /// B + 1 offsets into the query rows.
    pub q_offsets: &'a [usize],
    /// B + 1 offsets into the key rows.
    pub k_offsets: &'a [usize],
    /// A
    pub heads: usize,
    /// E
    pub head_dim: usize,
}

/// Where the gradients go; all of it is overwritten.
pub enum QkvGrad<'a, T> {
    /// dqkv[R,3D]
    Packed(&'a mut [T]),
    /// The gradients of queries, and of keys and values.
    Split {
        /// [Rq,D]
        dq: &'a mut [T],
        /// [Rk,2D]
        dkv: &'a mut [T],
    },
}

/// out[Rq,D] = softmax(q kᵀ E^-½) v by sample and head; lse[Rq,A] = log Σ exp of the scores.
pub fn attention<T: Real>(
    out: &mut [T],
    lse: &mut [T],
    q: Rows<'_, T>,
    k: Rows<'_, T>,
    v: Rows<'_, T>,
    shape: &Ragged<'_>,
) {
    let (heads, e) = (shape.heads, shape.head_dim);
    for (rows, keys) in samples(shape) {
        for r in rows {
            for a in 0..heads {
                let scores: Vec<f64> = keys.clone().map(|j| score(q, k, r, j, a, e)).collect();
                let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let log_sum = max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
                lse[r * heads + a] = T::of(log_sum);
                for i in 0..e {
                    let values = keys.clone().map(|j| v.at(j, a, i, e));
                    let sum = scores.iter().zip(values).map(|(s, v)| (s - log_sum).exp() * v).sum();
                    out[(r * heads + a) * e + i] = T::of(sum);
                }
            }
        }
    }
}

/// With p = softmax(s): dv = pᵀ dout; dp = dout vᵀ; ds = p (dp - Σ p dp); dq = ds k E^-½;
/// dk = dsᵀ q E^-½. Σ p dp over keys is Σ out dout over E.
pub fn attention_backward<T: Real>(
    mut grad: QkvGrad<'_, T>,
    out: &[T],
    dout: &[T],
    lse: &[T],
    q: Rows<'_, T>,
    k: Rows<'_, T>,
    v: Rows<'_, T>,
    shape: &Ragged<'_>,
) {
    let (heads, e) = (shape.heads, shape.head_dim);
    let d = heads * e;
    grad.clear();
    for (rows, keys) in samples(shape) {
        for (r, a, j) in rows
            .flat_map(|r| (0..heads).map(move |a| (r, a)))
            .flat_map(|(r, a)| keys.clone().map(move |j| (r, a, j)))
        {
            let at = (r * heads + a) * e;
            let p = (score(q, k, r, j, a, e) - lse[r * heads + a].f64()).exp();
            let dp: f64 = (0..e).map(|i| dout[at + i].f64() * v.at(j, a, i, e)).sum();
            let mean: f64 = (0..e).map(|i| dout[at + i].f64() * out[at + i].f64()).sum();
            let ds = p * (dp - mean) / (e as f64).sqrt();
            for i in 0..e {
                add(grad.q(r, a * e + i, d), ds * k.at(j, a, i, e));
                add(grad.k(j, a * e + i, d), ds * q.at(r, a, i, e));
                add(grad.v(j, a * e + i, d), p * dout[at + i].f64());
            }
        }
    }
}

impl<T: Real> QkvGrad<'_, T> {
    fn clear(&mut self) {
        match self {
            Self::Packed(qkv) => qkv.fill(T::of(0.0)),
            Self::Split { dq, dkv } => {
                dq.fill(T::of(0.0));
                dkv.fill(T::of(0.0));
            }
        }
    }

    fn q(&mut self, r: usize, column: usize, d: usize) -> &mut T {
        match self {
            Self::Packed(qkv) => &mut qkv[r * 3 * d + column],
            Self::Split { dq, .. } => &mut dq[r * d + column],
        }
    }

    fn k(&mut self, r: usize, column: usize, d: usize) -> &mut T {
        match self {
            Self::Packed(qkv) => &mut qkv[r * 3 * d + d + column],
            Self::Split { dkv, .. } => &mut dkv[r * 2 * d + column],
        }
    }

    fn v(&mut self, r: usize, column: usize, d: usize) -> &mut T {
        match self {
            Self::Packed(qkv) => &mut qkv[r * 3 * d + 2 * d + column],
            Self::Split { dkv, .. } => &mut dkv[r * 2 * d + d + column],
        }
    }
}

/// q_r · k_j E^-½ in head a.
fn score<T: Real>(q: Rows<'_, T>, k: Rows<'_, T>, r: usize, j: usize, a: usize, e: usize) -> f64 {
    (0..e).map(|i| q.at(r, a, i, e) * k.at(j, a, i, e)).sum::<f64>() / (e as f64).sqrt()
}

/// Each sample's query rows and key rows.
fn samples(shape: &Ragged<'_>) -> Vec<(std::ops::Range<usize>, std::ops::Range<usize>)> {
    let ranges = shape.q_offsets.windows(2).zip(shape.k_offsets.windows(2));
    ranges.map(|(q, k)| (q[0]..q[1], k[0]..k[1])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::testing::{assert_close, gradient, numbers, wide};

    const HEADS: usize = 2;
    const HEAD_DIM: usize = 3;

    /// Σ out dout, out and lse of queries [5,6] against keys and values [7,12].
    fn run(q: &[f64], kv: &[f64], dout: &[f64]) -> (f64, Vec<f64>, Vec<f64>) {
        let (mut out, mut lse) = (vec![0.0; 30], vec![0.0; 10]);
        let [q, k, v] = views(q, kv);
        attention(&mut out, &mut lse, q, k, v, &shape());
        (out.iter().zip(dout).map(|(y, dy)| y * dy).sum(), out, lse)
    }

    fn views<'a>(q: &'a [f64], kv: &'a [f64]) -> [Rows<'a, f64>; 3] {
        let rows = |data, stride, offset| Rows { data, stride, offset };
        [rows(q, 6, 0), rows(kv, 12, 0), rows(kv, 12, 6)]
    }

    fn shape() -> Ragged<'static> {
        let (q_offsets, k_offsets) = (&[0, 2, 5], &[0, 3, 7]);
        Ragged { q_offsets, k_offsets, heads: HEADS, head_dim: HEAD_DIM }
    }

    #[test]
    fn attention_gradient_is_the_slope_of_its_forward() {
        let [q, kv, dout] = [30, 84, 30].map(|len| wide(&numbers(1, len)));
        let (_, out, lse) = run(&q, &kv, &dout);
        let (mut dq, mut dkv) = (vec![9.0; 30], vec![9.0; 84]);
        let grad = QkvGrad::Split { dq: &mut dq, dkv: &mut dkv };
        let [vq, vk, vv] = views(&q, &kv);
        attention_backward(grad, &out, &dout, &lse, vq, vk, vv, &shape());
        assert_close("dq", &dq, &gradient(&q, |q| run(q, &kv, &dout).0), 1e-7);
        assert_close("dkv", &dkv, &gradient(&kv, |kv| run(&q, kv, &dout).0), 1e-7);
    }

    #[test]
    fn packed_gradients_are_the_split_ones_side_by_side() {
        let (qkv, dout) = (wide(&numbers(1, 5 * 18)), wide(&numbers(2, 30)));
        let rows = |offset| Rows { data: &qkv[..], stride: 18, offset };
        let (q, k, v) = (rows(0), rows(6), rows(12));
        let offsets = &[0, 2, 5][..];
        let shape =
            Ragged { q_offsets: offsets, k_offsets: offsets, heads: HEADS, head_dim: HEAD_DIM };
        let (mut out, mut lse) = (vec![0.0; 30], vec![0.0; 10]);
        attention(&mut out, &mut lse, q, k, v, &shape);
        let (mut packed, mut dq, mut dkv) = (vec![9.0; 90], vec![9.0; 30], vec![9.0; 60]);
        attention_backward(QkvGrad::Packed(&mut packed), &out, &dout, &lse, q, k, v, &shape);
        let split = QkvGrad::Split { dq: &mut dq, dkv: &mut dkv };
        attention_backward(split, &out, &dout, &lse, q, k, v, &shape);
        let rows = dq.chunks(6).zip(dkv.chunks(12));
        let joined: Vec<f64> = rows.flat_map(|(q, kv)| [q, kv].concat()).collect();
        assert_eq!(packed, joined);
    }
}
