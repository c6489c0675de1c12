//! Parses text to a [`Recipe`]. Errors name the line, the key and the nearest known key.

use super::suggest::{nearest, ours};
use super::{
    Checkpointing, Data, Duration, Log, Loss, MethodName, Model, Origin, Probe, Recipe,
    RecipeError, Stage,
};
use serde::Deserialize;
use std::path::Path;
use toml::{Table, Value};

/// The recipe that runs when none is given.
pub const QUICKSTART: &str = include_str!("../../../../recipes/quickstart.toml");

/// `--set key=value` as given, in order.
pub type Overrides = [String];

/// Reads the recipe at `path`, or the quickstart, applies overrides and checks all that can be
/// checked without data.
pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Recipe, RecipeError> {
    match path {
        None if overrides.iter().any(|given| names_images(given)) => {
            let mut recipe = from_text(BUILT_IN, &adapted_quickstart(), overrides)?;
            recipe.origin.is_adapted = true;
            Ok(recipe)
        }
        None => from_text(BUILT_IN, QUICKSTART, overrides),
        Some(path) => {
            let (origin, text) = read(path)?;
            from_text(&origin, &text, overrides)
        }
    }
}

/// The name of [`QUICKSTART`] in messages.
const BUILT_IN: &str = "the built-in recipe";

/// Whether a `--set` chooses images other than the built-in ones.
fn names_images(given: &str) -> bool {
    let (key, value) = given.split_once('=').unwrap_or((given, ""));
    match key.trim() {
        "data.path" => !value.trim().trim_start_matches('"').starts_with("builtin:"),
        key => key == "data.source",
    }
}

/// The quickstart for other images. Of its keys in `data` it keeps only `size`.
fn adapted_quickstart() -> String {
    // It is valid TOML: a test reads it.
    let mut table: Table = QUICKSTART.parse().expect("the quickstart as TOML");
    if let Some(data) = table.get_mut("data").and_then(Value::as_table_mut) {
        data.retain(|key, _| key == "size");
    }
    table.to_string()
}

/// Like [`load`], for a run that was trained. Files that only training needs may be missing.
pub fn load_trained(path: &Path, overrides: &Overrides) -> Result<Recipe, RecipeError> {
    let (origin, text) = read(path)?;
    checked(&origin, &text, overrides)
}

/// Like [`load_trained`], from a text. `origin` is its name in messages.
pub fn from_trained_text(origin: &str, text: &str) -> Result<Recipe, RecipeError> {
    checked(origin, text, &[])
}

/// The name and the text of a recipe, or of the recipe in a run's folder.
fn read(path: &Path) -> Result<(String, String), RecipeError> {
    let inside = path.join("recipe.toml");
    let path = if inside.is_file() { &inside } else { path };
    let name = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| {
        let advice = missing(path, &source).unwrap_or_default();
        RecipeError::Read { path: name.clone(), source, advice }
    })?;
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Ok((name, text)),
        _ => Err(RecipeError::NoText { path: name }),
    }
}

