//! The record of a training step, from which logs and progress are written.

use crate::run_files::StepLine;
use std::time::Duration;

/// The record of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Counted from 1.
    pub step: u64,
    /// Mean over the batch.
    pub loss: f32,
    /// Learning rate applied.
    pub lr: f64,
    /// Weight decay applied.
    pub weight_decay: f64,
    /// L2 norm of the gradient before clipping.
    pub grad_norm: f32,
    /// Images of the step.
    pub images: usize,
    /// Context tokens of the step.
    pub context_tokens: usize,
    /// Tokens predicted in the step.
    pub target_tokens: usize,
    /// Time of the whole step.
    pub time: Duration,
    /// Part of it spent waiting for data.
    pub waited: Duration,
}

impl StepReport {
    /// The step's line in metrics.jsonl.
    pub fn line(&self) -> StepLine {
        let seconds = self.time.as_secs_f64();
        StepLine {
            seconds,
            loss: f64::from(self.loss),
            lr: self.lr,
            weight_decay: self.weight_decay,
            grad_norm: f64::from(self.grad_norm),
            images_per_second: self.images as f64 / seconds,
            data_wait_share: self.waited.as_secs_f64() / seconds,
            context_tokens: self.context_tokens as u64,
            target_tokens: self.target_tokens as u64,
        }
    }
}
