//! Moves and pooling of rows.

use super::{Real, add, set_or_add};
use crate::device::{Row, Write};

/// y[K,D] = x[index_k]
pub fn gather<T: Real>(y: &mut [T], x: &[T], index: &[u32], d: usize) {
    for k in 0..index.len() {
        for i in 0..d {
            y[k * d + i] = x[index[k] as usize * d + i];
        }
    }
}

/// dx[index_k] += dy[k]
pub fn gather_backward<T: Real>(dx: &mut [T], dy: &[T], index: &[u32], d: usize) {
    let mut sums = vec![0.0; dx.len()];
    for k in 0..index.len() {
        for i in 0..d {
            sums[index[k] as usize * d + i] += dy[k * d + i].f64();
        }
    }
    (0..dx.len()).for_each(|i| add(&mut dx[i], sums[i]));
}

/// y[r] = x or token row, plus a position row if its index is not negative.
#[expect(clippy::needless_pass_by_value, reason = "called like the CPU's kernel")]
pub fn assemble<T: Real, P: Real>(
    y: &mut [T],
    x: &[T],
    tokens: Vec<&[P]>,
    rows: &[Row],
    position: Option<(&[P], &[i32])>,
    d: usize,
) {
    let tokens = tokens.concat();
    for r in 0..rows.len() {
        for i in 0..d {
            let value = match rows[r] {
                Row::X(row) => x[row as usize * d + i].f64(),
                Row::Token(row) => tokens[row as usize * d + i].f64(),
            };
            let position = position.filter(|(_, rows)| rows[r] >= 0);
            let position =
                position.map_or(0.0, |(table, rows)| table[rows[r] as usize * d + i].f64());
            y[r * d + i] = T::of(value + position);
        }
    }
}

/// y[B,D] = mean of each sample's rows without its first `skip` rows, or 0 if none are left.
pub fn mean_pool<T: Real>(y: &mut [T], x: &[T], offsets: &[usize], skip: usize, d: usize) {
    for b in 0..offsets.len() - 1 {
        let rows = offsets[b] + skip..offsets[b + 1];
        for i in 0..d {
            let sum = rows.clone().map(|r| x[r * d + i].f64()).sum::<f64>();
            y[b * d + i] = T::of(sum / rows.len().max(1) as f64);
        }
    }
}

/// dx[R,D]
pub fn mean_pool_backward<T: Real>(
    dx: Write<&mut [T]>,
    dy: &[T],
    offsets: &[usize],
    skip: usize,
    d: usize,
) {
    set_or_add(dx, |dx| {
        dx.fill(0.0);
        for b in 0..offsets.len() - 1 {
            let rows = offsets[b] + skip..offsets[b + 1];
            for r in rows.clone() {
                for i in 0..d {
                    dx[r * d + i] = dy[b * d + i].f64() / rows.len() as f64;
                }
            }
        }
    });
}
