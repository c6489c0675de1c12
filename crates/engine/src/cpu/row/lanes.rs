//! Loops that become vector code, and sums in sixteen lanes that are combined in one order. Every
//! instruction set gives the same result.
//!
//! [`multiversion!`](crate::cpu::dispatch::multiversion) bodies use `for` loops or these functions.
//! `Iterator::for_each` on a zip was compiled to a call outside the widened function (measured on
//! 2026-11-23: GELU's gradient was fourteen times slower).

pub(super) const LANES: usize = 16;

/// Σ f(a_i, b_i)
#[inline(always)]
pub(super) fn sum2(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a, b) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.0.iter().zip(b.0) {
        for i in 0..LANES {
            lanes[i] += f(a[i], b[i]);
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(a.1).zip(b.1) {
        *lane += f(a, b);
    }
    combine(lanes)
}

/// Σ f(a_i)
#[inline(always)]
pub(super) fn sum(a: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    sum2(a, a, |a, _| f(a))
}

/// Σ f(a_i, b_i) with 64-bit sums.
#[inline(always)]
pub(crate) fn sum2_f64(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let (a, b) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.0.iter().zip(b.0) {
        for i in 0..LANES {
            lanes[i] += f(a[i], b[i]);
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(a.1).zip(b.1) {
        *lane += f(a, b);
    }
    lanes.iter().sum()
}

/// The sum of the lanes, whose number is halved four times.
#[inline(always)]
pub(super) fn combine(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// f(&mut y_i, x_i) for every i.
#[inline(always)]
pub(crate) fn each(y: &mut [f32], x: &[f32], f: impl Fn(&mut f32, f32)) {
    for (y, &x) in y.iter_mut().zip(x) {
        f(y, x);
    }
}

/// f(&mut y_i, a_i, b_i) for every i.
#[inline(always)]
pub(crate) fn each2(y: &mut [f32], a: &[f32], b: &[f32], f: impl Fn(&mut f32, f32, f32)) {
    for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
        f(y, a, b);
    }
}
