//! Multinomial logistic regression with an L2 penalty, fitted to its minimum.

use super::knn::classes;
use super::lbfgs::{Minimum, Objective, Stop, minimize};
use super::matrix::{Panels, multiply, multiply_transposed};
use super::symmetric::{cholesky, subtract};
use super::{Asked, Features, Scores};
use rayon::prelude::*;

/// Widths above this get no preconditioner: its Cholesky factor would take longer than it saves.
const MAX_FACTOR_DIM: usize = 2048; // (guess)
/// Rows of a partial sum of the loss.
const TASK_ROWS: usize = 256;

/// The model: logits = x Wᵀ + b.
#[derive(Clone, Debug)]
pub(super) struct Logistic {
    /// Wᵀ `[D, K]` and then b `[K]`, K classes.
    theta: Vec<f64>,
    /// The class that each of the K columns stands for, ascending.
    classes: Vec<u32>,
}

impl Logistic {
    /// W = 0, b = 0 for the classes that occur in `labels`.
    pub(super) fn zeros(labels: &[u32], dim: usize) -> Self {
        let classes = classes(labels);
        Self { theta: vec![0.0; (dim + 1) * classes.len()], classes }
    }

    /// Goes to the minimum for this penalty, from where it stands. The loss is mean cross-entropy +
    /// (l2 / 2) |W|²; b is free, as in scikit-learn, where C = 1 / (B l2).
    pub(super) fn fit(
        &mut self,
        train: &Features,
        gram: &Gram,
        l2: f64,
        stop: Stop<'_>,
    ) -> Minimum {
        let columns = train.labels.iter().map(|label| {
            // `zeros` was given labels among which these are.
            self.classes.binary_search(label).expect("a class of the model")
        });
        let loss = Loss {
            columns: columns.collect(),
            classes: self.classes.len(),
            factor: gram.factor(l2, self.classes.len()),
            train,
            l2,
            asked: stop.asked,
        };
        minimize(&loss, &mut self.theta, stop)
    }

    /// The logits of each row, `[B, K]`.
    pub(super) fn scores(&self, features: &Features, stop: Asked<'_>) -> Scores {
        let values = logits(&self.theta, features, self.classes.len(), stop);
        Scores { values, classes: self.classes.clone() }
    }
}

/// x Wᵀ + b: `[B, D] -> [B, K]`.
fn logits(theta: &[f64], features: &Features, k: usize, stop: Asked<'_>) -> Vec<f32> {
    let theta: Vec<f32> = theta.iter().map(|&w| w as f32).collect();
    let (w, b) = theta.split_at(features.dim * k);
    let mut logits = multiply(&features.rows, &Panels::of_columns(w, k), stop);
    logits.par_chunks_exact_mut(k).for_each(|row| {
        for (logit, b) in row.iter_mut().zip(b) {
            *logit += b;
        }
    });
    logits
}

/// The loss of one data set and penalty, as a function of theta.
struct Loss<'a> {
    train: &'a Features,
    columns: Vec<usize>, // [B]
    classes: usize,
    l2: f64,
    factor: Factor,
    asked: Asked<'a>,
}

impl Objective for Loss<'_> {
    /// The penalty's; b has none of its own, but its gradient counts in full.
    fn curvature(&self) -> f64 {
        self.l2
    }

    fn value_and_gradient(&self, theta: &[f64]) -> (f64, Vec<f64>) {
        let (k, dim, rows) = (self.classes, self.train.dim, self.train.len() as f64);
        let mut residual = logits(theta, self.train, k, self.asked);
        let tasks = residual.par_chunks_mut(TASK_ROWS * k);
        let losses = tasks.zip(self.columns.par_chunks(TASK_ROWS)).map(|(rows, columns)| {
            let rows = rows.chunks_exact_mut(k).zip(columns);
            rows.map(|(row, &column)| cross_entropy(row, column)).sum::<f64>()
        });
        let losses: Vec<f64> = losses.collect();
        // dW = Σ_b (p - y) xᵀ / B + l2 W ; db = Σ_b (p - y) / B
        let mut gradient = multiply_transposed(&self.train.rows, dim, &residual, k, self.asked);
        gradient.extend(column_sums(&residual, k));
        gradient.iter_mut().for_each(|g| *g /= rows);
        let weights = &theta[..dim * k];
        for (g, w) in gradient.iter_mut().zip(weights) {
            *g += self.l2 * w;
        }
        let penalty = 0.5 * self.l2 * weights.iter().map(|w| w * w).sum::<f64>();
        (losses.iter().sum::<f64>() / rows + penalty, gradient)
    }

    fn precondition(&self, gradient: &mut [f64]) {
        self.factor.solve(gradient, self.classes);
    }
}

