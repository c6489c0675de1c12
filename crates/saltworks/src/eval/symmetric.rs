//! Symmetric matrices in f64: Gram matrices, their Cholesky factors and eigenvalues. The bits are
//! the same for any number of threads.
//!
//! Eigenvalues come from Householder's tridiagonal form and implicit QL steps (Golub and Van Loan
//! 2013, algorithms 8.3.1 and 8.3.3). Eigenvectors are not needed here.

use rayon::prelude::*;

/// Rows of a matrix in a task. With fewer rows a fork costs more than it saves.
const TASK_ROWS: usize = 64; // (guess)
/// Rows of x that pass over the Gram matrix at once.
const STEP_ROWS: usize = 4;
/// Largest number of QL steps for one eigenvalue. Usually two suffice. After this many, the entry
/// beside it gets no smaller.
const MOST_STEPS: usize = 60;

/// xᵀ x of rows `[B, I]`: `[I, I]`.
pub(super) fn gram(x: &[f64], dim: usize) -> Vec<f64> {
    let mut gram = vec![0.0; dim * dim];
    gram.par_chunks_mut(TASK_ROWS * dim).enumerate().for_each(|(task, part)| {
        let first = task * TASK_ROWS;
        for step in x.chunks(STEP_ROWS * dim) {
            // Missing rows add nothing.
            let row = |r: usize| step.get(r * dim..(r + 1) * dim);
            let rows = std::array::from_fn::<_, STEP_ROWS, _>(row);
            for (i, sums) in (first..).zip(part.chunks_exact_mut(dim)) {
                add_products(&mut sums[i..], &rows, i);
            }
        }
    });
    for i in 0..dim {
        for j in 0..i {
            gram[i * dim + j] = gram[j * dim + i];
        }
    }
    gram
}

/// sums_j += Σ_r x_ri x_rj for j from i on.
fn add_products(sums: &mut [f64], rows: &[Option<&[f64]>; STEP_ROWS], i: usize) {
    if let [Some(a), Some(b), Some(c), Some(d)] = rows {
        let (ai, bi, ci, di) = (a[i], b[i], c[i], d[i]);
        let columns = a[i..].iter().zip(&b[i..]).zip(c[i..].iter().zip(&d[i..]));
        for (sum, ((a, b), (c, d))) in sums.iter_mut().zip(columns) {
            *sum += ai * a + bi * b + (ci * c + di * d);
        }
        return;
    }
    for row in rows.iter().flatten() {
        subtract(sums, -row[i], &row[i..]);
    }
}

/// A = Uᵀ U in place for a positive definite A `[D, D]`. Entries below the diagonal are undefined.
pub(super) fn cholesky(a: &mut [f64], dim: usize) {
    for i in 0..dim {
        let (done, rest) = a.split_at_mut((i + 1) * dim);
        let row = &mut done[i * dim + i..];
        // Callers add to the diagonal, so only rounding can make a pivot negative.
        let pivot = row[0].max(f64::EPSILON).sqrt();
        row.iter_mut().for_each(|u| *u /= pivot);
        rest.par_chunks_exact_mut(dim).with_min_len(32).enumerate().for_each(|(j, below)| {
            subtract(&mut below[i + 1 + j..], row[1 + j], &row[1 + j..]);
        });
    }
}

/// y -= a x
pub(super) fn subtract(y: &mut [f64], a: f64, x: &[f64]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y -= a * x;
    }
}

/// The eigenvalues of A `[D, D]`, unsorted.
pub(super) fn eigenvalues(a: Vec<f64>, dim: usize) -> Vec<f64> {
    let (mut diagonal, mut beside) = tridiagonal(a, dim);
    for l in 0..dim {
        for _ in 0..MOST_STEPS {
            let m = first_split(&diagonal, &beside, l);
            if m == l {
                break;
            }
            ql_step(&mut diagonal, &mut beside, l, m);
        }
    }
    diagonal
}

/// The diagonal `[D]` of a tridiagonal matrix with A's eigenvalues, and the one beside it `[D]`,
/// whose last entry is 0.
fn tridiagonal(mut a: Vec<f64>, dim: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut diagonal, mut beside) = (vec![0.0; dim], vec![0.0; dim]);
    for k in 0..dim {
        let (done, rest) = a.split_at_mut((k + 1) * dim);
        let row = &mut done[k * dim + k..];
        diagonal[k] = row[0];
        let v = &mut row[1..];
        let length = dot(v, v).sqrt();
        if v.len() < 2 || length == 0.0 {
            beside[k] = v.first().copied().unwrap_or(0.0);
            continue;
        }
        // H = I - β v vᵀ takes the row to (±length, 0, ...).
        beside[k] = -length.copysign(v[0]);
        v[0] -= beside[k];
        let beta = 2.0 / dot(v, v);
        reflect(rest, dim, v, beta);
    }
    (diagonal, beside)
}

/// H A H for the last rows and columns of `rows` `[M, D]`: A - v wᵀ - w vᵀ with p = β A v,
/// w = p - (β/2)(pᵀ v) v.
fn reflect(rows: &mut [f64], dim: usize, v: &[f64], beta: f64) {
    let first = dim - v.len();
    let product = |row: &[f64]| beta * dot(&row[first..], v);
    let mut w: Vec<f64> = rows.par_chunks_exact(dim).with_min_len(TASK_ROWS).map(product).collect();
    let half = 0.5 * beta * dot(&w, v);
    subtract(&mut w, half, v);
    rows.par_chunks_exact_mut(dim).with_min_len(TASK_ROWS).enumerate().for_each(|(i, row)| {
        for (a, (w_j, v_j)) in row[first..].iter_mut().zip(w.iter().zip(v)) {
            *a -= v[i] * w_j + w[i] * v_j;
        }
    });
}

