//! What a training step did: the record that logs and progress are made of.

use std::time::Duration;

/// What a step did.
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