/// -log p of the right class; the row of logits `[K]` becomes p - y.
fn cross_entropy(row: &mut [f32], column: usize) -> f64 {
    let largest = row.iter().fold(f32::NEG_INFINITY, |largest, &logit| largest.max(logit));
    let logit = f64::from(row[column] - largest);
    let mut sum = 0.0;
    for logit in row.iter_mut() {
        *logit = (*logit - largest).exp();
        sum += f64::from(*logit);
    }
    row.iter_mut().for_each(|p| *p = (f64::from(*p) / sum) as f32);
    row[column] -= 1.0;
    sum.ln() - logit
}

fn column_sums(rows: &[f32], k: usize) -> Vec<f64> {
    let mut sums = vec![0.0; k];
    for row in rows.chunks_exact(k) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += f64::from(*value);
        }
    }
    sums
}

/// G = xᵀ x / B `[D, D]` of standardised rows, from which comes the preconditioner.
pub(super) struct Gram {
    values: Option<Vec<f64>>,
    dim: usize,
}

impl Gram {
    pub(super) fn new(train: &Features, stop: Asked<'_>) -> Self {
        let (dim, rows) = (train.dim, train.len() as f64);
        let values = (dim <= MAX_FACTOR_DIM).then(|| {
            let mut gram = multiply_transposed(&train.rows, dim, &train.rows, dim, stop);
            gram.iter_mut().for_each(|g| *g /= rows);
            gram
        });
        Self { values, dim }
    }

    /// H₀ = G / K + l2 I: the Hessian at W = 0, where all K classes are equally likely. Measured on
    /// raw Fashion-MNIST (9,000 x 784, LOG.md): 364 iterations for the whole grid instead of 1,811.
    fn factor(&self, l2: f64, classes: usize) -> Factor {
        let (dim, bias) = (self.dim, 1.0 / classes as f64);
        let Some(gram) = &self.values else { return Factor { upper: None, dim, bias } };
        let mut upper: Vec<f64> = gram.iter().map(|g| g * bias).collect();
        for i in 0..dim {
            upper[i * dim + i] += l2;
        }
        cholesky(&mut upper, dim);
        Factor { upper: Some(upper), dim, bias }
    }
}

/// H₀ = Uᵀ U for the weights (or the identity), and its curvature for b.
struct Factor {
    upper: Option<Vec<f64>>, // [D, D], below the diagonal anything
    dim: usize,
    bias: f64,
}

impl Factor {
    /// H₀⁻¹ g in place, for the K columns of g `[D + 1, K]` at once.
    fn solve(&self, g: &mut [f64], k: usize) {
        let dim = self.dim;
        let Some(upper) = &self.upper else { return };
        g[dim * k..].iter_mut().for_each(|g| *g /= self.bias);
        // Uᵀ v = g, from the first row down.
        for i in 0..dim {
            let (done, rest) = g.split_at_mut((i + 1) * k);
            let row = &mut done[i * k..];
            row.iter_mut().for_each(|g| *g /= upper[i * dim + i]);
            for (u, rest) in upper[i * dim + i + 1..(i + 1) * dim].iter().zip(rest.chunks_mut(k)) {
                subtract(rest, *u, row);
            }
        }
        // U h = v, from the last row up.
        for i in (0..dim).rev() {
            let (above, done) = g.split_at_mut((i + 1) * k);
            let row = &mut above[i * k..];
            for (u, done) in upper[i * dim + i + 1..(i + 1) * dim].iter().zip(done.chunks(k)) {
                subtract(row, *u, done);
            }
            row.iter_mut().for_each(|g| *g /= upper[i * dim + i]);
        }
    }
}
