//! Two matrix products whose bits do not depend on the number of threads: each element is summed
//! over k in one fixed order.

use super::StopCheck;
use rayon::prelude::*;

/// Columns of y in a tile. With ROWS rows of x, the tile stays in registers.
const COLUMNS: usize = 8;
const ROWS: usize = 4;
/// Rows of x in a task of [`multiply`].
const TASK_ROWS: usize = 64;
/// Columns and rows of x in a step of [`multiply_transposed`]: 64 KiB, so that it stays in L2.
const STEP_COLUMNS: usize = 64;
const STEP_ROWS: usize = 256;

/// A matrix w `[N, I]` in panels of eight rows, `[N/8, I, 8]`, with zeros after row N.
pub(super) struct Panels {
    values: Vec<f32>,
    /// N
    pub(super) rows: usize,
    /// I
    dim: usize,
}

impl Panels {
    /// Packs w `[N, I]`, given row after row.
    pub(super) fn of_rows(w: &[f32], dim: usize) -> Self {
        Self::new(w.len() / dim, dim, |row, i| w[row * dim + i])
    }

    /// Packs zᵀ for z `[I, N]`.
    pub(super) fn of_columns(z: &[f32], n: usize) -> Self {
        Self::new(n, z.len() / n, |row, i| z[i * n + row])
    }

    fn new(rows: usize, dim: usize, at: impl Fn(usize, usize) -> f32 + Sync) -> Self {
        let mut values = vec![0.0; rows.div_ceil(COLUMNS) * dim * COLUMNS];
        let panels = values.par_chunks_exact_mut(dim * COLUMNS);
        panels.enumerate().for_each(|(p, panel)| {
            let first = p * COLUMNS;
            for (i, values) in panel.chunks_exact_mut(COLUMNS).enumerate() {
                for (row, value) in (first..rows).zip(values) {
                    *value = at(row, i);
                }
            }
        });
        Self { values, rows, dim }
    }

    /// y = x wᵀ on the calling thread: `[B, I] -> [B, N]`.
    pub(super) fn multiply(&self, x: &[f32], y: &mut [f32]) {
        let Self { rows: n, dim, .. } = *self;
        for (x, y) in x.chunks(ROWS * dim).zip(y.chunks_mut(ROWS * n)) {
            // If fewer rows than a tile are left, its other rows repeat the last one.
            let last = x.len() / dim - 1;
            let x = std::array::from_fn(|row| &x[row.min(last) * dim..][..dim]);
            for (p, panel) in self.values.chunks_exact(dim * COLUMNS).enumerate() {
                let columns = p * COLUMNS..n.min((p + 1) * COLUMNS);
                for (y, tile) in y.chunks_exact_mut(n).zip(&tile(x, panel)) {
                    y[columns.clone()].copy_from_slice(&tile[..columns.len()]);
                }
            }
        }
    }
}

/// Four rows of x `[4, I]` times a panel `[I, 8]`.
fn tile(x: [&[f32]; ROWS], panel: &[f32]) -> [[f32; COLUMNS]; ROWS] {
    let mut sum = [[0.0; COLUMNS]; ROWS];
    let (x0, x1, x2, x3) = (x[0].iter(), x[1].iter(), x[2].iter(), x[3].iter());
    for ((((w, x0), x1), x2), x3) in panel.chunks_exact(COLUMNS).zip(x0).zip(x1).zip(x2).zip(x3) {
        for (sum, x) in sum.iter_mut().zip([x0, x1, x2, x3]) {
            for (sum, w) in sum.iter_mut().zip(w) {
                *sum += x * w;
            }
        }
    }
    sum
}

/// y = x wᵀ on all threads: `[B, I], [N, I] -> [B, N]`. Incomplete once `stopped` is true.
pub(super) fn multiply(x: &[f32], w: &Panels, stopped: StopCheck<'_>) -> Vec<f32> {
    let mut y = vec![0.0; x.len() / w.dim * w.rows];
    let tasks = y.par_chunks_mut(TASK_ROWS * w.rows);
    tasks.zip(x.par_chunks(TASK_ROWS * w.dim)).for_each(|(y, x)| {
        if !stopped() {
            w.multiply(x, y);
        }
    });
    y
}

/// xᵀ z on all threads, in f64 over steps of 256 rows: `[B, I], [B, N] -> [I, N]`. Incomplete once
/// `stopped` is true.
pub(super) fn multiply_transposed(
    x: &[f32],
    dim: usize,
    z: &[f32],
    n: usize,
    stopped: StopCheck<'_>,
) -> Vec<f64> {
    let steps: Vec<_> =
        z.par_chunks(STEP_ROWS * n).map(|step| Panels::of_columns(step, n)).collect();
    let mut sum = vec![0.0; dim * n];
    sum.par_chunks_mut(STEP_COLUMNS * n).enumerate().for_each(|(task, sum)| {
        let first = task * STEP_COLUMNS;
        let mut part = vec![0.0; sum.len()];
        for (x, z) in x.chunks(STEP_ROWS * dim).zip(&steps) {
            if stopped() {
                return;
            }
            z.multiply(&columns_of(x, dim, first..first + sum.len() / n), &mut part);
            for (sum, part) in sum.iter_mut().zip(&part) {
                *sum += f64::from(*part);
            }
        }
    });
    sum
}

/// Some columns of x `[B, I]`, each as a row: `[columns, B]`.
fn columns_of(x: &[f32], dim: usize, columns: std::ops::Range<usize>) -> Vec<f32> {
    let rows = x.len() / dim;
    let mut xt = vec![0.0; columns.len() * rows];
    for (b, row) in x.chunks_exact(dim).enumerate() {
        for (i, &value) in row[columns.clone()].iter().enumerate() {
            xt[i * rows + b] = value;
        }
    }
    xt
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::random::Random;

    fn normal(len: usize, index: u64) -> Vec<f32> {
        let mut random = Random::new(5, "matrix test", index);
        (0..len).map(|_| random.normal()).collect()
    }

    /// Compares with Σ_i a[i] b[i], within the error of f32 sums of this length.
    fn assert_dot(got: f64, terms: impl Iterator<Item = (f32, f32)> + Clone) {
        let wanted: f64 = terms.clone().map(|(a, b)| f64::from(a) * f64::from(b)).sum();
        let size: f64 = terms.map(|(a, b)| (f64::from(a) * f64::from(b)).abs()).sum();
        assert!((got - wanted).abs() <= 1e-6 * size + 1e-12, "{got} for {wanted}");
    }

    #[test]
    fn products_of_any_shape_equal_their_sums() {
        for (rows, dim, n) in [(1, 1, 1), (3, 5, 7), (66, 65, 9), (300, 3, 16), (517, 70, 10)] {
            let (x, w) = (normal(rows * dim, 1), normal(n * dim, 2));
            let y = multiply(&x, &Panels::of_rows(&w, dim), &|| false);
            let z = normal(rows * n, 3);
            let sum = multiply_transposed(&x, dim, &z, n, &|| false);
            for j in 0..n {
                for b in 0..rows {
                    let terms = (0..dim).map(|i| (x[b * dim + i], w[j * dim + i]));
                    assert_dot(f64::from(y[b * n + j]), terms);
                }
                for i in 0..dim {
                    let terms = (0..rows).map(|b| (x[b * dim + i], z[b * n + j]));
                    assert_dot(sum[i * n + j], terms);
                }
            }
        }
    }
}
