//! Stage 1: reconstruct the pixels of masked patches. He et al. 2022; under multi-block masks this
//! is SALT's V-Pixel. stable-pretraining methods/mae.py and losses/reconstruction.py.

use super::{Covered, Method, PixelNorm, Reconstructs, Step};
use crate::mask::Masks;
use crate::model::layers::join;
use crate::model::{
    EncodedTokens, Encoder, Outputs, Patches, PixelDecoder, Positions, StepKey, TransformerSpec,
};
use engine::ops::{self, Images, LossKind, PatchNorm, PatchOrder};
use engine::{Dtype, Module, Parameter, Result, Tape, Tensor};

impl PixelNorm {
    /// The normalisation as the engine computes it; none if pixels stay as they are.
    fn patch_norm(self, channels: usize) -> Option<PatchNorm> {
        match self {
            Self::None => None,
            Self::Joint => Some(PatchNorm::joint(channels)),
            Self::PerChannel => Some(PatchNorm::per_channel(channels)),
        }
    }

    /// The reference's order; statistics by channel need the channel innermost.
    fn order(self) -> PatchOrder {
        match self {
            Self::None | Self::Joint => PatchOrder::ChannelsFirst,
            Self::PerChannel => PatchOrder::ChannelsLast,
        }
    }

    /// Converts a normalised patch, in the order that the loss reads, to pixels [C p]. The mean and
    /// deviation are those of the true pixels.
    fn undo(self, patch: &mut [f32], pixels: &[f32], channels: usize) {
        let Some(norm) = self.patch_norm(channels) else { return };
        let groups = if norm.per_channel { channels } else { 1 };
        let area = pixels.len() / groups;
        let normalised = patch.to_vec(); // [p, C] if it is by channel, else [C p]
        for (group, pixels) in pixels.chunks_exact(area).enumerate() {
            let (mean, variance) = moments(pixels);
            let deviation = norm.divisor(variance);
            for (i, x) in patch[group * area..][..area].iter_mut().enumerate() {
                *x = normalised[i * groups + group] * deviation + mean;
            }
        }
    }
}

impl Covered {
    /// The masks whose targets are the patches that the loss covers.
    pub fn masks(self, drawn: Masks) -> Masks {
        match self {
            Self::Targets => drawn,
            Self::AllMasked => drawn.with_all_others_as_target(),
        }
    }
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
    /// Adds a new decoder to this encoder. Its initial weights are drawn from `seed`.
    pub fn new(encoder: Encoder, options: MaeOptions, seed: u64) -> Self {
        let decoder = PixelDecoder::new(options.decoder, encoder.spec(), seed);
        Self { encoder, decoder, options }
    }

    /// The decoder.
    pub fn decoder(&self) -> &PixelDecoder {
        &self.decoder
    }

    /// [`Method::step`], and the predicted pixels of every patch [B N, p C], including visible
    /// ones, as the reference returns them. The masks' lists must cover the grid. The decoder's
    /// last block costs more.
    pub fn step_with_all(
        &self,
        tape: &Tape,
        images: &Images,
        masks: &Masks,
        key: Option<StepKey>,
    ) -> Result<(Step, Tensor)> {
        let visible = Patches::Some(&masks.context);
        let encoded = self.encoder.forward(tape, images, visible, Outputs::All, key)?;
        let context = encoded.patches(tape)?; // [K, D]
        let all = self.decoder.forward(tape, &context, masks, Positions::All, key)?; // [B N, p C]
        let predictions = ops::gather(tape, &all, masks.target_global())?; // [M, p C]
        Ok((self.judge(tape, images, masks, encoded, predictions)?, all))
    }

    /// Encodes and decodes whole images without masks [B N, p C].
    pub fn reconstruct(&self, tape: &Tape, images: &Images) -> Result<Tensor> {
        let encoded = self.encoder.forward(tape, images, Patches::All, Outputs::All, None)?;
        let every: Vec<u32> = (0..self.encoder.grid().len() as u32).collect();
        let (context, target) = (vec![every; images.samples()], vec![vec![]; images.samples()]);
        let masks = Masks::of_lists(self.encoder.grid(), context, target);
        self.decoder.forward(tape, &encoded.patches(tape)?, &masks, Positions::All, None)
    }

    /// Compares predictions [M, p C] with the pixels.
    fn judge(
        &self,
        tape: &Tape,
        images: &Images,
        masks: &Masks,
        context: EncodedTokens,
        predictions: Tensor,
    ) -> Result<Step> {
        let targets = self.targets(tape, images, masks)?;
        let weights = masks.target_weights();
        Ok(Step {
            loss: ops::loss(tape, &predictions, &targets, self.options.loss, weights.as_deref())?,
            target_count: predictions.rows(),
            context_tokens: masks.context.iter().map(Vec::len).sum(),
            context,
            predictions,
            targets,
        })
    }

