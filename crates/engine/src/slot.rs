//! The owner of a tensor's gradient: a node of a recording, or a parameter.

use crate::parameter::{Cell, Parameter};
use std::sync::Arc;

/// Part of a gradient, starting at an element.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) home: Home,
    pub(crate) offset: usize,
}

/// The owner of the gradient.
#[derive(Clone)]
pub(crate) enum Home {
    /// The output of a node of one recording.
    Node { recording: u64, index: usize },
    /// A parameter.
    Parameter(Arc<Cell>),
}

impl Slot {
    /// All of a gradient.
    pub(crate) fn new(home: Home) -> Self {
        Self { home, offset: 0 }
    }

    /// The parameter whose gradient this is.
    pub(crate) fn of_parameter(&self) -> Option<Parameter> {
        match &self.home {
            Home::Parameter(cell) => Some(Parameter::of(cell.clone())),
            Home::Node { .. } => None,
        }
    }

    /// The slot of a view that starts `by` elements later.
    pub(crate) fn shifted(mut self, by: usize) -> Self {
        self.offset += by;
        self
    }
}
