//! Weighted k-nearest-neighbour classification.

use super::features::check_pair;
use super::matrix::Panels;
use super::{Asked, Error, Features, Prediction, Result};
use rayon::prelude::*;

/// How neighbours vote.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KnnOptions {
    /// Neighbours that vote; all of them where there are fewer.
    pub k: usize,
    /// T in a vote's weight exp(similarity / T).
    pub temperature: f64,
}

impl Default for KnnOptions {
    /// As DINO (Caron et al. 2021, eval_knn.py) and stable-pretraining.
    fn default() -> Self {
        Self { k: 20, temperature: 0.07 }
    }
}

/// Test rows in a task, while their similarities to all training rows fit.
const TASK_ROWS: usize = 32;

/// Gives each test row the class with most votes among its k nearest training rows.
///
/// Near is cosine similarity s = a·b / (|a| |b|), a vote weighs exp(s/T). Of equally near rows the
/// earlier one, of classes with equal votes the lower one wins.
pub fn knn(
    train: &Features,
    test: &Features,
    options: KnnOptions,
    stop: Asked<'_>,
) -> Result<Prediction> {
    options.check()?;
    check_pair(train, test)?;
    let panels = Panels::of_rows(&unit_rows(train), train.dim);
    let queries = unit_rows(test);
    let classes = train.labels.iter().max().map_or(0, |&label| label as usize + 1);
    let tasks = queries.par_chunks(TASK_ROWS * test.dim).map(|queries| {
        if stop() {
            return Vec::new();
        }
        let mut similarity = vec![0.0; queries.len() / test.dim * train.len()];
        panels.multiply(queries, &mut similarity); // [B,D] , [N,D] -> [B,N]
        let rows = similarity.chunks_exact(train.len());
        rows.map(|row| options.vote(row, &train.labels, classes)).collect::<Vec<_>>()
    });
    let labels = tasks.collect::<Vec<_>>().concat();
    if stop() {
        return Err(Error::Stopped);
    }
    Ok(Prediction::new(labels, &test.labels))
}

impl KnnOptions {
    fn check(&self) -> Result<()> {
        if self.k == 0 {
            let found = self.k.to_string();
            return Err(Error::Setting { setting: "k", found, expected: "1 or more" });
        }
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            let found = self.temperature.to_string();
            let expected = "a number above 0";
            return Err(Error::Setting { setting: "temperature", found, expected });
        }
        Ok(())
    }

    /// The class that one row's similarities `[N]` to rows of these classes `[N]` elect.
    fn vote(&self, similarity: &[f32], labels: &[u32], classes: usize) -> u32 {
        let nearer =
            |&a: &usize, &b: &usize| similarity[b].total_cmp(&similarity[a]).then(a.cmp(&b));
        let k = self.k.min(similarity.len());
        let mut order: Vec<usize> = (0..similarity.len()).collect();
        let nearest = &mut order[..];
        if k < nearest.len() {
            nearest.select_nth_unstable_by(k, nearer);
        }
        let nearest = &mut nearest[..k];
        // One order of the sum, whatever the selection left.
        nearest.sort_unstable_by(nearer);
        let mut votes = vec![0.0; classes];
        for &i in &*nearest {
            // Against the nearest: the same ranks, and no overflow at a low temperature.
            let closeness = f64::from(similarity[i]) - f64::from(similarity[nearest[0]]);
            votes[labels[i] as usize] += (closeness / self.temperature).exp();
        }
        first_largest(&votes) as u32
    }
}

/// The place of the largest value, the first of equal ones.
pub(super) fn first_largest<T: PartialOrd>(values: &[T]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}

/// Each row divided by its length, `[B, D]`; a row of zeros stays one.
pub(super) fn unit_rows(features: &Features) -> Vec<f32> {
    let unit = |row: &[f32]| {
        let length = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let scale = 1.0 / length.max(1e-12);
        row.iter().map(|&x| (f64::from(x) * scale) as f32).collect::<Vec<_>>()
    };
    features.rows.chunks_exact(features.dim).flat_map(unit).collect()
}
