//! Matrix products of a linear layer. Weights are rounded to the type of the activations.

use super::{Real, add, gelu_grad, gelu_value, set_or_add};
use crate::device::{Epilogue, LinearSize, Write};

/// y[R,O] = epilogue(x[R,I] w[O,I]ᵀ + b[O])
pub fn linear<T: Real, P: Real>(
    y: &mut [T],
    x: &[T],
    w: &[P],
    b: Option<&[P]>,
    size: LinearSize,
    mut epilogue: Epilogue<&[T], &mut [T]>,
) {
    let LinearSize { rows, input: i, output: o } = size;
    for at in 0..rows * o {
        let (row, column) = (at / o, at % o);
        let products = (0..i).map(|k| x[row * i + k].f64() * rounded::<T, P>(w[column * i + k]));
        let sum = products.sum::<f64>() + b.map_or(0.0, |b| b[column].f64());
        y[at] = T::of(match &mut epilogue {
            Epilogue::None => sum,
            Epilogue::Gelu(pre) => {
                let s = T::of(sum);
                if let Some(pre) = pre {
                    pre[at] = s;
                }
                gelu_value(s.f64())
            }
            Epilogue::Residual(residual) => sum + residual[at].f64(),
        });
    }
}

/// A weight as it is multiplied.
fn rounded<T: Real, P: Real>(w: P) -> f64 {
    T::of(w.f64()).f64()
}

/// dx[R,I] = dy[R,O] w[O,I]
pub fn linear_grad_input<T: Real, P: Real>(
    dx: Write<&mut [T]>,
    dy: &[T],
    w: &[P],
    size: LinearSize,
) {
    set_or_add(dx, |dx| set_grad_input(dx, dy, w, size));
}

fn set_grad_input<T: Real, P: Real>(dx: &mut [f64], dy: &[T], w: &[P], size: LinearSize) {
    let LinearSize { rows, input: i, output: o } = size;
    for at in 0..rows * i {
        let (row, k) = (at / i, at % i);
        let products = (0..o).map(|c| dy[row * o + c].f64() * rounded::<T, P>(w[c * i + k]));
        dx[at] = products.sum();
    }
}

/// ds[R,I] = (dy[R,O] w[O,I]) GELU'(s[R,I]); h[R,I] = GELU(s)
pub fn linear_grad_gelu<T: Real, P: Real>(
    ds: &mut [T],
    h: &mut [T],
    dy: &[T],
    w: &[P],
    s: &[T],
    size: LinearSize,
) {
    let mut dh = vec![f64::NAN; s.len()];
    set_grad_input(&mut dh, dy, w, size);
    for (at, s) in s.iter().enumerate() {
        ds[at] = T::of(dh[at] * gelu_grad(s.f64()));
        h[at] = T::of(gelu_value(s.f64()));
    }
}

/// dw[O,I] += dy[R,O]ᵀ x[R,I]
pub fn linear_grad_weight<T: Real, P: Real>(dw: &mut [P], dy: &[T], x: &[T], size: LinearSize) {
    let LinearSize { rows: r, input: i, output: o } = size;
    for c in 0..o {
        for k in 0..i {
            let products = (0..r).map(|row| dy[row * o + c].f64() * x[row * i + k].f64());
            add(&mut dw[c * i + k], products.sum());
        }
    }
}

/// db[O] += Σ_r dy[R,O]
pub fn column_sum<T: Real, P: Real>(db: &mut [P], dy: &[T], rows: usize, columns: usize) {
    for c in 0..columns {
        add(&mut db[c], (0..rows).map(|r| dy[r * columns + c].f64()).sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::testing::{assert_close, gradient, numbers, wide};

    #[test]
    fn linear_gradients_are_the_slopes_of_its_forward() {
        let size = LinearSize { rows: 3, input: 4, output: 2 };
        let [x, w, b, dy] = [12, 8, 2, 6].map(|len| wide(&numbers(1, len)));
        let loss = |x: &[f64], w: &[f64], b: &[f64]| {
            let mut y = vec![0.0; 6];
            linear(&mut y, x, w, Some(b), size, Epilogue::None);
            y.iter().zip(&dy).map(|(y, dy)| y * dy).sum::<f64>()
        };
        let (mut dx, mut dw, mut db) = (vec![9.0; 12], vec![0.0; 8], vec![0.0; 2]);
        linear_grad_input(Write::Set(&mut dx[..]), &dy, &w, size);
        linear_grad_weight(&mut dw, &dy, &x, size);
        column_sum(&mut db, &dy, 3, 2);
        assert_close("dx", &dx, &gradient(&x, |x| loss(x, &w, &b)), 1e-8);
        assert_close("dw", &dw, &gradient(&w, |w| loss(&x, w, &b)), 1e-8);
        assert_close("db", &db, &gradient(&b, |b| loss(&x, &w, b)), 1e-8);
    }

    #[test]
    fn gelu_gradients_are_the_slopes_of_a_linear_layer_of_gelu() {
        let size = LinearSize { rows: 3, input: 4, output: 2 };
        let [s, w, dy] = [12, 8, 6].map(|len| wide(&numbers(2, len)));
        let loss = |s: &[f64]| {
            let h: Vec<f64> = s.iter().map(|&s| gelu_value(s)).collect();
            let mut y = vec![0.0; 6];
            linear(&mut y, &h, &w, None, size, Epilogue::None);
            y.iter().zip(&dy).map(|(y, dy)| y * dy).sum::<f64>()
        };
        let (mut ds, mut h) = (vec![9.0; 12], vec![9.0; 12]);
        linear_grad_gelu(&mut ds, &mut h, &dy, &w, &s, size);
        assert_close("ds", &ds, &gradient(&s, loss), 1e-7);
        assert_eq!(h, s.iter().map(|&s| gelu_value(s)).collect::<Vec<_>>());
    }

    #[test]
    fn epilogues_follow_the_sum() {
        let (x, w, b) = ([1.0, 2.0], [3.0, -1.0, 0.5, 0.25], [0.5, -2.0]);
        let size = LinearSize { rows: 1, input: 2, output: 2 };
        let run = |b: Option<&[f64]>, epilogue: Epilogue<&[f64], &mut [f64]>| {
            let mut y = [0.0; 2];
            linear(&mut y, &x, &w, b, size, epilogue);
            y
        };
        assert_eq!(run(None, Epilogue::None), [1.0, 1.0]);
        assert_eq!(run(Some(&b), Epilogue::None), [1.5, -1.0]);
        assert_eq!(run(Some(&b), Epilogue::Residual(&[10.0, 20.0])), [11.5, 19.0]);
        let mut pre = [0.0; 2];
        let y = run(Some(&b), Epilogue::Gelu(Some(&mut pre)));
        assert_eq!((y, pre), ([gelu_value(1.5), gelu_value(-1.0)], [1.5, -1.0]));
    }
}
