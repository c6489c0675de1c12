//! The table that ends a run: what frozen features are worth.

use crate::eval::wilson;
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

/// What must be said of a trained encoder that is worth less than an untrained one, by all that was probed; none
/// where that may be chance.
pub fn worse_than_random(rows: &[ProbeRow], stage: &str) -> Option<String> {
    let row = |name: &str| rows.iter().find(|row| row.name == name);
    // One of the same size.
    let random = row(&format!("random {stage}")).or_else(|| row("random encoder"))?;
    let trained = row(stage)?;
    let pairs = [
        ("kNN", Some(trained.knn_mean), Some(random.knn_mean)),
        ("linear", trained.linear_mean, random.linear_mean),
    ];
    let pairs: Vec<_> =
        pairs.into_iter().filter_map(|(name, now, then)| Some((name, now?, then?))).collect();
    let images = trained.images;
    let interval = |share: f64| wilson((share * images as f64).round() as usize, images);
    let apart = |now: f64, then: f64| interval(now)[1] < interval(then)[0];
    let worse = images > 0
        && pairs.iter().all(|(_, now, then)| now < then)
        && pairs.iter().any(|(_, now, then)| apart(*now, *then));
    worse.then(|| {
        let told = |(name, now, then): &(&str, f64, f64)| {
            format!("{name} {:.1} % where that has {:.1} %", 100.0 * now, 100.0 * then)
        };
        let told: Vec<_> = pairs.iter().map(told).collect();
        format!(
            "{stage} tells classes apart less well than an encoder that was never trained ({}): train it \
             longer, or look at lr, masks and augmentation",
            told.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoder_worse_than_an_untrained_one_is_told_unless_it_may_be_chance() {
        let row = |name: &str, knn: f64, linear: Option<f64>| ProbeRow {
            name: name.into(),
            images: 300,
            knn_mean: knn,
            knn_cls: None,
            linear_mean: linear,
            linear_cls: None,
        };
        let told = |knn: f64, linear: Option<f64>| {
            let rows = [row("random encoder", 0.427, Some(0.837)), row("student", knn, linear)];
            worse_than_random(&rows, "student")
        };
        let text = told(0.166, Some(0.614)).unwrap();
        assert!(text.contains("kNN 16.6 % where that has 42.7 %, linear 61.4 %"), "{text}");
        assert!(told(0.166, None).is_some());
        assert!(told(0.166, Some(0.9)).is_none(), "linear probes tell otherwise");
        assert!(told(0.41, Some(0.83)).is_none(), "may be chance");
        assert!(worse_than_random(&[row("student", 0.1, None)], "student").is_none());
    }
}
