//! The pixel decoder of stage 1. stable-pretraining backbone/vit.py, MAEDecoder; He et al. 2022.

use super::layers::join;
use super::transformer::{
    Inputs, PositionTable, Positions, Published, Transformer, TransformerSpec, TransformerUse,
};
use super::{StepKey, VitSpec};
use crate::mask::Masks;
use engine::random::Random;
use engine::{Module, Parameter, Result, Tape, Tensor, init};

/// Predicts the pixels of masked patches from the encoder's tokens of visible ones.
pub struct PixelDecoder {
    transformer: Transformer,
    mask_token: Parameter,
}

impl PixelDecoder {
    /// A decoder of the tokens of an encoder of the sizes `encoder`, to the pixels of its patches.
    /// It has rotary positions if the encoder has them.
    pub fn new(spec: TransformerSpec, encoder: &VitSpec, seed: u64) -> Self {
        let (positions, eps) = PositionTable::beside(encoder.rope);
        let encoder_width = encoder.width;
        let mut random = Random::new(seed, "decoder", 0);
        let used = TransformerUse {
            input: encoder_width,
            output: encoder.patch_len(),
            hidden: 4 * spec.width,
            projects_queries: true,
            drop_path: 0.0,
            positions,
            eps,
            published: Published::Mae,
        };
        let token = init::trunc_normal(&mut random, encoder_width, 0.02);
        let token = Tensor::from_vec(token, &[1, 1, encoder_width]);
        Self {
            transformer: Transformer::new(spec, used, encoder.grid(), &mut random),
            mask_token: Parameter::new("mask_token", token),
        }
    }

    /// The transformer, without the mask token.
    pub fn transformer(&self) -> &Transformer {
        &self.transformer
    }

    /// Pixels [M, patch_len] at the target patches, or [K + M, patch_len] at every patch.
    ///
    /// `context` [K, D] holds the encoder's tokens at `masks.context`. The mask token has the
    /// encoder's width and is projected as a query.
    pub fn forward(
        &self,
        tape: &Tape,
        context: &Tensor,
        masks: &Masks,
        positions: Positions,
        key: Option<StepKey>,
    ) -> Result<Tensor> {
        let inputs = Inputs { context, query: &self.query(tape)?, masks };
        self.transformer.forward(tape, &inputs, positions, key)
    }

    /// [1, D]
    fn query(&self, tape: &Tape) -> Result<Tensor> {
        let token = self.mask_token.tensor();
        self.transformer.query(tape, &token.reshape(&[1, token.len()])?)
    }
}

impl Module for PixelDecoder {
    fn visit(&self, prefix: &str, f: &mut dyn FnMut(&str, &Parameter)) {
        f(&join(prefix, "mask_token"), &self.mask_token);
        self.transformer.visit(&join(prefix, "transformer"), f);
    }
}
