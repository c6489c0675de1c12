//! A weight and its gradient in Python.

use crate::arrays::{grad_view, value_view};
use crate::compute::{Turn, change, not_forked};
use crate::errors::refused;
use numpy::PyArrayDyn;
use pyo3::prelude::*;
use std::sync::Arc;

/// A weight of a model. `data` and `grad` are NumPy views of the engine's own memory. The model
/// reads what is written to them, and they show what the model writes.
#[pyclass(frozen, module = "saltworks")]
pub(crate) struct Parameter {
    name: String,
    inner: engine::Parameter,
    requires_grad: bool,
    turn: Arc<Turn>,
}

impl Parameter {
    pub(crate) fn new(
        name: String,
        inner: engine::Parameter,
        requires_grad: bool,
        turn: Arc<Turn>,
    ) -> Self {
        Self { name, inner, requires_grad, turn }
    }

    pub(crate) fn inner(&self) -> &engine::Parameter {
        &self.inner
    }

    pub(crate) fn turn(&self) -> &Arc<Turn> {
        &self.turn
    }
}

#[pymethods]
impl Parameter {
    /// Its name in the reference.
    #[getter]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The values: a float32 view to read and write.
    #[getter]
    fn data<'py>(slf: &Bound<'py, Self>) -> Bound<'py, PyArrayDyn<f32>> {
        value_view(slf)
    }

    /// The gradient: a float32 view with the shape of `data`. None before the first backward pass.
    #[getter]
    fn grad<'py>(slf: &Bound<'py, Self>) -> Option<Bound<'py, PyArrayDyn<f32>>> {
        grad_view(slf)
    }

    /// Whether backward passes compute its gradient. The teacher's weights get none.
    #[getter]
    fn requires_grad(&self) -> bool {
        self.requires_grad
    }

    /// Its sizes.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyTuple>> {
        pyo3::types::PyTuple::new(py, self.inner.shape())
    }

    /// Sets the gradient to zero, in place.
    #[pyo3(signature = (set_to_none=false))]
    fn zero_grad(&self, py: Python<'_>, set_to_none: bool) -> PyResult<()> {
        stays_in_place(set_to_none)?;
        not_forked()?;
        change_gradients(py, &self.turn, || self.inner.zero_grad());
        Ok(())
    }

    /// `data`, for numpy.asarray.
    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, data) = (slf.py(), value_view(slf).into_any());
        let wanted = py
            .import("numpy")?
            .call_method1("dtype", (dtype.unwrap_or(data.getattr("dtype")?),))?;
        match (wanted.eq(data.getattr("dtype")?)?, copy) {
            (true, None | Some(false)) => Ok(data),
            (true, Some(true)) => data.call_method0("copy"),
            (false, None | Some(true)) => data.call_method1("astype", (wanted,)),
            (false, Some(false)) => {
                Err(refused(format!("copy=False: a parameter is float32, {wanted} needs a copy")))
            }
        }
    }

    fn __repr__(&self) -> String {
        format!("Parameter({:?}, shape={:?})", self.name, self.inner.shape())
    }
}

/// Refuses torch's `set_to_none`, because gradients must stay in place.
pub(crate) fn stays_in_place(set_to_none: bool) -> PyResult<()> {
    if set_to_none {
        return Err(refused(
            "zero_grad: gradients are set to zero in place, because there may be views of them. \
             Remove set_to_none=True",
        ));
    }
    Ok(())
}

/// Changes gradients in a turn of the model. Recordings stay valid.
pub(crate) fn change_gradients(py: Python<'_>, turn: &Turn, work: impl FnOnce() + Send) {
    turn.compute(py, work);
}

/// Replaces the values of one model's parameters, in a turn of the model.
pub(crate) fn change_values<T: Send>(
    py: Python<'_>,
    turn: &Turn,
    work: impl FnOnce() -> T + Send,
) -> T {
    change(py, turn, work)
}
