//! What a run says: metrics.jsonl for machines, progress and tables for people.

mod count;
mod environment;
mod fit;
mod follow;
pub mod html;
mod log;
mod online;
mod progress;
mod run_data;
mod series;
mod show;
mod step;
mod table;
mod time;
mod waiting;

pub use count::Count;
pub use environment::{environment, peak_memory_bytes, resident_memory_bytes};
pub use fit::{Fit, fit};
pub use follow::{Follow, Line, StepLine, Told, What};
pub use log::MetricsLog;
pub use online::{Alarm, Histogram, OnlineProbe, alarms};
pub use progress::Progress;
pub use run_data::{RunData, RunReader, StageData};
pub use series::Series;
pub use show::{note, result};
pub use step::StepReport;
pub use table::{ProbeRow, probe_table};
pub use time::time_text;
pub use waiting::Waiting;
