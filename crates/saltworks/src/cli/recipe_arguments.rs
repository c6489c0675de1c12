//! The options that say what to train: a recipe, or images and what differs from the defaults.

use crate::console::note;
use crate::failure::Failure;
use crate::files::read_regular;
use crate::recipe::{ChosenValue, Data, Recipe, TeacherFile, given};
use crate::run::{ChosenRecipe, NamedInput, recipe_for};
use crate::run_files::Environment;
use crate::run_files::names::ENVIRONMENT;
use std::path::{Path, PathBuf};

/// What to train.
#[derive(clap::Args)]
pub(super) struct RecipeArguments {
    /// A recipe (NAME.toml), a run's folder (its recipe), or images: a folder, tar shards, a list,
    /// parquet, NumPy or IDX files. A recipe is chosen for images. Default: the built-in quickstart
    /// on Fashion-MNIST.
    #[arg(value_name = "RECIPE or IMAGES")]
    what: Option<PathBuf>,
    /// Where the images are, as in data.path.
    #[arg(long, value_name = "PATH")]
    data: Option<String>,
    /// The encoder by its timm name, such as vit_small_patch16_224.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// How long the run is to take. Default for images without a recipe: 20.
    #[arg(long, value_name = "N")]
    minutes: Option<f64>,
    /// Weights of a trained encoder, from saltworks, timm, transformers or others. It is the
    /// teacher, and no teacher is trained.
    #[arg(long, value_name = "FILE")]
    teacher: Option<PathBuf>,
    /// Of a teacher's file with several models: a word before the names of one, such as student,
    /// target_encoder or `ema` (see `inspect FILE`).
    #[arg(long, requires = "teacher")]
    part: Option<String>,
    /// Change a key of the recipe, e.g. teacher.lr=1e-3, data.size=32, seed=1. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl RecipeArguments {
    /// The recipe that is given or chosen.
    pub(super) fn recipe(&self) -> Result<ChosenRecipe, Failure> {
        self.chosen_for(None)
    }

    /// The recipe of the run in a folder, changed by the options.
    pub(super) fn recipe_of_run(&self, recipe: &Path) -> Result<ChosenRecipe, Failure> {
        if self.minutes.is_some() {
            note("--minutes is ignored: a resumed run keeps its steps");
        }
        let images = match self.what.as_deref().map(NamedInput::of) {
            Some(NamedInput::Images(images)) => Some(text("data.path", images)),
            _ => None,
        };
        let changes: Vec<_> = images.into_iter().chain(self.named()).collect();
        let set = [&changes, self.set.as_slice()].concat();
        recipe_for(Some(recipe), self.teacher_file(), &set, None)
    }

    /// Like [`Self::recipe`], for the folder of a run. If it holds one, the choice depends on that
    /// run's number of threads.
    pub(super) fn recipe_in(&self, out: &Path) -> Result<ChosenRecipe, Failure> {
        self.chosen_for(threads_of(out))
    }

    fn chosen_for(&self, threads: Option<usize>) -> Result<ChosenRecipe, Failure> {
        let (what, set) = (self.what.as_deref(), self.changes());
        let chosen = recipe_for(what, self.teacher_file(), &set, threads)?;
        show(&chosen.choices);
        Ok(chosen)
    }

    fn teacher_file(&self) -> Option<TeacherFile<'_>> {
        Some(TeacherFile { path: self.teacher.as_deref()?, part: self.part.as_deref() })
    }

    /// Whether the first argument is a recipe.
    pub(super) fn names_recipe(&self) -> bool {
        matches!(self.what.as_deref().map(NamedInput::of), Some(NamedInput::Recipe(_)))
    }

    /// The folder of the run if --out is not given: that of the recipe's or the images' name.
    pub(super) fn default_out(&self) -> PathBuf {
        let name = match self.what.as_deref().map(NamedInput::of) {
            Some(NamedInput::Recipe(path)) => {
                path.file_stem().unwrap_or_default().to_string_lossy().into()
            }
            Some(NamedInput::Images(images)) => name_of(images),
            // A wrong --set is refused when the recipe is read.
            None => match given(&self.changes()) {
                Ok(Recipe { data: Data { path: Some(path), .. }, origin, .. })
                    if !origin.is_without_data() =>
                {
                    name_of(&path)
                }
                _ => String::new(),
            },
        };
        Path::new("runs").join(if name.is_empty() { "quickstart" } else { &name })
    }

    /// The options as changes of keys. What `--set` gives comes last.
    fn changes(&self) -> Vec<String> {
        let minutes = self.minutes.map(|minutes| format!("minutes={}", toml::Value::from(minutes)));
        self.named().chain(minutes).chain(self.set.iter().cloned()).collect()
    }

    /// The images and the model that options name, as changes of keys.
    fn named(&self) -> impl Iterator<Item = String> {
        let data = self.data.iter().map(|path| text("data.path", path));
        data.chain(self.model.iter().map(|name| text("model.name", name)))
    }
}

/// `key="value"`
fn text(key: &str, value: &str) -> String {
    format!("{key}={}", toml::Value::from(value))
}

/// How many threads the run in a folder began with.
fn threads_of(run: &Path) -> Option<usize> {
    let text = read_regular(&run.join(ENVIRONMENT), 1 << 20).ok()?;
    let began: Environment = serde_json::from_slice(&text).ok()?;
    (began.threads > 0).then_some(began.threads)
}

/// The last part of a path or URL, without what no folder should be called.
fn name_of(images: &str) -> String {
    let whole = Path::new(images).canonicalize();
    let whole = whole.map_or_else(|_| images.to_owned(), |path| path.display().to_string());
    let name = whole.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
    let stem = name.split(['{', '.']).find(|part| !part.is_empty()).unwrap_or_default();
    stem.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c)).collect()
}

/// Shows the values that were chosen for the images.
fn show(choices: &[ChosenValue]) {
    if choices.is_empty() {
        return;
    }
    note("chosen for these images (--set changes a value, `saltworks recipe` prints all of them):");
    let (said, others): (Vec<_>, Vec<_>) = choices.iter().partition(|one| !one.why.is_empty());
    for ChosenValue { key, value, why } in said {
        note(&format!("  {key} = {value}  ({why})"));
    }
    let others: Vec<_> = others.iter().map(|one| format!("{} = {}", one.key, one.value)).collect();
    if !others.is_empty() {
        note(&format!("  {}", others.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_called_like_its_images() {
        let names = ["s3://bucket/photos/train-{000..099}.tar", "nowhere/pets.tar", "/data/birds/"];
        assert_eq!(names.map(name_of), ["train-", "pets", "birds"]);
        assert_eq!(name_of("builtin:fashion-mnist"), "fashion-mnist");
    }
}