/// The first index from l at which the matrix splits, because the entry beside it is negligible.
fn first_split(diagonal: &[f64], beside: &[f64], l: usize) -> usize {
    let last = diagonal.len() - 1;
    let splits = |m: &usize| {
        let around = diagonal[*m].abs() + diagonal[m + 1].abs();
        beside[*m].abs() <= f64::EPSILON * around
    };
    (l..last).find(splits).unwrap_or(last)
}

/// One implicit QL step with Wilkinson's shift on rows l to m.
fn ql_step(diagonal: &mut [f64], beside: &mut [f64], l: usize, m: usize) {
    let g = (diagonal[l + 1] - diagonal[l]) / (2.0 * beside[l]);
    let r = g.hypot(1.0).copysign(g);
    let mut g = diagonal[m] - diagonal[l] + beside[l] / (g + r);
    let (mut sine, mut cosine, mut shift) = (1.0, 1.0, 0.0);
    for i in (l..m).rev() {
        let (f, b) = (sine * beside[i], cosine * beside[i]);
        let r = f.hypot(g);
        beside[i + 1] = r;
        if r == 0.0 {
            // There is no rotation: the matrix splits here.
            diagonal[i + 1] -= shift;
            beside[m] = 0.0;
            return;
        }
        (sine, cosine) = (f / r, g / r);
        let rest = diagonal[i + 1] - shift;
        let turned = (diagonal[i] - rest) * sine + 2.0 * cosine * b;
        shift = sine * turned;
        diagonal[i + 1] = rest + shift;
        g = cosine * turned - b;
    }
    diagonal[l] -= shift;
    beside[l] = g;
    beside[m] = 0.0;
}

/// Σ a b in eight lanes.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut lanes = [0.0; 8];
    for (a, b) in a.0.iter().zip(b.0) {
        for (lane, (a, b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += a * b;
        }
    }
    let rest: f64 = a.1.iter().zip(b.1).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::random::Random;

    /// Cyclic Jacobi rotations: slow and simple.
    fn jacobi(mut a: Vec<f64>, n: usize) -> Vec<f64> {
        for _ in 0..30 {
            for (p, q) in (0..n).flat_map(|q| (0..q).map(move |p| (p, q))) {
                let theta = 0.5 * (2.0 * a[p * n + q]).atan2(a[q * n + q] - a[p * n + p]);
                let (s, c) = theta.sin_cos();
                for k in 0..n {
                    let (x, y) = (a[k * n + p], a[k * n + q]);
                    (a[k * n + p], a[k * n + q]) = (c * x - s * y, s * x + c * y);
                }
                for k in 0..n {
                    let (x, y) = (a[p * n + k], a[q * n + k]);
                    (a[p * n + k], a[q * n + k]) = (c * x - s * y, s * x + c * y);
                }
            }
        }
        (0..n).map(|i| a[i * n + i]).collect()
    }

    fn assert_same(mut got: Vec<f64>, mut wanted: Vec<f64>) {
        got.sort_by(f64::total_cmp);
        wanted.sort_by(f64::total_cmp);
        let scale = wanted.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        for (got, wanted) in got.iter().zip(&wanted) {
            assert!((got - wanted).abs() <= 1e-13 * scale, "{got} for {wanted} of {scale}");
        }
    }

    #[test]
    fn eigenvalues_are_those_that_jacobi_finds() {
        for (rows, dim) in [(1, 1), (5, 2), (9, 3), (4, 11), (60, 23), (200, 70)] {
            let mut random = Random::new(1, "eigen test", dim as u64);
            let x: Vec<f64> = (0..rows * dim).map(|_| f64::from(random.normal())).collect();
            let a = gram(&x, dim);
            assert_same(eigenvalues(a.clone(), dim), jacobi(a, dim));
        }
    }

    #[test]
    fn a_diagonal_and_a_split_matrix_keep_their_values() {
        let diagonal = [3.0, 0.0, 0.0, 0.0, -2.0, 0.0, 0.0, 0.0, 0.0];
        assert_same(eigenvalues(diagonal.to_vec(), 3), vec![3.0, -2.0, 0.0]);
        // Two blocks, [2 1; 1 2] each: 1 and 3 twice.
        let blocks = [2., 1., 0., 0., 1., 2., 0., 0., 0., 0., 2., 1., 0., 0., 1., 2.];
        assert_same(eigenvalues(blocks.to_vec(), 4), vec![1.0, 1.0, 3.0, 3.0]);
    }

    #[test]
    fn a_gram_matrix_equals_its_sums() {
        for (rows, dim) in [(1, 1), (3, 5), (6, 3), (9, 130)] {
            let mut random = Random::new(2, "gram test", rows as u64);
            let x: Vec<f64> = (0..rows * dim).map(|_| f64::from(random.normal())).collect();
            let got = gram(&x, dim);
            for (i, j) in (0..dim).flat_map(|i| (0..dim).map(move |j| (i, j))) {
                let wanted: f64 = (0..rows).map(|r| x[r * dim + i] * x[r * dim + j]).sum();
                assert!((got[i * dim + j] - wanted).abs() < 1e-12, "{rows} x {dim}: {i}, {j}");
            }
        }
    }
}
