//! The gate of SwiGLU.

use super::{Real, set_or_add};
use crate::device::Write;

/// y[R,F] = silu(a) b, for x[R,2F] = [a, b]
pub fn swiglu<T: Real>(y: &mut [T], x: &[T], width: usize) {
    for r in 0..y.len() / width {
        for i in 0..width {
            let (a, b) = (x[2 * r * width + i].f64(), x[(2 * r + 1) * width + i].f64());
            y[r * width + i] = T::of(a * sigmoid(a) * b);
        }
    }
}

/// dx[R,2F]: da = dy b σ(a) (1 + a (1 - σ(a))), db = dy silu(a)
pub fn swiglu_backward<T: Real>(dx: Write<&mut [T]>, dy: &[T], x: &[T], width: usize) {
    set_or_add(dx, |dx| {
        for r in 0..dy.len() / width {
            for i in 0..width {
                let (of_a, of_b) = (2 * r * width + i, (2 * r + 1) * width + i);
                let (a, b, dy) = (x[of_a].f64(), x[of_b].f64(), dy[r * width + i].f64());
                let gate = sigmoid(a);
                dx[of_a] = dy * b * gate * (1.0 + a * (1.0 - gate));
                dx[of_b] = dy * a * gate;
            }
        }
    });
}

/// σ(x) = 1/(1 + e⁻ˣ)
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::testing::{assert_close, gradient, numbers, wide};

    #[test]
    fn swiglu_gradient_is_the_slope_of_its_forward() {
        let (x, dy) = (wide(&numbers(1, 3 * 14)), wide(&numbers(2, 3 * 7)));
        let loss = |x: &[f64]| {
            let mut y = vec![0.0; 21];
            swiglu(&mut y, x, 7);
            y.iter().zip(&dy).map(|(y, dy)| y * dy).sum()
        };
        let mut dx = vec![0.0; 42];
        swiglu_backward(Write::Set(&mut dx[..]), &dy, &x, 7);
        assert_close("dx", &dx, &gradient(&x, loss), 1e-6);
    }
}
