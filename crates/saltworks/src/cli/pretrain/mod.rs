//! `saltworks pretrain`: recipe, data, stages, probes.

mod dump;
mod folder;
mod lock;
mod plan;
mod requeue;
mod run;
mod saver;
mod unreadable;

use super::setup;
use super::{Failure, asked, ran, use_threads};
use crate::recipe;
use crate::train::Stop;
use folder::Folder;
use run::Run;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Options of `pretrain`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A recipe; the built-in quickstart (Fashion-MNIST) without one.
    recipe: Option<PathBuf>,
    /// Change a key of the recipe, e.g. teacher.lr=1e-3, data.size=32, seed=1; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder of the run. A run of the same recipe that was cut short in it goes on where it stood.
    /// runs/NAME for a recipe NAME.toml, runs/quickstart without one.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Go on with the run in the folder, by its own recipe if none is given. One that is finished
    /// shows its results.
    #[arg(long)]
    resume: bool,
    /// Replace a run that is in the folder.
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// Under Slurm: ask for another turn (`scontrol requeue`) when SIGTERM, SIGUSR1 or SIGUSR2 ends
    /// this one.
    #[arg(long)]
    requeue: bool,
}

impl Arguments {
    /// The folder of the run.
    fn out(&self) -> PathBuf {
        let name = self.recipe.as_deref().and_then(Path::file_stem);
        let name = name.unwrap_or_else(|| OsStr::new("quickstart"));
        self.out.clone().unwrap_or_else(|| Path::new("runs").join(name))
    }
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    // Before anything slow: a scheduler's signal must find its listener.
    let stop = Stop::listen().map_err(ran)?;
    let done = pretrain(arguments, &stop);
    match done {
        Err(Failure::Interrupted { signal, text }) if arguments.requeue => {
            Err(Failure::Interrupted { signal, text: requeue::requeue(signal, &text) })
        }
        done => done,
    }
}

fn pretrain(arguments: &Arguments, stop: &Stop) -> Result<(), Failure> {
    let path = match &arguments.recipe {
        None if arguments.resume => Some(Folder::recipe_of(&arguments.out())?),
        given => given.clone(),
    };
    let recipe = recipe::load(path.as_deref(), &arguments.set).map_err(asked)?;
    let threads = use_threads(recipe.threads)?;
    let images = setup::open(&recipe)?;
    let plan = plan::plan(&recipe, &images)?;
    let folder = Folder::open(arguments, &recipe, &images, threads)?;
    let mut run = Run::new(&recipe, &images, folder, stop, threads)?;
    let done = run.stages(&plan).and_then(|()| run.finish());
    if matches!(done, Err(Failure::Asked(_))) {
        run.discard_if_nothing_was_done();
    }
    done
}
