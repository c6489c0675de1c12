//! A residual branch with layer scale (Touvron et al. 2021) and drop path (Huang et al. 2016).

use super::lanes::{each, each2};
use super::layer_norm::add_partials;
use super::set_or_add;
use crate::cpu::dispatch::multiversion;
use crate::cpu::parallel::{
    In, Out, Partial, for_rows, rows_per_partial, rows_per_task, with_zeros,
};
use crate::device::Write;
use crate::dtype::Element;

/// y[R,D] = skip[R,D] + factor[R] scale[D] branch[R,D]. A missing factor or scale is 1.
pub(crate) fn residual<T: Element>(
    y: &mut [T],
    skip: &[T],
    branch: &[T],
    scale: Option<&[f32]>,
    factor: Option<&[f32]>,
    d: usize,
) {
    assert_eq!((skip.len(), branch.len()), (y.len(), y.len()), "residual: skip and branch");
    let rows = y.len() / d;
    let operands = (Out(y, d), In(skip, d), In(branch, d), factor.map(|factor| In(factor, 1)));
    for_rows(rows, rows_per_task(d), operands, |_, (y, skip, branch, factor)| {
        forward_rows(y.0, skip.0, branch.0, scale, factor.map(|factor| factor.0), d);
    });
}

/// dbranch[R,D] = factor scale dy; dscale[D] += Σ_r factor dy branch. (dskip is dy itself.)
pub(crate) fn residual_backward<T: Element>(
    dbranch: Write<&mut [T]>,
    dscale: Option<&mut [f32]>,
    dy: &[T],
    branch: &[T],
    scale: Option<&[f32]>,
    factor: Option<&[f32]>,
    d: usize,
) {
    set_or_add(dbranch, |dbranch| set_gradient(dbranch, dscale, dy, branch, scale, factor, d));
}

fn set_gradient<T: Element>(
    dbranch: &mut [T],
    dscale: Option<&mut [f32]>,
    dy: &[T],
    branch: &[T],
    scale: Option<&[f32]>,
    factor: Option<&[f32]>,
    d: usize,
) {
    assert_eq!((dy.len(), branch.len()), (dbranch.len(), dbranch.len()), "residual_backward");
    let rows = dy.len() / d;
    let operands = (Out(dbranch, d), In(dy, d), factor.map(|factor| In(factor, 1)));
    let Some(dscale) = dscale else {
        return for_rows(rows, rows_per_task(d), operands, |_, (dbranch, dy, factor)| {
            let factor = factor.map(|factor| factor.0);
            backward_rows(dbranch.0, &mut [], dy.0, &[], scale, factor, d);
        });
    };
    let per_task = rows_per_partial(rows, d);
    with_zeros(rows.div_ceil(per_task) * d, |partials| {
        let operands = (operands, In(branch, d), Partial(partials, d, per_task));
        for_rows(rows, per_task, operands, |_, ((dbranch, dy, factor), branch, partial)| {
            let factor = factor.map(|factor| factor.0);
            backward_rows(dbranch.0, partial.0, dy.0, branch.0, scale, factor, d);
        });
        add_partials(dscale, partials, d, 0);
    });
}

