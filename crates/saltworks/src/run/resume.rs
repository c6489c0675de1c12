//! The position from which a stage trains: its beginning, or the newest whole checkpoint.

use super::folder::{deciding, keep, recipe_text};
use super::plan::StagePlan;
use super::stages::Run;
use crate::console::note;
use crate::failure::{Failure, input_error, run_error};
use crate::files::{read_file, sha256};
use crate::recipe::{self, InitialWeights, Precision, Recipe};
use crate::run_files::names::RECIPE;
use crate::run_files::{RecipeStamp, RunState};
use crate::train::{CHECKPOINT_FOLDER, Optimizer, Position};
use crate::weights;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

impl Run<'_> {
    /// The position of a stage that has made no step.
    pub(super) fn first_position(&self, plan: &StagePlan<'_>) -> Result<Position, Failure> {
        let teacher = match self.teacher_path(plan) {
            None => String::new(),
            Some(path) => {
                let path = weights::ModelFile::find(&path).map_err(input_error)?;
                let bytes = fs::read(&path);
                sha256(
                    &bytes
                        .map_err(|e| run_error(format!("cannot read {}: {e}", path.display())))?,
                )
            }
        };
        Ok(Position {
            stage: plan.stage.name.clone(),
            step: 0,
            loss: 0.0,
            metrics_bytes: self.folder.metrics_bytes(),
            machine: machine(self.recipe.precision),
            recipe_sha256: recipe_sha256(self.recipe),
            teacher_sha256: teacher,
            updates: BTreeMap::new(),
            unreadable: BTreeSet::new(),
        })
    }

    /// Restores the newest whole checkpoint of a stage, if there is one. Returns the stage's
    /// position.
    pub(super) fn restore(
        &self,
        first: Position,
        optimizer: &mut Optimizer,
    ) -> Result<Position, Failure> {
        let checkpoints = self.folder.checkpoints(keep(self.recipe));
        let (found, damaged) = checkpoints.newest(&first.stage).map_err(run_error)?;
        let instead = match found {
            Some(_) => "An earlier checkpoint is used",
            None => "The stage starts again",
        };
        damaged.iter().for_each(|problem| note(&format!("{problem}. {instead}")));
        let Some(checkpoint) = found else {
            if self.folder.resumed() {
                let stage = &first.stage;
                note(&format!("{stage:>10}  starts: it has no checkpoint yet"));
            }
            return Ok(first);
        };
        let found = &checkpoint.position;
        self.check_origin(found, &first)?;
        checkpoint.restore(optimizer).map_err(|problem| {
            input_error(format!(
                "{problem}. Remove it: the same command then resumes from an earlier one, or \
                 starts the stage again"
            ))
        })?;
        note(&format!("{:>10}  resuming after step {}", first.stage, found.step));
        let (step, metrics_bytes) = (found.step, found.metrics_bytes);
        let unreadable = found.unreadable.clone();
        Ok(Position { step, metrics_bytes, unreadable, ..first })
    }

    /// Refuses a checkpoint of another teacher or recipe, and notes one of another machine.
    fn check_origin(&self, found: &Position, first: &Position) -> Result<(), Failure> {
        let stage = &first.stage;
        if found.teacher_sha256 != first.teacher_sha256 {
            return Err(input_error(format!(
                "the teacher of stage {stage} is not the file this stage began with. Restore it, \
                 or \
                 start again with --overwrite"
            )));
        }
        if found.machine != first.machine {
            let (there, here) = (&found.machine, &first.machine);
            note(&format!(
                "the run was trained by {there}, but this is {here}: sums may round differently"
            ));
        } else if found.recipe_sha256 != first.recipe_sha256
            && !self.folder.shorter_recipes().contains(&found.recipe_sha256)
        {
            // Another version may write the same recipe differently.
            return Err(input_error(format!(
                "the checkpoint of stage {stage} was written with another recipe than {} holds \
                 now. Restore that file, or start again with --overwrite",
                self.folder.path().join(RECIPE).display()
            )));
        }
        Ok(())
    }

    /// Refuses a checkpoint after more steps than the stage has.
    pub(super) fn check_length(&self, position: &Position, steps: u64) -> Result<(), Failure> {
        if position.step <= steps {
            return Ok(());
        }
        Err(input_error(format!(
            "a checkpoint of stage {} is of step {}, but the stage has {steps} steps. Remove {}, \
             or start again with --overwrite",
            position.stage,
            position.step,
            self.folder.path().join(CHECKPOINT_FOLDER).display()
        )))
    }
}

