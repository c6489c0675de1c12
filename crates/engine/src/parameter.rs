//! What training changes: a value and its gradient, shared between the model and the optimizer.

use crate::device::{Device, View, ViewMut};
use crate::shape::expect_count;
use crate::slot::{Home, Slot};
use crate::{Dtype, Result, Tensor};
use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A trainable tensor.
pub struct Parameter {
    cell: Arc<Cell>,
}

pub(crate) struct Cell {
    name: String,
    frozen: AtomicBool,
    state: Mutex<State>,
}

/// What a parameter holds, to read and to change.
pub(crate) struct State {
    value: MutableTensor,
    grad: Option<MutableTensor>,
}

impl State {
    pub(crate) fn device(&self) -> &'static dyn Device {
        self.value.tensor.device()
    }

    pub(crate) fn shape(&self) -> &[usize] {
        self.value.tensor.shape()
    }

    pub(crate) fn has_grad(&self) -> bool {
        self.grad.is_some()
    }

    /// The gradient to write, if there is one.
    pub(crate) fn grad_mut(&mut self) -> Option<ViewMut<'_>> {
        self.grad.as_mut().map(MutableTensor::unique)
    }

    /// The value to write and the gradient to read, if there is one.
    pub(crate) fn value_and_grad(&mut self) -> Option<(ViewMut<'_>, View<'_>)> {
        let grad = self.grad.as_ref()?;
        Some((self.value.unique(), grad.tensor.view()))
    }
}

/// A tensor that changes in place wherever it can.
struct MutableTensor {
    tensor: Tensor,
    /// Whether somebody outside knows where its values lie.
    pinned: bool,
}

impl MutableTensor {
    fn new(tensor: Tensor) -> Self {
        Self { tensor, pinned: false }
    }

    /// The values to write. Handles given out before keep the old values in a buffer of their own,
    /// unless the values are pinned: then there must be none.
    fn unique(&mut self) -> ViewMut<'_> {
        if !self.pinned {
            self.tensor.make_unique();
        }
        // make_unique left this the only handle.
        self.tensor.view_mut().expect("no tape or tensor that holds a pinned parameter's values")
    }

    /// Where the values lie from now on.
    fn pin(&mut self) -> *mut f32 {
        if !self.pinned {
            self.unique();
            self.pinned = true;
        }
        match self.tensor.to_host() {
            Cow::Borrowed(values) => values.as_ptr().cast_mut(),
            Cow::Owned(_) => panic!("a pinned parameter's values lie in host memory"),
        }
    }
}

impl Parameter {
    /// A parameter called `name` (for messages) of this value, in f32.
    pub fn new(name: impl Into<String>, value: Tensor) -> Self {
        let value = match value.dtype() {
            Dtype::F32 => value.with_slot(None),
            Dtype::Bf16 => value.cast(Dtype::F32),
        };
        let state = State { value: MutableTensor::new(value), grad: None };
        let state = Mutex::new(state);
        Self { cell: Arc::new(Cell { name: name.into(), frozen: AtomicBool::new(false), state }) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.cell.name
    }

    /// The value, tracked: operations on it give this parameter a gradient.
    pub fn tensor(&self) -> Tensor {
        let value = self.value();
        if self.cell.frozen.load(Ordering::Relaxed) {
            return value;
        }
        value.with_slot(Some(Slot::new(Home::Parameter(self.cell.clone()))))
    }

    /// The value, untracked.
    pub fn value(&self) -> Tensor {
        self.cell.lock().value.tensor.clone()
    }

    /// Sizes of the value.
    pub fn shape(&self) -> Vec<usize> {
        self.cell.lock().value.tensor.shape().to_vec()
    }

    /// The gradient gathered since the last `zero_grad`, if any came.
    pub fn grad(&self) -> Option<Tensor> {
        self.cell.lock().grad.as_ref().map(|grad| grad.tensor.clone())
    }

    /// Sets the gradient to zero and keeps its buffer.
    pub fn zero_grad(&self) {
        crate::optim::zero_grad([self]);
    }

    /// Replaces the value by as many others.
    pub fn set_value(&self, values: &[f32]) -> Result<()> {
        let mut state = self.cell.lock();
        let count = state.value.tensor.len();
        expect_count("set_value", "the number of values", values.len(), count)?;
        let device = state.value.tensor.device();
        device.upload(state.value.unique(), values);
        Ok(())
    }

    /// Moves the value to `device`. The gradient is dropped, and handles given out before stay.
    pub fn move_to(&self, device: &'static dyn Device) {
        let state = &mut *self.cell.lock();
        assert!(!state.value.pinned, "a pinned parameter stays in host memory");
        *state = State { value: MutableTensor::new(state.value.tensor.to(device)), grad: None };
    }

    /// Where the values lie in host memory, for as long as any handle to this parameter lives: from
    /// now on they change in place alone. To change them while a tape or a tensor still holds them
    /// panics from now on, as nothing else would leave both right: drop what was recorded first.
    pub fn pin_value(&self) -> *mut f32 {
        self.cell.lock().value.pin()
    }

    /// [`Parameter::pin_value`] of the gradient, if one came.
    pub fn pin_grad(&self) -> Option<*mut f32> {
        self.cell.lock().grad.as_mut().map(MutableTensor::pin)
    }

    /// Hands out untracked values from now on.
    pub(crate) fn freeze(&self) {
        self.cell.frozen.store(true, Ordering::Relaxed);
        let grad = &mut self.cell.lock().grad;
        if grad.as_ref().is_some_and(|grad| !grad.pinned) {
            *grad = None;
        }
    }

    /// Locks all of these, each of which must be listed once. Returns them in the order given.
    ///
    /// They are locked in the order of their addresses, so that no two threads that lock some of
    /// the same parameters can wait for each other for ever.
    pub(crate) fn lock_all<'a>(
        parameters: impl IntoIterator<Item = &'a Self>,
    ) -> Vec<MutexGuard<'a, State>> {
        let mut order: Vec<(usize, &Self)> = parameters.into_iter().enumerate().collect();
        order.sort_by_key(|(_, parameter)| Arc::as_ptr(&parameter.cell));
        for pair in order.windows(2) {
            assert!(!pair[0].1.is(pair[1].1), "{} is listed twice", pair[0].1.name());
        }
        let mut locked: Vec<_> = order.into_iter().map(|(i, p)| (i, p.cell.lock())).collect();
        locked.sort_by_key(|(index, _)| *index);
        locked.into_iter().map(|(_, state)| state).collect()
    }
}

