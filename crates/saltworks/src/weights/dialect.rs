//! Names of a vision transformer's tensors in other programs. Ours are timm's names.

mod hugging_face;
mod stable_pretraining;
mod timm;

pub(super) use hugging_face::{
    PATCHES as HUGGING_FACE_PATCHES, eps as hugging_face_eps, expect_supported, join_qkv,
};
pub use hugging_face::{config as hugging_face_config, theirs as hugging_face};
pub use stable_pretraining::{
    names as stable_pretraining_names, place as stable_pretraining_place,
    renamed as stable_pretraining_renamed, theirs as stable_pretraining,
};
pub use timm::theirs as timm;

pub(super) use stable_pretraining::owners as stable_pretraining_owners;

use crate::model::VitSpec;
use serde::Serialize;
use std::fmt;

/// Whose names a file uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// Our stages: `encoder.` and `decoder.`, or `student.` and `predictor.`.
    Saltworks,
    /// timm's VisionTransformer. Our encoders use these names, too.
    Timm,
    /// stable-pretraining's MAE or SALT.
    StablePretraining,
    /// facebookresearch/mae, models_mae.py: timm's names beside those of its decoder.
    Facebook,
    /// facebookresearch/dinov2, models/vision_transformer.py: timm's names, but for the registers.
    Dinov2,
    /// transformers' ViTModel, ViTForImageClassification, ViTMAE or Dinov2Model.
    HuggingFace,
}

/// timm's name of the patch embedding's weights.
pub(super) const PATCHES: &str = "patch_embed.proj.weight";

impl Dialect {
    /// The dialect of a single encoder under timm's names, with `before` before them.
    pub(super) fn of_plain(before: &str, has: &impl Fn(&str) -> bool) -> Self {
        let has = |name: &str| has(&format!("{before}{name}"));
        match () {
            () if has("decoder_embed.weight") => Self::Facebook,
            () if has("register_tokens") || has("mask_token") => Self::Dinov2,
            () => Self::Timm,
        }
    }

    /// Our name of a tensor. Single encoders get the prefix `encoder.`. None if it belongs to no
    /// encoder, decoder or predictor: a head, a pooler, a fixed table. Unknown names are kept after
    /// the prefix, so that later checks report them.
    pub(super) fn our_name(self, name: &str) -> Option<String> {
        let outside = match self {
            Self::Saltworks => return Some(name.to_owned()),
            Self::StablePretraining => return stable_pretraining::our_name(name),
            Self::HuggingFace => return hugging_face::our_name(name),
            Self::Timm => false,
            Self::Facebook => name.starts_with("decoder_") || name == "mask_token",
            Self::Dinov2 if name == "register_tokens" => return Some("encoder.reg_token".into()),
            Self::Dinov2 => name == "mask_token",
        };
        let name = if self == Self::Dinov2 { unchunked(name) } else { name.to_owned() };
        // SwiGLU of facebookresearch/dinov2, layers/swiglu_ffn.py.
        let name = name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.");
        (!outside && !name.starts_with("head.")).then(|| format!("encoder.{name}"))
    }
}

/// The name of a tensor in a chunk of blocks: `blocks.1.10.` is block 10, in chunk 1.
fn unchunked(name: &str) -> String {
    let inside = name.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
    match inside {
        Some((_, rest)) if rest.starts_with(|first: char| first.is_ascii_digit()) => {
            format!("blocks.{rest}")
        }
        _ => name.to_owned(),
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Saltworks => "a stage of saltworks",
            Self::Timm => "an encoder under timm's names",
            Self::StablePretraining => "a model of stable-pretraining",
            Self::Facebook => "a model of facebookresearch/mae",
            Self::Dinov2 => "an encoder of facebookresearch/dinov2",
            Self::HuggingFace => "a model of transformers",
        })
    }
}

/// The feature of an encoder that the plain ViT of 2020 lacks, if any. transformers and
/// facebookresearch/mae build only the plain one. The latter also has the norm behind the mean.
pub fn beyond_plain(spec: &VitSpec) -> Option<&'static str> {
    let beyond = [
        (spec.image[0] > 1, "clips"),
        (!spec.class_token, "encoders without a class token"),
        (spec.registers > 0, "registers"),
        (spec.no_embed_class, "class tokens without a position"),
        (spec.layer_scale.is_some(), "layer scale"),
        (spec.qk_norm, "norms of queries and keys"),
        (spec.pre_norm, "norm before the first block"),
        (spec.swiglu, "SwiGLU"),
    ];
    beyond.into_iter().find(|(is, _)| *is).map(|(_, what)| what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_in_chunks_have_the_names_of_blocks() {
        let ours = |name: &str| Dialect::Dinov2.our_name(name).unwrap();
        assert_eq!(ours("blocks.1.10.ls1.gamma"), "encoder.blocks.10.ls1.gamma");
        assert_eq!(ours("blocks.3.norm1.weight"), "encoder.blocks.3.norm1.weight");
        assert_eq!(ours("register_tokens"), "encoder.reg_token");
        assert_eq!(Dialect::Dinov2.our_name("mask_token"), None);
        assert_eq!(Dialect::Timm.our_name("head.bias"), None);
    }
}
