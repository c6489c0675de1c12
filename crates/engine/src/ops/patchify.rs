//! Pixels to patches: [B, C, T, H, W] -> [B N, pt ph pw C], only the patches wanted. A batch stays
//! bytes until here, so masked patches are never touched.

use crate::device::{PatchLayout, PatchNorm, PatchOrder};
use crate::images::Images;
use crate::index::Index;
use crate::shape::{check_index, expect_dtype, expect_multiple, matrix};
use crate::{Dtype, Result, Tape, Tensor};

/// The patches `patches` (b N + n, n time-major, in any order) of images [B, C, T, H, W];
/// [K, pt ph pw C] in the type of [`Images::with_dtype`]. Pixels get no gradient.
pub fn patchify(
    tape: &Tape,
    images: &Images,
    patch: [usize; 3],
    order: PatchOrder,
    patches: impl Into<Index>,
) -> Result<Tensor> {
    let patches = patches.into();
    for (&side, part) in images.shape()[2..].iter().zip(patch) {
        expect_multiple("patchify", "a side in pixels", side, part)?;
    }
    let grid = images.grid(patch);
    let rows = images.samples() * grid.iter().product::<usize>();
    check_index("patchify", "the batch", rows, &patches)?;
    let width = patch.iter().product::<usize>() * images.shape()[1];
    let y = tape.run("patchify", || {
        let device = images.device();
        let mut y = device.buffer(images.dtype(), patches.len() * width);
        let layout = PatchLayout { shape: images.shape(), patch, order };
        device.patchify(y.view_mut(), images.pixels(), layout, &patches);
        y
    });
    Ok(Tensor::new(images.device(), y, &[patches.len(), width]))
}

/// Each row of x [R, p C] (values as [`PatchOrder::ChannelsLast`]) to mean 0 and variance 1: the
/// pixel targets of MAE (He et al. 2022, section 3) and VideoMAE. No gradient.
pub fn normalize_patches(tape: &Tape, x: &Tensor, norm: PatchNorm) -> Result<Tensor> {
    let (_, width) = matrix("normalize_patches", "x", x)?;
    expect_multiple("normalize_patches", "the width of a patch", width, norm.channels)?;
    // Targets are computed in f32 from pixels that were never rounded.
    expect_dtype("normalize_patches", "x", x, Dtype::F32)?;
    let device = x.device();
    let y = tape.run("normalize_patches", || {
        let mut y = device.buffer(Dtype::F32, x.len());
        device.normalize_patches(y.view_mut(), x.view(), width, norm);
        y
    });
    Ok(Tensor::new(device, y, x.shape()))
}
