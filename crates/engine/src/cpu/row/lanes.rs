//! Loops that become vector code, and sums in sixteen lanes that are combined in one order. Every
//! instruction set gives the same result.
//!
//! [`multiversion!`](crate::cpu::dispatch::multiversion) bodies use `for` loops or these functions.
//! `Iterator::for_each` on a zip was compiled to a call outside the widened function (measured on
//! 2026-11-23: GELU's gradient was fourteen times slower).

use crate::dtype::Element;

pub(super) const LANES: usize = 16;

/// Σ f(a_i, b_i)
#[inline(always)]
pub(super) fn sum2<A: Element, B: Element>(a: &[A], b: &[B], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a, b) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.0.iter().zip(b.0) {
        for i in 0..LANES {
            lanes[i] += f(a[i].wide(), b[i].wide());
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(a.1).zip(b.1) {
        *lane += f(a.wide(), b.wide());
    }
    combine(lanes)
}

/// Σ f(a_i, b_i, c_i)
#[inline(always)]
pub(super) fn sum3<A: Element, B: Element, C: Element>(
    a: &[A],
    b: &[B],
    c: &[C],
    f: impl Fn(f32, f32, f32) -> f32,
) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a, b, c) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>(), c.as_chunks::<LANES>());
    for ((a, b), c) in a.0.iter().zip(b.0).zip(c.0) {
        for i in 0..LANES {
            lanes[i] += f(a[i].wide(), b[i].wide(), c[i].wide());
        }
    }
    for (((lane, &a), &b), &c) in lanes.iter_mut().zip(a.1).zip(b.1).zip(c.1) {
        *lane += f(a.wide(), b.wide(), c.wide());
    }
    combine(lanes)
}

/// Σ f(a_i)
#[inline(always)]
pub(super) fn sum<A: Element>(a: &[A], f: impl Fn(f32) -> f32) -> f32 {
    sum2(a, a, |a, _| f(a))
}

/// Σ f(a_i, b_i) with 64-bit sums.
#[inline(always)]
pub(crate) fn sum2_f64<A: Element, B: Element>(
    a: &[A],
    b: &[B],
    f: impl Fn(f32, f32) -> f64,
) -> f64 {
    let mut lanes = [0.0; LANES];
    let (a, b) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.0.iter().zip(b.0) {
        for i in 0..LANES {
            lanes[i] += f(a[i].wide(), b[i].wide());
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(a.1).zip(b.1) {
        *lane += f(a.wide(), b.wide());
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

/// y_i = f(x_i) for every i.
#[inline(always)]
pub(crate) fn each<Y: Element, X: Element>(y: &mut [Y], x: &[X], f: impl Fn(f32) -> f32) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = Y::round(f(x.wide()));
    }
}

/// y_i = f(a_i, b_i) for every i.
#[inline(always)]
pub(crate) fn each2<Y: Element, A: Element, B: Element>(
    y: &mut [Y],
    a: &[A],
    b: &[B],
    f: impl Fn(f32, f32) -> f32,
) {
    for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
        *y = Y::round(f(a.wide(), b.wide()));
    }
}

/// y_i += x_i for every i.
#[inline(always)]
pub(crate) fn add<Y: Element, X: Element>(y: &mut [Y], x: &[X]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = Y::round(y.wide() + x.wide());
    }
}
