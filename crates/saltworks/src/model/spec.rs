//! Sizes of timm's models by name. timm/models/vision_transformer.py.

use super::rotary::{self, Rope};
use crate::mask::Grid;
use serde::{Deserialize, Serialize};

/// A vision transformer's sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VitSpec {
    /// Frames, height and width in pixels.
    pub image: [usize; 3],
    /// pt, ph, pw
    pub patch: [usize; 3],
    /// C
    pub channels: usize,
    /// D
    pub width: usize,
    /// L
    pub depth: usize,
    /// A
    pub heads: usize,
    /// F
    pub hidden: usize,
    /// Register tokens (Darcet et al. 2024).
    pub registers: usize,
    /// Whether there is a class token.
    pub class_token: bool,
    /// Whether class token and registers have no position, as in timm's option of this name.
    pub no_embed_class: bool,
    /// Initial value of layer scale, or none without layer scale.
    pub layer_scale: Option<f32>,
    /// Layer norm on each head's queries and keys.
    pub qk_norm: bool,
    /// Rotary positions in place of a learned table. None in files that predate them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rope: Option<Rope>,
    /// Whether the last norm comes behind the mean of the patches, or behind the class token, in
    /// place of a norm of all tokens: timm's option of this name.
    #[serde(default, skip_serializing_if = "is_not_set")]
    pub fc_norm: bool,
    /// Whether tokens go through a layer norm before the first block: timm's option of this name,
    /// CLIP's norm.
    #[serde(default, skip_serializing_if = "is_not_set")]
    pub pre_norm: bool,
    /// Whether the MLPs are SwiGLU, as in DINOv2's giant. F is the width behind the gate.
    #[serde(default, skip_serializing_if = "is_not_set")]
    pub swiglu: bool,
    /// ε of the layer norms.
    #[serde(default = "usual_eps", skip_serializing_if = "is_usual_eps")]
    pub eps: f32,
    /// Rate of stochastic depth in the last block. It grows linearly from 0 in the first block.
    pub drop_path: f32,
}

/// Options that came later are written only if they are set. Files of encoders without them stay
/// the same.
fn is_not_set(option: &bool) -> bool {
    !option
}

/// timm's ε.
pub const USUAL_EPS: f32 = 1e-6;

/// timm's ε of encoders with a norm before the first block.
pub const PRE_NORM_EPS: f32 = 1e-5;

fn usual_eps() -> f32 {
    USUAL_EPS
}

fn is_usual_eps(eps: &f32) -> bool {
    *eps == USUAL_EPS
}

/// A model that cannot be built.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SpecError {
    /// The name is unknown.
    #[error(
        "model {0:?} is unknown. Names are timm's: vit_SIZE_patchP_IMAGE with SIZE tiny, small, \
         base, large, huge, giant or gigantic, and IMAGE a multiple of P, e.g. \
         vit_tiny_patch16_224, and those of DeiT and DINOv2{hint}",
        hint = hint(.0)
    )]
    Name(String),
    /// timm's model of this name has something that this program lacks.
    #[error("model {name:?} has {feature}, which this program lacks")]
    Feature {
        /// timm's name.
        name: String,
        /// What it has.
        feature: &'static str,
    },
    /// The width cannot be split into the heads.
    #[error(
        "{name} width {width} is not divisible by {heads} heads. Choose a width that is a multiple \
         of the heads, or heads that divide the width"
    )]
    Heads {
        /// The model, the predictor or the decoder.
        name: &'static str,
        /// D
        width: usize,
        /// A
        heads: usize,
    },
    /// The image is smaller than a patch.
    #[error(
        "the image's {axis} of {image} {unit} is smaller than a patch of {patch}. Choose a larger \
         image or a smaller patch", unit = unit(axis)
    )]
    Small {
        /// Which axis.
        axis: &'static str,
        /// Pixels.
        image: usize,
        /// Pixels.
        patch: usize,
    },
    /// Patches do not cover the image.
    #[error(
        "the image's {axis} of {image} {unit} is not a multiple of the patch's {patch}. Choose \
         {lower} or {upper} {unit}, or another patch", unit = unit(axis)
    )]
    Left {
        /// Which axis.
        axis: &'static str,
        /// Pixels.
        image: usize,
        /// Pixels.
        patch: usize,
        /// The next smaller size that fits.
        lower: usize,
        /// The next larger size that fits.
        upper: usize,
    },
    /// A size is zero.
    #[error("{name} {size} is 0, expected at least 1")]
    Zero {
        /// The model, the predictor or the decoder.
        name: &'static str,
        /// Which size.
        size: &'static str,
    },
    /// A size far beyond any model.
    #[error("{name} {size} is {found}, expected at most {most}")]
    Large {
        /// The model, the predictor or the decoder.
        name: &'static str,
        /// Which size.
        size: &'static str,
        /// The size found.
        found: usize,
        /// The largest allowed size.
        most: usize,
    },
    /// Layer scale must be a number.
    #[error("model layer_scale is {0}, expected a finite number")]
    LayerScale(f32),
    /// Heads too narrow for rotary positions.
    #[error(
        "{name} heads have {found} values, expected at least 6 for rotary positions. Choose fewer \
         heads or a larger width"
    )]
    NarrowHeads {
        /// The model, the predictor or the decoder.
        name: &'static str,
        /// E
        found: usize,
    },
    /// ε is out of range.
    #[error("model eps is {0}, expected a number of 0 or more and less than 1")]
    Eps(f32),
    /// The rate of stochastic depth is out of range.
    #[error("model drop_path is {0}, expected a rate of 0 or more and less than 1")]
    DropPath(f32),
}

