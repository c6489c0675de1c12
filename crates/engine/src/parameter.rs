//! What training changes: a value and its gradient, shared between the model and the optimizer.

use crate::device::ViewMut;
use crate::shape::expect_count;
use crate::tape::Slot;
use crate::{Result, Tensor};
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

struct State {
    value: Tensor,
    grad: Option<Tensor>,
}

impl Parameter {
    /// A parameter called `name` (for messages) of this value.
    pub fn new(name: impl Into<String>, value: Tensor) -> Self {
        let state = Mutex::new(State { value: value.with_slot(None), grad: None });
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
        value.with_slot(Some(Slot::parameter(self.cell.clone())))
    }

    /// The value, untracked.
    pub fn value(&self) -> Tensor {
        self.cell.lock().value.clone()
    }

    /// Sizes of the value.
    pub fn shape(&self) -> Vec<usize> {
        self.cell.lock().value.shape().to_vec()
    }

    /// The gradient gathered since the last `zero_grad`, if any came.
    pub fn grad(&self) -> Option<Tensor> {
        self.cell.lock().grad.clone()
    }

    /// Sets the gradient to zero, keeping its buffer.
    pub fn zero_grad(&self) {
        self.with_grad(|grad| grad.host().fill(0.0));
    }

    /// Replaces the value by as many others.
    pub fn set_value(&self, values: &[f32]) -> Result<()> {
        let mut state = self.cell.lock();
        expect_count("set_value", "the number of values", values.len(), state.value.len())?;
        state.value = Tensor::from_vec(values, state.value.shape());
        Ok(())
    }

    /// Hands out untracked values from now on.
    pub(crate) fn freeze(&self) {
        self.cell.frozen.store(true, Ordering::Relaxed);
        self.cell.lock().grad = None;
    }

    /// Calls `change` with the gradient to write, if there is one.
    pub(crate) fn with_grad(&self, change: impl FnOnce(ViewMut<'_>)) {
        if let Some(grad) = &mut self.cell.lock().grad {
            make_unique(grad);
            // make_unique left this the only handle.
            change(grad.view_mut().expect("a unique gradient"));
        }
    }

    /// Calls `change` with the value to write and the gradient, if there is one.
    pub(crate) fn update(&self, change: impl FnOnce(ViewMut<'_>, &Tensor)) {
        let state = &mut *self.cell.lock();
        let Some(grad) = &state.grad else { return };
        make_unique(&mut state.value);
        // make_unique left this the only handle.
        change(state.value.view_mut().expect("a unique value"), grad);
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
        let grad = state.grad.get_or_insert_with(|| Tensor::lasting_zeros(state.value.shape()));
        make_unique(grad);
        // make_unique left this the only handle.
        add(grad.view_mut().expect("a unique gradient").range(offset..offset + len));
    }
}

/// Copies the buffer if somebody else still reads it.
pub(crate) fn make_unique(tensor: &mut Tensor) {
    if tensor.view_mut().is_none() {
        *tensor = Tensor::from_vec(tensor.as_slice(), tensor.shape());
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
