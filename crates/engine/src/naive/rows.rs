//! Elementwise kernels, norms and the residual branch.

use super::{Real, add};
use crate::device::{HeadColumns, Moments, Rotation, Write};

/// y = values, rounded.
pub fn upload<T: Real>(y: &mut [T], values: &[f32]) {
    round(y, values);
}

/// y = x
pub fn copy<T: Real>(y: &mut [T], x: &[T]) {
    y.copy_from_slice(x);
}

/// y = x, in the wider type.
pub fn widen<T: Real, P: Real>(y: &mut [P], x: &[T]) {
    for i in 0..y.len() {
        y[i] = P::of(x[i].f64());
    }
}

/// y = x, rounded.
pub fn round<T: Real, P: Real>(y: &mut [T], x: &[P]) {
    for i in 0..y.len() {
        y[i] = T::of(x[i].f64());
    }
}

/// y = a
pub fn fill<T: Real>(ys: Vec<&mut [T]>, a: f32) {
    for y in ys {
        for i in 0..y.len() {
            y[i] = T::of(a.f64());
        }
    }
}

/// Applies `kernel`, which overwrites its output, as `write` requires. The output has 64 bits and
/// is rounded once, after the addition.
pub fn set_or_add<T: Real>(write: Write<&mut [T]>, kernel: impl FnOnce(&mut [f64])) {
    let (Write::Set(y) | Write::Add(y)) = &write;
    let mut part = vec![f64::NAN; y.len()];
    kernel(&mut part);
    match write {
        Write::Set(y) => round(y, &part),
        Write::Add(y) => (0..y.len()).for_each(|i| add(&mut y[i], part[i])),
    }
}

/// y += x
pub fn add_assign<T: Real>(y: &mut [T], x: &[T]) {
    for i in 0..y.len() {
        add(&mut y[i], x[i].f64());
    }
}

/// y = a y
pub fn scale<T: Real>(ys: Vec<&mut [T]>, a: f32) {
    for y in ys {
        for i in 0..y.len() {
            y[i] = T::of(a.f64() * y[i].f64());
        }
    }
}

/// y[R,D] = γ (x - μ)/√(σ² + ε) + β
pub fn layer_norm<T: Real, P: Real>(
    y: &mut [T],
    saved: Moments<&mut [P]>,
    x: &[T],
    affine: Option<(&[P], &[P])>,
    d: usize,
    eps: f32,
) {
    let Moments { mean, rstd } = saved;
    for r in 0..x.len() / d {
        let row = &x[r * d..][..d];
        let mu = row.iter().map(|v| v.f64()).sum::<f64>() / d as f64;
        let variance = row.iter().map(|v| (v.f64() - mu).powi(2)).sum::<f64>() / d as f64;
        let factor = 1.0 / (variance + eps.f64()).sqrt();
        (mean[r], rstd[r]) = (P::of(mu), P::of(factor));
        for i in 0..d {
            let normal = (row[i].f64() - mu) * factor;
            let value = affine.map_or(normal, |(g, b)| normal * g[i].f64() + b[i].f64());
            y[r * d + i] = T::of(value);
        }
    }
}

/// dx[R,D]; dγ[D] += ; dβ[D] +=
pub fn layer_norm_backward<T: Real, P: Real>(
    dx: Write<&mut [T]>,
    d_affine: Option<(&mut [P], &mut [P])>,
    dy: &[T],
    x: &[T],
    saved: Moments<&[P]>,
    gamma: Option<&[P]>,
    d: usize,
) {
    set_or_add(dx, |dx| set_layer_norm_gradient(dx, d_affine, dy, x, saved, gamma, d));
}

fn set_layer_norm_gradient<T: Real, P: Real>(
    dx: &mut [f64],
    d_affine: Option<(&mut [P], &mut [P])>,
    dy: &[T],
    x: &[T],
    saved: Moments<&[P]>,
    gamma: Option<&[P]>,
    d: usize,
) {
    let Moments { mean, rstd } = saved;
    let mut sums = vec![(0.0, 0.0); d];
    for r in 0..x.len() / d {
        let normal = |i: usize| (x[r * d + i].f64() - mean[r].f64()) * rstd[r].f64();
        let d_normal = |i: usize| dy[r * d + i].f64() * gamma.map_or(1.0, |g| g[i].f64());
        let a = (0..d).map(d_normal).sum::<f64>() / d as f64;
        let b = (0..d).map(|i| d_normal(i) * normal(i)).sum::<f64>() / d as f64;
        for i in 0..d {
            dx[r * d + i] = (d_normal(i) - a - normal(i) * b) * rstd[r].f64();
            sums[i].0 += dy[r * d + i].f64() * normal(i);
            sums[i].1 += dy[r * d + i].f64();
        }
    }
    if let Some((d_gamma, d_beta)) = d_affine {
        for i in 0..d {
            add(&mut d_gamma[i], sums[i].0);
            add(&mut d_beta[i], sums[i].1);
        }
    }
}