/// The axis of time.
pub(crate) const LENGTH: &str = "length";

/// What to do about a name that timm knows, but that names weights, too.
fn hint(name: &str) -> String {
    match name.split_once('.') {
        Some((model, weights)) if VitSpec::from_name(model).is_ok() => format!(
            ". {weights:?} names weights, which are not downloaded. Name {model:?}, and give a \
             file of weights with --teacher FILE or a stage's `init`"
        ),
        _ => String::new(),
    }
}

/// The unit of an axis.
fn unit(axis: &str) -> &'static str {
    if axis == LENGTH { "frames" } else { "pixels" }
}

/// Far beyond the largest known model. A larger number is a typing error or a hostile file.
pub(super) const MOST_WIDTH: usize = 1 << 16;
pub(super) const MOST_DEPTH: usize = 1 << 10;

/// Refuses a size that could only exhaust memory.
pub(super) fn check_most(
    name: &'static str,
    size: &'static str,
    found: usize,
    most: usize,
) -> Result<(), SpecError> {
    if found > most { Err(SpecError::Large { name, size, found, most }) } else { Ok(()) }
}

/// Refuses heads of which rotary positions would turn no value.
pub(super) fn check_rotary_heads(name: &'static str, head_dim: usize) -> Result<(), SpecError> {
    match rotary::values_per_axis(head_dim) {
        0 => Err(SpecError::NarrowHeads { name, found: head_dim }),
        _ => Ok(()),
    }
}

/// Words of timm's names, and what these models have.
const LACKING: [(&str, &str); 7] = [
    ("quickgelu", "the activation QuickGELU"),
    ("rope", "rotary positions"),
    ("dinov3", "rotary positions"),
    ("siglip", "attention pooling"),
    ("distilled", "a distillation token"),
    ("relpos", "relative positions"),
    ("srelpos", "relative positions"),
];

/// Whether this is one of the words of a name, which are joined by "_".
fn has_word(name: &str, word: &str) -> bool {
    name.split('_').any(|part| part == word)
}

impl VitSpec {
    /// Number of values in the blocks' matrices, which are most of the model: L (4 D² + 2 D F), or
    /// L (4 D² + 3 D F) with SwiGLU.
    pub(crate) fn block_parameters(&self) -> usize {
        let block = 4usize.saturating_mul(self.width).saturating_mul(self.width);
        let matrices = if self.swiglu { 3usize } else { 2 };
        let mlp = matrices.saturating_mul(self.width).saturating_mul(self.hidden);
        self.depth.saturating_mul(block.saturating_add(mlp))
    }

