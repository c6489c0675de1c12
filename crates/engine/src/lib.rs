//! A short tape over fused operations for vision transformers.
//!
//! ```
//! use engine::{Parameter, Tape, Tensor, ops, optim::AdamW};
//! # fn main() -> engine::Result<()> {
//! let x = Tensor::from_vec(&[1.0, 2.0, 3.0, 4.0], &[2, 2]); // [R, I]
//! let target = Tensor::from_vec(&[1.0, -1.0], &[2, 1]); // [R, O]
//! let w = Parameter::new("w", Tensor::zeros(&[1, 2])); // [O, I]
//! let mut optimizer = AdamW::new((0.9, 0.95), 1e-8);
//! let mut losses = Vec::new();
//! for _ in 0..200 {
//!     let tape = Tape::new();
//!     let y = ops::linear(&tape, &x, &w.tensor(), None)?; // [R, O]
//!     let loss = ops::loss(&tape, &y, &target, ops::LossKind::Mse, None)?;
//!     w.zero_grad();
//!     tape.backward(&loss)?;
//!     optimizer.step([("w", &w, 0.05, 0.0)]);
//!     losses.push(loss.item());
//! }
//! assert!(losses[199] < 0.1 * losses[0]);
//! # Ok(())
//! # }
//! ```
//!
//! Token sequences are packed, never padded: rows `[R, D]`, and [`Segments`] that assign rows to
//! samples. The bits of results are the same for any number of threads.
//!
//! The result of an operation has the [`Dtype`] of its activations, so what follows bf16 patches
//! ([`ops::Images::with_dtype`]) is bf16. Parameters, their gradients and losses are f32.

#[cfg(any(test, feature = "check"))]
pub mod check;
mod constant;
pub mod cpu;
pub mod device;
mod dtype;
mod error;
mod host;
mod images;
mod index;
pub mod init;
#[cfg(any(test, feature = "check"))]
pub mod naive;
pub mod ops;
pub mod optim;
mod parameter;
mod peak;
pub mod pool;
pub mod random;
pub mod shape;
mod slot;
mod tape;
mod tensor;
mod watch;

pub use constant::Constant;
pub use dtype::{Bf16, Dtype, Slice, SliceMut};
pub use error::{Error, Result};
pub use index::{Index, Segments};
pub use parameter::{Frozen, Module, Parameter};
pub use peak::fma_peak_gflops;
pub use tape::{InputGradient, OpCost, Tape};
pub use tensor::Tensor;
pub use watch::{Pass, Trouble};

/// The device of tensors that are created from host values, until they are moved to another device.
pub const HOST: &dyn device::Device = &cpu::Cpu;
