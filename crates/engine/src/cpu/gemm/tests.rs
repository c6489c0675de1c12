//! Every product against three nested loops in f64, on every instruction set and thread count.

use super::{column_sum, linear, linear_grad_gelu, linear_grad_input, linear_grad_weight};
use crate::check::{assert_close, normal, rel_l2};
use crate::cpu::dispatch::cap;
use crate::device::{Epilogue, LinearSize, Write};
use crate::naive;

/// (R, I, O): odd, empty, single, and sizes at or near the edges of tiles, panels, tasks and blocks
/// of k.
const SIZES: [(usize, usize, usize); 16] = [
    (1, 1, 1),
    (7, 3, 5),
    (13, 24, 33),
    (12, 32, 24),
    (11, 31, 17),
    (25, 64, 96),
    (97, 100, 385),
    (96, 512, 40),
    (30, 513, 10),
    (50, 1200, 31),
    (200, 16, 8),
    // Rows of A that share a set of L1.
    (98, 1024, 33),
    (14, 40, 2048),
    (0, 8, 8),
    (8, 0, 8),
    (8, 8, 0),
];

/// f32 sums of up to 2048 products, in blocks of 512.
const BOUND: f64 = 1e-6;
const WHY: &str = "rounding of sums of up to 2048 products of normal numbers";

fn size_of((rows, input, output): (usize, usize, usize)) -> LinearSize {
    LinearSize { rows, input, output }
}

fn values(name: &str, len: usize) -> Vec<f32> {
    normal(name, &[len]).to_vec()
}

/// C[m, n] = Σ_k a(i, k) b(k, j)
fn product(
    [m, n, k]: [usize; 3],
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
) -> Vec<f64> {
    let product = |i, j| (0..k).map(|k| f64::from(a(i, k)) * f64::from(b(k, j))).sum();
    (0..m * n).map(|at| product(at / n, at % n)).collect()
}

fn gelu(x: f64) -> f64 {
    // erf by its series, whose terms all have the same sign. It is exact enough for |x| < 6.
    let z = x / 2_f64.sqrt();
    let (mut term, mut sum) = (z, 0.0);
    for n in 0..300 {
        sum += term;
        term *= 2.0 * z * z / f64::from(2 * n + 3);
    }
    0.5 * x * (1.0 + sum * (-z * z).exp() * 2.0 / std::f64::consts::PI.sqrt())
}

/// x [R, I], w [O, I], b [O], residual [R, O], and x wᵀ in f64.
struct Case {
    x: Vec<f32>,
    w: Vec<f32>,
    b: Vec<f32>,
    residual: Vec<f32>,
    product: Vec<f64>,
}

fn case((r, i, o): (usize, usize, usize)) -> Case {
    let x = values("x", r * i);
    // Scaled so that sums have a size of about 1, where GELU is curved.
    let scale = (i.max(1) as f32).sqrt().recip();
    let w: Vec<f32> = values("w", o * i).iter().map(|w| w * scale).collect();
    let product = product([r, o, i], |row, k| x[row * i + k], |k, column| w[column * i + k]);
    Case { x, w, b: values("b", o), residual: values("residual", r * o), product }
}

#[test]
fn linear_with_every_epilogue_equals_loops() {
    for size @ (r, _, o) in SIZES {
        let Case { x, w, b, residual, product } = case(size);
        let with = |f: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
            product.iter().enumerate().map(|(at, &sum)| f(at, sum)).collect()
        };
        let bias = |at: usize| f64::from(b[at % o]);
        let shifted = with(&|at, sum| sum + bias(at));
        let curved: Vec<f64> = shifted.iter().map(|&s| gelu(s)).collect();
        let plain_curved = with(&|_, sum| gelu(sum));
        let added = with(&|at, sum| sum + f64::from(residual[at]));
        let all = with(&|at, sum| sum + bias(at) + f64::from(residual[at]));
        cap::for_each(|level, threads| {
            let run = |b: Option<&[f32]>, epilogue: Epilogue<&[f32], &mut [f32]>| {
                let mut y = vec![f32::NAN; r * o];
                linear(&mut y, &x, &w, b, size_of(size), epilogue);
                y
            };
            let near = |name: &str, got: &[f32], want: &[f64]| {
                let name = format!("{name} {size:?} {level:?} {threads}");
                assert_close(&name, got, want, rel_l2(BOUND), WHY);
            };
            near("plain", &run(None, Epilogue::None), &product);
            near("bias", &run(Some(&b), Epilogue::None), &shifted);
            let mut pre = vec![f32::NAN; r * o];
            near("gelu", &run(Some(&b), Epilogue::Gelu(Some(&mut pre))), &curved);
            near("gelu's input", &pre, &shifted);
            near("gelu unsaved", &run(None, Epilogue::Gelu(None)), &plain_curved);
            let residual = &residual[..];
            near("residual", &run(None, Epilogue::Residual(residual)), &added);
            near("residual, bias", &run(Some(&b), Epilogue::Residual(residual)), &all);
        });
    }
}

