//! Refuses values that are wrong for any data.

use super::set::SECTIONS;
use super::{Data, Duration, Loss, MethodName, Probe, Recipe, RecipeError, Stage};
use crate::data::MOST_CHANNELS;
use std::collections::HashSet;

/// The folders in a run's folder besides those of the stages.
const FOLDERS: [&str; 5] = ["checkpoints", "replay", "pictures", "tensorboard", "wandb"];

/// The most images of a step.
const MOST_BATCH: usize = 65_536;

/// Refuses values that are wrong for any data.
pub(super) fn check(recipe: &Recipe) -> Result<(), RecipeError> {
    let value = |key: &str, found: String, expected: &str| {
        Err(RecipeError::Value { key: key.to_owned(), found, expected: expected.to_owned() })
    };
    if recipe.stage.is_empty() {
        return value("stage", "missing".into(), "at least one [[stage]]");
    }
    let data = &recipe.data;
    check_sources(data)?;
    if data.size.sides().contains(&0) {
        return value("data.size", data.size.to_string(), "at least one pixel each way");
    }
    if data.frames == 0 {
        return value("data.frames", "0".into(), "at least 1, the number for images");
    }
    if data.threads == 0 {
        return value("data.threads", "0".into(), "at least 1");
    }
    let channels = data.channels();
    if !(1..=MOST_CHANNELS).contains(&channels) {
        let expected = format!("1 (grey), 3 (colour) or a number of bands up to {MOST_CHANNELS}");
        return value("data.channels", channels.to_string(), &expected);
    }
    for (key, numbers) in [("mean", &data.normalize.mean), ("std", &data.normalize.std)] {
        if ![1, channels].contains(&numbers.len()) {
            let expected = match channels {
                1 => {
                    "one number, as data.channels is 1. For colour images set data.channels=3. For \
                      grey images set data.normalize=inception, or one number"
                        .to_owned()
                }
                channels => format!("1 or {channels} numbers"),
            };
            return value(&format!("data.normalize.{key}"), format!("{numbers:?}"), &expected);
        }
    }
    // Pixels are at most 1 before this. Next to far larger numbers they vanish in f32.
    if !data.normalize.mean.iter().all(|mean| mean.abs() <= 1e3) {
        let found = format!("{:?}", data.normalize.mean);
        return value("data.normalize.mean", found, "numbers from -1000 to 1000");
    }
    if !data.normalize.std.iter().all(|std| (1e-6..=1e3).contains(std)) {
        let found = format!("{:?}", data.normalize.std);
        return value("data.normalize.std", found, "numbers from 1e-6 to 1000");
    }
    check_probe(&recipe.probe)?;
    if !(0.0..=1.0).contains(&data.max_unreadable) {
        return value("data.max_unreadable", data.max_unreadable.to_string(), "a share of 0 to 1");
    }
    if !(1.0..=16.0).contains(&data.eval_zoom) {
        return value("data.eval_zoom", data.eval_zoom.to_string(), "1 to 16");
    }
    let checkpoint = recipe.checkpoint;
    if checkpoint.keep == 0 {
        return value("checkpoint.keep", "0".into(), "at least 1");
    }
    if !(0.0..=1e6).contains(&checkpoint.every_minutes) {
        let found = checkpoint.every_minutes.to_string();
        return value("checkpoint.every_minutes", found, "0 to 1e6; 0 for none by time");
    }
    let mut names = HashSet::new();
    for (index, stage) in recipe.stage.iter().enumerate() {
        if !names.insert(&stage.name) {
            return refuse(stage, "name", format!("{:?} twice", stage.name), "a name of its own");
        }
        check_stage(stage, &recipe.stage[..index])?;
    }
    check_minutes(recipe)
}

/// The most minutes: two years.
const MOST_MINUTES: f64 = 1e6;

/// Refuses a time for the whole run that is no time, or beside a time for one stage.
fn check_minutes(recipe: &Recipe) -> Result<(), RecipeError> {
    let Some(minutes) = recipe.minutes else { return Ok(()) };
    let value = |found: String, expected: &str| {
        Err(RecipeError::Value { key: "minutes".into(), found, expected: expected.into() })
    };
    if !(minutes > 0.0 && minutes <= MOST_MINUTES) {
        return value(format!("{minutes:?}"), "a number above 0, up to a million");
    }
    match recipe.stage.iter().find_map(|stage| Some((&stage.name, stage.minutes?))) {
        None => Ok(()),
        Some((name, of_stage)) => value(
            format!("{minutes} beside {name}.minutes, which is {of_stage}"),
            "a time for the whole run or one for each stage, not both",
        ),
    }
}

