//! `saltworks recipe`: prints a whole recipe, each key with its meaning.

use super::recipe_arguments::RecipeArguments;
use crate::console::result;
use crate::failure::Failure;
use crate::recipe::Recipe;
use crate::run::ChosenRecipe;
use std::collections::HashMap;

/// Options of `recipe`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    recipe: RecipeArguments,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let ChosenRecipe { recipe, .. } = arguments.recipe.recipe()?;
    result(commented(&recipe).trim_end());
    Ok(())
}

/// The page of all keys, which is generated from the schema.
const KEYS: &str = include_str!("../../../../docs/recipe.md");

/// The recipe as TOML, with a comment above each key.
fn commented(recipe: &Recipe) -> String {
    let meanings = meanings();
    // A recipe holds only values that TOML can hold.
    let text = toml::to_string(recipe).expect("a recipe as TOML");
    let (mut table, mut lines) = (String::new(), Vec::new());
    for line in text.lines() {
        if line.starts_with('[') {
            table = line.trim_matches(['[', ']']).to_owned();
        } else if let Some((key, _)) = line.split_once(" = ")
            && let Some(meaning) = meanings.get(&(table.as_str(), key))
        {
            lines.push(format!("# {meaning}"));
        }
        lines.push(line.to_owned());
    }
    lines.join("\n")
}

/// The first sentence on each key of the page, by its table.
fn meanings() -> HashMap<(&'static str, &'static str), String> {
    let (mut table, mut all) = ("", HashMap::new());
    for line in KEYS.lines() {
        if let Some(heading) = line.strip_prefix("##") {
            // Of a heading without a table, such as that of the first keys, nothing is left.
            let name = heading.split('`').nth(1).unwrap_or_default();
            table = name.split(']').next().unwrap_or_default().trim_matches('[');
            continue;
        }
        let cells: Vec<&str> = line.split(" | ").collect();
        if let [key, .., meaning] = cells[..]
            && let Some(key) = key.strip_prefix("| `").and_then(|key| key.strip_suffix('`'))
        {
            let sentence = meaning.trim_end_matches(" |").split("<br>").next().unwrap_or_default();
            let end = sentence.find(". ").map_or(sentence.len(), |at| at + 1);
            all.insert((table, key), sentence[..end].to_owned());
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::load;

    #[test]
    fn a_recipe_with_comments_is_the_same_recipe_and_its_keys_are_explained() {
        let recipe = load(None, &[]).unwrap();
        let text = commented(&recipe);
        let again = crate::recipe::from_text("itself", &text, &[]).unwrap();
        assert_eq!(again, recipe);
        let explained = text.lines().filter(|line| line.starts_with("# ")).count();
        let keys = text.lines().filter(|line| line.contains(" = ") && !line.starts_with('#'));
        assert!(5 * explained >= 4 * keys.count(), "{text}");
        assert!(text.contains("# Learning rate after the warmup.\nlr = "), "{text}");
    }
}
