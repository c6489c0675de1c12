//! Names and shapes of our models' tensors, without creating them. The sizes that a file states are
//! compared with its contents before memory is allocated.

use super::{Error, NamedTensors, fit};
use crate::model::VitSpec;
use std::collections::BTreeMap;
use std::path::Path;

/// Shapes of tensors by name.
pub(super) type Shapes = BTreeMap<String, Vec<usize>>;

/// The shapes of these tensors.
pub(super) fn of(tensors: &NamedTensors) -> Shapes {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape().to_vec())).collect()
}

/// Shapes of an encoder under timm's names. `spec` has passed its check.
pub(super) fn encoder(spec: &VitSpec) -> Shapes {
    let (width, mut all) = (spec.width, Shapes::new());
    let [pt, ph, pw] = spec.patch;
    let patch = match pt {
        1 => vec![width, spec.channels, ph, pw],
        _ => vec![width, spec.channels, pt, ph, pw],
    };
    let mut add = |name: &str, shape: Vec<usize>| drop(all.insert(name.to_owned(), shape));
    add("patch_embed.proj.weight", patch);
    add("patch_embed.proj.bias", vec![width]);
    if spec.rope.is_none() {
        add("pos_embed", vec![1, spec.position_rows(), width]);
    }
    for (name, count) in
        [("cls_token", usize::from(spec.class_token)), ("reg_token", spec.registers)]
    {
        if count > 0 {
            add(name, vec![1, count, width]);
        }
    }
    if spec.pre_norm {
        linear(&mut all, "norm_pre", &[width]);
    }
    for block in 0..spec.depth {
        let mut add = |name: &str, shape: Vec<usize>| drop(all.insert(name.to_owned(), shape));
        let mut add = |name: &str, shape: Vec<usize>| add(&format!("blocks.{block}.{name}"), shape);
        if spec.layer_scale.is_some() {
            add("ls1.gamma", vec![width]);
            add("ls2.gamma", vec![width]);
        }
        let head = spec.qk_norm.then_some(width / spec.heads);
        for (norm, head) in [("attn.q_norm", head), ("attn.k_norm", head)] {
            for kind in head.iter().flat_map(|_| ["weight", "bias"]) {
                add(&format!("{norm}.{kind}"), head.into_iter().collect());
            }
        }
    }
    blocks(&mut all, "", spec.depth, [width, spec.hidden]);
    let gated = if spec.swiglu { spec.depth } else { 0 };
    for block in 0..gated {
        let both = spec.hidden.saturating_mul(2);
        linear(&mut all, &format!("blocks.{block}.mlp.fc1"), &[both, width]);
    }
    linear(&mut all, if spec.fc_norm { "fc_norm" } else { "norm" }, &[width]);
    all
}

/// Shapes of a predictor, or of a decoder's transformer, from tokens of width `input` to outputs of
/// width `output`.
fn transformer(prefix: &str, depth: usize, [input, width, output]: [usize; 3]) -> Shapes {
    let mut all = Shapes::new();
    linear(&mut all, &format!("{prefix}context_proj"), &[width, input]);
    blocks(&mut all, prefix, depth, [width, width.saturating_mul(4)]);
    linear(&mut all, &format!("{prefix}final_norm"), &[width]);
    linear(&mut all, &format!("{prefix}output_proj"), &[output, width]);
    all
}

fn blocks(all: &mut Shapes, prefix: &str, depth: usize, [width, hidden]: [usize; 2]) {
    for block in 0..depth {
        let layers: [(&str, &[usize]); 6] = [
            ("norm1", &[width]),
            ("attn.qkv", &[width.saturating_mul(3), width]),
            ("attn.proj", &[width, width]),
            ("norm2", &[width]),
            ("mlp.fc1", &[hidden, width]),
            ("mlp.fc2", &[width, hidden]),
        ];
        for (name, shape) in layers {
            linear(all, &format!("{prefix}blocks.{block}.{name}"), shape);
        }
    }
}

