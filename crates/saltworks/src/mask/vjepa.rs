//! V-JEPA's masks of clips: the target is a union of blocks in space and time, the context is all
//! else. Bardes et al. 2024; facebookresearch/vjepa2, src/masks/multiseq_multiblock3d.py.

use engine::random::Random;
use serde::{Deserialize, Serialize};

use super::grid::Rectangle;
use super::multi_block::random_block;
use super::{Error, Grid, Result, SampleMask, check_range};
use crate::range::Range;

/// Blocks of one size whose union is the target. V-JEPA gives each clip two such masks: `blocks =
/// 8` with `scale = [0.15, 0.15]`, and `blocks = 2` with `scale = [0.7, 0.7]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VjepaMasking {
    /// Number of blocks of a clip, 1 to 1024.
    pub blocks: usize,
    /// Area of a block as a share of a frame's.
    pub scale: Range,
    /// Height of a block divided by its width.
    pub aspect_ratio: Range,
    /// Length of a block as a share of the clip's.
    pub time: Range,
    /// Share of the clip, from its start, that the context may lie in. All later tokens are
    /// targets.
    pub max_temporal_keep: f64,
    /// The most context tokens. A longer context keeps its first ones.
    pub max_keep: Option<usize>,
    /// Whether each clip draws the size of its blocks. If not, a batch shares one, as in V-JEPA.
    pub size_per_sample: bool,
    /// Whether all lists of a batch are cut to the length of the shortest, as in V-JEPA. They keep
    /// their first tokens, so the last frames are seldom seen. What is cut is neither context nor
    /// target.
    pub truncate: bool,
}

impl Default for VjepaMasking {
    /// V-JEPA's short-range mask, without truncation.
    fn default() -> Self {
        Self {
            blocks: 8,
            scale: Range::new(0.15, 0.15),
            aspect_ratio: Range::new(0.75, 1.5),
            time: Range::new(1.0, 1.0),
            max_temporal_keep: 1.0,
            max_keep: None,
            size_per_sample: true,
            truncate: false,
        }
    }
}

/// Length, height and width of a block in tokens.
pub(super) type BlockSize = [usize; 3];

impl VjepaMasking {
    pub(super) fn check(&self) -> Result<()> {
        if !(1..=1024).contains(&self.blocks) {
            let found = self.blocks.to_string();
            return Err(Error::Setting { name: "blocks", found, expected: "1 to 1024" });
        }
        let share = "[min, max] with 0 < min <= max <= 1";
        check_range("scale", self.scale, 1.0, share)?;
        check_range("time", self.time, 1.0, share)?;
        let ratio = "[min, max] with 0 < min <= max <= 100";
        check_range("aspect_ratio", self.aspect_ratio, 100.0, ratio)?;
        if !(self.max_temporal_keep > 0.0 && self.max_temporal_keep <= 1.0) {
            let (name, found) = ("max_temporal_keep", self.max_temporal_keep.to_string());
            return Err(Error::Setting { name, found, expected: "a number above 0, at most 1" });
        }
        if self.max_keep == Some(0) {
            let (name, found) = ("max_keep", "0".to_owned());
            return Err(Error::Setting { name, found, expected: "1 or more tokens" });
        }
        Ok(())
    }

    pub(super) fn describe(&self) -> String {
        format!("all tokens without {} target blocks of scale {}", self.blocks, self.scale)
    }

    /// The size of a clip's blocks: `_sample_block_size`.
    pub(super) fn size(&self, grid: Grid, random: &mut Random) -> BlockSize {
        let length = (grid.t as f64 * self.time.at(random.uniform_f64())) as usize;
        let area = (grid.plane() as f64 * self.scale.at(random.uniform_f64())).floor();
        let aspect_ratio = self.aspect_ratio.at(random.uniform_f64());
        // Half to even, as Python's round(). The reference allows a side of 0.
        let side =
            |square: f64, most: usize| (square.sqrt().round_ties_even() as usize).clamp(1, most);
        let [height, width] = [(area * aspect_ratio, grid.h), (area / aspect_ratio, grid.w)]
            .map(|(square, most)| side(square, most));
        [length.max(1), height, width]
    }

    /// Blocks of this size at random places.
    pub(super) fn draw(&self, size: BlockSize, grid: Grid, random: &mut Random) -> SampleMask {
        let [length, height, width] = size;
        let seen = ((grid.t as f64 * self.max_temporal_keep) as usize).max(1);
        let mut masked = vec![false; grid.len()];
        masked[seen * grid.plane()..].fill(true);
        for _ in 0..self.blocks {
            let block: Rectangle = random_block((height, width), grid, random);
            let start = random.below(grid.t - length + 1);
            for cell in block.cells(grid) {
                (start..start + length).for_each(|t| masked[t * grid.plane() + cell] = true);
            }
        }
        let tokens = |wanted: bool| -> Vec<u32> {
            let tokens = (0..).zip(&masked).filter(|&(_, &is)| is == wanted);
            tokens.map(|(token, _)| token).collect()
        };
        let mut context = tokens(false);
        context.truncate(self.max_keep.unwrap_or(usize::MAX));
        SampleMask { context, target: tokens(true) }
    }
}

/// Cuts all lists to the length of the shortest.
pub(super) fn truncate(lists: &mut [Vec<u32>]) {
    let shortest = lists.iter().map(Vec::len).min().unwrap_or(0);
    lists.iter_mut().for_each(|list| list.truncate(shortest));
}
