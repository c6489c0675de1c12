//! What people see in a terminal: progress, notes, tables, plots.

mod count;
mod plot;
mod progress;
mod show;
mod table;
mod time;
mod waiting;

pub use count::Count;
pub use plot::{Curve, Plot};
pub use progress::Progress;
pub use show::{note, printable, result, styled};
pub use table::{probe_table, worse_than_random};
pub use time::{seconds_text, time_text};
pub use waiting::Waiting;
