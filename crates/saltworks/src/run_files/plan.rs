//! plan.json: the cost of each stage of a run.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The contents of plan.json.
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

/// The cost of a stage: numbers of each network by its name, and the FLOPs of all under `total`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlannedStage {
    /// Its name in the recipe.
    pub name: String,
    /// `mae` or `salt`.
    pub method: String,
    /// Steps of the whole stage.
    pub steps: u64,
    /// Images in a step.
    pub batch: usize,
    /// Images in all steps. An image counts each time it is used.
    pub images: u64,
    /// Parameters of each network, trained or frozen.
    pub parameters: BTreeMap<String, usize>,
    /// Tokens of an image that each network reads: a mean over masks.
    pub tokens_per_image: BTreeMap<String, f64>,
    /// FLOPs of a step for one image.
    pub flops_per_image: BTreeMap<String, f64>,
    /// The same by the paper's count.
    pub paper_flops_per_image: BTreeMap<String, f64>,
}
