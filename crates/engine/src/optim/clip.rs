//! The global gradient norm.

use crate::device::Device;
use crate::{Error, Parameter, Result};

/// L2 norm over all gradients together, as torch.nn.utils.clip_grad_norm_ computes it. A gradient
/// that is not finite is an error with the parameter's name.
pub fn grad_norm(parameters: &[(String, Parameter)]) -> Result<f32> {
    let device: &dyn Device = &crate::cpu::Cpu;
    let mut sum = 0.0;
    for (name, parameter) in parameters {
        let Some(grad) = parameter.grad() else { continue };
        let squares = device.squared_norm(grad.view());
        if !squares.is_finite()
            && let Some((element, value)) = device.first_non_finite(grad.view())
        {
            return Err(Error::NonFinite { parameter: name.clone(), element, value });
        }
        sum += squares;
    }
    Ok(sum.sqrt() as f32)
}

/// Scales all gradients so that their norm is at most `max_norm`, and returns the norm they had.
/// The factor is max_norm / (norm + 1e-6), as in torch.
pub fn clip_grad_norm(parameters: &[(String, Parameter)], max_norm: f32) -> Result<f32> {
    let device: &dyn Device = &crate::cpu::Cpu;
    let norm = grad_norm(parameters)?;
    let factor = max_norm / (norm + 1e-6);
    if factor < 1.0 {
        for (_, parameter) in parameters {
            parameter.with_grad(|grad| device.scale(grad, factor));
        }
    }
    Ok(norm)
}
