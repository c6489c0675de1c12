//! Memory that Python and the engine share. Only this file has `unsafe`.
//!
//! **Weights.** An array from [`value_view`] or [`grad_view`] is a view of the engine's own buffer.
//! The buffer belongs to the engine's parameter. The array's base is the [`Parameter`] object,
//! which holds a handle to it. So an array remains valid after model and optimizer are dropped.
//! [`engine::Parameter::pin_value`] promises that a buffer with a view is never replaced, only
//! changed in place.
//!
//! **Images.** A float array is read in place, and [`ArraySlice`] holds it.
//!
//! **At the same time.** The engine reads and writes with Python's lock released. Calls into this
//! module take turns on a model ([`crate::compute::Turn`]). But another thread can write through a
//! view (`view[...] = x`) while the model computes. Then numbers may be from either state, as
//! between two threads of NumPy or torch. NumPy does not resize an array that has views. torch does
//! not resize such a tensor either, because of `Tensor.numpy`. Other libraries' arrays through
//! DLPack are as safe as these libraries are. They must refuse to free or resize such an array
//! while the model reads it.

use crate::compute::not_forked;
use crate::errors::refused;
use crate::parameter::Parameter;
use engine::ops::Images;
use numpy::ndarray::{ArrayView, ArrayViewD, IxDyn};
use numpy::{PyArrayDyn, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::IntoPyDict;
use saltworks::model::VitSpec;

/// The values of a parameter, to read and write.
pub(crate) fn value_view<'py>(owner: &Bound<'py, Parameter>) -> Bound<'py, PyArrayDyn<f32>> {
    let parameter = owner.get().inner();
    view(owner, parameter.pin_value(), &parameter.shape())
}

/// The gradient of a parameter, if there is one, to read and write.
pub(crate) fn grad_view<'py>(owner: &Bound<'py, Parameter>) -> Option<Bound<'py, PyArrayDyn<f32>>> {
    let parameter = owner.get().inner();
    let address = parameter.pin_grad()?;
    Some(view(owner, address, &parameter.shape()))
}

fn view<'py>(
    owner: &Bound<'py, Parameter>,
    address: *mut f32,
    shape: &[usize],
) -> Bound<'py, PyArrayDyn<f32>> {
    // SAFETY: `address` is the start of a pinned buffer with as many values as the shape has. It is
    // aligned for f32 (engine::Parameter::pin_value) and alive while `owner` holds its handle. The
    // view ends with this function.
    #[allow(unsafe_code)]
    let values: ArrayViewD<'_, f32> =
        unsafe { ArrayView::from_shape_ptr(IxDyn(shape), address.cast_const()) };
    // SAFETY: the array's base is `owner`, whose handle keeps the buffer; a pinned buffer is never
    // moved. Python writes to it. While Python's lock is held, the only Rust references to it are
    // those of a thread that computes (see the top of this file).
    #[allow(unsafe_code)]
    unsafe {
        PyArrayDyn::borrow_from_array(&values, owner.clone().into_any())
    }
}

/// A float array that is read without a copy.
struct ArraySlice {
    address: *const f32,
    len: usize,
    /// Keeps the memory alive (see the top of this file).
    _array: Py<PyArrayDyn<f32>>,
}

// SAFETY: the address is only read, and `Py` may be sent to and dropped by any thread.
#[allow(unsafe_code)]
unsafe impl Send for ArraySlice {}
// SAFETY: as above: shared use only reads.
#[allow(unsafe_code)]
unsafe impl Sync for ArraySlice {}

impl AsRef<[f32]> for ArraySlice {
    fn as_ref(&self) -> &[f32] {
        // SAFETY: `borrow` checked that the array is contiguous and aligned and holds `len` values;
        // `_array` keeps it alive.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.address, self.len)
        }
    }
}

/// The array must be contiguous and aligned.
fn borrow(array: &Bound<'_, PyArrayDyn<f32>>) -> ArraySlice {
    let (address, len) = (array.data().cast_const(), array.len());
    assert!(array.is_c_contiguous() && address.is_aligned(), "an array from `contiguous`");
    ArraySlice { address, len, _array: array.clone().unbind() }
}

/// How bytes of images are normalised: (v/255 - mean)/std by channel.
#[derive(Clone)]
pub(crate) struct Normalization {
    /// One number, or one for each channel.
    pub(crate) mean: Vec<f32>,
    /// One number, or one for each channel.
    pub(crate) std: Vec<f32>,
}

