//! The predictor of stage 2. It predicts the teacher's latents at the targets from the student's
//! context tokens. stable-pretraining methods/salt.py; SALT, section 1.4 of the paper's
//! architecture.

use super::layers::join;
use super::transformer::{
    Inputs, PositionTable, Positions, Published, Transformer, TransformerSpec, TransformerUse,
};
use super::{StepKey, VitSpec};
use crate::mask::Masks;
use engine::random::Random;
use engine::{Module, Parameter, Result, Tape, Tensor, init};

/// A narrow transformer with a mask token, or one for each mask of a sample.
pub struct Predictor {
    transformer: Transformer,
    mask_token: Parameter,
}

impl Predictor {
    /// A predictor from the tokens of a student of the sizes `student` to a teacher of width
    /// `teacher_width`. It has rotary positions if the student has them. `mask_tokens` is 1, or the
    /// number of masks of a sample, each of which then has a token of its own (V-JEPA,
    /// src/models/predictor.py).
    pub fn new(
        spec: TransformerSpec,
        student: &VitSpec,
        teacher_width: usize,
        mask_tokens: usize,
        seed: u64,
    ) -> Self {
        let (positions, eps) = PositionTable::beside(student.rope);
        let mut random = Random::new(seed, "predictor", 0);
        let used = TransformerUse {
            input: student.width,
            output: teacher_width,
            hidden: 4 * spec.width,
            projects_queries: false,
            drop_path: 0.0,
            positions,
            eps,
            published: Published::Vjepa,
        };
        let tokens = init::normal(&mut random, mask_tokens * spec.width, 0.02);
        let tokens = Tensor::from_vec(tokens, &[mask_tokens, 1, spec.width]);
        Self {
            transformer: Transformer::new(spec, used, student.grid(), &mut random),
            mask_token: Parameter::new("mask_token", tokens),
        }
    }

    /// The predicted latents of the teacher at the targets [M, teacher width], or at every patch
    /// [K + M, teacher width].
    ///
    /// `context` [K, student width]: the student's tokens at the context patches. The reference
    /// projects zero queries, then replaces all of them by the mask token. Here they are never
    /// computed.
    pub fn forward(
        &self,
        tape: &Tape,
        context: &Tensor,
        masks: &Masks,
        positions: Positions,
        key: Option<StepKey>,
    ) -> Result<Tensor> {
        let token = self.mask_token.tensor();
        let query = &token.reshape(&[token.dim(0), token.dim(2)])?;
        let inputs = Inputs { context, query, masks };
        self.transformer.forward(tape, &inputs, positions, key)
    }
}

impl Module for Predictor {
    fn visit(&self, prefix: &str, f: &mut dyn FnMut(&str, &Parameter)) {
        f(&join(prefix, "mask_token"), &self.mask_token);
        self.transformer.visit(prefix, f);
    }
}
