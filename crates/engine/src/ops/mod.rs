//! Every operation and its formula, one per line.
//!
//! | operation | formula |
//! |---|---|
//! | [`linear`] | y = x wᵀ + b |
//! | [`linear_residual`] | y = residual + x wᵀ + b |
//! | [`mlp`] | y = residual + GELU(x w1ᵀ + b1) w2ᵀ + b2, exact GELU |
//! | [`swiglu`] | y = silu(a) b, a and b the halves of a row |
//! | [`layer_norm`] | y = γ (x - μ)/√(σ² + ε) + β |
//! | [`head_norm`] | layer norm over each head of some columns |
//! | [`rope`] | y_j = c_j x_j + s_j x_(j^1) over each head of some columns |
//! | [`attention`], [`cross_attention`] | y = softmax(q kᵀ/√E) v by sample and head |
//! | [`gather`] | y_k = x[index_k] |
//! | [`assemble`] | y_r = x row or token row, + position row |
//! | [`add`] | y = a + b |
//! | [`residual`] | y = skip + keep_b γ branch |
//! | [`cast`] | y = x in another type |
//! | [`mean_pool`] | y_b = mean of the sample's rows |
//! | [`loss`] | Σ_r w_r mean_d l(prediction - target), l = L1, smooth L1 or MSE |
//! | [`cross_entropy`] | mean_b -log softmax(logits)[label] |
//! | [`patchify`] | pixels to normalised patches, only the requested ones |
//! | [`normalize_patches`] | each patch to mean 0, variance 1 |
//!
//! Letters are the same everywhere: B samples, N tokens, R packed rows, K kept, M targets, P
//! prefix, D width, F hidden, A heads, E = D/A, L layers, C channels. The grid is T x H x W, a
//! patch pt x ph x pw. Each file has the formula and its source, the forward pass and the backward
//! pass, in that order. The name of a gradient is d + name.

mod attention;
mod cast;
mod head_norm;
mod layer_norm;
mod linear;
mod loss;
mod mean_pool;
mod mlp;
mod patchify;
mod residual;
mod rope;
mod swiglu;
mod tokens;

pub use crate::device::{LossKind, PatchNorm, PatchOrder, Row};
pub use crate::images::Images;
pub use attention::{attention, cross_attention};
pub use cast::cast;
pub use head_norm::head_norm;
pub use layer_norm::layer_norm;
pub use linear::{linear, linear_residual};
pub use loss::{cross_entropy, loss};
pub use mean_pool::mean_pool;
pub use mlp::{Affine, mlp};
pub use patchify::{normalize_patches, patchify};
pub use residual::{add, residual};
pub use rope::rope;
pub use swiglu::swiglu;
pub use tokens::{assemble, gather};
