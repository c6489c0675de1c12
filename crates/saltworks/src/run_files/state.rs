//! state.json: the progress of a run.

use crate::data::Fingerprint;
use crate::files::Record;
use serde::{Deserialize, Serialize};

/// The contents of state.json.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// The data of the run. Other data would be another run.
    pub data: String,
    /// The fingerprint of its images.
    pub images: Option<Fingerprint>,
    /// The lengths that the user gave, if some were in minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lengths: Option<String>,
    /// The checksums of the recipe each time before its last stage was made longer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shorter_recipes: Vec<String>,
    /// The recipe that the run wrote. `None` if an earlier version did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<RecipeStamp>,
    /// The stages that ended, in order.
    pub done: Vec<StageDone>,
    /// Whether all stages and probes are done.
    pub finished: bool,
    /// Why the last process ended too early. `None` while one trains, and after one was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<RunEnd>,
}

/// Checksums of the recipe of a run, SHA-256.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeStamp {
    /// Of the file recipe.toml.
    pub file_sha256: String,
    /// Of what decides the weights.
    pub deciding_sha256: String,
    /// The version that wrote both. Another one may write the same recipe differently.
    pub version: String,
}

/// A stage that ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageDone {
    /// Its name.
    pub stage: String,
    /// Length of metrics.jsonl when it ended.
    pub metrics_bytes: u64,
    /// The file of its encoder.
    pub encoder: Record,
}

/// Why a process ended before its run did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunEnd {
    /// The time.
    pub unix_seconds: f64,
    /// The signal that ended it, if any.
    pub signal: Option<i32>,
    /// The message to its user.
    pub why: String,
}
