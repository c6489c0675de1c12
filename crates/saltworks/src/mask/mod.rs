//! Masks: which tokens of a clip the encoder sees (the context), and which are predicted (the
//! target).
//!
//! Masks are a function of (seed, step, sample). They do not depend on the number of threads, on a
//! restart, or on how a batch is divided.

mod batch;
mod block;
mod causal;
mod grid;
mod ijepa;
mod multi_block;
mod random;
mod several;
mod vjepa;

pub use batch::{Masks, TokenIndex};
pub use block::BlockMasking;
pub use causal::CausalMasking;
pub use grid::Grid;
pub use ijepa::IJepaMasking;
pub use multi_block::{BlockOptions, Draw, MultiBlockMasking, SideLimit, block_masks};
pub use random::{MaskSpread, RandomMasking};
pub use several::MaskList;
pub use vjepa::VjepaMasking;

use engine::random::Random;
use serde::{Deserialize, Serialize};

use crate::range::Range;
use vjepa::BlockSize;

/// The result of drawing masks.
pub type Result<T> = std::result::Result<T, Error>;

/// Why masks cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that is out of range.
    #[error("masks: {name} is {found}, expected {expected}")]
    Setting {
        /// The setting's name in the recipe.
        name: &'static str,
        /// Its value.
        found: String,
        /// The values it may have.
        expected: &'static str,
    },
    /// Too many draws leave the context or the target empty.
    #[error(
        "masks leave no {lacking} in {failed} of {draws} draws: a grid of {grid} tokens with \
         {masking}. {advice}"
    )]
    Empty {
        /// "context" or "target".
        lacking: &'static str,
        /// Draws that failed.
        failed: usize,
        /// Draws made.
        draws: usize,
        /// The token grid.
        grid: Grid,
        /// The settings, in words.
        masking: String,
        /// What to do.
        advice: &'static str,
    },
    /// Lists from outside that are not valid masks.
    #[error("masks of sample {sample}: {problem}")]
    Lists {
        /// Which sample of the batch.
        sample: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// How the masks of a batch are drawn. `kind` is `multi_block`, `random`, `block`, `ijepa`, `vjepa`
/// or `causal`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Masking {
    /// A context block without the target blocks: SALT on images.
    MultiBlock(MultiBlockMasking),
    /// Tokens at random, as in MAE.
    Random(RandomMasking),
    /// Square blocks, until a share of the tokens is masked.
    Block(BlockMasking),
    /// Target blocks that do not overlap, as in stable-pretraining's I-JEPA.
    #[serde(rename = "ijepa")]
    IJepa(IJepaMasking),
    /// Blocks of one size in a clip, and all else as the context: V-JEPA, and SALT on clips.
    Vjepa(VjepaMasking),
    /// The start of a clip as the context.
    Causal(CausalMasking),
}

/// The tokens of one sample. Either list may still be empty.
struct SampleMask {
    context: Vec<u32>,
    target: Vec<u32>,
}

/// Draws made by [`Masking::validate`].
const TRIAL_DRAWS: usize = 256;

/// Draws for one sample before an error. [`Masking::validate`] refuses settings if half of the
/// draws fail. So this many draws fail with a probability below 2⁻¹⁰⁰.
const MOST_ATTEMPTS: usize = 100;

/// Number of samples in one step that have their own random stream.
const MOST_SAMPLES: u64 = 1 << 20;

impl Masking {
    /// Checks the settings, and that most draws on this grid leave a context and a target.
    pub fn validate(&self, grid: Grid) -> Result<()> {
        if grid.is_empty() || grid.len() > u32::MAX as usize {
            let expected = "1 to 2^32 - 1 tokens; choose a smaller patch or larger images";
            return Err(Error::Setting { name: "grid", found: grid.to_string(), expected });
        }
        self.check_settings()?;
        let mut random = Random::new(0, "mask trial", 0);
        let failures =
            (0..TRIAL_DRAWS).filter_map(|_| lacking(&self.draw(grid, None, &mut random)));
        let failures: Vec<_> = failures.collect();
        if failures.len() * 2 < TRIAL_DRAWS {
            return Ok(());
        }
        Err(self.empty(grid, failures[0], failures.len(), TRIAL_DRAWS))
    }

    /// Masks of a batch at one step.
    pub fn sample(&self, grid: Grid, batch: usize, seed: u64, step: u64) -> Result<Masks> {
        self.draw_as("masks", grid, batch, (seed, step))
    }

