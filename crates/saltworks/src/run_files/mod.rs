//! The names and formats of everything in a run's folder, for those who write and those who read.

mod environment;
mod follow;
mod lock_owner;
mod metrics_log;
pub mod names;
mod online_probe;
mod plan;
mod probe_row;
pub(crate) mod reading;
mod state;
mod time;

pub use environment::{Environment, peak_memory_bytes, resident_memory_bytes};
pub use follow::{Follow, Line, StepLine, Told, What};
pub use lock_owner::{LockOwner, is_training};
pub use metrics_log::MetricsLog;
pub use online_probe::{Alarm, Histogram, OnlineProbe, alarms};
pub use plan::{PlanFile, PlannedStage};
pub use probe_row::ProbeRow;
pub use state::{RunEnd, RunState, StageDone};
pub use time::unix_seconds;
