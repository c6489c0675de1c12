//! Attention against loops in f64, on every instruction set and thread count.

use super::{attention, attention_backward};
use crate::check::{assert_close, max_abs, normal, rel_l2};
use crate::cpu::dispatch::cap;
use crate::device::{AttentionGrad, AttentionInput, HeadRows, Write};
use crate::index::Segments;
use std::sync::Mutex;

/// A ragged batch: lengths of queries and of keys, number of heads and their width.
struct Case {
    q_lengths: &'static [usize],
    k_lengths: &'static [usize],
    heads: usize,
    head_dim: usize,
}

const CASES: [Case; 7] = [
    Case { q_lengths: &[3, 1, 7], k_lengths: &[3, 1, 7], heads: 3, head_dim: 4 },
    Case { q_lengths: &[16, 33], k_lengths: &[16, 33], heads: 2, head_dim: 8 },
    Case { q_lengths: &[49, 17, 64], k_lengths: &[49, 17, 64], heads: 2, head_dim: 24 },
    Case { q_lengths: &[197, 40], k_lengths: &[197, 40], heads: 1, head_dim: 64 },
    Case { q_lengths: &[20, 0, 9, 4], k_lengths: &[31, 5, 0, 12], heads: 2, head_dim: 88 },
    // Several blocks of queries and of keys in the backward pass.
    Case { q_lengths: &[210, 5], k_lengths: &[300, 530], heads: 1, head_dim: 5 },
    Case { q_lengths: &[0], k_lengths: &[0], heads: 2, head_dim: 8 },
];

const WHY: &str = "f32 products of up to 530 numbers, exp2 within 2e-7, scores of the size of 1";

fn offsets(lengths: &[usize]) -> Vec<usize> {
    let sum = |sum: &mut usize, length: &usize| {
        *sum += length;
        Some(*sum)
    };
    std::iter::once(0).chain(lengths.iter().scan(0, sum)).collect()
}

/// All inputs as [Rq, D] and [Rk, D], and the gradient of out.
struct Inputs {
    q_offsets: Vec<usize>,
    k_offsets: Vec<usize>,
    width: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    dout: Vec<f32>,
}

/// Results in f64.
struct Results {
    out: Vec<f64>,
    lse: Vec<f64>,
    dq: Vec<f64>,
    dk: Vec<f64>,
    dv: Vec<f64>,
}

impl Case {
    fn inputs(&self) -> Inputs {
        let (q_offsets, k_offsets) = (offsets(self.q_lengths), offsets(self.k_lengths));
        let width = self.heads * self.head_dim;
        let values = |name, rows: &[usize]| normal(name, &[rows[rows.len() - 1] * width]).to_vec();
        let (q, dout) = (values("q", &q_offsets), values("dout", &q_offsets));
        let (k, v) = (values("k", &k_offsets), values("v", &k_offsets));
        Inputs { q_offsets, k_offsets, width, q, k, v, dout }
    }

    fn naive(&self, inputs: &Inputs) -> Results {
        let Inputs { q, k, v, dout, width, .. } = inputs;
        let zeros = |x: &[f32]| vec![0.0; x.len()];
        let mut all = Results {
            out: zeros(q),
            lse: vec![0.0; q.len() / self.head_dim],
            dq: zeros(q),
            dk: zeros(k),
            dv: zeros(v),
        };
        let scale = 1.0 / (self.head_dim as f64).sqrt();
        for sample in 0..self.q_lengths.len() {
            let keys = inputs.k_offsets[sample]..inputs.k_offsets[sample + 1];
            for row in inputs.q_offsets[sample]..inputs.q_offsets[sample + 1] {
                for head in 0..self.heads {
                    let at = |row: usize, e: usize| row * width + head * self.head_dim + e;
                    let dot = |a: &[f32], i: usize, b: &[f32], j: usize| -> f64 {
                        let terms = 0..self.head_dim;
                        terms.map(|e| f64::from(a[at(i, e)]) * f64::from(b[at(j, e)])).sum()
                    };
                    let scores: Vec<f64> =
                        keys.clone().map(|key| scale * dot(q, row, k, key)).collect();
                    let sum: f64 = scores.iter().map(|s| s.exp()).sum();
                    all.lse[row * self.heads + head] = sum.ln();
                    let p: Vec<f64> = scores.iter().map(|s| s.exp() / sum).collect();
                    let dp: Vec<f64> = keys.clone().map(|key| dot(dout, row, v, key)).collect();
                    let delta: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                    for (i, key) in keys.clone().enumerate() {
                        let ds = p[i] * (dp[i] - delta) * scale;
                        for e in 0..self.head_dim {
                            all.out[at(row, e)] += p[i] * f64::from(v[at(key, e)]);
                            all.dq[at(row, e)] += ds * f64::from(k[at(key, e)]);
                            all.dk[at(key, e)] += ds * f64::from(q[at(row, e)]);
                            all.dv[at(key, e)] += p[i] * f64::from(dout[at(row, e)]);
                        }
                    }
                }
            }
        }
        all
    }

