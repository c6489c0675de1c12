//! Parses text to a [`Recipe`]. Errors name the line, the key and the nearest known key.

use super::check::{check, refuse, teachers};
use super::set::{in_order, set, stage_names, with_whole_keys};
use super::suggest::{nearest, ours};
use super::{Checkpointing, Data, Log, Model, Origin, Probe, Recipe, RecipeError, Stage};
use crate::files::{open_file, read_most};
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
        None => from_text(BUILT_IN, QUICKSTART, overrides),
        Some(path) => {
            let (origin, text) = read(path)?;
            from_text(&origin, &text, overrides)
        }
    }
}

/// A file of weights for `--teacher`, and which of its models is meant.
#[derive(Clone, Copy, Debug)]
pub struct TeacherFile<'a> {
    /// The file, or its folder.
    pub path: &'a Path,
    /// A word before the names of the model, if the file has several.
    pub part: Option<&'a str>,
}

/// Like [`load`], but with the weights in the file `teacher` as the teacher of every SALT stage.
/// Stages that trained those teachers are left out.
pub fn load_for_teacher(
    path: Option<&Path>,
    teacher: TeacherFile<'_>,
    overrides: &Overrides,
) -> Result<Recipe, RecipeError> {
    let (origin, text) = match path {
        Some(path) => read(path)?,
        None => (BUILT_IN.to_owned(), QUICKSTART.to_owned()),
    };
    let mut table: Table = text.parse().map_err(|error| text_error(&origin, &text, &error))?;
    let stages = table.get_mut("stage").and_then(Value::as_array_mut);
    let mut replaced = Vec::new();
    for stage in stages.into_iter().flatten().filter_map(Value::as_table_mut) {
        if let Some(named) = stage.get_mut("teacher") {
            let file = Value::String(teacher.path.display().to_string());
            replaced.push(std::mem::replace(named, file));
            stage.remove("teacher_part");
            let part = teacher.part.map(|part| ("teacher_part".to_owned(), part.into()));
            stage.extend(part);
        }
    }
    if replaced.is_empty() {
        return Err(RecipeError::Refused {
            location: origin,
            problem: "no stage has a teacher, so --teacher has no place. Leave it out, or add a \
                      stage with method = \"salt\""
                .to_owned(),
        });
    }
    if let Some(stages) = table.get_mut("stage").and_then(Value::as_array_mut) {
        stages.retain(|stage| stage.get("name").is_none_or(|name| !replaced.contains(name)));
    }
    from_text(&origin, &table.to_string(), overrides)
}

/// The name of [`QUICKSTART`] in messages.
const BUILT_IN: &str = "the built-in recipe";

/// Like [`load`], for a run that was trained. Files that only training needs may be missing.
pub fn load_trained(path: &Path, overrides: &Overrides) -> Result<Recipe, RecipeError> {
    let (origin, text) = read(path)?;
    checked(&origin, &text, overrides)
}

/// Like [`load_trained`], from a text. `origin` is its name in messages.
pub fn from_trained_text(origin: &str, text: &str) -> Result<Recipe, RecipeError> {
    checked(origin, text, &[])
}

/// The largest recipe. A larger file is something else.
const MOST_BYTES: u64 = 4 << 20;
/// The longest part of a line that is shown in a message.
const MOST_SHOWN: usize = 200;

/// The name and the text of a recipe, or of the recipe in a run's folder.
fn read(path: &Path) -> Result<(String, String), RecipeError> {
    let inside = path.join("recipe.toml");
    let path = if inside.is_file() { &inside } else { path };
    let name = path.display().to_string();
    let bytes = open_file(path).and_then(|file| read_most(file, MOST_BYTES)).map_err(|source| {
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
        None => ". Give the file of a recipe, a path of images, or nothing for the built-in recipe"
            .to_owned(),
    })
}

/// Like [`load`], from a text. `origin` is its name in messages.
pub fn from_text(origin: &str, text: &str, overrides: &Overrides) -> Result<Recipe, RecipeError> {
    let mut recipe = checked(origin, text, overrides)?;
    find_weights(&mut recipe).map_err(|error| recipe.origin.locate(error))?;
    Ok(recipe)
}

fn checked(origin: &str, text: &str, overrides: &Overrides) -> Result<Recipe, RecipeError> {
    let mut recipe = parse(origin, text)?;
    let overrides = &with_whole_keys(overrides)[..];
    if !overrides.is_empty() {
        // `parse` has accepted the text, so it is a table.
        let mut table: Table = text.parse().map_err(|error| text_error(origin, text, &error))?;
        for given in in_order(overrides) {
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
        let shown: String = content.chars().take(MOST_SHOWN).collect();
        let cut = if shown.len() < content.len() { " ..." } else { "" };
        problem = format!("{problem}\n    {shown}{cut}");
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
        return "masks need a kind: \"multi_block\", \"random\", \"block\", \"ijepa\", \"vjepa\" or \
                \"causal\", as in masks = { kind = \"random\", ratio = 0.75 }"
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

/// Checks that teachers and first weights that are files exist. Their paths become absolute, so
/// that a run's recipe finds them from any folder.
fn find_weights(recipe: &mut Recipe) -> Result<(), RecipeError> {
    for index in 0..recipe.stage.len() {
        let (earlier, rest) = recipe.stage.split_at_mut(index);
        let stage = &mut rest[0];
        let [teacher, init] = [("teacher", &stage.teacher), ("init", &stage.init)]
            .map(|(key, named)| find(stage, key, named.as_deref(), earlier));
        (stage.teacher, stage.init) = (teacher?, init?);
    }
    Ok(())
}

/// The weights that a key names: an earlier stage, or the whole path of a file.
fn find(
    stage: &Stage,
    key: &str,
    named: Option<&str>,
    earlier: &[Stage],
) -> Result<Option<String>, RecipeError> {
    let Some(named) = named else { return Ok(None) };
    if earlier.iter().any(|stage| stage.name == *named) {
        return Ok(Some(named.to_owned()));
    }
    if !Path::new(named).exists() {
        let names = earlier.iter().map(|stage| stage.name.as_str());
        let meant = nearest(named, names)
            .map_or_else(String::new, |meant| format!(". Did you mean {meant:?}?"));
        let expected = teachers(earlier) + &meant;
        refuse(stage, key, format!("{named:?}"), &expected)?;
    }
    // This fails only if the current folder is gone. Then its files are gone, too.
    let whole = std::path::absolute(named).unwrap_or_else(|_| named.into());
    Ok(Some(whole.display().to_string()))
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
    fn a_long_line_is_cut_and_a_file_that_is_no_recipe_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.toml");
        let message = |text: &str| {
            crate::files::write_whole(&path, text.as_bytes()).unwrap();
            load(Some(&path), &[]).unwrap_err().to_string()
        };
        let long = message(&format!("seed = {}", "é".repeat(3000)));
        assert!(long.contains("é ...") && long.len() < 1000, "{long}");
        let whole = message(&" ".repeat(MOST_BYTES as usize + 1));
        assert!(whole.contains("larger than 4194304 bytes"), "{whole}");
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
        let message = error(text, &["data.column=jpg"]);
        assert!(message.contains("a column in each [[data.source]]"), "{message}");
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
