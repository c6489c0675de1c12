//! The time that a stage will take, from a few of its steps and probes.

use super::online::Online;
use super::plan::StagePlan;
use crate::data::{Loader, LoaderOptions};
use crate::failure::{Failure, input_error, loading, run_error};
use crate::judge::ImageSets;
use crate::method::{Method, embed};
use crate::recipe::{Recipe, Stage};
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
    /// The time to load an image for features.
    pub(crate) load_seconds: f64,
}

impl StageTime {
    /// Time of a stage's online probes.
    pub(crate) fn probes_seconds(&self, recipe: &Recipe, steps: u64) -> f64 {
        let Self { seconds_per_step, probe_seconds, .. } = *self;
        recipe.probe.expected(steps, seconds_per_step, probe_seconds) * probe_seconds
    }
}

/// Steps before timing starts. In these, buffers are allocated and the first batches are loaded.
const UNTIMED: u64 = 2;

/// The times of a stage's steps.
pub(crate) struct TimedSteps {
    pub(crate) seconds_per_step: f64,
    pub(crate) data_wait_share: f64,
}

/// Times the steps, probes and features of a stage, with untrained weights.
pub(crate) fn time_stage(
    recipe: &Recipe,
    images: &ImageSets,
    plan: &StagePlan<'_>,
    length: Duration,
    stop: &Stop,
) -> Result<StageTime, Failure> {
    let TimedSteps { seconds_per_step, data_wait_share } = time_steps(plan, images, length, stop)?;
    let method = plan.untrained_method()?;
    let online = Online::new(recipe, images, plan);
    let seen = online.map(|mut online| online.probe(method.as_ref(), 0, stop)).transpose()?;
    let probe_seconds = seen.flatten().map_or(0.0, |seen| seen.probe.seconds);
    let (load_seconds, feature_seconds) = time_features(recipe, images, method.as_ref())?;
    Ok(StageTime {
        seconds_per_step,
        data_wait_share,
        probe_seconds,
        feature_seconds,
        load_seconds,
    })
}

/// The most images of a step that is timed first, to see how long a whole step takes.
const FEW_IMAGES: usize = 8;

/// Runs the training loop of a stage for `length`, at least three steps, with untrained weights. If
/// whole steps would take much longer than `length`, steps of a few images are timed instead.
pub(crate) fn time_steps(
    plan: &StagePlan<'_>,
    images: &ImageSets,
    length: Duration,
    stop: &Stop,
) -> Result<TimedSteps, Failure> {
    let few =
        Stage { batch: plan.stage.batch.min(FEW_IMAGES), accumulate: 1, ..plan.stage.clone() };
    let share = plan.stage.batch as f64 / few.batch as f64;
    let loader = LoaderOptions { batch: few.batch, ..plan.loader.clone() };
    let few = StagePlan { stage: &few, loader, ..plan.clone() };
    let first = time_loop(&few, images, Duration::ZERO, stop)?;
    let whole = share * first.seconds_per_step;
    if whole * (UNTIMED + LEAST) as f64 <= 2.0 * length.as_secs_f64() {
        return time_loop(plan, images, length, stop);
    }
    Ok(TimedSteps { seconds_per_step: whole, ..first })
}

/// The fewest steps that are timed.
const LEAST: u64 = 3;

fn time_loop(
    plan: &StagePlan<'_>,
    images: &ImageSets,
    length: Duration,
    stop: &Stop,
) -> Result<TimedSteps, Failure> {
    let method = plan.untrained_method()?;
    let method = method.as_ref();
    let mut optimizer = plan.optimizer(method);
    // A stage that is shorter than the timed steps is lengthened.
    let mut longer = plan.clone();
    longer.schedule.steps = plan.schedule.steps.max(1 << 20);
    let training = longer.training(method, &images.train, 0, BTreeSet::new())?;
    let (mut begun, mut steps, mut waited) = (Instant::now(), Vec::new(), 0.0);
    let ended =
        train::run(training, &mut optimizer, None, stop, &mut |StepEvent { report, .. }| {
            if report.step <= UNTIMED {
                begun = Instant::now();
                return ControlFlow::Continue(());
            }
            steps.push(report.time.as_secs_f64());
            waited += report.waited.as_secs_f64();
            let enough = steps.len() as u64 >= LEAST && begun.elapsed() >= length;
            if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    let took = begun.elapsed().as_secs_f64();
    ended.map_err(|error| match error {
        train::Error::Data(error) => loading(error),
        error => run_error(error),
    })?;
    if let Some(signal) = stop.signal() {
        return Err(Failure::Interrupted { signal, text: "interrupted before training".into() });
    }
    // The median: one very large image would make a mean of few steps useless.
    steps.sort_by(f64::total_cmp);
    Ok(TimedSteps { seconds_per_step: steps[steps.len() / 2], data_wait_share: waited / took })
}

/// Seconds to load an image, and to compute its features, by a few batches.
fn time_features(
    recipe: &Recipe,
    images: &ImageSets,
    method: &dyn Method,
) -> Result<(f64, f64), Failure> {
    /// The first batch is made while its thread starts.
    const BATCHES: usize = 3;
    let options = LoaderOptions { prefetch: 1, ..recipe.data.feature_loader(recipe.data.size) };
    let mut loader = Loader::new(images.to_probe.clone(), options).map_err(input_error)?;
    let (mut load, mut feature) = (0.0, 0.0);
    for _ in 0..BATCHES {
        let begun = Instant::now();
        let Some(loaded) = loader.next_batch().map_err(loading)? else { break };
        let (images, loaded) = (loaded.batch.images, begun.elapsed().as_secs_f64());
        let begun = Instant::now();
        embed(method.encoder(), &images).map_err(run_error)?;
        let each = images.samples() as f64;
        (load, feature) = (loaded / each, begun.elapsed().as_secs_f64() / each);
    }
    Ok((load, feature))
}
