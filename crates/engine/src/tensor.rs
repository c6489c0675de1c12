//! A buffer of a device, its shape, and the owner of its gradient. There is no arithmetic here.

use crate::device::{Buffer, Device, Floats, FloatsMut, Full, View, ViewMut};
use crate::dtype::Dtype;
use crate::shape::{expect_count, show};
use crate::slot::Slot;
use crate::{Error, HOST, Result};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// A contiguous row-major tensor of [f32 or bf16](Dtype). Cloning shares the buffer.
#[derive(Clone)]
pub struct Tensor {
    device: &'static dyn Device,
    buffer: Arc<Buffer>,
    offset: usize,
    shape: Vec<usize>,
    slot: Option<Slot>,
}

impl Tensor {
    /// Wraps a freshly written buffer of `device`.
    pub(crate) fn new(device: &'static dyn Device, buffer: Buffer, shape: &[usize]) -> Self {
        Self { device, buffer: Arc::new(buffer), offset: 0, shape: shape.to_vec(), slot: None }
    }

    /// A tensor of host values in f32, row-major, in host memory. Panics if the count does not fit
    /// the shape, because callers build both from the same numbers.
    pub fn from_vec(values: impl AsRef<[f32]>, shape: &[usize]) -> Self {
        Self::uploaded(HOST, values.as_ref(), shape)
    }

    /// Host values, row-major, in the memory of `device`.
    pub(crate) fn uploaded(device: &'static dyn Device, values: &[f32], shape: &[usize]) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "values for {shape:?}");
        let mut buffer = device.buffer(Dtype::F32, values.len());
        device.upload(buffer.view_mut(), values);
        Self::new(device, buffer, shape)
    }

    /// All zero, in host memory.
    pub fn zeros(shape: &[usize]) -> Self {
        Self::zeros_on(HOST, Dtype::F32, shape)
    }

    /// All zero, in the memory of `device`.
    pub(crate) fn zeros_on(device: &'static dyn Device, dtype: Dtype, shape: &[usize]) -> Self {
        let mut buffer = device.buffer(dtype, shape.iter().product());
        device.fill(vec![buffer.view_mut()], 0.0);
        Self::new(device, buffer, shape)
    }

    /// Zeros that live for many steps, such as a gradient or a moment.
    pub(crate) fn lasting_zeros(device: &'static dyn Device, shape: &[usize]) -> Self {
        Self::new(device, device.lasting_zeros(shape.iter().product()), shape)
    }

    /// A copy that lives for many steps.
    pub(crate) fn lasting(&self) -> Self {
        let mut buffer = self.device.lasting_zeros(self.len());
        self.device.copy(buffer.view_mut(), self.view());
        Self::new(self.device, buffer, &self.shape)
    }

    /// A copy of the values in the memory of `device`, without a gradient.
    pub fn to(&self, device: &'static dyn Device) -> Self {
        let mut buffer = device.buffer(self.dtype(), self.len());
        device.upload(buffer.view_mut(), &self.to_host());
        Self::new(device, buffer, &self.shape)
    }

    /// The values as another type, rounded if it is narrower, without a gradient. Shares the buffer
    /// if the type is the same.
    pub fn cast(&self, dtype: Dtype) -> Self {
        if dtype == self.dtype() {
            return self.detach();
        }
        let mut buffer = self.device.buffer(dtype, self.len());
        match dtype {
            Dtype::F32 => self.device.widen(Full(buffer.view_mut()), self.view()),
            Dtype::Bf16 => self.device.round(buffer.view_mut(), self.floats()),
        }
        Self::new(self.device, buffer, &self.shape)
    }

    /// How its values are stored.
    pub fn dtype(&self) -> Dtype {
        self.buffer.view().dtype()
    }

    /// The device that holds its values.
    pub fn device(&self) -> &'static dyn Device {
        self.device
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

    /// The values in host memory as f32: borrowed if they are there, else a copy. Waits for the
    /// device.
    pub fn to_host(&self) -> Cow<'_, [f32]> {
        self.device.download(self.view())
    }

    /// A copy of [`Tensor::to_host`].
    pub fn to_vec(&self) -> Vec<f32> {
        self.to_host().into_owned()
    }

    /// The only value of a one-element tensor, such as a loss. Waits for the device.
    pub fn item(&self) -> f32 {
        self.to_host()[0]
    }

    /// The first value that is infinite or not a number, with its index. Waits for the device.
    pub fn first_non_finite(&self) -> Option<(usize, f32)> {
        let values = self.to_host();
        let index = values.iter().position(|value| !value.is_finite())?;
        Some((index, values[index]))
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

    /// Rows `range` of the first axis, without a copy. The gradient is added to these rows.
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
        Ok(Self { offset: self.offset + shift, shape, slot, ..self.clone() })
    }

    pub(crate) fn view(&self) -> View<'_> {
        self.buffer.view().range(self.offset..self.offset + self.len())
    }

    /// The values of a tensor that an operation has found to be f32.
    pub(crate) fn floats(&self) -> Floats<'_> {
        Full(self.view())
    }

    /// The values of a new f32 tensor, to write. Panics if another handle to it exists.
    pub(crate) fn new_floats(&mut self) -> FloatsMut<'_> {
        Full(self.view_mut().expect("a new tensor"))
    }

    /// The values to write, if no other handle to the buffer exists.
    pub(crate) fn view_mut(&mut self) -> Option<ViewMut<'_>> {
        let range = self.offset..self.offset + self.len();
        Arc::get_mut(&mut self.buffer).map(|buffer| buffer.view_mut().range(range))
    }

    /// Copies the buffer if another handle to it exists.
    pub(crate) fn make_unique(&mut self) {
        if self.view_mut().is_none() {
            let mut buffer = self.device.buffer(self.dtype(), self.len());
            self.device.copy(buffer.view_mut(), self.view());
            *self = Self::new(self.device, buffer, &self.shape);
        }
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
        write!(f, "Tensor{} {}", show(&self.shape), self.dtype().name())
    }
}
