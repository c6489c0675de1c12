//! Layer norm over each attention head: timm's `qk_norm` (Dehghani et al. 2023, section 2).

use crate::device::{HeadColumns, Moments};
use crate::shape::{expect_count, expect_multiple, expect_shape, matrix};
use crate::tape::Gradients;
use crate::{Result, Tape, Tensor};
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
    expect_multiple("head_norm", "the width to split into heads", columns.len(), head_dim)?;
    expect_count("head_norm", "columns past the row", columns.end.saturating_sub(stride), 0)?;
    let heads = columns.len() / head_dim;
    let columns = HeadColumns { columns, head_dim, stride };
    let device = x.device();
    let (y, mean, rstd) = tape.run("head_norm", || {
        let mut y = device.buffer(rows * stride);
        let (mut mean, mut rstd) = (device.buffer(rows * heads), device.buffer(rows * heads));
        let saved = Moments { mean: mean.view_mut(), rstd: rstd.view_mut() };
        let affine = (gamma.view(), beta.view());
        device.head_norm(y.view_mut(), saved, x.view(), affine, &columns, eps);
        (y, mean, rstd)
    });
    // As in layer norm, for each head.
    let backward = {
        let (x, gamma, beta) = (x.clone(), gamma.clone(), beta.clone());
        move |gradients: &mut Gradients, dy: Tensor| {
            let saved = Moments { mean: mean.view(), rstd: rstd.view() };
            let (mut d_gamma, mut d_beta) =
                (Tensor::zeros_on(device, &[head_dim]), Tensor::zeros_on(device, &[head_dim]));
            let new = "a new gradient";
            // Both were created above, so no other handle exists.
            let d_affine = (d_gamma.view_mut().expect(new), d_beta.view_mut().expect(new));
            let (dy, x_view, gamma_view) = (dy.view(), x.view(), gamma.view());
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
