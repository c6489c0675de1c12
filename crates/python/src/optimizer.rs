//! `saltworks.AdamW`.

use crate::arrays::{floats, new_array};
use crate::compute::{Turn, forget_recordings, on_threads};
use crate::errors::{raised, refused};
use crate::parameter::{Parameter, stays_in_place};
use engine::{Tensor, optim};
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// torch's AdamW with decoupled weight decay. Weights without a gradient do not change.
#[pyclass(frozen, module = "saltworks")]
pub(crate) struct AdamW {
    inner: Mutex<Inner>,
    entries: Vec<Entry>,
    turns: Vec<Arc<Turn>>,
    /// A dictionary for each group: `params`, `lr` and `weight_decay`. The last two may be changed
    /// between steps, for example by a schedule.
    #[pyo3(get)]
    param_groups: Py<PyTuple>,
}

/// The engine's AdamW, and its constants.
struct Inner {
    adamw: optim::AdamW,
    betas: (f64, f64),
    eps: f32,
}

impl Inner {
    fn new(betas: (f64, f64), eps: f32) -> PyResult<Self> {
        if ![betas.0, betas.1].iter().all(|beta| (0.0..1.0).contains(beta)) {
            return Err(refused(format!("betas are {betas:?}, expected numbers in [0, 1)")));
        }
        if !(eps.is_finite() && eps >= 0.0) {
            return Err(refused(format!("eps is {eps}, expected a number of 0 or more")));
        }
        Ok(Self { adamw: optim::AdamW::new(betas, eps), betas, eps })
    }
}

/// A parameter, its group, and the name under which its moments are kept.
struct Entry {
    group: usize,
    name: String,
    weight: engine::Parameter,
}

/// The models of some parameters, each once. Their order is always the same, so two threads that
/// wait for the same models do so in the same order.
fn turns_of(parameters: &[Py<Parameter>]) -> Vec<Arc<Turn>> {
    let mut turns: Vec<Arc<Turn>> = parameters.iter().map(|p| p.get().turn().clone()).collect();
    turns.sort_by_key(|turn| Arc::as_ptr(turn).addr());
    turns.dedup_by(|a, b| Arc::ptr_eq(a, b));
    turns
}

/// Runs `work` in a turn of each of these models.
fn in_turn<T: Send>(
    py: Python<'_>,
    turns: &[Arc<Turn>],
    forget: bool,
    work: impl FnOnce() -> T + Send,
) -> T {
    py.detach(|| {
        let mut held: Vec<_> = turns.iter().map(|turn| turn.take()).collect();
        if forget {
            held.iter_mut().for_each(forget_recordings);
        }
        on_threads(work)
    })
}

impl AdamW {
    /// Learning rate and weight decay of each group.
    fn rates(&self, py: Python<'_>) -> PyResult<Vec<(f32, f32)>> {
        let groups = self.param_groups.bind(py).iter();
        let rate = |group: &Bound<'_, PyDict>, key: &str| -> PyResult<f32> {
            let missing = || PyKeyError::new_err(format!("a group of param_groups has no {key:?}"));
            let rate: f32 = group.get_item(key)?.ok_or_else(missing)?.extract()?;
            if rate.is_finite() && rate >= 0.0 {
                return Ok(rate);
            }
            Err(refused(format!("{key} is {rate}, expected a number of 0 or more")))
        };
        let both = |group: Bound<'_, PyAny>| {
            let group = group.cast_into::<PyDict>()?;
            Ok((rate(&group, "lr")?, rate(&group, "weight_decay")?))
        };
        groups.map(both).collect()
    }
}

impl AdamW {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A step that panicked left valid moments.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The parameters of a group, by their position among all parameters.
    fn places(&self, group: usize) -> Vec<usize> {
        let of_group = |(_, entry): &(usize, &Entry)| entry.group == group;
        self.entries.iter().enumerate().filter(of_group).map(|(place, _)| place).collect()
    }

