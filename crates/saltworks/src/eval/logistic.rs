//! Multinomial logistic regression with an L2 penalty, fitted to its minimum.

use super::knn::classes;
use super::lbfgs::{Minimum, Objective, StopRule, dot, minimize};
use super::matrix::{Panels, multiply, multiply_transposed};
use super::symmetric::{cholesky, subtract};
use super::{Features, Scores, StopCheck};
use rayon::prelude::*;

/// Wider features get no preconditioner, because its Cholesky factor would cost more time than it
/// saves.
const MAX_FACTOR_DIM: usize = 2048; // (guess)
/// Steps towards the best b.
const BIAS_STEPS: usize = 100; // (guess)
/// Rows of a partial sum of the loss.
const TASK_ROWS: usize = 256;

/// The model: logits = x Wᵀ + b.
#[derive(Clone, Debug)]
pub(super) struct Logistic {
    /// Wᵀ `[D, K]` and then b `[K]`, K classes.
    theta: Vec<f64>,
    /// The class of each of the K columns, ascending.
    classes: Vec<u32>,
}

impl Logistic {
    /// Starts at W = 0, and b is the logarithm of each class's share of `labels`. This is the best
    /// model without features.
    pub(super) fn new(labels: &[u32], dim: usize) -> Self {
        let mut model = Self { theta: Vec::new(), classes: classes(labels) };
        let shares = shares(&model.columns(labels), model.classes.len());
        model.theta = vec![0.0; dim * shares.len()];
        model.theta.extend(shares.iter().map(|share| share.ln()));
        model
    }

    /// The column of each label's class.
    fn columns(&self, labels: &[u32]) -> Vec<usize> {
        // `new` received labels that contain all of these.
        let column = |label| self.classes.binary_search(label).expect("a class of the model");
        labels.iter().map(column).collect()
    }

    /// Moves to the minimum for this penalty. The loss is mean cross-entropy + (l2 / 2) |W|². b has
    /// no penalty, as in scikit-learn, whose C is 1 / (B l2).
    pub(super) fn fit(
        &mut self,
        train: &Features,
        gram: &Gram,
        l2: f64,
        stop: StopRule<'_>,
    ) -> Minimum {
        let columns = self.columns(&train.labels);
        let shares = shares(&columns, self.classes.len());
        let loss = PenalisedLoss {
            classes: shares.len(),
            factor: gram.factor(l2, &shares),
            sums: class_sums(train, &columns, shares.len()),
            shares,
            columns,
            train,
            l2,
            stopped: stop.stopped,
        };
        minimize(&loss, &mut self.theta, stop)
    }

    /// The logits of each row, `[B, K]`.
    pub(super) fn scores(&self, features: &Features, stopped: StopCheck<'_>) -> Scores {
        let (w, b) = self.theta.split_at(self.theta.len() - self.classes.len());
        let mut values = products(w, features, b.len(), stopped);
        for logits in values.chunks_exact_mut(b.len()) {
            logits.iter_mut().zip(b).for_each(|(logit, b)| *logit = (f64::from(*logit) + b) as f32);
        }
        Scores { values, classes: self.classes.clone() }
    }
}

/// x Wᵀ: `[B, D], [D, K] -> [B, K]`.
fn products(w: &[f64], features: &Features, k: usize, stopped: StopCheck<'_>) -> Vec<f32> {
    let w: Vec<f32> = w.iter().map(|&w| w as f32).collect();
    multiply(&features.rows, &Panels::of_columns(&w, k), stopped)
}

/// Each class's share of the rows, π `[K]`.
fn shares(columns: &[usize], k: usize) -> Vec<f64> {
    let mut shares = vec![0.0; k];
    columns.iter().for_each(|&column| shares[column] += 1.0);
    shares.iter_mut().for_each(|share| *share /= columns.len() as f64);
    shares
}

