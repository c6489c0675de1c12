//! Layer norm: Ba et al. 2016, eq. 4. σ² is biased, as in torch.

use super::lanes::{each, sum, sum2, sum3};
use crate::cpu::dispatch::multiversion;
use crate::cpu::parallel::{
    In, Out, Partial, for_rows, rows_per_partial, rows_per_task, with_zeros,
};
use crate::device::{Moments, Write};
use crate::dtype::Element;

/// y[R,D] = γ (x - μ)/√(σ² + ε) + β over D. mean[R] = μ and rstd[R] = 1/√(σ² + ε) are saved for the
/// backward pass. x[R,D]; affine = (gamma[D], beta[D]).
pub(crate) fn layer_norm<T: Element>(
    y: &mut [T],
    saved: Moments<&mut [f32]>,
    x: &[T],
    affine: Option<(&[f32], &[f32])>,
    d: usize,
    eps: f32,
) {
    let Moments { mean, rstd } = saved;
    assert_eq!((y.len(), x.len() % d), (x.len(), 0), "layer_norm: y and x are [R, D]");
    let rows = x.len() / d;
    let operands = (Out(y, d), Out(mean, 1), Out(rstd, 1), In(x, d));
    for_rows(rows, rows_per_task(d), operands, |_, (y, mean, rstd, x)| {
        forward_rows(y.0, mean.0, rstd.0, x.0, affine, d, eps);
    });
}

/// dx[R,D] = (dy γ - mean(dy γ) - x̂ mean(dy γ x̂)) rstd; dgamma[D] += Σ_r dy x̂;
/// dbeta[D] += Σ_r dy. d_affine = (dgamma, dbeta).
pub(crate) fn layer_norm_backward<T: Element>(
    dx: Write<&mut [T]>,
    d_affine: Option<(&mut [f32], &mut [f32])>,
    dy: &[T],
    x: &[T],
    saved: Moments<&[f32]>,
    gamma: Option<&[f32]>,
    d: usize,
) {
    let (dx, add) = match dx {
        Write::Set(dx) => (dx, false),
        Write::Add(dx) => (dx, true),
    };
    assert_eq!((dx.len(), dy.len()), (x.len(), x.len()), "layer_norm_backward: dx and dy");
    let rows = x.len() / d;
    // Each task has the sums of dgamma and dbeta.
    let width = if d_affine.is_some() { 2 * d } else { 0 };
    let per_task = rows_per_partial(rows, d);
    with_zeros(rows.div_ceil(per_task) * width, |partials| {
        let operands = (Out(dx, d), In(dy, d), In(x, d), In(saved.mean, 1), In(saved.rstd, 1));
        let operands = (operands, Partial(partials, width, per_task));
        for_rows(rows, per_task, operands, |_, ((dx, dy, x, mean, rstd), partial)| {
            backward_rows(dx.0, add, partial.0, dy.0, x.0, mean.0, rstd.0, gamma, d);
        });
        if let Some((dgamma, dbeta)) = d_affine {
            add_partials(dgamma, partials, width, 0);
            add_partials(dbeta, partials, width, d);
        }
    });
}

/// sum[i] += Σ_p partials[p * width + offset + i]
pub(super) fn add_partials(sum: &mut [f32], partials: &[f32], width: usize, offset: usize) {
    for partial in partials.chunks_exact(width) {
        for (sum, v) in sum.iter_mut().zip(&partial[offset..]) {
            *sum += v;
        }
    }
}

multiversion! {
    fn forward_rows<T: Element>(
        y: &mut [T], mean: &mut [f32], rstd: &mut [f32], x: &[T],
        affine: Option<(&[f32], &[f32])>, d: usize, eps: f32,
    ) {
        let rows = y.chunks_exact_mut(d).zip(x.chunks_exact(d));
        for ((y, x), (mean, rstd)) in rows.zip(mean.iter_mut().zip(rstd)) {
            (*mean, *rstd) = norm_row(y, x, affine, eps);
        }
    }

    fn backward_rows<T: Element>(
        dx: &mut [T], add: bool, sums: &mut [f32], dy: &[T], x: &[T],
        mean: &[f32], rstd: &[f32], gamma: Option<&[f32]>, d: usize,
    ) {
        let (dgamma, dbeta) = sums.split_at_mut(sums.len() / 2);
        let rows = dx.chunks_exact_mut(d).zip(dy.chunks_exact(d).zip(x.chunks_exact(d)));
        for ((dx, (dy, x)), (&mean, &rstd)) in rows.zip(mean.iter().zip(rstd)) {
            norm_row_backward(dx, add, (&mut *dgamma, &mut *dbeta), dy, x, (mean, rstd), gamma);
        }
    }
}

