//! Names of a vision transformer's tensors in other programs. Ours are timm's names.

mod hugging_face;
mod stable_pretraining;

pub use hugging_face::{config as hugging_face_config, theirs as hugging_face};
pub(super) use hugging_face::{differs as hugging_face_differs, join_qkv};
pub use stable_pretraining::{
    names as stable_pretraining_names, renamed as stable_pretraining_renamed,
    theirs as stable_pretraining,
};

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
    /// transformers' ViTModel, ViTForImageClassification or ViTMAE.
    HuggingFace,
}

/// timm's name of the patch embedding's weights.
const PATCHES: &str = "patch_embed.proj.weight";

/// Wrappers that put a word before every name.
const WRAPPERS: [&str; 6] =
    ["module.", "_orig_mod.", "_forward_module.", "model.", "net.", "backbone."];

/// Where a tensor of a file belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// It has this name in our models.
    Ours(String),
    /// It belongs to no encoder, decoder or predictor: a head, a pooler, a fixed table.
    LeftOut,
}

impl Dialect {
    /// The dialect of a file with these names, without wrappers.
    pub fn of(names: &[&str]) -> Option<Self> {
        let has = |wanted: &str| names.contains(&wanted);
        if stable_pretraining::owners().any(|owner| has(&format!("{owner}.vit.{PATCHES}"))) {
            return Some(Self::StablePretraining);
        }
        let theirs = "embeddings.patch_embeddings.projection.weight";
        if has(theirs) || has(&format!("vit.{theirs}")) {
            return Some(Self::HuggingFace);
        }
        if has(PATCHES) {
            return Some(if has("decoder_embed.weight") { Self::Facebook } else { Self::Timm });
        }
        let staged = |part: &str| has(&format!("{part}.{PATCHES}"));
        (staged("encoder") || staged("student")).then_some(Self::Saltworks)
    }

    /// Where the tensor of this name belongs. Single encoders get the prefix `encoder.`. Unknown
    /// names are kept after the prefix, so that later checks report them.
    pub(super) fn destination(self, name: &str) -> Destination {
        match self {
            Self::Saltworks => Destination::Ours(name.to_owned()),
            Self::StablePretraining => stable_pretraining::destination(name),
            Self::HuggingFace => hugging_face::destination(name),
            Self::Timm | Self::Facebook => {
                let decoder = name.starts_with("decoder_") || name == "mask_token";
                match (self == Self::Facebook && decoder) || name.starts_with("head.") {
                    true => Destination::LeftOut,
                    false => Destination::Ours(format!("encoder.{name}")),
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

/// The feature of an encoder that the plain ViT of 2020 lacks, if any. transformers and
/// facebookresearch/mae build only the plain one.
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

/// The dialect of these names, and the prefix that wrappers put before the model's. Names without
/// the prefix are ignored, for example those of a loss. It is an error if two models are possible.
pub fn find<'a>(names: &[&'a str]) -> Result<Option<(Dialect, &'a str)>, [&'a str; 2]> {
    let mut before: Vec<&str> = names.iter().flat_map(|name| wrappings(name)).collect();
    before.sort_unstable();
    before.dedup();
    let dialect = |words: &&'a str| {
        let inside: Vec<_> = names.iter().filter_map(|name| name.strip_prefix(*words)).collect();
        Some((Dialect::of(&inside)?, *words))
    };
    let mut found = before.iter().filter_map(dialect);
    match (found.next(), found.next()) {
        (Some((_, first)), Some((_, second))) => Err([first, second]),
        (found, _) => Ok(found),
    }
}

/// Possible prefixes by wrappers of a name, the shortest first.
fn wrappings(name: &str) -> Vec<&str> {
    let mut all = vec![""];
    loop {
        let cut = all[all.len() - 1].len();
        match WRAPPERS.iter().find(|word| name[cut..].starts_with(**word)) {
            Some(word) => all.push(&name[..cut + word.len()]),
            None => return all,
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
    fn words_before_a_models_names_are_wrappers() {
        let timm = "patch_embed.proj.weight";
        let wrapped = format!("module.model.{timm}");
        assert_eq!(find(&[&wrapped, "module.model.b"]), Ok(Some((Dialect::Timm, "module.model."))));
        assert_eq!(find(&[&wrapped, "loss.y"]), Ok(Some((Dialect::Timm, "module.model."))));
        assert_eq!(find(&[&wrapped, timm]), Err(["", "module.model."]));
        assert_eq!(find(&["a", "module.b"]), Ok(None));
        assert_eq!(find(&[]), Ok(None));
    }
}