    /// Pixels of the target patches [M, p C], in the order of the decoder's outputs.
    fn targets(&self, tape: &Tape, images: &Images, masks: &Masks) -> Result<Tensor> {
        let (spec, pixel_norm) = (self.encoder.spec(), self.options.pixel_norm);
        let patches = masks.target_global();
        let images = images.with_dtype(Dtype::F32); // targets are exact
        let pixels = ops::patchify(tape, &images, spec.patch, pixel_norm.order(), &patches)?;
        match pixel_norm.patch_norm(spec.channels) {
            None => Ok(pixels),
            Some(norm) => ops::normalize_patches(tape, &pixels, norm),
        }
    }
}

impl Method for Mae {
    fn masks(&self, drawn: Masks) -> Masks {
        self.options.covered.masks(drawn)
    }

    fn step(
        &self,
        tape: &Tape,
        images: &Images,
        masks: &Masks,
        key: Option<StepKey>,
    ) -> Result<Step> {
        let visible = Patches::Some(&masks.context);
        let encoded = self.encoder.forward(tape, images, visible, Outputs::All, key)?;
        let context = encoded.patches(tape)?; // [K, D]
        let predictions = self.decoder.forward(tape, &context, masks, Positions::Targets, key)?;
        self.judge(tape, images, masks, encoded, predictions)
    }

    fn reconstructs(&self) -> Option<&dyn Reconstructs> {
        Some(self)
    }

    fn encoder(&self) -> &Encoder {
        &self.encoder
    }
}

impl Reconstructs for Mae {
    fn predicted_pixels(&self, images: &Images, masks: &Masks) -> Result<Tensor> {
        let tape = Tape::inference();
        let predictions = self.step(&tape, images, masks, None)?.predictions;
        let spec = self.encoder.spec();
        let order = PatchOrder::ChannelsFirst;
        let images = images.with_dtype(Dtype::F32);
        let pixels = ops::patchify(&tape, &images, spec.patch, order, masks.target_global())?;
        let mut predicted = predictions.to_vec();
        let rows = predicted.chunks_exact_mut(spec.patch_len());
        for (row, pixels) in rows.zip(pixels.to_vec().chunks_exact(spec.patch_len())) {
            self.options.pixel_norm.undo(row, pixels, spec.channels);
        }
        Ok(Tensor::from_vec(predicted, pixels.shape()))
    }
}

impl Module for Mae {
    fn visit(&self, prefix: &str, f: &mut dyn FnMut(&str, &Parameter)) {
        self.encoder.visit(&join(prefix, "encoder"), f);
        self.decoder.visit(&join(prefix, "decoder"), f);
    }
}

/// Mean and unbiased variance of some pixels, as in `normalize_patches`.
fn moments(pixels: &[f32]) -> (f32, f32) {
    let count = pixels.len();
    let mean = pixels.iter().map(|&x| f64::from(x)).sum::<f64>() / count as f64;
    let squares: f64 = pixels.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
    (mean as f32, (squares / count.saturating_sub(1).max(1) as f64) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::Grid;
    use crate::model::VitSpec;
    use engine::random::Random;

    #[test]
    fn normalised_targets_go_back_to_the_pixels_they_were_made_of() {
        let spec = VitSpec {
            image: [1, 8, 8],
            patch: [1, 4, 4],
            channels: 3,
            width: 8,
            depth: 1,
            heads: 1,
            hidden: 8,
            ..VitSpec::from_name("vit_tiny_patch16_224").unwrap()
        };
        let mut random = Random::new(0, "test", 0);
        let bytes: Vec<u8> = (0..2 * 3 * 64).map(|_| (256.0 * random.uniform()) as u8).collect();
        let images = Images::u8(bytes, [2, 3, 1, 8, 8], vec![0.4; 3], vec![0.2; 3]).unwrap();
        let (context, target) = (vec![vec![0], vec![3]], vec![vec![1, 2, 3], vec![0, 2]]);
        let masks = Masks::of_lists(Grid::image(2, 2), context, target);
        let tape = Tape::inference();
        let order = PatchOrder::ChannelsFirst;
        let pixels =
            ops::patchify(&tape, &images, spec.patch, order, masks.target_global()).unwrap();
        for pixel_norm in [PixelNorm::None, PixelNorm::Joint, PixelNorm::PerChannel] {
            let options = MaeOptions {
                decoder: TransformerSpec::new(8, 1, 1),
                covered: Covered::Targets,
                pixel_norm,
                loss: LossKind::L1,
            };
            let mae = Mae::new(Encoder::new(&spec, 0), options, 0);
            let mut targets = mae.targets(&tape, &images, &masks).unwrap().to_vec();
            let pixels = pixels.to_host();
            let rows = targets.chunks_exact_mut(48).zip(pixels.chunks_exact(48));
            rows.for_each(|(row, pixels)| pixel_norm.undo(row, pixels, 3));
            for (got, wanted) in targets.iter().zip(pixels.iter()) {
                assert!((got - wanted).abs() < 1e-5, "{pixel_norm:?}: {got} {wanted}");
            }
        }
    }
}
