//! Numbers that control which rows a kernel reads: indices, source rows, factors, segments.
//!
//! Each is a list in host memory, which clones share. A device with its own memory keeps its copy
//! next to the list.

use std::ops::Range;
use std::sync::Arc;

/// A list of indices, or of other numbers with one entry for each row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index<T = u32> {
    host: Arc<[T]>,
}

impl<T> Index<T> {
    /// The list in host memory.
    pub fn as_slice(&self) -> &[T] {
        &self.host
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.host.len()
    }

    /// Whether it has no entries.
    pub fn is_empty(&self) -> bool {
        self.host.is_empty()
    }
}

impl<T> From<Vec<T>> for Index<T> {
    fn from(list: Vec<T>) -> Self {
        Self { host: list.into() }
    }
}

impl<T: Clone> From<&[T]> for Index<T> {
    fn from(list: &[T]) -> Self {
        Self { host: list.into() }
    }
}

impl<T: Clone> From<&Vec<T>> for Index<T> {
    fn from(list: &Vec<T>) -> Self {
        list.as_slice().into()
    }
}

impl<T: Clone, const COUNT: usize> From<&[T; COUNT]> for Index<T> {
    fn from(list: &[T; COUNT]) -> Self {
        list.as_slice().into()
    }
}

impl<T> From<&Self> for Index<T> {
    fn from(list: &Self) -> Self {
        Self { host: list.host.clone() }
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
