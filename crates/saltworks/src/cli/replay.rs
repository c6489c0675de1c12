//! `saltworks replay`: arguments, then one call.

use crate::failure::Failure;
use crate::run::replay;
use std::path::PathBuf;

/// Options of `replay`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The folder that the run printed when it stopped: RUN/replay/STAGE-STEP.
    folder: PathBuf,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    replay(&arguments.folder)
}
