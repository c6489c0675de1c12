//! `saltworks bench`: times steps on synthetic images.

use super::{Failure, asked, bench_data, ran, setup, use_threads};
use crate::method::{Method, Salt};
use crate::model::{Encoder, StepKey, VitSpec};
use crate::recipe::{self, Recipe, Stage};
use crate::report::{peak_memory_bytes, result};
use crate::train::Optimizer;
use engine::fma_peak_gflops;
use engine::ops::Images;
use engine::random::Random;
use engine::{OpCost, Tape};
use serde_json::json;
use std::time::Instant;

/// Options of `bench`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    /// What a step is: a SALT step, an MAE step, or features of whole images.
    #[arg(long, value_enum, default_value = "salt")]
    stage: What,
    /// timm's name of the encoder.
    #[arg(long, default_value = "vit_tiny_patch16_224")]
    model: String,
    /// Images of a step.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Steps to time, after four that are not.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Threads; 0 for one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Settings of the step as a recipe has them, e.g. model.depth=6 or data.size=96; those of the
    /// stage under the name `step`, e.g. step.predictor={width=64,depth=2,heads=4}.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one line of JSON instead.
    #[arg(long)]
    json: bool,
}

/// What else can be timed.
#[derive(clap::Subcommand)]
enum Other {
    /// Time the loading of images instead: images/s, and where the time of an image goes.
    Data(bench_data::Arguments),
}

#[derive(Clone, Copy, clap::ValueEnum, PartialEq, Eq)]
enum What {
    Salt,
    Mae,
    Features,
}

/// Steps before the clock counts: in them buffers are taken from the system, and grow with the masks.
const UNTIMED: usize = 4;

/// What the timed steps took.
struct Measured {
    seconds: Vec<f64>,
    /// Of all timed steps.
    costs: Vec<OpCost>,
    /// Tokens of an image, as the mean of the timed steps.
    tokens: Tokens,
}

impl Measured {
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
    fn flops(&self) -> f64 {
        let all: f64 = self.costs.iter().flat_map(|cost| cost.flops).sum();
        all / self.seconds.len() as f64
    }
}

/// Tokens that the encoder sees and that are to be predicted.
#[derive(Clone, Copy, Default)]
struct Tokens {
    context: f64,
    target: f64,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(Other::Data(data)) = &arguments.other {
        return bench_data::run(data);
    }
    let threads = use_threads(arguments.threads)?;
    let recipe = recipe(arguments)?;
    let peak = fma_peak_gflops(threads);
    let measured = measure(arguments.stage, &recipe)?;
    report(&recipe, &measured, peak, threads, arguments.json);
    Ok(())
}

/// What is timed, as a recipe: one mask for a batch, optimizer and sizes as the reference's.
fn recipe(arguments: &Arguments) -> Result<Recipe, Failure> {
    if arguments.batch == 0 || arguments.steps == 0 {
        return Err(asked("--batch and --steps must be at least 1"));
    }
    let spec = VitSpec::from_name(&arguments.model).map_err(asked)?;
    let (teacher, method) = match arguments.stage {
        What::Salt => {
            let teacher = "[[stage]]\nname = 'teacher'\nsteps = 1\n";
            (teacher, "method = 'salt'\nteacher = 'teacher'\n")
        }
        What::Mae | What::Features => ("", ""),
    };
    let text = format!(
        "data = {{ size = {}, channels = {} }}\nmodel = {{ name = '{}' }}\n{teacher}\
         [[stage]]\nname = 'step'\nbatch = {}\nsteps = {}\n{method}\
         masks = {{ kind = 'multi_block', per_sample = false }}\n",
        spec.image[1], spec.channels, arguments.model, arguments.batch, arguments.steps
    );
    let recipe = recipe::from_text("bench", &text, &arguments.set).map_err(asked)?;
    let stage = timed_stage(&recipe);
    if stage.steps.is_none() || stage.accumulate > 1 {
        return Err(asked("bench counts whole steps: its length is --steps, its batch --batch"));
    }
    Ok(recipe)
}

/// The stage `step`; a teacher's stands before it.
fn timed_stage(recipe: &Recipe) -> &Stage {
    // `recipe` makes one stage or two.
    recipe.stage.last().expect("a stage")
}

fn measure(what: What, recipe: &Recipe) -> Result<Measured, Failure> {
    let stage = timed_stage(recipe);
    let spec = setup::spec(recipe, stage)?;
    let images = synthetic(&spec, stage.batch).map_err(ran)?;
    let encoder = Encoder::new(&spec, 0);
    match what {
        What::Features => {
            let context = (stage.batch * encoder.grid().len()) as f64;
            timed(stage, Tape::inference, |tape, _| {
                features(tape, &encoder, &images).map_err(ran)?;
                Ok(Tokens { context, target: 0.0 })
            })
        }
        What::Mae => training(stage, &setup::mae(encoder, stage, 0), &images),
        What::Salt => {
            let teacher = Encoder::new(&setup::spec(recipe, &recipe.stage[0])?, 1);
            let salt = Salt::new(teacher, encoder, setup::salt_options(stage), 0).map_err(asked)?;
            training(stage, &salt, &images)
        }
    }
}

