//! `saltworks.Loader`: batches of images from files.

use crate::arrays::new_array;
use crate::compute::{compute, not_forked};
use crate::errors::{of_kind, raised, refused, warn};
use crate::masking::Pair;
use crate::spec::{by_name, normalization};
use engine::Tape;
use engine::ops::{Images, PatchOrder, patchify};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use saltworks::data::{self, Crop, LoaderOptions, Normalize, Order, Source, Transform, Unreadable};
use saltworks::range::Range;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Images of a folder, tar shards, parquet, a list, NumPy or IDX files, or `builtin:fashion-mnist`,
/// in batches. Iteration yields (images [B, C, size, size], labels int32 [B]). A label is -1
/// if it is missing.
#[pyclass(frozen, module = "saltworks")]
pub(crate) struct Loader {
    source: Arc<dyn Source>,
    options: LoaderOptions,
    shuffle: bool,
    floats: bool,
    epoch: AtomicU64,
    /// Indices of the images that could not be read in any iteration.
    unreadable: Mutex<BTreeSet<usize>>,
}

#[pymethods]
impl Loader {
    /// By default images come once and in order, and the last batch may be smaller. With `shuffle`
    /// every iteration is a new epoch of full batches in its own order. `augment` crops and flips
    /// at random as in MAE (`crop_scale`, `crop_aspect`, `flip`). Without it the centre is used.
    /// `dtype` is "float32", normalised by `normalize`, or "uint8" without normalisation.
    /// `normalize` is "inception" by default, as in a recipe. If it is a model, the model's
    /// normalisation is used. `threads` threads decode in advance. An image that cannot be read is
    /// replaced by the next one, with a warning. If their share of all images is above
    /// `max_unreadable` (rounded up; 0.01 with `shuffle`, else 0), a ValueError is raised.
    #[new]
    #[pyo3(signature = (path, batch=64, size=224, channels=3, *, shuffle=false, augment=false,
        seed=0, threads=1, normalize=None, dtype="float32", crop_scale=(0.2, 1.0),
        crop_aspect=(0.75, 4.0 / 3.0), flip=0.5, zoom=1.0, max_unreadable=None))]
    #[allow(clippy::too_many_arguments)] // keywords
    fn new(
        py: Python<'_>,
        path: PathBuf,
        batch: usize,
        size: usize,
        channels: usize,
        shuffle: bool,
        augment: bool,
        seed: u64,
        threads: usize,
        normalize: Option<&Bound<'_, PyAny>>,
        dtype: &str,
        crop_scale: Pair,
        crop_aspect: Pair,
        flip: f64,
        zoom: f64,
        max_unreadable: Option<f64>,
    ) -> PyResult<Self> {
        let floats = match dtype {
            "float32" => true,
            "uint8" => false,
            _ => return Err(refused(format!("dtype is {dtype:?}, expected float32 or uint8"))),
        };
        let pair = |(min, max): Pair| Range::new(min, max);
        let center = Transform { crop: Crop::Center { zoom }, ..Transform::center([size; 2]) };
        let crop = Crop::RandomResized { scale: pair(crop_scale), ratio: pair(crop_aspect) };
        let transform = if augment { Transform { crop, flip, ..center } } else { center };
        let bytes = match normalization(normalize, channels)? {
            Some(given) => given,
            None => by_name("inception", channels)?,
        };
        let by_channel =
            |list: Vec<f32>| if list.len() == 1 { vec![list[0]; channels] } else { list };
        let options = LoaderOptions {
            batch,
            threads,
            prefetch: threads.saturating_mul(2).saturating_add(2),
            order: if shuffle { Order::Shuffled { seed } } else { Order::Once },
            first_sample: 0,
            augment_seed: seed,
            transform,
            channels,
            normalize: Normalize { mean: by_channel(bytes.mean), std: by_channel(bytes.std) },
            max_unreadable: max_unreadable.unwrap_or(if shuffle { 0.01 } else { 0.0 }),
        };
        let source = py.detach(|| data::open(&path, [0; 3])).map_err(raised)?;
        options.validate(source.as_ref()).map_err(raised)?;
        if shuffle && source.len() < batch {
            let found = source.len();
            return Err(refused(format!(
                "batch is {batch}, expected at most {found}, the number of images: with shuffle \
                 all batches are full"
            )));
        }
        let unreadable = Mutex::default();
        Ok(Self { source, options, shuffle, floats, epoch: AtomicU64::new(0), unreadable })
    }

    /// Total number of images.
    #[getter]
    fn num_images(&self) -> usize {
        self.source.len()
    }

    /// Names of the classes.
    #[getter]
    fn classes(&self) -> Vec<String> {
        self.source.classes().to_vec()
    }

    /// Number of batches of an iteration.
    fn __len__(&self) -> usize {
        let (images, batch) = (self.source.len(), self.options.batch);
        if self.shuffle { images / batch } else { images.div_ceil(batch) }
    }

    /// Indices of the images that could not be read so far.
    #[getter]
    fn unreadable(&self) -> Vec<usize> {
        locked(&self.unreadable).iter().copied().collect()
    }

    fn __iter__(slf: &Bound<'_, Self>) -> PyResult<Batches> {
        let this = slf.get();
        let epoch = if this.shuffle { this.epoch.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let first_sample = epoch * this.source.len() as u64;
        let options = LoaderOptions { first_sample, ..this.options.clone() };
        let loader = data::Loader::new(this.source.clone(), options).map_err(raised)?;
        let loader = loader.with_unreadable(locked(&this.unreadable).clone());
        Ok(Batches { loader: Mutex::new((loader, this.__len__())), of: slf.clone().unbind() })
    }

    fn __repr__(&self) -> String {
        format!("Loader({}, batch={})", self.source.describe(), self.options.batch)
    }
}

