//! `saltworks plan`: what a recipe will cost, before it runs.

use crate::console::{note, result, seconds_text, time_text};
use crate::data::Loader;
use crate::failure::{Failure, asked, loading, ran, use_threads};
use crate::judge::{ImageSets, open_images};
use crate::method::{Method, Salt, embed};
use crate::model::Encoder;
use crate::recipe::{self, MethodName, Recipe};
use crate::run::online::{MOST_PROBES, Online};
use crate::run::plan::{COUNTED, PAPER, Planned, as_file, parts, plan};
use crate::run::setup;
use crate::run_files::peak_memory_bytes;
use crate::train::{self, Event, Optimizer, Stop};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Options of `plan`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A recipe; the built-in quickstart (Fashion-MNIST) without one.
    recipe: Option<PathBuf>,
    /// Change a key of the recipe, as `pretrain` does; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Seconds of training that are timed for each stage, on the recipe's images; 0 for none: nothing is
    /// built then, however large the models are.
    #[arg(long, default_value_t = 3.0, allow_negative_numbers = true)]
    seconds: f64,
    /// Print JSON instead.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments { recipe: path, set, seconds, json } = arguments;
    let length = Duration::try_from_secs_f64(*seconds)
        .map_err(|_| asked(format!("--seconds is {seconds}, expected 0 or more")))?;
    let stop = Stop::listen().map_err(ran)?;
    let recipe = recipe::load(path.as_deref(), set).map_err(asked)?;
    let threads = use_threads(recipe.threads)?;
    let images = open_images(&recipe)?;
    let planned = plan(&recipe, &images)?;
    let mut timed = Vec::new();
    for (place, stage) in planned.iter().enumerate().filter(|_| !length.is_zero()) {
        note(&format!("{:>10}  timing steps", stage.stage.name));
        timed.push(time(&recipe, &images, (place, stage), length, &stop)?);
    }
    if *json {
        result(&whole_json(&planned, &timed).to_string());
    } else {
        note(&format!("training: {}; {threads} threads", images.train.describe()));
        show(&recipe, &images, &planned, &timed);
    }
    Ok(())
}

/// What the timed steps of a stage took.
struct Timed {
    seconds_per_step: f64,
    data_wait_share: f64,
    /// Of an online probe, where there are some.
    probe_seconds: f64,
    /// To make the features of an image, without loading it.
    feature_seconds: f64,
}

