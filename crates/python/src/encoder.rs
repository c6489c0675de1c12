//! `saltworks.Encoder`: features of whole images.

use crate::arrays::{Normalization, images};
use crate::errors::raised;
use crate::model::{Model, ModelParts, array, encoder_of, model_of, open_model};
use crate::spec::{SizeArguments, USUAL, encoder_spec, normalization};
use crate::state::{Extras, Weight};
use crate::tokens::{Tokens, encode};
use engine::{Module, Tape};
use numpy::{PyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping, PyTuple};
use saltworks::model::{Encoder as Vit, Outputs, Patches};
use saltworks::weights::{self, dialect::stable_pretraining_place};

/// Features of images.
#[pyclass(frozen, module = "saltworks")]
pub(crate) struct Features {
    /// Class token [B, D]. None for an encoder without one.
    #[pyo3(get)]
    cls: Option<Py<PyArrayDyn<f32>>>,
    /// Mean of the patch tokens [B, D].
    #[pyo3(get)]
    mean: Py<PyArrayDyn<f32>>,
    /// Patch tokens [B, N, D], row by row of the image.
    #[pyo3(get)]
    patches: Py<PyArrayDyn<f32>>,
}

#[pymethods]
impl Features {
    fn __repr__(&self, py: Python<'_>) -> String {
        let patches = self.patches.bind(py).shape().to_vec();
        format!("Features(patches={patches:?}, cls={})", self.cls.is_some())
    }
}

/// timm's vision transformer: a trained encoder or a new one.
#[pyclass(frozen, extends = Model, module = "saltworks")]
pub(crate) struct Encoder {
    vit: Vit,
}

impl Encoder {
    /// A new encoder of the given sizes, or the encoder of the weights, which must have these
    /// sizes.
    fn open(
        py: Python<'_>,
        said: SizeArguments<'_, '_>,
        given: Option<&Bound<'_, PyAny>>,
        seed: u64,
    ) -> PyResult<(Vit, Option<Normalization>)> {
        let Some(given) = given else {
            let spec = encoder_spec(said.name.unwrap_or(USUAL), said.options)?;
            return Ok((Vit::new(&spec, seed), None));
        };
        let model = match given.cast::<PyMapping>() {
            Ok(given) => model_of(given)?,
            Err(_) => open_model(py, given.extract()?)?,
        };
        let (vit, bytes) = encoder_of(py, &model, said)?;
        let spec = said.agreed(model.path(), vit.spec())?;
        if spec == *vit.spec() {
            return Ok((vit, bytes));
        }
        // Files say nothing of stochastic depth.
        let values = vit.parameters().into_iter().map(|(name, weight)| (name, weight.value()));
        let vit = Vit::new(&spec, 0);
        weights::assign(model.path(), &values.collect(), &vit.parameters()).map_err(raised)?;
        Ok((vit, bytes))
    }
}

#[pymethods]
impl Encoder {
    /// `weights` is a file that `encoder_weights` reads, or a mapping of arrays as in such a file.
    /// The sizes are read from them, so `name` and options are not needed. If given, they must not
    /// contradict the weights. Without weights the encoder is untrained, "vit_tiny_patch16_224" by
    /// default. `normalize` is the normalisation of uint8 images if the file has none.
    #[new]
    #[pyo3(signature = (name=None, weights=None, seed=0, *, normalize=None,
        **encoder_options))]
    fn new(
        py: Python<'_>,
        name: Option<&str>,
        weights: Option<&Bound<'_, PyAny>>,
        seed: u64,
        normalize: Option<&Bound<'_, PyAny>>,
        encoder_options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let said = SizeArguments { name, options: encoder_options };
        let (vit, of_file) = Self::open(py, said, weights, seed)?;
        let bytes = normalization(normalize, vit.spec().channels)?.or(of_file);
        let weight = |(name, weight)| Weight { name, second: None, weight, read: true };
        let mut list: Vec<Weight> = vit.parameters().into_iter().map(weight).collect();
        list.sort_by_key(|weight| stable_pretraining_place(&weight.name));
        let made = ModelParts::new(py, vit.spec(), bytes, seed)?;
        let model = Model::new(py, list, 0, Extras::none(), made)?;
        Ok(PyClassInitializer::from(model).add_subclass(Self { vit }))
    }

    /// (C, H, W) of its input images.
    #[getter]
    fn image_shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let spec = self.vit.spec();
        PyTuple::new(py, [spec.channels, spec.image[1], spec.image[2]])
    }

    /// `images` [B, C, H, W], float32 (normalised) or uint8.
    fn __call__(slf: &Bound<'_, Self>, images: &Bound<'_, PyAny>) -> PyResult<Features> {
        let (py, vit, model) = (slf.py(), &slf.get().vit, slf.as_super().get());
        let images = self::images(images, model.bytes(), vit.spec())?;
        let made = model.turn().compute(py, || {
            let tape = Tape::inference();
            let encoded = vit.forward(&tape, &images, Patches::All, Outputs::All, None)?;
            let cls = vit.spec().class_token.then(|| encoded.row(&tape, 0)).transpose()?;
            Ok((cls, encoded.mean(&tape)?, encoded.patches(&tape)?))
        });
        let (cls, mean, patches) = made.map_err(|error: engine::Error| raised(error))?;
        let shape = [images.samples(), vit.grid().len(), vit.spec().width];
        Ok(Features {
            cls: cls.map(|cls| array(py, &cls, cls.shape())).transpose()?,
            mean: array(py, &mean, mean.shape())?,
            patches: array(py, &patches, &shape)?,
        })
    }

    /// All tokens of `images`, or only of `patches` [K] or [B, K] of them, in this order: class
    /// token and registers first, [B, P + K, D]. Their `backward` trains the encoder. With
    /// `training`, by default the model's mode, blocks are left out at random (`drop_path_rate`).
    #[pyo3(signature = (images, patches=None, *, training=None, record=true))]
    fn encode(
        slf: &Bound<'_, Self>,
        images: &Bound<'_, PyAny>,
        patches: Option<&Bound<'_, PyAny>>,
        training: Option<bool>,
        record: bool,
    ) -> PyResult<Tokens> {
        let model = slf.as_super().get();
        let key = training.unwrap_or(model.is_training()).then(|| model.next_key());
        encode(slf.py(), model, &slf.get().vit, (images, patches), key, record)
    }

    /// [`Self::__call__`], under the name in torch's modules.
    fn forward(slf: &Bound<'_, Self>, images: &Bound<'_, PyAny>) -> PyResult<Features> {
        Self::__call__(slf, images)
    }

    fn __repr__(&self) -> String {
        let spec = self.vit.spec();
        format!("Encoder(embed_dim={}, depth={}, grid={})", spec.width, spec.depth, spec.grid())
    }
}
