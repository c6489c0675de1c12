//! Work divided by rows. The size of a task depends only on the shapes, never on the number of
//! threads, so every sum has the same order on any machine.

use crate::pool::{LANE, Lane};
use rayon::prelude::*;
use std::cell::Cell;

/// Smallest number of values of one operand in a task: about ten microseconds of work (guess).
const TASK_VALUES: usize = 16 * 1024;

/// Largest number of partial sums of a reduction.
const MAX_PARTIALS: usize = 64;

/// Rows of one task if rows do not depend on each other.
pub(crate) fn rows_per_task(width: usize) -> usize {
    (TASK_VALUES / width.max(1)).max(1)
}

/// Rows of one task if each task computes a partial sum.
pub(crate) fn rows_per_partial(rows: usize, width: usize) -> usize {
    rows_per_task(width).max(rows.div_ceil(MAX_PARTIALS))
}

/// Operands that can be split between two rows.
pub(crate) trait Rows: Send + Sized {
    /// The rows before `row`, and the rest.
    fn cut(self, row: usize) -> (Self, Self);
}

/// Rows to read, each of `1` values.
pub(crate) struct In<'a, T>(pub(crate) &'a [T], pub(crate) usize);

impl<T: Sync> Rows for In<'_, T> {
    fn cut(self, row: usize) -> (Self, Self) {
        let (before, rest) = self.0.split_at(row * self.1);
        (In(before, self.1), In(rest, self.1))
    }
}

/// Rows to write, each of `1` values.
pub(crate) struct Out<'a, T>(pub(crate) &'a mut [T], pub(crate) usize);

impl<T: Send> Rows for Out<'_, T> {
    fn cut(self, row: usize) -> (Self, Self) {
        let (before, rest) = self.0.split_at_mut(row * self.1);
        (Out(before, self.1), Out(rest, self.1))
    }
}

/// One partial result of `1` values for every `2` rows.
pub(crate) struct Partial<'a, T>(pub(crate) &'a mut [T], pub(crate) usize, pub(crate) usize);

impl<T: Send> Rows for Partial<'_, T> {
    fn cut(self, row: usize) -> (Self, Self) {
        let (before, rest) = self.0.split_at_mut(row / self.2 * self.1);
        (Partial(before, self.1, self.2), Partial(rest, self.1, self.2))
    }
}

impl<V: Rows> Rows for Option<V> {
    fn cut(self, row: usize) -> (Self, Self) {
        self.map(|operand| operand.cut(row)).unzip()
    }
}

macro_rules! rows_of_tuples {
    ($($($v:ident $before:ident $rest:ident),+;)+) => {$(
        impl<$($v: Rows),+> Rows for ($($v,)+) {
            #[allow(non_snake_case)]
            fn cut(self, row: usize) -> (Self, Self) {
                let ($($v,)+) = self;
                $(let ($before, $rest) = $v.cut(row);)+
                (($($before,)+), ($($rest,)+))
            }
        }
    )+};
}
rows_of_tuples! {
    A a0 a1, B b0 b1;
    A a0 a1, B b0 b1, C c0 c1;
    A a0 a1, B b0 b1, C c0 c1, D d0 d1;
    A a0 a1, B b0 b1, C c0 c1, D d0 d1, E e0 e1;
    A a0 a1, B b0 b1, C c0 c1, D d0 d1, E e0 e1, F f0 f1;
}

/// Calls `task(first row, its operands)` for every `per_task` rows, in parallel.
pub(crate) fn for_rows<V: Rows>(
    rows: usize,
    per_task: usize,
    operands: V,
    task: impl Fn(usize, V) + Sync,
) {
    if rows > 0 {
        halve(0, rows, per_task, operands, &task);
    }
}

fn halve<V: Rows>(
    first: usize,
    rows: usize,
    per_task: usize,
    operands: V,
    task: &(impl Fn(usize, V) + Sync),
) {
    if rows <= per_task {
        return task(first, operands);
    }
    let half = rows.div_ceil(per_task) / 2 * per_task;
    let (before, rest) = operands.cut(half);
    rayon::join(
        || halve(first, half, per_task, before, task),
        || halve(first + half, rows - half, per_task, rest, task),
    );
}