/// Layer norm of every head of the columns.
pub fn head_norm<T: Real, P: Real>(
    y: &mut [T],
    saved: Moments<&mut [P]>,
    x: &[T],
    affine: (&[P], &[P]),
    columns: &HeadColumns,
    eps: f32,
) {
    let Moments { mean, rstd } = saved;
    y.copy_from_slice(x);
    for (i, at) in heads(x.len(), columns).into_iter().enumerate() {
        let e = columns.head_dim;
        let saved = Moments { mean: &mut mean[i..=i], rstd: &mut rstd[i..=i] };
        layer_norm(&mut y[at..at + e], saved, &x[at..at + e], Some(affine), e, eps);
    }
}

/// dx[R,S]; dγ[E] += ; dβ[E] +=
pub fn head_norm_backward<T: Real, P: Real>(
    dx: Write<&mut [T]>,
    d_affine: (&mut [P], &mut [P]),
    dy: &[T],
    x: &[T],
    saved: Moments<&[P]>,
    gamma: &[P],
    columns: &HeadColumns,
) {
    let (e, (dgamma, dbeta)) = (columns.head_dim, d_affine);
    set_or_add(dx, |dx| {
        widen(dx, dy);
        for (i, at) in heads(x.len(), columns).into_iter().enumerate() {
            let head = at..at + e;
            let saved = Moments { mean: &saved.mean[i..=i], rstd: &saved.rstd[i..=i] };
            let d_affine = Some((&mut *dgamma, &mut *dbeta));
            let (dx, dy, x) = (&mut dx[head.clone()], &dy[head.clone()], &x[head]);
            set_layer_norm_gradient(dx, d_affine, dy, x, saved, Some(gamma), e);
        }
    });
}

/// y[R,S] with every head of the columns turned by the factors [P, c[E] s[E]] of its row's place.
pub fn rope<T: Real, P: Real>(
    y: Write<&mut [T]>,
    x: &[T],
    factors: &[P],
    places: &[u32],
    columns: &HeadColumns,
    rotation: Rotation,
) {
    let e = columns.head_dim;
    set_or_add(y, |y| {
        widen(y, x);
        for at in heads(x.len(), columns) {
            let place = places[at / columns.stride] as usize;
            let [c, s] = [0, e].map(|part| &factors[2 * e * place + part..][..e]);
            for j in 0..e {
                let s = match rotation {
                    Rotation::Forward => s[j],
                    Rotation::Transposed => s[j ^ 1],
                };
                y[at + j] = c[j].f64() * x[at + j].f64() + s.f64() * x[at + (j ^ 1)].f64();
            }
        }
    });
}

/// The start of each head in [R,S].
fn heads(len: usize, columns: &HeadColumns) -> Vec<usize> {
    let heads = columns.columns.len() / columns.head_dim;
    let head = |r, h| r * columns.stride + columns.columns.start + h * columns.head_dim;
    (0..len / columns.stride).flat_map(|r| (0..heads).map(move |h| head(r, h))).collect()
}

/// y[R,D] = skip + factor_r scale_d branch
pub fn residual<T: Real, P: Real>(
    y: &mut [T],
    skip: &[T],
    branch: &[T],
    scale: Option<&[P]>,
    factor: Option<&[P]>,
    d: usize,
) {
    for i in 0..y.len() {
        let s = scale.map_or(1.0, |s| s[i % d].f64());
        let f = factor.map_or(1.0, |f| f[i / d].f64());
        y[i] = T::of(skip[i].f64() + f * s * branch[i].f64());
    }
}

/// dbranch[R,D]; dscale[D] +=
pub fn residual_backward<T: Real, P: Real>(
    dbranch: Write<&mut [T]>,
    dscale: Option<&mut [P]>,
    dy: &[T],
    branch: &[T],
    scale: Option<&[P]>,
    factor: Option<&[P]>,
    d: usize,
) {
    let mut sums = vec![0.0; d];
    set_or_add(dbranch, |dbranch| {
        for i in 0..dy.len() {
            let s = scale.map_or(1.0, |s| s[i % d].f64());
            let f = factor.map_or(1.0, |f| f[i / d].f64());
            dbranch[i] = f * s * dy[i].f64();
            sums[i % d] += f * dy[i].f64() * branch[i].f64();
        }
    });
    if let Some(dscale) = dscale {
        (0..d).for_each(|i| add(&mut dscale[i], sums[i]));
    }
}
