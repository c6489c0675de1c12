//! Kernels over rows: norms, elementwise kernels, token moves, pooling, losses and patches.
//!
//! Letters: B samples, R packed rows, K kept rows, D width, A heads, E head width, C channels. An
//! output is overwritten unless its line has `+=`. Gradients are d + name. Lengths follow from the
//! slices and are asserted, not reported, because operations check shapes before they call. Every
//! kernel gives the same bits for any number of threads and any instruction set.
// A kernel takes its operands one by one. Structs would hide which of them it writes.
#![allow(clippy::too_many_arguments)]

mod elementwise;
mod head_norm;
pub(crate) mod lanes;
mod layer_norm;
mod loss;
mod patches;
mod residual;
mod rope;
mod swiglu;
#[cfg(test)]
pub(crate) mod testing;
mod tokens;

pub(crate) use elementwise::{add_assign, copy, fill, round, scale, set_or_add, upload, widen};
pub(crate) use head_norm::{head_norm, head_norm_backward};
pub(crate) use layer_norm::{layer_norm, layer_norm_backward};
pub(crate) use loss::{cross_entropy, cross_entropy_backward, loss, loss_backward};
pub(crate) use patches::{normalize_patches, patchify};
pub(crate) use residual::{residual, residual_backward};
pub(crate) use rope::rope;
pub(crate) use swiglu::{swiglu, swiglu_backward};
pub(crate) use tokens::{assemble, gather, gather_backward, mean_pool, mean_pool_backward};
