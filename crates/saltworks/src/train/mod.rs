//! Training: the loop, its schedules, the optimizer step, checkpoints.

mod checkpoint;
mod report;
mod run;
mod saver;
mod schedule;
mod step;
mod stop;

pub use checkpoint::{
    CHECKPOINT_FOLDER, Checkpoint, CheckpointError, Checkpoints, Keep, Newest, Position,
    refuse_divergence,
};
pub use report::StepReport;
pub use run::{StageEnd, StageTraining, StepEvent, run};
pub use saver::{FolderCheck, SaveError, Saver};
pub use schedule::Curve;
pub use step::{Optimizer, OptimizerOptions};
pub use stop::Stop;

/// Why training stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] crate::data::Error),
    /// The masks cannot be drawn.
    #[error(transparent)]
    Masks(#[from] crate::mask::Error),
    /// The engine reported an error.
    #[error("step {step}: {source}")]
    Engine {
        /// Counted from 1.
        step: u64,
        /// The cause.
        source: engine::Error,
    },
    /// The log or a checkpoint cannot be written.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The loss or a gradient is not finite.
    #[error(
        "step {step}: {problem}; the step was not applied. Lower the learning rate, lengthen the \
         warmup or set a clip norm"
    )]
    NotFinite {
        /// Counted from 1.
        step: u64,
        /// What is not finite.
        problem: String,
        /// The batches that the step has read.
        batches: Vec<crate::data::Batch>,
    },
}