fn check_probe(probe: &Probe) -> Result<(), RecipeError> {
    let value = |key: &str, found: String, expected: &str| {
        Err(RecipeError::Value { key: key.to_owned(), found, expected: expected.to_owned() })
    };
    if probe.k == 0 || !(1e-6..=1e6).contains(&probe.temperature) {
        let found = format!("k {}, temperature {}", probe.k, probe.temperature);
        return value("probe", found, "k at least 1 and a temperature from 1e-6 to 1e6");
    }
    if probe.every_steps == Some(0) {
        let expected = "1 or more, or not set. For no probes in training set probe.online=false";
        return value("probe.every_steps", "0".into(), expected);
    }
    if !(1e-4..=1.0).contains(&probe.share) {
        return value("probe.share", probe.share.to_string(), "a share of 0.0001 to 1");
    }
    // With fewer images probes mean nothing, and RankMe and LiDAR need some.
    if probe.images < 16 {
        return value("probe.images", probe.images.to_string(), "16 or more");
    }
    if let Some(most) = probe.most_images.filter(|most| *most < 32) {
        return value("probe.most_images", most.to_string(), "32 or more, or not set");
    }
    Ok(())
}

fn check_sources(data: &Data) -> Result<(), RecipeError> {
    let value = |key: &str, found: String, expected: &str| {
        Err(RecipeError::Value { key: key.to_owned(), found, expected: expected.to_owned() })
    };
    if let (Some(path), false) = (&data.path, data.source.is_empty()) {
        let found = format!("{path:?} beside {} [[data.source]]", data.source.len());
        return value("data.path", found, "a path or sources, not both");
    }
    if let (Some(column), false) = (&data.column, data.source.is_empty()) {
        let found = format!("{column:?} beside {} [[data.source]]", data.source.len());
        return value("data.column", found, "a column in each [[data.source]] that needs one");
    }
    if data.path.as_deref() == Some("") {
        return value("data.path", "empty".into(), "where the images are");
    }
    for source in &data.source {
        if source.path.is_empty() {
            return value("path of a [[data.source]]", "missing".into(), "where its images are");
        }
        if !(source.weight > 0.0 && source.weight <= 1e6) {
            let key = format!("weight of data.source {:?}", source.path);
            return value(&key, source.weight.to_string(), "above 0, up to 1000000");
        }
    }
    Ok(())
}

pub(super) fn refuse(
    stage: &Stage,
    key: &str,
    found: String,
    expected: &str,
) -> Result<(), RecipeError> {
    let key = match stage.name.as_str() {
        _ if key == "name" => "name of a [[stage]]".to_owned(),
        name => format!("{name}.{key}"),
    };
    Err(RecipeError::Value { key, found, expected: expected.to_owned() })
}

/// The most letters of a stage's name.
const MOST_NAME: usize = 100;

/// Whether a stage may have this name, which is a part of paths.
pub fn is_stage_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    (1..=MOST_NAME).contains(&name.len()) && name.chars().all(plain)
}

fn check_stage(stage: &Stage, earlier: &[Stage]) -> Result<(), RecipeError> {
    let name = &stage.name;
    let value = |key: &str, found: String, expected: &str| refuse(stage, key, found, expected);
    if !is_stage_name(name) {
        let expected = format!("1 to {MOST_NAME} letters, digits, - and _: it names a folder");
        return value("name", format!("{name:?}"), &expected);
    }
    if SECTIONS.contains(&name.as_str()) {
        return value("name", format!("{name:?}"), "a name that is not a section of the recipe");
    }
    if FOLDERS.contains(&name.as_str()) {
        return value("name", format!("{name:?}"), "a name that no other folder of a run has");
    }
    if !(1..=MOST_BATCH).contains(&stage.batch) {
        return value("batch", stage.batch.to_string(), &format!("1 to {MOST_BATCH}"));
    }
    if stage.accumulate == 0 || !stage.batch.is_multiple_of(stage.accumulate) {
        let expected = format!("a number that divides the batch of {}", stage.batch);
        return value("accumulate", stage.accumulate.to_string(), &expected);
    }
    check_numbers(stage)?;
    check_teacher(stage, earlier)?;
    let teacher = ("teacher_part", &stage.teacher_part, &stage.teacher);
    check_part(stage, teacher, earlier)?;
    check_part(stage, ("init_part", &stage.init_part, &stage.init), earlier)
}

