//! state_dict and load_state_dict.

use crate::arrays::{floats, new_array, value_view};
use crate::compute::{NamedParameters, Turn, not_forked};
use crate::errors::{raised, refused};
use crate::parameter::{Parameter, change_values};
use engine::{Tape, Tensor};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};
use saltworks::mask::Grid;
use saltworks::weights::dialect::{
    stable_pretraining, stable_pretraining_names, stable_pretraining_place,
};
use saltworks::weights::{self, NamedTensors};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Tensors that the reference keeps but never reads. They are copied from a loaded state dict to a
/// saved one.
pub(crate) struct Extras(Mutex<NamedTensors>);

impl Extras {
    /// The tensors that the reference has in addition to weights with these saltworks names.
    pub(crate) fn beside(weights: &NamedParameters, grid: Grid) -> Self {
        let value = |(name, weight): &(String, engine::Parameter)| (name.clone(), weight.value());
        let ours: NamedTensors = weights.iter().map(value).collect();
        let mut theirs: NamedTensors = stable_pretraining(&ours, grid).into_iter().collect();
        for name in ours.keys() {
            let (first, second) = stable_pretraining_names(name);
            theirs.remove(&first);
            second.map(|second| theirs.remove(&second));
        }
        Self(Mutex::new(theirs))
    }

    /// These tensors.
    pub(crate) fn of(tensors: NamedTensors) -> Self {
        Self(Mutex::new(tensors))
    }

    /// No such tensors.
    pub(crate) fn none() -> Self {
        Self(Mutex::default())
    }