/// Images [B, C, H, W] for an encoder, from any array or tensor in the memory of the CPU. float32
/// is not changed, uint8 is normalised. Contiguous float32 is not copied.
pub(crate) fn images(
    given: &Bound<'_, PyAny>,
    bytes: Option<&Normalization>,
    spec: &VitSpec,
) -> PyResult<Images> {
    not_forked()?;
    let array = array("images", given)?;
    let [b, c, h, w] = image_sizes(given, array.shape(), spec)?;
    let (shape, array) = ([b, c, 1, h, w], contiguous(&array)?);
    if let Ok(floats) = array.cast::<PyArrayDyn<f32>>() {
        return Images::f32(borrow(floats), shape).map_err(crate::errors::raised);
    }
    if let Ok(pixels) = array.cast::<PyArrayDyn<u8>>() {
        let bytes = bytes.ok_or_else(|| {
            refused(
                "images are uint8, but this model's normalisation is not known. Pass that of the \
                 training when you create the model: normalize=\"imagenet\", \"inception\", \
                 \"clip\" or (mean, std). Or give float32 images",
            )
        })?;
        let by_channel = |list: &[f32]| match list {
            &[one] => vec![one; c],
            list => list.to_vec(),
        };
        let (mean, std) = (by_channel(&bytes.mean), by_channel(&bytes.std));
        let pixels = pixels.to_vec().map_err(|_| refused("images are not contiguous"))?;
        return Images::u8(pixels, shape, mean, std).map_err(crate::errors::raised);
    }
    let dtype = array.getattr("dtype")?;
    Err(refused(format!(
        "images are of type {dtype}, expected float32 (normalised) or uint8. Convert them, e.g. \
         images.astype(numpy.float32)"
    )))
}

/// The sizes of images that fit an encoder.
fn image_sizes(given: &Bound<'_, PyAny>, shape: &[usize], spec: &VitSpec) -> PyResult<[usize; 4]> {
    let [channels, height, width] = [spec.channels, spec.image[1], spec.image[2]];
    let expected = format!("expected [B, {channels}, {height}, {width}]");
    match *shape {
        [] => {
            let kind = given.get_type();
            Err(refused(format!("images are of {kind}, {expected}: an array or tensor")))
        }
        [b, c, h, w] if [c, h, w] == [channels, height, width] && b > 0 => Ok([b, c, h, w]),
        [0, c, h, w] if [c, h, w] == [channels, height, width] => {
            Err(refused(format!("images are {shape:?}, {expected} with at least one image")))
        }
        [_, h, w, c] if [c, h, w] == [channels, height, width] => Err(refused(format!(
            "images are {shape:?}, {expected}: channels come first. Give images.transpose(0, 3, \
             1, 2), or images.permute(0, 3, 1, 2) of a torch tensor"
        ))),
        [c, h, w] if [c, h, w] == [channels, height, width] => Err(refused(format!(
            "images are {shape:?}, {expected}. Give images[None] for a batch of one"
        ))),
        _ => Err(refused(format!("images are {shape:?}, {expected}"))),
    }
}

/// Values of any floating type as float32, and their shape. `name` is used in messages.
pub(crate) fn floats(name: &str, given: &Bound<'_, PyAny>) -> PyResult<(Vec<f32>, Vec<usize>)> {
    let array = match torch_tensor(given)? {
        // NumPy has no bfloat16.
        true if given.call_method0("is_floating_point")?.is_truthy()? => {
            array(name, &given.call_method0("float")?)?
        }
        _ => array(name, given)?,
    };
    let kind: String = array.getattr("dtype")?.getattr("kind")?.extract()?;
    let array = match kind.as_str() {
        "f" => array.call_method1("astype", ("float32", "C"))?.cast_into::<PyUntypedArray>()?,
        _ => array,
    };
    let shape = array.shape().to_vec();
    let array = contiguous(&array)?;
    let Ok(values) = array.cast::<PyArrayDyn<f32>>() else {
        let dtype = array.getattr("dtype")?;
        return Err(refused(format!("{name} is of type {dtype}, expected float32")));
    };
    Ok((values.to_vec().map_err(|_| refused(format!("{name} is not contiguous")))?, shape))
}