/// A part is that of a file. A stage has one encoder.
fn check_part(
    stage: &Stage,
    (key, part, of): (&str, &Option<String>, &Option<String>),
    earlier: &[Stage],
) -> Result<(), RecipeError> {
    let Some(part) = part else { return Ok(()) };
    let is_stage = |named: &String| earlier.iter().any(|stage| stage.name == *named);
    match of.as_ref().is_some_and(|named| !is_stage(named)) {
        true => Ok(()),
        false => refuse(stage, key, format!("{part:?}"), "none without a file of weights"),
    }
}

fn check_numbers(stage: &Stage) -> Result<(), RecipeError> {
    let value = |key: &str, found: String, expected: &str| refuse(stage, key, found, expected);
    let lengths = [
        ("epochs", stage.epochs),
        ("steps", stage.steps.map(|steps| steps as f64)),
        ("samples", stage.samples.map(|samples| samples as f64)),
        ("minutes", stage.minutes),
    ];
    for (key, length) in lengths {
        if let Some(length) = length.filter(|length| !(*length > 0.0 && length.is_finite())) {
            return value(key, length.to_string(), "a number above 0");
        }
    }
    // A recipe without a length is refused when its stage is planned.
    if lengths.iter().filter(|(_, length)| length.is_some()).count() > 1 {
        return Err(stage.not_one_length());
    }
    if let Some(minutes) = stage.minutes.filter(|minutes| *minutes > MOST_MINUTES) {
        return value("minutes", format!("{minutes:?}"), "a number above 0, up to a million");
    }
    for (key, rate) in [
        ("lr", stage.lr),
        ("start_lr", stage.start_lr),
        ("final_lr", stage.final_lr),
        ("weight_decay", stage.weight_decay),
        ("final_weight_decay", stage.final_weight_decay()),
        ("clip", f64::from(stage.clip)),
    ] {
        if !(0.0..1e3).contains(&rate) {
            return value(key, rate.to_string(), "at least 0 and below 1000");
        }
    }
    if !(stage.eps > 0.0 && stage.eps < 1.0) {
        return value("eps", stage.eps.to_string(), "above 0 and below 1");
    }
    if let Some(Loss::SmoothL1(beta)) = stage.loss
        && !(0.0..1e6).contains(&beta)
    {
        return value("loss", format!("smooth_l1 of {beta}"), "0 or more");
    }
    for (key, length) in [("warmup", Some(stage.warmup)), ("cooldown", stage.cooldown)] {
        let length = match length {
            Some(Duration::Epochs(length) | Duration::Percent(length)) => length,
            Some(Duration::Steps(length) | Duration::Samples(length)) => length as f64,
            None => 0.0,
        };
        if !(length >= 0.0 && length.is_finite()) {
            return value(key, length.to_string(), "0 or more");
        }
    }
    if !stage.betas.iter().all(|beta| (0.0..1.0).contains(beta)) {
        return value("betas", format!("{:?}", stage.betas), "two numbers from 0 to below 1");
    }
    Ok(())
}

fn check_teacher(stage: &Stage, earlier: &[Stage]) -> Result<(), RecipeError> {
    match (stage.method, &stage.teacher) {
        (MethodName::Mae, Some(teacher)) => {
            refuse(stage, "teacher", format!("{teacher:?}"), "none for mae")
        }
        (MethodName::Salt, None) => refuse(stage, "teacher", "missing".into(), &teachers(earlier)),
        _ => Ok(()),
    }
}

/// What may be a teacher.
pub(super) fn teachers(earlier: &[Stage]) -> String {
    let weights = "a file of weights, or a folder with one";
    let stages: Vec<&str> = earlier.iter().map(|stage| stage.name.as_str()).collect();
    match stages.as_slice() {
        [] => weights.to_owned(),
        stages => format!("an earlier stage ({}), {weights}", stages.join(", ")),
    }
}
