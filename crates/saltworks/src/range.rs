//! A closed interval of numbers, written `[min, max]` in a recipe.
use serde::{Deserialize, Serialize};

/// All numbers from `min` to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "[f64; 2]", into = "[f64; 2]")]
pub struct Range {
    /// The smallest number.
    pub min: f64,
    /// The greatest number.
    pub max: f64,
}

impl Range {
    /// From `min` to `max`.
    pub const fn new(min: f64, max: f64) -> Self {
        Self { min, max }
    }

    /// The number at the share `u` of the way: `min` at 0, `max` at 1.
    pub fn at(self, u: f64) -> f64 {
        self.min + u * (self.max - self.min)
    }

    /// Whether `min <= max` and all of it lies in (`above`, `most`].
    pub fn lies_within(self, above: f64, most: f64) -> bool {
        above < self.min && self.min <= self.max && self.max <= most
    }
}

impl From<[f64; 2]> for Range {
    fn from([min, max]: [f64; 2]) -> Self {
        Self { min, max }
    }
}

impl From<Range> for [f64; 2] {
    fn from(range: Range) -> Self {
        [range.min, range.max]
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{}, {}]", self.min, self.max)
    }
}
