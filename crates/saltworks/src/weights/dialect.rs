//! What others call the tensors of a vision transformer. Ours are timm's names.

mod hugging_face;
mod stable_pretraining;

pub use hugging_face::{config as hugging_face_config, theirs as hugging_face};
pub(super) use hugging_face::{differs as hugging_face_differs, join_qkv};
pub use stable_pretraining::{names as stable_pretraining_names, theirs as stable_pretraining};

use crate::model::VitSpec;
use serde::Serialize;
use std::fmt;

/// Whose names a file uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// A stage of ours: `encoder.` and `decoder.`, or `student.` and `predictor.`.
    Saltworks,
    /// timm's VisionTransformer; an encoder of ours, too.
    Timm,
    /// stable-pretraining's MAE or SALT.
    StablePretraining,
    /// facebookresearch/mae, models_mae.py: timm's names beside those of its decoder.
    Facebook,
    /// transformers' ViTModel, ViTForImageClassification or ViTMAE.
    HuggingFace,
}

/// Wrappers that put a word before every name.
const WRAPPERS: [&str; 6] =
    ["module.", "_orig_mod.", "_forward_module.", "model.", "net.", "backbone."];

/// What becomes of a tensor of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It has this name here.
    Ours(String),
    /// It is no part of an encoder, decoder or predictor of ours: a head, a pooler, a fixed table.
    LeftOut,
}

impl Dialect {
    /// The dialect of a file with these names, without wrappers.
    pub fn of(names: &[&str]) -> Option<Self> {
        let has = |wanted: &str| names.contains(&wanted);
        let ends = |wanted: &str| names.iter().any(|name| name.ends_with(wanted));
        if ends(".vit.patch_embed.proj.weight") {
            return Some(Self::StablePretraining);
        }
        if ends("embeddings.patch_embeddings.projection.weight") {
            return Some(Self::HuggingFace);
        }
        if has("patch_embed.proj.weight") {
            return Some(if has("decoder_embed.weight") { Self::Facebook } else { Self::Timm });
        }
        let staged = |part: &str| has(&format!("{part}.patch_embed.proj.weight"));
        (staged("encoder") || staged("student")).then_some(Self::Saltworks)
    }

    /// What becomes of the tensor of this name. Encoders alone get the name `encoder.`; what they do
    /// not know keeps its name behind that, so that it is told.
    pub(super) fn place(self, name: &str) -> Place {
        match self {
            Self::Saltworks => Place::Ours(name.to_owned()),
            Self::StablePretraining => stable_pretraining::place(name),
            Self::HuggingFace => hugging_face::place(name),
            Self::Timm | Self::Facebook => {
                let decoder = name.starts_with("decoder_") || name == "mask_token";
                match (self == Self::Facebook && decoder) || name.starts_with("head.") {
                    true => Place::LeftOut,
                    false => Place::Ours(format!("encoder.{name}")),
                }
            }
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Saltworks => "a stage of saltworks",
            Self::Timm => "an encoder under timm's names",
            Self::StablePretraining => "a model of stable-pretraining",
            Self::Facebook => "a model of facebookresearch/mae",
            Self::HuggingFace => "a model of transformers",
        })
    }
}

/// What an encoder of these sizes has that the plain ViT of 2020 has not, which transformers and
/// facebookresearch/mae build.
pub fn beyond_plain(spec: &VitSpec) -> Option<&'static str> {
    let beyond = [
        (spec.image[0] > 1, "clips"),
        (!spec.class_token, "encoders without a class token"),
        (spec.registers > 0, "registers"),
        (spec.no_embed_class, "class tokens without a position"),
        (spec.layer_scale.is_some(), "layer scale"),
        (spec.qk_norm, "norms of queries and keys"),
    ];
    beyond.into_iter().find(|(is, _)| *is).map(|(_, what)| what)
}

/// How many bytes of words of wrappers all these names begin with.
pub fn wrapping(names: &[&str]) -> usize {
    let mut cut = 0;
    loop {
        let begin = |word: &&&str| names.iter().all(|name| name[cut..].starts_with(**word));
        match WRAPPERS.iter().find(begin) {
            Some(word) if !names.is_empty() => cut += word.len(),
            _ => return cut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialect(names: &[&str]) -> Option<Dialect> {
        Dialect::of(names)
    }

    #[test]
    fn names_tell_whose_file_it_is() {
        let timm = "patch_embed.proj.weight";
        assert_eq!(dialect(&[timm]), Some(Dialect::Timm));
        assert_eq!(dialect(&[timm, "decoder_embed.weight"]), Some(Dialect::Facebook));
        let of_mae = ["encoder.patch_embed.proj.weight", "encoder.vit.patch_embed.proj.weight"];
        assert_eq!(dialect(&of_mae), Some(Dialect::StablePretraining));
        assert_eq!(dialect(&of_mae[..1]), Some(Dialect::Saltworks));
        let hugging = "vit.embeddings.patch_embeddings.projection.weight";
        assert_eq!(dialect(&[hugging]), Some(Dialect::HuggingFace));
        assert_eq!(dialect(&["conv1.weight"]), None);
    }

    #[test]
    fn words_before_all_names_are_wrappers() {
        let wrapped = |names: &[&str]| wrapping(names);
        assert_eq!(wrapped(&["module.model.a", "module.model.b"]), "module.model.".len());
        assert_eq!(wrapped(&["module.a", "b"]), 0);
        assert_eq!(wrapped(&[]), 0);
    }
}
