//! Mask samplers under the reference's names.

use crate::arrays::new_array;
use crate::errors::{raised, refused};
use numpy::PyArrayDyn;
use pyo3::prelude::*;
use pyo3::types::IntoPyDict;
use saltworks::mask::{
    self, BlockMasking, BlockOptions, Grid, MaskSpread, Masking, RandomMasking, block_masks,
};
use saltworks::range::Range;

/// A range in Python: (min, max).
pub(crate) type Pair = (f64, f64);

fn range((min, max): Pair) -> Range {
    Range::new(min, max)
}

/// Multi-block masks of one batch: a context block minus `num_targets` target blocks. They are the
/// same for all samples, as in the reference.
#[pyclass(frozen, module = "saltworks")]
pub(crate) struct MultiBlockMasking {
    /// Number of target blocks.
    #[pyo3(get)]
    num_targets: usize,
    /// (min, max) area of the context block, as a share of the grid.
    #[pyo3(get)]
    context_scale: Pair,
    /// (min, max) area of a target block.
    #[pyo3(get)]
    target_scale: Pair,
    /// (min, max) height over width of the context block.
    #[pyo3(get)]
    context_aspect_ratio: Pair,
    /// (min, max) height over width of a target block.
    #[pyo3(get)]
    target_aspect_ratio: Pair,
}

impl MultiBlockMasking {
    pub(crate) fn masking(&self) -> Masking {
        let context = BlockOptions {
            count: 1,
            scale: range(self.context_scale),
            aspect_ratio: range(self.context_aspect_ratio),
        };
        let targets = BlockOptions {
            count: self.num_targets,
            scale: range(self.target_scale),
            aspect_ratio: range(self.target_aspect_ratio),
        };
        let multi_block = mask::MultiBlockMasking {
            context,
            targets,
            per_sample: false,
            ..mask::MultiBlockMasking::default()
        };
        Masking::MultiBlock(multi_block)
    }
}

#[pymethods]
impl MultiBlockMasking {
    /// Shares and ratios are (min, max).
    #[new]
    #[pyo3(signature = (num_targets=4, context_scale=(0.85, 1.0), target_scale=(0.15, 0.2),
                        context_aspect_ratio=(1.0, 1.0), target_aspect_ratio=(0.75, 1.5)))]
    pub(crate) fn new(
        num_targets: usize,
        context_scale: Pair,
        target_scale: Pair,
        context_aspect_ratio: Pair,
        target_aspect_ratio: Pair,
    ) -> PyResult<Self> {
        if num_targets < 1 {
            return Err(refused(format!("num_targets must be >= 1, got {num_targets}")));
        }
        let pairs = [
            ("context_scale", context_scale),
            ("target_scale", target_scale),
            ("context_aspect_ratio", context_aspect_ratio),
            ("target_aspect_ratio", target_aspect_ratio),
        ];
        for (name, (min, max)) in pairs {
            if !(0.0 < min && min <= max && max.is_finite()) {
                return Err(refused(format!(
                    "{name} is ({min}, {max}), expected (min, max) with 0 < min <= max"
                )));
            }
        }
        Ok(Self {
            num_targets,
            context_scale,
            target_scale,
            context_aspect_ratio,
            target_aspect_ratio,
        })
    }

    /// Masks of a batch: (context, target), int64 [batch, K] and [batch, M].
    #[pyo3(signature = (grid_h, grid_w, batch=1, seed=0, step=0))]
    fn sample<'py>(
        &self,
        py: Python<'py>,
        grid_h: usize,
        grid_w: usize,
        batch: usize,
        seed: u64,
        step: u64,
    ) -> PyResult<(Indices<'py>, Indices<'py>)> {
        sampled(py, &self.masking(), Grid::image(grid_h, grid_w), batch, (seed, step))
    }

    /// For copies and pickles.
    fn __getnewargs__(&self) -> (usize, Pair, Pair, Pair, Pair) {
        let (contexts, targets) = (self.context_aspect_ratio, self.target_aspect_ratio);
        (self.num_targets, self.context_scale, self.target_scale, contexts, targets)
    }

    fn __repr__(&self) -> String {
        let Self { num_targets, context_scale, target_scale, .. } = self;
        let (contexts, targets) = (self.context_aspect_ratio, self.target_aspect_ratio);
        format!(
            "MultiBlockMasking(num_targets={num_targets}, context_scale={context_scale:?}, \
             target_scale={target_scale:?}, context_aspect_ratio={contexts:?}, \
             target_aspect_ratio={targets:?})"
        )
    }
}

/// Random patches, or square blocks of them, up to a ratio. Each sample has its own mask. This is
/// the reference's class without its crops.
#[pyclass(frozen, module = "saltworks")]
pub(crate) struct PatchMasking {
    /// Share of masked patches.
    #[pyo3(get)]
    mask_ratio: f64,
    /// Side of a block in patches. 1 for single patches.
    #[pyo3(get)]
    block_size: usize,
}

impl PatchMasking {
    pub(crate) fn masking(&self) -> Masking {
        let (ratio, size) = (self.mask_ratio, self.block_size);
        match size {
            1 => Masking::Random(RandomMasking {
                ratio,
                spread: MaskSpread::Tubes,
                per_sample: true,
            }),
            _ => Masking::Block(BlockMasking { ratio, size, per_sample: true }),
        }
    }
}

