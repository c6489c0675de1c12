//! `saltworks plan`: shows what a recipe will cost, before it runs.

use super::recipe_arguments::RecipeArguments;
use crate::console::{note, result, seconds_text, time_text};
use crate::failure::{Failure, count_threads, input_error, run_error, use_threads};
use crate::judge::{ImageSets, note_reading, open_images};
use crate::recipe::{MethodName, Recipe};
use crate::run::final_probes::{encoders_of, most_images};
use crate::run::forecast::{StageTime, time_stage};
use crate::run::lengths;
use crate::run::plan::{COUNTED, PAPER, StagePlan, plan, plan_file};
use crate::run_files::peak_memory_bytes;
use crate::train::Stop;
use engine::Dtype;
use serde_json::{Value, json};
use std::time::Duration;

/// Options of `plan`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    recipe: RecipeArguments,
    /// Seconds of training to time for each stage, on the recipe's images. With 0 nothing is timed
    /// and no model is built, however large it is.
    #[arg(long, default_value_t = 3.0, allow_negative_numbers = true)]
    seconds: f64,
    /// Print JSON instead.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { recipe, seconds, json } = arguments;
    let length = Duration::try_from_secs_f64(*seconds)
        .map_err(|_| input_error(format!("--seconds is {seconds}, expected 0 or more")))?;
    let stop = Stop::listen().map_err(run_error)?;
    let recipe = recipe.recipe()?.recipe;
    let threads = use_threads(recipe.threads)?;
    let images = open_images(&recipe)?;
    if length.is_zero() && lengths::in_minutes(&recipe) {
        let steps = recipe.stage.iter().map(|stage| format!("--set {}.steps=1000", stage.name));
        return Err(input_error(format!(
            "--seconds is 0, but a length in minutes has to be timed. Leave out --seconds, or set \
             steps or epochs for each stage, as in {}",
            steps.collect::<Vec<_>>().join(" ")
        )));
    }
    let recipe = lengths::in_steps(&recipe, None, &images, &stop)?;
    let plans = plan(&recipe, &images)?;
    if !length.is_zero() {
        plans.iter().try_for_each(StagePlan::expect_memory)?;
    }
    let mut timed = Vec::new();
    for plan in plans.iter().filter(|_| !length.is_zero()) {
        note(&format!("{:>10}  timing steps", plan.stage.name));
        timed.push(time_stage(&recipe, &images, plan, length, &stop)?);
    }
    if *json {
        result(&whole_json(&plans, &timed).to_string());
    } else {
        note(&format!("training: {}; {}", images.train.describe(), count_threads(threads)));
        note_reading(&*images.train, "not trained on");
        show(&recipe, &images, &plans, &timed);
    }
    Ok(())
}

/// The total seconds of the steps of each stage.
fn seconds<'a>(
    plans: &'a [StagePlan<'_>],
    timed: &'a [StageTime],
) -> impl Iterator<Item = f64> + 'a {
    plans
        .iter()
        .zip(timed)
        .map(|(stage, timed)| stage.schedule.steps as f64 * timed.seconds_per_step)
}

