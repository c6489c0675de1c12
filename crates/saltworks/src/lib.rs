//! saltworks pretrains vision transformers with SALT. The modules follow the flow of the data.
pub mod cli;
pub mod console;
pub mod data;
pub mod eval;
pub mod failure;
pub mod files;
#[cfg(test)]
mod fuzz;
pub mod judge;
pub mod loggers;
pub mod mask;
pub mod method;
pub mod model;
pub mod pictures;
pub mod range;
pub mod recipe;
pub mod report;
pub mod run;
pub mod run_files;
pub mod serve;
pub mod train;
pub mod weights;
mod zip;
