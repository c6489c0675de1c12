//! `saltworks.AdamW`.

use crate::compute::{Turn, forget_recordings, on_threads};
use crate::errors::{raised, refused};
use crate::parameter::Parameter;
use engine::optim;
use pyo3::exceptions::PyKeyError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use std::sync::{Arc, Mutex, PoisonError};

/// torch's AdamW: decoupled weight decay. Weights without a gradient are left alone.
#[pyclass(frozen, module = "saltworks")]
pub(crate) struct AdamW {
    inner: Mutex<optim::AdamW>,
    entries: Vec<Entry>,
    turns: Vec<Arc<Turn>>,
    /// A dictionary for each group: `params`, `lr` and `weight_decay`. The last two may be changed
    /// between steps, as a schedule does.
    #[pyo3(get)]
    param_groups: Py<PyList>,
}

/// A parameter, its group, and the name its moments are kept by.
struct Entry {
    group: usize,
    name: String,
    weight: engine::Parameter,
}

/// The models of some parameters, each once, in one order for everybody: two threads that wait for
/// the same models do so in the same order.
fn turns_of(parameters: &[Py<Parameter>]) -> Vec<Arc<Turn>> {
    let mut turns: Vec<Arc<Turn>> = parameters.iter().map(|p| p.get().turn().clone()).collect();
    turns.sort_by_key(|turn| Arc::as_ptr(turn).addr());
    turns.dedup_by(|a, b| Arc::ptr_eq(a, b));
    turns
}

/// Runs `work` while nobody else uses these models.
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

#[pymethods]
impl AdamW {
    /// `params`: parameters, or dictionaries with `params` and perhaps `lr` and `weight_decay`.
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
        if ![betas.0, betas.1].iter().all(|beta| (0.0..1.0).contains(beta)) {
            return Err(refused(format!("betas are {betas:?}, expected numbers of 0 to below 1")));
        }
        if !(eps.is_finite() && eps >= 0.0) {
            return Err(refused(format!("eps is {eps}, expected a number of 0 or more")));
        }
        let param_groups = groups(py, params, lr, weight_decay)?;
        let (mut entries, mut all) = (Vec::<Entry>::new(), Vec::new());
        for (group, dict) in param_groups.iter().enumerate() {
            for parameter in dict.get_item("params")?.try_iter()? {
                let parameter: Py<Parameter> = parameter?.cast_into::<Parameter>()?.unbind();
                let weight = parameter.get().inner().share();
                if entries.iter().any(|entry| entry.weight.is(&weight)) {
                    let name = parameter.get().name();
                    return Err(refused(format!("params hold {name} twice, expected once")));
                }
                entries.push(Entry { group, name: entries.len().to_string(), weight });
                all.push(parameter);
            }
        }
        if entries.is_empty() {
            return Err(refused("params hold no parameter, expected one or more"));
        }
        let (inner, turns) = (Mutex::new(optim::AdamW::new(betas, eps)), turns_of(&all));
        let made = Self { inner, entries, turns, param_groups: param_groups.unbind() };
        made.rates(py)?;
        Ok(made)
    }

    /// Changes every weight that has a gradient, in place.
    fn step(&self, py: Python<'_>) -> PyResult<()> {
        let rates = self.rates(py)?;
        in_turn(py, &self.turns, true, || {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.step(self.entries.iter().map(|entry| {
                let (lr, weight_decay) = rates[entry.group];
                (entry.name.as_str(), &entry.weight, lr, weight_decay)
            }));
        });
        Ok(())
    }

    /// Sets all gradients to zero, in place.
    fn zero_grad(&self, py: Python<'_>) {
        in_turn(py, &self.turns, false, || {
            self.entries.iter().for_each(|entry| entry.weight.zero_grad());
        });
    }

    fn __repr__(&self) -> String {
        format!("AdamW({} parameters)", self.entries.len())
    }
}

/// One dictionary a group, with both rates.
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
            let value = if name == "params" { listed(&value)?.into_any() } else { value };
            group.set_item(key, value)?;
        }
        groups.append(group)?;
    }
    if !bare.is_empty() {
        let group = PyDict::new(py);
        group.set_item("params", bare)?;
        group.set_item("lr", lr)?;
        group.set_item("weight_decay", weight_decay)?;
        groups.insert(0, group)?;
    }
    Ok(groups)
}

fn listed<'py>(params: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(params.py());
    for parameter in params.try_iter()? {
        list.append(parameter?)?;
    }
    Ok(list)
}

/// Scales all gradients so that their L2 norm together is at most `max_norm`; the norm they had. As
/// torch.nn.utils.clip_grad_norm_. ValueError where a gradient is not finite.
#[pyfunction]
pub(crate) fn clip_grad_norm(
    py: Python<'_>,
    params: Vec<Py<Parameter>>,
    max_norm: f32,
) -> PyResult<f32> {
    let turns = turns_of(&params);
    let weights: Vec<_> = params
        .iter()
        .map(|parameter| (parameter.get().name().to_owned(), parameter.get().inner().share()))
        .collect();
    in_turn(py, &turns, false, || optim::clip_grad_norm(&weights, max_norm)).map_err(raised)
}
