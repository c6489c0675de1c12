//! Sizes of timm's models by name. timm/models/vision_transformer.py.

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
    /// Rate of stochastic depth in the last block. It grows linearly from 0 in the first block.
    pub drop_path: f32,
}

/// A model that cannot be built.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum SpecError {
    /// The name is unknown.
    #[error(
        "model {0:?} is unknown. Names are vit_SIZE_patchP_IMAGE with SIZE tiny, small, base, \
         large, huge, giant or gigantic, and IMAGE a multiple of P, e.g. \
         vit_tiny_patch16_224{hint}",
        hint = hint(.0)
    )]
    Name(String),
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
    /// The rate of stochastic depth is out of range.
    #[error("model drop_path is {0}, expected a rate of 0 or more and less than 1")]
    DropPath(f32),
}

/// The axis of time.
const LENGTH: &str = "length";

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

impl VitSpec {
    /// Number of values in the blocks' matrices, which are most of the model: L (4 D² + 2 D F).
    pub(crate) fn block_parameters(&self) -> usize {
        let block = 4usize.saturating_mul(self.width).saturating_mul(self.width);
        let mlp = 2usize.saturating_mul(self.width).saturating_mul(self.hidden);
        self.depth.saturating_mul(block.saturating_add(mlp))
    }

    /// The spec of a timm name, with three channels, a class token and learned positions.
    pub fn from_name(name: &str) -> Result<Self, SpecError> {
        let unknown = || SpecError::Name(name.to_owned());
        let rest = name.strip_prefix("vit_").ok_or_else(unknown)?;
        let (size, rest) = rest.split_once("_patch").ok_or_else(unknown)?;
        let (patch, image) = rest.split_once('_').ok_or_else(unknown)?;
        let patch: usize = patch.parse().map_err(|_| unknown())?;
        let image: usize = image.parse().map_err(|_| unknown())?;
        let (width, depth, heads, hidden) = match size {
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
            registers: 0,
            class_token: true,
            no_embed_class: false,
            layer_scale: None,
            qk_norm: false,
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
        for side in self.image {
            check_most("model", "image size", side, 1 << 16)?;
        }
        if let Some(scale) = self.layer_scale.filter(|scale| !scale.is_finite()) {
            return Err(SpecError::LayerScale(scale));
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

    /// Tokens before the patches: class token, then registers.
    pub fn prefix(&self) -> usize {
        usize::from(self.class_token) + self.registers
    }

    /// Rows of the position table.
    pub fn position_rows(&self) -> usize {
        self.grid().len() + if self.no_embed_class { 0 } else { self.prefix() }
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
    fn an_unknown_name_is_refused() {
        for name in [
            "vit_mini_patch16_224",
            "resnet50",
            "vit_tiny_patch16",
            "vit_tiny_patchx_1",
            "vit_tiny_patch16_244",
            "vit_tiny_patch16_8",
            "vit_tiny_patch16_224.augreg_in21k",
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
        assert!(VitSpec { drop_path: f32::NAN, ..tiny }.check().is_err());
        let predictor = TransformerSpec { width: 384, depth: 12, heads: 10 };
        let message = predictor.check("predictor").unwrap_err().to_string();
        assert!(message.starts_with("predictor width 384 is not divisible by 10 heads"));
    }
}