impl Loader {
    /// Warns once of each image that was replaced.
    fn warn(&self, py: Python<'_>, unreadable: &[Unreadable]) -> PyResult<()> {
        for Unreadable { index, problem } in unreadable {
            if locked(&self.unreadable).insert(*index) {
                let text = "cannot be read, the next image replaces it";
                warn(py, &format!("image {index} {text}: {problem}"))?;
            }
        }
        Ok(())
    }
}

/// A panic leaves no partial change of our data.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An iteration over a Loader.
#[pyclass(frozen, module = "saltworks")]
pub(crate) struct Batches {
    /// The loader, and the number of remaining batches.
    loader: Mutex<(data::Loader, usize)>,
    of: Py<Loader>,
}

#[pymethods]
impl Batches {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let loaded = py.detach(|| {
            let (loader, left) = &mut *locked(&self.loader);
            if *left == 0 {
                return Ok(None);
            }
            *left -= 1;
            loader.next_batch()
        });
        let Some(loaded) = loaded.map_err(raised_of_loader)? else { return Ok(None) };
        let (batch, of) = (loaded.batch, self.of.get());
        of.warn(py, &batch.unreadable)?;
        let images = if of.floats {
            floats(py, &batch.images)?
        } else {
            let [b, c, _, h, w] = batch.images.shape();
            // A loader's batches hold bytes.
            let bytes = batch.images.bytes().unwrap_or_default().to_vec();
            new_array(py, bytes, &[b, c, h, w])?.into_any()
        };
        let count = batch.labels.len();
        let labels = new_array(py, batch.labels, &[count])?.into_any();
        Ok(Some(PyTuple::new(py, [images, labels])?))
    }
}

/// [`raised`] with Python's name for the recipe's key.
fn raised_of_loader(error: data::Error) -> PyErr {
    let words = |text: &str| text.replace("data.max_unreadable", "max_unreadable");
    of_kind(&error, PyValueError::new_err, &words)
}

/// [B, C, H, W], normalised.
fn floats<'py>(py: Python<'py>, images: &Images) -> PyResult<Bound<'py, PyAny>> {
    let [b, c, t, h, w] = images.shape();
    let whole: Vec<u32> = (0..b as u32).collect();
    not_forked()?;
    let pixels = compute(py, || {
        patchify(&Tape::inference(), images, [t, h, w], PatchOrder::ChannelsFirst, &whole)
    });
    let pixels = pixels.map_err(raised)?;
    Ok(new_array(py, pixels.to_vec(), &[b, c, h, w])?.into_any())
}
