//! What a run says: metrics.jsonl for machines, progress and tables for people.

mod count;
mod environment;
mod log;
mod online;
mod progress;
mod show;
mod step;
mod table;
mod time;
mod waiting;

pub use count::Count;
pub use environment::{environment, peak_memory_bytes, resident_memory_bytes};
pub use log::{MetricsLog, probes_so_far};
pub use online::{Alarm, Histogram, OnlineProbe, alarms};
pub use progress::Progress;
pub use show::{note, result};
pub use step::StepReport;
pub use table::{ProbeRow, probe_table};
pub use time::time_text;
pub use waiting::Waiting;
