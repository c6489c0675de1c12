//! Lengths in minutes become steps, which are timed before a run begins. The run's own recipe holds
//! the steps, so that a resumed run and a repeated one have the same bits.

use super::RunTarget;
use super::folder::replaces;
use super::forecast::time_steps;
use super::plan::StagePlan;
use crate::console::{note, seconds_text};
use crate::failure::{Failure, input_error};
use crate::judge::ImageSets;
use crate::recipe::{self, PROBES_SHARE, Recipe, Stage};
use crate::run_files::names::RECIPE;
use crate::train::Stop;
use std::time::Duration;

/// How long the steps of a stage are timed. (guess)
const TIMED: Duration = Duration::from_millis(1500);

/// The time of a stage that its first and its last probe may take. (guess)
const STAGE_PROBES: f64 = 0.04;

/// Whether any length is a time.
pub(crate) fn in_minutes(recipe: &Recipe) -> bool {
    recipe.minutes.is_some() || recipe.stage.iter().any(|stage| stage.minutes.is_some())
}

/// The lengths as the user gives them, in words. A run is resumed only if they are the same.
pub(crate) fn in_words(recipe: &Recipe) -> Option<String> {
    let length = |Stage { name, epochs, steps, samples, minutes, .. }: &Stage| {
        let all = [
            epochs.map(|epochs| format!("{epochs} epochs")),
            steps.map(|steps| format!("{steps} steps")),
            samples.map(|samples| format!("{samples} samples")),
            minutes.map(|minutes| format!("{minutes} minutes")),
        ];
        format!("{name} {}", all.into_iter().flatten().collect::<Vec<_>>().join(", "))
    };
    let stages = recipe.stage.iter().map(length).collect::<Vec<_>>().join("; ");
    let whole = recipe.minutes.map(|minutes| format!("{minutes} minutes in all, divided as "));
    in_minutes(recipe).then(|| whole.unwrap_or_default() + &stages)
}

/// The recipe with all lengths in steps: those of the run in the target's folder, or those that the
/// time suffices for. The same recipe if no length is in minutes.
pub(crate) fn in_steps(
    recipe: &Recipe,
    target: Option<&RunTarget>,
    images: &ImageSets,
    stop: &Stop,
) -> Result<Recipe, Failure> {
    if !in_minutes(recipe) {
        return Ok(recipe.clone());
    }
    let earlier = target.filter(|target| !replaces(target)).map(|target| target.out.join(RECIPE));
    match earlier.filter(|path| path.is_file()) {
        Some(path) => {
            let earlier = recipe::load_trained(&path, &[]).map_err(input_error)?;
            let steps = recipe.stage.iter().map(|stage| {
                let same = earlier.stage.iter().find(|earlier| earlier.name == stage.name);
                // Another recipe is refused later, with its differences.
                same.and_then(|same| same.steps).unwrap_or(1)
            });
            Ok(with_steps(recipe, &steps.collect::<Vec<_>>()))
        }
        None => timed(recipe, images, stop),
    }
}

fn with_steps(recipe: &Recipe, steps: &[u64]) -> Recipe {
    let mut recipe = Recipe { minutes: None, ..recipe.clone() };
    for (stage, steps) in recipe.stage.iter_mut().zip(steps) {
        (stage.epochs, stage.samples, stage.minutes) = (None, None, None);
        stage.steps = Some(*steps);
    }
    recipe
}

/// Times the stages whose length depends on it.
fn timed(recipe: &Recipe, images: &ImageSets, stop: &Stop) -> Result<Recipe, Failure> {
    let count = images.train.len();
    // Any number will do: steps are timed one by one.
    let any = with_steps(recipe, &vec![1; recipe.stage.len()]);
    let given = |index: usize| recipe.stage[index].resolve(count).map(|given| given.steps);
    let mut steps = Vec::new();
    let mut seconds = Vec::new();
    for (index, stage) in recipe.stage.iter().enumerate() {
        if recipe.minutes.is_none() && stage.minutes.is_none() {
            steps.push(given(index).map_err(|error| input_error(recipe.origin.locate(error)))?);
            seconds.push(0.0);
            continue;
        }
        let plan = StagePlan::new(&any, index, count)?;
        let step = time_steps(&plan, images, TIMED, stop)?.seconds_per_step;
        let probes = if recipe.probe.online { STAGE_PROBES + recipe.probe.share } else { 0.0 };
        seconds.push(step * (1.0 + probes));
        steps.push(match stage.minutes {
            Some(minutes) => (60.0 * minutes / seconds[index]) as u64,
            None => given(index).map_err(|error| input_error(recipe.origin.locate(error)))?,
        });
    }
    if let Some(minutes) = recipe.minutes {
        let whole: f64 = steps.iter().zip(&seconds).map(|(steps, each)| *steps as f64 * each).sum();
        let factor = 60.0 * minutes * (1.0 - PROBES_SHARE) / whole;
        steps.iter_mut().for_each(|steps| *steps = (*steps as f64 * factor) as u64);
    }
    steps.iter_mut().for_each(|steps| *steps = (*steps).max(1));
    let all = recipe.stage.iter().zip(&steps).zip(&seconds);
    for ((stage, steps), each) in all.filter(|(_, each)| **each > 0.0) {
        let time = seconds_text(each * *steps as f64);
        note(&format!("{:>10}  {steps} steps take about {time} here", stage.name));
    }
    Ok(with_steps(recipe, &steps))
}
