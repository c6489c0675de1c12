//! y = skip + keep_b γ branch: the residual sum with layer scale (Touvron et al. 2021, eq. 4) and
//! stochastic depth (Huang et al. 2016), both optional.

use crate::index::{Index, Segments};
use crate::shape::{expect_count, expect_dtype, expect_shape, matrix};
use crate::tape::Gradients;
use crate::{Dtype, Result, Tape, Tensor};

/// y = a + b, both of shape [R, D].
pub fn add(tape: &Tape, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    residual(tape, a, b, None, None)
}

/// y = skip + keep_b γ branch. skip and branch are [R, D], and `scale` is γ [D]. `keep` holds each
/// sample's factor: 0 if stochastic depth drops the branch, 1/(1 - rate) if not.
pub fn residual(
    tape: &Tape,
    skip: &Tensor,
    branch: &Tensor,
    scale: Option<&Tensor>,
    keep: Option<(&Segments, &[f32])>,
) -> Result<Tensor> {
    let (rows, width) = matrix("residual", "skip", skip)?;
    expect_shape("residual", "the branch", branch.shape(), skip.shape())?;
    expect_dtype("residual", "the branch", branch, skip.dtype())?;
    if let Some(scale) = scale {
        expect_shape("residual", "the layer scale", scale.shape(), &[width])?;
        expect_dtype("residual", "the layer scale", scale, Dtype::F32)?;
    }
    let factor = keep.map(|(segments, keep)| row_factors(segments, keep, rows)).transpose()?;
    let device = skip.device();
    let y = tape.run("residual", || {
        let mut y = device.buffer(skip.dtype(), rows * width);
        let (scale, factor) = (scale.map(Tensor::floats), factor.as_ref());
        device.residual(y.view_mut(), skip.view(), branch.view(), scale, factor, width);
        y
    });
    let inputs: Vec<_> = [skip, branch].into_iter().chain(scale).collect();
    // dskip = dy; dbranch = keep_b γ dy; dγ += Σ_r keep_b branch dy
    let backward = {
        let (skip, branch, scale) = (skip.clone(), branch.clone(), scale.cloned());
        move |gradients: &mut Gradients, dy: Tensor| {
            gradients.add(&skip, dy.clone())?;
            if scale.is_none() && factor.is_none() {
                return gradients.add(&branch, dy);
            }
            let mut d_scale = Tensor::zeros_on(device, Dtype::F32, &[width]);
            let d_scale_view = scale.as_ref().map(|_| d_scale.new_floats());
            let (scale_view, factor) = (scale.as_ref().map(Tensor::floats), factor.as_ref());
            let (dy, b) = (dy.view(), branch.view());
            gradients.write_even_if_untracked(&branch, |d_branch| {
                let d_scale = d_scale_view;
                device.residual_backward(d_branch, d_scale, dy, b, scale_view, factor, width);
            })?;
            scale.map_or(Ok(()), |scale| gradients.add(&scale, d_scale))
        }
    };
    let y = Tensor::new(device, y, skip.shape());
    Ok(tape.record("residual", y, &inputs, backward))
}

/// Each row's factor, which is the factor of its sample.
fn row_factors(segments: &Segments, keep: &[f32], rows: usize) -> Result<Index<f32>> {
    expect_count("residual", "the samples' factors", keep.len(), segments.len())?;
    expect_count("residual", "the rows of the segments", segments.rows(), rows)?;
    let factors = segments.lengths().zip(keep).flat_map(|(n, &k)| std::iter::repeat_n(k, n));
    Ok(factors.collect::<Vec<_>>().into())
}