/// xᵀ y / B `[D, K]`. y has a one in the column of each row's class.
fn class_sums(train: &Features, columns: &[usize], k: usize) -> Vec<f64> {
    let mut sums = vec![0.0; train.dim * k];
    for (row, column) in train.rows.chunks_exact(train.dim).zip(columns) {
        for (sums, x) in sums.chunks_exact_mut(k).zip(row) {
            sums[*column] += f64::from(*x);
        }
    }
    sums.iter_mut().for_each(|sum| *sum /= columns.len() as f64);
    sums
}

/// The loss of one data set and penalty, as a function of theta.
struct PenalisedLoss<'a> {
    train: &'a Features,
    columns: Vec<usize>, // [B]
    shares: Vec<f64>,    // π, [K]
    sums: Vec<f64>,      // xᵀ y / B, [D, K]
    classes: usize,
    l2: f64,
    factor: Factor,
    stopped: StopCheck<'a>,
}

impl Objective for PenalisedLoss<'_> {
    fn value_and_gradient(&self, theta: &[f64]) -> (f64, Vec<f64>) {
        let (k, dim, rows) = (self.classes, self.train.dim, self.train.len() as f64);
        let (w, b) = theta.split_at(dim * k);
        let mut residual = products(w, self.train, k, self.stopped);
        let (loss, db) = cross_entropy(&mut residual, b, &self.columns);
        // dW = Σ_b (p - y) xᵀ / B + l2 W ; db = Σ_b (p - y) / B
        let mut gradient = multiply_transposed(&self.train.rows, dim, &residual, k, self.stopped);
        for (g, w) in gradient.iter_mut().zip(w) {
            *g = *g / rows + self.l2 * w;
        }
        gradient.extend(db);
        (loss + 0.5 * self.l2 * dot(w, w), gradient)
    }

    /// The duality gap (Boyd and Vandenberghe 2004, section 5.5.1). Take any probabilities q `[B,
    /// K]` whose sums over rows equal those of the labels y. The minimum is at least
    ///
    /// mean H(q) - |mean (q - y) xᵀ|² / (2 l2), which is the loss minus (mean KL(q ‖ p) + |∇_W +
    /// mean (q - p) xᵀ|² / (2 l2)).
    ///
    /// The model's p have those sums if b is optimal. q = (1 - t) p + t r has them for any b
    /// ([`mixture`]). KL is convex: KL(q ‖ p) ≤ t KL(r ‖ p).
    fn above(&self, theta: &[f64], value: f64, gradient: &[f64]) -> f64 {
        let (k, l2) = (self.classes, self.l2);
        let (w, b) = theta.split_at(self.train.dim * k);
        let (dw, db) = gradient.split_at(w.len());
        let (t, r) = mixture(&self.shares, db);
        let mut square = 0.0;
        let columns = w.chunks_exact(k).zip(dw.chunks_exact(k)).zip(self.sums.chunks_exact(k));
        for ((w, dw), sums) in columns {
            let mean: f64 = sums.iter().sum(); // of x
            for (((w, dw), sum), r) in w.iter().zip(dw).zip(sums).zip(&r) {
                // mean p xᵀ = dW - l2 W + mean y xᵀ
                square += (dw + t * (r * mean - (dw - l2 * w + sum))).powi(2);
            }
        }
        let entropy = value - 0.5 * l2 * dot(w, w);
        t * self.means(w).divergence(&r, b, entropy + dot(b, &self.shares)) + square / (2.0 * l2)
    }

    /// |∇_W|² / (2 l2), as if b were optimal (Boyd and Vandenberghe 2004, eq. 9.9), plus Σ_k db² /
    /// (2 π), the gain of a step of only b.
    fn guess(&self, _: &[f64], _: f64, gradient: &[f64]) -> f64 {
        let (dw, db) = gradient.split_at(self.train.dim * self.classes);
        let gain: f64 = db.iter().zip(&self.shares).map(|(db, share)| db * db / share).sum();
        0.5 * (dot(dw, dw) / self.l2 + gain)
    }

    /// Sets b to the optimum for its W.
    fn settle(&self, theta: &mut Vec<f64>, gap: f64) {
        let mut b = theta.split_off(self.train.dim * self.classes);
        let products = products(theta, self.train, self.classes, self.stopped);
        let bias = Bias { loss: self, means: self.means(theta), products };
        // A tenth of the gap is left to b.
        let stop = StopRule { gap: 0.1 * gap, iterations: BIAS_STEPS, stopped: self.stopped };
        minimize(&bias, &mut b, stop);
        theta.extend(b);
    }

    fn precondition(&self, gradient: &mut [f64]) {
        self.factor.solve(gradient, self.classes);
    }
}