    /// [`Masking::sample`] from the random numbers for `purpose`.
    fn draw_as(
        &self,
        purpose: &'static str,
        grid: Grid,
        batch: usize,
        (seed, step): (u64, u64),
    ) -> Result<Masks> {
        assert!(batch as u64 <= MOST_SAMPLES, "a batch holds at most 2^20 samples");
        let (mut context, mut target) = (Vec::new(), Vec::new());
        let size = self.size_of_batch(grid, seed, step);
        for sample in 0..batch {
            let stream = if self.per_sample() { sample as u64 } else { 0 };
            if !self.per_sample() && !context.is_empty() {
                context.extend_from_within(..1);
                target.extend_from_within(..1);
                continue;
            }
            let index = step.wrapping_mul(MOST_SAMPLES).wrapping_add(stream);
            let drawn = self.draw_both(grid, size, &mut Random::new(seed, purpose, index))?;
            context.push(drawn.context);
            target.push(drawn.target);
        }
        if matches!(self, Self::Vjepa(masking) if masking.truncate) {
            vjepa::truncate(&mut context);
            vjepa::truncate(&mut target);
        }
        Ok(Masks::of_lists(grid, context, target))
    }

    /// The size of the blocks of all samples, if they share it.
    fn size_of_batch(&self, grid: Grid, seed: u64, step: u64) -> Option<BlockSize> {
        match self {
            Self::Vjepa(masking) if !masking.size_per_sample => {
                Some(masking.size(grid, &mut Random::new(seed, "mask sizes", step)))
            }
            _ => None,
        }
    }

    /// Draws until neither context nor target is empty.
    fn draw_both(
        &self,
        grid: Grid,
        size: Option<BlockSize>,
        random: &mut Random,
    ) -> Result<SampleMask> {
        let mut last = "context";
        for _ in 0..MOST_ATTEMPTS {
            let drawn = self.draw(grid, size, random);
            match lacking(&drawn) {
                None => return Ok(drawn),
                Some(name) => last = name,
            }
        }
        Err(self.empty(grid, last, MOST_ATTEMPTS, MOST_ATTEMPTS))
    }

    /// A draw, with blocks of this size if it is given.
    fn draw(&self, grid: Grid, size: Option<BlockSize>, random: &mut Random) -> SampleMask {
        match self {
            Self::MultiBlock(masking) => masking.draw(grid, random),
            Self::Random(masking) => masking.draw(grid, random),
            Self::Block(masking) => masking.draw(grid, random),
            Self::IJepa(masking) => masking.draw(grid, random),
            Self::Vjepa(masking) => {
                let size = size.unwrap_or_else(|| masking.size(grid, random));
                masking.draw(size, grid, random)
            }
            Self::Causal(masking) => masking.draw(grid, random),
        }
    }

    fn check_settings(&self) -> Result<()> {
        match self {
            Self::MultiBlock(masking) => masking.check(),
            Self::Random(masking) => masking.check(),
            Self::Block(masking) => masking.check(),
            Self::IJepa(masking) => masking.check(),
            Self::Vjepa(masking) => masking.check(),
            Self::Causal(masking) => masking.check(),
        }
    }

    fn per_sample(&self) -> bool {
        match self {
            Self::MultiBlock(masking) => masking.per_sample,
            Self::Random(masking) => masking.per_sample,
            Self::Block(masking) => masking.per_sample,
            Self::IJepa(masking) => masking.per_sample,
            Self::Vjepa(_) => true,
            Self::Causal(masking) => masking.per_sample,
        }
    }

    fn describe(&self) -> String {
        match self {
            Self::MultiBlock(masking) => masking.describe(),
            Self::Random(masking) => format!("random masks of ratio {}", masking.ratio),
            Self::Block(masking) => {
                format!("blocks of side {} up to ratio {}", masking.size, masking.ratio)
            }
            Self::IJepa(masking) => masking.describe(),
            Self::Vjepa(masking) => masking.describe(),
            Self::Causal(masking) => format!("the first {} of a clip shown", masking.shown),
        }
    }

    fn empty(&self, grid: Grid, lacking: &'static str, failed: usize, draws: usize) -> Error {
        let advice = match lacking {
            "context" => "Use fewer or smaller targets, a lower ratio, or a smaller patch",
            _ => "Use a higher ratio or a smaller patch",
        };
        Error::Empty { lacking, failed, draws, grid, masking: self.describe(), advice }
    }
}

/// The list that a draw leaves empty, if any.
fn lacking(drawn: &SampleMask) -> Option<&'static str> {
    match (drawn.context.is_empty(), drawn.target.is_empty()) {
        (true, _) => Some("context"),
        (_, true) => Some("target"),
        _ => None,
    }
}

/// Refuses a range that does not ascend inside (0, most].
fn check_range(name: &'static str, range: Range, most: f64, expected: &'static str) -> Result<()> {
    if range.lies_within(0.0, most) {
        return Ok(());
    }
    Err(Error::Setting { name, found: range.to_string(), expected })
}

/// Refuses a ratio of masked tokens outside (0, 1).
fn check_ratio(ratio: f64) -> Result<()> {
    if ratio > 0.0 && ratio < 1.0 {
        return Ok(());
    }
    let expected = "a number above 0 and below 1";
    Err(Error::Setting { name: "ratio", found: ratio.to_string(), expected })
}

#[cfg(test)]
mod tests;
