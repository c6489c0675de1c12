//! Layer norm over each attention head: timm's `qk_norm` (Dehghani et al. 2023, section 2).

use crate::device::{Full, HeadColumns, Moments};
use crate::shape::{expect_count, expect_dtype, expect_multiple, expect_shape, matrix};
use crate::tape::Gradients;
use crate::{Dtype, Result, Tape, Tensor};
use std::ops::Range;

/// Normalises each head (E = `head_dim` values) in `columns` of x [R, S]. Other columns are copied.
/// γ [E], β [E].
pub fn head_norm(
    tape: &Tape,
    x: &Tensor,
    columns: Range<usize>,
    head_dim: usize,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f32,
) -> Result<Tensor> {
    let (rows, stride) = matrix("head_norm", "x", x)?;
    expect_shape("head_norm", "the weight", gamma.shape(), &[head_dim])?;
    expect_shape("head_norm", "the bias", beta.shape(), &[head_dim])?;
    expect_dtype("head_norm", "the weight", gamma, Dtype::F32)?;
    expect_dtype("head_norm", "the bias", beta, Dtype::F32)?;
    expect_multiple("head_norm", "the width to split into heads", columns.len(), head_dim)?;
    expect_count("head_norm", "columns past the row", columns.end.saturating_sub(stride), 0)?;
    let heads = columns.len() / head_dim;
    let columns = HeadColumns { columns, head_dim, stride };
    let device = x.device();
    let (y, mean, rstd) = tape.run("head_norm", || {
        let mut y = device.buffer(x.dtype(), rows * stride);
        let [mut mean, mut rstd] = [(); 2].map(|()| device.buffer(Dtype::F32, rows * heads));
        let saved = Moments { mean: Full(mean.view_mut()), rstd: Full(rstd.view_mut()) };
        let affine = (gamma.floats(), beta.floats());
        device.head_norm(y.view_mut(), saved, x.view(), affine, &columns, eps);
        (y, mean, rstd)
    });
    // As in layer norm, for each head.
    let backward = {
        let (x, gamma, beta) = (x.clone(), gamma.clone(), beta.clone());
        move |gradients: &mut Gradients, dy: Tensor| {
            let saved = Moments { mean: Full(mean.view()), rstd: Full(rstd.view()) };
            let zeros = || Tensor::zeros_on(device, Dtype::F32, &[head_dim]);
            let (mut d_gamma, mut d_beta) = (zeros(), zeros());
            let d_affine = (d_gamma.new_floats(), d_beta.new_floats());
            let (dy, x_view, gamma_view) = (dy.view(), x.view(), gamma.floats());
            gradients.write_even_if_untracked(&x, |dx| {
                device.head_norm_backward(dx, d_affine, dy, x_view, saved, gamma_view, &columns);
            })?;
            gradients.add(&gamma, d_gamma)?;
            gradients.add(&beta, d_beta)
        }
    };
    let y = Tensor::new(device, y, x.shape());
    Ok(tape.record("head_norm", y, &[x, gamma, beta], backward))
}
