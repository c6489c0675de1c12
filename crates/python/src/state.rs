//! state_dict and load_state_dict.

use crate::arrays::{floats, new_array, value_view};
use crate::compute::{Named, Turn};
use crate::errors::{raised, refused};
use crate::names::second_name;
use crate::parameter::{Parameter, change_values};
use engine::Tensor;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use saltworks::weights::{self, Named as NamedTensors};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// What the reference keeps and never reads: carried from a loaded state dict to a saved one.
pub(crate) struct Extras(Mutex<NamedTensors>);

impl Extras {
    pub(crate) fn new(list: impl IntoIterator<Item = (&'static str, Tensor)>) -> Self {
        Self(Mutex::new(list.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
    }

    fn values(&self) -> NamedTensors {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All weights as Python's objects, under the reference's names. The first `frozen` get no gradient.
pub(crate) fn parameter_objects(
    py: Python<'_>,
    named: &Named,
    frozen: usize,
    turn: &Arc<Turn>,
) -> PyResult<Vec<(String, Py<Parameter>)>> {
    let objects = named.iter().enumerate().map(|(place, (name, parameter))| {
        let requires_grad = place >= frozen;
        let object = Parameter::new(name.clone(), parameter.share(), requires_grad, turn.clone());
        Ok((name.clone(), Py::new(py, object)?))
    });
    objects.collect()
}

/// Views of all weights under the reference's names, and copies of what the reference keeps beside.
pub(crate) fn state_dict<'py>(
    py: Python<'py>,
    objects: &[(String, Py<Parameter>)],
    extras: &Extras,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, object) in objects {
        let view = value_view(object.bind(py));
        if let Some(second) = second_name(name) {
            dict.set_item(second, &view)?;
        }
        dict.set_item(name, view)?;
    }
    for (name, value) in extras.values() {
        dict.set_item(name, new_array(py, value.to_vec(), value.shape())?)?;
    }
    Ok(dict)
}

/// Gives every weight the value of its name; nothing is changed if one does not fit. The second name
/// of a tensor and what the reference never reads may be absent.
pub(crate) fn load_state_dict(
    py: Python<'_>,
    given: &Bound<'_, PyDict>,
    named: &Named,
    extras: &Extras,
    turn: &Turn,
) -> PyResult<()> {
    let mut tensors = tensors(given)?;
    let mut kept = extras.values();
    for (name, value) in &mut kept {
        let Some(tensor) = tensors.remove(name) else { continue };
        if tensor.shape() != value.shape() {
            let (found, expected) = (tensor.shape(), value.shape());
            return Err(refused(format!("{name} is {found:?}, the model needs {expected:?}")));
        }
        *value = tensor;
    }
    for (name, _) in named {
        if let Some(second) = second_name(name) {
            tensors.remove(&second);
        }
    }
    let assign = || weights::assign(Path::new("the state dict"), &tensors, named);
    change_values(py, turn, assign).map_err(raised)?;
    *extras.0.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    Ok(())
}

/// A dictionary of arrays or tensors.
pub(crate) fn tensors(given: &Bound<'_, PyDict>) -> PyResult<NamedTensors> {
    let mut tensors = NamedTensors::new();
    for (name, value) in given.iter() {
        let name: String = name.extract()?;
        let (values, shape) = floats(&name, &value)?;
        tensors.insert(name, Tensor::from_vec(values, &shape));
    }
    Ok(tensors)
}