    /// The optimizer that `state` and its `groups` describe.
    fn restored(&self, groups: &[Bound<'_, PyAny>], state: &Bound<'_, PyAny>) -> PyResult<Inner> {
        let constants = |group: &Bound<'_, PyAny>| -> PyResult<((f64, f64), f32)> {
            Ok((group.get_item("betas")?.extract()?, group.get_item("eps")?.extract()?))
        };
        let all = groups.iter().map(constants).collect::<PyResult<Vec<_>>>()?;
        if all.iter().any(|found| *found != all[0]) {
            return Err(refused("groups of the state differ in betas or eps, expected equal ones"));
        }
        let mut made = Inner::new(all[0].0, all[0].1)?;
        for (place, entry) in self.entries.iter().enumerate() {
            if !state.contains(place)? {
                continue;
            }
            let one = state.get_item(place)?;
            if one.contains("max_exp_avg_sq")? {
                return Err(refused("the state is from amsgrad, which is not supported"));
            }
            let moment = |name: &str| {
                let (values, shape) = floats(name, &one.get_item(name)?)?;
                if shape != entry.weight.shape() {
                    let expected = entry.weight.shape();
                    return Err(refused(format!(
                        "{name} of parameter {place} is {shape:?}, expected {expected:?}"
                    )));
                }
                Ok(Tensor::from_vec(values, &shape))
            };
            let step: f64 = one.get_item("step")?.call_method0("__float__")?.extract()?;
            let (first, second) = (moment("exp_avg")?, moment("exp_avg_sq")?);
            made.adamw.restore(&entry.name, &first, &second, step as u64).map_err(raised)?;
        }
        Ok(made)
    }
}

#[pymethods]
impl AdamW {
    /// `params`: parameters, or dictionaries with `params` and optionally `lr` and `weight_decay`.
    #[new]
    #[pyo3(signature = (params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2))]
    fn new(
        py: Python<'_>,
        params: &Bound<'_, PyAny>,
        lr: f64,
        betas: (f64, f64),
        eps: f32,
        weight_decay: f64,
    ) -> PyResult<Self> {
        let inner = Mutex::new(Inner::new(betas, eps)?);
        let param_groups = groups(py, params, lr, weight_decay)?;
        let (mut entries, mut all) = (Vec::<Entry>::new(), Vec::new());
        for (group, dict) in param_groups.iter().enumerate() {
            for parameter in dict.get_item("params")?.try_iter()? {
                let parameter: Py<Parameter> = parameter?.cast_into::<Parameter>()?.unbind();
                let weight = parameter.get().inner().share();
                if entries.iter().any(|entry| entry.weight.is(&weight)) {
                    return Err(refused_twice(parameter.get().name()));
                }
                entries.push(Entry { group, name: entries.len().to_string(), weight });
                all.push(parameter);
            }
        }
        if entries.is_empty() {
            return Err(refused("params hold no parameter, expected one or more"));
        }
        let turns = turns_of(&all);
        // Tuples are used because a group or parameter that is added or removed later would have no
        // effect.
        let param_groups = PyTuple::new(py, param_groups)?.unbind();
        let made = Self { inner, entries, turns, param_groups };
        made.rates(py)?;
        Ok(made)
    }

    /// Updates every weight that has a gradient, in place.
    fn step(&self, py: Python<'_>) -> PyResult<()> {
        let rates = self.rates(py)?;
        in_turn(py, &self.turns, true, || {
            self.lock().adamw.step(self.entries.iter().map(|entry| {
                let (lr, weight_decay) = rates[entry.group];
                (entry.name.as_str(), &entry.weight, lr, weight_decay)
            }));
        });
        Ok(())
    }

    /// Sets all gradients to zero, in place.
    #[pyo3(signature = (set_to_none=false))]
    fn zero_grad(&self, py: Python<'_>, set_to_none: bool) -> PyResult<()> {
        stays_in_place(set_to_none)?;
        in_turn(py, &self.turns, false, || {
            optim::zero_grad(self.entries.iter().map(|entry| &entry.weight));
        });
        Ok(())
    }

