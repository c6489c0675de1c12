//! What is trained: MAE (stage 1) and SALT (stage 2).

mod cost;
mod mae;
mod salt;
mod settings;

pub use crate::recipe::{Covered, PixelNorm};
pub use cost::{Cost, NetworkCost, Networks};
pub use mae::{Mae, MaeOptions};
pub use salt::{Salt, SaltOptions, TeacherError};
pub use settings::MethodSettings;

use crate::mask::Masks;
use crate::model::{EncodedTokens, Encoder, StepKey};
use engine::ops::Images;
use engine::{Frozen, Module, Result, Tape, Tensor};

/// What a training step computes.
pub struct Step {
    /// One element.
    pub loss: Tensor,
    /// The encoded context.
    pub context: EncodedTokens,
    /// [M, patch values or teacher width], sample by sample.
    pub predictions: Tensor,
    /// What the predictions should equal, of the same shape.
    pub targets: Tensor,
    /// Rows M of the predictions.
    pub target_count: usize,
    /// Number of the student's tokens that the predictions are computed from.
    pub context_tokens: usize,
}

impl Step {
    /// The class token of each sample, or the mean of its context tokens if there is none [B, D].
    /// It has no gradient.
    pub fn embedding(&self) -> Result<Tensor> {
        let tape = Tape::inference();
        if self.context.class_token { self.context.row(&tape, 0) } else { self.context.mean(&tape) }
    }
}

/// Features of whole images, [B, D] each, without gradient.
pub struct Embedding {
    /// The class token, if there is one.
    pub cls: Option<Tensor>,
    /// Mean of the patch tokens.
    pub mean: Tensor,
}

/// A pretraining method.
pub trait Method: Module + Sync {
    /// Loss and named outputs of a batch [B, C, T, H, W] under its masks, which went through
    /// [`Method::masks`]. `key` seeds stochastic depth. Without a key all blocks are kept, as in
    /// probes.
    fn step(
        &self,
        tape: &Tape,
        images: &Images,
        masks: &Masks,
        key: Option<StepKey>,
    ) -> Result<Step>;

    /// The masks as this method reads them.
    fn masks(&self, drawn: Masks) -> Masks {
        drawn
    }

    /// The method, if it predicts pixels. None if it predicts latents.
    fn reconstructs(&self) -> Option<&dyn Reconstructs> {
        None
    }

    /// The encoder that this stage trains.
    fn encoder(&self) -> &Encoder;
}

/// A method that predicts pixels, which can be shown as images.
pub trait Reconstructs {
    /// Predicted pixels of the target patches [M, C p], channels first, normalised as the encoder's
    /// images are. If the method normalises patches, mean and deviation of the true patches are
    /// restored, as in MAE's demo.
    fn predicted_pixels(&self, images: &Images, masks: &Masks) -> Result<Tensor>;
}

/// Features of whole images from an encoder. Probes read them.
pub fn embed(encoder: &Encoder, images: &Images) -> Result<Embedding> {
    use crate::model::{Outputs, Patches};
    let tape = Tape::inference();
    let encoded = encoder.forward(&tape, images, Patches::All, Outputs::All, None)?;
    let cls = encoded.class_token.then(|| encoded.row(&tape, 0)).transpose()?;
    Ok(Embedding { cls, mean: encoded.mean(&tape)? })
}

/// A teacher: an encoder that is never trained. Its parameters are not accessible, so no optimizer
/// can hold them. Those of an encoder are accessible:
///
/// ```
/// fn train(student: &saltworks::model::Encoder) {
///     engine::Module::parameters(student);
/// }
/// ```
/// ```compile_fail,E0277
/// fn train(teacher: &saltworks::method::Teacher) {
///     engine::Module::parameters(teacher);
/// }
/// ```
pub type Teacher = Frozen<Encoder>;
