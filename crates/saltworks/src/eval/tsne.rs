//! t-SNE: a map of rows in the plane that keeps near rows near.

use super::{Error, Features, Result, StopCheck, pca};
use rayon::prelude::*;

/// How the map is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TsneOptions {
    /// Effective neighbours of each row. Fewer if there are few rows.
    pub perplexity: f64,
    /// Number of steps.
    pub steps: usize,
}

impl Default for TsneOptions {
    /// Van der Maaten and Hinton 2008, section 3.4: perplexity 30, 1,000 steps.
    fn default() -> Self {
        Self { perplexity: 30.0, steps: 1000 }
    }
}

/// A map.
#[derive(Clone, Debug, PartialEq)]
pub struct Tsne {
    /// Position of each row [B].
    pub x: Vec<f32>,
    /// Position of each row [B].
    pub y: Vec<f32>,
    /// Σ p ln(p/q), which is minimised.
    pub kl_divergence: f64,
}

/// Steps in which P is exaggerated, and how much: scikit-learn, manifold/_t_sne.py.
const EXAGGERATED_STEPS: usize = 250;
const EXAGGERATION: f64 = 12.0;

/// Exact t-SNE of rows [B, D] (van der Maaten and Hinton 2008). It starts at the first two
/// principal components and uses scikit-learn's rates. A step costs B². The bits are the same for
/// any number of threads.
///
/// # Errors
/// Fewer than 5 rows, values that are not finite, and a stop by `stopped`.
pub fn tsne(features: &Features, options: TsneOptions, stopped: StopCheck<'_>) -> Result<Tsne> {
    let (rows, dim) = (features.len(), features.dim);
    if rows < 5 || dim < 2 {
        return Err(Error::Empty { which: "features", rows, dim });
    }
    let p = affinities(features, options.perplexity.min((rows - 1) as f64 / 3.0));
    let mut points = begin(features)?;
    let rate = (rows as f64 / EXAGGERATION / 4.0).max(50.0);
    let (mut speed, mut gains) = (vec![[0.0; 2]; rows], vec![[1.0; 2]; rows]);
    for step in 0..options.steps {
        if stopped() {
            return Err(Error::Stopped);
        }
        let early = step < EXAGGERATED_STEPS;
        let (scale, momentum) = if early { (EXAGGERATION, 0.5) } else { (1.0, 0.8) };
        let slopes = gradient(&p, &points, scale);
        for row in 0..rows {
            for axis in 0..2 {
                let (slope, speed, gain) =
                    (slopes[row][axis], &mut speed[row][axis], &mut gains[row][axis]);
                *gain = if slope * *speed < 0.0 { *gain + 0.2 } else { *gain * 0.8 };
                *gain = f64::max(*gain, 0.01);
                *speed = momentum * *speed - rate * *gain * slope;
                points[row][axis] += *speed;
            }
        }
    }
    let axis = |axis: usize| points.iter().map(|point| point[axis] as f32).collect();
    Ok(Tsne { x: axis(0), y: axis(1), kl_divergence: divergence(&p, &points) })
}

/// The first two principal components, scaled so that the first has deviation 1e-4, as in
/// scikit-learn.
fn begin(features: &Features) -> Result<Vec<[f64; 2]>> {
    let pca = pca(features, 2)?;
    let scale = 1e-4 / pca.variances[0].sqrt().max(1e-12);
    let point = |row: &[f32]| {
        let along = pca.project(row);
        [scale * along[0], scale * along[1]]
    };
    Ok(features.rows.chunks_exact(features.dim).map(point).collect())
}

/// p_ij [B, B], symmetric, with sum 1.
fn affinities(features: &Features, perplexity: f64) -> Vec<f64> {
    let (rows, dim) = (features.len(), features.dim);
    let row = |i: usize| &features.rows[i * dim..(i + 1) * dim];
    let mut p = vec![0.0; rows * rows];
    p.par_chunks_mut(rows).enumerate().for_each(|(i, out)| {
        for (j, out) in out.iter_mut().enumerate() {
            let apart = row(i).iter().zip(row(j));
            *out = apart.map(|(a, b)| f64::from(a - b).powi(2)).sum();
        }
        conditional(out, i, perplexity);
    });
    let mut joint = vec![0.0; rows * rows];
    joint.par_chunks_mut(rows).enumerate().for_each(|(i, out)| {
        for (j, out) in out.iter_mut().enumerate() {
            *out = ((p[i * rows + j] + p[j * rows + i]) / (2.0 * rows as f64)).max(1e-12);
        }
        out[i] = 0.0;
    });
    joint
}

/// Squared distances of row i -> p_j|i with an entropy of ln(perplexity). The width is found by
/// bisection.
fn conditional(distances: &mut [f64], i: usize, perplexity: f64) {
    let nearest = distances.iter().enumerate().filter(|(j, _)| *j != i);
    let nearest = nearest.map(|(_, d)| *d).fold(f64::INFINITY, f64::min);
    let (mut low, mut high, mut beta) = (0.0, f64::INFINITY, 1.0 / nearest.max(1e-12));
    let mut p = vec![0.0; distances.len()];
    for _ in 0..100 {
        let (mut sum, mut weighted) = (0.0, 0.0);
        for (j, (p, d)) in p.iter_mut().zip(&*distances).enumerate() {
            // The nearest row's weight is 1, so the sum is never 0.
            let d = d - nearest;
            *p = if j == i { 0.0 } else { (-beta * d).exp() };
            sum += *p;
            weighted += *p * d;
        }
        let entropy = f64::ln(sum) + beta * weighted / sum;
        p.iter_mut().for_each(|p| *p /= sum);
        let over = entropy - perplexity.ln();
        if over.abs() < 1e-6 {
            break;
        }
        if over > 0.0 {
            low = beta
        } else {
            high = beta
        }
        beta = if high.is_infinite() { 2.0 * beta } else { 0.5 * (low + high) };
    }
    distances.copy_from_slice(&p);
}

/// 4 Σ_j (scale p_ij - q_ij) (y_i - y_j) / (1 + |y_i - y_j|²).
fn gradient(p: &[f64], points: &[[f64; 2]], scale: f64) -> Vec<[f64; 2]> {
    let rows = points.len();
    let sums: Vec<f64> =
        points.par_iter().map(|a| points.iter().map(|b| near(a, b)).sum()).collect();
    // Each row has distance 0 to itself.
    let all = sums.iter().sum::<f64>() - rows as f64;
    let slope = |(i, a): (usize, &[f64; 2])| {
        let mut slope = [0.0; 2];
        for (b, p) in points.iter().zip(&p[i * rows..(i + 1) * rows]) {
            let near = near(a, b);
            let pull = 4.0 * (scale * p - near / all) * near;
            slope[0] += pull * (a[0] - b[0]);
            slope[1] += pull * (a[1] - b[1]);
        }
        slope
    };
    points.par_iter().enumerate().map(slope).collect()
}

fn near(a: &[f64; 2], b: &[f64; 2]) -> f64 {
    1.0 / (1.0 + (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2))
}

fn divergence(p: &[f64], points: &[[f64; 2]]) -> f64 {
    let rows = points.len();
    let pairs = || (0..rows).flat_map(|i| (0..rows).filter(move |j| *j != i).map(move |j| (i, j)));
    let all: f64 = pairs().map(|(i, j)| near(&points[i], &points[j])).sum();
    let term = |(i, j): (usize, usize)| {
        let p = p[i * rows + j];
        p * (p * all / near(&points[i], &points[j])).ln()
    };
    pairs().map(term).sum()
}
