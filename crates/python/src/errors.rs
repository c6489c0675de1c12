//! The library's errors as Python's exceptions, with its messages.

use pyo3::PyErr;
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyValueError};
use saltworks::data;
use std::error::Error;
use std::io;

/// FileNotFoundError or OSError where a file is behind it, else ValueError.
pub(crate) fn raised(error: impl Error + 'static) -> PyErr {
    of_kind(&error, PyValueError::new_err)
}

/// [`raised`] with another kind in ValueError's place.
pub(crate) fn of_kind(error: &(dyn Error + 'static), kind: fn(String) -> PyErr) -> PyErr {
    let mut cause = Some(error);
    while let Some(here) = cause {
        if matches!(here.downcast_ref(), Some(data::Error::Missing { .. })) {
            return PyFileNotFoundError::new_err(error.to_string());
        }
        if let Some(problem) = here.downcast_ref::<io::Error>() {
            return match problem.kind() {
                io::ErrorKind::NotFound => PyFileNotFoundError::new_err(error.to_string()),
                _ => PyOSError::new_err(error.to_string()),
            };
        }
        cause = here.source();
    }
    kind(error.to_string())
}

/// ValueError with this text.
pub(crate) fn refused(text: impl Into<String>) -> PyErr {
    PyValueError::new_err(text.into())
}
