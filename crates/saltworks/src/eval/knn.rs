//! Weighted k-nearest-neighbour classification.

use super::features::check_pair;
use super::matrix::Panels;
use super::{Asked, Error, Features, Prediction, Result, Scores};
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
    /// As DINO (Caron et al. 2021, eval_knn.py).
    fn default() -> Self {
        Self { k: 20, temperature: 0.07 }
    }
}

/// Test rows in a task, while their similarities to all training rows fit.
const TASK_ROWS: usize = 32;

/// What is near, and what a near row's vote weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    /// Cosine similarity s, exp(s / T): Wu et al. 2018, as DINO.
    Cosine,
    /// Euclidean distance d, 1 / (d + T): stable-pretraining's OnlineKNN.
    Euclidean,
}

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
    let classes = classes(&train.labels);
    let given = |votes: &[f64]| vec![classes[first_largest(votes)]];
    let labels = elect((train, &classes), test, (options, Vote::Cosine), stop, &given)?;
    Ok(Prediction::new(labels, &test.labels))
}

/// The votes of each test row's k nearest training rows: as [`knn`], whatever `vote` says is near. They
/// are relative to the nearest row's where they are exponentials.
pub fn knn_scores(
    train: &Features,
    test: &Features,
    (options, vote): (KnnOptions, Vote),
    stop: Asked<'_>,
) -> Result<Scores> {
    let classes = classes(&train.labels);
    let score = |&vote: &f64| if vote > 0.0 { vote as f32 } else { f32::NEG_INFINITY };
    let given = |votes: &[f64]| votes.iter().map(score).collect();
    let values = elect((train, &classes), test, (options, vote), stop, &given)?;
    Ok(Scores { values, classes })
}

/// What `take` takes of the votes `[K]` on each test row, row after row.
fn elect<T: Send>(
    (train, classes): (&Features, &[u32]),
    test: &Features,
    (options, vote): (KnnOptions, Vote),
    stop: Asked<'_>,
    take: &(dyn Fn(&[f64]) -> Vec<T> + Sync),
) -> Result<Vec<T>> {
    options.check()?;
    check_pair(train, test)?;
    let [rows, queries] = match vote {
        Vote::Cosine => [train, test].map(unit_rows),
        Vote::Euclidean => [&train.rows, &test.rows].map(Clone::clone),
    };
    let panels = Panels::of_rows(&rows, train.dim);
    let squares: Vec<f32> = rows.chunks_exact(train.dim).map(|row| dot(row, row) as f32).collect();
    // Labels are among their own classes.
    let column = |label: &u32| classes.binary_search(label).expect("a class of the labels");
    let columns: Vec<usize> = train.labels.iter().map(column).collect();
    let tasks = queries.par_chunks(TASK_ROWS * test.dim).map(|queries| {
        if stop() {
            return Vec::new();
        }
        let mut closeness = vec![0.0; queries.len() / test.dim * train.len()];
        panels.multiply(queries, &mut closeness); // [B,D] , [N,D] -> [B,N]
        let rows_of = closeness.chunks_exact_mut(train.len()).zip(queries.chunks_exact(test.dim));
        rows_of
            .flat_map(|(closeness, query)| {
                if vote == Vote::Euclidean {
                    // |a - b|² falls as a·b - |b|²/2 grows.
                    closeness.iter_mut().zip(&squares).for_each(|(c, square)| *c -= 0.5 * square);
                }
                let near = options.nearest(closeness);
                let weights = match vote {
                    Vote::Cosine => options.exponentials(closeness, &near),
                    Vote::Euclidean => options.inverses(&rows, query, &near),
                };
                let mut votes = vec![0.0; classes.len()];
                for (&i, weight) in near.iter().zip(weights) {
                    votes[columns[i]] += weight;
                }
                take(&votes)
            })
            .collect()
    });
    let taken: Vec<Vec<T>> = tasks.collect();
    if stop() {
        return Err(Error::Stopped);
    }
    Ok(taken.into_iter().flatten().collect())
}

/// The classes that occur, ascending.
pub(super) fn classes(labels: &[u32]) -> Vec<u32> {
    let mut classes = labels.to_vec();
    classes.sort_unstable();
    classes.dedup();
    classes
}

/// Σ a b in f64.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
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

    /// The rows of the k largest values of closeness `[N]`, the largest first.
    fn nearest(self, closeness: &[f32]) -> Vec<usize> {
        let nearer = |&a: &usize, &b: &usize| closeness[b].total_cmp(&closeness[a]).then(a.cmp(&b));
        let k = self.k.min(closeness.len());
        let mut order: Vec<usize> = (0..closeness.len()).collect();
        if k < order.len() {
            order.select_nth_unstable_by(k, nearer);
        }
        order.truncate(k);
        // One order of the sum, whatever the selection left.
        order.sort_unstable_by(nearer);
        order
    }

    /// exp((s - s₀) / T) of the rows `near`, where s₀ is the nearest's: the same ranks as exp(s / T), and
    /// no overflow at a low temperature.
    fn exponentials(self, similarity: &[f32], near: &[usize]) -> Vec<f64> {
        let first = f64::from(similarity[near[0]]);
        let weight = |&i: &usize| ((f64::from(similarity[i]) - first) / self.temperature).exp();
        near.iter().map(weight).collect()
    }

    /// 1 / (d + T) of the rows `near` the query `[D]`.
    fn inverses(self, rows: &[f32], query: &[f32], near: &[usize]) -> Vec<f64> {
        let distance = |&i: &usize| {
            let row = rows[i * query.len()..].iter().zip(query);
            row.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
        };
        near.iter().map(|i| 1.0 / (distance(i) + self.temperature)).collect()
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
