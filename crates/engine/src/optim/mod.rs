//! AdamW and the gradient norm.

mod adamw;
mod clip;

pub use adamw::{AdamW, decays_by_default};
pub use clip::{clip_grad_norm, grad_norm};
