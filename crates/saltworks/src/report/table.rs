//! The table that ends a run: what frozen features are worth.

use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Accuracies of one kind of features, from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeRow {
    /// What made the features.
    #[serde(rename = "features")]
    pub name: String,
    /// Held-out images that were probed; 0 where an earlier version did not say.
    #[serde(default)]
    pub images: usize,
    /// kNN on mean-pooled features (or on the features there are).
    pub knn_mean: f64,
    /// kNN on the class token, where there is one.
    pub knn_cls: Option<f64>,
    /// Linear probe on mean-pooled features, if asked for.
    pub linear_mean: Option<f64>,
    /// Linear probe on the class token.
    pub linear_cls: Option<f64>,
}

/// The rows as text, in percent.
pub fn probe_table(rows: &[ProbeRow]) -> String {
    let images = rows.iter().map(|row| row.images).max().unwrap_or(0);
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(8);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "{:width$}  {:>9}  {:>9}  {:>11}  {:>11}   (% of {images} held-out images)",
        "features", "kNN mean", "kNN CLS", "linear mean", "linear CLS"
    );
    let percent =
        |x: Option<f64>| x.map_or_else(|| "-".to_owned(), |x| format!("{:.1}", 100.0 * x));
    for row in rows {
        let _ = writeln!(
            text,
            "{:width$}  {:>9}  {:>9}  {:>11}  {:>11}",
            row.name,
            percent(Some(row.knn_mean)),
            percent(row.knn_cls),
            percent(row.linear_mean),
            percent(row.linear_cls)
        );
    }
    text
}
