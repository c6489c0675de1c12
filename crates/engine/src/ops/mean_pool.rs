//! y_b = mean of the sample's rows: the pooled feature of an image.

use crate::index::Segments;
use crate::shape::{expect_count, matrix};
use crate::tape::Gradients;
use crate::{Dtype, Error, Result, Tape, Tensor};

/// Mean over each sample's rows of x [R, D] without its first `skip` rows (class token, registers).
/// y [B, D], in f32.
pub fn mean_pool(tape: &Tape, x: &Tensor, segments: &Segments, skip: usize) -> Result<Tensor> {
    let x = &super::cast(tape, x, Dtype::F32);
    let (rows, width) = matrix("mean_pool", "x", x)?;
    expect_count("mean_pool", "the rows of the segments", segments.rows(), rows)?;
    if let Some(length) = segments.lengths().find(|&length| length <= skip) {
        return Err(Error::Shape {
            op: "mean_pool",
            arg: "a sample",
            found: format!("{length} rows"),
            expected: format!("more than the {skip} skipped rows"),
        });
    }
    let device = x.device();
    let y = tape.run("mean_pool", || {
        let mut y = device.buffer(Dtype::F32, segments.len() * width);
        device.mean_pool(y.view_mut(), x.view(), segments, skip, width);
        y
    });
    // dx_r = dy_b / count_b, 0 for skipped rows
    let backward = {
        let (x, segments) = (x.clone(), segments.clone());
        move |gradients: &mut Gradients, dy: Tensor| {
            gradients.write(&x, |dx| {
                device.mean_pool_backward(dx, dy.view(), &segments, skip, width);
            })
        }
    };
    let y = Tensor::new(device, y, &[segments.len(), width]);
    Ok(tape.record("mean_pool", y, &[x], backward))
}
