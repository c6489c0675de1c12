//! `--set key=value`: changes of a recipe's table.

use super::RecipeError;
use super::suggest::nearest;
use toml::{Table, Value};

/// The sections of a recipe besides its stages.
pub(super) const SECTIONS: [&str; 5] = ["data", "model", "probe", "checkpoint", "log"];

/// The keys that set the length of a stage. Each replaces the others.
pub(super) const LENGTHS: [&str; 4] = ["epochs", "steps", "samples", "minutes"];

/// The keys of a section that a text stands for: `--set data=photos` is `--set data.path=photos`.
const MEANT: [(&str, &str); 2] = [("data", "path"), ("model", "name")];

/// The changes with whole keys: `data=photos` stands for `data.path=photos`.
pub(super) fn with_whole_keys(all: &[String]) -> Vec<String> {
    let whole = |given: &String| {
        let (key, value) = given.split_once('=')?;
        let (section, meant) = MEANT.iter().find(|(section, _)| *section == key.trim())?;
        parse_value(value.trim()).is_str().then(|| format!("{section}.{meant}={}", value.trim()))
    };
    all.iter().map(|given| whole(given).unwrap_or_else(|| given.clone())).collect()
}

/// The changes in the order in which they apply. Names of models and kinds of masks come first:
/// they remove the keys beside them, which belong to another model or kind.
pub(super) fn in_order(all: &[String]) -> impl Iterator<Item = &String> {
    let named = |first: bool| all.iter().filter(move |given| is_name(given) == first);
    named(true).chain(named(false))
}

fn is_name(given: &str) -> bool {
    let key = given.split('=').next().unwrap_or_default().trim();
    key.ends_with("model.name") || key.ends_with(".kind")
}

/// Applies `key=value`. The key is a path from the top, or from a stage by its name.
pub(super) fn set(table: &mut Table, given: &str) -> Result<(), RecipeError> {
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
        .ok_or_else(|| {
            let whole = path.trim().rsplit_once('.').map_or(path, |(whole, _)| whole);
            let advice = match *key {
                "masks" => {
                    format!("{whole} is a list of masks. Set the whole list: --set '{whole}=[...]'")
                }
                _ => format!("{key} holds no keys"),
            };
            fail(advice)
        })?;
    }
    if LENGTHS.contains(&last) {
        LENGTHS.iter().for_each(|length| drop(here.remove(*length)));
    }
    if last == "kind" || last == "name" && keys.last() == Some(&"model") {
        here.clear(); // another kind, or another model, has other values
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

pub(super) fn stage_names(table: &Table) -> Vec<String> {
    let stages = table.get("stage").and_then(Value::as_array);
    let names = stages.into_iter().flatten().map(|stage| stage.get("name"));
    names.map(|name| name.and_then(Value::as_str).unwrap_or("").to_owned()).collect()
}

fn stage_table(table: &mut Table, index: usize) -> Option<&mut Table> {
    table.get_mut("stage")?.as_array_mut()?.get_mut(index)?.as_table_mut()
}
