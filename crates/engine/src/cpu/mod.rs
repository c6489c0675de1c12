//! The CPU: each kernel of [`Device`] is the function of the same name.

mod adamw;
mod attention;
mod dispatch;
mod gemm;
mod math;
mod parallel;
mod row;
#[cfg(test)]
mod tests;

pub use dispatch::{instruction_set, limit_instruction_set};
pub(crate) use gemm::peak_tile;

use crate::device::*;
use crate::dtype::{Dtype, Slice, SliceMut};
use crate::host::{HostMemory, by_functions};
use crate::index::{Index, Segments};
use crate::pool::HostValues;
use adamw::{adamw, norm};
use attention::{attention, attention_backward};
use gemm::{column_sum, linear, linear_grad_gelu, linear_grad_input, linear_grad_weight};
use row::*;
use std::borrow::Cow;

/// All cores of this machine, or the number of threads of rayon's pool.
pub struct Cpu;

impl HostMemory for Cpu {
    fn read(view: View<'_>) -> Slice<'_> {
        match view {
            View::Host(values) => values,
            #[cfg(any(test, feature = "check"))]
            View::Naive(_) => panic!("a kernel of the CPU got memory of the naive device"),
        }
    }

    fn write(view: ViewMut<'_>) -> SliceMut<'_> {
        match view {
            ViewMut::Host(values) => values,
            #[cfg(any(test, feature = "check"))]
            ViewMut::Naive(_) => panic!("a kernel of the CPU got memory of the naive device"),
        }
    }
}

impl Device for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn buffer(&self, dtype: Dtype, len: usize) -> Buffer {
        Buffer::Host(HostValues::dirty(dtype, len))
    }

    fn lasting_zeros(&self, len: usize) -> Buffer {
        Buffer::Host(HostValues::lasting(len))
    }

    fn download<'a>(&self, x: View<'a>) -> Cow<'a, [f32]> {
        match Self::read(x) {
            Slice::F32(values) => Cow::Borrowed(values),
            Slice::Bf16(values) => {
                let mut wide = vec![0.0; values.len()];
                widen(&mut wide, values);
                Cow::Owned(wide)
            }
        }
    }

    kernels!(by_functions);
}
