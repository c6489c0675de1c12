//! A buffer, a shape and a place for its gradient. No arithmetic here.

use crate::device::{Buffer, View, ViewMut};
use crate::shape::{expect_count, show};
use crate::tape::Slot;
use crate::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// A contiguous row-major f32 tensor. Cloning shares the buffer.
#[derive(Clone)]
pub struct Tensor {
    buffer: Arc<Buffer>,
    offset: usize,
    shape: Vec<usize>,
    slot: Option<Slot>,
}

impl Tensor {
    /// Wraps a freshly written buffer.
    pub(crate) fn new(buffer: Buffer, shape: &[usize]) -> Self {
        Self { buffer: Arc::new(buffer), offset: 0, shape: shape.to_vec(), slot: None }
    }

    /// A tensor of host values, row-major. Panics if the count does not fit the shape: callers
    /// build both from the same numbers.
    pub fn from_vec(values: impl AsRef<[f32]>, shape: &[usize]) -> Self {
        let values = values.as_ref();
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values for {shape:?}");
        let mut buffer = Buffer::host(values.len());
        buffer.view_mut().host().copy_from_slice(values);
        Self::new(buffer, shape)
    }

    /// All zero.
    pub fn zeros(shape: &[usize]) -> Self {
        let mut buffer = Buffer::host(shape.iter().product());
        buffer.view_mut().host().fill(0.0);
        Self::new(buffer, shape)
    }

    /// [`Tensor::zeros`] that will live for many steps, as a gradient or a moment does.
    pub(crate) fn lasting_zeros(shape: &[usize]) -> Self {
        Self::new(Buffer::lasting_host(shape.iter().product()), shape)
    }

    /// A copy that will live for many steps.
    pub(crate) fn lasting(&self) -> Self {
        let mut copy = Self::lasting_zeros(self.shape());
        // Nobody else holds the new buffer.
        copy.view_mut().expect("a unique copy").host().copy_from_slice(self.as_slice());
        copy
    }

    /// The sizes, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Size of axis `axis`.
    pub fn dim(&self, axis: usize) -> usize {
        self.shape[axis]
    }

    /// Size of the first axis: packed rows R of a token matrix.
    pub fn rows(&self) -> usize {
        self.shape[0]
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it holds no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values in host memory.
    pub fn as_slice(&self) -> &[f32] {
        self.view().host()
    }

    /// A copy of the values.
    pub fn to_vec(&self) -> Vec<f32> {
        self.as_slice().to_vec()
    }

    /// The only value of a one-element tensor, such as a loss.
    pub fn item(&self) -> f32 {
        self.as_slice()[0]
    }

    /// The same values without a gradient.
    pub fn detach(&self) -> Self {
        Self { slot: None, ..self.clone() }
    }

    /// The same values in another shape of equal size.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        expect_count("reshape", "the new shape's size", shape.iter().product(), self.len())?;
        Ok(Self { shape: shape.to_vec(), ..self.clone() })
    }

    /// Rows `range` of the first axis, without a copy; the gradient goes to those rows.
    pub fn narrow(&self, range: Range<usize>) -> Result<Self> {
        if range.start > range.end || range.end > self.shape[0] {
            return Err(Error::Shape {
                op: "narrow",
                arg: "the row range",
                found: format!("{range:?}"),
                expected: format!("a range within the rows of {}", show(&self.shape)),
            });
        }
        let row: usize = self.shape[1..].iter().product();
        let mut shape = self.shape.clone();
        shape[0] = range.len();
        let shift = range.start * row;
        let slot = self.slot.clone().map(|slot| slot.shifted(shift));
        Ok(Self { buffer: self.buffer.clone(), offset: self.offset + shift, shape, slot })
    }

    pub(crate) fn view(&self) -> View<'_> {
        self.buffer.view().range(self.offset..self.offset + self.len())
    }

    /// The values to write, if nobody else holds the buffer.
    pub(crate) fn view_mut(&mut self) -> Option<ViewMut<'_>> {
        let range = self.offset..self.offset + self.len();
        Arc::get_mut(&mut self.buffer).map(|buffer| buffer.view_mut().range(range))
    }

    pub(crate) fn slot(&self) -> Option<&Slot> {
        self.slot.as_ref()
    }

    pub(crate) fn with_slot(mut self, slot: Option<Slot>) -> Self {
        self.slot = slot;
        self
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor{}", show(&self.shape))
    }
}
