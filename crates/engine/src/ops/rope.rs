//! Rotary positions: the values of each head are turned in pairs, by angles that depend on the
//! token's place. RoFormer (Su et al. 2021), eq. 34. Which angles is the model's choice: the
//! factors are a table.

use crate::device::{HeadColumns, Rotation, Write};
use crate::index::Index;
use crate::shape::{check_index, expect_count, expect_dtype, expect_multiple, matrix};
use crate::tape::Gradients;
use crate::{Dtype, Result, Tape, Tensor};
use std::ops::Range;

/// Turns each head (E values) in `columns` of x [R, S]. Other columns are copied.
///
/// `factors` [P, 2E] has a row for each place: c [E], then s [E]. `places` [R] is the place of each
/// row. With j^1 for the other value of a pair (2i, 2i + 1):
///
/// ```text
/// y_j = c_j x_j + s_j x_(j^1)
/// ```
///
/// A rotation by a has c = cos a in both places, s_2i = -sin a and s_2i+1 = sin a. V-JEPA 2 has
/// factors that are no rotation, so c and s are free. The factors get no gradient.
pub fn rope(
    tape: &Tape,
    x: &Tensor,
    columns: Range<usize>,
    factors: &Tensor,
    places: &Index,
) -> Result<Tensor> {
    let (rows, stride) = matrix("rope", "x", x)?;
    let (table_rows, factor_width) = matrix("rope", "the factors", factors)?;
    expect_dtype("rope", "the factors", factors, Dtype::F32)?;
    expect_multiple("rope", "the width of the factors", factor_width, 4)?;
    let head_dim = factor_width / 2;
    expect_multiple("rope", "the width to split into heads", columns.len(), head_dim)?;
    expect_count("rope", "columns past the row", columns.end.saturating_sub(stride), 0)?;
    expect_count("rope", "the number of places", places.len(), rows)?;
    check_index("rope", "the factors", table_rows, places)?;
    let columns = HeadColumns { columns, head_dim, stride };
    let device = x.device();
    let y = tape.run("rope", || {
        let mut y = device.buffer(x.dtype(), rows * stride);
        let (out, turn) = (Write::Set(y.view_mut()), Rotation::Forward);
        device.rope(out, x.view(), factors.floats(), places, &columns, turn);
        y
    });
    // dx_j = c_j dy_j + s_(j^1) dy_(j^1)
    let backward = {
        let (x, factors, places) = (x.clone(), factors.clone(), places.clone());
        move |gradients: &mut Gradients, dy: Tensor| {
            gradients.write(&x, |dx| {
                let turn = Rotation::Transposed;
                device.rope(dx, dy.view(), factors.floats(), &places, &columns, turn);
            })
        }
    };
    let y = Tensor::new(device, y, x.shape());
    Ok(tape.record("rope", y, &[x], backward))
}
