//! `saltworks pretrain`: arguments, then one call.

mod requeue;

use super::recipe_arguments::RecipeArguments;
use crate::failure::{Failure, run_error};
use crate::run::{RunTarget, pretrain, recipe_of};
use crate::train::Stop;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Options of `pretrain`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    recipe: RecipeArguments,
    /// Folder of the run. An unfinished run of the same recipe in it is resumed. Default: runs/NAME
    /// for a recipe NAME.toml or images in NAME, runs/quickstart without either.
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

/// Runs the command.
pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    // This comes before anything slow, because a scheduler's signal must find a listener.
    let stop = Stop::listen().map_err(run_error)?;
    let Arguments { recipe, out, resume, overwrite, requeue } = arguments;
    let out = out.unwrap_or_else(|| recipe.default_out());
    let chosen = match resume && !recipe.names_recipe() {
        true => recipe.recipe_of_run(&recipe_of(&out)?),
        false if overwrite => recipe.recipe(),
        false => recipe.recipe_in(&out),
    };
    let recipe = chosen?.recipe;
    let target = RunTarget { out, resume, overwrite };
    let done = pretrain(&recipe, &target, &stop, &mut |_, _| ControlFlow::Continue(()));
    match done {
        Err(Failure::Interrupted { signal, text }) if requeue => {
            Err(Failure::Interrupted { signal, text: requeue::requeue(signal, &text) })
        }
        done => done,
    }
}
