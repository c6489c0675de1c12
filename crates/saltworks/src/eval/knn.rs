//! Weighted k-nearest-neighbour classification.

use super::features::check_pair;
use super::matrix::Panels;
use super::{Error, Features, Prediction, Result, Scores, StopCheck};
use rayon::prelude::*;

/// How neighbours vote.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KnnOptions {
    /// Neighbours that vote. All rows vote if there are fewer.
    pub k: usize,
    /// T in a vote's weight exp(similarity / T).
    pub temperature: f64,
}

impl Default for KnnOptions {
    /// As in DINO (Caron et al. 2021, eval_knn.py).
    fn default() -> Self {
        Self { k: 20, temperature: 0.07 }
    }
}

/// Test rows in a task. Their similarities to all training rows fit into memory.
const TASK_ROWS: usize = 32;

/// The measure of nearness, and the weight of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    /// Cosine similarity s, exp(s / T): Wu et al. 2018, as in DINO.
    Cosine,
    /// Euclidean distance d, 1 / (d + T): stable-pretraining's OnlineKNN.
    Euclidean,
}

impl Vote {
    /// A row as the vote uses it. For cosines it is divided by its length. A row of zeros stays
    /// zero.
    fn scaled(self, row: &[f32]) -> impl Iterator<Item = f64> {
        let length = match self {
            Self::Cosine => row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt(),
            Self::Euclidean => 1.0,
        };
        // In f64 the length of any other row is above 0.
        let length = if length > 0.0 { length } else { 1.0 };
        row.iter().map(move |x| f64::from(*x) / length)
    }
}

/// Gives each test row the class with the most votes among its k nearest training rows.
///
/// Nearness is the cosine similarity s = a·b / (|a| |b|), in f64 and without an ε beside the
/// lengths. A vote weighs exp(s/T). Of equally near rows the earlier one wins. Of classes with
/// equal votes the lower one wins.
pub fn knn(
    train: &Features,
    test: &Features,
    options: KnnOptions,
    stopped: StopCheck<'_>,
) -> Result<Prediction> {
    let classes = classes(&train.labels);
    let given = |votes: &[f64]| vec![classes[first_largest(votes)]];
    let labels = elect((train, &classes), test, (options, Vote::Cosine), stopped, &given)?;
    Ok(Prediction::new(labels, &test.labels))
}

/// The votes of each test row's k nearest training rows: as [`knn`], with the nearness of `vote`.
/// Exponential votes are relative to the nearest row's.
pub fn knn_scores(
    train: &Features,
    test: &Features,
    (options, vote): (KnnOptions, Vote),
    stopped: StopCheck<'_>,
) -> Result<Scores> {
    let classes = classes(&train.labels);
    let score = |&vote: &f64| if vote > 0.0 { vote as f32 } else { f32::NEG_INFINITY };
    let given = |votes: &[f64]| votes.iter().map(score).collect();
    let values = elect((train, &classes), test, (options, vote), stopped, &given)?;
    Ok(Scores { values, classes })
}

/// The values that `take` computes from the votes `[K]` on each test row, row after row.
fn elect<T: Send>(
    (train, classes): (&Features, &[u32]),
    test: &Features,
    (options, vote): (KnnOptions, Vote),
    stopped: StopCheck<'_>,
    take: &(dyn Fn(&[f64]) -> Vec<T> + Sync),
) -> Result<Vec<T>> {
    options.check()?;
    check_pair(train, test)?;
    let space = Space::new(train, vote);
    let queries = space.centred(test);
    // `classes` contains every training label.
    let column = |label: &u32| classes.binary_search(label).expect("a class of the labels");
    let columns: Vec<usize> = train.labels.iter().map(column).collect();
    let tasks = queries.par_chunks(TASK_ROWS * test.dim);
    let tasks = tasks.zip(test.rows.par_chunks(TASK_ROWS * test.dim)).map(|(queries, given)| {
        if stopped() {
            return Vec::new();
        }
        let mut closeness = vec![0.0; queries.len() / test.dim * train.len()];
        space.panels.multiply(queries, &mut closeness); // [B,D] , [N,D] -> [B,N]
        let rows_of = closeness.chunks_exact_mut(train.len()).zip(queries.chunks_exact(test.dim));
        rows_of
            .zip(given.chunks_exact(test.dim))
            .flat_map(|((closeness, query), given)| {
                // |a - b|² falls as a·b - |b|²/2 grows.
                closeness.iter_mut().zip(&space.halves).for_each(|(c, half)| *c -= *half as f32);
                let near = match vote == Vote::Cosine && is_zero(given) {
                    // All cosines are 0.
                    true => (0..options.k.min(train.len())).map(|i| (i, 0.0)).collect(),
                    false => space.nearest(options.k, closeness, query, given),
                };
                let mut votes = vec![0.0; classes.len()];
                for (&(i, square), nearest) in near.iter().zip(std::iter::repeat(near[0].1)) {
                    votes[columns[i]] += options.weight(vote, square, nearest);
                }
                take(&votes)
            })
            .collect()
    });
    let taken: Vec<Vec<T>> = tasks.collect();
    if stopped() {
        return Err(Error::Stopped);
    }
    Ok(taken.into_iter().flatten().collect())
}

