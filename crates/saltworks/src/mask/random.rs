//! Random masks of a fixed ratio: MAE (He et al. 2022, section 3), VideoMAE's tubes.

use engine::random::Random;
use serde::{Deserialize, Serialize};

use super::{Grid, Result, SampleMask, check_ratio};

/// ⌊N·ratio⌋ tokens are masked at random, each equally likely. The others are the context.
/// stable-pretraining masks as many. MAE keeps ⌊N·(1 - ratio)⌋ instead: it masks one more if
/// N·ratio is not whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RandomMasking {
    /// Share of masked tokens, above 0 and below 1 (default: 0.75, as MAE for images).
    pub ratio: f64,
    /// What is masked together.
    pub spread: MaskSpread,
    /// Whether each sample has its own mask. If not, a batch shares one.
    pub per_sample: bool,
}

/// What is masked together. For images, both are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskSpread {
    /// Single tokens anywhere in space and time (MAE-ST).
    Tokens,
    /// The same patch of all frames (VideoMAE).
    Tubes,
}

impl Default for RandomMasking {
    /// MAE's ratio for images, with masks per sample as in MAE.
    fn default() -> Self {
        Self { ratio: 0.75, spread: MaskSpread::Tubes, per_sample: true }
    }
}

impl RandomMasking {
    pub(super) fn check(&self) -> Result<()> {
        check_ratio(self.ratio)
    }

    pub(super) fn draw(&self, grid: Grid, random: &mut Random) -> SampleMask {
        let cells = match self.spread {
            MaskSpread::Tokens => grid.len(),
            MaskSpread::Tubes => grid.plane(),
        };
        let mut masked = vec![false; cells];
        set_some(&mut masked, (cells as f64 * self.ratio) as usize, true, random);
        let shown: Vec<bool> = masked.iter().map(|&masked| !masked).collect();
        match self.spread {
            MaskSpread::Tubes => {
                SampleMask { context: grid.tubes(&shown), target: grid.tubes(&masked) }
            }
            MaskSpread::Tokens => SampleMask { context: chosen(&shown), target: chosen(&masked) },
        }
    }
}

/// Sets `count` of the cells that are not yet `value`, each equally likely.
pub(super) fn set_some(cells: &mut [bool], count: usize, value: bool, random: &mut Random) {
    let mut free: Vec<usize> = (0..cells.len()).filter(|&cell| cells[cell] != value).collect();
    random.shuffle(&mut free);
    free.iter().take(count).for_each(|&cell| cells[cell] = value);
}

fn chosen(cells: &[bool]) -> Vec<u32> {
    cells.iter().zip(0..).filter_map(|(&chosen, cell)| chosen.then_some(cell)).collect()
}
