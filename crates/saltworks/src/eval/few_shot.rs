//! A linear probe from a few images of each class.

use super::features::check_pair;
use super::{Error, Features, LinearOptions, Result, StopCheck, linear};
use engine::random::Random;
use serde::Serialize;
use std::collections::BTreeMap;

/// How few-shot probes are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct FewShotOptions {
    /// Numbers of images of each class. Each number gets its own probe.
    pub shots: Vec<usize>,
    /// Number of random choices of images for each entry of `shots`.
    pub draws: usize,
    /// Seed of the choices.
    pub seed: u64,
}

impl Default for FewShotOptions {
    fn default() -> Self {
        Self { shots: vec![1, 2, 5, 10], draws: 5, seed: 0 }
    }
}

/// The result with `shots` images of each class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FewShotResult {
    /// Images of each class.
    pub shots: usize,
    /// Accuracy on the test rows for each draw, 0 to 1.
    pub accuracies: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (n - 1). None for one draw.
    pub std: Option<f64>,
}

/// Fits a [`linear`](super::linear()) probe on a few training rows of each class, drawn several
/// times, and predicts `test`. No rows are left to choose a penalty, so l2 = 1 / rows,
/// scikit-learn's C = 1. A draw with more rows contains the same draw with fewer rows.
///
/// # Errors
/// More images than the smallest class has, and the errors of [`linear`](super::linear()).
pub fn few_shot(
    train: &Features,
    test: &Features,
    options: &FewShotOptions,
    stopped: StopCheck<'_>,
) -> Result<Vec<FewShotResult>> {
    check_pair(train, test)?;
    options.check(&train.labels)?;
    let mut by_class: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (row, &label) in train.labels.iter().enumerate() {
        by_class.entry(label).or_default().push(row);
    }
    let mut found: Vec<FewShotResult> =
        options.shots.iter().map(|&shots| FewShotResult::none(shots)).collect();
    for draw in 0..options.draws {
        let mut random = Random::new(options.seed, "few_shot", draw as u64);
        by_class.values_mut().for_each(|rows| random.shuffle(rows));
        for few in &mut found {
            let rows: Vec<usize> =
                by_class.values().flat_map(|rows| &rows[..few.shots]).copied().collect();
            let l2 = vec![1.0 / rows.len() as f64];
            let options = LinearOptions { l2, ..LinearOptions::default() };
            let probe = linear(&train.select(&rows), test, &options, stopped)?;
            few.accuracies.push(probe.prediction.accuracy);
        }
    }
    found.iter_mut().for_each(FewShotResult::sum_up);
    Ok(found)
}

impl FewShotOptions {
    /// Refuses settings out of range, and more images than the smallest class of these labels has.
    ///
    /// # Errors
    /// The setting that is out of range, and what is expected.
    pub fn check(&self, labels: &[u32]) -> Result<()> {
        if self.draws == 0 {
            let found = self.draws.to_string();
            return Err(Error::Setting { setting: "draws", found, expected: "1 or more" });
        }
        let mut sizes = BTreeMap::new();
        labels.iter().for_each(|label| *sizes.entry(*label).or_insert(0) += 1);
        let Some((class, most)) = sizes.into_iter().min_by_key(|(_, size)| *size) else {
            return Err(Error::Empty { which: "training features", rows: 0, dim: 0 });
        };
        match self.shots.iter().find(|shots| !(1..=most).contains(*shots)) {
            Some(&shots) => Err(Error::Shots { shots, most, class }),
            None => Ok(()),
        }
    }
}

impl FewShotResult {
    fn none(shots: usize) -> Self {
        Self { shots, accuracies: Vec::new(), mean: 0.0, std: None }
    }

    fn sum_up(&mut self) {
        let n = self.accuracies.len() as f64;
        self.mean = self.accuracies.iter().sum::<f64>() / n;
        let squares: f64 = self.accuracies.iter().map(|x| (x - self.mean).powi(2)).sum();
        self.std = (n > 1.0).then(|| (squares / (n - 1.0)).sqrt());
    }
}
