//! The naive device. Every kernel has plain loops with 64-bit sums and nothing fused, so that a
//! reader can verify it. Kernels have the same names as in `cpu` and work on `f32` or `f64`. Fast
//! kernels are compared with the `f32` version, and finite differences use the `f64` version.
//!
//! Letters: B samples, R packed rows, K kept rows, D width, A heads, E head width, C channels.
// Kernels take their arguments one by one. Loops use indices, as the formulas do.
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

pub use attention::{attention, attention_backward};
pub use linear::{column_sum, linear, linear_grad_gelu, linear_grad_input, linear_grad_weight};
pub use loss::{cross_entropy, cross_entropy_backward, loss, loss_backward};
pub use math::{erf, gelu_grad, gelu_value};
pub use optim::{adamw, norm};
pub use patches::{normalize_patches, patchify};
pub use rows::{
    add_assign, copy, fill, head_norm, head_norm_backward, layer_norm, layer_norm_backward,
    residual, residual_backward, scale, set_or_add, upload,
};
pub use tokens::{assemble, gather, gather_backward, mean_pool, mean_pool_backward};

use crate::device::*;
use crate::host::{HostMemory, by_functions};
use crate::index::{Index, Segments};
use crate::pool::HostBuffer;
use std::borrow::Cow;

/// A second device for tests. Operations on it call no kernel of the CPU and borrow no memory of
/// the host.
pub struct Naive;

impl HostMemory for Naive {
    fn read(view: View<'_>) -> &[f32] {
        match view {
            View::Naive(values) => values,
            View::Host(_) => panic!("a kernel of the naive device got memory of the host"),
        }
    }

    fn write(view: ViewMut<'_>) -> &mut [f32] {
        match view {
            ViewMut::Naive(values) => values,
            ViewMut::Host(_) => panic!("a kernel of the naive device got memory of the host"),
        }
    }
}

impl Device for Naive {
    fn name(&self) -> &'static str {
        "naive"
    }

    /// All NaN, so that an unwritten value is visible.
    fn buffer(&self, len: usize) -> Buffer {
        let mut buffer = HostBuffer::dirty(len);
        buffer.as_mut_slice().fill(f32::NAN);
        Buffer::Naive(buffer)
    }

    fn lasting_zeros(&self, len: usize) -> Buffer {
        Buffer::Naive(HostBuffer::lasting(len))
    }

    fn download<'a>(&self, x: View<'a>) -> Cow<'a, [f32]> {
        Cow::Owned(Self::read(x).to_vec())
    }

    kernels!(by_functions);
}

/// `f32` or `f64`. All arithmetic is in `f64`.
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
