//! The library's errors as Python's exceptions, with its messages.

use pyo3::PyErr;
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyValueError};
use std::error::Error;
use std::io;

/// FileNotFoundError or OSError where a file is behind it, else ValueError.
pub(crate) fn raised(error: impl Error + 'static) -> PyErr {
    of(&error)
}

/// [`raised`] of an error by reference.
pub(crate) fn of(error: &(dyn Error + 'static)) -> PyErr {
    let mut cause = Some(error);
    while let Some(error_here) = cause {
        if let Some(problem) = error_here.downcast_ref::<io::Error>() {
            let text = error.to_string();
            return match problem.kind() {
                io::ErrorKind::NotFound => PyFileNotFoundError::new_err(text),
                _ => PyOSError::new_err(text),
            };
        }
        cause = error_here.source();
    }
    PyValueError::new_err(error.to_string())
}

/// ValueError with this text.
pub(crate) fn refused(text: impl Into<String>) -> PyErr {
    PyValueError::new_err(text.into())
}