/// The gradient of an output, which must have the output's shape. None without one.
pub(crate) fn gradient(
    name: &str,
    given: Option<&Bound<'_, PyAny>>,
    of: &Bound<'_, PyArrayDyn<f32>>,
) -> PyResult<Option<Vec<f32>>> {
    let Some(given) = given else { return Ok(None) };
    let ((values, shape), expected) = (floats(name, given)?, of.shape());
    if shape != expected {
        return Err(refused(format!("{name} is {shape:?}, expected {expected:?}")));
    }
    Ok(Some(values))
}

/// Patch indices: one list for all samples [K] or [1, K], or one for each sample [B, K].
pub(crate) fn patches(
    name: &str,
    given: &Bound<'_, PyAny>,
    samples: usize,
) -> PyResult<Vec<Vec<u32>>> {
    let array = array(name, given)?;
    let kind: String = array.getattr("dtype")?.getattr("kind")?.extract()?;
    if !["i", "u"].contains(&kind.as_str()) {
        let dtype = array.getattr("dtype")?;
        return Err(refused(format!("{name} is of type {dtype}, expected whole numbers")));
    }
    let shape = array.shape().to_vec();
    let list: Vec<i64> = array.call_method0("ravel")?.call_method0("tolist")?.extract()?;
    if let Some(wrong) = list.iter().find(|&&patch| u32::try_from(patch).is_err()) {
        return Err(refused(format!("{name} holds {wrong}, expected numbers of patches from 0")));
    }
    let list: Vec<u32> = list.into_iter().map(|patch| patch as u32).collect();
    match *shape.as_slice() {
        [_] | [1, _] => Ok(vec![list; samples]),
        [b, 0] if b == samples => Ok(vec![Vec::new(); samples]),
        [b, k] if b == samples => Ok(list.chunks(k).map(<[u32]>::to_vec).collect()),
        _ => Err(refused(format!("{name} is {shape:?}, expected [K] or [{samples}, K]"))),
    }
}

/// A NumPy array of any object with DLPack, the array interface or a buffer.
fn array<'py>(name: &str, given: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    if let Ok(array) = given.cast::<PyUntypedArray>() {
        return Ok(array.clone());
    }
    let numpy = given.py().import("numpy")?;
    let made = if torch_tensor(given)? {
        numpy_of_torch(given)
    } else if given.hasattr("__dlpack__")? {
        numpy.call_method1("from_dlpack", (given,))
    } else {
        numpy.call_method1("asarray", (given,))
    };
    let refuse = |problem: &dyn std::fmt::Display| {
        let kind = given.get_type();
        refused(format!(
            "{name} of {kind} cannot be read as an array: {problem}. Give an array in the memory \
             of the CPU, without gradient (tensor.detach().cpu())"
        ))
    };
    let made = made.map_err(|error| refuse(&error))?;
    made.cast_into::<PyUntypedArray>().map_err(|error| refuse(&error))
}

/// Whether it is a torch tensor. torch is not imported for this.
fn torch_tensor(given: &Bound<'_, PyAny>) -> PyResult<bool> {
    let modules = given.py().import("sys")?.getattr("modules")?;
    let torch = modules.call_method1("get", ("torch",))?;
    // During its import, torch exists without a Tensor.
    match torch.getattr_opt("Tensor")? {
        Some(kind) => given.is_instance(&kind),
        None => Ok(false),
    }
}

/// The tensor as a NumPy array. It needs its own handle (`detach`), because the caller's may get
/// other memory. `numpy` prevents torch from resizing this handle. A view by DLPack would not.
fn numpy_of_torch<'py>(given: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if given.getattr("requires_grad")?.is_truthy()? {
        return Err(refused("it requires a gradient, which would be lost"));
    }
    given.call_method0("detach")?.call_method0("numpy")
}

/// The same values in C order, aligned. They are copied only if needed.
fn contiguous<'py>(array: &Bound<'py, PyUntypedArray>) -> PyResult<Bound<'py, PyUntypedArray>> {
    let py = array.py();
    let needs = [("requirements", ["C_CONTIGUOUS", "ALIGNED"])].into_py_dict(py)?;
    let made = py.import("numpy")?.call_method("require", (array,), Some(&needs))?;
    Ok(made.cast_into::<PyUntypedArray>()?)
}

/// A new array of these values and this shape.
pub(crate) fn new_array<'py, T: numpy::Element>(
    py: Python<'py>,
    values: Vec<T>,
    shape: &[usize],
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    numpy::PyArray1::from_vec(py, values).reshape(shape.to_vec())
}
