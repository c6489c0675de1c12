//! `saltworks bench`: times steps on synthetic images.

use super::bench_data;
use crate::console::{note, result};
use crate::failure::{Failure, count_threads, input_error, use_threads};
use crate::model::VitSpec;
use crate::recipe::{self, Recipe, Stage};
use crate::run::step_times::{StepTimes, TimedWork, TokenCounts, time_steps};
use crate::run_files::peak_memory_bytes;
use engine::{Dtype, OpCost, fma_peak_gflops};
use serde_json::json;

/// Options of `bench`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    other: Option<Other>,
    /// What to time: a SALT step, an MAE step, or the features of whole images.
    #[arg(long, value_enum, default_value = "salt")]
    stage: What,
    /// The encoder's name in timm.
    #[arg(long, default_value = "vit_tiny_patch16_224")]
    model: String,
    /// Images per step.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Timed steps, after four untimed ones.
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Threads. 0 means one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Recipe settings of the step, e.g. model.depth=6 or data.size=96. The stage is named `step`,
    /// e.g. step.predictor={width=64,depth=2,heads=4}.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Print one line of JSON instead.
    #[arg(long)]
    json: bool,
}

/// What else can be timed.
#[derive(clap::Subcommand)]
enum Other {
    /// Time the loading of images instead: images/s, and the time of each part.
    Data(bench_data::Arguments),
}

#[derive(Clone, Copy, clap::ValueEnum, PartialEq, Eq)]
enum What {
    Salt,
    Mae,
    Features,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(Other::Data(data)) = &arguments.other {
        return bench_data::run(data);
    }
    let recipe = recipe(arguments)?;
    let threads =
        use_threads(if arguments.threads > 0 { arguments.threads } else { recipe.threads })?;
    let dtype = match arguments.stage {
        What::Salt | What::Mae => recipe.precision.dtype(),
        What::Features => {
            if recipe.precision.dtype() != Dtype::F32 {
                note("features are computed in f32, whatever `precision` is");
            }
            Dtype::F32
        }
    };
    let peak = fma_peak_gflops(threads, dtype);
    let what = match arguments.stage {
        What::Salt | What::Mae => TimedWork::Steps,
        What::Features => TimedWork::Features,
    };
    let measured = time_steps(&recipe, what)?;
    report(&recipe, &measured, (peak, dtype.name()), threads, arguments.json);
    Ok(())
}

/// The timed work as a recipe: one mask for each batch, and the reference's optimizer and sizes.
fn recipe(arguments: &Arguments) -> Result<Recipe, Failure> {
    if arguments.batch == 0 || arguments.steps == 0 {
        return Err(input_error("--batch and --steps must be at least 1"));
    }
    let spec = VitSpec::from_name(&arguments.model).map_err(input_error)?;
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
    let recipe = recipe::from_text("bench", &text, &arguments.set).map_err(input_error)?;
    let stage = timed_stage(&recipe);
    if stage.steps.is_none() || stage.accumulate > 1 {
        return Err(input_error(
            "bench counts whole steps. Set its length with --steps and its batch with --batch",
        ));
    }
    Ok(recipe)
}

/// The stage `step`. A teacher's stage may come before it.
fn timed_stage(recipe: &Recipe) -> &Stage {
    // `recipe` makes one stage or two.
    recipe.stage.last().expect("a stage")
}

fn report(
    recipe: &Recipe,
    measured: &StepTimes,
    (peak, precision): (f64, &str),
    threads: usize,
    as_json: bool,
) {
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
            "precision": precision,
        });
        result(&line.to_string());
        return;
    }
    let name = recipe.model.name();
    result(&format!("{name}, batch {batch}, {}, {precision}", count_threads(threads)));
    let TokenCounts { context, target } = measured.tokens;
    result(&format!("tokens per image: {context:.0} context, {target:.0} target"));
    result(&format!("seconds per step: median {median:.4}, minimum {least:.4}"));
    result(&format!("images/s: {:.1}", batch as f64 / median));
    result(&format!(
        "{gflops:.1} GFLOP/s, {:.1} % of the measured multiply-add peak of {peak:.1}\n\
         ({:.1} GFLOP per step: 2 per multiply-add of all matrix products, forward and backward; \
         scores recomputed in attention's backward pass are not counted)",
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
    result("floor: the time of its matrix products at the measured peak");
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