fn whole_json(plans: &[StagePlan<'_>], timed: &[StageTime]) -> Value {
    let mut plan = json!(plan_file(plans));
    for (index, (timed, seconds)) in timed.iter().zip(seconds(plans, timed)).enumerate() {
        let images = plans[index].stage.batch as f64 / timed.seconds_per_step;
        plan["stages"][index]["measured"] = json!({
            "seconds_per_step": timed.seconds_per_step,
            "images_per_second": images,
            "data_wait_share": timed.data_wait_share,
            "online_probe_seconds": timed.probe_seconds,
            "seconds": seconds,
        });
    }
    if !timed.is_empty() {
        plan["peak_memory_bytes"] = json!(peak_memory_bytes());
    }
    plan
}

/// A number with a unit prefix: `1.23 k`, `45.6 M`.
fn short(value: f64) -> String {
    const UNITS: [&str; 8] = ["", "k", "M", "G", "T", "P", "E", "Z"];
    let mut scaled = value;
    let mut unit = 0;
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1e3;
        unit += 1;
    }
    let decimals = match scaled {
        _ if unit == 0 => 0,
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{scaled:.decimals$} {}", UNITS[unit]).trim_end().to_owned()
}

fn show(recipe: &Recipe, images: &ImageSets, plans: &[StagePlan<'_>], timed: &[StageTime]) {
    let all_paper: f64 = plans.iter().map(paper).sum();
    for (index, stage) in plans.iter().enumerate() {
        show_stage(stage);
        if let Some(timed) = timed.get(index) {
            let StageTime { seconds_per_step, data_wait_share, .. } = timed;
            let rate = stage.stage.batch as f64 / seconds_per_step;
            let took = Duration::from_secs_f64(seconds_per_step * stage.schedule.steps as f64);
            result(&format!(
                "  {:.3} s per step, {rate:.1} images/s, {:.1} % of the time waiting for data: {}",
                seconds_per_step,
                100.0 * data_wait_share,
                time_text(took)
            ));
        }
        result("");
    }
    let flops: f64 = plans.iter().map(|stage| stage.cost.flops() * stage.images() as f64).sum();
    let (flops, counted) = (spaced(flops), spaced(all_paper));
    result(&format!("in total {flops}FLOP; by the paper's count {counted}FLOP:"));
    plans.iter().for_each(|stage| result(&format!("  {}", split(stage, all_paper))));
    if !timed.is_empty() {
        let text = |seconds: f64| seconds_text(seconds);
        let training: f64 = seconds(plans, timed).sum();
        let online = |(stage, timed): (&StagePlan<'_>, &StageTime)| {
            timed.probes_seconds(recipe, stage.schedule.steps)
        };
        let online: f64 = match recipe.probe.online {
            true => plans.iter().zip(timed).map(online).sum(),
            false => 0.0,
        };
        let after = probes_after(recipe, images, plans, timed);
        result(&format!(
            "time: about {}: {} for training, {} for probes while stages train, and {} for the \
             features of {} images after training. Fits of probes come on top: seconds, or minutes \
             if there are many classes",
            text(training + online + after.seconds),
            text(training),
            text(online),
            text(after.seconds),
            after.images
        ));
        let probed = after.images;
        if let Some(memory) = peak_memory_bytes() {
            let what = if recipe.probe.online { "steps and online probes" } else { "steps" };
            let memory = memory as f64 * 1e-6;
            let values: usize =
                plans.iter().map(|plan| width(plan) * encoders_of(plan, plans)).sum();
            // Mean and class tokens, raw pixels, and differences of frames.
            let values = 2 * values + 2 * 1024;
            let features = probed as f64 * values as f64 * 4e-6;
            result(&format!(
                "memory: {memory:.0} MB at its peak, measured over {what}. Probes after a stage \
                 hold all features: {features:.0} MB, and several times that while they are fitted"
            ));
        }
    }
    result(&format!("FLOP: {COUNTED}.\nThe paper's: {PAPER}."));
}

/// The probes after training.
struct ProbesAfter {
    images: usize,
    seconds: f64,
}

fn probes_after(
    recipe: &Recipe,
    images: &ImageSets,
    plans: &[StagePlan<'_>],
    timed: &[StageTime],
) -> ProbesAfter {
    let held_out = images.held_out.as_ref().map_or(0, |held_out| held_out.len());
    let all = if held_out == 0 { 0 } else { held_out + images.to_probe.len() };
    let images = all.min(most_images(recipe, plans));
    let load = timed.iter().map(|timed| timed.load_seconds).fold(0.0, f64::max);
    let features: f64 = plans
        .iter()
        .zip(timed)
        .map(|(plan, timed)| encoders_of(plan, plans) as f64 * timed.feature_seconds)
        .sum();
    ProbesAfter { images, seconds: images as f64 * (load + features) }
}

/// D of a stage's encoder.
fn width(stage: &StagePlan<'_>) -> usize {
    stage.spec.width
}

/// FLOPs of a stage as the paper counts.
fn paper(stage: &StagePlan<'_>) -> f64 {
    stage.cost.paper_flops() * stage.images() as f64
}

fn spaced(value: f64) -> String {
    let text = short(value);
    if text.ends_with(char::is_alphabetic) { text } else { format!("{text} ") }
}

/// A stage's share of the whole, and the share of its teacher's latents.
fn split(stage: &StagePlan<'_>, all: f64) -> String {
    let whole = format!("{:<20} {:>5.1} %", stage.stage.name, 100.0 * paper(stage) / all);
    let Some(teacher) = &stage.cost.teacher else { return whole };
    let reading = teacher.paper_flops * stage.images() as f64;
    format!("{whole}; its teacher's latents take {:.1} %", 100.0 * reading / all)
}

fn show_stage(plan: &StagePlan<'_>) {
    let (stage, cost) = (plan.stage, &plan.cost);
    let what = match (&stage.method, &stage.teacher) {
        (MethodName::Salt, Some(teacher)) => format!("SALT, teacher: {teacher}"),
        _ => "MAE".to_owned(),
    };
    let (steps, batch, images) = (plan.schedule.steps, stage.batch, plan.images());
    let steps_of = if steps == 1 { "step" } else { "steps" };
    let dtype = match plan.dtype {
        Dtype::F32 => String::new(),
        narrow => format!(", in {}", narrow.name()),
    };
    let name = &stage.name;
    result(&format!("{name} ({what}): {steps} {steps_of} of {batch}, {images} images{dtype}"));
    result(&format!(
        "  {:<10} {:>11} {:>13} {:>12} {:>20}",
        "", "parameters", "tokens/image", "FLOP/image", "paper's FLOP/image"
    ));
    let row = |name: &str, parameters: f64, tokens: String, flops: f64, paper: f64| {
        let [parameters, flops, paper] = [parameters, flops, paper].map(short);
        result(&format!("  {name:<10} {parameters:>11} {tokens:>13} {flops:>12} {paper:>20}"));
    };
    let mut parameters = 0.0;
    for (name, share) in plan.networks() {
        parameters += share.parameters as f64;
        let tokens = format!("{:.1}", share.tokens);
        row(name, share.parameters as f64, tokens, share.flops, share.paper_flops);
    }
    row("all", parameters, String::new(), cost.flops(), cost.paper_flops());
    let share = cost.trunk.flops / cost.flops();
    if share > LARGE_TRUNK {
        let [_, (name, _), ..] = plan.networks()[..] else { return };
        result(&format!(
            "  its {name} takes {:.0} % of the FLOPs. To make it smaller, set `{name} = {{ width = \
             ..., depth = ..., heads = ... }}` in the stage",
            100.0 * share
        ));
    }
}

/// A decoder or predictor is reported if it takes this share of a stage's FLOPs. SALT's predictor
/// takes about half of a student's step of ViT-tiny.
const LARGE_TRUNK: f64 = 0.8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_with_three_digits() {
        let told = [0.0, 7.0, 999.0, 999.6, 12_345.0, 678_901.0, 2.5e21].map(short);
        assert_eq!(told, ["0", "7", "999", "1.00 k", "12.3 k", "679 k", "2.50 Z"]);
    }
}
