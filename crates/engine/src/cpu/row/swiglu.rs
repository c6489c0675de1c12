//! The gate of SwiGLU.

use super::set_or_add;
use crate::cpu::dispatch::multiversion;
use crate::cpu::math::sigmoid;
use crate::cpu::parallel::{In, Out, for_rows, rows_per_task};
use crate::device::Write;
use crate::dtype::Element;

/// y[R,F] = silu(a) b, for x[R,2F] = [a, b].
pub(crate) fn swiglu<T: Element>(y: &mut [T], x: &[T], width: usize) {
    assert_eq!(2 * y.len(), x.len(), "swiglu: x");
    let rows = y.len() / width;
    for_rows(rows, rows_per_task(2 * width), (Out(y, width), In(x, 2 * width)), |_, (y, x)| {
        forward_rows(y.0, x.0, width);
    });
}

/// dx[R,2F]: da = dy b σ(a) (1 + a (1 - σ(a))), db = dy silu(a).
pub(crate) fn swiglu_backward<T: Element>(dx: Write<&mut [T]>, dy: &[T], x: &[T], width: usize) {
    set_or_add(dx, |dx| {
        assert_eq!((dx.len(), 2 * dy.len()), (x.len(), x.len()), "swiglu_backward: dx and dy");
        let operands = (Out(dx, 2 * width), In(dy, width), In(x, 2 * width));
        for_rows(dy.len() / width, rows_per_task(2 * width), operands, |_, (dx, dy, x)| {
            backward_rows(dx.0, dy.0, x.0, width);
        });
    });
}

multiversion! {
    fn forward_rows<T: Element>(y: &mut [T], x: &[T], width: usize) {
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(2 * width)) {
            let (a, b) = x.split_at(width);
            for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
                let a = a.wide();
                *y = T::round(a * sigmoid(a, false) * b.wide());
            }
        }
    }

    fn backward_rows<T: Element>(dx: &mut [T], dy: &[T], x: &[T], width: usize) {
        let rows = dx.chunks_exact_mut(2 * width).zip(dy.chunks_exact(width));
        for ((dx, dy), x) in rows.zip(x.chunks_exact(2 * width)) {
            let ((a, b), (da, db)) = (x.split_at(width), dx.split_at_mut(width));
            for ((((da, db), dy), a), b) in da.iter_mut().zip(db).zip(dy).zip(a).zip(b) {
                let (a, dy) = (a.wide(), dy.wide());
                let gate = sigmoid(a, false);
                *da = T::round(dy * b.wide() * gate * (1.0 + a * (1.0 - gate)));
                *db = T::round(dy * a * gate);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::row::testing::same_bits;
    use crate::device::Write;
    use crate::naive::testing::{SIZES, assert_close, numbers};
    use crate::{cpu::row, naive};

    #[test]
    fn swiglu_equals_its_naive_twin() {
        for (rows, width) in SIZES {
            // Some gates are closed, or open, as far as f32 goes.
            let mut x = numbers(1, 2 * rows * width);
            x.iter_mut().step_by(5).for_each(|x| *x *= 100.0);
            let dy = numbers(2, rows * width);
            let [got, want] = [row::swiglu, naive::swiglu::<f32>].map(|swiglu| {
                let mut y = vec![9.0; rows * width];
                swiglu(&mut y, &x, width);
                y
            });
            assert_close("y", &got, &want, 1e-6); // exp2's 2e-7 and three roundings
            let twins = [row::swiglu_backward, naive::swiglu_backward::<f32>];
            let [got, want] = twins.map(|backward| {
                let mut dx = vec![9.0; 2 * rows * width];
                backward(Write::Set(&mut dx), &dy, &x, width);
                dx
            });
            assert_close("dx", &got, &want, 1e-6); // and 1 - σ of a large a is 0
        }
    }

    #[test]
    fn swiglu_gives_the_same_bits_on_any_threads_and_instructions() {
        let x = numbers(1, 300 * 770);
        same_bits(|| {
            let (mut y, mut dx) = (vec![0.0; 300 * 385], vec![0.0; x.len()]);
            row::swiglu(&mut y, &x, 385);
            row::swiglu_backward(Write::Set(&mut dx), &y, &x, 385);
            [y, dx].concat()
        });
    }
}
