//! Work on values one by one.

use super::lanes::each;
use crate::cpu::dispatch::multiversion;
use crate::cpu::math::gelu_grad;
use crate::cpu::parallel::{In, Out, for_rows, rows_per_task};

/// y += x
pub(crate) fn add_assign(y: &mut [f32], x: &[f32]) {
    assert_eq!(y.len(), x.len(), "add_assign: lengths");
    for_rows(y.len(), rows_per_task(1), (Out(y, 1), In(x, 1)), |_, (y, x)| add_values(y.0, x.0));
}

/// y = a y
pub(crate) fn scale(y: &mut [f32], a: f32) {
    for_rows(y.len(), rows_per_task(1), Out(y, 1), |_, y| scale_values(y.0, a));
}

/// dpre = dy GELU'(pre), GELU being the exact one: x Φ(x).
pub(crate) fn gelu_backward(dpre: &mut [f32], dy: &[f32], pre: &[f32]) {
    assert_eq!((dpre.len(), dy.len()), (pre.len(), pre.len()), "gelu_backward: lengths");
    let operands = (Out(dpre, 1), In(dy, 1), In(pre, 1));
    for_rows(pre.len(), rows_per_task(1), operands, |_, (dpre, dy, pre)| {
        gelu_backward_values(dpre.0, dy.0, pre.0);
    });
}

multiversion! {
    fn add_values(y: &mut [f32], x: &[f32]) {
        each(y, x, |y, x| *y += x);
    }

    fn scale_values(y: &mut [f32], a: f32) {
        for y in y {
            *y *= a;
        }
    }

    fn gelu_backward_values(dpre: &mut [f32], dy: &[f32], pre: &[f32]) {
        for ((dpre, dy), &pre) in dpre.iter_mut().zip(dy).zip(pre) {
            *dpre = dy * gelu_grad(pre);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::row::testing::same_bits;
    use crate::naive::testing::{SIZES, assert_close, gradient, numbers};
    use crate::{cpu::row, naive};

    #[test]
    fn elementwise_kernels_equal_their_naive_twins() {
        for len in SIZES.map(|(rows, d)| rows * d) {
            let (x, y) = (numbers(1, len), numbers(2, len));
            let changed = |f: &dyn Fn(&mut [f32])| {
                let mut y = y.clone();
                f(&mut y);
                y
            };
            let pairs = [
                (changed(&|y| row::add_assign(y, &x)), changed(&|y| naive::add_assign(y, &x))),
                (changed(&|y| row::scale(y, 0.3)), changed(&|y| naive::scale(y, 0.3))),
                (
                    changed(&|y| row::gelu_backward(y, &x, &x)),
                    changed(&|y| naive::gelu_backward(y, &x, &x)),
                ),
            ];
            for (name, (got, want)) in ["add", "scale", "gelu"].iter().zip(&pairs) {
                assert_close(name, got, want, 1e-6); // one or two roundings; erf's polynomial
            }
        }
    }

    #[test]
    fn gelu_gradient_is_the_slope_of_its_forward() {
        let x: Vec<f64> = (-60..60).map(|i| f64::from(i) * 0.1 + 0.05).collect();
        let mut dpre = vec![0.0; x.len()];
        naive::gelu_backward(&mut dpre, &vec![1.0; x.len()], &x);
        let slope = gradient(&x, |x| {
            let mut y = vec![0.0; x.len()];
            naive::gelu(&mut y, x);
            y.iter().sum()
        });
        assert_close("dpre", &dpre, &slope, 1e-7);
    }

    #[test]
    fn elementwise_kernels_give_the_same_bits_on_any_threads_and_instructions() {
        let x = numbers(1, 100_001);
        same_bits(|| {
            let mut y = x.clone();
            row::add_assign(&mut y, &x);
            row::scale(&mut y, 1.1);
            let mut dpre = vec![0.0; x.len()];
            row::gelu_backward(&mut dpre, &x, &y);
            [y, dpre].concat()
        });
    }
}