/// The smallest t and a distribution r `[K]` that correct a mean of probabilities π + e, which
/// exceeds the shares π by e: (1 - t) (π + e) + t r = π.
fn mixture(shares: &[f64], excess: &[f64]) -> (f64, Vec<f64>) {
    let of_mean = shares.iter().zip(excess).map(|(share, e)| e / (share + e));
    let t = of_mean.fold(0.0, f64::max);
    if t == 0.0 {
        return (t, shares.to_vec());
    }
    // Only rounding can make it less than 0, as t is the largest e / (π + e).
    let r = shares.iter().zip(excess).map(|(share, e)| (share + e - e / t).max(0.0));
    (t, r.collect())
}

impl PenalisedLoss<'_> {
    fn means(&self, w: &[f64]) -> Means {
        let mut logits = vec![0.0; self.classes];
        for (w, sums) in w.chunks_exact(self.classes).zip(self.sums.chunks_exact(self.classes)) {
            let mean: f64 = sums.iter().sum(); // of x
            logits.iter_mut().zip(w).for_each(|(logit, w)| *logit += w * mean);
        }
        Means { right: dot(w, &self.sums), logits }
    }
}

/// Means over rows of the logits x Wᵀ, of the right class and of each class `[K]`.
struct Means {
    right: f64,
    logits: Vec<f64>,
}

impl Means {
    /// Mean KL(r ‖ p) of a distribution r `[K]`. `entropy` is the mean of log Σ exp minus that of
    /// `right`.
    fn divergence(&self, r: &[f64], b: &[f64], entropy: f64) -> f64 {
        let terms = r.iter().zip(&self.logits).zip(b).filter(|((r, _), _)| **r > 0.0);
        let terms = terms.map(|((r, logit), b)| r * (r.ln() - logit - b));
        // It is less than 0 only by rounding.
        (entropy + self.right + terms.sum::<f64>()).max(0.0)
    }
}

/// The cross-entropy as a function of b for a fixed W.
struct Bias<'a> {
    loss: &'a PenalisedLoss<'a>,
    means: Means,
    products: Vec<f32>, // x Wᵀ, [B, K]
}

impl Objective for Bias<'_> {
    fn value_and_gradient(&self, b: &[f64]) -> (f64, Vec<f64>) {
        cross_entropy(&mut self.products.clone(), b, &self.loss.columns)
    }

    /// As in [`PenalisedLoss`], without the terms of W.
    fn above(&self, b: &[f64], value: f64, gradient: &[f64]) -> f64 {
        let (t, r) = mixture(&self.loss.shares, gradient);
        t * self.means.divergence(&r, b, value + dot(b, &self.loss.shares))
    }

    fn precondition(&self, gradient: &mut [f64]) {
        gradient.iter_mut().zip(&self.loss.shares).for_each(|(g, share)| *g /= share);
    }
}

