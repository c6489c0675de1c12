//! Principal components.

use super::symmetric::gram;
use super::{Error, Features, Result};
use engine::random::Random;

/// The directions in which rows differ most.
#[derive(Clone, Debug, PartialEq)]
pub struct Pca {
    /// D
    pub dim: usize,
    /// Mean of the rows [D].
    pub mean: Vec<f64>,
    /// Unit vectors [K, D], the largest variance first. The largest entry of each is positive.
    pub components: Vec<f64>,
    /// Variance along each [K], unbiased.
    pub variances: Vec<f64>,
}

/// Vectors iterated in addition to the requested ones. More of them speed up convergence.
const SPARE: usize = 8;
/// The largest number of rounds, and the share of a vector that may still change at the end.
const MOST_ROUNDS: usize = 500;
const SETTLED: f64 = 1e-13;

/// The first `count` principal components of rows [B, D], `count` ≤ D, as in scikit-learn's PCA.
/// They are eigenvectors of the covariance, found by subspace iteration (Golub and Van Loan 2013,
/// algorithm 8.2.4).
///
/// # Errors
/// No rows, and values that are not finite.
pub fn pca(features: &Features, count: usize) -> Result<Pca> {
    let (rows, dim) = (features.len(), features.dim);
    if rows == 0 || count == 0 || count > dim {
        return Err(Error::Empty { which: "features", rows, dim });
    }
    features.check("features")?;
    let mut mean = vec![0.0; dim];
    for row in features.rows.chunks_exact(dim) {
        mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    mean.iter_mut().for_each(|sum| *sum /= rows as f64);
    let centred: Vec<f64> = features
        .rows
        .chunks_exact(dim)
        .flat_map(|row| row.iter().zip(&mean).map(|(x, mean)| f64::from(*x) - mean))
        .collect();
    let mut covariance = gram(&centred, dim);
    let divisor = rows.saturating_sub(1).max(1) as f64;
    covariance.iter_mut().for_each(|x| *x /= divisor);
    let (components, variances) = leading(&covariance, dim, count);
    Ok(Pca { dim, mean, components, variances })
}

impl Pca {
    /// Projects a row [D] onto the components [K].
    pub fn project(&self, row: &[f32]) -> Vec<f64> {
        let along = |component: &[f64]| {
            let terms = row.iter().zip(&self.mean).zip(component);
            terms.map(|((x, mean), c)| (f64::from(*x) - mean) * c).sum()
        };
        self.components.chunks_exact(self.dim).map(along).collect()
    }
}

/// The leading eigenvectors [K, D] and eigenvalues of a symmetric matrix without negative
/// eigenvalues.
fn leading(a: &[f64], dim: usize, count: usize) -> (Vec<f64>, Vec<f64>) {
    let kept = (count + SPARE).min(dim);
    let mut random = Random::new(0, "pca", 0);
    let mut vectors: Vec<f64> = (0..kept * dim).map(|_| f64::from(random.normal())).collect();
    orthonormal(&mut vectors, dim);
    let mut values = vec![0.0; kept];
    for _ in 0..MOST_ROUNDS {
        let mut next: Vec<f64> = vectors.chunks_exact(dim).flat_map(|v| times(a, v)).collect();
        // Within the subspace the eigenvectors are found at once (Rayleigh and Ritz).
        let small: Vec<f64> = vectors
            .chunks_exact(dim)
            .flat_map(|v| next.chunks_exact(dim).map(|w| dot(v, w)).collect::<Vec<_>>())
            .collect();
        let (turn, found) = jacobi(small, kept);
        next = turned(&next, dim, &turn, kept);
        orthonormal(&mut next, dim);
        let old = turned(&vectors, dim, &turn, kept);
        let change = (0..count).map(|i| {
            let (a, b) = (&old[i * dim..(i + 1) * dim], &next[i * dim..(i + 1) * dim]);
            1.0 - dot(a, b).abs()
        });
        let settled = change.fold(0.0, f64::max) < SETTLED;
        (vectors, values) = (next, found);
        if settled {
            break;
        }
    }
    vectors.truncate(count * dim);
    values.truncate(count);
    for vector in vectors.chunks_exact_mut(dim) {
        let largest =
            vector.iter().copied().fold(0.0, |a: f64, b| if b.abs() > a.abs() { b } else { a });
        if largest < 0.0 {
            vector.iter_mut().for_each(|x| *x = -*x);
        }
    }
    (vectors, values.into_iter().map(|value| value.max(0.0)).collect())
}

fn times(a: &[f64], v: &[f64]) -> Vec<f64> {
    a.chunks_exact(v.len()).map(|row| dot(row, v)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Row i of the result is Σ_j turn_ji row_j.
fn turned(rows: &[f64], dim: usize, turn: &[f64], count: usize) -> Vec<f64> {
    let mut all = vec![0.0; count * dim];
    for (i, out) in all.chunks_exact_mut(dim).enumerate() {
        for (j, row) in rows.chunks_exact(dim).enumerate() {
            let share = turn[j * count + i];
            out.iter_mut().zip(row).for_each(|(out, x)| *out += share * x);
        }
    }
    all
}

/// Gram-Schmidt, applied twice to limit rounding. A row that becomes zero stays zero.
fn orthonormal(rows: &mut [f64], dim: usize) {
    for i in 0..rows.len() / dim {
        let (done, rest) = rows.split_at_mut(i * dim);
        let row = &mut rest[..dim];
        for _ in 0..2 {
            for other in done.chunks_exact(dim) {
                let share = dot(other, row);
                row.iter_mut().zip(other).for_each(|(x, o)| *x -= share * o);
            }
        }
        let length = dot(row, row).sqrt();
        if length > f64::MIN_POSITIVE {
            row.iter_mut().for_each(|x| *x /= length);
        }
    }
}

/// Eigenvectors (columns of [N, N]) and eigenvalues of a small symmetric matrix, the largest first,
/// by Jacobi's rotations (Golub and Van Loan 2013, algorithm 8.5.2).
fn jacobi(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut v = vec![0.0; n * n];
    (0..n).for_each(|i| v[i * n + i] = 1.0);
    for _ in 0..30 {
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut v, n, (p, q));
            }
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[j * n + j].total_cmp(&a[i * n + i]));
    let values = order.iter().map(|&i| a[i * n + i]).collect();
    let vectors = (0..n * n).map(|at| v[at / n * n + order[at % n]]).collect();
    (vectors, values)
}

/// Makes a_pq zero.
fn rotate(a: &mut [f64], v: &mut [f64], n: usize, (p, q): (usize, usize)) {
    let off = 0.5 * (a[p * n + q] + a[q * n + p]);
    if off.abs() < 1e-300 {
        return;
    }
    let tau = (a[q * n + q] - a[p * n + p]) / (2.0 * off);
    let t = tau.signum() / (tau.abs() + tau.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    for k in 0..n {
        let (x, y) = (a[k * n + p], a[k * n + q]);
        (a[k * n + p], a[k * n + q]) = (c * x - s * y, s * x + c * y);
    }
    for k in 0..n {
        let (x, y) = (a[p * n + k], a[q * n + k]);
        (a[p * n + k], a[q * n + k]) = (c * x - s * y, s * x + c * y);
        let (x, y) = (v[k * n + p], v[k * n + q]);
        (v[k * n + p], v[k * n + q]) = (c * x - s * y, s * x + c * y);
    }
}
