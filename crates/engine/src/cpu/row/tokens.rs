//! Moves of rows: gather, assemble, and the mean of each sample's rows.

use super::lanes::{add, each, each2};
use super::layer_norm::add_partials;
use super::set_or_add;
use crate::cpu::dispatch::multiversion;
use crate::cpu::parallel::{
    In, Out, Partial, for_rows, rows_per_partial, rows_per_task, with_zeros,
};
use crate::device::{Row, Write};
use crate::dtype::{Dtype, Element};

/// y[K,D] = x[index_k]; x[R,D]. Indices may repeat.
pub(crate) fn gather<T: Element>(y: &mut [T], x: &[T], index: &[u32], d: usize) {
    assert_eq!(y.len(), index.len() * d, "gather: y is [K, D]");
    let operands = (Out(y, d), In(index, 1));
    for_rows(index.len(), rows_per_task(d), operands, |_, (y, index)| {
        for (y, &i) in y.0.chunks_exact_mut(d).zip(index.0) {
            y.copy_from_slice(row(x, i, d));
        }
    });
}

/// dx[index_k] += dy[k]; dx[R,D], dy[K,D]. Every row of dx is summed in the order of k.
pub(crate) fn gather_backward<T: Element>(dx: &mut [T], dy: &[T], index: &[u32], d: usize) {
    assert_eq!(dy.len(), index.len() * d, "gather_backward: dy is [K, D]");
    let per_task = rows_per_partial(index.len(), d);
    // If many rows are added to a few rows (a mask token), each range of k has a partial sum. Else
    // each task owns rows of dx and searches the index for them.
    if dx.len() <= per_task * d && index.len() > per_task {
        return gather_backward_by_source(dx, dy, index, d, per_task);
    }
    let rows = dx.len() / d;
    for_rows(rows, rows_per_partial(rows, d), Out(dx, d), |first, dx| match T::DTYPE {
        Dtype::F32 => scatter_rows(dx.0, dy, index, d, first),
        // The sum is rounded once.
        Dtype::Bf16 => with_zeros(dx.0.len(), |sum| {
            scatter_rows(sum, dy, index, d, first);
            add_row(dx.0, sum);
        }),
    });
}

fn gather_backward_by_source<T: Element>(
    dx: &mut [T],
    dy: &[T],
    index: &[u32],
    d: usize,
    per_task: usize,
) {
    let width = dx.len();
    with_zeros((index.len().div_ceil(per_task) + 1) * width, |partials| {
        let (sum, partials) = partials.split_at_mut(width);
        let operands = (Partial(partials, width, per_task), In(dy, d), In(index, 1));
        for_rows(index.len(), per_task, operands, |_, (partial, dy, index)| {
            scatter_rows(partial.0, dy.0, index.0, d, 0);
        });
        each(sum, dx, |dx| dx);
        add_partials(sum, partials, width, 0);
        each(dx, sum, |sum| sum);
    });
}

#[expect(clippy::needless_pass_by_value, reason = "a kernel's views become a list of slices")]
/// y[r] = x or token row `rows[r]`, plus row `positions[r]` of the position table if that is not
/// negative. x[R,D]; each token table [P_i,D]; position = (table[N,D], positions[len of rows]).
pub(crate) fn assemble<T: Element>(
    y: &mut [T],
    x: &[T],
    tokens: Vec<&[f32]>,
    rows: &[Row],
    position: Option<(&[f32], &[i32])>,
    d: usize,
) {
    assert_eq!(y.len(), rows.len() * d, "assemble: y is [rows, D]");
    for_rows(rows.len(), rows_per_task(d), (Out(y, d), In(rows, 1)), |first, (y, rows)| {
        for (r, (y, &from)) in y.0.chunks_exact_mut(d).zip(rows.0).enumerate() {
            let place = position.and_then(|(table, positions)| {
                Some(row(table, u32::try_from(positions[first + r]).ok()?, d))
            });
            match from {
                Row::X(i) => assemble_row(y, row(x, i, d), place),
                Row::Token(i) => assemble_row(y, token(&tokens, i as usize, d), place),
            }
        }
    });
}

/// y[B,D] = mean of each sample's rows without its first `skip` rows, or 0 if none are left.
/// x[R,D]; sample b has the rows offsets[b]..offsets[b + 1].
pub(crate) fn mean_pool(y: &mut [f32], x: &[f32], offsets: &[usize], skip: usize, d: usize) {
    assert_eq!(y.len() / d + 1, offsets.len(), "mean_pool: y is [B, D]");
    for_rows(offsets.len() - 1, 1, Out(y, d), |sample, y| {
        y.0.fill(0.0);
        let rows = offsets[sample] + skip..offsets[sample + 1];
        if !rows.is_empty() {
            mean_rows(y.0, &x[rows.start * d..rows.end * d]);
        }
    });
}

