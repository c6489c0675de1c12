//! AdamW, the gradient norm, and zeroing. Each is one kernel over all parameters.

mod adamw;
mod clip;

pub use adamw::{AdamW, decays_by_default};
pub use clip::{clip_grad_norm, grad_norm};

use crate::Parameter;
use crate::device::{Device, ViewMut};

/// Sets all gradients to zero and keeps their buffers. Each parameter must be listed once.
pub fn zero_grad<'a>(parameters: impl IntoIterator<Item = &'a Parameter>) {
    change_gradients(parameters, |device, grads| device.fill(grads, 0.0));
}

/// Calls `change` with the gradients there are, to write.
fn change_gradients<'a>(
    parameters: impl IntoIterator<Item = &'a Parameter>,
    change: impl FnOnce(&'static dyn Device, Vec<ViewMut<'_>>),
) {
    let mut locked = Parameter::lock_all(parameters);
    let Some(device) = locked.first().map(|state| state.device()) else { return };
    change(device, locked.iter_mut().filter_map(|state| state.grad_mut()).collect());
}
