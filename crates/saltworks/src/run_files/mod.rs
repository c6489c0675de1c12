//! The names and formats of everything in a run's folder, for writers and readers.

mod environment;
mod lock;
mod metrics;
pub mod names;
mod online_probe;
mod plan;
mod probes;
pub(crate) mod reading;
mod state;
mod time;

pub use environment::{
    Environment, free_memory_bytes, memory_nodes, peak_memory_bytes, resident_memory_bytes,
};
pub use lock::{LockOwner, is_training};
pub use metrics::{Line, LineKind, LogEvent, MetricsLog, MetricsReader, StepLine};
pub use online_probe::{Alarm, Histogram, OnlineProbe};
pub use plan::{PlanFile, PlannedStage};
pub use probes::{ProbeRow, Right, random_row};
pub use state::{RecipeStamp, RunEnd, RunState, StageDone};
pub use time::unix_seconds;