multiversion! {
    fn forward_rows<T: Element>(
        y: &mut [T], skip: &[T], branch: &[T],
        scale: Option<&[f32]>, factor: Option<&[f32]>, d: usize,
    ) {
        let rows = y.chunks_exact_mut(d).zip(skip.chunks_exact(d)).zip(branch.chunks_exact(d));
        for (r, ((y, skip), branch)) in rows.enumerate() {
            let f = factor.map_or(1.0, |factor| factor[r]);
            match scale {
                Some(scale) => {
                    for (((y, skip), b), s) in y.iter_mut().zip(skip).zip(branch).zip(scale) {
                        *y = T::round(skip.wide() + f * (s * b.wide()));
                    }
                }
                None => each2(y, skip, branch, |skip, b| skip + f * b),
            }
        }
    }

    fn backward_rows<T: Element>(
        dbranch: &mut [T], dscale: &mut [f32], dy: &[T], branch: &[T],
        scale: Option<&[f32]>, factor: Option<&[f32]>, d: usize,
    ) {
        for (r, (dbranch, dy)) in dbranch.chunks_exact_mut(d).zip(dy.chunks_exact(d)).enumerate() {
            let f = factor.map_or(1.0, |factor| factor[r]);
            match scale {
                Some(scale) => each2(dbranch, dy, scale, |dy, s| f * (dy * s)),
                None => each(dbranch, dy, |dy| f * dy),
            }
            if !dscale.is_empty() {
                let products = dy.iter().zip(&branch[r * d..][..d]);
                for (ds, (dy, b)) in dscale.iter_mut().zip(products) {
                    *ds += f * (dy.wide() * b.wide());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::row::testing::same_bits;
    use crate::device::Write;
    use crate::naive::testing::{SIZES, assert_close, gradient, numbers, wide};
    use crate::{cpu::row, naive};

    #[test]
    fn residual_equals_its_naive_twin() {
        for (rows, d) in SIZES {
            let [skip, branch, dy] = [1, 2, 3].map(|seed| numbers(seed, rows * d));
            let (s, f) = (numbers(4, d), numbers(5, rows));
            for scale in [Some(&s[..]), None] {
                for factor in [Some(&f[..]), None] {
                    let [got, want] =
                        [row::residual, naive::residual::<f32, f32>].map(|residual| {
                            let mut y = vec![9.0; rows * d];
                            residual(&mut y, &skip, &branch, scale, factor, d);
                            y
                        });
                    assert_close("y", &got, &want, 2e-7); // three roundings
                    let twins = [row::residual_backward, naive::residual_backward::<f32, f32>];
                    let [got, want] = twins.map(|backward| {
                        let (mut db, mut ds) = (vec![9.0; rows * d], vec![1.0; d]);
                        let dscale = scale.is_some().then_some(&mut ds[..]);
                        backward(Write::Set(&mut db[..]), dscale, &dy, &branch, scale, factor, d);
                        (db, ds)
                    });
                    assert_close("dbranch", &got.0, &want.0, 2e-7); // two roundings
                    assert_close("dscale", &got.1, &want.1, 2e-6); // f32 sums of 130 rows
                }
            }
        }
    }

    #[test]
    fn residual_gradient_is_the_slope_of_its_forward() {
        let [skip, branch, dy] = [1, 2, 3].map(|seed| wide(&numbers(seed, 12)));
        let (s, f) = (wide(&numbers(4, 4)), wide(&numbers(5, 3)));
        let loss = |branch: &[f64], s: &[f64]| {
            let mut y = vec![0.0; 12];
            naive::residual(&mut y, &skip, branch, Some(s), Some(&f), 4);
            y.iter().zip(&dy).map(|(y, dy)| y * dy).sum::<f64>()
        };
        let (mut db, mut ds) = (vec![0.0; 12], vec![0.0; 4]);
        naive::residual_backward(
            Write::Set(&mut db[..]),
            Some(&mut ds[..]),
            &dy,
            &branch,
            Some(&s),
            Some(&f),
            4,
        );
        assert_close("dbranch", &db, &gradient(&branch, |branch| loss(branch, &s)), 1e-8);
        assert_close("dscale", &ds, &gradient(&s, |s| loss(&branch, s)), 1e-8);
    }

    #[test]
    fn residual_gives_the_same_bits_on_any_threads_and_instructions() {
        let (rows, d) = (1300, 96);
        let (x, s, f) = (numbers(1, rows * d), numbers(2, d), numbers(3, rows));
        same_bits(|| {
            let (mut y, mut ds) = (vec![0.0; rows * d], vec![0.0; d]);
            row::residual(&mut y, &x, &x, Some(&s), Some(&f), d);
            let mut db = vec![0.0; rows * d];
            row::residual_backward(
                Write::Set(&mut db[..]),
                Some(&mut ds),
                &y,
                &x,
                Some(&s),
                Some(&f),
                d,
            );
            [y, db, ds].concat()
        });
    }
}