    fn segments(&self) -> [Segments; 2] {
        [self.q_lengths, self.k_lengths].map(|lengths| Segments::new(lengths.iter().copied()))
    }

    /// Data, stride and offset of q, k and v.
    fn input<'a>(
        &self,
        rows: [(&'a [f32], usize, usize); 3],
        [q_segments, k_segments]: &'a [Segments; 2],
    ) -> AttentionInput<'a, &'a [f32]> {
        let [q, k, v] = rows.map(|(data, stride, offset)| HeadRows { data, stride, offset });
        let (heads, head_dim) = (self.heads, self.head_dim);
        AttentionInput { q, k, v, q_segments, k_segments, heads, head_dim }
    }
}

/// Rows of the parts side by side.
fn side_by_side(parts: &[&[f32]], width: usize) -> Vec<f32> {
    let rows = parts[0].len() / width;
    let row = |r: usize| parts.iter().flat_map(move |part| &part[r * width..(r + 1) * width]);
    (0..rows).flat_map(row).copied().collect()
}

/// Column block `i` of `count`.
fn block(x: &[f32], i: usize, count: usize, width: usize) -> Vec<f32> {
    x.chunks(count * width).flat_map(|row| &row[i * width..(i + 1) * width]).copied().collect()
}

/// out, lse, dq, dk, dv with k and v side by side in one buffer, as in cross-attention.
fn split(case: &Case, inputs: &Inputs) -> [Vec<f32>; 5] {
    let Inputs { q, k, v, dout, width, .. } = inputs;
    let width = *width;
    let kv = side_by_side(&[k, v], width);
    let segments = case.segments();
    let rows = [(&q[..], width, 0), (&kv[..], 2 * width, 0), (&kv[..], 2 * width, width)];
    let input = case.input(rows, &segments);
    let mut out = vec![f32::NAN; q.len()];
    let mut lse = vec![f32::NAN; q.len() / case.head_dim];
    attention(&mut out, &mut lse, input);
    let (mut dq, mut dkv) = (vec![f32::NAN; out.len()], vec![f32::NAN; kv.len()]);
    let grad = AttentionGrad::Split(&mut dq[..], &mut dkv[..]);
    attention_backward(grad, &out, dout, &lse, input);
    let [dk, dv] = [0, 1].map(|i| block(&dkv, i, 2, width));
    [out, lse, dq, dk, dv]
}

#[test]
fn attention_and_its_gradients_equal_loops() {
    for case in &CASES {
        let inputs = case.inputs();
        let Results { out, lse, dq, dk, dv } = case.naive(&inputs);
        cap::for_each(|level, threads| {
            let got = split(case, &inputs);
            let bounds = [("out", 1e-6), ("lse", 1e-6), ("dq", 3e-6), ("dk", 3e-6), ("dv", 3e-6)];
            let wants = [&out, &lse, &dq, &dk, &dv];
            for ((got, want), (name, bound)) in got.iter().zip(wants).zip(bounds) {
                let (q, k, e) = (case.q_lengths, case.k_lengths, case.head_dim);
                let name = format!("{name} q {q:?} k {k:?} E {e} {level:?} {threads}");
                // A query without keys has lse -∞ on both sides, so there is no difference to
                // measure.
                let finite = |at: &usize| want[*at].is_finite() || got[*at].is_nan();
                let numbers: Vec<usize> = (0..got.len()).filter(finite).collect();
                let got: Vec<f32> = numbers.iter().map(|&at| got[at]).collect();
                let want: Vec<f64> = numbers.iter().map(|&at| want[at]).collect();
                assert_close(&name, &got, &want, rel_l2(bound), WHY);
            }
        });
    }
}

#[test]
fn packed_qkv_gives_the_bits_of_separate_buffers() {
    let case = &CASES[2];
    let inputs = case.inputs();
    let width = inputs.width;
    let qkv = side_by_side(&[&inputs.q, &inputs.k, &inputs.v], width);
    let segments = case.segments();
    let input = case.input([0, 1, 2].map(|i| (&qkv[..], 3 * width, i * width)), &segments);
    cap::for_each(|level, _| {
        let [out, lse, dq, dk, dv] = split(case, &inputs);
        let (mut out_2, mut lse_2) = (vec![0.0; out.len()], vec![0.0; lse.len()]);
        attention(&mut out_2, &mut lse_2, input);
        let mut grad = vec![f32::NAN; qkv.len()];
        let packed = AttentionGrad::Packed(Write::Set(&mut grad[..]));
        attention_backward(packed, &out, &inputs.dout, &lse, input);
        assert!(out == out_2 && lse == lse_2, "{level:?}");
        assert!(grad == side_by_side(&[&dq, &dk, &dv], width), "{level:?}");
    });
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    for case in &CASES[..6] {
        let inputs = case.inputs();
        let seen = Mutex::new(Vec::new());
        cap::for_each(|level, _| {
            let bits =
                split(case, &inputs).map(|x| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
            seen.lock().unwrap().push((level, bits));
        });
        for pair in seen.into_inner().unwrap().chunks(2) {
            assert!(pair[0] == pair[1], "{:?}, E = {}", pair[0].0, case.head_dim);
        }
    }
}

#[test]
fn a_sample_of_a_batch_equals_it_alone() {
    let case = &CASES[2];
    let inputs = case.inputs();
    let alone = Case { q_lengths: &[17], k_lengths: &[17], ..*case };
    let part = |x: &[f32]| x[49 * inputs.width..66 * inputs.width].to_vec();
    let one = Inputs {
        q_offsets: vec![0, 17],
        k_offsets: vec![0, 17],
        width: inputs.width,
        q: part(&inputs.q),
        k: part(&inputs.k),
        v: part(&inputs.v),
        dout: part(&inputs.dout),
    };
    cap::for_each(|level, _| {
        let [out, _, dq, dk, dv] = split(case, &inputs);
        let [out_1, _, dq_1, dk_1, dv_1] = split(&alone, &one);
        for (all, one) in [(out, out_1), (dq, dq_1), (dk, dk_1), (dv, dv_1)] {
            assert!(part(&all) == one, "{level:?}");
        }
    });
}

#[test]
fn large_scores_do_not_overflow() {
    // Scores of about ±2000: their exp is infinite, but the softmax is finite.
    let (q, k) = (vec![60.0; 8], [vec![60.0; 8], vec![-60.0; 8]].concat());
    let v: Vec<f32> = (0..16).map(|i| i as f32).collect();
    let case = Case { q_lengths: &[1], k_lengths: &[2], heads: 1, head_dim: 8 };
    let segments = case.segments();
    let (mut out, mut lse) = (vec![0.0; 8], vec![0.0]);
    attention(&mut out, &mut lse, case.input([&q, &k, &v].map(|x| (&x[..], 8, 0)), &segments));
    // The second key's weight is 2⁻¹²⁶.
    assert_close("out", &out, &v[..8], max_abs(1e-30), "the second key has no weight");
    assert!((lse[0] / (60.0 * 60.0 * 8.0_f32.sqrt()) - 1.0).abs() < 1e-6);
}
