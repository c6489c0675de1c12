//! The report page: everything it shows of a run, and the page itself.

mod fit;
pub mod html;
mod run_data;
mod series;

pub use fit::{Fit, fit};
pub use run_data::{RunData, RunReader, StageData};
pub use series::Series;
