//! Shapes and types of tensors, and the errors about them.

use crate::index::Index;
use crate::{Dtype, Error, Result, Tensor};

/// Formats a shape as `[2816, 384]`.
pub fn show(shape: &[usize]) -> String {
    format!("{shape:?}")
}

/// Returns an error unless `found` equals `expected`.
pub fn expect_shape(
    op: &'static str,
    arg: &'static str,
    found: &[usize],
    expected: &[usize],
) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Shape { op, arg, found: show(found), expected: show(expected) })
}

/// Returns an error unless `found` rows or items equal `expected`.
pub fn expect_count(
    op: &'static str,
    arg: &'static str,
    found: usize,
    expected: usize,
) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Shape { op, arg, found: found.to_string(), expected: expected.to_string() })
}

/// Returns an error unless `size` is a multiple of `part`.
pub fn expect_multiple(
    op: &'static str,
    arg: &'static str,
    size: usize,
    part: usize,
) -> Result<()> {
    if part > 0 && size.is_multiple_of(part) {
        return Ok(());
    }
    let expected = if part > 0 { format!("a multiple of {part}") } else { "a part above 0".into() };
    Err(Error::Shape { op, arg, found: size.to_string(), expected })
}

/// Returns an error unless `tensor` is stored as `expected`.
pub(crate) fn expect_dtype(
    op: &'static str,
    arg: &'static str,
    tensor: &Tensor,
    expected: Dtype,
) -> Result<()> {
    let found = tensor.dtype();
    if found == expected { Ok(()) } else { Err(Error::Dtype { op, arg, found, expected }) }
}

/// The two sizes of a matrix `[R, D]`.
pub fn matrix(op: &'static str, arg: &'static str, x: &Tensor) -> Result<(usize, usize)> {
    match *x.shape() {
        [rows, width] => Ok((rows, width)),
        _ => Err(Error::Shape {
            op,
            arg,
            found: show(x.shape()),
            expected: "a matrix [rows, width]".into(),
        }),
    }
}

/// Returns an error unless every entry of `index` is a row below `rows`.
pub(crate) fn check_index<T: Copy + Into<i64>>(
    op: &'static str,
    arg: &'static str,
    rows: usize,
    index: &Index<T>,
) -> Result<()> {
    let entries = index.as_slice();
    match entries.iter().position(|&entry| entry.into() >= rows as i64) {
        None => Ok(()),
        Some(entry) => Err(Error::Index { op, arg, index: entries[entry].into(), entry, rows }),
    }
}
