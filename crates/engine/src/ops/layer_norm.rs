//! y = γ (x - μ)/√(σ² + ε) + β over D. Ba et al. 2016, eq. 4. σ² is biased, as in torch.

use crate::device::{Full, Moments};
use crate::shape::{expect_dtype, expect_shape, matrix};
use crate::tape::Gradients;
use crate::{Dtype, Result, Tape, Tensor};

/// Normalises each row of x [R, D]. `affine` is (γ [D], β [D]), or none for a parameter-free norm.
pub fn layer_norm(
    tape: &Tape,
    x: &Tensor,
    affine: Option<(&Tensor, &Tensor)>,
    eps: f32,
) -> Result<Tensor> {
    let (rows, width) = matrix("layer_norm", "x", x)?;
    let mut inputs = vec![x];
    if let Some((gamma, beta)) = affine {
        expect_shape("layer_norm", "the weight", gamma.shape(), &[width])?;
        expect_shape("layer_norm", "the bias", beta.shape(), &[width])?;
        expect_dtype("layer_norm", "the weight", gamma, Dtype::F32)?;
        expect_dtype("layer_norm", "the bias", beta, Dtype::F32)?;
        inputs.extend([gamma, beta]);
    }
    let device = x.device();
    let (y, mean, rstd) = tape.run("layer_norm", || {
        let mut y = device.buffer(x.dtype(), rows * width);
        let [mut mean, mut rstd] = [(); 2].map(|()| device.buffer(Dtype::F32, rows));
        let saved = Moments { mean: Full(mean.view_mut()), rstd: Full(rstd.view_mut()) };
        let views = affine.map(|(gamma, beta)| (gamma.floats(), beta.floats()));
        device.layer_norm(y.view_mut(), saved, x.view(), views, width, eps);
        (y, mean, rstd)
    });
    // x̂ = (x - μ)/√(σ² + ε); dx = (dy γ - mean(dy γ) - x̂ mean(dy γ x̂))/√(σ² + ε);
    // dγ += Σ_r dy x̂; dβ += Σ_r dy
    let backward = {
        let (x, affine) = (x.clone(), affine.map(|(gamma, beta)| (gamma.clone(), beta.clone())));
        move |gradients: &mut Gradients, dy: Tensor| {
            let saved = Moments { mean: Full(mean.view()), rstd: Full(rstd.view()) };
            let zeros = || Tensor::zeros_on(device, Dtype::F32, &[width]);
            let (mut d_gamma, mut d_beta) = (zeros(), zeros());
            let d_affine = affine.as_ref().map(|_| (d_gamma.new_floats(), d_beta.new_floats()));
            let gamma = affine.as_ref().map(|(gamma, _)| gamma.floats());
            let (dy, x_view) = (dy.view(), x.view());
            gradients.write_even_if_untracked(&x, |dx| {
                device.layer_norm_backward(dx, d_affine, dy, x_view, saved, gamma, width);
            })?;
            if let Some((gamma, beta)) = &affine {
                gradients.add(gamma, d_gamma)?;
                gradients.add(beta, d_beta)?;
            }
            Ok(())
        }
    };
    let y = Tensor::new(device, y, x.shape());
    Ok(tape.record("layer_norm", y, &inputs, backward))
}