/// dx[R,D] = dy[sample of r] / its number of rows, 0 for skipped rows. dy[B,D].
pub(crate) fn mean_pool_backward(
    dx: Write<&mut [f32]>,
    dy: &[f32],
    offsets: &[usize],
    skip: usize,
    d: usize,
) {
    set_or_add(dx, |dx| set_mean_gradient(dx, dy, offsets, skip, d));
}

fn set_mean_gradient(dx: &mut [f32], dy: &[f32], offsets: &[usize], skip: usize, d: usize) {
    assert_eq!(dy.len() / d + 1, offsets.len(), "mean_pool_backward: dy is [B, D]");
    for_rows(dx.len() / d, rows_per_task(d), Out(dx, d), |first, dx| {
        // The last sample that starts at or before the row. Empty samples before it are skipped.
        let mut sample = offsets.partition_point(|&offset| offset <= first) - 1;
        for (r, dx) in dx.0.chunks_exact_mut(d).enumerate() {
            while offsets[sample + 1] <= first + r {
                sample += 1;
            }
            let begin = offsets[sample] + skip;
            if first + r < begin {
                dx.fill(0.0);
            } else {
                let factor = 1.0 / (offsets[sample + 1] - begin) as f32;
                scaled_row(dx, row(dy, sample as u32, d), factor);
            }
        }
    });
}

fn row<T>(table: &[T], i: u32, d: usize) -> &[T] {
    &table[i as usize * d..][..d]
}

/// Row i of all tables, counted as one table.
fn token<'a>(tokens: &[&'a [f32]], mut i: usize, d: usize) -> &'a [f32] {
    for table in tokens {
        if i < table.len() / d {
            return &table[i * d..][..d];
        }
        i -= table.len() / d;
    }
    panic!("assemble: {} token rows, a row {i} beyond them", tokens.len())
}

