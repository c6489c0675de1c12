//! transformers' ViT: models/vit, models/vit_mae and models/dinov2. Files hold the names on the
//! left of the table. State dicts of transformers 5 in memory hold those in the middle.

use crate::model::VitSpec;
use crate::weights::NamedTensors;
use engine::Tensor;
use serde_json::{Value, json};

/// Names in a block: in files, in memory since transformers 5, and ours.
const BLOCK: [(&str, &str, &str); 8] = [
    ("attention.attention.query", "attention.q_proj", "attn.q"),
    ("attention.attention.key", "attention.k_proj", "attn.k"),
    ("attention.attention.value", "attention.v_proj", "attn.v"),
    ("attention.output.dense", "attention.o_proj", "attn.proj"),
    ("layernorm_before", "layernorm_before", "norm1"),
    ("layernorm_after", "layernorm_after", "norm2"),
    ("intermediate.dense", "mlp.fc1", "mlp.fc1"),
    ("output.dense", "mlp.fc2", "mlp.fc2"),
];

/// Names in a block of Dinov2Model that differ: in files, and ours.
const DINOV2: [(&str, &str); 8] = [
    ("norm1", "norm1"),
    ("norm2", "norm2"),
    ("layer_scale1", "ls1"),
    ("layer_scale2", "ls2"),
    ("mlp.fc1", "mlp.fc1"),
    ("mlp.fc2", "mlp.fc2"),
    ("mlp.weights_in", "mlp.fc1"),
    ("mlp.weights_out", "mlp.fc2"),
];

/// Their name of the patch embedding's weights.
pub(in crate::weights) const PATCHES: &str = "embeddings.patch_embeddings.projection.weight";

/// Names outside the blocks: in files, and ours.
const OTHERS: [(&str, &str); 6] = [
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.register_tokens", "reg_token"),
    (PATCHES, "patch_embed.proj.weight"),
    ("embeddings.patch_embeddings.projection.bias", "patch_embed.proj.bias"),
    ("layernorm", "norm"),
];

/// The parts of `attn.qkv`, in its order.
const QKV: [&str; 3] = ["attn.q", "attn.k", "attn.v"];

/// Our name of a tensor of theirs. None for poolers, heads, decoders and the mask token.
pub(super) fn our_name(name: &str) -> Option<String> {
    let left = ["pooler.", "classifier.", "decoder.", "embeddings.mask_token"];
    if left.iter().any(|left| name.starts_with(left)) {
        return None;
    }
    Some(format!("encoder.{}", translated(name).unwrap_or_else(|| name.to_owned())))
}

fn translated(name: &str) -> Option<String> {
    if let Some((_, ours)) = OTHERS.iter().find(|(theirs, _)| *theirs == name) {
        return Some((*ours).to_owned());
    }
    let (layer, kind) = name.rsplit_once('.')?;
    if let Some((_, ours)) = OTHERS.iter().find(|(theirs, _)| *theirs == layer) {
        return Some(format!("{ours}.{kind}"));
    }
    let inside = layer.strip_prefix("encoder.layer.").or_else(|| layer.strip_prefix("layers."))?;
    let (block, part) = inside.split_once('.')?;
    let ours = BLOCK.iter().find(|(file, memory, _)| [file, memory].contains(&&part));
    let ours = ours.map(|(_, _, ours)| ours);
    let ours = ours.or_else(|| Some(&DINOV2.iter().find(|(file, _)| *file == part)?.1))?;
    let kind = if kind == "lambda1" { "gamma" } else { kind };
    Some(format!("blocks.{block}.{ours}.{kind}"))
}

/// Joins queries, keys and values into one tensor, as in timm. Parts that do not fit together are
/// left for later checks to report.
pub(in crate::weights) fn join_qkv(tensors: &mut NamedTensors) {
    let names: Vec<String> =
        tensors.keys().filter(|name| name.contains(".attn.q.")).cloned().collect();
    for name in names {
        let parts = QKV.map(|part| name.replacen("attn.q", part, 1));
        let found: Vec<Tensor> =
            parts.iter().filter_map(|part| tensors.get(part).cloned()).collect();
        let [q, k, v] = found.as_slice() else { continue };
        if q.shape() != k.shape() || q.shape() != v.shape() {
            continue;
        }
        let mut shape = q.shape().to_vec();
        let Some(rows) = shape.first_mut() else { continue };
        *rows = rows.saturating_mul(3);
        let values = [q.to_host(), k.to_host(), v.to_host()].concat();
        parts.iter().for_each(|part| drop(tensors.remove(part)));
        tensors.insert(name.replacen("attn.q", "attn.qkv", 1), Tensor::from_vec(values, &shape));
    }
}

