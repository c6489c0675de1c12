//! Elementwise kernels.

use super::lanes::{add, each};
use crate::cpu::dispatch::multiversion;
use crate::cpu::parallel::{In, Out, for_each, for_rows, rows_per_task};
use crate::device::Write;
use crate::dtype::Element;
use crate::pool::HostBuffer;

/// y = values
pub(crate) fn upload<T: Element>(y: &mut [T], values: &[f32]) {
    round(y, values);
}

/// y = x
pub(crate) fn copy<T: Element>(y: &mut [T], x: &[T]) {
    y.copy_from_slice(x);
}

/// y = x, in f32.
pub(crate) fn widen<T: Element>(y: &mut [f32], x: &[T]) {
    convert(y, x);
}

/// y = x, rounded.
pub(crate) fn round<T: Element>(y: &mut [T], x: &[f32]) {
    convert(y, x);
}

fn convert<Y: Element, X: Element>(y: &mut [Y], x: &[X]) {
    assert_eq!(y.len(), x.len(), "conversion: lengths");
    for_rows(x.len(), rows_per_task(1), (Out(y, 1), In(x, 1)), |_, (y, x)| {
        convert_values(y.0, x.0);
    });
}

/// y = a, of each y.
pub(crate) fn fill<T: Element>(ys: Vec<&mut [T]>, a: f32) {
    let a = T::round(a);
    for_each(ys, |y| for_rows(y.len(), rows_per_task(1), Out(y, 1), |_, y| y.0.fill(a)));
}

/// Applies `kernel`, which overwrites its output, as `write` requires. To add, the kernel gets its
/// own buffer.
pub(crate) fn set_or_add<T: Element>(write: Write<&mut [T]>, kernel: impl FnOnce(&mut [T])) {
    match write {
        Write::Set(y) => kernel(y),
        Write::Add(y) => {
            let mut part =
                HostBuffer::dirty((y.len() * T::DTYPE.size()).div_ceil(size_of::<f32>()));
            let part = &mut bytemuck::cast_slice_mut(part.as_mut_slice())[..y.len()];
            kernel(part);
            add_assign(y, part);
        }
    }
}

/// y += x
pub(crate) fn add_assign<T: Element>(y: &mut [T], x: &[T]) {
    assert_eq!(y.len(), x.len(), "add_assign: lengths");
    for_rows(y.len(), rows_per_task(1), (Out(y, 1), In(x, 1)), |_, (y, x)| add_values(y.0, x.0));
}

/// y = a y, of each y.
pub(crate) fn scale(ys: Vec<&mut [f32]>, a: f32) {
    for_each(ys, |y| for_rows(y.len(), rows_per_task(1), Out(y, 1), |_, y| scale_values(y.0, a)));
}

multiversion! {
    fn add_values<T: Element>(y: &mut [T], x: &[T]) {
        add(y, x);
    }

    fn convert_values<Y: Element, X: Element>(y: &mut [Y], x: &[X]) {
        each(y, x, |x| x);
    }

    fn scale_values(y: &mut [f32], a: f32) {
        for y in y {
            *y *= a;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::row::testing::same_bits;
    use crate::naive::testing::{SIZES, assert_close, numbers};
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
                (changed(&|y| row::scale(vec![y], 0.3)), changed(&|y| naive::scale(vec![y], 0.3))),
            ];
            for (name, (got, want)) in ["add", "scale"].iter().zip(&pairs) {
                assert_close(name, got, want, 1e-6); // one rounding
            }
        }
    }

    #[test]
    fn elementwise_kernels_give_the_same_bits_on_any_threads_and_instructions() {
        let x = numbers(1, 100_001);
        same_bits(|| {
            let mut y = x.clone();
            row::add_assign(&mut y, &x);
            row::scale(vec![&mut y], 1.1);
            y
        });
    }
}
