//! Pixels to patches: [B, C, T, H, W] -> [B N, pt ph pw C], only the patches wanted. A batch stays
//! bytes until here, so masked patches are never touched.

use crate::device::{Device, PatchLayout, PatchNorm, PatchOrder, Pixels};
use crate::index::Index;
use crate::shape::{check_index, expect_count, expect_multiple, matrix};
use crate::{HOST, Result, Tape, Tensor};
use std::sync::Arc;

/// A batch of clips [B, C, T, H, W]; an image has T = 1.
#[derive(Clone)]
pub struct Images {
    shape: [usize; 5],
    data: Data,
    device: &'static dyn Device,
}

#[derive(Clone)]
enum Data {
    U8 { bytes: Arc<[u8]>, mean: Vec<f32>, std: Vec<f32> },
    F32(Values),
}

/// Values that somebody owns.
type Values = Arc<dyn AsRef<[f32]> + Send + Sync>;

impl Images {
    /// Bytes; a value v of channel c stands for (v/255 - mean_c)/std_c.
    pub fn u8(
        bytes: impl Into<Arc<[u8]>>,
        shape: [usize; 5],
        mean: Vec<f32>,
        std: Vec<f32>,
    ) -> Result<Self> {
        let bytes = bytes.into();
        expect_count("images", "the number of bytes", bytes.len(), shape.iter().product())?;
        expect_count("images", "the channel means", mean.len(), shape[1])?;
        expect_count("images", "the channel deviations", std.len(), shape[1])?;
        Ok(Self { shape, data: Data::U8 { bytes, mean, std }, device: HOST })
    }

    /// Values normalised already.
    pub fn f32(
        values: impl AsRef<[f32]> + Send + Sync + 'static,
        shape: [usize; 5],
    ) -> Result<Self> {
        let count = values.as_ref().len();
        expect_count("images", "the number of values", count, shape.iter().product())?;
        Ok(Self { shape, data: Data::F32(Arc::new(values)), device: HOST })
    }

    /// The same pixels, whose patches are cut on `device`.
    pub fn to(&self, device: &'static dyn Device) -> Self {
        Self { device, ..self.clone() }
    }

    /// [B, C, T, H, W] in pixels.
    pub fn shape(&self) -> [usize; 5] {
        self.shape
    }

    /// The bytes, where it holds bytes and not values.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.data {
            Data::U8 { bytes, .. } => Some(bytes),
            Data::F32(_) => None,
        }
    }

    /// B
    pub fn samples(&self) -> usize {
        self.shape[0]
    }

    /// Tokens (t, h, w) per sample under this patch size.
    pub fn grid(&self, patch: [usize; 3]) -> [usize; 3] {
        std::array::from_fn(|axis| self.shape[2 + axis] / patch[axis])
    }

    fn pixels(&self) -> Pixels<'_> {
        match &self.data {
            Data::U8 { bytes, mean, std } => Pixels::U8 { data: bytes, mean, std },
            Data::F32(values) => Pixels::F32((**values).as_ref()),
        }
    }
}

/// The patches `patches` (b N + n, n time-major, in any order) of images [B, C, T, H, W];
/// [K, pt ph pw C]. Pixels get no gradient.
pub fn patchify(
    tape: &Tape,
    images: &Images,
    patch: [usize; 3],
    order: PatchOrder,
    patches: impl Into<Index>,
) -> Result<Tensor> {
    let patches = patches.into();
    for (&side, part) in images.shape[2..].iter().zip(patch) {
        expect_multiple("patchify", "a side in pixels", side, part)?;
    }
    let grid = images.grid(patch);
    let rows = images.samples() * grid.iter().product::<usize>();
    check_index("patchify", "the batch", rows, &patches)?;
    let width = patch.iter().product::<usize>() * images.shape[1];
    let y = tape.run("patchify", || {
        let device = images.device;
        let mut y = device.buffer(patches.len() * width);
        let layout = PatchLayout { shape: images.shape, patch, order };
        device.patchify(y.view_mut(), images.pixels(), layout, &patches);
        y
    });
    Ok(Tensor::new(images.device, y, &[patches.len(), width]))
}

/// Each row of x [R, p C] (values as [`PatchOrder::ChannelsLast`]) to mean 0 and variance 1: the
/// pixel targets of MAE (He et al. 2022, section 3) and VideoMAE. No gradient.
pub fn normalize_patches(tape: &Tape, x: &Tensor, norm: PatchNorm) -> Result<Tensor> {
    let (_, width) = matrix("normalize_patches", "x", x)?;
    expect_multiple("normalize_patches", "the width of a patch", width, norm.channels)?;
    let device = x.device();
    let y = tape.run("normalize_patches", || {
        let mut y = device.buffer(x.len());
        device.normalize_patches(y.view_mut(), x.view(), width, norm);
        y
    });
    Ok(Tensor::new(device, y, x.shape()))
}
