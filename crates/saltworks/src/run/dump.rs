//! The files of a step that was not finite, for `saltworks replay`.

use super::folder::recipe_text;
use crate::data::Batch;
use crate::files::write_whole;
use crate::method::Method;
use crate::recipe::Recipe;
use crate::run_files::names::{MODEL, RECIPE, STEP, STEP_IMAGES};
use crate::weights;
use engine::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What failed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FailedStep {
    /// Index of the stage in its recipe. Its name in the file is older.
    #[serde(rename = "place")]
    pub(crate) stage_index: usize,
    /// Steps made before.
    pub(crate) step: u64,
    /// What was not finite.
    pub(crate) problem: String,
    /// The teacher's file, for SALT.
    pub(crate) teacher: Option<PathBuf>,
    /// Indices of the batch's images in the training data.
    pub(crate) images: Vec<u64>,
    /// Their files, or their positions in files.
    pub(crate) names: Vec<String>,
}

/// Writes the batches of a step, the weights it began with and the recipe into `folder`.
pub(crate) fn dump(
    folder: &Path,
    step: &FailedStep,
    recipe: &Recipe,
    method: &dyn Method,
    batches: &[Batch],
) -> Result<(), weights::Error> {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        write_whole(&path, text.as_bytes()).map_err(|error| cannot_write(&path, error))
    };
    fs::create_dir_all(folder).map_err(|error| cannot_write(folder, error))?;
    let images = images(batches);
    weights::save(&folder.join(STEP_IMAGES), &[("images".to_owned(), images)], &HashMap::new())?;
    let parameters = method.parameters().into_iter();
    let parameters: Vec<_> = parameters.map(|(name, p)| (name, p.value())).collect();
    weights::save(&folder.join(MODEL), &parameters, &HashMap::new())?;
    write(RECIPE, &recipe_text(recipe))?;
    // The values are numbers and strings, which JSON can hold.
    write(STEP, &(serde_json::to_string_pretty(step).expect("a step as JSON") + "\n"))
}

/// The bytes of all batches as values 0 to 255, [B, C, T, H, W]: exact in f32.
fn images(batches: &[Batch]) -> Tensor {
    // A loader's images are bytes, and a step that failed has read some.
    let bytes = batches.iter().flat_map(|batch| batch.images.bytes().expect("bytes"));
    let values: Vec<f32> = bytes.map(|&byte| f32::from(byte)).collect();
    let mut shape = batches[0].images.shape();
    shape[0] = batches.iter().map(|batch| batch.images.samples()).sum();
    Tensor::from_vec(values, &shape)
}

fn cannot_write(path: &Path, source: io::Error) -> weights::Error {
    weights::Error::Write { path: path.display().to_string(), source }
}
