//! The network of an attentive probe: tokens of a frozen encoder in, logits out.

use super::AttentiveForm;
use crate::model::block::{BlockSpec, Blocks};
use crate::model::layers::{Linear, Norm, Start, join};
use engine::random::Random;
use engine::{Module, Parameter, Result, Segments, Tape, Tensor, init, ops};

/// ε of the norms, torch's default as in V-JEPA's pooler.
const EPS: f32 = 1e-5;

/// A learned query attends to an image's tokens, and a linear layer follows. V-JEPA 2's form has
/// three blocks before them.
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
    /// A new head for tokens of width D and `classes` classes. `heads` divides D.
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
            swiglu: false,
            heads,
            eps: EPS,
            layer_scale: None,
            qk_norm: false,
            drop_path: 0.0,
            start,
        };
        let query = init::trunc_normal(&mut random, width, 0.02);
        let mut linear = |input, output| Linear::new(input, output, start, &mut random);
        let head = Self {
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
        };
        head.rescale(form.blocks());
        head
    }

    /// Divides the weights whose output each block adds to its input by √(2 d). The depth d is
    /// counted from 1. The query's block has the same depth as the block before it.
    /// `_rescale_blocks` of facebookresearch/vjepa2, src/models/attentive_pooler.py.
    fn rescale(&self, blocks: usize) {
        self.visit("", &mut |name, parameter| {
            let parts: Vec<&str> = name.split('.').collect();
            let depth = match parts.as_slice() {
                ["blocks", block, "attn", "proj", "weight"]
                | ["blocks", block, "mlp", "fc2", "weight"] => {
                    block.parse().map_or(1, |i: usize| i + 1)
                }
                ["fc2", "weight"] => blocks.max(1),
                _ => return,
            };
            let scale = (2.0 * depth as f32).sqrt().recip();
            let values: Vec<f32> = parameter.value().to_vec().iter().map(|x| scale * x).collect();
            // The number of values is unchanged.
            parameter.set_value(&values).expect("the parameter's own values");
        });
    }

    /// x [R, D], tokens of B images -> logits [B, classes].
    ///
    /// q + attention(q, norm1(x)), then + MLP(norm2), then linear: src/models/attentive_pooler.py
    /// of facebookresearch/jepa (51c59d5) and vjepa2. Their cross-attentions have no output
    /// projection: V-JEPA's declares a layer for it and never calls it.
    pub(super) fn forward(&self, tape: &Tape, x: &Tensor, segments: &Segments) -> Result<Tensor> {
        let x = self.blocks.forward(tape, x.clone(), &segments.clone().into(), None, None)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use engine::check::{assert_close, rel_l2};
    use safetensors::SafeTensors;

    const GOLDEN: &[u8] = include_bytes!("../../../../../tests/golden/attentive.safetensors");

    fn values(golden: &SafeTensors<'_>, name: &str) -> Vec<f32> {
        let data = golden.tensor(name).unwrap().data().as_chunks().0;
        data.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    /// Blocks of 0 and of 3, images of different lengths.
    #[test]
    fn logits_and_gradients_are_those_of_torchs_own_layers() {
        let golden = SafeTensors::deserialize(GOLDEN).unwrap();
        for (form, name) in [(AttentiveForm::VJepa1, "v_jepa1"), (AttentiveForm::VJepa2, "v_jepa2")]
        {
            let head = Head::new(form, (12, 3), 5, 0);
            let parameters = head.parameters();
            for (of, parameter) in &parameters {
                parameter.set_value(&values(&golden, &format!("{name}/weights/{of}"))).unwrap();
            }
            let tape = Tape::new();
            let tokens = Tensor::from_vec(values(&golden, "tokens"), &[18, 12]);
            let segments = Segments::new([6, 11, 1]);
            let logits = head.forward(&tape, &tokens, &segments).unwrap();
            let why = "f32, up to 14 products of lengths up to 48";
            assert_close(
                "logits",
                &logits.to_vec(),
                &values(&golden, &format!("{name}/logits")),
                rel_l2(1e-5),
                why,
            );
            let loss = ops::cross_entropy(&tape, &logits, &[3, 0, 4]).unwrap();
            assert_close(
                "loss",
                &[loss.item()],
                &values(&golden, &format!("{name}/loss")),
                rel_l2(1e-5),
                why,
            );
            parameters.iter().for_each(|(_, parameter)| parameter.zero_grad());
            tape.backward(&loss).unwrap();
            for (of, parameter) in &parameters {
                let wanted = values(&golden, &format!("{name}/grads/{of}"));
                let got = parameter.grad().unwrap().to_vec();
                assert_close(&format!("{name} {of}"), &got, &wanted, rel_l2(1e-4), why);
            }
        }
    }

    #[test]
    fn first_weights_shrink_with_depth() {
        let head = Head::new(AttentiveForm::VJepa2, (64, 4), 5, 0);
        let deviation = |wanted: &str| {
            let (_, parameter) =
                head.parameters().into_iter().find(|(name, _)| name == wanted).unwrap();
            let values = parameter.value().to_vec();
            (values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32).sqrt()
        };
        for (name, wanted) in [
            ("blocks.0.attn.qkv.weight", 0.02),
            ("blocks.0.attn.proj.weight", 0.02 / 2.0_f32.sqrt()),
            ("blocks.2.mlp.fc2.weight", 0.02 / 6.0_f32.sqrt()),
            ("fc2.weight", 0.02 / 6.0_f32.sqrt()),
            ("fc1.weight", 0.02),
        ] {
            // 4,096 draws: 1 % of deviation.
            assert!((deviation(name) / wanted - 1.0).abs() < 0.05, "{name}: {}", deviation(name));
        }
    }
}