/// The checksums of a run's recipe, whose file holds `text`.
pub(super) fn stamp(text: &[u8], recipe: &Recipe) -> RecipeStamp {
    RecipeStamp {
        file_sha256: sha256(text),
        deciding_sha256: recipe_sha256(recipe),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

/// The recipe of the run that wrote `state`.
///
/// # Errors
/// A recipe that was changed since in what decides the weights. The stages of a run would be
/// trained with different recipes.
pub(super) fn unchanged_recipe(path: &Path, state: &RunState) -> Result<Recipe, Failure> {
    let recipe = as_first_meant(recipe::load(Some(path), &[]).map_err(input_error)?);
    let text = read_file(path).unwrap_or_default();
    let Some(written) = &state.recipe else { return Ok(recipe) };
    let now = stamp(&text, &recipe);
    let same_file = now.file_sha256 == written.file_sha256;
    let same_weights =
        now.version == written.version && now.deciding_sha256 == written.deciding_sha256;
    // A process may be killed after it wrote the state of a longer run, before the recipe.
    let shorter = state.shorter_recipes.last() == Some(&now.deciding_sha256);
    if same_file || same_weights || shorter {
        return Ok(recipe);
    }
    Err(input_error(format!(
        "{} is not the recipe that the run began with: it was changed. Restore it, or start again \
         with --overwrite",
        path.display()
    )))
}

/// A run's recipe as the program meant that wrote it. A decoder or predictor without
/// `initial_weights` is of an earlier program, which only had the published ones.
fn as_first_meant(mut recipe: Recipe) -> Recipe {
    for stage in &mut recipe.stage {
        let tables = [("decoder", &mut stage.decoder), ("predictor", &mut stage.predictor)];
        for (key, sizes) in tables {
            let key = format!("{}.{key}.initial_weights", stage.name);
            if let (Some(sizes), false) = (sizes, recipe.origin.says(&key)) {
                sizes.initial_weights = InitialWeights::Published;
            }
        }
    }
    recipe
}

/// Keys that are newer than the first runs, with what those did.
const NEWER: [&str; 3] =
    ["precision = \"f32\"\n", "keep_end = true\n", "initial_weights = \"published\"\n"];

/// The checksum of what decides the weights. Newer keys with their defaults are left out, so that
/// the first runs can be resumed.
pub(super) fn recipe_sha256(recipe: &Recipe) -> String {
    let text = recipe_text(&deciding(recipe).whole());
    sha256(NEWER.iter().fold(text, |text, line| text.replace(line, "")).as_bytes())
}

/// The program and processor, which decide how sums round.
fn machine(precision: Precision) -> String {
    let set = engine::cpu::instruction_set(precision.dtype());
    format!("saltworks {} on {} ({set})", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run's recipe of 2026-11-30, and the checksum that the run noted.
    const EARLIER: &str = include_str!("../../../../tests/earlier/recipe.toml");
    const CHECKSUM: &str = "09091c4e820edb9f48a168d0719801ed4dd312418b70aed3787b4700bdd18c4a";

    #[test]
    fn a_recipe_of_an_earlier_program_means_what_it_meant() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.toml");
        crate::files::write_whole(&path, EARLIER.as_bytes()).unwrap();
        let loaded = || unchanged_recipe(&path, &RunState::default()).ok().unwrap();
        let recipe = loaded();
        assert_eq!(recipe_sha256(&recipe), CHECKSUM);
        let sizes = [recipe.stage[0].decoder(), recipe.stage[1].predictor()];
        assert!(sizes.iter().all(|of| of.initial_weights == InitialWeights::Published));

        // Only the first table states them. A word elsewhere states nothing.
        let torch = "heads = 4\ninitial_weights = \"torch\" # initial_weights\n";
        let said = EARLIER.replacen("heads = 4\n", torch, 1);
        crate::files::write_whole(&path, said.as_bytes()).unwrap();
        let recipe = loaded();
        assert_eq!(recipe.stage[0].decoder().initial_weights, InitialWeights::Torch);
        assert_eq!(recipe.stage[1].predictor().initial_weights, InitialWeights::Published);
        assert_ne!(recipe_sha256(&recipe), CHECKSUM);
    }
}
