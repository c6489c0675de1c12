//! Layer norm over each head of some columns: timm's qk_norm on packed q, k, v.

use super::layer_norm::{add_partials, norm_row, norm_row_backward};
use super::set_or_add;
use crate::cpu::dispatch::multiversion;
use crate::cpu::parallel::{
    In, Out, Partial, for_rows, rows_per_partial, rows_per_task, with_zeros,
};
use crate::device::{HeadColumns, Moments, Write};
use crate::dtype::Element;

/// y[R,S] = x[R,S] with every head of E columns normalised, scaled by gamma[E] and shifted by
/// beta[E] (affine). mean[R,A] and rstd[R,A] are kept for the backward pass.
pub(crate) fn head_norm<T: Element>(
    y: &mut [T],
    saved: Moments<&mut [f32]>,
    x: &[T],
    affine: (&[f32], &[f32]),
    columns: &HeadColumns,
    eps: f32,
) {
    let Moments { mean, rstd } = saved;
    let (s, a) = (columns.stride, heads(columns));
    assert_eq!((y.len(), mean.len()), (x.len(), x.len() / s * a), "head_norm: y and mean");
    let operands = (Out(y, s), Out(mean, a), Out(rstd, a), In(x, s));
    for_rows(x.len() / s, rows_per_task(s), operands, |_, (y, mean, rstd, x)| {
        forward_rows(y.0, mean.0, rstd.0, x.0, affine, columns, eps);
    });
}

/// dx[R,S] through every head. Other columns are copied from dy[R,S]. dgamma[E] +=; dbeta[E] +=.
pub(crate) fn head_norm_backward<T: Element>(
    dx: Write<&mut [T]>,
    d_affine: (&mut [f32], &mut [f32]),
    dy: &[T],
    x: &[T],
    saved: Moments<&[f32]>,
    gamma: &[f32],
    columns: &HeadColumns,
) {
    set_or_add(dx, |dx| set_gradient(dx, d_affine, dy, x, saved, gamma, columns));
}

fn set_gradient<T: Element>(
    dx: &mut [T],
    (dgamma, dbeta): (&mut [f32], &mut [f32]),
    dy: &[T],
    x: &[T],
    saved: Moments<&[f32]>,
    gamma: &[f32],
    columns: &HeadColumns,
) {
    let (s, a, e) = (columns.stride, heads(columns), columns.head_dim);
    assert_eq!((dx.len(), dy.len()), (x.len(), x.len()), "head_norm_backward: dx and dy");
    let (rows, Moments { mean, rstd }) = (x.len() / s, saved);
    let per_task = rows_per_partial(rows, s);
    with_zeros(rows.div_ceil(per_task) * 2 * e, |partials| {
        let operands = (In(dy, s), In(x, s), In(mean, a), In(rstd, a));
        let operands = (Out(dx, s), Partial(partials, 2 * e, per_task), operands);
        for_rows(rows, per_task, operands, |_, (dx, partial, (dy, x, mean, rstd))| {
            backward_rows(dx.0, partial.0, dy.0, x.0, mean.0, rstd.0, gamma, columns);
        });
        add_partials(dgamma, partials, 2 * e, 0);
        add_partials(dbeta, partials, 2 * e, e);
    });
}

multiversion! {
    fn forward_rows<T: Element>(
        y: &mut [T], mean: &mut [f32], rstd: &mut [f32], x: &[T],
        affine: (&[f32], &[f32]), columns: &HeadColumns, eps: f32,
    ) {
        let (s, a, e) = (columns.stride, heads(columns), columns.head_dim);
        y.copy_from_slice(x);
        for (r, (y, x)) in y.chunks_exact_mut(s).zip(x.chunks_exact(s)).enumerate() {
            let heads = y[columns.columns.clone()].chunks_exact_mut(e);
            for (h, (y, x)) in heads.zip(x[columns.columns.clone()].chunks_exact(e)).enumerate() {
                (mean[r * a + h], rstd[r * a + h]) = norm_row(y, x, Some(affine), eps);
            }
        }
    }

    fn backward_rows<T: Element>(
        dx: &mut [T], partial: &mut [f32], dy: &[T], x: &[T],
        mean: &[f32], rstd: &[f32], gamma: &[f32], columns: &HeadColumns,
    ) {
        let (s, a, e) = (columns.stride, heads(columns), columns.head_dim);
        let (dgamma, dbeta) = partial.split_at_mut(e);
        dx.copy_from_slice(dy);
        for (r, row) in dx.chunks_exact_mut(s).enumerate() {
            for h in 0..a {
                let first = columns.columns.start + h * e;
                let at = r * s + first;
                let (dy, x) = (&dy[at..at + e], &x[at..at + e]);
                let saved = (mean[r * a + h], rstd[r * a + h]);
                let (dx, d_affine) = (&mut row[first..first + e], (&mut *dgamma, &mut *dbeta));
                norm_row_backward(dx, false, d_affine, dy, x, saved, Some(gamma));
            }
        }
    }
}

/// A, the number of heads in these columns.
fn heads(columns: &HeadColumns) -> usize {
    columns.columns.len() / columns.head_dim
}

