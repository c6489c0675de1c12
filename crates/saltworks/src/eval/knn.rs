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

impl Vote {
    /// A row as the vote sees it: divided by its length for cosines; a row of zeros stays one.
    fn scaled(self, row: &[f32]) -> impl Iterator<Item = f64> {
        let length = match self {
            Self::Cosine => row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt(),
            Self::Euclidean => 1.0,
        };
        let scale = 1.0 / length.max(1e-12);
        row.iter().map(move |x| scale * f64::from(*x))
    }
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
    let space = Space::new(train, vote);
    let queries = space.place(test);
    // Labels are among their own classes.
    let column = |label: &u32| classes.binary_search(label).expect("a class of the labels");
    let columns: Vec<usize> = train.labels.iter().map(column).collect();
    let tasks = queries.par_chunks(TASK_ROWS * test.dim);
    let tasks = tasks.zip(test.rows.par_chunks(TASK_ROWS * test.dim)).map(|(queries, given)| {
        if stop() {
            return Vec::new();
        }
        let mut closeness = vec![0.0; queries.len() / test.dim * train.len()];
        space.panels.multiply(queries, &mut closeness); // [B,D] , [N,D] -> [B,N]
        let rows_of = closeness.chunks_exact_mut(train.len()).zip(queries.chunks_exact(test.dim));
        rows_of
            .zip(given.chunks_exact(test.dim))
            .flat_map(|((closeness, query), given)| {
                // |a - b|² falls as a·b - |b|²/2 grows.
                closeness.iter_mut().zip(&space.halves).for_each(|(c, half)| *c -= half);
                let query = (vote == Vote::Euclidean || !is_zero(given)).then_some(query);
                if query.is_none() {
                    // All cosines are 0.
                    closeness.fill(0.0);
                }
                let near = options.nearest(closeness);
                let weights = options.weights(&space, query, &near);
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

/// Training rows around their mean, where nearness is the Euclidean distance d whatever the vote: of unit
/// rows it is a cosine similarity of 1 - d²/2. An encoder's features have much in common; without what they
/// share, f32 tells apart what differs by a ten-millionth of it.
struct Space {
    vote: Vote,
    /// D
    dim: usize,
    mean: Vec<f64>,
    /// [N, D]
    rows: Vec<f32>,
    panels: Panels,
    /// |b|²/2 of each row.
    halves: Vec<f32>,
    /// Rows of zeros, whose cosine with any row is 0: d² = 2.
    zeros: Vec<bool>,
}

impl Space {
    fn new(train: &Features, vote: Vote) -> Self {
        let dim = train.dim;
        let mut space = Self {
            vote,
            dim,
            mean: vec![0.0; dim],
            rows: Vec::new(),
            panels: Panels::of_rows(&[], dim),
            halves: Vec::new(),
            zeros: train
                .rows
                .chunks_exact(dim)
                .map(|row| vote == Vote::Cosine && is_zero(row))
                .collect(),
        };
        for row in train.rows.chunks_exact(dim) {
            space.mean.iter_mut().zip(vote.scaled(row)).for_each(|(mean, x)| *mean += x);
        }
        space.mean.iter_mut().for_each(|mean| *mean /= train.len() as f64);
        space.rows = space.place(train);
        space.panels = Panels::of_rows(&space.rows, dim);
        let half = |row: &[f32]| 0.5 * row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        let halves = space.rows.chunks_exact(dim).zip(&space.zeros);
        let halves = halves.map(|(row, zero)| half(row) + if *zero { 0.5 } else { 0.0 });
        space.halves = halves.map(|half| half as f32).collect();
        space
    }

    /// Rows around the mean of the training rows, `[B, D]`.
    fn place(&self, features: &Features) -> Vec<f32> {
        let rows = features.rows.chunks_exact(self.dim);
        let around = |row| self.vote.scaled(row).zip(&self.mean).map(|(x, mean)| (x - mean) as f32);
        rows.flat_map(|row| around(row).collect::<Vec<_>>()).collect()
    }

    /// d² between training row `i` and a query `[D]`.
    fn square(&self, i: usize, query: &[f32]) -> f64 {
        let row = self.rows[i * self.dim..].iter().zip(query);
        let square: f64 = row.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
        square + if self.zeros[i] { 1.0 } else { 0.0 }
    }
}

fn is_zero(row: &[f32]) -> bool {
    row.iter().all(|x| *x == 0.0)
}

/// The classes that occur, ascending.
pub(super) fn classes(labels: &[u32]) -> Vec<u32> {
    let mut classes = labels.to_vec();
    classes.sort_unstable();
    classes.dedup();
    classes
}

impl KnnOptions {
    /// Refuses settings out of range.
    ///
    /// # Errors
    /// Which, and what is expected.
    pub fn check(&self) -> Result<()> {
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

    /// What the rows `near` the query `[D]` weigh, all alike if there is none: exp((s - s₀) / T) of cosines s, s₀ the nearest's, which
    /// gives the same ranks as exp(s / T) and does not overflow at a low temperature, or 1 / (d + T).
    fn weights(self, space: &Space, query: Option<&[f32]>, near: &[usize]) -> Vec<f64> {
        let Some(query) = query else { return vec![1.0; near.len()] };
        let squares: Vec<f64> = near.iter().map(|&i| space.square(i, query)).collect();
        let weight = |square: &f64| match space.vote {
            Vote::Cosine => (0.5 * (squares[0] - square) / self.temperature).exp(),
            Vote::Euclidean => 1.0 / (square.sqrt() + self.temperature),
        };
        squares.iter().map(weight).collect()
    }
}

/// The place of the largest value, the first of equal ones.
pub(super) fn first_largest<T: PartialOrd>(values: &[T]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}