/// Training rows. Nearness is the Euclidean distance d for both votes: the cosine similarity of
/// unit rows is 1 - d²/2. A product in f32 finds the rows that may be among the nearest, and f64
/// decides which ones are.
///
/// An encoder's features have much in common. Subtracting their mean and scaling by a power of two
/// lets products distinguish most rows and stay within the range of f32.
struct Space<'a> {
    vote: Vote,
    train: &'a Features,
    mean: Vec<f64>,
    /// A power of two.
    scale: f64,
    panels: Panels,
    /// |b| of each row around the mean.
    lengths: Vec<f64>,
    /// |b|²/2 of each row, plus half of what [`Space::beside`] adds.
    halves: Vec<f64>,
}

impl<'a> Space<'a> {
    fn new(train: &'a Features, vote: Vote) -> Self {
        let dim = train.dim;
        let mut mean = vec![0.0; dim];
        for row in train.rows.chunks_exact(dim) {
            mean.iter_mut().zip(vote.scaled(row)).for_each(|(mean, x)| *mean += x);
        }
        mean.iter_mut().for_each(|mean| *mean /= train.len() as f64);
        let panels = Panels::of_rows(&[], dim);
        let mut space =
            Self { vote, train, mean, scale: 1.0, panels, lengths: Vec::new(), halves: Vec::new() };
        let rows = train.rows.chunks_exact(dim).flat_map(|row| space.around(row));
        let largest = rows.fold(0.0, |largest: f64, x| largest.max(x.abs()));
        if largest > 0.0 {
            space.scale = (-largest.log2().floor()).exp2();
        }
        let rows = space.centred(train);
        space.panels = Panels::of_rows(&rows, dim);
        space.lengths = rows.chunks_exact(dim).map(length).collect();
        let halves = space.lengths.iter().zip(train.rows.chunks_exact(dim)).map(|(length, row)| {
            0.5 * (length * length + space.beside(row) * space.scale * space.scale)
        });
        space.halves = halves.collect();
        space
    }

    fn around(&self, row: &[f32]) -> impl Iterator<Item = f64> {
        self.vote.scaled(row).zip(&self.mean).map(|(x, mean)| self.scale * (x - mean))
    }

    /// Rows around the mean of the training rows, `[B, D]`.
    fn centred(&self, features: &Features) -> Vec<f32> {
        let rows = features.rows.chunks_exact(features.dim);
        rows.flat_map(|row| self.around(row)).map(|x| x as f32).collect()
    }

    /// The value added to a training row's d². A row of zeros has a cosine of 0 with every row, so
    /// d² = 2.
    fn beside(&self, row: &[f32]) -> f64 {
        if self.vote == Vote::Cosine && is_zero(row) { 1.0 } else { 0.0 }
    }

    /// The `k` training rows nearest to a row `given` `[D]`, with d² of each, the nearest first.
    /// `query` is that row centred, and `closeness` `[N]` its f32 products.
    fn nearest(
        &self,
        k: usize,
        closeness: &[f32],
        query: &[f32],
        given: &[f32],
    ) -> Vec<(usize, f64)> {
        let given: Vec<f64> = self.vote.scaled(given).collect();
        let square = |i: usize| {
            let row = self.train.row(i);
            let differences = self.vote.scaled(row).zip(&given).map(|(a, b)| (a - b).powi(2));
            (i, differences.sum::<f64>() + self.beside(row))
        };
        let mut near: Vec<_> = self.candidates(k, closeness, query).map(square).collect();
        near.sort_unstable_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        near.truncate(k);
        near
    }

    /// The rows that may be among the `k` nearest. Their upper bound of closeness reaches the k-th
    /// largest lower bound. A sum of D products in f32 has an error of up to D u |a| |b|, u = ε/2
    /// (Higham 2002, eq. 3.5). Its rounded factors, |b|²/2 and the difference add a few u: (D + 8)
    /// u in all. The bound here is twice that.
    fn candidates(
        &self,
        k: usize,
        closeness: &[f32],
        query: &[f32],
    ) -> impl Iterator<Item = usize> {
        let share = (self.train.dim + 8) as f64 * f64::from(f32::EPSILON);
        let query = length(query);
        let bounds = closeness.iter().zip(&self.lengths).zip(&self.halves);
        let bounds = bounds.map(move |((closeness, length), half)| {
            let off = share * (query * length + half) + TINY;
            (f64::from(*closeness) - off, f64::from(*closeness) + off)
        });
        let mut least: Vec<f64> = bounds.clone().map(|(least, _)| least).collect();
        // If a query's products are not finite, every row may be near.
        let known = k < least.len() && closeness.iter().all(|c| c.is_finite());
        let kth = match known {
            true => *least.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1,
            false => f64::NEG_INFINITY,
        };
        let kept = bounds.enumerate().filter(move |(_, (_, most))| !known || *most >= kth);
        kept.map(|(i, _)| i)
    }
}

/// The error of products that are too small for f32.
const TINY: f64 = 1e-30;

/// |x| `[D]`
fn length(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
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
    /// The setting that is out of range, and what is expected.
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

    /// The weight of a row at a distance d from the query, given d². For cosines s it is exp((s -
    /// s₀) / T), where s₀ is the nearest row's cosine. This gives the same ranking as exp(s / T),
    /// and does not overflow at a low temperature. For distances it is 1 / (d + T).
    fn weight(self, vote: Vote, square: f64, nearest: f64) -> f64 {
        match vote {
            Vote::Cosine => (0.5 * (nearest - square) / self.temperature).exp(),
            Vote::Euclidean => 1.0 / (square.sqrt() + self.temperature),
        }
    }
}

/// The index of the largest value. Of equal values it is the first.
pub(super) fn first_largest<T: PartialOrd>(values: &[T]) -> usize {
    (1..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best })
}