/// An encoder's tensors under the names of ViTModel's files.
pub fn theirs(encoder: &NamedTensors) -> Vec<(String, Tensor)> {
    let mut all = Vec::new();
    for (name, tensor) in encoder {
        if let Some((theirs, _)) = OTHERS.iter().find(|(_, ours)| ours == name) {
            all.push(((*theirs).to_owned(), tensor.clone()));
            continue;
        }
        let (layer, kind) = name.rsplit_once('.').unwrap_or(("", name));
        if layer == "norm" {
            all.push((format!("layernorm.{kind}"), tensor.clone()));
            continue;
        }
        let Some((block, part)) =
            layer.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'))
        else {
            continue;
        };
        let written = |ours: &str| BLOCK.iter().find(|(_, _, name)| *name == ours);
        let name = |theirs: &str| format!("encoder.layer.{block}.{theirs}.{kind}");
        if part != "attn.qkv" {
            all.extend(written(part).map(|(theirs, ..)| (name(theirs), tensor.clone())));
            continue;
        }
        let mut shape = tensor.shape().to_vec();
        shape[0] /= 3;
        let values = tensor.to_host();
        let thirds = values.chunks_exact(tensor.len() / 3);
        for (third, (theirs, ..)) in thirds.zip(QKV.iter().filter_map(|part| written(part))) {
            all.push((name(theirs), Tensor::from_vec(third, &shape)));
        }
    }
    all
}

/// Supported models of transformers, by `model_type`.
const TYPES: [&str; 6] = ["vit", "vit_mae", "vit_msn", "ijepa", "dinov2", "dinov2_with_registers"];

/// Refuses the `config.json` of a model that ours cannot compute.
pub(in crate::weights) fn expect_supported(config: &Value) -> Result<(), String> {
    let kind = kind(config);
    if !TYPES.contains(&kind) {
        let types = TYPES.join(", ");
        return Err(format!(
            "its config.json has model_type {kind:?}, expected one of {types}. Choose another model"
        ));
    }
    // SwiGLU has its own activation.
    if config.get("use_swiglu_ffn").and_then(Value::as_bool) == Some(true) {
        return eps(config).map(drop);
    }
    // Defaults of transformers: models/vit/configuration_vit.py.
    let act = config.get("hidden_act").map_or(Some("gelu"), Value::as_str).unwrap_or("none");
    if act != "gelu" {
        return Err(format!(
            "its config.json has hidden_act {act:?}, expected \"gelu\", the only one supported. \
             Choose another model"
        ));
    }
    eps(config).map(drop)
}

fn kind(config: &Value) -> &str {
    config.get("model_type").map_or(Some("vit"), Value::as_str).unwrap_or("none")
}

/// The ε of the layer norms of a model with this `config.json`.
pub(in crate::weights) fn eps(config: &Value) -> Result<f32, String> {
    // Defaults of transformers: configuration_*.py of the models.
    let kind = kind(config);
    let usual = if kind.starts_with("dinov2") || kind == "vit_msn" { 1e-6 } else { 1e-12 };
    let stated = config.get("layer_norm_eps").map_or(Some(usual), Value::as_f64);
    let eps = stated.unwrap_or(f64::NAN);
    match (0.0..1.0).contains(&eps) {
        true => Ok(eps as f32),
        false => Err(format!(
            "its config.json has layer_norm_eps {eps:e}, expected a number of 0 or more and less \
             than 1. Restore the config.json of these weights"
        )),
    }
}

/// `config.json` of a ViTModel of these sizes. It is an error if ViTModel lacks a feature of the
/// encoder.
pub fn config(spec: &VitSpec) -> Result<Value, &'static str> {
    let [_, height, width] = spec.image;
    let [_, ph, pw] = spec.patch;
    if let Some(what) = super::beyond_plain(spec) {
        return Err(what);
    }
    if spec.fc_norm {
        return Err("norm behind the mean");
    }
    let side = |height: usize, width: usize| match height == width {
        true => json!(height),
        false => json!([height, width]),
    };
    // As it is written, and not as the nearest f32.
    let eps = spec.eps.to_string().parse::<f64>().unwrap_or_default();
    Ok(json!({
        "architectures": ["ViTModel"],
        "attention_probs_dropout_prob": 0.0,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": spec.width,
        "image_size": side(height, width),
        "intermediate_size": spec.hidden,
        "layer_norm_eps": eps,
        "model_type": "vit",
        "num_attention_heads": spec.heads,
        "num_channels": spec.channels,
        "num_hidden_layers": spec.depth,
        "patch_size": side(ph, pw),
        "qkv_bias": true,
    }))
}
