//! `saltworks log`: runs in the formats of other programs.

use super::report::expect_run;
use crate::console::result;
use crate::failure::{Failure, input_error, run_error};
use crate::loggers::{FileMode, TensorBoard, Wandb};
use crate::report::RunReader;
use crate::run_files::names::{TENSORBOARD, WANDB};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// Options of `log`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Arguments {
    /// Folders of runs.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The program that reads the files.
    #[arg(long, value_enum)]
    to: Program,
    /// Folder for the files (default: tensorboard/ or wandb/ in each run).
    #[arg(long)]
    out: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  saltworks log runs/a --to tensorboard && tensorboard --logdir runs/a/tensorboard
  saltworks log runs/a runs/b --to tensorboard --out boards && tensorboard --logdir boards
  saltworks log runs/a --to wandb && wandb sync runs/a/wandb/offline-run-*

A run writes these files itself if its recipe has `[log] tensorboard = true` or `wandb = true`.";

#[derive(Clone, Copy, clap::ValueEnum)]
enum Program {
    /// Event files: numbers, histograms, pictures and settings of each stage.
    Tensorboard,
    /// An offline run for `wandb sync`: numbers, histograms and settings.
    Wandb,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    arguments.runs.iter().try_for_each(|run| check(run, arguments))?;
    for run in &arguments.runs {
        let written = match arguments.to {
            Program::Tensorboard => tensorboard(run, arguments),
            Program::Wandb => wandb(run, arguments),
        };
        let folder = written.map_err(|error| run_error(format!("{}: {error}", run.display())))?;
        result(&folder.display().to_string());
    }
    Ok(())
}

/// Refuses folders without a run, and output that would mix with another run's files.
fn check(run: &Path, arguments: &Arguments) -> Result<(), Failure> {
    expect_run(run)?;
    if arguments.out.is_none() && RunReader::new(run).is_training() {
        return Err(input_error(format!(
            "{} is training, and may write these files itself. Choose another folder with --out",
            run.display()
        )));
    }
    let same = |other: &&PathBuf| name(other) == name(run);
    if arguments.out.is_some() && arguments.runs.iter().filter(same).count() > 1 {
        let name = name(run).display().to_string();
        return Err(input_error(format!(
            "two runs are named {name}. Remove --out, or one of the runs"
        )));
    }
    Ok(())
}

/// The folder's own name, also for `.`.
fn name(run: &Path) -> OsString {
    let real = run.canonicalize().unwrap_or_else(|_| run.into());
    real.file_name().unwrap_or_default().to_owned()
}

fn tensorboard(run: &Path, arguments: &Arguments) -> io::Result<PathBuf> {
    let out = match (&arguments.out, arguments.runs.len()) {
        (None, _) => run.join(TENSORBOARD),
        (Some(out), 1) => out.clone(),
        (Some(out), _) => out.join(name(run)),
    };
    let mut board = TensorBoard::new(run, &out, FileMode::Replace);
    board.finish()?;
    if board.is_empty() {
        return Err(io::Error::other("it has no steps yet"));
    }
    Ok(out)
}

fn wandb(run: &Path, arguments: &Arguments) -> io::Result<PathBuf> {
    let out = arguments.out.clone().unwrap_or_else(|| run.join(WANDB));
    let folder = Wandb::new(run, &out).finish(RunReader::new(run).is_finished())?;
    folder.ok_or_else(|| io::Error::other("it has no steps yet"))
}
