//! Labelled rows of numbers, and their standardisation.

use super::{Error, Result};

/// One row of D numbers per sample, and its class.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// Values `[B, D]`, row after row.
    pub rows: Vec<f32>,
    /// D
    pub dim: usize,
    /// Classes `[B]`.
    pub labels: Vec<u32>,
}

impl Features {
    /// B
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Row `i`, `[D]`.
    pub fn row(&self, i: usize) -> &[f32] {
        &self.rows[i * self.dim..(i + 1) * self.dim]
    }

    /// The rows of these indices, in this order: `[B, D], [K] -> [K, D]`.
    pub fn select(&self, index: &[usize]) -> Self {
        let rows = index.iter().flat_map(|&i| self.row(i)).copied().collect();
        let labels = index.iter().map(|&i| self.labels[i]).collect();
        Self { rows, dim: self.dim, labels }
    }

    /// Refuses an empty set, a ragged one and values that are not finite.
    pub(super) fn check(&self, which: &'static str) -> Result<()> {
        let Self { rows, dim, labels } = self;
        if labels.is_empty() || *dim == 0 {
            return Err(Error::Empty { which, rows: labels.len(), dim: *dim });
        }
        if rows.len() != labels.len() * dim {
            let (values, labels) = (rows.len(), labels.len());
            return Err(Error::Ragged { which, values, dim: *dim, labels });
        }
        match rows.iter().position(|value| !value.is_finite()) {
            Some(i) => {
                Err(Error::NotFinite { which, row: i / dim, column: i % dim, value: rows[i] })
            }
            None => Ok(()),
        }
    }
}

/// Checks each of a probe's two sets, and whether they fit together.
pub(super) fn check_pair(train: &Features, test: &Features) -> Result<()> {
    train.check("training features")?;
    test.check("test features")?;
    if train.dim != test.dim {
        return Err(Error::Widths { train: train.dim, test: test.dim });
    }
    Ok(())
}

/// If a column's deviation is below this share of its mean, it is only rounding of f32. Neighbours
/// in f32 are up to 1.2e-7 of their size apart. If the last two bits of values are rounding, they
/// deviate by 1.8e-7 at most.
const ROUNDING: f64 = 2e-7;
/// The largest standardised value. Logits stay finite in f32 even with weights ten million times as
/// large.
const LARGEST: f64 = 1e30;

/// Mean 0 and deviation 1 in each column of the set it was fitted on.
#[derive(Clone, Debug)]
pub struct Standardizer {
    mean: Vec<f64>,  // [D]
    scale: Vec<f64>, // [D], 1/σ
}

impl Standardizer {
    /// Reads mean and (biased) deviation of each column. A constant column keeps its scale.
    pub fn fit(features: &Features) -> Self {
        let rows = features.len() as f64;
        let sums =
            |term: &dyn Fn(usize, f64) -> f64| column_sums(&features.rows, features.dim, term);
        let mean = sums(&|_, x| x).iter().map(|sum| sum / rows).collect::<Vec<_>>();
        let squares = sums(&|d, x| (x - mean[d]).powi(2));
        let scale = squares.iter().zip(&mean).map(|(square, mean)| {
            let deviation = (square / rows).sqrt();
            if deviation <= ROUNDING * mean.abs() { 1.0 } else { 1.0 / deviation }
        });
        Self { scale: scale.collect(), mean }
    }

    /// x̂ = (x - μ)/σ: `[B, D] -> [B, D]`. A row too large for sums in f32 is scaled down towards
    /// the mean.
    pub fn apply(&self, features: &Features) -> Features {
        let rows = features.rows.chunks_exact(features.dim).flat_map(|row| self.standardized(row));
        Features { rows: rows.collect(), dim: features.dim, labels: features.labels.clone() }
    }

    fn standardized(&self, row: &[f32]) -> Vec<f32> {
        let columns = row.iter().zip(&self.mean).zip(&self.scale);
        let row: Vec<f64> =
            columns.map(|((x, mean), scale)| (f64::from(*x) - mean) * scale).collect();
        let largest = row.iter().fold(LARGEST, |largest, x| largest.max(x.abs()));
        // The whole row is scaled, which keeps its direction.
        row.iter().map(|x| (x * (LARGEST / largest)) as f32).collect()
    }
}

/// Σ_b term(d, x_bd) for rows `[B, D]`: `[D]`.
pub(super) fn column_sums(rows: &[f32], dim: usize, term: impl Fn(usize, f64) -> f64) -> Vec<f64> {
    let mut sums = vec![0.0; dim];
    for row in rows.chunks_exact(dim) {
        for (d, (sum, x)) in sums.iter_mut().zip(row).enumerate() {
            *sum += term(d, f64::from(*x));
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standardized_columns_have_mean_zero_and_deviation_one() {
        let rows = vec![1.0, 7.0, 100.0, 3.0, 7.0, 104.0, 8.0, 7.0, 90.0];
        let features = Features { rows, dim: 3, labels: vec![0, 1, 2] };
        let got = Standardizer::fit(&features).apply(&features);
        for d in 0..3 {
            let column = (0..3).map(|i| f64::from(got.row(i)[d])).collect::<Vec<_>>();
            let square = column.iter().map(|x| x * x).sum::<f64>() / 3.0;
            assert!(column.iter().sum::<f64>().abs() < 1e-6, "column {d}: {column:?}");
            let wanted = if d == 1 { 0.0 } else { 1.0 };
            assert!((square - wanted).abs() < 1e-6, "column {d}: {column:?}");
        }
    }

    #[test]
    fn a_column_that_differs_only_by_rounding_is_not_scaled_up() {
        // Neighbours in f32 that a sum in another order gives for the same feature.
        let next = f32::from_bits(0.1_f32.to_bits() + 1);
        let rows = vec![0.1, 1.0, next, 2.0, 0.1, 3.0, next, 4.0];
        let features = Features { rows, dim: 2, labels: vec![0, 1, 0, 1] };
        let got = Standardizer::fit(&features).apply(&features);
        for i in 0..4 {
            assert!(got.row(i)[0].abs() < 1e-7, "row {i}: {:?}", got.row(i));
            assert!(got.row(i)[1].abs() > 0.4, "row {i}: {:?}", got.row(i));
        }
    }

    #[test]
    fn a_nan_is_named_by_set_row_and_column() {
        let train = Features { rows: vec![0.0; 6], dim: 2, labels: vec![0, 1, 0] };
        let mut test = train.clone();
        test.rows[3] = f32::NAN;
        let message = check_pair(&train, &test).unwrap_err().to_string();
        assert!(message.starts_with("test features: row 1, column 1 is NaN"), "{message}");
    }

    #[test]
    fn sets_that_do_not_fit_are_refused() {
        let good = Features { rows: vec![0.0; 6], dim: 2, labels: vec![0, 1, 0] };
        let empty = Features { rows: vec![], dim: 2, labels: vec![] };
        let ragged = Features { labels: vec![0; 4], ..good.clone() };
        let wide = Features { rows: vec![0.0; 9], dim: 3, labels: vec![0; 3] };
        assert!(matches!(check_pair(&empty, &good), Err(Error::Empty { rows: 0, .. })));
        assert!(matches!(check_pair(&ragged, &good), Err(Error::Ragged { values: 6, .. })));
        assert!(matches!(check_pair(&good, &wide), Err(Error::Widths { train: 2, test: 3 })));
    }
}
