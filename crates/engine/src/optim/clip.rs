//! The global gradient norm.

use super::change_gradients;
use crate::{Error, Parameter, Result, Tensor};

/// L2 norm over all gradients together, as torch.nn.utils.clip_grad_norm_ computes it. A gradient
/// that is not finite is an error with the parameter's name. Waits for the device.
pub fn grad_norm(parameters: &[(String, Parameter)]) -> Result<f32> {
    let grads: Vec<Tensor> = parameters.iter().filter_map(|(_, p)| p.grad()).collect();
    let Some(device) = grads.first().map(Tensor::device) else { return Ok(0.0) };
    let mut norm = device.buffer(crate::Dtype::F32, 1);
    device.norm(norm.view_mut(), grads.iter().map(Tensor::view).collect());
    let norm = Tensor::new(device, norm, &[1]).item();
    if !norm.is_finite() {
        parameters.iter().try_for_each(|(name, parameter)| finite(name, parameter))?;
    }
    Ok(norm)
}

fn finite(name: &str, parameter: &Parameter) -> Result<()> {
    match parameter.grad().and_then(|grad| grad.first_non_finite()) {
        None => Ok(()),
        Some((element, value)) => {
            Err(Error::NonFinite { parameter: name.to_owned(), element, value })
        }
    }
}

/// Scales all gradients so that their norm is at most `max_norm`, and returns the norm they had.
/// The factor is max_norm / (norm + 1e-6), as in torch. Each parameter must be listed once.
pub fn clip_grad_norm(parameters: &[(String, Parameter)], max_norm: f32) -> Result<f32> {
    let norm = grad_norm(parameters)?;
    let factor = max_norm / (norm + 1e-6);
    if factor < 1.0 {
        change_gradients(parameters.iter().map(|(_, parameter)| parameter), |device, grads| {
            device.scale(grads, factor);
        });
    }
    Ok(norm)
}
