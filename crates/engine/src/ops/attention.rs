//! y = softmax(q kᵀ/√E) v by sample and head. Vaswani et al. 2017, eq. 1. Scores are never saved.
//! The backward pass recomputes them from the saved log-sum-exp (Dao et al. 2022).

use crate::device::{AttentionGrad, AttentionInput, Device, Full, HeadRows, View};
use crate::index::Segments;
use crate::shape::{expect_count, expect_dtype, expect_multiple, matrix};
use crate::tape::Gradients;
use crate::{Dtype, Result, Tape, Tensor};

/// Which rows attend to which rows, and how rows are split into heads.
#[derive(Clone)]
struct Plan {
    q_segments: Segments,
    k_segments: Segments,
    heads: usize,
    width: usize,
}

impl Plan {
    fn new(
        op: &'static str,
        segments: [&Segments; 2],
        rows: [usize; 2],
        width: usize,
        heads: usize,
    ) -> Result<Self> {
        let [q_segments, k_segments] = segments.map(Clone::clone);
        expect_count(op, "the rows of the query segments", q_segments.rows(), rows[0])?;
        expect_count(op, "the rows of the key segments", k_segments.rows(), rows[1])?;
        expect_count(op, "the samples of the key segments", k_segments.len(), q_segments.len())?;
        expect_multiple(op, "the width to split into heads", width, heads)?;
        Ok(Self { q_segments, k_segments, heads, width })
    }

    fn input<'a>(
        &'a self,
        q: HeadRows<View<'a>>,
        kv: &'a Tensor,
        k_offset: usize,
    ) -> AttentionInput<'a, View<'a>> {
        let rows = |offset| HeadRows { data: kv.view(), stride: kv.dim(1), offset };
        AttentionInput {
            q,
            k: rows(k_offset),
            v: rows(k_offset + self.width),
            q_segments: &self.q_segments,
            k_segments: &self.k_segments,
            heads: self.heads,
            head_dim: self.width / self.heads,
        }
    }

    /// Multiply-adds of q kᵀ. The product with v needs the same number.
    fn multiply_adds(&self) -> usize {
        let pairs = self.q_segments.lengths().zip(self.k_segments.lengths());
        pairs.map(|(q, k)| q * k * self.width).sum()
    }

    /// The input of packed qkv [R, 3D].
    fn packed<'a>(&'a self, qkv: &'a Tensor) -> AttentionInput<'a, View<'a>> {
        let q = HeadRows { data: qkv.view(), stride: 3 * self.width, offset: 0 };
        self.input(q, qkv, self.width)
    }

    /// The input of q [Rq, D] and packed kv [Rk, 2D].
    fn split<'a>(&'a self, q: &'a Tensor, kv: &'a Tensor) -> AttentionInput<'a, View<'a>> {
        let q = HeadRows { data: q.view(), stride: self.width, offset: 0 };
        self.input(q, kv, 0)
    }
}

/// y [Rq, D] and lse [Rq, A].
fn forward(
    op: &'static str,
    tape: &Tape,
    device: &'static dyn Device,
    input: AttentionInput<'_, View<'_>>,
) -> [Tensor; 2] {
    let (rows, heads) = (input.q_segments.rows(), input.heads);
    let width = heads * input.head_dim;
    tape.run(op, || {
        let mut y = device.buffer(input.q.data.dtype(), rows * width);
        let mut lse = device.buffer(Dtype::F32, rows * heads);
        device.attention(y.view_mut(), Full(lse.view_mut()), input);
        [Tensor::new(device, y, &[rows, width]), Tensor::new(device, lse, &[rows, heads])]
    })
}

/// Self-attention within each sample. qkv [R, 3D] holds q, k, v side by side, with heads within
/// each, as in timm's fused projection. y [R, D].
pub fn attention(tape: &Tape, qkv: &Tensor, segments: &Segments, heads: usize) -> Result<Tensor> {
    let (rows, columns) = matrix("attention", "qkv", qkv)?;
    expect_multiple("attention", "the width of qkv", columns, 3)?;
    let plan = Plan::new("attention", [segments, segments], [rows, rows], columns / 3, heads)?;
    tape.count("attention", 2 * plan.multiply_adds());
    let [y, lse] = forward("attention", tape, qkv.device(), plan.packed(qkv));
    let backward = {
        let (qkv, y) = (qkv.clone(), y.clone());
        move |gradients: &mut Gradients, dy: Tensor| {
            gradients.count(4 * plan.multiply_adds());
            let (y, dy, lse) = (y.view(), dy.view(), lse.floats());
            gradients.write(&qkv, |d_qkv| {
                let grad = AttentionGrad::Packed(d_qkv);
                qkv.device().attention_backward(grad, y, dy, lse, plan.packed(&qkv));
            })
        }
    };
    Ok(tape.record("attention", y, &[qkv], backward))
}

/// Attention of the rows of q [Rq, D] to the rows of kv [Rk, 2D] (k and v side by side) of the same
/// sample. y [Rq, D].
pub fn cross_attention(
    tape: &Tape,
    q: &Tensor,
    q_segments: &Segments,
    kv: &Tensor,
    kv_segments: &Segments,
    heads: usize,
) -> Result<Tensor> {
    let op = "cross_attention";
    let (q_rows, width) = matrix(op, "q", q)?;
    let (k_rows, columns) = matrix(op, "kv", kv)?;
    expect_count(op, "the width of kv", columns, 2 * width)?;
    expect_dtype(op, "kv", kv, q.dtype())?;
    let plan = Plan::new(op, [q_segments, kv_segments], [q_rows, k_rows], width, heads)?;
    tape.count(op, 2 * plan.multiply_adds());
    let [y, lse] = forward(op, tape, q.device(), plan.split(q, kv));
    let backward = {
        let (q, kv, y) = (q.clone(), kv.clone(), y.clone());
        move |gradients: &mut Gradients, dy: Tensor| {
            let device = q.device();
            gradients.count(4 * plan.multiply_adds());
            // One kernel computes both. Either may have an earlier gradient, so they are added
            // afterwards.
            let [mut dq, mut d_kv] = [&q, &kv].map(|x| device.buffer(x.dtype(), x.len()));
            let grad = AttentionGrad::Split(dq.view_mut(), d_kv.view_mut());
            let (y, dy, lse) = (y.view(), dy.view(), lse.floats());
            device.attention_backward(grad, y, dy, lse, plan.split(&q, &kv));
            gradients.add(&q, Tensor::new(device, dq, q.shape()))?;
            gradients.add(&kv, Tensor::new(device, d_kv, kv.shape()))
        }
    };
    Ok(tape.record(op, y, &[q, kv], backward))
}
