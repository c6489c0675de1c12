//! 2ˣ and GELU as straight-line code, so that a loop over them becomes vector code.
//!
//! There is no table and no branch: every lane executes the same operations. Errors are relative to
//! f64 and checked by the tests below.

/// x y + z, with one rounding if `fused`. It is a constant, so the compiler removes the branch.
#[inline(always)]
fn multiply_add(x: f32, y: f32, z: f32, fused: bool) -> f32 {
    if fused { x.mul_add(y, z) } else { x * y + z }
}

/// The polynomial with these coefficients, the highest power first.
#[inline(always)]
fn polynomial<const COUNT: usize>(coefficients: [f32; COUNT], x: f32, fused: bool) -> f32 {
    let mut p = coefficients[0];
    for coefficient in &coefficients[1..] {
        p = multiply_add(p, x, *coefficient, fused);
    }
    p
}

/// Where [`exp2`] becomes 0: at -64, far below half a unit in the last place of a sum that contains
/// a weight of 1. So the product of a result with any factor above 2⁻⁶² is no subnormal number:
/// those cost a hundred cycles each on some CPUs.
const EXP2_FLOOR: f32 = -64.0;

/// 2ˣ for x ≤ 127, relative error below 2e-7; 0 for x < -64.
///
/// x = n + r with |r| ≤ ½. 2ʳ is a polynomial of degree 6 (Cephes exp2f), multiplied by 2ⁿ.
#[inline(always)]
pub(crate) fn exp2(x: f32, fused: bool) -> f32 {
    // 1.5 · 2²³. Adding it rounds to an integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const COEFFICIENTS: [f32; 7] = [
        1.535_336_2e-4,
        1.339_887_4e-3,
        9.618_437e-3,
        5.550_332_5e-2,
        2.402_264_8e-1,
        6.931_472e-1,
        1.0,
    ];
    // Unlike f32::max, this keeps a NaN.
    let vanishes = x < EXP2_FLOOR;
    let x = if vanishes { EXP2_FLOOR } else { x };
    let shifted = x + ROUND;
    let r = x - (shifted - ROUND);
    let p = polynomial(COEFFICIENTS, r, fused);
    // The integer in the low bits moves into the exponent, whose bias is 127.
    let power = (shifted.to_bits() << 23).wrapping_add(127 << 23);
    let y = p * f32::from_bits(power);
    if vanishes { 0.0 } else { y }
}

/// Φ(-t) = ½ erfc(t/√2) for t ≥ 0, absolute error below 2e-7, decreasing with Φ.
///
/// The base-2 logarithm of Φ(-t) is nearly a parabola. It is a polynomial of degree 8, fitted on
/// [0, 6]. The error of t Φ(-t) is at most 6e-8 (weighted minimax by Lawson's iteration against
/// f64). The first coefficient is negative, so outside [0, 6] the polynomial tends to -∞ and the
/// result to 0.
#[inline(always)]
fn normal_tail(t: f32, fused: bool) -> f32 {
    const COEFFICIENTS: [f32; 9] = [
        -1.423_154_2e-6,
        2.193_721_2e-5,
        -1.009_119_2e-4,
        -3.473_623_6e-4,
        7.339_561_4e-3,
        -5.268_101_8e-2,
        -4.591_543e-1,
        -1.151_109_5,
        -0.999_999_94,
    ];
    exp2(polynomial(COEFFICIENTS, t, fused), fused)
}

/// x Φ(x) = ½ x (1 + erf(x/√2)), absolute error below 1e-7 + 1e-7 |x|.
///
/// Computed as max(x, 0) - |x| Φ(-|x|), so nothing cancels if x is negative.
#[inline(always)]
pub(crate) fn gelu(x: f32, fused: bool) -> f32 {
    let t = x.abs();
    let positive = if x < 0.0 { 0.0 } else { x };
    positive - t * normal_tail(t, fused)
}

/// [`gelu`] of x with the same bits, and its slope Φ(x) + x φ(x).
#[inline(always)]
pub(crate) fn gelu_and_grad(x: f32, fused: bool) -> (f32, f32) {
    const INV_SQRT_TAU: f32 = 0.398_942_3;
    let t = x.abs();
    let tail = normal_tail(t, fused);
    let (positive, cdf) = if x < 0.0 { (0.0, tail) } else { (x, 1.0 - tail) };
    let density = INV_SQRT_TAU * exp2(x * x * (-0.5 * std::f32::consts::LOG2_E), fused);
    (positive - t * tail, multiply_add(x, density, cdf, fused))
}

