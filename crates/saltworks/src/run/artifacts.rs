//! The output of a stage: its weights in files.

use super::folder::write_error;
use super::plan::StagePlan;
use super::stages::Run;
use crate::failure::{Failure, run_error};
use crate::files::Record;
use crate::method::Method;
use crate::run_files::names::MODEL;
use crate::train;
use crate::weights::{self, MODEL_KEY};
use engine::{Module as _, Parameter};
use std::collections::HashMap;
use std::fs;

/// The key of a stage's metadata that holds the SHA-256 of its teacher's file.
pub(crate) const TEACHER_SHA256: &str = "teacher_sha256";

impl Run<'_> {
    /// Writes the encoder under timm's names, and everything trained under the method's. Returns
    /// the record of the encoder's file. Weights that are not finite overwrite nothing.
    pub(super) fn save(
        &self,
        method: &dyn Method,
        plan: &StagePlan<'_>,
        step: u64,
        teacher_sha256: &str,
    ) -> Result<Record, Failure> {
        let (stage, all) = (plan.stage, method.parameters());
        train::refuse_divergence(&stage.name, step, &all).map_err(run_error)?;
        self.folder.check_lock()?;
        let path = self.folder.encoder_path(&stage.name);
        let folder = self.folder.path().join(&stage.name);
        fs::create_dir_all(&folder).map_err(|error| run_error(write_error(&folder, &error)))?;
        let mut metadata = metadata(method, plan, step);
        let data = &self.recipe.data;
        metadata.extend(weights::pixel_metadata(&data.normalize, data.channels(), data.depth));
        let encoder = weights::save(&path, &values(method.encoder().parameters()), &metadata);
        if !teacher_sha256.is_empty() {
            metadata.insert(TEACHER_SHA256.to_owned(), teacher_sha256.to_owned());
        }
        weights::save(&folder.join(MODEL), &values(all), &metadata).map_err(run_error)?;
        encoder.map_err(run_error)
    }
}

fn metadata(method: &dyn Method, plan: &StagePlan<'_>, step: u64) -> HashMap<String, String> {
    // Sizes are numbers, strings and booleans, which JSON can hold.
    let sizes = serde_json::to_string(method.encoder().spec()).expect("sizes as JSON");
    [
        ("format", "pt"),
        ("saltworks", env!("CARGO_PKG_VERSION")),
        ("stage", &plan.stage.name),
        ("step", &step.to_string()),
        ("steps", &plan.schedule.steps.to_string()),
        (MODEL_KEY, &sizes),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn values(list: Vec<(String, Parameter)>) -> Vec<(String, engine::Tensor)> {
    list.into_iter().map(|(name, parameter)| (name, parameter.value())).collect()
}