/// Calls `task(index)` for every index below `count`, in parallel. Any idle thread may take any
/// task that has not started, so tasks may differ in length.
pub(crate) fn for_tasks(count: usize, task: impl Fn(usize) + Send + Sync) {
    (0..count).into_par_iter().with_max_len(1).for_each(task);
}

/// Calls `task` with every item, in parallel. A task may divide its work again.
pub(crate) fn for_each<T: Send>(items: Vec<T>, task: impl Fn(T) + Send + Sync) {
    items.into_par_iter().with_max_len(1).for_each(task);
}

/// Memory that a thread keeps from one call to the next. It is not a buffer of the pool: the thread
/// with the largest task varies, so this memory may grow long after the first steps.
pub(crate) struct Scratch(Vec<Lane>);

impl Scratch {
    /// Parts of the given lengths with arbitrary content. Each starts at a cache line.
    pub(crate) fn parts<const COUNT: usize>(
        &mut self,
        lengths: [usize; COUNT],
    ) -> [&mut [f32]; COUNT] {
        let lanes: usize = lengths.iter().map(|length| length.div_ceil(LANE)).sum();
        if self.0.len() < lanes {
            self.0 = vec![Lane::ZERO; lanes.next_power_of_two()];
        }
        let mut rest: &mut [f32] = bytemuck::cast_slice_mut(&mut self.0);
        lengths.map(|length| {
            let (part, after) =
                std::mem::take(&mut rest).split_at_mut(length.next_multiple_of(LANE));
            rest = after;
            // A read of what was not written shows in every test.
            #[cfg(test)]
            part.fill(f32::NAN);
            &mut part[..length]
        })
    }
}

/// Calls `work` with this thread's scratch.
pub(crate) fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    thread_local! {
        static SCRATCH: Cell<Option<Scratch>> = const { Cell::new(None) };
    }
    let mut scratch = SCRATCH.take().unwrap_or(Scratch(Vec::new()));
    let result = work(&mut scratch);
    SCRATCH.set(Some(scratch));
    result
}

/// Calls `work` with `len` zeros.
pub(crate) fn with_zeros<T>(len: usize, work: impl FnOnce(&mut [f32]) -> T) -> T {
    with_scratch(|scratch| {
        let [zeros] = scratch.parts([len]);
        zeros.fill(0.0);
        work(zeros)
    })
}

/// The sum of `task(first row, its operands)` over fixed ranges of rows, added in the order of the
/// rows.
pub(crate) fn sum_rows<V: Rows>(
    rows: usize,
    width: usize,
    operands: V,
    task: impl Fn(usize, V) -> f64 + Sync,
) -> f64 {
    let per_task = rows_per_partial(rows, width);
    let mut partials = [0.0; MAX_PARTIALS];
    let used = rows.div_ceil(per_task);
    for_rows(
        rows,
        per_task,
        (Partial(&mut partials[..used], 1, per_task), operands),
        |first, (sum, operands)| sum.0[0] = task(first, operands),
    );
    partials[..used].iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_given_to_one_task_with_its_operands() {
        for rows in [0, 1, 2, 7, 8, 9, 130] {
            let (mut y, x) = (vec![0; rows * 3], (0..rows).collect::<Vec<_>>());
            let mut firsts = vec![0; rows.div_ceil(4)];
            for_rows(
                rows,
                4,
                (Out(&mut y, 3), In(&x, 1), Partial(&mut firsts, 1, 4)),
                |first, (y, x, partial)| {
                    assert_eq!((x.0[0], first % 4), (first, 0));
                    partial.0[0] += first + 1;
                    y.0.chunks_mut(3).zip(x.0).for_each(|(y, &x)| y.fill(x + 1));
                },
            );
            assert!(y.chunks(3).enumerate().all(|(r, y)| y == [r + 1; 3]));
            assert!(firsts.iter().enumerate().all(|(i, &first)| first == 4 * i + 1));
        }
    }

    #[test]
    fn scratch_is_zero_and_may_be_nested() {
        with_zeros(5, |outer| {
            outer.fill(1.0);
            with_zeros(9, |inner| assert_eq!(inner, [0.0; 9]));
            assert_eq!(outer, [1.0; 5]);
        });
        with_zeros(7, |again| assert_eq!(again, [0.0; 7]));
    }
}
