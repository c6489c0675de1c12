//! y = x wᵀ + b, with GELU or a residual folded in. torch.nn.Linear; GELU is the exact one,
//! x Φ(x) (Hendrycks and Gimpel 2016), as timm uses it.

use crate::device::{Epilogue, LinearSize};
use crate::shape::{expect_shape, matrix};
use crate::tape::Gradients;
use crate::{Result, Tape, Tensor};

/// The tensors of a layer, kept for its backward pass.
#[derive(Clone)]
struct Layer {
    x: Tensor,
    w: Tensor,
    b: Option<Tensor>,
    size: LinearSize,
}

impl Layer {
    fn new(op: &'static str, x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Self> {
        let (rows, input) = matrix(op, "x", x)?;
        let (output, _) = matrix(op, "the weight", w)?;
        expect_shape(op, "the weight", w.shape(), &[output, input])?;
        if let Some(b) = b {
            expect_shape(op, "the bias", b.shape(), &[output])?;
        }
        let size = LinearSize { rows, input, output };
        Ok(Self { x: x.clone(), w: w.clone(), b: b.cloned(), size })
    }

    fn inputs(&self) -> Vec<&Tensor> {
        [&self.x, &self.w].into_iter().chain(&self.b).collect()
    }

    fn shape(&self) -> [usize; 2] {
        [self.size.rows, self.size.output]
    }

    fn forward(
        &self,
        op: &'static str,
        tape: &Tape,
        epilogue: Epilogue<'_>,
    ) -> crate::device::Buffer {
        tape.count(self.size.multiply_adds());
        tape.run(op, |device| {
            let mut y = device.buffer(self.size.rows * self.size.output);
            let b = self.b.as_ref().map(Tensor::view);
            device.linear(y.view_mut(), self.x.view(), self.w.view(), b, self.size, epilogue);
            y
        })
    }

    /// dx = dy w; dw += dyᵀ x; db += Σ_r dy
    fn backward(&self, gradients: &mut Gradients<'_>, dy: &Tensor) -> Result<()> {
        let (device, size) = (gradients.device(), self.size);
        if self.w.slot().is_some() {
            gradients.count(size.multiply_adds());
        }
        gradients.accumulate(&self.w, |dw| {
            device.linear_grad_weight(dw, dy.view(), self.x.view(), size);
        })?;
        if let Some(b) = &self.b {
            gradients.accumulate(b, |db| {
                device.column_sum(db, dy.view(), size.rows, size.output);
            })?;
        }
        if self.x.slot().is_none() {
            return Ok(());
        }
        gradients.count(size.multiply_adds());
        let mut dx = device.buffer(size.rows * size.input);
        device.linear_grad_input(dx.view_mut(), dy.view(), self.w.view(), size);
        gradients.add(&self.x, Tensor::new(dx, self.x.shape()))
    }
}

/// y = x wᵀ + b. x [R, I], w [O, I], b [O]; y [R, O].
pub fn linear(tape: &Tape, x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let layer = Layer::new("linear", x, w, b)?;
    let y = layer.forward("linear", tape, Epilogue::None);
    Ok(tape.record("linear", y, &layer.shape(), &layer.inputs(), {
        let layer = layer.clone();
        move |gradients, dy| layer.backward(gradients, &dy)
    }))
}

/// y = GELU(s), s = x wᵀ + b. x [R, I], w [O, I], b [O]; y [R, O].
pub fn linear_gelu(tape: &Tape, x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let layer = Layer::new("linear_gelu", x, w, b)?;
    if !tape.tracks(&layer.inputs()) {
        let y = layer.forward("linear_gelu", tape, Epilogue::Gelu(None));
        return Ok(Tensor::new(y, &layer.shape()));
    }
    let mut s = tape.device().buffer(layer.size.rows * layer.size.output);
    let y = layer.forward("linear_gelu", tape, Epilogue::Gelu(Some(s.view_mut())));
    let s = Tensor::new(s, &layer.shape());
    // ds = dy GELU'(s)
    let backward = {
        let layer = layer.clone();
        move |gradients: &mut Gradients<'_>, dy: Tensor| {
            let device = gradients.device();
            let mut ds = device.buffer(dy.len());
            device.gelu_backward(ds.view_mut(), dy.view(), s.view());
            layer.backward(gradients, &Tensor::new(ds, dy.shape()))
        }
    };
    Ok(tape.record("linear_gelu", y, &layer.shape(), &layer.inputs(), backward))
}

/// y = residual + x wᵀ + b. x [R, I], w [O, I], b [O], residual [R, O]; y [R, O].
pub fn linear_residual(
    tape: &Tape,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    residual: &Tensor,
) -> Result<Tensor> {
    let layer = Layer::new("linear_residual", x, w, b)?;
    expect_shape("linear_residual", "the residual", residual.shape(), &layer.shape())?;
    let y = layer.forward("linear_residual", tape, Epilogue::Residual(residual.view()));
    let mut inputs = layer.inputs();
    inputs.push(residual);
    let backward = {
        let layer = layer.clone();
        let residual = residual.clone();
        move |gradients: &mut Gradients<'_>, dy: Tensor| {
            layer.backward(gradients, &dy)?;
            gradients.add(&residual, dy)
        }
    };
    Ok(tape.record("linear_residual", y, &layer.shape(), &inputs, backward))
}
