//! What SALT and MAE have in common.

use crate::arrays::{Normalization, new_array};
use crate::compute::{Named, Turn};
use crate::errors::raised;
use crate::names::second_name;
use crate::parameter::Parameter;
use crate::state::{self, Extras, tensors};
use engine::{Module, Tensor};
use numpy::PyArrayDyn;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use saltworks::model::{Encoder, StepKey, VitSpec, position};
use saltworks::weights;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A method's weights, and whether it trains.
#[pyclass(frozen, subclass, module = "saltworks")]
pub(crate) struct Model {
    turn: Arc<Turn>,
    /// All weights under the reference's names; the first `frozen` are not trained.
    named: Named,
    frozen: usize,
    objects: Vec<(String, Py<Parameter>)>,
    extras: Extras,
    bytes: Normalization,
    seed: u64,
    step: AtomicU64,
    training: AtomicBool,
}

impl Model {
    pub(crate) fn new(
        py: Python<'_>,
        named: Named,
        frozen: usize,
        extras: Extras,
        (bytes, seed): (Normalization, u64),
    ) -> PyResult<Self> {
        let turn = Arc::new(Turn::default());
        let objects = state::parameter_objects(py, &named, frozen, &turn)?;
        let (step, training) = (AtomicU64::new(0), AtomicBool::new(true));
        Ok(Self { turn, named, frozen, objects, extras, bytes, seed, step, training })
    }

    pub(crate) fn turn(&self) -> &Arc<Turn> {
        &self.turn
    }

    /// How uint8 images are read.
    pub(crate) fn bytes(&self) -> &Normalization {
        &self.bytes
    }

    /// What decides the masks of the next call.
    pub(crate) fn key(&self) -> StepKey {
        StepKey { seed: self.seed, step: self.step.load(Ordering::Relaxed), first_sample: 0 }
    }

    /// [`Model::key`], for a call.
    pub(crate) fn next_key(&self) -> StepKey {
        let step = self.step.fetch_add(1, Ordering::Relaxed);
        StepKey { step, ..self.key() }
    }

    pub(crate) fn is_training(&self) -> bool {
        self.training.load(Ordering::Relaxed)
    }
}

#[pymethods]
impl Model {
    /// Whether calls train.
    #[getter]
    fn training(&self) -> bool {
        self.is_training()
    }

    /// How many masks were drawn or given: the next call's are a function of seed and step. Set it to
    /// repeat or skip some.
    #[getter]
    fn step(&self) -> u64 {
        self.step.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_step(&self, step: u64) {
        self.step.store(step, Ordering::Relaxed);
    }

    /// Sets training mode: masks are drawn, a loss is computed.
    #[pyo3(signature = (mode=true))]
    fn train(slf: PyRef<'_, Self>, mode: bool) -> PyRef<'_, Self> {
        slf.training.store(mode, Ordering::Relaxed);
        slf
    }

    /// Sets eval mode: nothing is masked, the loss is 0.
    fn eval(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        Self::train(slf, false)
    }

    /// (name, Parameter) of all weights under the reference's names, the teacher's first.
    fn named_parameters(&self, py: Python<'_>) -> Vec<(String, Py<Parameter>)> {
        self.objects.iter().map(|(name, object)| (name.clone(), object.clone_ref(py))).collect()
    }

    /// The parameters that are trained.
    fn parameters(&self, py: Python<'_>) -> Vec<Py<Parameter>> {
        self.objects[self.frozen..].iter().map(|(_, object)| object.clone_ref(py)).collect()
    }

    /// Sets all gradients to zero, in place.
    fn zero_grad(&self, py: Python<'_>) {
        self.turn.compute(py, || self.named.iter().for_each(|(_, weight)| weight.zero_grad()));
    }

    /// All weights under the reference's keys, as views; what the reference holds beside and never
    /// trains (fixed position tables, SALT's predictor.query_proj), as copies.
    fn state_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        state::state_dict(py, &self.objects, &self.extras)
    }

    /// Gives every weight the value of its name; ValueError, and nothing changed, if one is missing,
    /// unexpected or of another shape. Values are arrays or tensors of float32.
    fn load_state_dict(&self, py: Python<'_>, state_dict: &Bound<'_, PyDict>) -> PyResult<()> {
        state::load_state_dict(py, state_dict, &self.named, &self.extras, &self.turn)
    }
}

/// A tensor as an array of its own.
pub(crate) fn array(
    py: Python<'_>,
    tensor: &Tensor,
    shape: &[usize],
) -> PyResult<Py<PyArrayDyn<f32>>> {
    Ok(new_array(py, tensor.to_vec(), shape)?.unbind())
}

/// The fixed position table of a predictor or decoder [1, N, D].
pub(crate) fn position_table(width: usize, spec: &VitSpec) -> PyResult<Tensor> {
    let grid = spec.grid();
    position::sincos(width, grid).reshape(&[1, grid.len(), width]).map_err(raised)
}

/// The weights of the encoder in a checkpoint, as arrays by name: those below `encoder.` or `student.`
/// where it holds more, as stable-pretraining's SALT.from_checkpoint.
#[pyfunction]
pub(crate) fn encoder_weights(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let file = py.detach(|| weights::load(&path)).map_err(raised)?;
    let dict = PyDict::new(py);
    for (name, value) in file.encoder() {
        dict.set_item(name, new_array(py, value.to_vec(), value.shape())?)?;
    }
    Ok(dict)
}

/// Gives an encoder the weights of a dictionary under timm's names, or a MaskedEncoder's (below
/// `vit.`, the patch embedding a second time).
pub(crate) fn load_encoder(encoder: &Encoder, given: &Bound<'_, PyDict>) -> PyResult<()> {
    let mut tensors = tensors(given)?;
    if tensors.contains_key("vit.pos_embed") {
        let second: Vec<String> = tensors.keys().filter_map(|name| second_name(name)).collect();
        second.iter().for_each(|name| drop(tensors.remove(name)));
        tensors = tensors
            .into_iter()
            .map(|(name, tensor)| (name.strip_prefix("vit.").unwrap_or(&name).to_owned(), tensor))
            .collect();
    }
    weights::assign(Path::new("the encoder's state dict"), &tensors, &encoder.parameters())
        .map_err(raised)
}
