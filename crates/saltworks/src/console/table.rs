//! The table that ends a run: the accuracy of frozen features.

use crate::run_files::ProbeRow;
use std::fmt::Write;

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
