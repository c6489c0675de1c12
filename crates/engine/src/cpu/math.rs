//! exp, erf and GELU as straight-line code, so that a loop over them becomes vector code.
//!
//! No table, no branch: every lane runs the same operations. Errors are stated against f64.

/// eˣ within 1.2 ulp for x in [-87, 88]; 0 below, infinity above about 88.7.
///
/// x = n ln 2 + r, |r| ≤ ½ ln 2; eʳ by a polynomial of degree 6 (Cephes expf), times 2ⁿ.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // 1.5 * 2^23: adding it rounds to an integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.4, 88.8);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first exact in few bits (Cephes expf).
    let r = clamped - n * 0.693_359_375;
    let r = r - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let power = p * (r * r) + r + 1.0;
    // 2ⁿ in two factors: n = 128 alone would overflow the exponent.
    let n = (shifted.to_bits() as i32) - (ROUND.to_bits() as i32);
    let half = n >> 1;
    let scale = |n: i32| f32::from_bits(((n + 127) << 23) as u32);
    let value = power * scale(half) * scale(n - half);
    if x < -87.4 { 0.0 } else { value }
}

/// erf(x), absolute error below 1.2e-7 (relative below 4e-7 near zero).
///
/// |x| < 1: x times a polynomial in x²; else 1 - e^(-x²) times a polynomial in 1/x.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let a = x.abs();
    let small = {
        // Cephes erff's T: erf(x)/x on [0, 1].
        let z = x * x;
        let mut p = 7.853_861_5e-5;
        p = p * z - 8.010_193_6e-4;
        p = p * z + 5.188_327_6e-3;
        p = p * z - 2.685_381_2e-2;
        p = p * z + 1.128_358_6e-1;
        p = p * z - 3.761_262_6e-1;
        p = p * z + 1.128_379_1;
        x * p
    };
    let large = {
        // Numerical Recipes' erfc, t = 1/(1 + a/2), fractional error below 1.2e-7.
        let t = 1.0 / (1.0 + 0.5 * a);
        let mut p = 0.170_872_77;
        p = p * t - 0.822_152_23;
        p = p * t + 1.488_515_9;
        p = p * t - 1.135_203_98;
        p = p * t + 0.278_868_07;
        p = p * t - 0.186_288_06;
        p = p * t + 0.096_784_18;
        p = p * t + 0.374_091_96;
        p = p * t + 1.000_023_68;
        let erfc = t * exp(p * t - 1.265_512_23 - a * a);
        (1.0 - erfc).copysign(x)
    };
    if a < 1.0 { small } else { large }
}

/// x Φ(x) = ½ x (1 + erf(x/√2)).
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// Φ(x) + x φ(x).
#[inline(always)]
pub(crate) fn gelu_grad(x: f32) -> f32 {
    const INV_SQRT_TAU: f32 = 0.398_942_3;
    let cdf = 0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    cdf + x * INV_SQRT_TAU * exp(-0.5 * x * x)
}
