//! How far features spread over the sphere, the simplest sign of collapse.

use super::features::column_sums;
use super::{Features, Result};

/// √D times the mean, over the D columns, of the (biased) deviation of rows divided by their
/// length. It is 1 if rows point equally in all directions, and 0 if all rows point in the same
/// direction. Chen and He 2021 (SimSiam), section 4.1. Its figure 2 compares the deviation with
/// 1/√D.
///
/// # Errors
/// Features that are empty, ragged or not finite.
pub fn feature_std(features: &Features) -> Result<f64> {
    features.check("features")?;
    let (rows, dim) = (features.len() as f64, features.dim);
    let unit = unit_rows(features);
    let means: Vec<f64> = column_sums(&unit, dim, |_, x| x).iter().map(|sum| sum / rows).collect();
    let squares = column_sums(&unit, dim, |d, x| (x - means[d]).powi(2));
    let deviations: f64 = squares.iter().map(|square| (square / rows).sqrt()).sum();
    Ok(deviations / (dim as f64).sqrt())
}

/// Each row divided by its length, `[B, D]`. A row of zeros stays zero.
fn unit_rows(features: &Features) -> Vec<f32> {
    let unit = |row: &[f32]| {
        let length = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let scale = 1.0 / length.max(1e-12);
        row.iter().map(|&x| (f64::from(x) * scale) as f32).collect::<Vec<_>>()
    };
    features.rows.chunks_exact(features.dim).flat_map(unit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::random::Random;

    fn features(rows: Vec<f32>, dim: usize) -> Features {
        Features { labels: vec![0; rows.len() / dim], rows, dim }
    }

    #[test]
    fn rows_in_all_directions_give_one_and_rows_in_one_direction_give_zero() {
        let mut random = Random::new(3, "spread test", 0);
        let everywhere: Vec<f32> = (0..4000 * 32).map(|_| random.normal()).collect();
        let got = feature_std(&features(everywhere.clone(), 32)).unwrap();
        assert!((got - 1.0).abs() < 0.01, "{got}");
        // Rows of any length on one ray.
        let ray = (0..64).flat_map(|i| [1.0, -2.0, 0.5].map(|x| x * (1 + i) as f32));
        let got = feature_std(&features(ray.collect(), 3)).unwrap();
        assert!(got < 1e-6, "{got}");
        // Two opposite rows: the deviation is |x_d| of the unit row.
        let got = feature_std(&features(vec![3.0, 4.0, -3.0, -4.0], 2)).unwrap();
        assert!((got - (0.6 + 0.8) / 2f64.sqrt()).abs() < 1e-6, "{got}");
    }
}
