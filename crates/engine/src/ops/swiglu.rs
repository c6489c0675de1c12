//! y = silu(a) b for the halves a, b of each row: the gate of SwiGLU (Shazeer 2020, eq. 6), timm's
//! `SwiGLUPacked`. silu(a) = a σ(a).

use crate::shape::{expect_multiple, matrix};
use crate::tape::Gradients;
use crate::{Result, Tape, Tensor};

/// x [R, 2F], a row's first half the gate a; y [R, F].
pub fn swiglu(tape: &Tape, x: &Tensor) -> Result<Tensor> {
    let (rows, columns) = matrix("swiglu", "x", x)?;
    expect_multiple("swiglu", "the width to split into two halves", columns, 2)?;
    let (device, width) = (x.device(), columns / 2);
    let y = tape.run("swiglu", || {
        let mut y = device.buffer(x.dtype(), rows * width);
        device.swiglu(y.view_mut(), x.view(), width);
        y
    });
    // da = dy b σ(a) (1 + a (1 - σ(a))); db = dy silu(a)
    let backward = {
        let x = x.clone();
        move |gradients: &mut Gradients, dy: Tensor| {
            gradients.write(&x, |dx| device.swiglu_backward(dx, dy.view(), x.view(), width))
        }
    };
    let y = Tensor::new(device, y, &[rows, width]);
    Ok(tape.record("swiglu", y, &[x], backward))
}
