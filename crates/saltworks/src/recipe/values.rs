//! The values that some keys of a recipe take.

use serde::{Deserialize, Serialize};

/// Which method trains a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodName {
    /// Pixel reconstruction.
    Mae,
    /// Prediction of a frozen teacher's latents.
    Salt,
}

impl MethodName {
    /// The method's name in recipes.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mae => "mae",
            Self::Salt => "salt",
        }
    }
}

/// A length of training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duration {
    /// In optimizer steps.
    Steps(u64),
    /// In passes over the training images.
    Epochs(f64),
    /// In images.
    Samples(u64),
    /// In per cent of the stage.
    Percent(f64),
}

/// A loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// |δ|
    L1,
    /// Quadratic below this number, linear above.
    SmoothL1(f32),
    /// δ²
    Mse,
}

/// The size of a decoder or a predictor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecoderSize {
    /// Width of a token, D.
    pub width: usize,
    /// Number of blocks, L.
    pub depth: usize,
    /// Number of attention heads, A.
    pub heads: usize,
    /// How its first weights are drawn. If not set: `torch`.
    #[serde(default)]
    pub initial_weights: InitialWeights,
}

impl DecoderSize {
    /// These sizes, with torch's first weights.
    pub(crate) fn new(width: usize, depth: usize, heads: usize) -> Self {
        Self { width, depth, heads, initial_weights: InitialWeights::Torch }
    }
}

/// The distribution of a predictor's or decoder's first weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InitialWeights {
    /// torch.nn.Linear's default, which stable-pretraining keeps.
    #[default]
    Torch,
    /// V-JEPA's for a predictor, MAE's for a decoder.
    Published,
}

/// How rotary positions turn the queries and keys of a head, over time, row and column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeForm {
    /// A rotation of each pair of values, as in V-JEPA 2.1.
    Interleaved,
    /// V-JEPA 2's form, which is no rotation.
    Tiled,
}

/// Which patches MAE reconstructs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Covered {
    /// All patches that are not context, as in stable-pretraining.
    AllMasked,
    /// Only the targets of the masks.
    Targets,
}

/// How MAE's pixels are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PixelNorm {
    /// Not at all.
    None,
    /// Over each patch, as in MAE and stable-pretraining.
    Joint,
    /// Over each channel of each patch, as in VideoMAE.
    PerChannel,
}

/// What happens to JPEGs that are cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutImages {
    /// They are unreadable.
    Refuse,
    /// They are decoded as far as they go.
    Keep,
}

impl CutImages {
    /// Whether it is the only way of earlier versions. A recipe that does not state it keeps its
    /// checksum.
    pub(super) fn is_earlier(&self) -> bool {
        *self == Self::Refuse
    }
}
