//! The common base of SALT, MAE and Encoder.

use crate::arrays::{Normalization, new_array};
use crate::compute::{Turn, not_forked};
use crate::errors::{raised, raised_of_weights, warn};
use crate::parameter::{Parameter, stays_in_place};
use crate::spec::{SizeArguments, USUAL, options_among, options_of};
use crate::state::{self, Extras, Weight, tensors};
use engine::optim::zero_grad;
use engine::{Module, Tensor};
use numpy::PyArrayDyn;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};
use saltworks::mask::Grid;
use saltworks::model::{Encoder, StepKey, VitSpec};
use saltworks::weights;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A model's weights, and whether it is in training mode.
#[pyclass(frozen, subclass, module = "saltworks")]
pub(crate) struct Model {
    turn: Arc<Turn>,
    /// All weights. The first `frozen` ones are not trained.
    weights: Vec<Weight>,
    frozen: usize,
    objects: Vec<Py<Parameter>>,
    extras: Extras,
    /// Width of a token, and the grid of patches.
    sizes: (usize, Grid),
    bytes: Option<Normalization>,
    /// The constructor's arguments, for copies and pickles.
    arguments: Py<PyDict>,
    seed: u64,
    step: AtomicU64,
    /// How often a part was called in training mode.
    part_calls: AtomicU64,
    training: AtomicBool,
}

/// The parts of a model other than its weights.
pub(crate) struct ModelParts<'py> {
    /// The constructor's arguments. Those that [`ModelParts::new`] does not know must be added.
    pub(crate) arguments: Bound<'py, PyDict>,
    sizes: (usize, Grid),
    bytes: Option<Normalization>,
    seed: u64,
}

impl<'py> ModelParts<'py> {
    /// The parts for an encoder of these sizes.
    pub(crate) fn new(
        py: Python<'py>,
        spec: &VitSpec,
        bytes: Option<Normalization>,
        seed: u64,
    ) -> PyResult<Self> {
        let arguments = options_of(py, spec)?;
        arguments.set_item("seed", seed)?;
        if let Some(Normalization { mean, std }) = &bytes {
            arguments.set_item("normalize", (mean, std))?;
        }
        Ok(Self { arguments, sizes: (spec.width, spec.grid()), bytes, seed })
    }

    /// The parts for a transformer of this width on this grid, which reads no images.
    pub(crate) fn without_images(
        py: Python<'py>,
        width: usize,
        grid: Grid,
        seed: u64,
    ) -> PyResult<Self> {
        let arguments = PyDict::new(py);
        arguments.set_item("seed", seed)?;
        Ok(Self { arguments, sizes: (width, grid), bytes: None, seed })
    }
}

impl Model {
    pub(crate) fn new(
        py: Python<'_>,
        weights: Vec<Weight>,
        frozen: usize,
        extras: Extras,
        parts: ModelParts<'_>,
    ) -> PyResult<Self> {
        let ModelParts { arguments, sizes, bytes, seed } = parts;
        let turn = Arc::new(Turn::default());
        let objects = state::parameter_objects(py, &weights, frozen, &turn)?;
        let (step, training) = (AtomicU64::new(0), AtomicBool::new(true));
        let part_calls = AtomicU64::new(0);
        let arguments = arguments.unbind();
        Ok(Self {
            turn,
            weights,
            frozen,
            objects,
            extras,
            sizes,
            bytes,
            arguments,
            seed,
            step,
            part_calls,
            training,
        })
    }

    pub(crate) fn turn(&self) -> &Arc<Turn> {
        &self.turn
    }

    /// The grid of patches.
    pub(crate) fn patch_grid(&self) -> Grid {
        self.sizes.1
    }

    /// How uint8 images are normalised, if that is known.
    pub(crate) fn bytes(&self) -> Option<&Normalization> {
        self.bytes.as_ref()
    }

    /// The key of the next call's masks.
    pub(crate) fn key(&self) -> StepKey {
        StepKey { seed: self.seed, step: self.step.load(Ordering::Relaxed), first_sample: 0 }
    }

    /// [`Model::key`] for this call. It also advances the step.
    pub(crate) fn next_key(&self) -> StepKey {
        let step = self.step.fetch_add(1, Ordering::Relaxed);
        StepKey { step, ..self.key() }
    }

