//! I-JEPA masks: target blocks that do not overlap, and as context a random part of the other
//! tokens. They are stable-pretraining's `IJEPAMasking` (backbone/patch_masking.py).
//!
//! I-JEPA itself (Assran et al. 2023, src/masks/multiblock.py) lets targets overlap and cuts its
//! context from a block. Those masks are [`super::MultiBlockMasking`].

use engine::random::Random;
use serde::{Deserialize, Serialize};

use super::grid::Rectangle;
use super::multi_block::{BlockOptions, random_block};
use super::random::set_some;
use super::{Error, Grid, Result, SampleMask, check_range};
use crate::range::Range;

/// Target blocks that do not overlap, each of its own size. A block that does not fit in 100 tries
/// is left out. Both are as in stable-pretraining's I-JEPA. Blocks reach through all frames of a
/// clip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IJepaMasking {
    /// The blocks to predict. Their aspect ratio here is width over height, drawn log-uniform.
    pub targets: BlockOptions,
    /// The context is this share of the tokens outside the targets.
    pub context_scale: Range,
    /// Whether each sample has its own masks. If not, a batch shares one.
    pub per_sample: bool,
}

impl Default for IJepaMasking {
    /// stable-pretraining's numbers, with masks per sample.
    fn default() -> Self {
        let (scale, aspect_ratio) = (Range::new(0.15, 0.2), Range::new(0.75, 1.5));
        Self {
            targets: BlockOptions { count: 4, scale, aspect_ratio },
            context_scale: Range::new(0.85, 1.0),
            per_sample: true,
        }
    }
}

/// The reference's `max_attempts_per_block`.
const ATTEMPTS_PER_BLOCK: usize = 100;

impl IJepaMasking {
    pub(super) fn check(&self) -> Result<()> {
        let count = self.targets.count;
        if !(1..=1024).contains(&count) {
            let found = count.to_string();
            return Err(Error::Setting { name: "targets.count", found, expected: "1 to 1024" });
        }
        let share = "[min, max] with 0 < min <= max <= 1";
        check_range("targets.scale", self.targets.scale, 1.0, share)?;
        check_range("context_scale", self.context_scale, 1.0, share)?;
        let ratio = "[min, max] with 0 < min <= max <= 100";
        check_range("targets.aspect_ratio", self.targets.aspect_ratio, 100.0, ratio)
    }

    pub(super) fn describe(&self) -> String {
        format!("{} target blocks of scale {}", self.targets.count, self.targets.scale)
    }

    pub(super) fn draw(&self, grid: Grid, random: &mut Random) -> SampleMask {
        let mut target = vec![false; grid.plane()];
        for _ in 0..self.targets.count {
            let mut blocks = (0..ATTEMPTS_PER_BLOCK).map(|_| self.block(grid, random));
            let free = |block: &Rectangle| block.cells(grid).all(|cell| !target[cell]);
            if let Some(block) = blocks.find(free) {
                block.cells(grid).for_each(|cell| target[cell] = true);
            }
        }
        let mut context: Vec<bool> = target.iter().map(|&target| !target).collect();
        let left = context.iter().filter(|&&left| left).count();
        let kept = (left as f64 * self.context_scale.at(random.uniform_f64())) as usize;
        set_some(&mut context, left - kept.max(1).min(left), false, random);
        SampleMask { context: grid.tubes(&context), target: grid.tubes(&target) }
    }

    fn block(&self, grid: Grid, random: &mut Random) -> Rectangle {
        let area = grid.plane() as f64 * self.targets.scale.at(random.uniform_f64());
        let Range { min, max } = self.targets.aspect_ratio;
        let aspect_ratio = Range::new(min.ln(), max.ln()).at(random.uniform_f64()).exp();
        // Half to even, as Python's round().
        let side =
            |square: f64, most: usize| (square.sqrt().round_ties_even() as usize).clamp(1, most);
        let size = (side(area / aspect_ratio, grid.h), side(area * aspect_ratio, grid.w));
        random_block(size, grid, random)
    }
}