impl Cell {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere cannot leave a value half replaced.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to elements `offset..offset + len` of the gradient through `add`, which does `+=`.
    pub(crate) fn accumulate(&self, offset: usize, len: usize, add: impl FnOnce(ViewMut<'_>)) {
        let state = &mut *self.lock();
        let value = &state.value.tensor;
        let grad = state.grad.get_or_insert_with(|| {
            MutableTensor::new(Tensor::lasting_zeros(value.device(), value.shape()))
        });
        add(grad.unique().range(offset..offset + len));
    }
}

/// A tree of parameters under the names that timm or the reference give them.
pub trait Module {
    /// Calls `f` with each parameter and its full name below `prefix`, in a fixed order.
    fn visit(&self, prefix: &str, f: &mut dyn FnMut(&str, &Parameter));

    /// All parameters with their names.
    fn parameters(&self) -> Vec<(String, Parameter)> {
        let mut list = Vec::new();
        self.visit("", &mut |name, parameter| list.push((name.to_owned(), parameter.share())));
        list
    }
}

impl Parameter {
    pub(crate) fn of(cell: Arc<Cell>) -> Self {
        Self { cell }
    }

    /// Whether both are handles to one parameter.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.cell, &other.cell)
    }

    /// Another handle to the same parameter, for lists that an optimizer keeps.
    pub fn share(&self) -> Self {
        Self { cell: self.cell.clone() }
    }
}

/// A module that is never trained: its parameters hand out untracked values, so nothing of its
/// forward pass is saved, and it has no gradients to ask for.
///
/// ```compile_fail
/// fn gradients(teacher: &engine::Frozen<impl engine::Module>) {
///     engine::Module::parameters(teacher); // Frozen is no Module: this does not compile
/// }
/// ```
pub struct Frozen<M>(M);

impl<M: Module> Frozen<M> {
    /// Freezes `module` for good.
    pub fn new(module: M) -> Self {
        module.visit("", &mut |_, parameter| parameter.freeze());
        Self(module)
    }

    /// The values under their names, to save or export.
    pub fn values(&self) -> Vec<(String, Tensor)> {
        let mut list = Vec::new();
        self.0.visit("", &mut |name, p| list.push((name.to_owned(), p.value())));
        list
    }
}

impl<M> std::ops::Deref for Frozen<M> {
    type Target = M;
    fn deref(&self) -> &M {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tape;
    use crate::ops::{self, LossKind};
    use crate::optim::AdamW;

    fn trained(w: &Parameter, optimizer: &mut AdamW) {
        let x = Tensor::from_vec([1.0, 2.0], &[1, 2]);
        let target = Tensor::zeros(&[1, 1]);
        let tape = Tape::new();
        let y = ops::linear(&tape, &x, &w.tensor(), None).unwrap();
        let loss = ops::loss(&tape, &y, &target, LossKind::Mse, None).unwrap();
        w.zero_grad();
        tape.backward(&loss).unwrap();
        optimizer.step([("w", w, 0.1, 0.0)]);
    }

    #[test]
    fn pinned_values_and_gradients_stay_where_they_are() {
        let w = Parameter::new("w", Tensor::from_vec([1.0, 1.0], &[1, 2]));
        let mut optimizer = AdamW::new((0.9, 0.95), 1e-8);
        assert_eq!(w.pin_grad(), None);
        trained(&w, &mut optimizer);
        let (value, grad) = (w.pin_value(), w.pin_grad().unwrap());
        trained(&w, &mut optimizer);
        w.set_value(&[3.0, 4.0]).unwrap();
        w.freeze();
        assert_eq!(w.value().to_host().as_ptr(), value.cast_const());
        assert_eq!(w.grad().unwrap().to_host().as_ptr(), grad.cast_const());
        assert_eq!(w.value().to_vec(), [3.0, 4.0]);
    }

    #[test]
    #[should_panic(expected = "no tape or tensor that holds")]
    fn a_pinned_value_that_a_tape_holds_is_not_changed() {
        let w = Parameter::new("w", Tensor::zeros(&[2]));
        w.pin_value();
        let _held = w.value();
        w.set_value(&[1.0, 2.0]).unwrap();
    }

    #[test]
    fn a_handle_keeps_values_that_are_not_pinned() {
        let w = Parameter::new("w", Tensor::zeros(&[2]));
        let held = w.value();
        w.set_value(&[1.0, 2.0]).unwrap();
        assert_eq!((held.to_vec(), w.value().to_vec()), (vec![0.0, 0.0], vec![1.0, 2.0]));
    }
}