/// Layer norm of one row. Returns its mean and 1/√(σ² + ε).
#[inline(always)]
pub(super) fn norm_row<T: Element>(
    y: &mut [T],
    x: &[T],
    affine: Option<(&[f32], &[f32])>,
    eps: f32,
) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum(x, |v| v) / n;
    let variance = sum(x, |v| (v - mean) * (v - mean)) / n;
    let rstd = 1.0 / (variance + eps).sqrt();
    match affine {
        Some((gamma, beta)) => {
            for ((y, x), (g, b)) in y.iter_mut().zip(x).zip(gamma.iter().zip(beta)) {
                *y = T::round((x.wide() - mean) * rstd * g + b);
            }
        }
        None => each(y, x, |x| (x - mean) * rstd),
    }
    (mean, rstd)
}

/// Gradient of one row, set or added. d_affine = (dgamma, dbeta), both empty if not needed.
/// saved = (mean, rstd).
#[inline(always)]
pub(super) fn norm_row_backward<T: Element>(
    dx: &mut [T],
    add: bool,
    (dgamma, dbeta): (&mut [f32], &mut [f32]),
    dy: &[T],
    x: &[T],
    (mean, rstd): (f32, f32),
    gamma: Option<&[f32]>,
) {
    for (((dgamma, dbeta), dy), x) in dgamma.iter_mut().zip(dbeta).zip(dy).zip(x) {
        *dgamma += dy.wide() * ((x.wide() - mean) * rstd);
        *dbeta += dy.wide();
    }
    match gamma {
        Some(gamma) => {
            let mean_d = sum2(dy, gamma, |dy, g| dy * g) / x.len() as f32;
            let products = sum3(dy, gamma, x, |dy, g, x| dy * g * ((x - mean) * rstd));
            let means = [mean_d, products / x.len() as f32];
            for ((dx, x), (dy, g)) in dx.iter_mut().zip(x).zip(dy.iter().zip(gamma)) {
                let v = slope(dy.wide() * g, x.wide(), (mean, rstd), means);
                *dx = T::round(if add { dx.wide() + v } else { v });
            }
        }
        None => {
            let mean_d = sum(dy, |dy| dy) / x.len() as f32;
            let products = sum2(dy, x, |dy, x| dy * ((x - mean) * rstd));
            let means = [mean_d, products / x.len() as f32];
            for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                let v = slope(dy.wide(), x.wide(), (mean, rstd), means);
                *dx = T::round(if add { dx.wide() + v } else { v });
            }
        }
    }
}

/// dx of one value from dŷ = dy γ. means = [mean(dŷ), mean(dŷ x̂)].
#[inline(always)]
fn slope(d: f32, x: f32, (mean, rstd): (f32, f32), means: [f32; 2]) -> f32 {
    (d - means[0] - (x - mean) * rstd * means[1]) * rstd
}

#[cfg(test)]
mod tests {
    use crate::cpu::row::testing::same_bits;
    use crate::device::{Moments, Write};
    use crate::naive::testing::{SIZES, assert_close, gradient, numbers, wide};
    use crate::{cpu::row, naive};

    #[test]
    fn layer_norm_equals_its_naive_twin() {
        for (rows, d) in SIZES {
            let (x, g, b) = (numbers(1, rows * d), numbers(2, d), numbers(3, d));
            for affine in [Some((&g[..], &b[..])), None] {
                let [got, want] =
                    [row::layer_norm, naive::layer_norm::<f32, f32>].map(|layer_norm| {
                        let (mut y, mut m, mut r) =
                            (vec![9.0; rows * d], vec![9.0; rows], vec![9.0; rows]);
                        layer_norm(
                            &mut y,
                            Moments { mean: &mut m, rstd: &mut r },
                            &x,
                            affine,
                            d,
                            1e-5,
                        );
                        [y, m, r]
                    });
                for (name, (got, want)) in ["y", "mean", "rstd"].iter().zip(got.iter().zip(&want)) {
                    assert_close(name, got, want, 2e-6); // f32 sums of 385 values
                }
            }
        }
    }

