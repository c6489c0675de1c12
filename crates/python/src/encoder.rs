//! `saltworks.Encoder`: features of whole images.

use crate::arrays::images;
use crate::errors::raised;
use crate::model::{Model, array, load_encoder};
use crate::spec::{encoder_spec, normalization};
use crate::state::{Extras, Weight};
use engine::{Module, Tape};
use numpy::PyArrayDyn;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use saltworks::model::{Encoder as Vit, Patches, Read, VitSpec};
use saltworks::weights::{self, Hint};
use std::path::PathBuf;

/// Features of images.
#[pyclass(frozen, module = "saltworks")]
pub(crate) struct Features {
    /// Class token [B, D]; None for an encoder without one.
    #[pyo3(get)]
    cls: Option<Py<PyArrayDyn<f32>>>,
    /// Mean of the patch tokens [B, D].
    #[pyo3(get)]
    mean: Py<PyArrayDyn<f32>>,
    /// Patch tokens [B, N, D], row by row of the image.
    #[pyo3(get)]
    patches: Py<PyArrayDyn<f32>>,
}

/// timm's vision transformer, to look with: a trained encoder or a new one.
#[pyclass(frozen, extends = Model, module = "saltworks")]
pub(crate) struct Encoder {
    vit: Vit,
}

impl Encoder {
    /// The sizes of a file count before `name`'s.
    fn open(
        py: Python<'_>,
        spec: &VitSpec,
        given: Option<&Bound<'_, PyAny>>,
        seed: u64,
    ) -> PyResult<Vit> {
        let Some(given) = given else { return Ok(Vit::new(spec, seed)) };
        if let Ok(given) = given.cast::<PyDict>() {
            let vit = Vit::new(spec, seed);
            load_encoder(&vit, given)?;
            return Ok(vit);
        }
        let path: PathBuf = given.extract()?;
        let hint = Hint { heads: Some((spec.width, spec.heads)), grid: Some(spec.grid()) };
        let open = || weights::Model::open(&path)?.load_encoder(None, hint, None);
        Ok(py.detach(open).map_err(raised)?.encoder)
    }
}

#[pymethods]
impl Encoder {
    /// `weights`: a file that `encoder_weights` reads, which tells its sizes (`name` and options then
    /// need not be given), or a dictionary of arrays under timm's names; without, an untrained encoder.
    #[new]
    #[pyo3(signature = (name="vit_tiny_patch16_224", weights=None, seed=0, *, normalize=None,
        **encoder_options))]
    fn new(
        py: Python<'_>,
        name: &str,
        weights: Option<&Bound<'_, PyAny>>,
        seed: u64,
        normalize: Option<&Bound<'_, PyAny>>,
        encoder_options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let vit = Self::open(py, &encoder_spec(name, encoder_options)?, weights, seed)?;
        let bytes = normalization(normalize, vit.spec().channels)?;
        let weight = |(name, weight)| Weight { name, second: None, weight };
        let list = vit.parameters().into_iter().map(weight).collect();
        let model = Model::new(py, list, 0, Extras::none(), (bytes, seed))?;
        Ok(PyClassInitializer::from(model).add_subclass(Self { vit }))
    }

    /// D
    #[getter]
    fn embed_dim(&self) -> usize {
        self.vit.spec().width
    }

    /// Patches of an image, down and across.
    #[getter]
    fn grid(&self) -> (usize, usize) {
        let grid = self.vit.grid();
        (grid.h, grid.w)
    }

    /// (C, H, W) of the images it takes.
    #[getter]
    fn image_shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let spec = self.vit.spec();
        PyTuple::new(py, [spec.channels, spec.image[1], spec.image[2]])
    }

    /// `images` [B, C, H, W], float32 (normalised) or uint8.
    fn __call__(slf: &Bound<'_, Self>, images: &Bound<'_, PyAny>) -> PyResult<Features> {
        let (py, vit, model) = (slf.py(), &slf.get().vit, slf.as_super().get());
        let images = self::images(images, model.bytes())?;
        let made = model.turn().compute(py, || {
            let tape = Tape::inference();
            let encoded = vit.forward(&tape, &images, Patches::All, Read::All, None)?;
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

    fn __repr__(&self) -> String {
        let spec = self.vit.spec();
        format!("Encoder(embed_dim={}, depth={}, grid={})", spec.width, spec.depth, spec.grid())
    }
}