impl Timed {
    /// Time of a stage's online probes: before its first step, after its last, and those between them.
    fn probes_seconds(&self, recipe: &Recipe, steps: u64) -> f64 {
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

/// Steps before the clock counts: buffers are taken from the system, and the first batches loaded.
const UNTIMED: u64 = 3;

/// Makes steps of a stage for `length`, two at least, by the loop that trains, with untrained weights.
fn time(
    recipe: &Recipe,
    images: &ImageSets,
    (place, planned): (usize, &Planned<'_>),
    length: Duration,
    stop: &Stop,
) -> Result<Timed, Failure> {
    let Planned { stage, spec, teacher, schedule, .. } = planned;
    let encoder = Encoder::new(spec, 0);
    let method: Box<dyn Method> = match teacher {
        None => Box::new(setup::mae(encoder, stage, 0)),
        Some(teacher) => {
            let (teacher, options) = (Encoder::new(teacher, 1), setup::salt_options(stage));
            Box::new(Salt::new(teacher, encoder, options, 0).map_err(asked)?)
        }
    };
    let mut optimizer = Optimizer::new(method.parameters(), setup::optimizer(stage));
    // A stage shorter than what is timed is drawn out.
    let schedule = recipe::Schedule { steps: schedule.steps.max(1 << 20), ..*schedule };
    let method = (method.as_ref(), place);
    let training = setup::training(recipe, images, method, schedule, (0, BTreeSet::new()))?;
    let (mut begun, mut steps, mut waited) = (Instant::now(), 0, 0.0);
    let ended =
        train::run(training, &mut optimizer, stop, &mut |Event::Step { report, .. }| {
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
        error => ran(error),
    })?;
    if let Some(signal) = stop.signal() {
        return Err(Failure::Interrupted { signal, text: "interrupted".into() });
    }
    let (method, place) = method;
    let (probe_seconds, feature_seconds) = time_probes(recipe, images, place, method, stop)?;
    Ok(Timed {
        seconds_per_step: took / f64::from(steps),
        data_wait_share: waited / took,
        probe_seconds,
        feature_seconds,
    })
}

/// Makes an online probe, where the recipe has some, and the features of some images.
fn time_probes(
    recipe: &Recipe,
    images: &ImageSets,
    place: usize,
    method: &dyn Method,
    stop: &Stop,
) -> Result<(f64, f64), Failure> {
    let online = Online::new(recipe, images, (place, &recipe.stage[place]), u64::MAX);
    let seen = online.map(|mut online| online.probe(method, 0, stop)).transpose()?.flatten();
    let probe = seen.map_or(0.0, |seen| seen.probe.seconds);
    let loader = Loader::new(images.to_probe.clone(), recipe.data.feature_loader(recipe.data.size));
    let mut loader = loader.map_err(asked)?;
    let Some(loaded) = loader.next_batch().map_err(loading)? else { return Ok((probe, 0.0)) };
    let (images, begun) = (loaded.batch.images, Instant::now());
    embed(method.encoder(), &images).map_err(ran)?;
    Ok((probe, begun.elapsed().as_secs_f64() / images.samples() as f64))
}

/// Seconds of all steps of each stage.
fn seconds<'a>(planned: &'a [Planned<'_>], timed: &'a [Timed]) -> impl Iterator<Item = f64> + 'a {
    planned
        .iter()
        .zip(timed)
        .map(|(stage, timed)| stage.schedule.steps as f64 * timed.seconds_per_step)
}

fn whole_json(planned: &[Planned<'_>], timed: &[Timed]) -> Value {
    let mut plan = json!(as_file(planned));
    for (place, (timed, seconds)) in timed.iter().zip(seconds(planned, timed)).enumerate() {
        let images = planned[place].stage.batch as f64 / timed.seconds_per_step;
        plan["stages"][place]["measured"] = json!({
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

/// A number with its thousands: `1.23 k`, `45.6 M`.
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

fn show(recipe: &Recipe, images: &ImageSets, planned: &[Planned<'_>], timed: &[Timed]) {
    let all_paper: f64 = planned.iter().map(paper).sum();
    for (place, stage) in planned.iter().enumerate() {
        show_stage(stage);
        if let Some(timed) = timed.get(place) {
            let Timed { seconds_per_step, data_wait_share, .. } = timed;
            let rate = stage.stage.batch as f64 / seconds_per_step;
            let took = Duration::from_secs_f64(seconds_per_step * stage.schedule.steps as f64);
            result(&format!(
                "  {:.3} s a step, {rate:.1} images/s, {:.1} % of it waiting for data: {}",
                seconds_per_step,
                100.0 * data_wait_share,
                time_text(took)
            ));
        }
        result("");
    }
    let flops: f64 = planned.iter().map(|stage| stage.cost.flops() * stage.images() as f64).sum();
    let (flops, counted) = (spaced(flops), spaced(all_paper));
    result(&format!("in all {flops}FLOP; as the paper counts {counted}FLOP:"));
    planned.iter().for_each(|stage| result(&format!("  {}", split(stage, all_paper))));
    if !timed.is_empty() {
        let text = |seconds: f64| seconds_text(seconds);
        let training: f64 = seconds(planned, timed).sum();
        let online = |(stage, timed): (&Planned<'_>, &Timed)| {
            timed.probes_seconds(recipe, stage.schedule.steps)
        };
        let online: f64 = match recipe.probe.online {
            true => planned.iter().zip(timed).map(online).sum(),
            false => 0.0,
        };
        let probed = images.held_out.as_ref().map_or(0, |held| held.len() + images.to_probe.len());
        let features: f64 = timed.iter().map(|timed| timed.feature_seconds * probed as f64).sum();
        result(&format!(
            "time: about {}: {} of training, {} of online probes, and the features of all {probed} images \
             after each stage {}. Features of raw pixels and of an untrained encoder, and fitting probes to all \
             of them, come on top: not timed, and much of a short run",
            text(training + online + features),
            text(training),
            text(online),
            text(features)
        ));
        if let Some(memory) = peak_memory_bytes() {
            let what = if recipe.probe.online { "steps and online probes" } else { "steps" };
            let memory = memory as f64 * 1e-6;
            let features =
                probed as f64 * planned.iter().map(width).max().unwrap_or(0) as f64 * 8e-6;
            result(&format!(
                "memory: {memory:.0} MB at its highest, measured over {what}; probes after stages hold all \
                 features, {features:.0} MB and several times that while they are fitted"
            ));
        }
    }
    result(&format!("FLOP: {COUNTED}.\nThe paper's: {PAPER}."));
}

/// D of a stage's encoder.
fn width(stage: &Planned<'_>) -> usize {
    stage.spec.width
}

/// FLOPs of a stage as the paper counts.
fn paper(stage: &Planned<'_>) -> f64 {
    stage.cost.paper_flops() * stage.images() as f64
}

fn spaced(value: f64) -> String {
    let text = short(value);
    if text.ends_with(char::is_alphabetic) { text } else { format!("{text} ") }
}

/// What a stage takes of the whole, and what of it is the teacher's reading.
fn split(stage: &Planned<'_>, all: f64) -> String {
    let whole = format!("{:<20} {:>5.1} %", stage.stage.name, 100.0 * paper(stage) / all);
    let Some(teacher) = &stage.cost.teacher else { return whole };
    let reading = teacher.paper_flops * stage.images() as f64;
    format!("{whole}, of which its teacher's latents {:.1} %", 100.0 * reading / all)
}

fn show_stage(planned: &Planned<'_>) {
    let (stage, cost) = (planned.stage, &planned.cost);
    let what = match (&stage.method, &stage.teacher) {
        (MethodName::Salt, Some(teacher)) => format!("SALT, taught by {teacher}"),
        _ => "MAE".to_owned(),
    };
    let (steps, batch, images) = (planned.schedule.steps, stage.batch, planned.images());
    let steps_of = if steps == 1 { "step" } else { "steps" };
    result(&format!("{} ({what}): {steps} {steps_of} of {batch}, {images} images", stage.name));
    result(&format!(
        "  {:<10} {:>11} {:>13} {:>12} {:>20}",
        "", "parameters", "tokens/image", "FLOP/image", "paper's FLOP/image"
    ));
    let row = |name: &str, parameters: f64, tokens: String, flops: f64, paper: f64| {
        let [parameters, flops, paper] = [parameters, flops, paper].map(short);
        result(&format!("  {name:<10} {parameters:>11} {tokens:>13} {flops:>12} {paper:>20}"));
    };
    let mut parameters = 0.0;
    for (name, share) in parts(planned) {
        parameters += share.parameters as f64;
        let tokens = format!("{:.1}", share.tokens);
        row(name, share.parameters as f64, tokens, share.flops, share.paper_flops);
    }
    row("all", parameters, String::new(), cost.flops(), cost.paper_flops());
    let share = cost.trunk.flops / cost.flops();
    if share > LARGE_TRUNK {
        let [_, (name, _), ..] = parts(planned)[..] else { return };
        result(&format!(
            "  its {name} takes {:.0} % of the FLOPs: `{name} = {{ width = ..., depth = ..., heads = ... }}` in \
             the stage makes it smaller",
            100.0 * share
        ));
    }
}

/// Share of a stage's FLOPs that its decoder or predictor takes when that is told. SALT's predictor takes about
/// half of a student's step of ViT-tiny.
const LARGE_TRUNK: f64 = 0.8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn online_probes_are_counted_as_they_will_be_made() {
        let timed = Timed {
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
        // 5 % of 100 s are two and a half probes; of a long stage there are as many as curves need.
        assert_eq!([seconds(None, 1000), seconds(None, 1_000_000)], [4.5, 21.0]);
    }

    #[test]
    fn numbers_are_told_with_three_digits() {
        let told = [0.0, 7.0, 999.0, 999.6, 12_345.0, 678_901.0, 2.5e21].map(short);
        assert_eq!(told, ["0", "7", "999", "1.00 k", "12.3 k", "679 k", "2.50 Z"]);
    }
}
