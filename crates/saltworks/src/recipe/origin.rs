//! Where a recipe's values come from, for messages about them.

use super::RecipeError;
use std::fmt::Display;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The text and the overrides a recipe was read from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The name of the text in messages: its file.
    name: String,
    text: String,
    /// `--set key=value` as given.
    set: Vec<String>,
    /// Whether it was chosen for its images.
    pub(super) is_chosen: bool,
    /// Whether it names no images, so that the built-in ones are used.
    pub(super) is_without_data: bool,
}

/// Recipes with the same values are equal, no matter where they were read.
impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Origin {
    pub(super) fn new(name: &str, text: &str, set: &[String]) -> Self {
        Self { name: name.into(), text: text.into(), set: set.into(), ..Self::default() }
    }

    /// The name of the recipe in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether a key is set by the text or by `--set`.
    pub fn says(&self, key: &str) -> bool {
        self.is_set(key) || self.find(key).is_some_and(|(_, whole)| whole)
    }

    /// Whether the recipe was chosen for its images.
    pub fn is_chosen(&self) -> bool {
        self.is_chosen
    }

    /// Whether no images are named, so that the built-in ones are used.
    pub fn is_without_data(&self) -> bool {
        self.is_without_data
    }

    /// An error in the values of these keys. It begins with the `--set` or the line that sets one
    /// of them.
    pub fn refuse(&self, keys: &[&str], problem: impl Display) -> RecipeError {
        RecipeError::Refused { location: self.location(keys), problem: problem.to_string() }
    }

    /// An error in a value, with its location.
    pub fn locate(&self, error: RecipeError) -> RecipeError {
        match &error {
            RecipeError::Value { key, .. } => self.refuse(&[key], &error),
            _ => error,
        }
    }

    /// Whether a `--set` sets a key, a table that holds it, or a key in it.
    pub fn is_set(&self, key: &str) -> bool {
        self.set.iter().any(|given| says(given, key))
    }

    fn location(&self, keys: &[&str]) -> String {
        let mut last_first = self.set.iter().rev();
        if let Some(given) = last_first.find(|given| keys.iter().any(|key| says(given, key))) {
            return format!("--set {given}");
        }
        match keys.iter().find_map(|key| self.line(key)) {
            Some(line) => format!("{}, line {line}", self.name),
            None => self.name.clone(),
        }
    }

    /// The line of a key, or of the nearest table around it.
    fn line(&self, key: &str) -> Option<usize> {
        let (start, _) = self.find(key)?;
        Some(self.text[..start].matches('\n').count() + 1)
    }

    /// Where a key begins, or the nearest table around it, and whether it is the key itself.
    fn find(&self, key: &str) -> Option<(usize, bool)> {
        let table = DeTable::parse(&self.text).ok()?;
        let mut here = table.get_ref();
        let mut found = None;
        for (depth, part) in key.split('.').enumerate() {
            let value = if depth == 0 { top(here, part) } else { here.get(part) };
            let Some(value) = value else { return found.map(|start| (start, false)) };
            found = Some(value.span().start);
            match value.get_ref() {
                DeValue::Table(table) => here = table,
                // Only a table holds keys, so this is the last part.
                _ => break,
            }
        }
        found.map(|start| (start, true))
    }
}

/// Finds a section, a key outside sections, or a stage by its name.
fn top<'t, 'i>(table: &'t DeTable<'i>, name: &str) -> Option<&'t Spanned<DeValue<'i>>> {
    let stages = || table.get("stage")?.get_ref().as_array();
    let is_called = |stage: &&Spanned<DeValue<'i>>| {
        let called = stage.get_ref().as_table().and_then(|stage| stage.get("name"));
        called.and_then(|called| called.get_ref().as_str()) == Some(name)
    };
    table.get(name).or_else(|| stages()?.iter().find(is_called))
}

/// Whether `given` sets `key`, a table that holds it, or a key in it.
fn says(given: &str, key: &str) -> bool {
    let said = given.split('=').next().unwrap_or_default().trim();
    let holds = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    holds(said, key) || holds(key, said)
}
