//! A run: recipe, data, stages, probes. What the command line and Python both call.

mod dump;
mod folder;
mod follower;
mod lock;
pub(crate) mod online;
pub(crate) mod plan;
mod reporter;
mod saver;
pub(crate) mod setup;
mod stages;
mod unreadable;

pub(crate) use dump::FailedStep;
pub(crate) use folder::recipe_of;
pub(crate) use stages::TEACHER_SHA256;

use crate::failure::{Failure, use_threads};
use crate::judge::open_images;
use crate::recipe::Recipe;
use crate::train::{StepReport, Stop};
use folder::Folder;
use stages::Run;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Where a run goes.
pub struct Asked {
    /// Its folder.
    pub out: PathBuf,
    /// Go on with the run in the folder, or show the results of a finished one.
    pub resume: bool,
    /// Replace a run that is in the folder.
    pub overwrite: bool,
}

/// Hears of each step, with the name of its stage, and may end the run after it.
pub type Watch<'a> = &'a mut dyn FnMut(&str, &StepReport) -> ControlFlow<()>;

/// Trains and probes the stages of a checked recipe, from the beginning or from where the run in the
/// folder stands.
pub fn pretrain(
    recipe: &Recipe,
    place: &Asked,
    stop: &Stop,
    watch: Watch<'_>,
) -> Result<(), Failure> {
    let threads = use_threads(recipe.threads)?;
    let images = open_images(recipe)?;
    let plan = plan::plan(recipe, &images)?;
    let folder = Folder::open(place, recipe, &images, threads)?;
    folder.write_plan(&plan::as_file(&plan))?;
    let mut run = Run::new(recipe, &images, folder, (stop, watch), threads)?;
    let done = run.stages(&plan).and_then(|()| run.finish());
    if matches!(done, Err(Failure::Asked(_))) {
        run.discard_if_nothing_was_done();
    }
    done
}
