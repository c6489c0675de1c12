//! What people see in a terminal: progress, notes, advice, tables, plots.

mod advice;
mod count;
mod plot;
mod progress;
mod show;
mod table;
mod time;
mod time_left;
mod verdict;
mod waiting;

pub use advice::alarms;
pub use count::Count;
pub use plot::{Plot, PlotCurve};
pub use progress::Progress;
pub use show::{note, printable, result, styled};
pub use table::probe_table;
pub use time::{seconds_text, time_text};
pub use time_left::{RunPace, StagePace};
pub use verdict::{Difference, JudgedStage, Outcome, StageVerdict, verdicts};
pub use waiting::Waiting;
