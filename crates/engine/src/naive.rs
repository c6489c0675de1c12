//! The naive twin of every kernel: plain loops, 64-bit sums, nothing fused, to be believed by
//! reading. Same names and arguments as the kernels in `cpu`, for `f32` or `f64`: kernels are held
//! against the former, finite differences taken of the latter.
//!
//! Letters: B samples, R packed rows, K kept rows, D width, A heads, E head width, C channels.
// The kernels' arguments, one by one; indices, because the formulas have them.
#![allow(clippy::too_many_arguments, clippy::needless_range_loop)]

mod attention;
mod linear;
mod loss;
mod math;
mod optim;
mod patches;
mod rows;
#[cfg(test)]
pub(crate) mod testing;
mod tokens;

pub use attention::{QkvGrad, Ragged, Rows, attention, attention_backward};
pub use linear::{
    Epilogue, column_sum, linear, linear_grad_gelu, linear_grad_input, linear_grad_weight,
};
pub use loss::{cross_entropy, cross_entropy_backward, loss, loss_backward};
pub use math::{erf, gelu_grad, gelu_value};
pub use optim::{adamw, first_non_finite, squared_norm};
pub use patches::{normalize_patches, patchify};
pub use rows::{
    add_assign, head_norm, head_norm_backward, layer_norm, layer_norm_backward, residual,
    residual_backward, scale,
};
pub use tokens::{assemble, gather, gather_backward, mean_pool, mean_pool_backward};

/// `f32` or `f64`; all arithmetic is done in `f64`.
pub trait Real: Copy {
    /// The value in 64 bits.
    fn f64(self) -> f64;
    /// The nearest value of this type.
    fn of(v: f64) -> Self;
}

impl Real for f32 {
    fn f64(self) -> f64 {
        self.into()
    }
    fn of(v: f64) -> Self {
        v as Self
    }
}

impl Real for f64 {
    fn f64(self) -> f64 {
        self
    }
    fn of(v: f64) -> Self {
        v
    }
}

/// y += v
fn add<T: Real>(y: &mut T, v: f64) {
    *y = T::of(y.f64() + v);
}
