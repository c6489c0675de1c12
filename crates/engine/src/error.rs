//! The errors of the engine.

use crate::Dtype;

/// Result of an engine call.
pub type Result<T> = std::result::Result<T, Error>;

/// An engine error: the subject, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor has another shape than the operation needs.
    #[error("{op}: {arg} is {found}, expected {expected}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The argument.
        arg: &'static str,
        /// Shape or count found.
        found: String,
        /// Shape or count expected.
        expected: String,
    },
    /// A tensor has another type than the operation needs.
    #[error("{op}: {arg} is {}, expected {}", found.name(), expected.name())]
    Dtype {
        /// The operation.
        op: &'static str,
        /// The argument.
        arg: &'static str,
        /// Its type.
        found: Dtype,
        /// The type expected.
        expected: Dtype,
    },
    /// An index points outside its table.
    #[error("{op}: index {index} at entry {entry} is outside the {rows} rows of {arg}")]
    Index {
        /// The operation.
        op: &'static str,
        /// The indexed argument.
        arg: &'static str,
        /// The wrong index.
        index: i64,
        /// Its position in the list.
        entry: usize,
        /// Number of rows of the argument.
        rows: usize,
    },
    /// A gradient is not a finite number.
    #[error("the gradient of {parameter} is not finite (first at element {element}: {value})")]
    NonFinite {
        /// The parameter's name.
        parameter: String,
        /// The first element that is not finite.
        element: usize,
        /// Its value.
        value: f32,
    },
    /// The tape's work is no longer wanted.
    #[error("stopped before the result was computed")]
    Stopped,
    /// Backward was called on a loss that depends on no parameter.
    #[error(
        "backward: the loss depends on no trainable parameter. Compute it on a recording tape \
         (Tape::new) from Parameter::tensor, and freeze fewer parameters."
    )]
    Untracked,
    /// A tensor of one recording was used in the backward pass of another.
    #[error(
        "backward: a tensor was computed on another tape, or on this one before its last backward \
         pass. Detach it, or compute it again on this tape."
    )]
    OtherTape,
    /// The optimizer's saved state does not fit the parameters.
    #[error("optimizer state: {0}")]
    State(String),
}