multiversion! {
    fn add_row<T: Element>(y: &mut [T], x: &[f32]) {
        add(y, x);
    }

    fn assemble_row<T: Element, X: Element>(y: &mut [T], x: &[X], place: Option<&[f32]>) {
        match place {
            Some(place) => each2(y, x, place, |x, place| x + place),
            None => each(y, x, |x| x),
        }
    }

    fn scaled_row(y: &mut [f32], x: &[f32], a: f32) {
        each(y, x, |x| a * x);
    }

    fn scatter_rows<S: Element, T: Element>(
        dx: &mut [S], dy: &[T], index: &[u32], d: usize, first: usize) {
        let rows = first..first + dx.len() / d;
        for (&i, dy) in index.iter().zip(dy.chunks_exact(d)) {
            if rows.contains(&(i as usize)) {
                let dx = &mut dx[(i as usize - first) * d..][..d];
                add(dx, dy);
            }
        }
    }

    fn mean_rows(y: &mut [f32], x: &[f32]) {
        let d = y.len();
        for x in x.chunks_exact(d) {
            add(y, x);
        }
        let factor = 1.0 / (x.len() / d) as f32;
        for y in y {
            *y *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::row::testing::same_bits;
    use crate::device::{Row, Write};
    use crate::naive::testing::{SIZES, assert_close, gradient, indices, numbers, wide};
    use crate::{cpu::row, naive};

    #[test]
    fn gather_equals_its_naive_twin() {
        for (k, d) in SIZES {
            // Fewer and more rows than the index, and one row to which all rows are added.
            for rows in [1, 9, 200] {
                let (x, index) = (numbers(1, rows * d), indices(2, k, rows));
                let twins = [row::gather, naive::gather::<f32>];
                let [got, want] = twins.map(|gather| {
                    let mut y = vec![9.0; k * d];
                    gather(&mut y, &x, &index, d);
                    y
                });
                assert_eq!(got, want);
                let dy = numbers(3, k * d);
                let [got, want] = [row::gather_backward, naive::gather_backward::<f32>].map(|f| {
                    let mut dx = x.clone();
                    f(&mut dx, &dy, &index, d);
                    dx
                });
                assert_close("dx", &got, &want, 5e-6); // f32 sums of up to 130 rows, cancelling
            }
        }
    }

    #[test]
    fn gather_backward_sums_many_rows_into_one() {
        let (k, d) = (3000, 96);
        let dy = numbers(1, k * d);
        for rows in [1, 3] {
            let index = indices(2, k, rows);
            let [got, want] = [row::gather_backward, naive::gather_backward::<f32>].map(|f| {
                let mut dx = vec![1.0; rows * d];
                f(&mut dx, &dy, &index, d);
                dx
            });
            assert_close("dx", &got, &want, 2e-6); // f32 sums of 3000 values
        }
    }

    #[test]
    fn gather_gradient_is_the_slope_of_its_forward() {
        let (x, dy) = (wide(&numbers(1, 12)), wide(&numbers(2, 15)));
        let index = [3, 0, 3, 2, 3];
        let mut dx = vec![0.0; 12];
        naive::gather_backward(&mut dx, &dy, &index, 3);
        let slope = gradient(&x, |x| {
            let mut y = vec![0.0; 15];
            naive::gather(&mut y, x, &index, 3);
            y.iter().zip(&dy).map(|(y, dy)| y * dy).sum()
        });
        assert_close("dx", &dx, &slope, 1e-8);
    }

    #[test]
    fn assemble_equals_its_naive_twin() {
        for (n, d) in SIZES {
            let (x, table) = (numbers(1, 20 * d), numbers(2, 30 * d));
            let (one, two) = (numbers(3, d), numbers(4, 2 * d));
            let from = indices(5, n, 23).into_iter();
            let rows: Vec<Row> =
                from.map(|i| if i < 20 { Row::X(i) } else { Row::Token(i - 20) }).collect();
            let positions: Vec<i32> = indices(6, n, 31).into_iter().map(|i| i as i32 - 1).collect();
            for position in [Some((&table[..], &positions[..])), None] {
                let [got, want] = [row::assemble, naive::assemble::<f32, f32>].map(|assemble| {
                    let mut y = vec![9.0; n * d];
                    assemble(&mut y, &x, vec![&one, &two], &rows, position, d);
                    y
                });
                assert_close("y", &got, &want, 1e-7);
            }
        }
    }

    #[test]
    fn mean_pool_equals_its_naive_twin() {
        let offsets = [0, 3, 3, 4, 20, 131, 131, 140];
        for (d, skip) in [(1, 0), (5, 1), (96, 0), (385, 2), (192, 5)] {
            let (x, dy) = (numbers(1, 140 * d), numbers(2, 7 * d));
            let [got, want] = [row::mean_pool, naive::mean_pool::<f32>].map(|mean_pool| {
                let mut y = vec![9.0; 7 * d];
                mean_pool(&mut y, &x, &offsets, skip, d);
                y
            });
            assert_close("y", &got, &want, 1e-6); // f32 sums of 111 rows
            let twins = [row::mean_pool_backward, naive::mean_pool_backward::<f32>];
            let [got, want] = twins.map(|backward| {
                let mut dx = vec![9.0; 140 * d];
                backward(Write::Set(&mut dx), &dy, &offsets, skip, d);
                dx
            });
            assert_close("dx", &got, &want, 2e-7); // two roundings
        }
    }

    #[test]
    fn mean_pool_gradient_is_the_slope_of_its_forward() {
        let (x, dy) = (wide(&numbers(1, 24)), wide(&numbers(2, 9)));
        let offsets = [0, 3, 4, 8];
        let mut dx = vec![0.0; 24];
        naive::mean_pool_backward(Write::Set(&mut dx[..]), &dy, &offsets, 1, 3);
        let slope = gradient(&x, |x| {
            let mut y = vec![0.0; 9];
            naive::mean_pool(&mut y, x, &offsets, 1, 3);
            y.iter().zip(&dy).map(|(y, dy)| y * dy).sum()
        });
        assert_close("dx", &dx, &slope, 1e-8);
    }

    #[test]
    fn token_kernels_give_the_same_bits_on_any_threads_and_instructions() {
        let d = 96;
        let (x, index) = (numbers(1, 2000 * d), indices(2, 2000, 500));
        same_bits(|| {
            let (mut dx, mut token) = (vec![0.0; 500 * d], vec![0.0; d]);
            row::gather_backward(&mut dx, &x, &index, d);
            row::gather_backward(&mut token, &x, &[0; 2000], d);
            let (mut y, mut back) = (vec![0.0; 2 * d], vec![0.0; 2000 * d]);
            row::mean_pool(&mut y, &x, &[0, 900, 2000], 1, d);
            row::mean_pool_backward(Write::Set(&mut back), &y, &[0, 900, 2000], 1, d);
            [dx, token, y, back].concat()
        });
    }
}