/// What to do about a recipe that does not exist.
fn missing(path: &Path, error: &std::io::Error) -> Option<String> {
    if error.kind() != std::io::ErrorKind::NotFound {
        return None;
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folders = [parent.unwrap_or(Path::new(".")), Path::new("recipes")];
    let files = folders.iter().filter_map(|folder| folder.read_dir().ok()).flatten().flatten();
    let files = files.map(|entry| entry.path());
    let recipes: Vec<_> = files.filter(|file| file.extension() == Some("toml".as_ref())).collect();
    let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let stems: Vec<_> = recipes.iter().map(|file| stem(file)).collect();
    let meant = nearest(&stem(path), stems.iter().map(String::as_str))
        .and_then(|meant| recipes.iter().find(|file| stem(file) == meant));
    Some(match meant {
        Some(meant) => {
            let meant = meant.strip_prefix(".").unwrap_or(meant);
            format!(". Did you mean {}?", meant.display())
        }
        None => ". Give the file of a recipe, or none for the built-in one".to_owned(),
    })
}

/// Like [`load`], from a text. `origin` is its name in messages.
pub fn from_text(origin: &str, text: &str, overrides: &Overrides) -> Result<Recipe, RecipeError> {
    let mut recipe = checked(origin, text, overrides)?;
    find_teachers(&mut recipe).map_err(|error| recipe.origin.locate(error))?;
    Ok(recipe)
}

fn checked(origin: &str, text: &str, overrides: &Overrides) -> Result<Recipe, RecipeError> {
    let mut recipe = parse(origin, text)?;
    if !overrides.is_empty() {
        // `parse` has accepted the text, so it is a table.
        let mut table: Table = text.parse().map_err(|error| text_error(origin, text, &error))?;
        for given in overrides {
            set(&mut table, given)?;
            recipe = Recipe::deserialize(table.clone()).map_err(|error| {
                let problem = explain(error.message(), &stage_names(&table));
                RecipeError::Set { given: given.clone(), problem }
            })?;
        }
    }
    recipe.origin = Origin::new(origin, text, overrides);
    check(&recipe).map_err(|error| recipe.origin.locate(error))?;
    recipe.resolve();
    Ok(recipe)
}

/// Like [`load`], from the same tree of keys as JSON.
pub fn from_json(keys: &serde_json::Value, overrides: &Overrides) -> Result<Recipe, RecipeError> {
    let origin = "the recipe given";
    let text = toml::to_string(keys).map_err(|error| RecipeError::Text {
        origin: origin.to_owned(),
        line: 1,
        problem: format!("it cannot be written as TOML: {error}"),
    })?;
    from_text(origin, &text, overrides)
}

fn parse(origin: &str, text: &str) -> Result<Recipe, RecipeError> {
    toml::from_str(text).map_err(|error| text_error(origin, text, &error))
}

fn text_error(origin: &str, text: &str, error: &toml::de::Error) -> RecipeError {
    let start = error.span().map_or(0, |span| span.start);
    let line = text[..start.min(text.len())].matches('\n').count();
    let content = text.lines().nth(line).unwrap_or("").trim();
    let stages = text.parse::<Table>().map_or_else(|_| Vec::new(), |table| stage_names(&table));
    let mut problem = explain(error.message(), &stages);
    if !content.is_empty() {
        problem = format!("{problem}\n    {content}");
    }
    RecipeError::Text { origin: origin.to_owned(), line: line + 1, problem }
}

/// Adds the nearest known word to serde's "unknown field `x`, expected one of `a`, `b`", and
/// replaces Rust's type names in other messages.
fn explain(message: &str, stages: &[String]) -> String {
    let mut words = message.split('`').skip(1).step_by(2);
    let unknown_key = message.starts_with("unknown field");
    if unknown_key || message.starts_with("unknown variant") {
        // The first word is the unknown one.
        let word = words.next().unwrap_or_default();
        let known: Vec<&str> = words.collect();
        if unknown_key && !known.contains(&ours(word)) && knows::<Recipe>(ours(word)) {
            let key = ours(word);
            return format!(
                "unknown key `{word}` in this table. `{key}` belongs before the first table of the \
                 recipe, or in --set {key}=..."
            );
        }
        let places = if known.contains(&ours(word)) { Vec::new() } else { elsewhere(word, stages) };
        let meant = match known.iter().find(|known| **known == ours(word)) {
            Some(known) => Some((*known).to_owned()),
            None if unknown_key && !places.is_empty() => Some(places.join("` or `")),
            None => nearest(word, known).map(str::to_owned),
        };
        let what = if unknown_key { "key" } else { "value" };
        return meant.map_or_else(
            || message.to_owned(),
            |meant| format!("unknown {what} `{word}`. Did you mean `{meant}`?"),
        );
    }
    if message == "missing field `kind`" {
        // Only masks have a kind.
        return "masks need a kind: \"multi_block\", \"random\", \"block\" or \"ijepa\", as in \
                masks = { kind = \"random\", ratio = 0.75 }"
            .to_owned();
    }
    if message == "invalid type: unit variant, expected string only" {
        return "expected a text in quotes. docs/recipe.md lists the words for each key".to_owned();
    }
    let whole = ["usize", "u64", "u32", "u8"].map(|name| (name, "a whole number, 0 or more"));
    let names = whole.into_iter().chain([("f64", "a number"), ("f32", "a number")]);
    names.fold(message.to_owned(), |message, (name, words)| {
        message.replace(&format!("expected {name}"), &format!("expected {words}"))
    })
}

/// Whether a table has this key.
fn knows<'de, T: Deserialize<'de>>(key: &str) -> bool {
    // The error is about the type of the value only if the key is known.
    let table = Table::from_iter([(key.to_owned(), Value::Boolean(false))]);
    T::deserialize(table).err().is_none_or(|e| !e.message().starts_with("unknown field"))
}

/// The tables that have a key which this table lacks: each stage for `lr`, `data` for `size`.
fn elsewhere(key: &str, stages: &[String]) -> Vec<String> {
    let key = ours(key);
    let sections = [
        ("data", knows::<Data>(key)),
        ("model", knows::<Model>(key)),
        ("probe", knows::<Probe>(key)),
        ("checkpoint", knows::<Checkpointing>(key)),
        ("log", knows::<Log>(key)),
    ];
    let sections = sections.iter().filter(|(_, knows)| *knows).map(|(name, _)| *name);
    let stages = stages.iter().filter(|_| knows::<Stage>(key)).map(String::as_str);
    sections.chain(stages).map(|table| format!("{table}.{key}")).collect()
}

/// The sections of a recipe besides its stages.
const SECTIONS: [&str; 5] = ["data", "model", "probe", "checkpoint", "log"];

/// The folders in a run's folder besides those of the stages.
const FOLDERS: [&str; 5] = ["checkpoints", "replay", "pictures", "tensorboard", "wandb"];

/// Applies `key=value`. The key is a path from the top, or from a stage by its name.
fn set(table: &mut Table, given: &str) -> Result<(), RecipeError> {
    let fail = |problem: String| RecipeError::Set { given: given.to_owned(), problem };
    let (path, text) = given
        .split_once('=')
        .ok_or_else(|| fail("expected key=value, e.g. teacher.lr=1e-3 or data.size=32".into()))?;
    let value = parse_value(text.trim());
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    // `split` always yields at least one part.
    let last = keys.pop().expect("a key");
    let known: Vec<String> = stage_names(table);
    let mut here = table;
    for (depth, key) in keys.iter().enumerate() {
        here = match (depth, known.iter().position(|name| name == key)) {
            (0, Some(index)) => stage_table(here, index),
            _ => here.entry(*key).or_insert_with(|| Value::Table(Table::new())).as_table_mut(),
        }
        .ok_or_else(|| fail(format!("{key} holds no keys")))?;
    }
    const LENGTHS: [&str; 3] = ["epochs", "steps", "samples"];
    if LENGTHS.contains(&last) {
        LENGTHS.iter().for_each(|length| drop(here.remove(*length)));
    }
    if last == "kind" {
        here.clear(); // another kind has other keys
    }
    here.insert(last.to_owned(), value);
    let section = keys.first().filter(|key| keys.len() == 1 && !known.iter().any(|k| k == *key));
    if let Some(section) = section.filter(|key| !SECTIONS.contains(key)) {
        let names = known.iter().map(String::as_str).chain(SECTIONS);
        let hint = nearest(section, names.clone())
            .map_or_else(String::new, |meant| format!(" Did you mean {meant:?}?"));
        let list = names.collect::<Vec<_>>().join(", ");
        return Err(fail(format!(
            "no stage or section {section:?}, expected one of {list}.{hint}"
        )));
    }
    Ok(())
}

/// The value as TOML, or as a string if it is not TOML.
fn parse_value(text: &str) -> Value {
    let line = format!("value = {text}");
    let parsed = line.parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

fn stage_names(table: &Table) -> Vec<String> {
    let stages = table.get("stage").and_then(Value::as_array);
    let names = stages.into_iter().flatten().map(|stage| stage.get("name"));
    names.map(|name| name.and_then(Value::as_str).unwrap_or("").to_owned()).collect()
}

fn stage_table(table: &mut Table, index: usize) -> Option<&mut Table> {
    table.get_mut("stage")?.as_array_mut()?.get_mut(index)?.as_table_mut()
}

/// The most images of a step.
const MOST_BATCH: usize = 65_536;

/// Refuses values that are wrong for any data.
fn check(recipe: &Recipe) -> Result<(), RecipeError> {
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
    if data.threads == 0 {
        return value("data.threads", "0".into(), "at least 1");
    }
    let channels = data.channels();
    if ![1, 3].contains(&channels) {
        return value("data.channels", channels.to_string(), "1 (grey) or 3 (colour)");
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
    for (index, stage) in recipe.stage.iter().enumerate() {
        check_stage(stage, &recipe.stage[..index])?;
    }
    Ok(())
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

fn refuse(stage: &Stage, key: &str, found: String, expected: &str) -> Result<(), RecipeError> {
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
    if earlier.iter().any(|other| other.name == *name) {
        return value("name", format!("{name:?} twice"), "a name of its own");
    }
    if !(1..=MOST_BATCH).contains(&stage.batch) {
        return value("batch", stage.batch.to_string(), &format!("1 to {MOST_BATCH}"));
    }
    if stage.accumulate == 0 || !stage.batch.is_multiple_of(stage.accumulate) {
        let expected = format!("a number that divides the batch of {}", stage.batch);
        return value("accumulate", stage.accumulate.to_string(), &expected);
    }
    check_numbers(stage)?;
    check_teacher(stage, earlier)
}

fn check_numbers(stage: &Stage) -> Result<(), RecipeError> {
    let value = |key: &str, found: String, expected: &str| refuse(stage, key, found, expected);
    let lengths = [
        ("epochs", stage.epochs),
        ("steps", stage.steps.map(|steps| steps as f64)),
        ("samples", stage.samples.map(|samples| samples as f64)),
    ];
    for (key, length) in lengths {
        if let Some(length) = length.filter(|length| !(*length > 0.0 && length.is_finite())) {
            return value(key, length.to_string(), "a number above 0");
        }
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
    let warmup = match stage.warmup {
        Duration::Epochs(length) | Duration::Percent(length) => length,
        Duration::Steps(length) | Duration::Samples(length) => length as f64,
    };
    if !(warmup >= 0.0 && warmup.is_finite()) {
        return value("warmup", warmup.to_string(), "0 or more");
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
fn teachers(earlier: &[Stage]) -> String {
    let weights = "a file of weights, or a folder with one";
    let stages: Vec<&str> = earlier.iter().map(|stage| stage.name.as_str()).collect();
    match stages.as_slice() {
        [] => weights.to_owned(),
        stages => format!("an earlier stage ({}), {weights}", stages.join(", ")),
    }
}

/// Checks that teachers that are files exist. Their paths become absolute, so that a run's recipe
/// finds them from any folder.
fn find_teachers(recipe: &mut Recipe) -> Result<(), RecipeError> {
    for index in 0..recipe.stage.len() {
        let (earlier, rest) = recipe.stage.split_at_mut(index);
        let stage = &mut rest[0];
        let Some(teacher) = &stage.teacher else { continue };
        if earlier.iter().any(|stage| stage.name == *teacher) {
            continue;
        }
        if !Path::new(teacher).exists() {
            let names = earlier.iter().map(|stage| stage.name.as_str());
            let meant = nearest(teacher, names)
                .map_or_else(String::new, |meant| format!(". Did you mean {meant:?}?"));
            let expected = teachers(earlier) + &meant;
            return refuse(stage, "teacher", format!("{teacher:?}"), &expected);
        }
        // This fails only if the current folder is gone. Then its files are gone, too.
        if let Ok(whole) = std::path::absolute(teacher) {
            stage.teacher = Some(whole.display().to_string());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str, overrides: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.toml");
        std::io::Write::write_all(&mut std::fs::File::create(&path).unwrap(), text.as_bytes())
            .unwrap();
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        load(Some(&path), &overrides).unwrap_err().to_string()
    }

    #[test]
    fn the_quickstart_is_a_recipe_and_can_be_written_back() {
        let recipe = load(None, &[]).unwrap();
        let text = toml::to_string(&recipe).unwrap();
        assert_eq!(parse("itself", &text).unwrap(), recipe);
    }

    #[test]
    fn keys_as_json_are_the_same_recipe() {
        let recipe = load(None, &[]).unwrap();
        let keys = serde_json::to_value(toml::Value::try_from(&recipe).unwrap()).unwrap();
        assert_eq!(from_json(&keys, &[]).unwrap(), recipe);
        let message = |keys| from_json(&keys, &[]).unwrap_err().to_string();
        assert!(message(serde_json::json!({ "sead": 1 })).contains("Did you mean `seed`"));
        assert!(message(serde_json::json!({ "seed": null })).contains("recipe given"));
    }

    #[test]
    fn an_unknown_key_gets_its_line_and_the_nearest_known_key() {
        let message = error("seed = 1\n[data]\npth = \"x\"\n", &[]);
        assert!(
            message.contains("line 3") && message.contains("Did you mean `path`?"),
            "{message}"
        );
        let message = error("[[stage]]\nname = \"a\"\nepohcs = 3\n", &[]);
        assert!(message.contains("line 3") && message.contains("`epochs`"), "{message}");
    }

    #[test]
    fn a_wrong_type_says_what_was_found_and_expected() {
        let message = error("[data]\nsize = \"big\"\n", &[]);
        assert!(message.contains("line 2") && message.contains("string \"big\""), "{message}");
        assert!(message.contains("expected a whole number"), "{message}");
        let message = error("[[stage]]\nname = \"a\"\nlr = true\n", &[]);
        assert!(message.contains("expected a number"), "{message}");
        let message = error("[[stage]]\nname = \"a\"\n", &["precision=16"]);
        assert!(message.contains("precision=16: expected a text in quotes"), "{message}");
    }

    #[test]
    fn keys_of_other_programs_and_of_other_places_are_understood() {
        let message = |set: &str| load(None, &[set.to_owned()]).unwrap_err().to_string();
        for (set, meant) in [
            ("student.learning_rate=1", "`lr`?"),
            ("teacher.batch_size=1", "`batch`?"),
            ("lr=1", "`teacher.lr` or `student.lr`?"),
            ("learning_rate=1", "`teacher.lr` or `student.lr`?"),
            ("data.width=1", "`model.width`?"),
            ("img_size=1", "`data.size`?"),
        ] {
            let message = message(set);
            assert!(message.contains(&format!("Did you mean {meant}")), "{message}");
        }
        let late = "[[stage]]\nname = \"t\"\nsteps = 1\nprecision = \"bf16\"\n";
        for message in [message("teacher.precision=bf16"), error(late, &[])] {
            assert!(message.contains("`precision` belongs before the first table"), "{message}");
        }
        let text = "[[stage]]\nname = \"t\"\nsteps = 1\n";
        let message = error(text, &["t.masks.ratio=0.5"]);
        assert!(message.contains("\"multi_block\", \"random\""), "{message}");
        let message = error(text, &["data.normalize=imagenet", "data.channels=1"]);
        assert!(message.contains("set data.channels=3"), "{message}");
        assert!(error(text, &["data.path="]).contains("data.path is empty"));
    }

    #[test]
    fn sources_replace_a_path() {
        let text = "[[data.source]]\npath = \"a\"\n[[data.source]]\npath = \"b\"\nweight = 2\n\
                    [[stage]]\nname = \"t\"\nsteps = 1\n";
        let recipe = from_text("a", text, &[]).unwrap();
        let weights: Vec<f64> = recipe.data.sources().iter().map(|source| source.weight).collect();
        assert_eq!(weights, [1.0, 2.0]);
        assert_eq!(parse("itself", &toml::to_string(&recipe).unwrap()).unwrap(), recipe);
        assert!(error(text, &["data.path=c"]).contains("beside 2 [[data.source]]"));
        assert!(error(&text.replace("weight = 2", "weight = -1"), &[]).contains("above 0"));
        assert!(error(&text.replace("path = \"b\"\n", ""), &[]).contains("missing"));
    }

    #[test]
    fn overrides_reach_stages_by_name_and_replace_the_length() {
        let set = ["teacher.steps=7", "teacher.masks.kind=random", "data.size=32"];
        let recipe = load(None, &set.map(str::to_owned)).unwrap();
        assert_eq!((recipe.stage[0].steps, recipe.stage[0].epochs), (Some(7), None));
        assert_eq!(recipe.data.size.sides(), [32, 32]);
        let message = load(None, &["teachr.lr=1".to_owned()]).unwrap_err().to_string();
        assert!(message.contains("Did you mean \"teacher\"?"), "{message}");
        let message = load(None, &["teacher.lrr=1".to_owned()]).unwrap_err().to_string();
        assert!(message.contains("`lr`"), "{message}");
    }

    #[test]
    fn nonsense_is_refused_by_key() {
        let stage = "[[stage]]\nname = \"a\"\nsteps = 1\n";
        assert!(error("", &[]).contains("at least one [[stage]]"));
        assert!(error(&format!("{stage}batch = 0"), &[]).contains("line 4: a.batch is 0"));
        assert!(error(&format!("{stage}method = \"salt\""), &[]).contains("teacher"));
    }

    #[test]
    fn durations_become_steps() {
        let stage = Stage { epochs: Some(2.0), batch: 100, ..Stage::default() };
        let schedule = stage.resolve(950).unwrap();
        assert_eq!((schedule.steps, schedule.warmup_steps), (19, 2));
        let both = Stage { steps: Some(1), ..stage };
        assert!(both.resolve(950).unwrap_err().to_string().contains("exactly one"));
    }
}
