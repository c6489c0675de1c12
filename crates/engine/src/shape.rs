//! Shapes, and the one place where shape errors are worded.

use crate::{Error, Result, Tensor};
use std::ops::Range;
use std::sync::Arc;

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

/// Returns an error unless `size` is a whole number of `part`s.
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

/// A packed ragged batch: sample `b` owns rows `offsets[b]..offsets[b + 1]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segments {
    offsets: Arc<[usize]>,
}

impl Segments {
    /// One segment per length, in order.
    pub fn new(lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut offsets = vec![0];
        let mut end = 0;
        for length in lengths {
            end += length;
            offsets.push(end);
        }
        Self { offsets: offsets.into() }
    }

    /// `samples` segments of `length` rows each.
    pub fn uniform(samples: usize, length: usize) -> Self {
        Self::new(std::iter::repeat_n(length, samples))
    }

    /// Number of samples B.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of packed rows R.
    pub fn rows(&self) -> usize {
        self.offsets[self.len()]
    }

    /// Rows of sample `b`.
    pub fn range(&self, b: usize) -> Range<usize> {
        self.offsets[b]..self.offsets[b + 1]
    }

    /// Rows of each sample.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        self.offsets.windows(2).map(|w| w[1] - w[0])
    }

    /// B + 1 row offsets.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }
}