#[pymethods]
impl PatchMasking {
    /// `crop_ratio` is an argument of the reference. It must be 0.
    #[new]
    #[pyo3(signature = (mask_ratio=0.75, block_size=1, crop_ratio=0.0))]
    pub(crate) fn new(mask_ratio: f64, block_size: usize, crop_ratio: f64) -> PyResult<Self> {
        if !(0.0..1.0).contains(&mask_ratio) {
            return Err(refused(format!("mask_ratio must be in [0, 1), got {mask_ratio}")));
        }
        if block_size < 1 {
            return Err(refused(format!("block_size must be >= 1, got {block_size}")));
        }
        if !(0.0..=1.0).contains(&crop_ratio) {
            return Err(refused(format!("crop_ratio must be in [0, 1], got {crop_ratio}")));
        }
        if crop_ratio != 0.0 {
            return Err(refused(format!(
                "crop_ratio is {crop_ratio}, expected 0: crops are not supported. Use block_size"
            )));
        }
        Ok(Self { mask_ratio, block_size })
    }

    /// Masks of a batch: (context, target), int64 [batch, K] and [batch, M].
    #[pyo3(signature = (grid_h, grid_w, batch=1, seed=0, step=0))]
    fn sample<'py>(
        &self,
        py: Python<'py>,
        grid_h: usize,
        grid_w: usize,
        batch: usize,
        seed: u64,
        step: u64,
    ) -> PyResult<(Indices<'py>, Indices<'py>)> {
        sampled(py, &self.masking(), Grid::image(grid_h, grid_w), batch, (seed, step))
    }

    /// For copies and pickles.
    fn __getnewargs__(&self) -> (f64, usize) {
        (self.mask_ratio, self.block_size)
    }

    fn __repr__(&self) -> String {
        let Self { mask_ratio, block_size } = self;
        format!("PatchMasking(mask_ratio={mask_ratio:?}, block_size={block_size})")
    }
}

/// Patch indices.
pub(crate) type Indices<'py> = Bound<'py, PyArrayDyn<i64>>;

/// Lists of equal length as an array [B, K].
pub(crate) fn indices<'py>(py: Python<'py>, lists: &[Vec<u32>]) -> PyResult<Indices<'py>> {
    let width = lists.first().map_or(0, Vec::len);
    let flat: Vec<i64> = lists.iter().flatten().map(|&patch| i64::from(patch)).collect();
    new_array(py, flat, &[lists.len(), width])
}

fn sampled<'py>(
    py: Python<'py>,
    masking: &Masking,
    grid: Grid,
    batch: usize,
    (seed, step): (u64, u64),
) -> PyResult<(Indices<'py>, Indices<'py>)> {
    masking.validate(grid).map_err(raised)?;
    let masks = masking.sample(grid, batch, seed, step).map_err(raised)?;
    Ok((indices(py, &masks.context)?, indices(py, &masks.target)?))
}

/// A seed from NumPy's global generator.
fn drawn_seed(py: Python<'_>) -> PyResult<u64> {
    let random = py.import("numpy.random")?;
    let kind = [("dtype", "int64")].into_py_dict(py)?;
    let drawn: i64 = random.call_method("randint", (0, i64::MAX), Some(&kind))?.extract()?;
    Ok(drawn.unsigned_abs())
}

/// One int32 mask [height, width] for each block, 1 inside it. As in the reference's function,
/// blocks of equal scale and ratio have the same size. `seed` determines the random draws. Without
/// one, NumPy's global generator does.
#[pyfunction]
#[pyo3(signature = (height, width, block_scales=None, aspect_ratios=None, min_keep=1, seed=None))]
pub(crate) fn multi_block_mask<'py>(
    py: Python<'py>,
    height: usize,
    width: usize,
    block_scales: Option<Vec<Pair>>,
    aspect_ratios: Option<Vec<Pair>>,
    min_keep: usize,
    seed: Option<u64>,
) -> PyResult<Vec<Bound<'py, PyArrayDyn<i32>>>> {
    let seed = seed.map_or_else(|| drawn_seed(py), Ok)?;
    let defaults = |first, others| std::iter::once(first).chain([others; 4]).collect();
    let scales: Vec<Pair> = block_scales.unwrap_or_else(|| defaults((0.85, 1.0), (0.15, 0.2)));
    let ratios: Vec<Pair> = aspect_ratios.unwrap_or_else(|| defaults((1.0, 1.0), (0.75, 1.5)));
    if scales.len() != ratios.len() {
        let (scales, ratios) = (scales.len(), ratios.len());
        return Err(refused(format!("{scales} block_scales for {ratios} aspect_ratios")));
    }
    if height == 0 || width == 0 {
        return Err(refused(format!(
            "a grid of {height} x {width} patches has no room for blocks"
        )));
    }
    let blocks: Vec<_> = scales.into_iter().map(range).zip(ratios.into_iter().map(range)).collect();
    let planes = block_masks(Grid::image(height, width), &blocks, seed).map_err(raised)?;
    let mask = |plane: Vec<bool>| {
        let kept = plane.iter().filter(|&&inside| inside).count();
        if kept < min_keep {
            return Err(refused(format!("a block has {kept} patches, min_keep is {min_keep}")));
        }
        new_array(py, plane.into_iter().map(i32::from).collect(), &[height, width])
    };
    planes.into_iter().map(mask).collect()
}
