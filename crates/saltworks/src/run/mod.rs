//! A run: recipe, data, stages, probes. The command line and Python both call it.

mod artifacts;
mod choose;
mod doubts;
mod dump;
pub(crate) mod final_probes;
mod folder;
mod follower;
pub(crate) mod forecast;
pub(crate) mod lengths;
mod lock;
mod online;
pub(crate) mod plan;
mod replay;
mod reporter;
mod resume;
mod sizes;
mod stages;
pub(crate) mod step_times;
mod unreadable;

pub(crate) use artifacts::TEACHER_SHA256;
pub use choose::{ChosenRecipe, NamedInput, recipe_for};
pub(crate) use folder::recipe_of;
pub(crate) use replay::replay;

use crate::failure::{Failure, use_threads};
use crate::judge::open_images;
use crate::recipe::Recipe;
use crate::train::{StepReport, Stop};
use folder::Folder;
use stages::{Run, announce};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// The folder of a run, and what to do if it holds one.
pub struct RunTarget {
    /// Its folder.
    pub out: PathBuf,
    /// Resume the run in the folder, or show the results of a finished one.
    pub resume: bool,
    /// Replace an existing run in the folder.
    pub overwrite: bool,
}

/// Called after each step with the name of its stage. It may stop the run.
pub type OnStep<'a> = &'a mut dyn FnMut(&str, &StepReport) -> ControlFlow<()>;

/// Trains and probes the stages of a checked recipe, from the beginning or from the last
/// checkpoint.
pub fn pretrain(
    recipe: &Recipe,
    target: &RunTarget,
    stop: &Stop,
    on_step: OnStep<'_>,
) -> Result<(), Failure> {
    let threads = use_threads(recipe.threads)?;
    let images = open_images(recipe)?;
    let lengths = lengths::in_words(recipe);
    let recipe = &lengths::in_steps(recipe, Some(target), &images, stop)?;
    let plans = plan::plan(recipe, &images)?;
    let folder = Folder::open(target, recipe, &images, threads, lengths)?;
    folder.write_plan(&plan::plan_file(&plans))?;
    announce(recipe, &images, &folder, threads);
    let mut left = plans.iter().filter(|plan| !folder.is_done(&plan.stage.name));
    let fits = left.try_for_each(plan::StagePlan::expect_memory);
    let mut run = Run::new(recipe, &images, folder, stop, on_step)?;
    let done = fits.and_then(|()| run.stages(&plans)).and_then(|()| run.finish());
    if matches!(done, Err(Failure::Input(_))) {
        run.discard_if_nothing_was_done();
    }
    done
}
