//! state.json: how far a run has come.

use crate::data::Fingerprint;
use crate::files::Record;
use serde::{Deserialize, Serialize};

/// What state.json holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// What the data is; other data would be another run.
    pub data: String,
    /// What tells its images from others.
    pub images: Option<Fingerprint>,
    /// The stages trained to their end, in order.
    pub done: Vec<StageDone>,
    /// Whether all is done, probes too.
    pub finished: bool,
    /// Why the last process ended before that; none while one trains, and after one that was killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<RunEnd>,
}

/// A stage trained to its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageDone {
    /// Which.
    pub stage: String,
    /// Length of metrics.jsonl when it ended.
    pub metrics_bytes: u64,
    /// What others read of it.
    pub encoder: Record,
}

/// Why a process ended before its run did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunEnd {
    /// When.
    pub unix_seconds: f64,
    /// The signal that asked for it.
    pub signal: Option<i32>,
    /// What it told its user.
    pub why: String,
}
