//! LiDAR: the number of directions that separate images, relative to how much views of one image
//! differ.

use super::symmetric::{cholesky, eigenvalues, gram, subtract};
use super::{Error, Features, Result};

/// Options of LiDAR.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LidarOptions {
    /// n: the largest number of images used.
    pub images: usize,
    /// q: rows of each image, one after the other.
    pub views: usize,
    /// δ, added to the diagonal of the covariance within images.
    pub delta: f64,
    /// ε, added to each eigenvalue.
    pub epsilon: f64,
}

impl Default for LidarOptions {
    /// As in stable-pretraining 0.1.8.
    fn default() -> Self {
        Self { images: 100, views: 10, delta: 1e-4, epsilon: 1e-8 }
    }
}

/// exp(-Σ p log p) with p = (λ + ε) / Σ (λ + ε) over the eigenvalues λ of Σw^-1/2 Σb Σw^-1/2. Σb is
/// the covariance of the images' means. Σw is that of views around their image's mean, plus δ I.
/// Thilak et al. 2023, eq. 1 to 4, as stable-pretraining 0.1.8 computes it.
///
/// Rows of `features` are views: the first q of one image, the next q of another. Rows of an
/// incomplete image and rows after n images are skipped. Labels are not read.
///
/// The result lies between 1 and min(n - 1, D). It is None if all rows are equal up to rounding:
/// nothing varies, so no direction separates the images. (The formula would give D, its best.)
///
/// # Errors
/// Features that are empty, ragged or not finite, fewer than two images, and fewer than two views.
pub fn lidar(features: &Features, options: LidarOptions) -> Result<Option<f64>> {
    features.check("features")?;
    let LidarOptions { views, delta, epsilon, .. } = options;
    let dim = features.dim;
    let images = options.images(features.len())?;
    let (means, residuals) = centered(features, images, views);
    let used = &features.rows[..images * views * dim];
    if is_constant(used, &means, &residuals, views) {
        return Ok(None);
    }
    let mut within = gram(&residuals, dim);
    within.iter_mut().for_each(|value| *value /= (images * (views - 1)) as f64);
    for d in 0..dim {
        within[d * dim + d] += delta;
    }
    cholesky(&mut within, dim);
    let spread = eigenvalues_of(whitened(means, &within, dim), dim, images);
    let values = spread.map(|value| value.max(0.0) / (images - 1) as f64 + epsilon);
    // The other directions have an eigenvalue of 0.
    let values: Vec<f64> = values.chain(std::iter::repeat(epsilon)).take(dim).collect();
    let sum: f64 = values.iter().sum();
    Ok(Some(values.iter().map(|value| value / sum).map(|p| -p * p.ln()).sum::<f64>().exp()))
}

/// Variation below this share of the rows' squares is rounding: f32 rounds to 6e-8, and 6e-8
/// squared is 4e-15.
const ROUNDING: f64 = 1e-12;

/// Whether all rows are equal up to rounding. `means` and `residuals` are those of [`centered`].
fn is_constant(rows: &[f32], means: &[f64], residuals: &[f64], views: usize) -> bool {
    let squares = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>();
    let whole: f64 = rows.iter().map(|&x| f64::from(x).powi(2)).sum();
    squares(means) * views as f64 + squares(residuals) <= ROUNDING * whole
}

impl LidarOptions {
    /// Number of images in `rows` rows.
    fn images(&self, rows: usize) -> Result<usize> {
        if self.views < 2 {
            let found = self.views.to_string();
            return Err(Error::Setting { setting: "views", found, expected: "2 or more" });
        }
        if !(self.delta > 0.0 && self.epsilon > 0.0) {
            let found = format!("{} and {}", self.delta, self.epsilon);
            let expected = "numbers above 0";
            return Err(Error::Setting { setting: "delta and epsilon", found, expected });
        }
        let images = self.images.min(rows / self.views);
        if images < 2 {
            return Err(Error::FewImages { images, rows, views: self.views });
        }
        Ok(images)
    }
}

/// The images' means minus their own mean `[n, D]`, and the views minus their image's mean `[n q,
/// D]`.
fn centered(features: &Features, images: usize, views: usize) -> (Vec<f64>, Vec<f64>) {
    let dim = features.dim;
    let rows: Vec<f64> =
        features.rows[..images * views * dim].iter().map(|&x| f64::from(x)).collect();
    let mean_of = |rows: &[f64]| {
        let mut mean = vec![0.0; dim];
        let share = 1.0 / (rows.len() / dim) as f64;
        rows.chunks_exact(dim).for_each(|row| subtract(&mut mean, -share, row));
        mean
    };
    let (mut means, mut residuals) = (Vec::with_capacity(images * dim), rows.clone());
    for (image, rows) in residuals.chunks_exact_mut(views * dim).zip(rows.chunks_exact(views * dim))
    {
        let mean = mean_of(rows);
        image.chunks_exact_mut(dim).for_each(|row| subtract(row, 1.0, &mean));
        means.extend(mean);
    }
    let middle = mean_of(&means);
    means.chunks_exact_mut(dim).for_each(|row| subtract(row, 1.0, &middle));
    (means, residuals)
}

/// x U⁻¹ `[n, D]` for rows x `[n, D]`. With Σw = Uᵀ U, its products have the eigenvalues of Σw^-1/2
/// Σb Σw^-1/2.
fn whitened(mut x: Vec<f64>, upper: &[f64], dim: usize) -> Vec<f64> {
    for row in x.chunks_exact_mut(dim) {
        for i in 0..dim {
            let (done, rest) = row.split_at_mut(i + 1);
            done[i] /= upper[i * dim + i];
            subtract(rest, done[i], &upper[i * dim + i + 1..(i + 1) * dim]);
        }
    }
    x
}

/// The eigenvalues of xᵀ x that may differ from 0, for x `[n, D]`.
fn eigenvalues_of(x: Vec<f64>, dim: usize, rows: usize) -> impl Iterator<Item = f64> {
    let side = rows.min(dim);
    let x = if rows < dim { transposed(&x, dim) } else { x };
    eigenvalues(gram(&x, side), side).into_iter()
}

/// `[n, D] -> [D, n]`
fn transposed(x: &[f64], dim: usize) -> Vec<f64> {
    (0..dim).flat_map(|d| x.iter().skip(d).step_by(dim)).copied().collect()
}
