//! A straight line through points, and how much of their spread it explains.

use serde::Serialize;

/// y = intercept + slope x by least squares.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// Number of points.
    pub n: usize,
    /// Change of y with x.
    pub slope: f64,
    /// y at x = 0.
    pub intercept: f64,
    /// R² = 1 - Σ(y - ŷ)² / Σ(y - ȳ)²: the paper's measure for student loss and accuracy (SALT,
    /// section 4).
    pub r_squared: f64,
}

/// The line through the points (x, y). `None` if x or y does not vary, or for fewer than three
/// points: any two lie on a line.
pub fn fit(points: &[(f64, f64)]) -> Option<Fit> {
    let n = points.len() as f64;
    if points.len() < 3 {
        return None;
    }
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let sum = |term: &dyn Fn(f64, f64) -> f64| -> f64 {
        points.iter().map(|point| term(point.0 - x, point.1 - y)).sum()
    };
    let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
    if !(xx > 0.0 && yy > 0.0) {
        return None;
    }
    let slope = xy / xx;
    Some(Fit { n: points.len(), slope, intercept: y - slope * x, r_squared: xy * xy / (xx * yy) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_the_one_numpy_finds() {
        // numpy.polyfit(x, y, 1) and numpy.corrcoef(x, y)[0, 1] ** 2, numpy 2.4.6.
        let x = [0.80, 0.50, 0.40, 0.35, 0.31, 0.30];
        let y = [0.45, 0.58, 0.60, 0.66, 0.65, 0.69];
        let points: Vec<(f64, f64)> = x.into_iter().zip(y).collect();
        let found = fit(&points).unwrap();
        assert_eq!(found.n, 6);
        let near = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-8, "{found}");
        near(found.slope, -0.444_981_41);
        near(found.intercept, 0.802_275_09);
        near(found.r_squared, 0.961_015_337_716_496);
    }

    #[test]
    fn too_few_points_and_points_that_do_not_vary_have_no_line() {
        assert_eq!(fit(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(fit(&[(0.0, 1.0); 5]), None);
        assert_eq!(fit(&[(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)]), None);
        assert_eq!(fit(&[(0.0, f64::NAN), (1.0, 1.0), (2.0, 1.0)]), None);
    }
}