    fn values(&self) -> NamedTensors {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Weights under the reference's names and in its order. Some have a second name there.
pub(crate) fn reference_weights(weights: NamedParameters) -> Vec<Weight> {
    let renamed = weights.into_iter().map(|(name, weight)| {
        let read = !UNREAD.contains(&name.as_str());
        let (name, second) = stable_pretraining_names(&name);
        Weight { name, second, weight, read }
    });
    let mut all: Vec<Weight> = renamed.collect();
    all.sort_by_key(|weight| stable_pretraining_place(&weight.name));
    all
}

/// Weights that SALT has in the reference and never reads: all queries are the mask token.
const UNREAD: [&str; 2] = ["predictor.query_proj.weight", "predictor.query_proj.bias"];

/// The weights that SALT never reads, for a predictor of this width on tokens of width `input`.
/// They are there so that optimizer states of the reference fit by position. As there, their
/// gradient is zero, and weight decay changes them.
pub(crate) fn unread(width: usize, input: usize) -> engine::Result<NamedParameters> {
    let shapes: [&[usize]; 2] = [&[width, input], &[width]];
    let unread = UNREAD.into_iter().zip(shapes).map(|(name, shape)| {
        let weight = engine::Parameter::new(name, Tensor::zeros(shape));
        Tape::new().backward_from([(&weight.tensor(), Tensor::zeros(shape))])?;
        Ok((name.to_owned(), weight))
    });
    unread.collect()
}

/// A weight of a model.
pub(crate) struct Weight {
    /// Its name in Python.
    pub(crate) name: String,
    /// Its second key in a state dict.
    pub(crate) second: Option<String>,
    pub(crate) weight: engine::Parameter,
    /// Whether the model computes with it. If not, a state dict may lack it.
    pub(crate) read: bool,
}

/// All weights as Python objects. The first `frozen` ones get no gradient.
pub(crate) fn parameter_objects(
    py: Python<'_>,
    weights: &[Weight],
    frozen: usize,
    turn: &Arc<Turn>,
) -> PyResult<Vec<Py<Parameter>>> {
    let objects = weights.iter().enumerate().map(|(place, Weight { name, weight, .. })| {
        let requires_grad = place >= frozen;
        Py::new(py, Parameter::new(name.clone(), weight.share(), requires_grad, turn.clone()))
    });
    objects.collect()
}

/// Views of all weights under the reference's names, and copies of the reference's other tensors.
pub(crate) fn state_dict<'py>(
    py: Python<'py>,
    weights: &[Weight],
    objects: &[Py<Parameter>],
    extras: &Extras,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (weight, object) in weights.iter().zip(objects) {
        let view = value_view(object.bind(py));
        if let Some(second) = &weight.second {
            dict.set_item(second, &view)?;
        }
        dict.set_item(&weight.name, view)?;
    }
    for (name, value) in extras.values() {
        dict.set_item(name, new_array(py, value.to_vec(), value.shape())?)?;
    }
    Ok(dict)
}

/// Sets every weight to the value under its name. Nothing is changed if one does not fit. The
/// second name of a tensor and tensors that the reference never reads may be absent.
pub(crate) fn load_state_dict(
    py: Python<'_>,
    given: &Bound<'_, PyMapping>,
    weights: &[Weight],
    extras: &Extras,
    turn: &Turn,
) -> PyResult<()> {
    not_forked()?;
    let mut tensors = tensors(given)?;
    let mut kept = extras.values();
    let fits = |weight: &Weight| match tensors.get(&weight.name) {
        Some(tensor) => tensor.shape() == weight.weight.shape(),
        None => !weight.read,
    };
    let fits = weights.iter().all(fits);
    for (name, value) in &mut kept {
        let Some(tensor) = tensors.remove(name) else { continue };
        if tensor.shape() != value.shape() {
            let (found, expected) = (tensor.shape(), value.shape());
            return Err(refused(format!("{name} is {found:?}, the model needs {expected:?}")));
        }
        // If weights do not fit, that is the reason, and is reported below.
        if fits && name.ends_with("pos_embed") && !is_near(&tensor, value) {
            return Err(refused(format!(
                "{name} differs from the engine's table, which is fixed: it was made for another \
                 grid, or changed. Make the model with the same grid"
            )));
        }
        *value = tensor;
    }
    assign("the state dict", tensors, weights, |work| change_values(py, turn, work))?;
    *extras.0.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    Ok(())
}

/// What a turn executes when it sets weights.
type LoadTurn<'a> = dyn Fn() -> Result<(), weights::Error> + Sync + 'a;

/// Sets weights strictly to the tensors under their names, in `turn`. Second names are ignored, and
/// weights that are never read may be missing.
pub(crate) fn assign(
    what: &str,
    mut tensors: NamedTensors,
    list: &[Weight],
    turn: impl FnOnce(&LoadTurn<'_>) -> Result<(), weights::Error>,
) -> PyResult<()> {
    for second in list.iter().filter_map(|weight| weight.second.as_ref()) {
        tensors.remove(second);
    }
    let given = list.iter().filter(|weight| weight.read || tensors.contains_key(&weight.name));
    let named: NamedParameters =
        given.map(|weight| (weight.name.clone(), weight.weight.share())).collect();
    turn(&|| weights::assign(Path::new(what), &tensors, &named)).map_err(raised)
}

/// Whether a table of sines is another, but for the rounding of bf16.
fn is_near(found: &Tensor, table: &Tensor) -> bool {
    let near = |(found, wanted): (&f32, &f32)| (found - wanted).abs() <= 0.01;
    found.to_host().iter().zip(table.to_host().iter()).all(near)
}

/// Refuses two values for one weight. The reference has a patch embedding under two names.
fn expect_one_value_each(tensors: &NamedTensors) -> PyResult<()> {
    for (second, again) in tensors {
        let Some((owner, rest)) = second.split_once("patch_embed.") else { continue };
        let name = format!("{owner}vit.patch_embed.{rest}");
        let Some(first) = tensors.get(&name) else { continue };
        if again.shape() != first.shape() || !same_bits(again, first) {
            return Err(refused(format!(
                "the state dict: {name} and {second} are two names of one weight, but have \
                 different values. Remove one of them"
            )));
        }
    }
    Ok(())
}

fn same_bits(a: &Tensor, b: &Tensor) -> bool {
    let bits = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits();
    a.to_host().iter().zip(b.to_host().iter()).all(bits)
}

/// A mapping of arrays or tensors.
pub(crate) fn tensors(given: &Bound<'_, PyMapping>) -> PyResult<NamedTensors> {
    let mut tensors = NamedTensors::new();
    for item in given.items()?.iter() {
        let (name, value): (String, Bound<'_, PyAny>) = item.extract()?;
        let (values, shape) = floats(&name, &value)?;
        tensors.insert(name, Tensor::from_vec(values, &shape));
    }
    expect_one_value_each(&tensors)?;
    Ok(tensors)
}
