//! Numbers, comparisons and finite differences for the tests of kernels.

use super::Real;
use crate::random::Random;

/// Rows and widths: one, fewer than the lanes, exactly the lanes, and odd above them.
pub(crate) const SIZES: [(usize, usize); 9] =
    [(1, 1), (2, 5), (7, 16), (130, 1), (2, 385), (1, 192), (7, 385), (130, 96), (130, 385)];

/// Normal numbers, the same for the same seed.
pub(crate) fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut random = Random::new(seed, "test numbers", len as u64);
    (0..len).map(|_| random.normal()).collect()
}

/// The same numbers with 64 bits.
pub(crate) fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&v| f64::from(v)).collect()
}

/// Indices below `n`, with repeats.
pub(crate) fn indices(seed: u64, len: usize, n: usize) -> Vec<u32> {
    let mut random = Random::new(seed, "test indices", len as u64);
    (0..len).map(|_| random.below(n) as u32).collect()
}

/// |got - want| ≤ tolerance |want| as L2 norms. One hundredth per value is added to |want|, for
/// results that are zero except for rounding.
pub(crate) fn assert_close<T: Real>(name: &str, got: &[T], want: &[T], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{name}: lengths");
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
    let error = norm(&mut got.iter().zip(want).map(|(&g, &w)| g.f64() - w.f64()));
    let size = norm(&mut want.iter().map(|&w| w.f64())) + 0.01 * (want.len() as f64).sqrt();
    assert!(
        error <= tolerance * size,
        "{name}: relative error {:e} is over {tolerance:e}",
        error / size
    );
}

/// Slope of `f` at `x` along each axis, by central differences.
pub(crate) fn gradient(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-5;
    let at = |i: usize, step: f64| {
        let mut moved = x.to_vec();
        moved[i] += step;
        f(&moved)
    };
    (0..x.len()).map(|i| (at(i, step) - at(i, -step)) / (2.0 * step)).collect()
}
