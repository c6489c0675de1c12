//! The training loop.

use super::{Curve, Error, Optimizer, Saver, Stop};
use crate::data::{Batch, Loader, Unreadable};
use crate::mask::{Grid, MaskList, Masks};
use crate::method::Method;
use crate::model::StepKey;
use crate::train::StepReport;
use engine::{Dtype, Tape, Tensor};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Everything a stage needs.
pub struct StageTraining<'a> {
    /// What is trained.
    pub method: &'a dyn Method,
    /// Batches of `batch / accumulate` images, starting with those of step `first_step`.
    pub loader: Loader,
    /// How masks are drawn.
    pub masking: MaskList,
    /// Tokens of an image.
    pub grid: Grid,
    /// Images of an optimizer step.
    pub batch: usize,
    /// Number of parts of a batch, which are computed one after another.
    pub accumulate: usize,
    /// Whether blocks save only their inputs and are recomputed in the backward pass.
    pub activation_checkpointing: bool,
    /// How activations are stored.
    pub dtype: Dtype,
    /// Steps applied before: more than 0 if a run is resumed.
    pub first_step: u64,
    /// Total number of optimizer steps.
    pub steps: u64,
    /// Learning rate by step.
    pub lr: Curve,
    /// Weight decay by step.
    pub weight_decay: Curve,
    /// Seed of masks and stochastic depth.
    pub seed: u64,
}

/// A step that was applied.
pub struct StepEvent<'a, 's> {
    /// The step's record.
    pub report: StepReport,
    /// Images of the batch that could not be read.
    pub unreadable: &'a [Unreadable],
    /// Saves the stage. None if nothing is saved.
    pub saver: Option<&'a mut Saver<'s>>,
}

/// How a stage ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageEnd {
    /// All steps were applied.
    Whole,
    /// Stopped from outside after this many steps.
    Stopped(u64),
}

/// Trains a stage: each step draws a batch and its masks, adds up the gradients and applies them.
/// `optimizer` holds the method's parameters. `saver` logs each step and saves checkpoints.
/// `on_step` may stop the stage after a step.
pub fn run<'s>(
    mut stage: StageTraining<'_>,
    optimizer: &mut Optimizer,
    mut saver: Option<&mut Saver<'s>>,
    stop: &Stop,
    on_step: &mut dyn FnMut(StepEvent<'_, 's>) -> ControlFlow<()>,
) -> Result<StageEnd, Error> {
    for step in stage.first_step..stage.steps {
        if stop.signal().is_some() {
            return Ok(StageEnd::Stopped(step));
        }
        let start = Instant::now();
        optimizer.zero_grad();
        let masks = stage.masking.sample(stage.grid, stage.batch, stage.seed, step)?;
        let masks = stage.method.masks(masks);
        let mut sums = Sums::default();
        for part in 0..stage.accumulate {
            match stage.gradients(step, part, &masks, stop, &mut sums) {
                // Nothing was applied: the step is made again when the run is resumed.
                Err(Error::Engine { source: engine::Error::Stopped, .. }) => {
                    return Ok(StageEnd::Stopped(step));
                }
                done => done?,
            }
        }
        let loss = sums.loss();
        if !loss.is_finite() {
            return Err(not_finite(step, &format!("the loss is {loss}"), sums.batches));
        }
        let (lr, weight_decay) = (stage.lr.at(step), stage.weight_decay.at(step));
        let grad_norm = match optimizer.step(lr, weight_decay) {
            Ok(norm) => norm,
            Err(error) => return Err(not_finite(step, &error, sums.batches)),
        };
        let report = StepReport {
            step: step + 1,
            loss,
            lr,
            weight_decay,
            grad_norm,
            images: sums.images,
            context_tokens: sums.context_tokens,
            target_tokens: sums.target_tokens,
            time: start.elapsed(),
            waited: sums.waited,
        };
        let unreadable = &sums.unreadable;
        if let Some(saver) = &mut saver {
            saver.step(&report, unreadable)?;
        }
        if on_step(StepEvent { report, unreadable, saver: saver.as_deref_mut() }).is_break() {
            return Ok(StageEnd::Stopped(step + 1));
        }
        if let Some(saver) = &mut saver {
            saver.save_if_due(optimizer)?;
        }
    }
    Ok(StageEnd::Whole)
}

/// Sums over the parts of a batch.
#[derive(Default)]
struct Sums {
    /// Each part's loss and share, still on the device: reading one waits for all before it.
    losses: Vec<(Tensor, f32)>,
    images: usize,
    context_tokens: usize,
    target_tokens: usize,
    waited: Duration,
    unreadable: Vec<Unreadable>,
    /// Kept for the report of a step that fails.
    batches: Vec<Batch>,
}

impl Sums {
    /// The loss of the whole batch. Waits for the device.
    fn loss(&self) -> f32 {
        self.losses.iter().fold(0.0, |sum, (loss, share)| sum + share * loss.item())
    }
}

fn not_finite(step: u64, problem: &dyn std::fmt::Display, batches: Vec<Batch>) -> Error {
    Error::NotFinite { step: step + 1, problem: problem.to_string(), batches }
}

impl StageTraining<'_> {
    /// Adds the gradients of one part of a batch to the parameters' gradients, and its results to
    /// `sums`. A part's weight is its share in the loss of the batch.
    fn gradients(
        &mut self,
        step: u64,
        part: usize,
        masks: &Masks,
        stop: &Stop,
        sums: &mut Sums,
    ) -> Result<(), Error> {
        // The training order never ends.
        let loaded = self.loader.next_batch()?.expect("a batch");
        sums.waited += loaded.waited;
        sums.unreadable.extend_from_slice(&loaded.batch.unreadable);
        let images = loaded.batch.images.with_dtype(self.dtype);
        sums.batches.push(loaded.batch);
        let samples = self.batch / self.accumulate;
        let first_sample = part * samples;
        let masks = masks.part(first_sample..first_sample + samples);
        let share = masks.share();
        let key = StepKey { seed: self.seed, step, first_sample };
        let in_step = |source| Error::Engine { step: step + 1, source };
        let stop = stop.clone();
        let tape = Tape::new()
            .checkpointing(self.activation_checkpointing)
            .stopping(move || stop.signal().is_some());
        let result = self.method.step(&tape, &images, &masks, Some(key)).map_err(in_step)?;
        tape.backward_scaled(&result.loss, share).map_err(in_step)?;
        sums.losses.push((result.loss, share));
        sums.images += images.samples();
        sums.context_tokens += result.context_tokens;
        sums.target_tokens += result.target_count;
        Ok(())
    }
}