    /// The spec of a timm name that may end with the tag of its weights, which says nothing about
    /// sizes: vit_tiny_patch16_224.augreg_in21k.
    pub fn from_name_with_tag(name: &str) -> Result<Self, SpecError> {
        Self::from_name(name.split_once('.').map_or(name, |(model, _)| model))
    }

    /// The spec of a timm name, with three channels and learned positions (timm
    /// models/vision_transformer.py and models/deit.py).
    pub fn from_name(name: &str) -> Result<Self, SpecError> {
        let unknown = || SpecError::Name(name.to_owned());
        if let Some((_, feature)) = LACKING.iter().find(|(word, _)| has_word(name, word)) {
            return Err(SpecError::Feature { name: name.to_owned(), feature });
        }
        let families = ["vit_", "deit3_", "deit_"];
        let (family, rest) = families
            .into_iter()
            .find_map(|family| Some((family, name.strip_prefix(family)?)))
            .ok_or_else(unknown)?;
        let (size, rest) = rest.split_once("_patch").ok_or_else(unknown)?;
        let (patch, rest) = rest.split_once('_').ok_or_else(unknown)?;
        let patch: usize = patch.parse().map_err(|_| unknown())?;
        // timm has no CLIP under the other families' names.
        let clip = rest.strip_prefix("clip_").filter(|_| family == "vit_");
        let rest = clip.unwrap_or(rest);
        let (image, registers, class_token, layer_scale) = match rest {
            "dinov2" => (518, 0, true, Some(1e-5)),
            "reg4_dinov2" => (518, 4, true, Some(1e-5)),
            _ => {
                let (class_token, image) =
                    rest.strip_prefix("gap_").map_or((true, rest), |image| (false, image));
                let image = image.parse().map_err(|_| unknown())?;
                (image, 0, class_token, (family == "deit3_").then_some(1e-6))
            }
        };
        let swiglu = rest.ends_with("dinov2") && size == "giant";
        let (width, depth, heads, hidden) = match size {
            "giant" if swiglu => (1536, 40, 24, 4096),
            "tiny" => (192, 12, 3, 768),
            "small" => (384, 12, 6, 1536),
            "base" => (768, 12, 12, 3072),
            "large" => (1024, 24, 16, 4096),
            "huge" => (1280, 32, 16, 5120),
            "giant" => (1408, 40, 16, 6144),
            "gigantic" => (1664, 48, 16, 8192),
            _ => return Err(unknown()),
        };
        let spec = Self {
            image: [1, image, image],
            patch: [1, patch, patch],
            channels: 3,
            width,
            depth,
            heads,
            hidden,
            registers,
            class_token,
            no_embed_class: registers > 0 || family == "deit3_",
            layer_scale,
            qk_norm: false,
            rope: None,
            fc_norm: false,
            pre_norm: clip.is_some(),
            swiglu,
            eps: if clip.is_some() { PRE_NORM_EPS } else { USUAL_EPS },
            drop_path: 0.0,
        };
        // The user named a model, not its patches.
        spec.check().map_err(|error| match error {
            SpecError::Left { .. } | SpecError::Small { .. } => unknown(),
            other => other,
        })?;
        Ok(spec)
    }

