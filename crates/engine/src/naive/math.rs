//! erf and GELU with 64 bits.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// erf(x) = 2/√π ∫₀ˣ e^(-t²) dt.
pub fn erf(x: f64) -> f64 {
    if x.abs() > 3.0 { x.signum() * (1.0 - erfc_fraction(x.abs())) } else { erf_series(x) }
}

/// 2/√π e^(-x²) Σ 2ⁿ x^(2n+1) / (1·3···(2n+1)). All terms have the same sign (Abramowitz and Stegun
/// 7.1.6).
fn erf_series(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    2.0 / PI.sqrt() * (-x * x).exp() * sum
}

/// e^(-x²)/√π / (x + (1/2)/(x + (2/2)/(x + (3/2)/(x + ...)))), x > 0 (Abramowitz and Stegun
/// 7.1.14).
fn erfc_fraction(x: f64) -> f64 {
    let fraction = (1..200).rev().fold(x, |rest, n| x + f64::from(n) / 2.0 / rest);
    (-x * x).exp() / PI.sqrt() / fraction
}

/// x Φ(x)
pub fn gelu_value(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x * FRAC_1_SQRT_2))
}

/// Φ(x) + x φ(x)
pub fn gelu_grad(x: f64) -> f64 {
    0.5 * (1.0 + erf(x * FRAC_1_SQRT_2)) + x * (-0.5 * x * x).exp() / (2.0 * PI).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_has_its_tabulated_values() {
        // Python 3.13, math.erf.
        for (x, want) in [
            (0.0, 0.0),
            (1e-3, 0.001_128_378_790_969_236_3),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (3.0, 0.999_977_909_503_001_4),
            (3.5, 0.999_999_256_901_627_7),
            (6.0, 1.0),
        ] {
            assert!((erf(x) - want).abs() < 1e-15, "erf({x}) = {}", erf(x));
            assert!((erf(-x) + want).abs() < 1e-15);
        }
        assert!((erf_series(3.0) - (1.0 - erfc_fraction(3.0))).abs() < 1e-15);
    }
}
