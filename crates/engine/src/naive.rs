//! The naive device. Every kernel has plain loops with 64-bit sums and nothing fused, so that a
//! reader can verify it. Kernels have the same names as in `cpu`. They take activations of type `T`
//! and all else of type `P`. Fast kernels are compared with the versions that the device uses: `T`
//! is `f32` or `Bf16`, `P` is `f32`. Finite differences use the version where both are `f64`.
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
mod swiglu;
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
    residual, residual_backward, rope, round, scale, set_or_add, upload, widen,
};
pub use swiglu::{swiglu, swiglu_backward};
pub use tokens::{assemble, gather, gather_backward, mean_pool, mean_pool_backward};

use crate::device::*;
use crate::dtype::{Bf16, Dtype, Element, Slice, SliceMut};
use crate::host::{HostMemory, by_functions};
use crate::index::{Index, Segments};
use crate::pool::HostValues;
use std::borrow::Cow;

/// A second device for tests. Operations on it call no kernel of the CPU and borrow no memory of
/// the host.
pub struct Naive;

impl HostMemory for Naive {
    fn read(view: View<'_>) -> Slice<'_> {
        match view {
            View::Naive(values) => values,
            View::Host(_) => panic!("a kernel of the naive device got memory of the host"),
        }
    }

    fn write(view: ViewMut<'_>) -> SliceMut<'_> {
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
    fn buffer(&self, dtype: Dtype, len: usize) -> Buffer {
        let mut buffer = HostValues::dirty(dtype, len);
        match buffer.slice_mut() {
            SliceMut::F32(values) => values.fill(f32::NAN),
            SliceMut::Bf16(values) => values.fill(Element::round(f32::NAN)),
        }
        Buffer::Naive(buffer)
    }

    fn lasting_zeros(&self, len: usize) -> Buffer {
        Buffer::Naive(HostValues::lasting(len))
    }

    fn download<'a>(&self, x: View<'a>) -> Cow<'a, [f32]> {
        Cow::Owned(match Self::read(x) {
            Slice::F32(values) => values.to_vec(),
            Slice::Bf16(values) => values.iter().map(|v| v.wide()).collect(),
        })
    }

    kernels!(by_functions);
}

/// `f32`, `f64` or [`Bf16`]. All arithmetic is in `f64`.
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

impl Real for Bf16 {
    fn f64(self) -> f64 {
        self.wide().into()
    }
    fn of(v: f64) -> Self {
        Element::round(v as f32)
    }
}

/// y += v
fn add<T: Real>(y: &mut T, v: f64) {
    *y = T::of(y.f64() + v);
}