    /// Moments, step counts and rates as arrays and numbers, in the layout of torch.optim.AdamW.
    fn state_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (inner, state) = (self.lock(), PyDict::new(py));
        let moments = inner.adamw.state().map(|(name, first, second, step)| {
            let one = PyDict::new(py);
            one.set_item("step", step as f64)?;
            one.set_item("exp_avg", new_array(py, first.to_vec(), first.shape())?)?;
            one.set_item("exp_avg_sq", new_array(py, second.to_vec(), second.shape())?)?;
            // The name of an entry is its position.
            state.set_item(name.parse::<usize>()?, one)
        });
        moments.collect::<PyResult<()>>()?;
        let dict = PyDict::new(py);
        dict.set_item("state", state)?;
        let groups = PyList::empty(py);
        for (place, (lr, weight_decay)) in self.rates(py)?.into_iter().enumerate() {
            let group = PyDict::new(py);
            group.set_item("lr", lr)?;
            group.set_item("betas", inner.betas)?;
            group.set_item("eps", inner.eps)?;
            group.set_item("weight_decay", weight_decay)?;
            group.set_item("params", self.places(place))?;
            groups.append(group)?;
        }
        dict.set_item("param_groups", groups)?;
        Ok(dict)
    }

    /// Loads a `state_dict` of this class or of torch.optim.AdamW, with parameters in the same
    /// order. If it does not fit, raises ValueError and changes nothing.
    fn load_state_dict(&self, py: Python<'_>, state_dict: &Bound<'_, PyAny>) -> PyResult<()> {
        let groups: Vec<Bound<'_, PyAny>> = state_dict.get_item("param_groups")?.extract()?;
        let own = self.param_groups.bind(py);
        if groups.len() != own.len() {
            let (found, expected) = (groups.len(), own.len());
            return Err(refused(format!(
                "the state has {found} param_groups, expected {expected}"
            )));
        }
        let mut rates = Vec::new();
        for (place, group) in groups.iter().enumerate() {
            let (found, expected): (Vec<usize>, _) =
                (group.get_item("params")?.extract()?, self.places(place));
            if found != expected {
                let (found, expected) = (found.len(), expected.len());
                return Err(refused(format!(
                    "group {place} of the state has {found} parameters, expected {expected}, in \
                     the same order"
                )));
            }
            rates.push((group.get_item("lr")?, group.get_item("weight_decay")?));
        }
        let made = self.restored(&groups, &state_dict.get_item("state")?)?;
        for (group, (lr, weight_decay)) in own.iter().zip(rates) {
            group.set_item("lr", lr.call_method0("__float__")?)?;
            group.set_item("weight_decay", weight_decay.call_method0("__float__")?)?;
        }
        *self.lock() = made;
        Ok(())
    }

    fn __repr__(&self) -> String {
        format!("AdamW({} parameters)", self.entries.len())
    }
}

/// One dictionary per group, with both rates.
fn groups<'py>(
    py: Python<'py>,
    params: &Bound<'py, PyAny>,
    lr: f64,
    weight_decay: f64,
) -> PyResult<Bound<'py, PyList>> {
    let groups = PyList::empty(py);
    let bare = PyList::empty(py);
    for given in params.try_iter()? {
        let given = given?;
        let Ok(given) = given.cast::<PyDict>() else {
            bare.append(given)?;
            continue;
        };
        let group = PyDict::new(py);
        group.set_item("lr", lr)?;
        group.set_item("weight_decay", weight_decay)?;
        for (key, value) in given.iter() {
            let name: String = key.extract()?;
            if !["params", "lr", "weight_decay"].contains(&name.as_str()) {
                let expected = "expected params, lr and weight_decay";
                return Err(refused(format!("a group of params has {name:?}, {expected}")));
            }
            let value = if name == "params" { tuple(&value)?.into_any() } else { value };
            group.set_item(key, value)?;
        }
        groups.append(group)?;
    }
    if !bare.is_empty() {
        let group = PyDict::new(py);
        group.set_item("params", bare.to_tuple())?;
        group.set_item("lr", lr)?;
        group.set_item("weight_decay", weight_decay)?;
        groups.insert(0, group)?;
    }
    Ok(groups)
}

fn refused_twice(name: &str) -> PyErr {
    refused(format!("params hold {name} twice, expected once"))
}

fn tuple<'py>(params: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(params.py(), params.try_iter()?.collect::<PyResult<Vec<_>>>()?)
}

/// Scales all gradients so that their total L2 norm is at most `max_norm`, and returns the norm
/// before. As in torch.nn.utils.clip_grad_norm_. ValueError if a gradient is not finite.
#[pyfunction]
pub(crate) fn clip_grad_norm(
    py: Python<'_>,
    params: Vec<Py<Parameter>>,
    max_norm: f32,
) -> PyResult<f32> {
    let turns = turns_of(&params);
    let mut weights: Vec<(String, engine::Parameter)> = Vec::new();
    for parameter in &params {
        let (name, weight) = (parameter.get().name(), parameter.get().inner());
        if weights.iter().any(|(_, other)| other.is(weight)) {
            return Err(refused_twice(name));
        }
        weights.push((name.to_owned(), weight.share()));
    }
    in_turn(py, &turns, false, || optim::clip_grad_norm(&weights, max_norm)).map_err(raised)
}
