//! y = residual + GELU(x w1ᵀ + b1) w2ᵀ + b2: a transformer's MLP, timm's `Mlp`. GELU is exact, x
//! Φ(x) (Hendrycks and Gimpel 2016), as in timm.
//!
//! This is one operation, so that GELU's output, four times as wide as x, is not saved for the
//! backward pass. It is recomputed there together with GELU's slope, tile by tile.

use super::linear::Layer;
use crate::device::Epilogue;
use crate::shape::{expect_dtype, expect_shape, matrix};
use crate::tape::Gradients;
use crate::{Result, Tape, Tensor};

/// A layer's weight and bias.
pub type Affine<'a> = (&'a Tensor, Option<&'a Tensor>);

/// x [R, I], fc1 ([F, I], [F]), fc2 ([O, F], [O]), residual [R, O]; y [R, O].
pub fn mlp(
    tape: &Tape,
    x: &Tensor,
    fc1: Affine<'_>,
    fc2: Affine<'_>,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let fc1 = Layer::new("mlp", matrix("mlp", "x", x)?, fc1.0, fc1.1)?;
    let fc2 = Layer::new("mlp", fc1.shape().into(), fc2.0, fc2.1)?;
    if let Some(residual) = residual {
        expect_shape("mlp", "the residual", residual.shape(), &fc2.shape())?;
        expect_dtype("mlp", "the residual", residual, x.dtype())?;
    }
    let inputs: Vec<_> =
        fc1.parameters().chain(fc2.parameters()).chain([x]).chain(residual).collect();
    let mut s = tape.tracks(&inputs).then(|| {
        let device = x.device();
        Tensor::new(device, device.buffer(x.dtype(), fc1.size.rows * fc1.size.output), &fc1.shape())
    });
    let hidden = {
        // It was created on the line above, so no other handle exists.
        let s = s.as_mut().map(|s| s.view_mut().expect("a new tensor"));
        fc1.forward("mlp", tape, x, Epilogue::Gelu(s)) // [R, F]
    };
    let epilogue = residual.map_or(Epilogue::None, |residual| Epilogue::Residual(residual.view()));
    let y = fc2.forward("mlp", tape, &hidden, epilogue);
    let Some(s) = s else { return Ok(y) };
    let backward = {
        let (fc1, fc2, x, residual) = (fc1.clone(), fc2.clone(), x.clone(), residual.cloned());
        move |gradients: &mut Gradients, dy: Tensor| {
            let (hidden, ds) = through_gelu(gradients, &fc2, &s, &dy);
            fc2.add_to_parameters(gradients, &hidden, &dy)?;
            drop(hidden);
            fc1.add_to_parameters(gradients, &x, &ds)?;
            fc1.add_to_input(gradients, &x, &ds)?;
            residual.map_or(Ok(()), |residual| gradients.add(&residual, dy))
        }
    };
    Ok(tape.record("mlp", y, &inputs, backward))
}

/// h = GELU(s) [R, F] and ds = (dy w2) GELU'(s) [R, F].
fn through_gelu(
    gradients: &mut Gradients,
    fc2: &Layer,
    s: &Tensor,
    dy: &Tensor,
) -> (Tensor, Tensor) {
    let (device, size) = (dy.device(), fc2.size);
    gradients.count(size.multiply_adds());
    let [mut hidden, mut ds] = [(); 2].map(|()| device.buffer(s.dtype(), s.len()));
    let (ds_view, hidden_view) = (ds.view_mut(), hidden.view_mut());
    device.linear_grad_gelu(ds_view, hidden_view, dy.view(), fc2.w.floats(), s.view(), size);
    (Tensor::new(device, hidden, s.shape()), Tensor::new(device, ds, s.shape()))
}
