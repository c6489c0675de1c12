//! plan.json: what each stage of a run will cost.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What plan.json holds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlanFile {
    /// How `flops_per_image` are counted.
    pub flops: String,
    /// How `paper_flops_per_image` are counted.
    pub paper_flops: String,
    /// The stages in their order.
    pub stages: Vec<PlannedStage>,
}

/// What a stage costs; numbers of each of its networks by name, and FLOPs of all under `total`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlannedStage {
    /// The recipe's.
    pub name: String,
    /// `mae` or `salt`.
    pub method: String,
    /// Steps of the whole stage.
    pub steps: u64,
    /// Images of a step.
    pub batch: usize,
    /// Images of all steps, those seen again too.
    pub images: u64,
    /// Values that are trained, or read where the network is frozen.
    pub parameters: BTreeMap<String, usize>,
    /// Tokens that a network reads of an image, as a mean over masks.
    pub tokens_per_image: BTreeMap<String, f64>,
    /// FLOPs of a step, image by image.
    pub flops_per_image: BTreeMap<String, f64>,
    /// The same as the paper counts.
    pub paper_flops_per_image: BTreeMap<String, f64>,
}