    #[test]
    fn layer_norm_backward_equals_its_naive_twin() {
        for (rows, d) in SIZES {
            let (x, dy, g) = (numbers(1, rows * d), numbers(2, rows * d), numbers(3, d));
            let (mut y, mut m, mut r) = (vec![0.0; rows * d], vec![0.0; rows], vec![0.0; rows]);
            naive::layer_norm(&mut y, Moments { mean: &mut m, rstd: &mut r }, &x, None, d, 1e-2);
            for g in [Some(&g[..]), None] {
                let twins = [row::layer_norm_backward, naive::layer_norm_backward::<f32, f32>];
                let [got, want] = twins.map(|backward| {
                    let (mut dx, mut dg, mut db) =
                        (vec![9.0; rows * d], vec![1.0; d], vec![2.0; d]);
                    let d_affine = Some((&mut dg[..], &mut db[..]));
                    let saved = || Moments { mean: &m[..], rstd: &r[..] };
                    backward(Write::Set(&mut dx), d_affine, &dy, &x, saved(), g, d);
                    let mut alone = vec![9.0; rows * d];
                    backward(Write::Set(&mut alone), None, &dy, &x, saved(), g, d);
                    assert_eq!(alone, dx);
                    let mut added = dy.clone();
                    backward(Write::Add(&mut added), None, &dy, &x, saved(), g, d);
                    let sum: Vec<f32> = dy.iter().zip(&dx).map(|(dy, dx)| dy + dx).collect();
                    assert_close("added", &added, &sum, 1e-6); // one rounding, or two
                    [dx, dg, db]
                });
                for (name, (got, want)) in ["dx", "dg", "db"].iter().zip(got.iter().zip(&want)) {
                    assert_close(name, got, want, 2e-5); // dx cancels if D is small
                }
            }
        }
    }

    #[test]
    fn layer_norm_gradient_is_the_slope_of_its_forward() {
        let (rows, d) = (3, 5);
        let [x, dy, g, b] = [1, 2, 3, 4].map(|seed| wide(&numbers(seed, rows * d)));
        let (g, b) = (&g[..d], &b[..d]);
        let loss = |x: &[f64], g: &[f64], b: &[f64]| {
            let (mut y, mut m, mut r) = (vec![0.0; rows * d], vec![0.0; rows], vec![0.0; rows]);
            naive::layer_norm(
                &mut y,
                Moments { mean: &mut m, rstd: &mut r },
                x,
                Some((g, b)),
                d,
                1e-5,
            );
            (y.iter().zip(&dy).map(|(y, dy)| y * dy).sum(), m, r)
        };
        let (_, m, r): (f64, _, _) = loss(&x, g, b);
        let (mut dx, mut dg, mut db) = (vec![0.0; rows * d], vec![0.0; d], vec![0.0; d]);
        let d_affine = Some((&mut dg[..], &mut db[..]));
        naive::layer_norm_backward(
            Write::Set(&mut dx[..]),
            d_affine,
            &dy,
            &x,
            Moments { mean: &m[..], rstd: &r[..] },
            Some(g),
            d,
        );
        assert_close("dx", &dx, &gradient(&x, |x| loss(x, g, b).0), 1e-6);
        assert_close("dg", &dg, &gradient(g, |g| loss(&x, g, b).0), 1e-6);
        assert_close("db", &db, &gradient(b, |b| loss(&x, g, b).0), 1e-6);
    }

    #[test]
    fn layer_norm_gives_the_same_bits_on_any_threads_and_instructions() {
        let (rows, d) = (1300, 192);
        let (x, dy, g) = (numbers(1, rows * d), numbers(2, rows * d), numbers(3, d));
        same_bits(|| {
            let (mut y, mut m, mut r) = (vec![0.0; rows * d], vec![0.0; rows], vec![0.0; rows]);
            row::layer_norm(
                &mut y,
                Moments { mean: &mut m, rstd: &mut r },
                &x,
                Some((&g, &g)),
                d,
                1e-6,
            );
            let (mut dx, mut dg, mut db) = (vec![0.0; rows * d], vec![0.0; d], vec![0.0; d]);
            let d_affine = Some((&mut dg[..], &mut db[..]));
            row::layer_norm_backward(
                Write::Set(&mut dx[..]),
                d_affine,
                &dy,
                &x,
                Moments { mean: &m[..], rstd: &r[..] },
                Some(&g),
                d,
            );
            [y, m, r, dx, dg, db].concat()
        });
    }
}