    /// Refuses sizes that no model can have.
    pub fn check(&self) -> Result<(), SpecError> {
        let sizes = [
            ("width", self.width),
            ("depth", self.depth),
            ("heads", self.heads),
            ("hidden width", self.hidden),
            ("channels", self.channels),
            ("patch", self.patch.into_iter().min().unwrap_or(0)),
        ];
        if let Some((name, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(SpecError::Zero { name: "model", size: name });
        }
        if !self.width.is_multiple_of(self.heads) {
            return Err(SpecError::Heads { name: "model", width: self.width, heads: self.heads });
        }
        for (size, found, most) in [
            ("width", self.width, MOST_WIDTH),
            ("depth", self.depth, MOST_DEPTH),
            ("hidden width", self.hidden, 16 * MOST_WIDTH),
            ("channels", self.channels, 1024),
            ("registers", self.registers, 1024),
            // Each takes four bytes. Training takes four times as much.
            ("number of parameters", self.block_parameters(), 1 << 36),
        ] {
            check_most("model", size, found, most)?;
        }
        if self.rope.is_some() {
            check_rotary_heads("model", self.width / self.heads)?;
        }
        check_most("model", "number of frames", self.image[0], 1 << 16)?;
        for side in &self.image[1..] {
            check_most("model", "image size", *side, 1 << 16)?;
        }
        if let Some(scale) = self.layer_scale.filter(|scale| !scale.is_finite()) {
            return Err(SpecError::LayerScale(scale));
        }
        if !(0.0..1.0).contains(&self.eps) {
            return Err(SpecError::Eps(self.eps));
        }
        if !(0.0..1.0).contains(&self.drop_path) {
            return Err(SpecError::DropPath(self.drop_path));
        }
        for (axis, name) in [LENGTH, "height", "width"].into_iter().enumerate() {
            let (image, patch) = (self.image[axis], self.patch[axis]);
            if image < patch {
                return Err(SpecError::Small { axis: name, image, patch });
            }
            if image % patch != 0 {
                let lower = image - image % patch;
                let upper = lower + patch;
                return Err(SpecError::Left { axis: name, image, patch, lower, upper });
            }
        }
        Ok(())
    }

    /// Tokens along time, height and width.
    pub fn grid(&self) -> Grid {
        let [t, h, w] = std::array::from_fn(|axis| self.image[axis] / self.patch[axis]);
        Grid { t, h, w }
    }

    /// Number of values in a patch: pt ph pw C.
    pub fn patch_len(&self) -> usize {
        self.patch.iter().product::<usize>() * self.channels
    }

    /// What it has beside a plain encoder, for people.
    pub fn features(&self) -> Vec<String> {
        let registers = format!("{} registers", self.registers);
        let eps = format!("norms with an ε of {:e}", self.eps);
        let features = [
            (!self.class_token, "no class token"),
            (self.registers > 0, &registers),
            (self.layer_scale.is_some(), "layer scale"),
            (self.qk_norm, "norms of queries and keys"),
            (self.rope.is_some(), "rotary positions"),
            (self.pre_norm, "a norm before the first block"),
            (self.swiglu, "SwiGLU"),
            (self.eps != USUAL_EPS, &eps),
            (self.fc_norm, "its last norm behind the mean"),
        ];
        features.into_iter().filter(|(is, _)| *is).map(|(_, words)| words.to_owned()).collect()
    }

    /// Tokens before the patches: class token, then registers.
    pub fn prefix(&self) -> usize {
        usize::from(self.class_token) + self.registers
    }

    /// Rows of the learned position table, 0 if there is none.
    pub fn position_rows(&self) -> usize {
        match (self.rope, self.no_embed_class) {
            (Some(_), _) => 0,
            (None, true) => self.grid().len(),
            (None, false) => self.grid().len() + self.prefix(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TransformerSpec;

    #[test]
    fn timm_names_have_timm_sizes() {
        let small = VitSpec::from_name("vit_small_patch16_384").unwrap();
        assert_eq!((small.width, small.depth, small.heads, small.hidden), (384, 12, 6, 1536));
        assert_eq!(small.grid().len(), 24 * 24);
        // timm 1.0.31: vit_giant_patch14_224 has mlp_ratio 48/11.
        assert_eq!(VitSpec::from_name("vit_giant_patch14_224").unwrap().hidden, 1408 * 48 / 11);
    }

    #[test]
    fn names_of_deit_and_dinov2_have_what_timm_gives_them() {
        let spec = |name: &str| VitSpec::from_name_with_tag(name).unwrap();
        let plain = spec("vit_small_patch16_224");
        assert_eq!(spec("deit_small_patch16_224.fb_in1k"), plain);
        assert_eq!(spec("vit_small_patch16_224.dino"), plain);
        let deit3 = VitSpec { no_embed_class: true, layer_scale: Some(1e-6), ..plain.clone() };
        assert_eq!(spec("deit3_small_patch16_224"), deit3);
        let (image, patch, layer_scale) = ([1, 518, 518], [1, 14, 14], Some(1e-5));
        let dinov2 = VitSpec { image, patch, layer_scale, ..plain };
        assert_eq!(spec("vit_small_patch14_dinov2.lvd142m"), dinov2);
        let registers = VitSpec { registers: 4, no_embed_class: true, ..dinov2 };
        assert_eq!(spec("vit_small_patch14_reg4_dinov2.lvd142m"), registers);
        assert!(!spec("vit_base_patch16_gap_224").class_token);
        let clip = spec("vit_base_patch16_clip_224.openai");
        assert_eq!(clip, VitSpec { pre_norm: true, eps: 1e-5, ..spec("vit_base_patch16_224") });
        assert!(VitSpec::from_name("deit_base_patch16_clip_224").is_err());
        // timm 1.0.31: mlp_ratio is 2.66667 * 2, for both halves of 2 F.
        let giant = spec("vit_giant_patch14_reg4_dinov2.lvd142m");
        assert_eq!((giant.width, giant.depth, giant.heads, giant.hidden), (1536, 40, 24, 4096));
        assert!(giant.swiglu && giant.registers == 4);
    }

    #[test]
    fn a_model_with_something_that_we_lack_is_refused_by_what_it_has() {
        for (name, feature) in [
            ("vit_base_patch16_clip_quickgelu_224.openai", "the activation QuickGELU"),
            ("deit_base_distilled_patch16_224", "a distillation token"),
            ("vit_betwixt_patch16_rope_reg4_gap_256", "rotary positions"),
            ("vit_small_patch16_dinov3", "rotary positions"),
            ("vit_base_patch16_siglip_224", "attention pooling"),
        ] {
            let message = VitSpec::from_name_with_tag(name).unwrap_err().to_string();
            assert!(message.contains(feature), "{message}");
        }
    }

    #[test]
    fn an_unknown_name_is_refused() {
        for name in [
            "vit_mini_patch16_224",
            "resnet50",
            "vit_tiny_patch16",
            "vit_tiny_patchx_1",
            "vit_tiny_patch16_244",
            "vit_tiny_patch16_8",
            "vit_tiny_patch16_224.augreg_in21k",
            "vit_base_patch16_224_miil",
            "deit_mini_patch16_224",
        ] {
            assert_eq!(VitSpec::from_name(name), Err(SpecError::Name(name.to_owned())));
        }
        let text = |name: &str| SpecError::Name(name.to_owned()).to_string();
        assert!(text("vit_tiny_patch16_224.augreg_in21k").contains("not downloaded"));
        assert!(!text("resnet50.a1_in1k").contains("not downloaded"), "no model of ours");
        assert!(VitSpec::from_name("vit_tiny_patch0_224").is_err());
    }

    #[test]
    fn sizes_that_do_not_fit_say_what_would() {
        let tiny = VitSpec::from_name("vit_tiny_patch16_224").unwrap();
        let odd = VitSpec { heads: 5, ..tiny.clone() };
        assert!(odd.check().unwrap_err().to_string().contains("192 is not divisible by 5"));
        let small = VitSpec { image: [1, 8, 224], ..tiny.clone() };
        assert!(small.check().unwrap_err().to_string().contains("smaller than a patch of 16"));
        let left = VitSpec { image: [1, 224, 230], ..tiny.clone() };
        assert!(left.check().unwrap_err().to_string().contains("224 or 240"));
        let short = VitSpec { patch: [2, 16, 16], ..tiny.clone() };
        let message = short.check().unwrap_err().to_string();
        assert!(message.starts_with("the image's length of 1 frames is smaller than a patch of 2"));
        assert!(VitSpec { drop_path: 1.0, ..tiny.clone() }.check().is_err());
        assert!(VitSpec { eps: f32::NAN, ..tiny.clone() }.check().is_err());
        assert!(VitSpec { drop_path: f32::NAN, ..tiny }.check().is_err());
        let predictor = TransformerSpec::new(384, 12, 10);
        let message = predictor.check("predictor").unwrap_err().to_string();
        assert!(message.starts_with("predictor width 384 is not divisible by 10 heads"));
    }
}