/// σ(x) = 1/(1 + e⁻ˣ), relative error below 4e-6 where it is above 2⁻⁶⁴. Below, it is 0.
#[inline(always)]
pub(crate) fn sigmoid(x: f32, fused: bool) -> f32 {
    let small = exp2(-x.abs() * std::f32::consts::LOG2_E, fused);
    let share = if x < 0.0 { small } else { 1.0 };
    share / (1.0 + small)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf by its series: all terms in f64, |x| < 6.
    fn erf(x: f64) -> f64 {
        // erf x = 2/√π e^(-x²) Σ 2ⁿ x^(2n+1) / (1·3·…·(2n+1)): no term is negative.
        let mut term = x;
        let mut sum = 0.0;
        for n in 0..400 {
            sum += term;
            term *= 2.0 * x * x / f64::from(2 * n + 3);
        }
        sum * (-x * x).exp() * 2.0 / std::f64::consts::PI.sqrt()
    }

    #[test]
    fn sigmoid_is_that_of_64_bits() {
        for x in grid(-44.0, 44.0) {
            let want = 1.0 / (1.0 + f64::from(-x).exp());
            for fused in [false, true] {
                let off = (f64::from(sigmoid(x, fused)) - want).abs() / want;
                assert!(off < 4e-6, "{x}: {off:e}"); // |x| 2⁻²⁴ of the product's rounding
            }
        }
        assert_eq!([sigmoid(-200.0, false), sigmoid(200.0, false)], [0.0, 1.0]);
        assert!(sigmoid(f32::NAN, false).is_nan());
    }

    fn cdf(x: f64) -> f64 {
        0.5 * (1.0 + erf(x / 2_f64.sqrt()))
    }

    fn grid(from: f32, to: f32) -> impl Iterator<Item = f32> {
        (0..=100_000).map(move |i| from + (to - from) * i as f32 / 100_000.0)
    }

    /// Each value with both ways to multiply and add.
    fn both(values: impl Iterator<Item = f32>) -> impl Iterator<Item = (f32, bool)> {
        values.flat_map(|x| [(x, false), (x, true)])
    }

    #[test]
    fn exp2_is_within_its_bound() {
        for (x, fused) in both(grid(EXP2_FLOOR, 127.0)) {
            let (got, want) = (exp2(x, fused), f64::from(x).exp2());
            assert!((f64::from(got) / want - 1.0).abs() < 2e-7, "2^{x} = {got}");
        }
    }

    #[test]
    fn exp2_at_its_ends() {
        for fused in [false, true] {
            assert_eq!(exp2(0.0, fused), 1.0);
            assert_eq!(exp2(EXP2_FLOOR, fused), 2_f32.powi(-64));
            for x in [-64.001, -126.0, -150.0, -1e30, f32::NEG_INFINITY] {
                assert_eq!(exp2(x, fused).to_bits(), 0, "2^{x}");
            }
            assert!(exp2(f32::NAN, fused).is_nan());
        }
    }

    /// Saturated activations and small weights meet gradients of the size of 1e-9 in a product.
    #[test]
    fn no_result_is_so_small_that_its_products_are_subnormal() {
        for (x, fused) in both(grid(-60.0, 60.0).chain([-1e4, -1e30])) {
            let (value, slope) = gelu_and_grad(x, fused);
            for (name, y) in [("gelu", value), ("gelu'", slope), ("2^", exp2(x, fused))] {
                let product = y.abs() * 1e-15;
                assert!(y == 0.0 || product >= f32::MIN_POSITIVE, "{name}({x}) = {y:e}");
            }
        }
    }

    #[test]
    fn gelu_is_within_its_bound() {
        for (x, fused) in both(grid(-7.0, 7.0)) {
            let wide = f64::from(x);
            let error = (f64::from(gelu(x, fused)) - wide * cdf(wide)).abs();
            assert!(error < 1e-7 + 1e-7 * wide.abs(), "gelu({x}) is off by {error:e}");
        }
    }

    #[test]
    fn gelu_grad_is_within_its_bound_and_its_value_is_gelu() {
        for (x, fused) in both(grid(-7.0, 7.0)) {
            let wide = f64::from(x);
            let density = (-0.5 * wide * wide).exp() / std::f64::consts::TAU.sqrt();
            let (value, slope) = gelu_and_grad(x, fused);
            assert_eq!(value.to_bits(), gelu(x, fused).to_bits());
            let error = (f64::from(slope) - cdf(wide) - wide * density).abs();
            assert!(error < 4e-7, "gelu'({x}) is off by {error:e}");
        }
    }

    #[test]
    fn gelu_far_out_is_the_identity_or_zero() {
        for (x, fused) in both([10.0, 50.0, 1e4, 1e30].into_iter()) {
            assert_eq!(gelu_and_grad(x, fused), (x, 1.0), "x = {x}");
            let left = gelu_and_grad(-x, fused);
            assert!(left.0.abs() < 1e-7 && left.1.abs() < 1e-7, "x = -{x}: {left:?}");
        }
        let (value, slope) = gelu_and_grad(f32::NAN, true);
        assert!(gelu(f32::NAN, true).is_nan() && value.is_nan() && slope.is_nan());
    }
}
