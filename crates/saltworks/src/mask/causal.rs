//! Causal masks of clips: the context is the first part of a clip, the target all later tokens. An
//! ablation of SALT (arXiv 2509.24317), and the masks of predictions of the future.

use engine::random::Random;
use serde::{Deserialize, Serialize};

use super::{Grid, Result, SampleMask, check_range};
use crate::range::Range;

/// The context is the start of a clip. At least one step of time is shown, and one is hidden.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CausalMasking {
    /// Share of the clip that is shown.
    pub shown: Range,
    /// Whether each sample has its own mask. If not, a batch shares one.
    pub per_sample: bool,
}

impl Default for CausalMasking {
    fn default() -> Self {
        Self { shown: Range::new(0.25, 0.75), per_sample: true }
    }
}

impl CausalMasking {
    pub(super) fn check(&self) -> Result<()> {
        check_range("shown", self.shown, 1.0, "[min, max] with 0 < min <= max <= 1")
    }

    pub(super) fn draw(&self, grid: Grid, random: &mut Random) -> SampleMask {
        let shown = (grid.t as f64 * self.shown.at(random.uniform_f64())).round() as usize;
        let tokens = shown.clamp(1, grid.t.saturating_sub(1).max(1)) * grid.plane();
        let tokens = tokens as u32;
        SampleMask { context: (0..tokens).collect(), target: (tokens..grid.len() as u32).collect() }
    }
}
