//! Stage 1: reconstruct the pixels of masked patches. He et al. 2022; under multi-block masks this
//! is SALT's V-Pixel. stable-pretraining methods/mae.py and losses/reconstruction.py.

use super::{Method, Step, context_embedding};
use crate::mask::Masks;
use crate::model::{Encoded, Encoder, Patches, PixelDecoder, Read, StepKey, TransformerSpec};
use engine::ops::{self, Images, LossKind, PatchOrder};
use engine::{Module, Parameter, Result, Tape, Tensor};

/// Which patches the loss covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covered {
    /// Every patch that is not context, as the reference.
    AllMasked,
    /// The masks' targets alone.
    Targets,
}

/// How pixel targets are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelNorm {
    /// Not at all.
    None,
    /// Each patch, all channels together, unbiased variance: MAE and the reference.
    Joint,
    /// Each channel of each patch: VideoMAE.
    PerChannel,
}

/// Settings of stage 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MaeOptions {
    /// The decoder's sizes.
    pub decoder: TransformerSpec,
    /// Which patches the loss covers.
    pub covered: Covered,
    /// Normalisation of the targets.
    pub pixel_norm: PixelNorm,
    /// l
    pub loss: LossKind,
}

/// Encoder and decoder.
pub struct Mae {
    encoder: Encoder,
    decoder: PixelDecoder,
    options: MaeOptions,
}

impl Mae {
    /// A new decoder for this encoder, its first weights drawn from `seed`.
    pub fn new(encoder: Encoder, options: MaeOptions, seed: u64) -> Self {
        let spec = encoder.spec();
        let (width, patch_len) = (spec.width, spec.patch_len());
        let decoder = PixelDecoder::new(options.decoder, width, patch_len, spec.grid(), seed);
        Self { encoder, decoder, options }
    }

    /// The trained encoder, the decoder left behind.
    pub fn into_encoder(self) -> Encoder {
        self.encoder
    }

    /// [`Method::step`], and the pixels foretold of every patch, seen ones too [B N, p C]: what the
    /// reference returns. The masks' lists must cover the grid. Costs more in the decoder's last block.
    pub fn step_with_all(
        &self,
        tape: &Tape,
        images: &Images,
        masks: &Masks,
        key: Option<StepKey>,
    ) -> Result<(Step, Tensor)> {
        let visible = Patches::Some(&masks.context);
        let encoded = self.encoder.forward(tape, images, visible, Read::All, key)?;
        let context = encoded.patches(tape)?; // [K, D]
        let all = self.decoder.forward_all(tape, &context, masks, key)?; // [B N, p C]
        let predictions = ops::gather(tape, &all, &masks.target_global())?; // [M, p C]
        Ok((self.judge(tape, images, masks, &encoded, predictions)?, all))
    }

    /// Whole images encoded and decoded [B N, p C], nothing masked.
    pub fn reconstruct(&self, tape: &Tape, images: &Images) -> Result<Tensor> {
        let encoded = self.encoder.forward(tape, images, Patches::All, Read::All, None)?;
        let every: Vec<u32> = (0..self.encoder.grid().len() as u32).collect();
        let (context, target) = (vec![every; images.samples()], vec![vec![]; images.samples()]);
        let masks = Masks { grid: self.encoder.grid(), context, target };
        self.decoder.forward_all(tape, &encoded.patches(tape)?, &masks, None)
    }

    /// Compares predictions [M, p C] with the pixels.
    fn judge(
        &self,
        tape: &Tape,
        images: &Images,
        masks: &Masks,
        encoded: &Encoded,
        predictions: Tensor,
    ) -> Result<Step> {
        let targets = self.targets(tape, images, masks)?;
        Ok(Step {
            loss: ops::loss(tape, &predictions, &targets, self.options.loss, None)?,
            embedding: context_embedding(tape, encoded, self.encoder.spec().class_token)?,
            target_count: predictions.rows(),
            context_tokens: masks.context.iter().map(Vec::len).sum(),
            predictions,
            targets,
        })
    }

    /// Pixels of the target patches [M, p C], in the order the decoder gives them.
    fn targets(&self, tape: &Tape, images: &Images, masks: &Masks) -> Result<Tensor> {
        let spec = self.encoder.spec();
        let wanted = masks.target_global();
        // The reference's order; VideoMAE's statistics by channel need the channel innermost.
        let per_channel = self.options.pixel_norm == PixelNorm::PerChannel;
        let order = if per_channel { PatchOrder::ChannelsLast } else { PatchOrder::ChannelsFirst };
        let pixels = ops::patchify(tape, images, spec.patch, order, &wanted)?;
        match self.options.pixel_norm {
            PixelNorm::None => Ok(pixels),
            // (x - μ)/√(σ² + 1e-6): MAELoss.
            PixelNorm::Joint => {
                ops::normalize_patches(tape, &pixels, spec.channels, false, true, 1e-6, false)
            }
            // (x - μ)/(σ + 1e-6): VideoMAE engine_for_pretraining.py.
            PixelNorm::PerChannel => {
                ops::normalize_patches(tape, &pixels, spec.channels, true, true, 1e-6, true)
            }
        }
    }
}

impl Method for Mae {
    fn masks(&self, drawn: Masks) -> Masks {
        match self.options.covered {
            Covered::Targets => drawn,
            Covered::AllMasked => drawn.with_all_others_as_target(),
        }
    }

    fn step(
        &self,
        tape: &Tape,
        images: &Images,
        masks: &Masks,
        key: Option<StepKey>,
    ) -> Result<Step> {
        let visible = Patches::Some(&masks.context);
        let encoded = self.encoder.forward(tape, images, visible, Read::All, key)?;
        let context = encoded.patches(tape)?; // [K, D]
        let predictions = self.decoder.forward(tape, &context, masks, key)?;
        self.judge(tape, images, masks, &encoded, predictions)
    }

    fn visit(&self, f: &mut dyn FnMut(&str, &Parameter)) {
        self.encoder.visit("encoder", f);
        self.decoder.visit("decoder", f);
    }

    fn encoder(&self) -> &Encoder {
        &self.encoder
    }
}
