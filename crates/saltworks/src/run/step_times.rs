//! Times of training steps on synthetic images, for each operation.

use super::plan::StagePlan;
use crate::failure::{Failure, run_error};
use crate::method::Method;
use crate::model::{Encoder, Outputs, Patches, StepKey, VitSpec};
use crate::recipe::Recipe;
use engine::ops::Images;
use engine::random::Random;
use engine::{OpCost, Tape};
use std::time::Instant;

/// What is timed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimedWork {
    /// Whole training steps.
    Steps,
    /// Features of whole images.
    Features,
}

/// Steps before timing starts. In these, buffers are allocated and grow with the masks.
const UNTIMED: usize = 4;

/// The times of the timed steps.
pub(crate) struct StepTimes {
    pub(crate) seconds: Vec<f64>,
    /// The sums over all timed steps.
    pub(crate) costs: Vec<OpCost>,
    /// Tokens of an image: a mean over the timed steps.
    pub(crate) tokens: TokenCounts,
}

impl StepTimes {
    fn add(&mut self, cost: &OpCost) {
        match self.costs.iter_mut().find(|sum| sum.op == cost.op) {
            Some(sum) => (0..2).for_each(|way| {
                sum.seconds[way] += cost.seconds[way];
                sum.flops[way] += cost.flops[way];
            }),
            None => self.costs.push(*cost),
        }
    }

    /// FLOPs of a step.
    pub(crate) fn flops(&self) -> f64 {
        let all: f64 = self.costs.iter().flat_map(|cost| cost.flops).sum();
        all / self.seconds.len() as f64
    }
}

/// Tokens that the encoder sees, and tokens that are predicted.
#[derive(Clone, Copy, Default)]
pub(crate) struct TokenCounts {
    pub(crate) context: f64,
    pub(crate) target: f64,
}

/// Times the steps of the last stage of a recipe, or features of whole images by its encoder.
pub(crate) fn time_steps(recipe: &Recipe, what: TimedWork) -> Result<StepTimes, Failure> {
    let last = recipe.stage.len() - 1;
    let plan = StagePlan::new(recipe, last, recipe.stage[last].batch)?;
    let images = synthetic(&plan.spec, plan.stage.batch).map_err(run_error)?;
    if what == TimedWork::Steps {
        let images = images.with_dtype(plan.dtype);
        return training(&plan, plan.untrained_method()?.as_ref(), &images);
    }
    let encoder = plan.new_encoder();
    let context = (plan.stage.batch * encoder.grid().len()) as f64;
    timed(&plan, Tape::inference, |tape, _| {
        features(tape, &encoder, &images).map_err(run_error)?;
        Ok(TokenCounts { context, target: 0.0 })
    })
}

fn features(tape: &Tape, encoder: &Encoder, images: &Images) -> engine::Result<()> {
    encoder.forward(tape, images, Patches::All, Outputs::All, None).map(drop)
}

fn training(
    plan: &StagePlan<'_>,
    method: &dyn Method,
    images: &Images,
) -> Result<StepTimes, Failure> {
    let (stage, grid) = (plan.stage, method.encoder().grid());
    let mut optimizer = plan.optimizer(method);
    let tape = || Tape::new().checkpointing(stage.activation_checkpointing);
    timed(plan, tape, |tape, step| {
        let masks =
            method.masks(stage.masks.sample(grid, stage.batch, 0, step).map_err(run_error)?);
        optimizer.zero_grad();
        let made = method
            .step(tape, images, &masks, Some(StepKey { seed: 0, step, first_sample: 0 }))
            .map_err(run_error)?;
        tape.backward(&made.loss).map_err(run_error)?;
        optimizer.step(1e-4, stage.weight_decay).map_err(run_error)?;
        let (context, target) = (made.context_tokens as f64, made.target_count as f64);
        Ok(TokenCounts { context, target })
    })
}

/// Times steps. Each step returns the token counts of its batch.
fn timed(
    plan: &StagePlan<'_>,
    tape: impl Fn() -> Tape,
    mut step: impl FnMut(&Tape, u64) -> Result<TokenCounts, Failure>,
) -> Result<StepTimes, Failure> {
    let (steps, tokens) = (plan.schedule.steps as usize, TokenCounts::default());
    let mut measured = StepTimes { seconds: Vec::new(), costs: Vec::new(), tokens };
    let share = ((steps * plan.stage.batch) as f64).recip();
    for index in 0..steps + UNTIMED {
        let tape = tape().timed();
        let start = Instant::now();
        let tokens = step(&tape, index as u64)?;
        if index < UNTIMED {
            continue;
        }
        measured.seconds.push(start.elapsed().as_secs_f64());
        measured.tokens.context += tokens.context * share;
        measured.tokens.target += tokens.target * share;
        tape.costs().iter().for_each(|cost| measured.add(cost));
    }
    Ok(measured)
}

fn synthetic(spec: &VitSpec, batch: usize) -> engine::Result<Images> {
    let [t, h, w] = spec.image;
    let mut random = Random::new(0, "bench images", 0);
    let shape = [batch, spec.channels, t, h, w];
    let bytes: Vec<u8> =
        (0..shape.iter().product()).map(|_| random.next_u32().to_le_bytes()[0]).collect();
    Images::u8(bytes, shape, vec![0.5; spec.channels], vec![0.5; spec.channels])
}
