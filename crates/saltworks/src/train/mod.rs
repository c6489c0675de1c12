//! Training: the loop, its schedules, the optimizer step.

mod run;
mod schedule;
mod step;

pub use run::{Ended, Event, Signal, Stage, run};
pub use schedule::Curve;
pub use step::{Optimizer, OptimizerOptions};

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data.
    #[error(transparent)]
    Data(#[from] crate::data::Error),
    /// The masks.
    #[error(transparent)]
    Masks(#[from] crate::mask::Error),
    /// The engine.
    #[error("step {step}: {source}")]
    Engine {
        /// Counted from 1.
        step: u64,
        /// What happened.
        source: engine::Error,
    },
    /// The loss is no number.
    #[error(
        "step {step}: the loss is {loss}; the step was not applied. Images of the batch: {images:?}. \
         Lower the learning rate, lengthen the warmup or set a clip norm"
    )]
    NotFinite {
        /// Counted from 1.
        step: u64,
        /// What it is.
        loss: f32,
        /// Their numbers in the source.
        images: Vec<u64>,
    },
    /// Something could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
}
