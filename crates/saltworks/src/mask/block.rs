//! Block masks: square blocks until a ratio of the tokens is masked, as stable-pretraining's
//! `PatchMasking(block_size > 1)` (backbone/patch_masking.py).

use engine::random::Random;
use serde::{Deserialize, Serialize};

use super::grid::Rectangle;
use super::random::set_some;
use super::{Error, Grid, Result, SampleMask, check_ratio};

/// Squares around random centres, cut at the border, until at least ⌊H·W·ratio⌋ patches are masked.
/// Single patches are then shown or masked at random to meet exactly that number. Masks reach
/// through all frames.
///
/// stable-pretraining draws blocks for all samples until the last has enough, so that its samples
/// depend on each other. Here each sample stops by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BlockMasking {
    /// Share of masked tokens, above 0 and below 1 (default: 0.75).
    pub ratio: f64,
    /// Side of a square in tokens, 1 to 1024 (default: 4).
    pub size: usize,
    /// Whether each sample has its own mask. If not, a batch shares one.
    pub per_sample: bool,
}

impl Default for BlockMasking {
    /// stable-pretraining's example: ratio 0.75, blocks of 4 x 4.
    fn default() -> Self {
        Self { ratio: 0.75, size: 4, per_sample: true }
    }
}

impl BlockMasking {
    pub(super) fn check(&self) -> Result<()> {
        check_ratio(self.ratio)?;
        if (1..=1024).contains(&self.size) {
            return Ok(());
        }
        let found = self.size.to_string();
        Err(Error::Setting { name: "size", found, expected: "1 to 1024 tokens" })
    }

    pub(super) fn draw(&self, grid: Grid, random: &mut Random) -> SampleMask {
        let wanted = (grid.plane() as f64 * self.ratio) as usize;
        let mut masked = vec![false; grid.plane()];
        let count = |masked: &[bool]| masked.iter().filter(|&&masked| masked).count();
        // The reference's bound on the number of blocks.
        for _ in 0..wanted / (self.size * self.size) + 5 {
            self.square(grid, random).cells(grid).for_each(|cell| masked[cell] = true);
            if count(&masked) >= wanted {
                break;
            }
        }
        let found = count(&masked);
        set_some(&mut masked, found.saturating_sub(wanted), false, random);
        set_some(&mut masked, wanted.saturating_sub(found), true, random);
        let shown: Vec<bool> = masked.iter().map(|&masked| !masked).collect();
        SampleMask { context: grid.tubes(&shown), target: grid.tubes(&masked) }
    }

    fn square(&self, grid: Grid, random: &mut Random) -> Rectangle {
        let mut side = |length: usize| {
            let centre = random.below(length) as isize;
            let first = centre - (self.size / 2) as isize;
            let end = (first + self.size as isize).min(length as isize);
            (first.max(0) as usize, end as usize)
        };
        let ((top, bottom), (left, right)) = (side(grid.h), side(grid.w));
        Rectangle { top, left, height: bottom - top, width: right - left }
    }
}
