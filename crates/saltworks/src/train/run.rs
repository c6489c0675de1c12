//! The training loop.

use super::{Curve, Error, Optimizer, OptimizerOptions};
use crate::data::Loader;
use crate::mask::{Grid, Masking, Masks};
use crate::method::Method;
use crate::model::StepKey;
use crate::report::StepReport;
use engine::Tape;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Everything a stage needs.
pub struct Stage<'a> {
    /// What is trained.
    pub method: &'a dyn Method,
    /// Batches of `batch / accumulate` images.
    pub loader: Loader,
    /// How masks are drawn.
    pub masking: Masking,
    /// Tokens of an image.
    pub grid: Grid,
    /// Images of an optimizer step.
    pub batch: usize,
    /// Parts of a batch computed one after another.
    pub accumulate: usize,
    /// Whether blocks save their inputs alone and are computed again on the way back.
    pub activation_checkpointing: bool,
    /// Optimizer steps.
    pub steps: u64,
    /// Learning rate by step.
    pub lr: Curve,
    /// Weight decay by step.
    pub weight_decay: Curve,
    /// AdamW and clipping.
    pub optimizer: OptimizerOptions,
    /// Keys masks and stochastic depth.
    pub seed: u64,
}

/// Set from outside to stop after the present step.
pub type Signal = AtomicBool;

/// What happened.
pub enum Event {
    /// A step was applied.
    Step(StepReport),
}

/// How a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All steps were made.
    Whole,
    /// Stopped from outside after this many.
    Stopped(u64),
}

/// Trains a stage: for each step draw a batch and its masks, add up the gradients, apply them.
/// `on_event` may end it after a step.
pub fn run(
    mut stage: Stage<'_>,
    stop: &Signal,
    on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
) -> Result<Ended, Error> {
    let mut optimizer = Optimizer::new(stage.method.parameters(), stage.optimizer);
    for step in 0..stage.steps {
        if stop.load(Ordering::Relaxed) {
            return Ok(Ended::Stopped(step));
        }
        let start = Instant::now();
        optimizer.zero_grad();
        let masks = stage.masking.sample(stage.grid, stage.batch, stage.seed, step)?;
        let masks = stage.method.masks(masks);
        let mut sums = Sums::default();
        for part in 0..stage.accumulate {
            sums.add(&stage.gradients(step, part, &masks)?);
        }
        let (lr, weight_decay) = (stage.lr.at(step), stage.weight_decay.at(step));
        let norm = optimizer.step(lr, weight_decay);
        let after = on_event(Event::Step(StepReport {
            step: step + 1,
            loss: sums.loss,
            lr,
            weight_decay,
            grad_norm: norm.map_err(|source| Error::Engine { step: step + 1, source })?,
            images: sums.images,
            context_tokens: sums.context_tokens,
            target_tokens: sums.target_tokens,
            time: start.elapsed(),
            waited: sums.waited,
        }));
        if after.is_break() {
            return Ok(Ended::Stopped(step + 1));
        }
    }
    Ok(Ended::Whole)
}

/// Sums over the parts of a batch, and what one part gives.
#[derive(Default)]
struct Sums {
    loss: f32,
    images: usize,
    context_tokens: usize,
    target_tokens: usize,
    waited: Duration,
}

impl Sums {
    fn add(&mut self, part: &Self) {
        self.loss += part.loss;
        self.images += part.images;
        self.context_tokens += part.context_tokens;
        self.target_tokens += part.target_tokens;
        self.waited += part.waited;
    }
}

impl Stage<'_> {
    /// Adds the gradients of one part of a batch to the parameters'. The loss is a mean over all
    /// targets of the batch, so a part weighs as many as it has.
    fn gradients(&mut self, step: u64, part: usize, masks: &Masks) -> Result<Sums, Error> {
        // Training order has no end.
        let loaded = self.loader.next_batch()?.expect("a batch");
        let samples = self.batch / self.accumulate;
        let first_sample = part * samples;
        let all_targets = masks.target_count() as f32;
        let masks = masks.part(first_sample..first_sample + samples);
        let share = masks.target_count() as f32 / all_targets;
        let key = StepKey { seed: self.seed, step, first_sample };
        let in_step = |source| Error::Engine { step: step + 1, source };
        let tape = Tape::new().checkpointing(self.activation_checkpointing);
        let images = &loaded.batch.images;
        let result = self.method.step(&tape, images, &masks, key).map_err(in_step)?;
        let loss = result.loss.item();
        if !loss.is_finite() {
            return Err(Error::NotFinite { step: step + 1, loss, images: loaded.batch.indices });
        }
        tape.backward_scaled(&result.loss, share).map_err(in_step)?;
        Ok(Sums {
            loss: share * loss,
            images: images.samples(),
            context_tokens: result.context_tokens,
            target_tokens: result.target_count,
            waited: loaded.waited,
        })
    }
}
