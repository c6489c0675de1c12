//! The predictor of stage 2. It predicts the teacher's latents at the targets from the student's
//! context tokens. stable-pretraining methods/salt.py; SALT, section 1.4 of the paper's
//! architecture.

use super::StepKey;
use super::layers::{Start, join};
use super::transformer::{Inputs, Positions, Transformer, TransformerSpec};
use crate::mask::{Grid, Masks};
use engine::random::Random;
use engine::{Module, Parameter, Result, Tape, Tensor, init};

/// A narrow transformer with one mask token.
pub struct Predictor {
    transformer: Transformer,
    mask_token: Parameter,
}

impl Predictor {
    /// A predictor from the student's width to the teacher's, on `grid`.
    pub fn new(
        spec: TransformerSpec,
        student_width: usize,
        teacher_width: usize,
        grid: Grid,
        seed: u64,
    ) -> Self {
        let mut random = Random::new(seed, "predictor", 0);
        let widths = [student_width, teacher_width];
        let token = init::normal(&mut random, spec.width, 0.02);
        // V-JEPA's initial weights (src/models/predictor.py). The reference keeps torch's default,
        // uniform within 1/√fan_in, also for the bias.
        Self {
            transformer: Transformer::new(spec, widths, grid, Start::TruncNormal, &mut random),
            mask_token: Parameter::new("mask_token", Tensor::from_vec(token, &[1, 1, spec.width])),
        }
    }

    /// The predicted latents of the teacher at the targets [M, teacher width].
    ///
    /// `context` [K, student width]: the student's tokens at the context patches. The reference
    /// projects zero queries, then replaces all of them by the mask token. Here they are never
    /// computed.
    pub fn forward(
        &self,
        tape: &Tape,
        context: &Tensor,
        masks: &Masks,
        key: Option<StepKey>,
    ) -> Result<Tensor> {
        let token = self.mask_token.tensor();
        let query = &token.reshape(&[1, token.len()])?;
        let inputs = Inputs { context, query, masks };
        self.transformer.forward(tape, &inputs, Positions::Targets, key)
    }
}

impl Module for Predictor {
    fn visit(&self, prefix: &str, f: &mut dyn FnMut(&str, &Parameter)) {
        f(&join(prefix, "mask_token"), &self.mask_token);
        self.transformer.visit(prefix, f);
    }
}
