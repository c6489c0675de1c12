//! AdamW and the norm of gradients.

use super::Real;
use crate::device::AdamWOperands;

/// torch.optim.AdamW, as in the algorithm box of its documentation.
pub fn adamw<T: Real>(parameters: Vec<AdamWOperands<&[T], &mut [T]>>) {
    parameters.into_iter().for_each(adamw_of_one);
}

fn adamw_of_one<T: Real>(parameter: AdamWOperands<&[T], &mut [T]>) {
    let AdamWOperands { value, first, second, grad, step } = parameter;
    let (beta1, beta2) = step.betas;
    let (lr, weight_decay, eps) = (step.lr.f64(), step.weight_decay.f64(), step.eps.f64());
    // torch multiplies a tensor of f32 by a scalar that it rounds to f32 first.
    let decay = f64::from((1.0 - lr * weight_decay) as f32);
    for i in 0..value.len() {
        let g = grad[i].f64();
        first[i] = T::of(beta1 * first[i].f64() + (1.0 - beta1) * g);
        second[i] = T::of(beta2 * second[i].f64() + (1.0 - beta2) * g * g);
        let first_hat = first[i].f64() / (1.0 - beta1.powf(step.step as f64));
        let second_hat = second[i].f64() / (1.0 - beta2.powf(step.step as f64));
        value[i] = T::of(value[i].f64() * decay - lr * first_hat / (second_hat.sqrt() + eps));
    }
}

/// y[1] = √(Σ_x Σ x²)
#[expect(clippy::needless_pass_by_value, reason = "called like the CPU's kernel")]
pub fn norm<T: Real>(y: &mut [T], xs: Vec<&[T]>) {
    let squares = xs.iter().flat_map(|x| x.iter()).map(|v| v.f64() * v.f64());
    y[0] = T::of(squares.sum::<f64>().sqrt());
}
