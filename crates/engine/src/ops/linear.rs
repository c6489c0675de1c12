//! y = x wᵀ + b, with an optional fused residual. torch.nn.Linear.

use crate::device::{Epilogue, Full, LinearSize, View, ViewMut};
use crate::shape::{expect_dtype, expect_shape, matrix};
use crate::tape::Gradients;
use crate::{Dtype, Result, Tape, Tensor};

/// The parameters of a layer, kept for its backward pass.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) w: Tensor,
    b: Option<Tensor>,
    pub(super) size: LinearSize,
}

impl Layer {
    /// A layer for `rows` rows of `input` values. w [O, I], b [O].
    pub(super) fn new(
        op: &'static str,
        (rows, input): (usize, usize),
        w: &Tensor,
        b: Option<&Tensor>,
    ) -> Result<Self> {
        let (output, _) = matrix(op, "the weight", w)?;
        expect_shape(op, "the weight", w.shape(), &[output, input])?;
        expect_dtype(op, "the weight", w, Dtype::F32)?;
        if let Some(b) = b {
            expect_shape(op, "the bias", b.shape(), &[output])?;
            expect_dtype(op, "the bias", b, Dtype::F32)?;
        }
        Ok(Self { w: w.clone(), b: b.cloned(), size: LinearSize { rows, input, output } })
    }

    pub(super) fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        [&self.w].into_iter().chain(&self.b)
    }

    /// The shape of y.
    pub(super) fn shape(&self) -> [usize; 2] {
        [self.size.rows, self.size.output]
    }

    pub(super) fn forward(
        &self,
        op: &'static str,
        tape: &Tape,
        x: &Tensor,
        epilogue: Epilogue<View<'_>, ViewMut<'_>>,
    ) -> Tensor {
        tape.count(op, self.size.multiply_adds());
        let device = x.device();
        let y = tape.run(op, || {
            let mut y = device.buffer(x.dtype(), self.size.rows * self.size.output);
            let b = self.b.as_ref().map(Tensor::floats);
            device.linear(y.view_mut(), x.view(), self.w.floats(), b, self.size, epilogue);
            y
        });
        Tensor::new(device, y, &self.shape())
    }

    /// dw += dyᵀ x; db += Σ_r dy
    pub(super) fn add_to_parameters(
        &self,
        gradients: &mut Gradients,
        x: &Tensor,
        dy: &Tensor,
    ) -> Result<()> {
        let (device, size) = (dy.device(), self.size);
        if self.w.slot().is_some() {
            gradients.count(size.multiply_adds());
        }
        gradients.accumulate(&self.w, |dw| {
            device.linear_grad_weight(Full(dw), dy.view(), x.view(), size);
        })?;
        let Some(b) = &self.b else { return Ok(()) };
        gradients.accumulate(b, |db| {
            device.column_sum(Full(db), dy.view(), size.rows, size.output);
        })
    }

    /// dx = dy w, added to the gradient of x if x needs one.
    pub(super) fn add_to_input(
        &self,
        gradients: &mut Gradients,
        x: &Tensor,
        dy: &Tensor,
    ) -> Result<()> {
        if x.slot().is_none() {
            return Ok(());
        }
        gradients.count(self.size.multiply_adds());
        gradients.write(x, |dx| {
            dy.device().linear_grad_input(dx, dy.view(), self.w.floats(), self.size);
        })
    }

    fn backward(&self, gradients: &mut Gradients, x: &Tensor, dy: &Tensor) -> Result<()> {
        self.add_to_parameters(gradients, x, dy)?;
        self.add_to_input(gradients, x, dy)
    }
}

/// y = x wᵀ + b. x [R, I], w [O, I], b [O]; y [R, O].
pub fn linear(tape: &Tape, x: &Tensor, w: &Tensor, b: Option<&Tensor>) -> Result<Tensor> {
    let layer = Layer::new("linear", matrix("linear", "x", x)?, w, b)?;
    let y = layer.forward("linear", tape, x, Epilogue::None);
    let inputs: Vec<_> = layer.parameters().chain([x]).collect();
    Ok(tape.record("linear", y, &inputs, {
        let (layer, x) = (layer.clone(), x.clone());
        move |gradients, dy| layer.backward(gradients, &x, &dy)
    }))
}

/// y = residual + x wᵀ + b. x [R, I], w [O, I], b [O], residual [R, O]; y [R, O].
pub fn linear_residual(
    tape: &Tape,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    residual: &Tensor,
) -> Result<Tensor> {
    let layer = Layer::new("linear_residual", matrix("linear_residual", "x", x)?, w, b)?;
    expect_shape("linear_residual", "the residual", residual.shape(), &layer.shape())?;
    expect_dtype("linear_residual", "the residual", residual, x.dtype())?;
    let y = layer.forward("linear_residual", tape, x, Epilogue::Residual(residual.view()));
    let inputs: Vec<_> = layer.parameters().chain([x, residual]).collect();
    let backward = {
        let (layer, x, residual) = (layer.clone(), x.clone(), residual.clone());
        move |gradients: &mut Gradients, dy: Tensor| {
            layer.backward(gradients, &x, &dy)?;
            gradients.add(&residual, dy)
        }
    };
    Ok(tape.record("linear_residual", y, &inputs, backward))
}