/// A weight of this shape and its bias.
fn linear(all: &mut Shapes, name: &str, weight: &[usize]) {
    all.insert(format!("{name}.weight"), weight.to_vec());
    all.insert(format!("{name}.bias"), vec![weight[0]]);
}

/// The number of blocks, counted from the first.
pub(super) fn depth(shapes: &Shapes, prefix: &str) -> usize {
    let has = |block: &usize| shapes.contains_key(&format!("{prefix}blocks.{block}.norm1.weight"));
    (0..).take_while(has).count()
}

/// Compares a stage's tensors with those of its encoders, `wanted`, and of the predictor or decoder
/// beside an encoder of the width `width`.
pub(super) fn fit_stage(
    path: &Path,
    tensors: &NamedTensors,
    mut wanted: Shapes,
    width: usize,
) -> Result<(), Error> {
    let found = of(tensors);
    let first =
        |name: String| found.get(&name).and_then(|shape| shape.first()).copied().unwrap_or(0);
    for (owner, prefix) in [("predictor.", "predictor."), ("decoder.", "decoder.transformer.")] {
        if !found.keys().any(|name| name.starts_with(owner)) {
            continue;
        }
        let inner = first(format!("{prefix}final_norm.weight"));
        let output = first(format!("{prefix}output_proj.weight"));
        wanted.extend(transformer(prefix, depth(&found, prefix), [width, inner, output]));
        let is_decoder = owner == "decoder.";
        if is_decoder {
            linear(&mut wanted, "decoder.transformer.query_proj", &[inner, width]);
        }
        // A predictor may have one for each mask of a sample.
        let tokens = if is_decoder { 1 } else { first(format!("{owner}mask_token")).max(1) };
        let token = vec![tokens, 1, if is_decoder { width } else { inner }];
        wanted.insert(format!("{owner}mask_token"), token);
    }
    fit(path, tensors, &wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Encoder, PixelDecoder, Predictor, Rope, TransformerSpec};
    use engine::Module;

    fn shapes(module: &dyn Module, prefix: &str) -> Shapes {
        let mut all = Shapes::new();
        module.visit(prefix, &mut |name, parameter| {
            all.insert(name.to_owned(), parameter.shape().to_vec());
        });
        all
    }

    #[test]
    fn shapes_are_those_of_the_models() {
        let plain = VitSpec {
            width: 24,
            heads: 2,
            depth: 3,
            hidden: 60,
            ..VitSpec::from_name("vit_tiny_patch16_32").unwrap()
        };
        let rich = VitSpec {
            image: [4, 16, 32],
            patch: [2, 8, 8],
            registers: 3,
            class_token: false,
            no_embed_class: true,
            layer_scale: Some(1.0),
            qk_norm: true,
            fc_norm: true,
            pre_norm: true,
            swiglu: true,
            ..plain.clone()
        };
        let rotary = VitSpec { rope: Some(Rope::Tiled), ..rich.clone() };
        for spec in [&plain, &rich, &rotary] {
            assert_eq!(encoder(spec), shapes(&Encoder::new(spec, 0), ""));
        }
        let spec = TransformerSpec::new(12, 2, 2);
        let predictor = shapes(&Predictor::new(spec, &plain, 20, 3, 0), "predictor");
        let decoder = shapes(&PixelDecoder::new(spec, &plain, 0), "decoder");
        for whole in [predictor, decoder] {
            let tensors: NamedTensors = whole
                .iter()
                .map(|(name, shape)| (name.clone(), engine::Tensor::zeros(shape)))
                .collect();
            fit_stage(Path::new("f"), &tensors, Shapes::new(), 24).unwrap();
            for name in whole.keys() {
                let mut tensors = tensors.clone();
                tensors.remove(name);
                assert!(fit_stage(Path::new("f"), &tensors, Shapes::new(), 24).is_err(), "{name}");
            }
        }
    }
}
