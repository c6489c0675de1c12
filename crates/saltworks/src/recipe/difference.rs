//! The differences between two recipes.

use super::Recipe;
use std::collections::BTreeMap;
use toml::Value;

/// The keys whose values differ, each in the form `data.size is 28 there and 32 here`.
pub fn differences(there: &Recipe, here: &Recipe) -> Vec<String> {
    let [there, here] = [there, here].map(|recipe| {
        let mut leaves = BTreeMap::new();
        // A recipe holds only values that TOML can hold.
        flatten("", &Value::try_from(recipe).expect("a recipe as TOML"), &mut leaves);
        leaves
    });
    let keys = there.keys().chain(here.keys().filter(|key| !there.contains_key(*key)));
    let differ = keys.filter(|key| there.get(*key) != here.get(*key));
    let show = |leaf: Option<&String>| leaf.map_or_else(|| "not set".to_owned(), Clone::clone);
    differ
        .map(|key| {
            format!("{key} is {} there and {} here", show(there.get(key)), show(here.get(key)))
        })
        .collect()
}

/// Every value that is not a table, by its path. The path of a stage is its name.
fn flatten(path: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Table(table) => {
            table.iter().for_each(|(key, value)| flatten(&join(key), value, leaves));
        }
        Value::Array(items) if items.iter().any(Value::is_table) => {
            for (index, item) in items.iter().enumerate() {
                let name = item.get("name").and_then(Value::as_str);
                let name = name.map_or_else(|| join(&index.to_string()), str::to_owned);
                flatten(&name, item, leaves);
            }
        }
        leaf => drop(leaves.insert(path.to_owned(), leaf.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::load;

    #[test]
    fn every_key_that_differs_is_named_with_both_values() {
        let recipe = |set: &[&str]| {
            load(None, &set.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>()).unwrap()
        };
        assert!(differences(&recipe(&[]), &recipe(&[])).is_empty());
        let set =
            ["teacher.lr=1e-3", "data.size=32", "model.registers=2", "student.masks.ratio=0.5"];
        let found = differences(&recipe(&[]), &recipe(&set));
        let expected = [
            "data.size is 28 there and 32 here",
            "student.masks.ratio is 0.75 there and 0.5 here",
            "teacher.lr is 0.002 there and 0.001 here",
            "model.registers is not set there and 2 here",
        ];
        assert_eq!(found, expected);
    }
}
