//! What is trained: MAE (stage 1) and SALT (stage 2).

mod cost;
mod mae;
mod salt;

pub use cost::{Cost, Networks, Share};
pub use mae::{Covered, Mae, MaeOptions, PixelNorm};
pub use salt::{CheckpointError, Salt, SaltOptions};

use crate::mask::Masks;
use crate::model::{Encoder, StepKey};
use engine::ops::Images;
use engine::{Frozen, Parameter, Result, Tape, Tensor};

/// What a training step computes.
pub struct Step {
    /// One element.
    pub loss: Tensor,
    /// The class token of each sample (mean of the context tokens where there is none) [B, D],
    /// without gradient.
    pub embedding: Tensor,
    /// [M, patch values or teacher width], sample by sample.
    pub predictions: Tensor,
    /// What they should be, of the same shape.
    pub targets: Tensor,
    /// Rows M of the predictions.
    pub target_count: usize,
    /// The student's tokens that the prediction starts from.
    pub context_tokens: usize,
}

/// Features of whole images, [B, D] each, without gradient.
pub struct Embedding {
    /// The class token, where there is one.
    pub cls: Option<Tensor>,
    /// Mean of the patch tokens.
    pub mean: Tensor,
}

/// A way of pretraining.
pub trait Method: Sync {
    /// Loss and named outputs of a batch [B, C, T, H, W] under its masks, which went through
    /// [`Method::masks`]. `key` draws stochastic depth; without one all blocks are kept, as where a
    /// method is judged.
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

    /// The pixels that a method of pixels foretells of the target patches [M, C p], channels first, as
    /// the encoder's images are: where the method normalises patches, mean and deviation of the true ones
    /// are put back, as MAE's demo does. None of a method of latents.
    fn foretold_pixels(&self, _images: &Images, _masks: &Masks) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Calls `f` with each parameter that is trained, and its name.
    fn visit(&self, f: &mut dyn FnMut(&str, &Parameter));

    /// The encoder that this stage is for.
    fn encoder(&self) -> &Encoder;

    /// All trained parameters with their names.
    fn parameters(&self) -> Vec<(String, Parameter)> {
        let mut list = Vec::new();
        self.visit(&mut |name, parameter| list.push((name.to_owned(), parameter.share())));
        list
    }
}

/// Features of whole images from an encoder: what probes read.
pub fn embed(encoder: &Encoder, images: &Images) -> Result<Embedding> {
    use crate::model::{Outputs, Patches};
    let tape = Tape::inference();
    let encoded = encoder.forward(&tape, images, Patches::All, Outputs::All, None)?;
    let cls = encoder.spec().class_token.then(|| encoded.row(&tape, 0)).transpose()?;
    Ok(Embedding { cls, mean: encoded.mean(&tape)? })
}

/// A teacher: an encoder that nothing trains. Its parameters cannot be asked for, so no optimizer
/// can hold them; an encoder's can:
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

/// The embedding that a training step reports: class token, or the mean of the context tokens.
fn context_embedding(
    tape: &Tape,
    encoded: &crate::model::EncodedTokens,
    cls: bool,
) -> Result<Tensor> {
    let embedding = if cls { encoded.row(tape, 0)? } else { encoded.mean(tape)? };
    Ok(embedding.detach())
}
