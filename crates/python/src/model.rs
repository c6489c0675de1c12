//! What SALT and MAE have in common.

use crate::arrays::{Normalization, new_array};
use crate::compute::Turn;
use crate::errors::raised;
use crate::parameter::Parameter;
use crate::state::{self, Extras, Weight, tensors};
use engine::{Module, Tensor};
use numpy::PyArrayDyn;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use saltworks::model::{Encoder, StepKey};
use saltworks::weights::{self, dialect::stable_pretraining_names};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A method's weights, and whether it trains.
#[pyclass(frozen, subclass, module = "saltworks")]
pub(crate) struct Model {
    turn: Arc<Turn>,
    /// All weights; the first `frozen` are not trained.
    weights: Vec<Weight>,
    frozen: usize,
    objects: Vec<Py<Parameter>>,
    extras: Extras,
    bytes: Normalization,
    seed: u64,
    step: AtomicU64,
    training: AtomicBool,
}

impl Model {
    pub(crate) fn new(
        py: Python<'_>,
        weights: Vec<Weight>,
        frozen: usize,
        extras: Extras,
        (bytes, seed): (Normalization, u64),
    ) -> PyResult<Self> {
        let turn = Arc::new(Turn::default());
        let objects = state::parameter_objects(py, &weights, frozen, &turn)?;
        let (step, training) = (AtomicU64::new(0), AtomicBool::new(true));
        Ok(Self { turn, weights, frozen, objects, extras, bytes, seed, step, training })
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
        let named = |object: &Py<Parameter>| (object.get().name().to_owned(), object.clone_ref(py));
        self.objects.iter().map(named).collect()
    }

    /// The parameters that are trained.
    fn parameters(&self, py: Python<'_>) -> Vec<Py<Parameter>> {
        self.objects[self.frozen..].iter().map(|object| object.clone_ref(py)).collect()
    }

    /// Sets all gradients to zero, in place.
    fn zero_grad(&self, py: Python<'_>) {
        self.turn.compute(py, || self.weights.iter().for_each(|weight| weight.weight.zero_grad()));
    }

    /// All weights under the reference's keys, as views; what the reference holds beside and never
    /// trains (fixed position tables, SALT's predictor.query_proj), as copies.
    fn state_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        state::state_dict(py, &self.weights, &self.objects, &self.extras)
    }

    /// Gives every weight the value of its name; ValueError, and nothing changed, if one is missing,
    /// unexpected or of another shape. Values are arrays or tensors of float32.
    fn load_state_dict(&self, py: Python<'_>, state_dict: &Bound<'_, PyDict>) -> PyResult<()> {
        state::load_state_dict(py, state_dict, &self.weights, &self.extras, &self.turn)
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

/// The weights of the encoder in a checkpoint, under timm's names: safetensors or torch's file, of
/// saltworks, timm, stable-pretraining, facebookresearch/mae or transformers. Of several encoders
/// `encoder`, else `student`, else `teacher`.
#[pyfunction]
pub(crate) fn encoder_weights(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let encoder = py.detach(|| weights::Model::open(&path)?.encoder(None)).map_err(raised)?;
    let dict = PyDict::new(py);
    for (name, value) in encoder {
        dict.set_item(name, new_array(py, value.to_vec(), value.shape())?)?;
    }
    Ok(dict)
}

/// Gives an encoder the weights of a dictionary under timm's names, or a MaskedEncoder's.
pub(crate) fn load_encoder(encoder: &Encoder, given: &Bound<'_, PyDict>) -> PyResult<()> {
    let tensors = tensors(given)?;
    let masked = tensors.contains_key("vit.pos_embed");
    let weight = |(name, weight): (String, engine::Parameter)| {
        if !masked {
            return Weight { name, second: None, weight };
        }
        let (name, second) = stable_pretraining_names(&format!("encoder.{name}"));
        // A MaskedEncoder is the part of a model that is called `encoder` there.
        let part = |name: String| name.trim_start_matches("encoder.").to_owned();
        Weight { name: part(name), second: second.map(part), weight }
    };
    let list: Vec<_> = encoder.parameters().into_iter().map(weight).collect();
    state::assign("the encoder's state dict", tensors, &list, |work| work())
}
