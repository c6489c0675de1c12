//! `saltworks pretrain`: arguments, then one call.

mod requeue;

use crate::failure::{Failure, input_error, run_error};
use crate::recipe;
use crate::run::{RunTarget, pretrain, recipe_of};
use crate::train::Stop;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Options of `pretrain`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A recipe (default: the built-in quickstart on Fashion-MNIST).
    recipe: Option<PathBuf>,
    /// Change a key of the recipe, e.g. teacher.lr=1e-3, data.size=32, seed=1. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder of the run. An unfinished run of the same recipe in it is resumed. Default: runs/NAME
    /// for a recipe NAME.toml, runs/quickstart without one.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Resume the run in the folder, with its own recipe if none is given. For a finished run, its
    /// results are shown.
    #[arg(long)]
    resume: bool,
    /// Replace an existing run in the folder.
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// Under Slurm: requeue the job (`scontrol requeue`) if SIGTERM, SIGUSR1 or SIGUSR2 stops it.
    #[arg(long)]
    requeue: bool,
}

/// The folder of a run if --out is not given.
fn default_out(recipe: Option<&Path>) -> PathBuf {
    let name = recipe.and_then(Path::file_stem).unwrap_or_else(|| OsStr::new("quickstart"));
    Path::new("runs").join(name)
}

/// Runs the command.
pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    // This comes before anything slow, because a scheduler's signal must find a listener.
    let stop = Stop::listen().map_err(run_error)?;
    let Arguments { recipe, set, out, resume, overwrite, requeue } = arguments;
    let out = out.unwrap_or_else(|| default_out(recipe.as_deref()));
    let path = match recipe {
        None if resume => Some(recipe_of(&out)?),
        given => given,
    };
    let recipe = recipe::load(path.as_deref(), &set).map_err(input_error)?;
    let target = RunTarget { out, resume, overwrite };
    let done = pretrain(&recipe, &target, &stop, &mut |_, _| ControlFlow::Continue(()));
    match done {
        Err(Failure::Interrupted { signal, text }) if requeue => {
            Err(Failure::Interrupted { signal, text: requeue::requeue(signal, &text) })
        }
        done => done,
    }
}
