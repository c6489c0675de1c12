//! The networks, forward only: timm's vision transformer, the predictor and the pixel decoder.

pub(crate) mod block;
mod cost;
mod decoder;
mod encoder;
pub(crate) mod layers;
pub mod position;
mod predictor;
pub mod rotary;
mod spec;
mod transformer;

pub use decoder::PixelDecoder;
pub use encoder::{EncodedTokens, Encoder, Outputs, Patches};
pub use predictor::Predictor;
pub use rotary::Rope;
pub(crate) use spec::LENGTH;
pub use spec::{PRE_NORM_EPS, SpecError, USUAL_EPS, VitSpec};
pub use transformer::{
    FirstWeights, Inputs, PositionTable, Positions, Published, Transformer, TransformerSpec,
    TransformerUse,
};

/// Identifies one step of one run, for the random draws of stochastic depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepKey {
    /// The run's seed.
    pub seed: u64,
    /// The step within the stage.
    pub step: u64,
    /// Index of the first sample in the step's batch. It may differ from 0 if a batch has parts.
    pub first_sample: usize,
}
