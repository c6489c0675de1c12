//! probes.json: the accuracy of frozen features after each stage.

use crate::eval::RightImages;
use serde::{Deserialize, Serialize};

/// The row of an untrained encoder with the sizes of a later stage's. `random encoder` is the first
/// stage's.
pub fn random_row(stage: &str) -> String {
    match stage {
        "encoder" => "random encoder of its stage".to_owned(),
        stage => format!("random {stage}"),
    }
}

/// Accuracies of one kind of features, from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeRow {
    /// The source of the features.
    #[serde(rename = "features")]
    pub name: String,
    /// Training images that the probes were fitted on. 0 if an earlier version did not write it.
    #[serde(default)]
    pub train_images: usize,
    /// Held-out images that were probed. 0 if an earlier version did not write it.
    #[serde(default)]
    pub images: usize,
    /// kNN on mean-pooled features, or on the only features there are.
    pub knn_mean: f64,
    /// kNN on the class token, if there is one.
    pub knn_cls: Option<f64>,
    /// Linear probe on mean-pooled features, if the recipe requests it.
    pub linear_mean: Option<f64>,
    /// Linear probe on the class token.
    pub linear_cls: Option<f64>,
    /// Which held-out images each probe classifies right. Empty if an earlier version wrote it.
    #[serde(default)]
    pub right: Right,
}

/// Which test images each probe classifies right, by the names of the accuracies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Right {
    /// By [`ProbeRow::knn_mean`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knn_mean: Option<RightImages>,
    /// By [`ProbeRow::knn_cls`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knn_cls: Option<RightImages>,
    /// By [`ProbeRow::linear_mean`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linear_mean: Option<RightImages>,
    /// By [`ProbeRow::linear_cls`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linear_cls: Option<RightImages>,
}
