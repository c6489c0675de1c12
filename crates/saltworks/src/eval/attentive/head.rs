//! The network of an attentive probe: tokens of a frozen encoder in, logits out.

use super::AttentiveForm;
use crate::model::block::{BlockSpec, Blocks};
use crate::model::layers::{Linear, Norm, Start, join};
use engine::random::Random;
use engine::{Module, Parameter, Result, Segments, Tape, Tensor, init, ops};

/// ε of the norms, torch's default as in V-JEPA's pooler.
const EPS: f32 = 1e-5;

/// A learned query that attends to an image's tokens, after three blocks in V-JEPA 2's form, and a linear
/// layer.
pub(super) struct Head {
    blocks: Blocks,
    query: Parameter,
    norm1: Norm,
    q: Linear,
    kv: Linear,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
    linear: Linear,
    heads: usize,
}

impl Head {
    /// For tokens of width D and so many classes; `heads` divides D.
    pub(super) fn new(
        form: AttentiveForm,
        (width, heads): (usize, usize),
        classes: usize,
        seed: u64,
    ) -> Self {
        let mut random = Random::new(seed, "attentive", 0);
        let (hidden, start) = (4 * width, Start::TruncNormal);
        let block = BlockSpec {
            width,
            hidden,
            heads,
            eps: EPS,
            layer_scale: None,
            qk_norm: false,
            drop_path: 0.0,
            start,
        };
        let query = init::trunc_normal(&mut random, width, 0.02);
        let mut linear = |input, output| Linear::new(input, output, start, &mut random);
        Self {
            query: Parameter::new("query_token", Tensor::from_vec(query, &[1, width])),
            q: linear(width, width),
            kv: linear(width, 2 * width),
            fc1: linear(width, hidden),
            fc2: linear(hidden, width),
            linear: linear(width, classes),
            norm1: Norm::new(width, EPS),
            norm2: Norm::new(width, EPS),
            blocks: Blocks::new(block, form.blocks(), &mut random),
            heads,
        }
    }

    /// x [R, D], tokens of B images -> logits [B, classes].
    ///
    /// q + attention(q, norm1(x)), then + MLP(norm2), then linear: facebookresearch/jepa,
    /// src/models/attentive_pooler.py, whose cross-attention has no output projection.
    pub(super) fn forward(&self, tape: &Tape, x: &Tensor, segments: &Segments) -> Result<Tensor> {
        let x = self.blocks.forward(tape, x.clone(), segments, None, None)?;
        let kv = self.kv.forward(tape, &self.norm1.forward(tape, &x)?)?; // [R, 2D]
        let each = vec![0; segments.len()];
        let query = self.query.tensor(); // [1, D]
        let q = ops::gather(tape, &self.q.forward(tape, &query)?, &each)?; // [B, D]
        let asking = Segments::uniform(segments.len(), 1);
        let read = ops::cross_attention(tape, &q, &asking, &kv, segments, self.heads)?; // [B, D]
        let x = ops::add(tape, &ops::gather(tape, &query, &each)?, &read)?;
        let normed = self.norm2.forward(tape, &x)?;
        let (w1, b1) = (self.fc1.weight.tensor(), self.fc1.bias.tensor());
        let (w2, b2) = (self.fc2.weight.tensor(), self.fc2.bias.tensor());
        let x = ops::mlp(tape, &normed, (&w1, Some(&b1)), (&w2, Some(&b2)), Some(&x))?;
        self.linear.forward(tape, &x)
    }
}

impl Module for Head {
    fn visit(&self, prefix: &str, f: &mut dyn FnMut(&str, &Parameter)) {
        self.blocks.visit(prefix, f);
        f(&join(prefix, "query_token"), &self.query);
        let norms = [("norm1", &self.norm1), ("norm2", &self.norm2)];
        norms.into_iter().for_each(|(name, norm)| norm.visit(&join(prefix, name), f));
        let layers = [
            ("q", &self.q),
            ("kv", &self.kv),
            ("fc1", &self.fc1),
            ("fc2", &self.fc2),
            ("linear", &self.linear),
        ];
        layers.into_iter().for_each(|(name, layer)| layer.visit(&join(prefix, name), f));
    }
}
