//! The time that a stage will take, from a few of its steps and probes.

use super::online::{MOST_PROBES, Online};
use super::plan::StagePlan;
use crate::data::Loader;
use crate::failure::{Failure, input_error, loading, run_error};
use crate::judge::ImageSets;
use crate::method::{Method, embed};
use crate::recipe::Recipe;
use crate::train::{self, StepEvent, Stop};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// The times of a stage's steps, probes and features.
pub(crate) struct StageTime {
    pub(crate) seconds_per_step: f64,
    pub(crate) data_wait_share: f64,
    /// The time of an online probe, or 0 without online probes.
    pub(crate) probe_seconds: f64,
    /// The time to compute the features of an image, without loading it.
    pub(crate) feature_seconds: f64,
}

impl StageTime {
    /// Time of a stage's online probes: before its first step, after its last, and those between
    /// them.
    pub(crate) fn probes_seconds(&self, recipe: &Recipe, steps: u64) -> f64 {
        let between = match recipe.probe.every_steps {
            Some(every) => (steps.saturating_sub(1) / every.max(1)) as f64 * self.probe_seconds,
            None => {
                let share = recipe.probe.share * self.seconds_per_step * steps as f64;
                share.min((MOST_PROBES - 1) as f64 * self.probe_seconds)
            }
        };
        2.0 * self.probe_seconds + between
    }
}

/// Steps before timing starts. In these, buffers are allocated and the first batches are loaded.
const UNTIMED: u64 = 3;

/// Runs the training loop of a stage for `length`, at least two steps, with untrained weights.
pub(crate) fn time_stage(
    recipe: &Recipe,
    images: &ImageSets,
    plan: &StagePlan<'_>,
    length: Duration,
    stop: &Stop,
) -> Result<StageTime, Failure> {
    let method = plan.untrained_method()?;
    let method = method.as_ref();
    let mut optimizer = plan.optimizer(method);
    // A stage that is shorter than the timed steps is lengthened.
    let mut longer = plan.clone();
    longer.schedule.steps = plan.schedule.steps.max(1 << 20);
    let training = longer.training(method, &images.train, 0, BTreeSet::new())?;
    let (mut begun, mut steps, mut waited) = (Instant::now(), 0, 0.0);
    let ended =
        train::run(training, &mut optimizer, None, stop, &mut |StepEvent { report, .. }| {
            if report.step <= UNTIMED {
                begun = Instant::now();
                return ControlFlow::Continue(());
            }
            steps += 1;
            waited += report.waited.as_secs_f64();
            let enough = steps >= 2 && begun.elapsed() >= length;
            if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    let took = begun.elapsed().as_secs_f64();
    ended.map_err(|error| match error {
        train::Error::Data(error) => loading(error),
        error => run_error(error),
    })?;
    if let Some(signal) = stop.signal() {
        return Err(Failure::Interrupted { signal, text: "interrupted".into() });
    }
    let (probe_seconds, feature_seconds) = time_probes(recipe, images, &longer, method, stop)?;
    Ok(StageTime {
        seconds_per_step: took / f64::from(steps),
        data_wait_share: waited / took,
        probe_seconds,
        feature_seconds,
    })
}

/// Times an online probe, if the recipe has them, and the features of a batch.
fn time_probes(
    recipe: &Recipe,
    images: &ImageSets,
    plan: &StagePlan<'_>,
    method: &dyn Method,
    stop: &Stop,
) -> Result<(f64, f64), Failure> {
    let online = Online::new(recipe, images, plan);
    let seen = online.map(|mut online| online.probe(method, 0, stop)).transpose()?.flatten();
    let probe = seen.map_or(0.0, |seen| seen.probe.seconds);
    let loader = Loader::new(images.to_probe.clone(), recipe.data.feature_loader(recipe.data.size));
    let mut loader = loader.map_err(input_error)?;
    let Some(loaded) = loader.next_batch().map_err(loading)? else { return Ok((probe, 0.0)) };
    let (images, begun) = (loaded.batch.images, Instant::now());
    embed(method.encoder(), &images).map_err(run_error)?;
    Ok((probe, begun.elapsed().as_secs_f64() / images.samples() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn online_probes_are_counted_as_they_will_be_made() {
        let timed = StageTime {
            seconds_per_step: 0.1,
            data_wait_share: 0.0,
            probe_seconds: 2.0,
            feature_seconds: 0.0,
        };
        let seconds = |every_steps: Option<u64>, steps: u64| {
            let mut recipe = Recipe::default();
            (recipe.probe.every_steps, recipe.probe.share) = (every_steps, 0.05);
            timed.probes_seconds(&recipe, steps) / 2.0
        };
        // Steps 0, 300, 600, 900 and 1000, or 0, 500 and 1000: the last is one of them.
        assert_eq!([seconds(Some(300), 1000), seconds(Some(500), 1000)], [5.0, 3.0]);
        // 5 % of 100 s are two and a half probes. A long stage has as many as curves need.
        assert_eq!([seconds(None, 1000), seconds(None, 1_000_000)], [4.5, 21.0]);
    }
}
