//! Files of a run's folder, as whoever had the folder may have left them.

use crate::files::read_regular;
use crate::recipe::{self, Recipe};
use serde::de::DeserializeOwned;
use std::io;
use std::path::Path;

/// Largest recipe, and largest file of JSON, that is read.
const MOST_RECIPE_BYTES: u64 = 4 << 20;
const MOST_JSON_BYTES: u64 = 64 << 20;

/// The text of a run's recipe.
pub(super) fn recipe_text(run: &Path) -> io::Result<String> {
    let path = run.join("recipe.toml");
    let named = |problem: String| io::Error::other(format!("{}: {problem}", path.display()));
    let bytes = read_regular(&path, MOST_RECIPE_BYTES).map_err(|error| named(error.to_string()))?;
    String::from_utf8(bytes).map_err(|_| named("it is no UTF-8 text".into()))
}

/// A run's recipe.
pub(super) fn recipe(run: &Path) -> io::Result<Recipe> {
    recipe::from_trained_text("recipe.toml", &recipe_text(run)?).map_err(io::Error::other)
}

/// What a file of JSON holds; nothing where it is not there, is too large, or holds something else.
pub(super) fn json<T: DeserializeOwned + Default>(path: &Path) -> T {
    let bytes = read_regular(path, MOST_JSON_BYTES).ok();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}