#[cfg(test)]
mod tests {
    use super::heads;
    use crate::cpu::row::testing::same_bits;
    use crate::device::{HeadColumns, Moments, Write};
    use crate::naive::testing::{assert_close, gradient, numbers, wide};
    use crate::{cpu::row, naive};

    fn cases() -> Vec<(usize, HeadColumns)> {
        let columns = |columns, head_dim, stride| HeadColumns { columns, head_dim, stride };
        vec![
            (1, columns(0..4, 2, 6)),
            (7, columns(16..48, 16, 48)),
            (130, columns(0..128, 64, 192)),
            (13, columns(3..13, 5, 17)),
        ]
    }

    #[test]
    fn head_norm_equals_its_naive_twin() {
        for (rows, columns) in cases() {
            let (s, a, e) = (columns.stride, heads(&columns), columns.head_dim);
            let (x, dy) = (numbers(1, rows * s), numbers(2, rows * s));
            let (g, b) = (numbers(3, e), numbers(4, e));
            let twins = [row::head_norm, naive::head_norm::<f32, f32>];
            let [got, want] = twins.map(|head_norm| {
                let (mut y, mut m, mut r) =
                    (vec![9.0; rows * s], vec![9.0; rows * a], vec![9.0; rows * a]);
                head_norm(
                    &mut y,
                    Moments { mean: &mut m, rstd: &mut r },
                    &x,
                    (&g, &b),
                    &columns,
                    1e-2,
                );
                [y, m, r]
            });
            for (name, (got, want)) in ["y", "mean", "rstd"].iter().zip(got.iter().zip(&want)) {
                assert_close(name, got, want, 2e-6); // f32 sums of 64 values
            }
            let twins = [row::head_norm_backward, naive::head_norm_backward::<f32, f32>];
            let [got, want] = twins.map(|backward| {
                let (mut dx, mut dg, mut db) = (vec![9.0; rows * s], vec![1.0; e], vec![2.0; e]);
                let saved = Moments { mean: &want[1][..], rstd: &want[2][..] };
                backward(Write::Set(&mut dx), (&mut dg, &mut db), &dy, &x, saved, &g, &columns);
                [dx, dg, db]
            });
            for (name, (got, want)) in ["dx", "dg", "db"].iter().zip(got.iter().zip(&want)) {
                assert_close(name, got, want, 1e-5); // dx cancels if E is small
            }
        }
    }

    #[test]
    fn head_norm_gradient_is_the_slope_of_its_forward() {
        let columns = HeadColumns { columns: 2..8, head_dim: 3, stride: 9 };
        let [x, dy, g, b] = [1, 2, 3, 4].map(|seed| wide(&numbers(seed, 18)));
        let (g, b) = (&g[..3], &b[..3]);
        let loss = |x: &[f64], g: &[f64], b: &[f64]| {
            let (mut y, mut m, mut r) = (vec![0.0; 18], vec![0.0; 4], vec![0.0; 4]);
            naive::head_norm(
                &mut y,
                Moments { mean: &mut m, rstd: &mut r },
                x,
                (g, b),
                &columns,
                1e-5,
            );
            (y.iter().zip(&dy).map(|(y, dy)| y * dy).sum(), m, r)
        };
        let (_, m, r): (f64, _, _) = loss(&x, g, b);
        let (mut dx, mut dg, mut db) = (vec![0.0; 18], vec![0.0; 3], vec![0.0; 3]);
        let d_affine = (&mut dg[..], &mut db[..]);
        let saved = Moments { mean: &m[..], rstd: &r[..] };
        naive::head_norm_backward(Write::Set(&mut dx[..]), d_affine, &dy, &x, saved, g, &columns);
        assert_close("dx", &dx, &gradient(&x, |x| loss(x, g, b).0), 1e-6);
        assert_close("dg", &dg, &gradient(g, |g| loss(&x, g, b).0), 1e-6);
        assert_close("db", &db, &gradient(b, |b| loss(&x, g, b).0), 1e-6);
    }

    #[test]
    fn head_norm_gives_the_same_bits_on_any_threads_and_instructions() {
        let columns = HeadColumns { columns: 0..128, head_dim: 32, stride: 192 };
        let (x, g) = (numbers(1, 900 * 192), numbers(2, 32));
        same_bits(|| {
            let (mut y, mut m, mut r) = (vec![0.0; x.len()], vec![0.0; 3600], vec![0.0; 3600]);
            row::head_norm(
                &mut y,
                Moments { mean: &mut m, rstd: &mut r },
                &x,
                (&g, &g),
                &columns,
                1e-6,
            );
            let (mut dx, mut dg, mut db) = (vec![0.0; x.len()], vec![0.0; 32], vec![0.0; 32]);
            let d_affine = (&mut dg[..], &mut db[..]);
            let saved = Moments { mean: &m[..], rstd: &r[..] };
            row::head_norm_backward(Write::Set(&mut dx), d_affine, &y, &x, saved, &g, &columns);
            [y, dx, dg, db].concat()
        });
    }
}