/// The means over rows of -log p of the right class and of p - y `[K]`. Logits without b `[B, K]`
/// become p - y.
fn cross_entropy(logits: &mut [f32], b: &[f64], columns: &[usize]) -> (f64, Vec<f64>) {
    let k = b.len();
    let tasks = logits.par_chunks_mut(TASK_ROWS * k).zip(columns.par_chunks(TASK_ROWS));
    let tasks = tasks.map(|(rows, columns)| {
        let (mut loss, mut sums, mut row) = (0.0, vec![0.0; k], vec![0.0; k]);
        for (logits, &column) in rows.chunks_exact_mut(k).zip(columns) {
            let terms = logits.iter().zip(b).map(|(logit, b)| f64::from(*logit) + b);
            row.iter_mut().zip(terms).for_each(|(row, logit)| *row = logit);
            loss += residual(&mut row, column);
            sums.iter_mut().zip(&row).for_each(|(sum, residual)| *sum += residual);
            logits.iter_mut().zip(&row).for_each(|(logit, residual)| *logit = *residual as f32);
        }
        (loss, sums)
    });
    let (mut loss, mut sums, rows) = (0.0, vec![0.0; k], columns.len() as f64);
    for (part, of_part) in tasks.collect::<Vec<_>>() {
        loss += part / rows;
        sums.iter_mut().zip(of_part).for_each(|(sum, part)| *sum += part / rows);
    }
    (loss, sums)
}

/// -log p of the right class. The row of logits `[K]` becomes p - y.
fn residual(row: &mut [f64], column: usize) -> f64 {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let logit = row[column] - largest;
    row.iter_mut().for_each(|logit| *logit = (*logit - largest).exp());
    // p - 1 of the right class is minus the sum of the others. If p is near 1, the difference would
    // have no digits left.
    row[column] = 0.0;
    let others: f64 = row.iter().sum();
    let sum = others + logit.exp();
    row.iter_mut().for_each(|p| *p /= sum);
    row[column] = -others / sum;
    sum.ln() - logit
}

/// G = xᵀ x / B `[D, D]` of standardised rows. The preconditioner is computed from it.
pub(super) struct Gram {
    values: Option<Vec<f64>>,
    dim: usize,
}

impl Gram {
    pub(super) fn new(train: &Features, stopped: StopCheck<'_>) -> Self {
        let (dim, rows) = (train.dim, train.len() as f64);
        let values = (dim <= MAX_FACTOR_DIM).then(|| {
            let mut gram = multiply_transposed(&train.rows, dim, &train.rows, dim, stopped);
            gram.iter_mut().for_each(|g| *g /= rows);
            gram
        });
        Self { values, dim }
    }

    /// H₀ = G / K + l2 I: the Hessian at W = 0, where all K classes are equally likely. Measured on
    /// raw Fashion-MNIST (9,000 x 784, LOG.md): 364 iterations for the whole grid instead of 1,811.
    ///
    /// For b it is the shares π. The Hessian at W = 0 and b = log π is diag π - π πᵀ. Gradients sum
    /// to 0, so g / π solves it.
    fn factor(&self, l2: f64, shares: &[f64]) -> Factor {
        let (dim, classes) = (self.dim, shares.len() as f64);
        let Some(gram) = &self.values else {
            let bias = shares.iter().map(|share| share * classes).collect();
            return Factor { upper: None, dim, bias };
        };
        let mut upper: Vec<f64> = gram.iter().map(|g| g / classes).collect();
        for i in 0..dim {
            upper[i * dim + i] += l2;
        }
        cholesky(&mut upper, dim);
        Factor { upper: Some(upper), dim, bias: shares.to_vec() }
    }
}

/// H₀ = Uᵀ U for the weights, or the identity. H₀ for b is a diagonal.
struct Factor {
    upper: Option<Vec<f64>>, // [D, D], undefined below the diagonal
    dim: usize,
    bias: Vec<f64>, // [K]
}

impl Factor {
    /// H₀⁻¹ g in place, for the K columns of g `[D + 1, K]` at once.
    fn solve(&self, g: &mut [f64], k: usize) {
        let dim = self.dim;
        g[dim * k..].iter_mut().zip(&self.bias).for_each(|(g, bias)| *g /= bias);
        let Some(upper) = &self.upper else { return };
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
