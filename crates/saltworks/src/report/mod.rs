//! The report page: its data and the page itself.

mod fit;
pub mod html;
mod run_data;
mod series;

pub use fit::{Fit, fit};
pub use run_data::{RunData, RunReader, StageData};
pub use series::Series;
