//! RankMe: the number of directions that features use.

use super::symmetric::{eigenvalues, gram};
use super::{Features, Result};

/// Added to each share, as in the reference.
const EPSILON: f64 = 1e-5;

/// exp(-Σ p log p) with p = σ / Σ σ + 1e-5 over the singular values σ of features `[B, D]`, which
/// are not centred. Garrido et al. 2023, eq. 1 and 2, as stable-pretraining 0.1.8 computes it.
///
/// The result lies between about 1 (collapsed to a line) and about min(B, D). It can exceed that by
/// 6 % at 1,024, since the shares sum to more than 1 with the added constant. It is 0 if every
/// value is 0.
///
/// # Errors
/// Features that are empty, ragged or not finite.
pub fn rank_me(features: &Features) -> Result<f64> {
    features.check("features")?;
    let values = singular_values(features);
    let sum: f64 = values.iter().sum();
    if sum == 0.0 {
        return Ok(0.0);
    }
    let shares = values.iter().map(|value| value / sum + EPSILON);
    Ok(shares.map(|p| -p * p.ln()).sum::<f64>().exp())
}

/// The min(B, D) singular values, unsorted: roots of the eigenvalues of the smaller Gram matrix,
/// which f64 resolves to 1e-8 of the largest.
fn singular_values(features: &Features) -> Vec<f64> {
    let (rows, dim) = (features.len(), features.dim);
    let values: Vec<f64> = if rows < dim {
        let column = |d: usize| (0..rows).map(move |b| f64::from(features.rows[b * dim + d]));
        (0..dim).flat_map(column).collect() // xᵀ [D, B]
    } else {
        features.rows.iter().map(|&x| f64::from(x)).collect()
    };
    let side = rows.min(dim);
    // Rounding may make an eigenvalue of 0 slightly negative.
    eigenvalues(gram(&values, side), side).into_iter().map(|value| value.max(0.0).sqrt()).collect()
}