    /// The key of a part's next call, for stochastic depth. Calls of parts do not change the masks
    /// that the model draws.
    pub(crate) fn next_part_key(&self) -> StepKey {
        let step = self.part_calls.fetch_add(1, Ordering::Relaxed);
        StepKey { seed: !self.seed, step, first_sample: 0 }
    }

    pub(crate) fn is_training(&self) -> bool {
        self.training.load(Ordering::Relaxed)
    }
}

#[pymethods]
impl Model {
    /// D, the width of the encoder's tokens.
    #[getter]
    fn embed_dim(&self) -> usize {
        self.sizes.0
    }

    /// Number of patches of an image along height and width.
    #[getter]
    fn grid(&self) -> (usize, usize) {
        let grid = self.sizes.1;
        (grid.h, grid.w)
    }

    /// Whether the model is in training mode.
    #[getter]
    fn training(&self) -> bool {
        self.is_training()
    }

    /// How images are normalised: (means, deviations), as given or as in the file. None if unknown.
    #[getter]
    fn normalize(&self) -> Option<(Vec<f32>, Vec<f32>)> {
        self.bytes.as_ref().map(|bytes| (bytes.mean.clone(), bytes.std.clone()))
    }

    /// Number of masks drawn or given so far. The next call's masks are a function of seed and
    /// step. Set it to repeat or skip masks.
    #[getter]
    fn step(&self) -> u64 {
        self.step.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_step(&self, step: u64) {
        self.step.store(step, Ordering::Relaxed);
    }

    /// Sets training mode: masks are drawn, and a loss is computed.
    #[pyo3(signature = (mode=true))]
    fn train(slf: PyRef<'_, Self>, mode: bool) -> PyRef<'_, Self> {
        slf.training.store(mode, Ordering::Relaxed);
        slf
    }

    /// Sets eval mode: nothing is masked, and the loss is 0.
    fn eval(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        Self::train(slf, false)
    }

    /// (name, Parameter) of all weights under the reference's names. The teacher's come first.
    fn named_parameters(&self, py: Python<'_>) -> Vec<(String, Py<Parameter>)> {
        let named = |object: &Py<Parameter>| (object.get().name().to_owned(), object.clone_ref(py));
        self.objects.iter().map(named).collect()
    }

    /// The trained parameters.
    fn parameters(&self, py: Python<'_>) -> Vec<Py<Parameter>> {
        self.objects[self.frozen..].iter().map(|object| object.clone_ref(py)).collect()
    }

    /// Sets all gradients to zero, in place.
    #[pyo3(signature = (set_to_none=false))]
    fn zero_grad(&self, py: Python<'_>, set_to_none: bool) -> PyResult<()> {
        stays_in_place(set_to_none)?;
        not_forked()?;
        self.turn.compute(py, || zero_grad(self.weights.iter().map(|weight| &weight.weight)));
        Ok(())
    }

    /// All weights under the reference's keys, as views. The reference's other tensors, which are
    /// never trained, are copies (fixed position tables, SALT's predictor.query_proj).
    fn state_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        state::state_dict(py, &self.weights, &self.objects, &self.extras)
    }

    /// Sets every weight to the value under its name. If one is missing, unexpected or of another
    /// shape, raises ValueError and changes nothing. Values are arrays or tensors of a floating
    /// type.
    fn load_state_dict(&self, py: Python<'_>, state_dict: &Bound<'_, PyMapping>) -> PyResult<()> {
        state::load_state_dict(py, state_dict, &self.weights, &self.extras, &self.turn)
    }

    // Copies and pickles: a new model with the same arguments, then its weights and a subclass's
    // attributes.

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> ((), Bound<'py, PyDict>) {
        ((), self.arguments.bind(py).clone())
    }

    fn __getstate__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyDict>> {
        let (py, this) = (slf.py(), slf.get());
        let state = PyDict::new(py);
        state.set_item("weights", this.state_dict(py)?)?;
        state.set_item("step", this.step())?;
        state.set_item("training", this.is_training())?;
        state.set_item("more", slf.getattr_opt("__dict__")?)?;
        Ok(state)
    }

    fn __setstate__(slf: &Bound<'_, Self>, state: &Bound<'_, PyDict>) -> PyResult<()> {
        let this = slf.get();
        let weights = state.as_any().get_item("weights")?;
        this.load_state_dict(slf.py(), weights.cast::<PyMapping>()?)?;
        this.set_step(state.as_any().get_item("step")?.extract()?);
        this.training.store(state.as_any().get_item("training")?.extract()?, Ordering::Relaxed);
        let more = state.as_any().get_item("more")?;
        if !more.is_none() {
            slf.getattr("__dict__")?.call_method1("update", (more,))?;
        }
        Ok(())
    }
}

/// A copy of a tensor as an array.
pub(crate) fn array(
    py: Python<'_>,
    tensor: &Tensor,
    shape: &[usize],
) -> PyResult<Py<PyArrayDyn<f32>>> {
    Ok(new_array(py, tensor.to_vec(), shape)?.unbind())
}

/// The weights of the encoder in a checkpoint, under timm's names: a safetensors or torch file of
/// saltworks, timm, stable-pretraining, facebookresearch/mae or transformers. If there are several
/// encoders, it is `encoder`, else `student`, else `teacher`.
#[pyfunction]
pub(crate) fn encoder_weights(py: Python<'_>, path: PathBuf) -> PyResult<Bound<'_, PyDict>> {
    let encoder = open_model(py, path)?.encoder(None).map_err(raised)?;
    let dict = PyDict::new(py);
    for (name, value) in encoder {
        dict.set_item(name, new_array(py, value.to_vec(), value.shape())?)?;
    }
    Ok(dict)
}

/// The model in a mapping of arrays or tensors, under any of the names that files have. The names
/// may also be those of a MaskedEncoder, which is the `encoder` part of a model.
pub(crate) fn model_of(given: &Bound<'_, PyMapping>) -> PyResult<weights::ModelFile> {
    let mut named = tensors(given)?;
    if named.contains_key("vit.patch_embed.proj.weight") {
        named =
            named.into_iter().map(|(name, tensor)| (format!("encoder.{name}"), tensor)).collect();
    }
    weights::ModelFile::of_tensors("the encoder's state dict", named).map_err(raised)
}

/// Reads a file of weights.
pub(crate) fn open_model(py: Python<'_>, path: PathBuf) -> PyResult<weights::ModelFile> {
    py.detach(|| weights::ModelFile::open(&path, None)).map_err(raised)
}

/// The encoder of a model, and how its images were normalised, if that is known.
pub(crate) fn encoder_of(
    py: Python<'_>,
    model: &weights::ModelFile,
    said: SizeArguments<'_, '_>,
) -> PyResult<(Encoder, Option<Normalization>)> {
    let hint = said.hint(&model.encoder(None).map_err(raised)?)?;
    let loaded = py.detach(|| model.load_encoder(None, hint, None)).map_err(raised_of_weights)?;
    for note in &loaded.notes {
        warn(py, &format!("{}: {note}", model.path().display()))?;
    }
    let bytes = loaded.normalize.map(|found| Normalization { mean: found.mean, std: found.std });
    Ok((loaded.encoder, bytes))
}

/// The arguments of SALT's constructor for a student of the encoder in a checkpoint: `kwargs`, and
/// this encoder's sizes, weights and normalisation. ValueError if `kwargs` contradict them.
#[pyfunction]
#[pyo3(signature = (ckpt_path, encoder_name=None, **kwargs))]
pub(crate) fn student_of_checkpoint<'py>(
    py: Python<'py>,
    ckpt_path: PathBuf,
    encoder_name: Option<&str>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyDict>> {
    let all = kwargs.map_or_else(|| Ok(PyDict::new(py)), |kwargs| kwargs.copy())?;
    let said = SizeArguments { name: encoder_name, options: Some(&options_among(&all)?) };
    let model = open_model(py, ckpt_path)?;
    let (encoder, bytes) = encoder_of(py, &model, said)?;
    let spec = said.agreed(model.path(), encoder.spec())?;
    all.update(options_of(py, &spec)?.as_mapping())?;
    let teacher = PyDict::new(py);
    for (name, weight) in encoder.parameters() {
        teacher.set_item(name, new_array(py, weight.value().to_vec(), &weight.shape())?)?;
    }
    all.set_item("encoder_name", encoder_name.unwrap_or(USUAL))?;
    all.set_item("teacher_state_dict", teacher)?;
    if let (Some(bytes), false) = (bytes, all.contains("normalize")?) {
        all.set_item("normalize", (bytes.mean, bytes.std))?;
    }
    Ok(all)
}