#[test]
fn gradients_of_linear_equal_loops() {
    for size @ (r, i, o) in SIZES {
        let (x, w, dy) = (values("x", r * i), values("w", o * i), values("dy", r * o));
        let before = values("dw", o * i);
        let dx_want = product([r, i, o], |row, k| dy[row * o + k], |k, column| w[k * i + column]);
        let sums = product([o, i, r], |row, k| dy[k * o + row], |k, column| x[k * i + column]);
        let dw_want: Vec<f64> = sums.iter().zip(&before).map(|(s, &b)| s + f64::from(b)).collect();
        cap::for_each(|level, threads| {
            let name = format!("{size:?} {level:?} {threads}");
            let mut dx = vec![f32::NAN; r * i];
            linear_grad_input(Write::Set(&mut dx), &dy, &w, size_of(size));
            assert_close(&format!("dx {name}"), &dx, &dx_want, rel_l2(BOUND), WHY);
            let mut dw = before.clone();
            let added = |before: &[f32]| {
                let mut dx = before.to_vec();
                linear_grad_input(Write::Add(&mut dx), &dy, &w, size_of(size));
                dx
            };
            let sum: Vec<f32> = x.iter().zip(&dx).map(|(x, dx)| x + dx).collect();
            assert_eq!(added(&x), sum, "added dx {name}");
            linear_grad_weight(&mut dw, &dy, &x, size_of(size));
            assert_close(&format!("dw {name}"), &dw, &dw_want, rel_l2(BOUND), WHY);
        });
    }
}

#[test]
fn gradients_through_gelu_equal_the_naive_twin_and_the_forward() {
    for size @ (r, i, o) in SIZES {
        let (s, w, dy) = (values("s", r * i), values("w", o * i), values("dy", r * o));
        let mut want = [vec![0.0; r * i], vec![0.0; r * i]];
        let [ds_want, h_want] = &mut want;
        let wide = |x: &[f32]| x.iter().copied().map(f64::from).collect::<Vec<_>>();
        naive::linear_grad_gelu(ds_want, h_want, &wide(&dy), &wide(&w), &wide(&s), size_of(size));
        cap::for_each(|level, threads| {
            let name = format!("{size:?} {level:?} {threads}");
            let (mut ds, mut h) = (vec![f32::NAN; r * i], vec![f32::NAN; r * i]);
            linear_grad_gelu(&mut ds, &mut h, &dy, &w, &s, size_of(size));
            assert_close(&format!("ds {name}"), &ds, &want[0], rel_l2(BOUND), WHY);
            assert_close(&format!("h {name}"), &h, &want[1], rel_l2(BOUND), WHY);
        });
    }
}

#[test]
fn column_sums_equal_loops_and_add() {
    for (rows, columns) in [(1, 1), (100, 63), (333, 130), (0, 5), (5, 0)] {
        let (dy, before) = (values("dy", rows * columns), values("db", columns));
        let want: Vec<f64> = (0..columns)
            .map(|c| {
                let rows = (0..rows).map(|r| f64::from(dy[r * columns + c]));
                f64::from(before[c]) + rows.sum::<f64>()
            })
            .collect();
        cap::for_each(|level, threads| {
            let mut db = before.clone();
            column_sum(&mut db, &dy, rows, columns);
            let name = format!("{rows}x{columns} {level:?} {threads}");
            assert_close(&name, &db, &want, rel_l2(BOUND), "sums of 333 numbers");
        });
    }
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    let size @ (r, i, o) = (311, 1024, 203); // rows of x share a set of L1
    let (x, w, b) = (values("x", r * i), values("w", o * i), values("b", o));
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let seen = std::sync::Mutex::new(Vec::new());
    cap::for_each(|level, _| {
        let mut y = vec![0.0; r * o];
        linear(&mut y, &x, &w, Some(&b), size_of(size), Epilogue::Gelu(None));
        let (mut dx, mut dw, mut db) = (vec![0.0; r * i], vec![0.0; o * i], vec![0.0; o]);
        linear_grad_input(Write::Set(&mut dx), &y, &w, size_of(size));
        linear_grad_weight(&mut dw, &y, &x, size_of(size));
        column_sum(&mut db, &y, r, o);
        seen.lock().unwrap().push((level, [y, dx, dw, db].map(|values| bits(&values))));
    });
    for pair in seen.into_inner().unwrap().chunks(2) {
        assert!(pair[0] == pair[1], "{:?}", pair[0].0);
    }
}

#[test]
fn a_row_of_a_batch_equals_the_row_without_the_batch() {
    let (r, i, o) = (131, 70, 45);
    let (x, w) = (values("x", r * i), values("w", o * i));
    cap::for_each(|level, _| {
        let mut all = vec![0.0; r * o];
        linear(&mut all, &x, &w, None, size_of((r, i, o)), Epilogue::None);
        for row in [0, 1, 95, 96, 130] {
            let mut one = vec![0.0; o];
            let x = &x[row * i..][..i];
            linear(&mut one, x, &w, None, size_of((1, i, o)), Epilogue::None);
            assert_eq!(one, all[row * o..][..o], "row {row}, {level:?}");
        }
    });
}

#[test]
fn a_nan_affects_only_its_row() {
    let (r, i, o) = (14, 20, 40);
    let (mut x, w) = (values("x", r * i), values("w", o * i));
    x[3 * i + 7] = f32::NAN;
    cap::for_each(|level, _| {
        let mut y = vec![0.0; r * o];
        linear(&mut y, &x, &w, None, size_of((r, i, o)), Epilogue::Gelu(None));
        for (row, y) in y.chunks(o).enumerate() {
            assert!(y.iter().all(|y| y.is_nan() == (row == 3)), "row {row}, {level:?}");
        }
    });
}
