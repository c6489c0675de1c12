//! AdamW and what is asked of gradients.

use super::Real;
use crate::device::AdamWStep;

/// torch.optim.AdamW, algorithm box of its documentation.
pub fn adamw<T: Real>(
    value: &mut [T],
    first: &mut [T],
    second: &mut [T],
    grad: &[T],
    step: AdamWStep,
) {
    let (beta1, beta2) = step.betas;
    let (lr, weight_decay, eps) = (step.lr.f64(), step.weight_decay.f64(), step.eps.f64());
    for i in 0..value.len() {
        let g = grad[i].f64();
        first[i] = T::of(beta1 * first[i].f64() + (1.0 - beta1) * g);
        second[i] = T::of(beta2 * second[i].f64() + (1.0 - beta2) * g * g);
        let first_hat = first[i].f64() / (1.0 - beta1.powf(step.step as f64));
        let second_hat = second[i].f64() / (1.0 - beta2.powf(step.step as f64));
        let decayed = value[i].f64() * (1.0 - lr * weight_decay);
        value[i] = T::of(decayed - lr * first_hat / (second_hat.sqrt() + eps));
    }
}

/// Σ x²
pub fn squared_norm<T: Real>(x: &[T]) -> f64 {
    x.iter().map(|v| v.f64() * v.f64()).sum()
}

/// The first value that is infinite or not a number, with its place.
pub fn first_non_finite(x: &[f32]) -> Option<(usize, f32)> {
    for i in 0..x.len() {
        if !x[i].is_finite() {
            return Some((i, x[i]));
        }
    }
    None
}
