//! The library's errors as Python exceptions, with the library's messages.

use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyUserWarning, PyValueError};
use pyo3::prelude::*;
use saltworks::data;
use std::error::Error;
use std::ffi::CString;
use std::io;

/// FileNotFoundError or OSError if a file caused it, else ValueError.
pub(crate) fn raised(error: impl Error + 'static) -> PyErr {
    of_kind(&error, PyValueError::new_err, &str::to_owned)
}

/// [`raised`] for errors of reading weights. Missing information is requested under the names of
/// Python's arguments.
pub(crate) fn raised_of_weights(error: impl Error + 'static) -> PyErr {
    const ASKED: &str =
        "State it with --heads N. For a teacher, export the file once with --heads N";
    of_kind(&error, PyValueError::new_err, &|text| {
        text.replace(ASKED, "Give num_heads=N").replace(", or export it with --partial", "")
    })
}

/// [`raised`] with `kind` instead of ValueError. `words` changes the text.
pub(crate) fn of_kind(
    error: &(dyn Error + 'static),
    kind: fn(String) -> PyErr,
    words: &dyn Fn(&str) -> String,
) -> PyErr {
    let (mut cause, text) = (Some(error), words(&error.to_string()));
    while let Some(here) = cause {
        if matches!(here.downcast_ref(), Some(data::Error::Missing { .. })) {
            return PyFileNotFoundError::new_err(text);
        }
        if let Some(problem) = here.downcast_ref::<io::Error>() {
            return match problem.kind() {
                io::ErrorKind::NotFound => PyFileNotFoundError::new_err(text),
                _ => PyOSError::new_err(text),
            };
        }
        cause = here.source();
    }
    kind(text)
}

/// ValueError with this text.
pub(crate) fn refused(text: impl Into<String>) -> PyErr {
    PyValueError::new_err(text.into())
}

/// A UserWarning with this text.
pub(crate) fn warn(py: Python<'_>, text: &str) -> PyResult<()> {
    // Python needs a C string.
    let text = CString::new(text.replace('\0', " "))?;
    PyErr::warn(py, &py.get_type::<PyUserWarning>(), &text, 1)
}
