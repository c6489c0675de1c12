//! Rotary positions: pairs of values of each head, turned by the factors of their row's place.

use super::set_or_add;
use crate::cpu::dispatch::multiversion;
use crate::cpu::parallel::{In, Out, for_rows, rows_per_task};
use crate::device::{HeadColumns, Rotation, Write};
use crate::dtype::Element;

/// y[R,S] with every head of the columns turned by the factors [P, c[E] s[E]] of its row's place.
pub(crate) fn rope<T: Element>(
    y: Write<&mut [T]>,
    x: &[T],
    factors: &[f32],
    places: &[u32],
    columns: &HeadColumns,
    rotation: Rotation,
) {
    let s = columns.stride;
    assert_eq!(places.len() * s, x.len(), "rope: x is [places, S]");
    set_or_add(y, |y| {
        assert_eq!(y.len(), x.len(), "rope: y and x");
        let operands = (Out(y, s), In(x, s), In(places, 1));
        for_rows(places.len(), rows_per_task(s), operands, |_, (y, x, places)| match rotation {
            Rotation::Forward => forward_rows(y.0, x.0, factors, places.0, columns),
            Rotation::Transposed => transposed_rows(y.0, x.0, factors, places.0, columns),
        });
    });
}

multiversion! {
    fn forward_rows<T: Element>(
        y: &mut [T], x: &[T], factors: &[f32], places: &[u32], columns: &HeadColumns,
    ) {
        rows(y, x, factors, places, columns, |[c0, c1], [s0, s1], [x0, x1]| {
            [c0 * x0 + s0 * x1, c1 * x1 + s1 * x0]
        });
    }

    fn transposed_rows<T: Element>(
        y: &mut [T], x: &[T], factors: &[f32], places: &[u32], columns: &HeadColumns,
    ) {
        rows(y, x, factors, places, columns, |[c0, c1], [s0, s1], [x0, x1]| {
            [c0 * x0 + s1 * x1, c1 * x1 + s0 * x0]
        });
    }
}

/// Sets each pair of each head to `turn(c, s, x)`.
#[inline(always)]
fn rows<T: Element>(
    y: &mut [T],
    x: &[T],
    factors: &[f32],
    places: &[u32],
    columns: &HeadColumns,
    turn: impl Fn([f32; 2], [f32; 2], [f32; 2]) -> [f32; 2],
) {
    let (s, e) = (columns.stride, columns.head_dim);
    for ((y, x), &place) in y.chunks_exact_mut(s).zip(x.chunks_exact(s)).zip(places) {
        let (cos, sin) = factors[2 * e * place as usize..][..2 * e].split_at(e);
        let (cos, sin) = (cos.as_chunks::<2>().0, sin.as_chunks::<2>().0);
        let turned = columns.columns.clone();
        y[..turned.start].copy_from_slice(&x[..turned.start]);
        y[turned.end..].copy_from_slice(&x[turned.end..]);
        let (y, x) = (&mut y[turned.clone()], &x[turned]);
        for (y, x) in y.chunks_exact_mut(e).zip(x.chunks_exact(e)) {
            let pairs = y.as_chunks_mut::<2>().0.iter_mut().zip(x.as_chunks::<2>().0);
            for ((y, x), (&c, &s)) in pairs.zip(cos.iter().zip(sin)) {
                let [y0, y1] = turn(c, s, [x[0].wide(), x[1].wide()]);
                *y = [T::round(y0), T::round(y1)];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::row::testing::same_bits;
    use crate::device::{HeadColumns, Rotation, Write};
    use crate::naive::testing::{assert_close, gradient, indices, numbers, wide};
    use crate::{cpu::row, naive};

    const DIRECTIONS: [Rotation; 2] = [Rotation::Forward, Rotation::Transposed];

    #[test]
    fn rope_equals_its_naive_twin_for_every_width_of_a_head() {
        for head_dim in [2, 6, 16, 24, 32, 64, 80, 88, 104] {
            let (rows, heads, places) = (33, 3, 7);
            let columns = HeadColumns { columns: 5..5 + heads * head_dim, head_dim, stride: 320 };
            let (x, factors) = (numbers(1, rows * 320), numbers(2, places * 2 * head_dim));
            let places = indices(3, rows, places);
            for rotation in DIRECTIONS {
                let twins = [row::rope, naive::rope::<f32, f32>];
                let [got, want] = twins.map(|rope| {
                    let mut y = numbers(4, x.len());
                    rope(Write::Add(&mut y), &x, &factors, &places, &columns, rotation);
                    y
                });
                assert_close("y", &got, &want, 1e-6); // two products and two sums
            }
        }
    }

    #[test]
    fn the_transposed_rotation_is_the_slope_of_the_forward_one() {
        let columns = HeadColumns { columns: 2..10, head_dim: 4, stride: 11 };
        let [x, dy, factors] = [1, 2, 3].map(|seed| wide(&numbers(seed, 33)));
        let (factors, places) = (&factors[..24], [2, 0, 1]);
        let turned = |x: &[f64], rotation| {
            let mut y = vec![0.0; 33];
            naive::rope(Write::Set(&mut y[..]), x, factors, &places, &columns, rotation);
            y
        };
        let loss = |x: &[f64]| {
            let y = turned(x, Rotation::Forward);
            y.iter().zip(&dy).map(|(y, dy)| y * dy).sum()
        };
        assert_close("dx", &turned(&dy, Rotation::Transposed), &gradient(&x, loss), 1e-6);
    }

    #[test]
    fn rope_gives_the_same_bits_on_any_threads_and_instructions() {
        let columns = HeadColumns { columns: 0..128, head_dim: 32, stride: 192 };
        let (x, factors) = (numbers(1, 900 * 192), numbers(2, 50 * 64));
        let places = indices(3, 900, 50);
        same_bits(|| {
            let y = DIRECTIONS.map(|rotation| {
                let mut y = vec![0.0; x.len()];
                row::rope(Write::Set(&mut y), &x, &factors, &places, &columns, rotation);
                y
            });
            y.concat()
        });
    }
}
