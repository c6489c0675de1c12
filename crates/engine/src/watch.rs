//! Finds the origin of the first value that is not finite.

use crate::{Parameter, Tensor};
use std::sync::Arc;

/// Forward or backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// An operation's result.
    Forward,
    /// The gradient of an operation's result.
    Backward,
}

/// The first value that was not finite.
pub struct Trouble {
    /// The operation's name.
    pub op: &'static str,
    /// Whether the value is in the operation's result or in the result's gradient.
    pub pass: Pass,
    /// Index of the value in the result, row-major.
    pub element: usize,
    /// The value.
    pub value: f32,
    /// The last trained parameter that was read before. It shows about where in the model this is.
    /// `None` if no trained parameter was read.
    pub near: Option<Arc<Parameter>>,
}

/// State of a watched tape.
#[derive(Default)]
pub(crate) struct Watch {
    last: Option<Arc<Parameter>>,
    trouble: Option<Trouble>,
}

impl Watch {
    /// Checks an operation's result.
    pub(crate) fn result(&mut self, op: &'static str, result: &Tensor, inputs: &[&Tensor]) {
        if let Some(parameter) = inputs.iter().find_map(|input| input.slot()?.of_parameter()) {
            self.last = Some(Arc::new(parameter));
        }
        self.look(op, Pass::Forward, result);
    }

    /// The last parameter that an operation read so far.
    pub(crate) fn last_read(&self) -> Option<Arc<Parameter>> {
        self.last.clone()
    }

    /// Checks the gradient of an operation's result. `near` is the parameter that was last read
    /// when the operation ran.
    pub(crate) fn gradient(
        &mut self,
        op: &'static str,
        gradient: &Tensor,
        near: Option<&Arc<Parameter>>,
    ) {
        self.last = near.cloned();
        self.look(op, Pass::Backward, gradient);
    }

    fn look(&mut self, op: &'static str, pass: Pass, values: &Tensor) {
        if self.trouble.is_some() {
            return;
        }
        if let Some((element, value)) = values.first_non_finite() {
            let near = self.last.take();
            self.trouble = Some(Trouble { op, pass, element, value, near });
        }
    }

    pub(crate) fn take(&mut self) -> Option<Trouble> {
        self.trouble.take()
    }
}
