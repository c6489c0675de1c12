//! Multi-block masks: one context block minus the union of target blocks. They are drawn as in
//! stable-pretraining's `multi_block_mask` (data/masking.py) and SALT, after I-JEPA (Assran et al.
//! 2023).

use engine::random::Random;
use serde::{Deserialize, Serialize};

use super::grid::Rectangle;
use super::{Error, Grid, Result, SampleMask, check_range};
use crate::range::Range;

/// One context block and several target blocks. A token in both is a target. Blocks reach through
/// all frames of a clip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultiBlockMasking {
    /// The block from which the context is cut. Its `count` must be 1.
    pub context: BlockOptions,
    /// The blocks to predict. Those of one sample have the same size, as in stable-pretraining and
    /// I-JEPA.
    pub targets: BlockOptions,
    /// Whether the scale and the aspect ratio of a block share one random number.
    pub draw: Draw,
    /// The longest side of a block: `below_grid` (default) or `grid`.
    pub side_limit: SideLimit,
    /// Whether each sample has its own masks. If not, a batch shares one, as in stable-pretraining.
    pub per_sample: bool,
}

/// Number and size of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockOptions {
    /// How many blocks there are.
    pub count: usize,
    /// Area of a block, as a share of the grid H·W.
    pub scale: Range,
    /// Height over width of a block.
    pub aspect_ratio: Range,
}

/// How the size of a block is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Draw {
    /// One number for both, so that large blocks are always tall: stable-pretraining and I-JEPA.
    Joint,
    /// One number each: V-JEPA.
    Independent,
}

/// The longest side of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SideLimit {
    /// One less than the grid's side: stable-pretraining and I-JEPA.
    BelowGrid,
    /// The grid's side: V-JEPA.
    Grid,
}

impl Default for MultiBlockMasking {
    /// The numbers of stable-pretraining's `MultiBlockMasking`, with masks per sample.
    fn default() -> Self {
        let [one, targets] = [Range::new(1.0, 1.0), Range::new(0.75, 1.5)];
        Self {
            context: BlockOptions { count: 1, scale: Range::new(0.85, 1.0), aspect_ratio: one },
            targets: BlockOptions { count: 4, scale: Range::new(0.15, 0.2), aspect_ratio: targets },
            draw: Draw::Joint,
            side_limit: SideLimit::BelowGrid,
            per_sample: true,
        }
    }
}

impl MultiBlockMasking {
    pub(super) fn check(&self) -> Result<()> {
        let count = |name, found: usize, expected| {
            Err(Error::Setting { name, found: found.to_string(), expected })
        };
        if self.context.count != 1 {
            return count("context.count", self.context.count, "1");
        }
        if !(1..=1024).contains(&self.targets.count) {
            return count("targets.count", self.targets.count, "1 to 1024");
        }
        let share = "[min, max] with 0 < min <= max <= 1";
        check_range("context.scale", self.context.scale, 1.0, share)?;
        check_range("targets.scale", self.targets.scale, 1.0, share)?;
        let ratio = "[min, max] with 0 < min <= max <= 100";
        check_range("context.aspect_ratio", self.context.aspect_ratio, 100.0, ratio)?;
        check_range("targets.aspect_ratio", self.targets.aspect_ratio, 100.0, ratio)
    }

    pub(super) fn describe(&self) -> String {
        let Self { context, targets, .. } = self;
        format!(
            "a context block of scale {} minus {} target blocks of scale {}",
            context.scale, targets.count, targets.scale
        )
    }

    pub(super) fn draw(&self, grid: Grid, random: &mut Random) -> SampleMask {
        let context_size = self.size(self.context, grid, random);
        let target_size = self.size(self.targets, grid, random);
        let (mut context, mut target) = (vec![false; grid.plane()], vec![false; grid.plane()]);
        random_block(context_size, grid, random).cells(grid).for_each(|cell| context[cell] = true);
        for _ in 0..self.targets.count {
            for cell in random_block(target_size, grid, random).cells(grid) {
                target[cell] = true;
                context[cell] = false;
            }
        }
        SampleMask { context: grid.tubes(&context), target: grid.tubes(&target) }
    }

    /// Height and width of a block, at least 1 x 1: the reference's `_sample_block_size`.
    fn size(&self, blocks: BlockOptions, grid: Grid, random: &mut Random) -> (usize, usize) {
        let u = random.uniform_f64();
        let v = match self.draw {
            Draw::Joint => u,
            Draw::Independent => random.uniform_f64(),
        };
        let area = (grid.plane() as f64 * blocks.scale.at(u)).floor();
        let aspect_ratio = blocks.aspect_ratio.at(v);
        let side = |square: f64, length: usize| {
            // Half to even, as Python's round().
            let side = square.sqrt().round_ties_even() as usize;
            let most = match self.side_limit {
                SideLimit::BelowGrid => length - 1,
                SideLimit::Grid => length,
            };
            side.min(most).max(1)
        };
        (side(area * aspect_ratio, grid.h), side(area / aspect_ratio, grid.w))
    }
}

/// One plane [H·W] for each (scale, aspect ratio), true inside its block. Equal pairs get blocks of
/// one size. This is the reference's `multi_block_mask`.
pub fn block_masks(grid: Grid, blocks: &[(Range, Range)], seed: u64) -> Result<Vec<Vec<bool>>> {
    for &(scale, aspect_ratio) in blocks {
        let given = BlockOptions { count: 1, scale, aspect_ratio };
        MultiBlockMasking { context: given, ..MultiBlockMasking::default() }.check()?;
    }
    let sampler = MultiBlockMasking::default();
    let mut random = Random::new(seed, "block masks", 0);
    let mut sizes: Vec<((Range, Range), (usize, usize))> = Vec::new();
    for &(scale, aspect_ratio) in blocks {
        if !sizes.iter().any(|(known, _)| *known == (scale, aspect_ratio)) {
            let size =
                sampler.size(BlockOptions { count: 1, scale, aspect_ratio }, grid, &mut random);
            sizes.push(((scale, aspect_ratio), size));
        }
    }
    let drawn = blocks.iter().map(|block| {
        let mut plane = vec![false; grid.plane()];
        let size = sizes.iter().find(|(known, _)| known == block).map_or((1, 1), |found| found.1);
        random_block(size, grid, &mut random).cells(grid).for_each(|cell| plane[cell] = true);
        plane
    });
    Ok(drawn.collect())
}

/// A block of this size at a random position on the grid.
pub(super) fn random_block(
    (height, width): (usize, usize),
    grid: Grid,
    random: &mut Random,
) -> Rectangle {
    let top = random.below(grid.h - height + 1);
    let left = random.below(grid.w - width + 1);
    Rectangle { top, left, height, width }
}