fn features(tape: &Tape, encoder: &Encoder, images: &Images) -> engine::Result<()> {
    use crate::model::{Patches, Read};
    encoder.forward(tape, images, Patches::All, Read::All, None).map(drop)
}

fn training(stage: &Stage, method: &dyn Method, images: &Images) -> Result<Measured, Failure> {
    let grid = method.encoder().grid();
    stage.masks.validate(grid).map_err(asked)?;
    let mut optimizer = Optimizer::new(method.parameters(), setup::optimizer(stage));
    let tape = || Tape::new().checkpointing(stage.activation_checkpointing);
    timed(stage, tape, |tape, step| {
        let masks = method.masks(stage.masks.sample(grid, stage.batch, 0, step).map_err(ran)?);
        optimizer.zero_grad();
        let made = method
            .step(tape, images, &masks, Some(StepKey { seed: 0, step, first_sample: 0 }))
            .map_err(ran)?;
        tape.backward(&made.loss).map_err(ran)?;
        optimizer.step(1e-4, stage.weight_decay).map_err(ran)?;
        let (context, target) = (made.context_tokens as f64, made.target_count as f64);
        Ok(Tokens { context, target })
    })
}

/// Times steps; each gives the tokens of its batch.
fn timed(
    stage: &Stage,
    tape: impl Fn() -> Tape,
    mut step: impl FnMut(&Tape, u64) -> Result<Tokens, Failure>,
) -> Result<Measured, Failure> {
    let (steps, tokens) = (stage.steps.unwrap_or(1) as usize, Tokens::default());
    let mut measured = Measured { seconds: Vec::new(), costs: Vec::new(), tokens };
    let share = ((steps * stage.batch) as f64).recip();
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

fn report(recipe: &Recipe, measured: &Measured, peak: f64, threads: usize, as_json: bool) {
    let batch = timed_stage(recipe).batch;
    let mut sorted = measured.seconds.clone();
    sorted.sort_by(f64::total_cmp);
    let middle = |from: usize| sorted[from / 2];
    let median = 0.5 * (middle(sorted.len() - 1) + middle(sorted.len()));
    let least = sorted[0];
    let gflops = measured.flops() / median * 1e-9;
    let memory = peak_memory_bytes();
    if as_json {
        let line = json!({
            "seconds_per_step_median": median,
            "seconds_per_step_min": least,
            "images_per_second": batch as f64 / median,
            "gflops": gflops,
            "peak_fraction": gflops / peak,
            "peak_memory_bytes": memory,
            "fma_peak_gflops": peak,
            "gflop_per_step": measured.flops() * 1e-9,
            "context_tokens": measured.tokens.context,
            "target_tokens": measured.tokens.target,
            "threads": threads,
        });
        result(&line.to_string());
        return;
    }
    let name = recipe.model.name.as_deref().unwrap_or_default();
    result(&format!("{name}, batch {batch}, {threads} threads"));
    let Tokens { context, target } = measured.tokens;
    result(&format!("tokens of an image: {context:.0} context, {target:.0} target"));
    result(&format!("seconds per step: median {median:.4}, minimum {least:.4}"));
    result(&format!("images/s: {:.1}", batch as f64 / median));
    result(&format!(
        "{gflops:.1} GFLOP/s, {:.1} % of the measured multiply-add peak of {peak:.1}\n\
         ({:.1} GFLOP a step: 2 per multiply-add of every matrix product made, forward and \
         backward; scores made again in attention's backward pass are not counted)",
        100.0 * gflops / peak,
        measured.flops() * 1e-9
    ));
    if let Some(memory) = memory {
        result(&format!("peak memory: {:.0} MB", memory as f64 * 1e-6));
    }
    result(&format!(
        "\n{:<16} {:>11} {:>11} {:>12} {:>8} {:>8}",
        "operation", "forward ms", "backward ms", "floor ms", "of floor", "share"
    ));
    let total: f64 = measured.seconds.iter().sum();
    let mut rest = total;
    for cost in &measured.costs {
        rest -= cost.seconds.iter().sum::<f64>();
        row(cost, peak, &measured.seconds);
    }
    let rest = OpCost { op: "everything else", seconds: [rest, 0.0], flops: [0.0; 2] };
    row(&rest, peak, &measured.seconds);
    result("floor: its matrix products at the measured peak");
}

fn row(cost: &OpCost, peak: f64, steps: &[f64]) {
    let ms = |seconds: f64| seconds / steps.len() as f64 * 1e3;
    let [forward, backward] = cost.seconds.map(ms);
    let spent = forward + backward;
    let floor = ms(cost.flops.iter().sum::<f64>() / peak * 1e-9);
    let of_floor = if floor > 0.0 { format!("{:.0} %", 100.0 * floor / spent) } else { "-".into() };
    let share = 100.0 * spent / ms(steps.iter().sum());
    result(&format!(
        "{:<16} {forward:>11.2} {backward:>11.2} {floor:>12.2} {of_floor:>8} {share:>6.1} %",
        cost.op
    ));
}
