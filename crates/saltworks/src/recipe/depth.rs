//! `data.depth` as written: a number of bits, or the values of black and white.

use crate::data::{NumberKind, StoredValues};
use crate::range::Range;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use std::fmt;

/// The values that become 0 and 255, for images of more than eight bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Depth(pub Range);

impl Depth {
    /// Values of images that are not shown as they should be, if this depth is `given`. The user
    /// sets it as `key`.
    pub(crate) fn doubts(given: Option<Self>, values: &StoredValues, key: &str) -> Vec<String> {
        let (range, found) = (values.range, values.describe());
        let mut doubts = Vec::new();
        match (given, Self::fitting(values)) {
            (None, Some(fitting)) => doubts.push(format!(
                "images hold {found}, and {key} is not set, so they are nearly black or cannot be \
                 read. Set {key}={fitting}"
            )),
            (Some(Self(shown)), fitting) if range.max <= shown.min || range.min >= shown.max => {
                let colour = if range.max <= shown.min { "black" } else { "white" };
                let better =
                    fitting.map_or(String::new(), |fitting| format!(". Set {key}={fitting}"));
                doubts.push(format!(
                    "images hold {found}: with {key} = {shown} all of them are {colour}{better}"
                ));
            }
            (Some(Self(shown)), _) if range.min < shown.min || range.max > shown.max => {
                doubts
                    .push(format!("images hold {found}: what lies outside {key} = {shown} is cut"));
            }
            (Some(Self(shown)), fitting) if is_dark(range, shown) => {
                let better =
                    fitting.map_or(String::new(), |fitting| format!(". Set {key}={fitting}"));
                doubts.push(format!(
                    "images hold {found}: with {key} = {shown} they are nearly black{better}"
                ));
            }
            _ => {}
        }
        if values.some_not_finite {
            doubts.push(
                "some values of images are NaN or as if not measured (beyond 1e30): they become \
                 black or white"
                    .to_owned(),
            );
        }
        doubts
    }

    /// All numbers of this many unsigned bits.
    pub fn of_bits(bits: u32) -> Self {
        Self(Range::new(0.0, 2_f64.powi(bits as i32) - 1.0))
    }

    /// The depth that shows these values: the least number of bits, or all values of kinds that
    /// have no usual range. None if the usual range fits.
    pub fn fitting(values: &StoredValues) -> Option<Self> {
        match values.kind {
            NumberKind::U8 => None,
            NumberKind::U16 => {
                let fits = |bits: &u32| values.range.max <= Self::of_bits(*bits).0.max;
                (8..16).find(fits).map(Self::of_bits)
            }
            _ if !Self(values.range).is_valid() => None,
            _ => Some(Self(rounded(values.range))).filter(|depth| depth.is_valid()),
        }
    }

    /// Whether black and white are finite, and black is less.
    pub fn is_valid(self) -> bool {
        let Range { min, max } = self.0;
        min.is_finite() && max.is_finite() && (max - min).is_finite() && min < max
    }
}

/// Whether these values take less than an eighth of what is shown, next to black.
fn is_dark(values: Range, shown: Range) -> bool {
    (values.max - shown.min) * 8.0 < shown.max - shown.min
}

/// The range with ends of two digits, which lie outside. Zero is black if all values are above it
/// and some are near it.
fn rounded(Range { min, max }: Range) -> Range {
    let digits = 1 - (max - min).log10().floor() as i32;
    // Divided by a whole number, so that 3 stays 3.
    let ends = |value: f64, round: fn(f64) -> f64| match 10_f64.powi(digits.abs()) {
        unit if digits > 0 => round(value * unit) / unit,
        unit => round(value / unit) * unit,
    };
    let near_zero = (0.0..=max / 10.0).contains(&min);
    Range::new(if near_zero { 0.0 } else { ends(min, f64::floor) }, ends(max, f64::ceil))
}

impl fmt::Display for Depth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With a point, as TOML has floating-point numbers.
        write!(f, "[{:?}, {:?}]", self.0.min, self.0.max)
    }
}

/// Always as a range, so a recipe keeps its checksum however the depth was given.
impl Serialize for Depth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// What may be given.
pub(crate) const EXPECTED: &str = "a number of bits from 8 to 32, or the values of black and \
                                   white, such as 12 or [0, 4095]";

struct BitsOrRange;

impl<'de> Visitor<'de> for BitsOrRange {
    type Value = Depth;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_i64<E: Error>(self, bits: i64) -> Result<Depth, E> {
        match u32::try_from(bits) {
            Ok(bits @ 8..=32) => Ok(Depth::of_bits(bits)),
            _ => Err(E::custom(format!("{bits} is no depth, expected {EXPECTED}"))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Depth, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element::<f64>()? {
            values.push(value);
        }
        let depth = match values[..] {
            [min, max] => Some(Depth(Range::new(min, max))).filter(|depth| depth.is_valid()),
            _ => None,
        };
        let problem = || A::Error::custom(format!("{values:?} is no depth, expected {EXPECTED}"));
        depth.ok_or_else(problem)
    }
}

impl<'de> Deserialize<'de> for Depth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BitsOrRange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::load;

    fn depth(value: &str) -> Result<Option<Depth>, String> {
        let recipe = load(None, &[format!("data.depth={value}")]);
        recipe.map(|recipe| recipe.data.depth).map_err(|error| error.to_string())
    }

    #[test]
    fn the_fitting_depth_has_as_many_bits_as_the_deepest_value() {
        let fitting = |kind, min, max| {
            let range = Range::new(min, max);
            let values = StoredValues { kind, range, darkest: max, some_not_finite: false };
            Depth::fitting(&values)
        };
        assert_eq!(fitting(NumberKind::U16, 3.0, 4095.0), Some(Depth::of_bits(12)));
        assert_eq!(fitting(NumberKind::U16, 0.0, 4096.0), Some(Depth::of_bits(13)));
        assert_eq!(fitting(NumberKind::U16, 0.0, 1.0), Some(Depth::of_bits(8)));
        assert_eq!(fitting(NumberKind::U16, 0.0, 40_000.0), None);
        let floats = fitting(NumberKind::F32, -1.5, 3.0);
        assert_eq!(floats, Some(Depth(Range::new(-1.5, 3.0))));
        let unit = fitting(NumberKind::F32, 0.000_02, 0.999_86);
        assert_eq!(unit, Some(Depth(Range::new(0.0, 1.0))));
        let heights = fitting(NumberKind::I16, -412.0, 8848.0);
        assert_eq!(heights, Some(Depth(Range::new(-500.0, 8900.0))));
        assert_eq!(fitting(NumberKind::I32, 7.0, 7.0), None);
    }

    #[test]
    fn a_depth_of_which_images_use_little_is_doubted() {
        let values = StoredValues {
            kind: NumberKind::U16,
            range: Range::new(0.0, 4095.0),
            darkest: 4095.0,
            some_not_finite: false,
        };
        let doubts = |bits| Depth::doubts(Some(Depth::of_bits(bits)), &values, "--depth");
        let dark = doubts(16).remove(0);
        assert!(dark.contains("nearly black. Set --depth=[0.0, 4095.0]"), "{dark}");
        assert!(doubts(12).is_empty() && doubts(14).is_empty());
        assert!(doubts(11).remove(0).contains("is cut"));
        let outside = |min, max| {
            let depth = Depth(Range::new(min, max));
            Depth::doubts(Some(depth), &values, "--depth").remove(0)
        };
        let black = outside(5000.0, 6000.0);
        assert!(black.contains("all of them are black. Set --depth=[0.0, 4095.0]"), "{black}");
        assert!(outside(-9.0, -1.0).contains("all of them are white"));
    }

    #[test]
    fn a_depth_is_a_number_of_bits_or_a_range() {
        let range = |min, max| Ok(Some(Depth(Range::new(min, max))));
        assert_eq!(depth("12"), range(0.0, 4095.0));
        assert_eq!(depth("[0, 4095]"), range(0.0, 4095.0));
        assert_eq!(depth("[-1.5, 2]"), range(-1.5, 2.0));
        for wrong in ["7", "33", "-1", "[1]", "[2, 2]", "[0, inf]", "[nan, 1]", "[-1e308, 1.7e308]"]
        {
            let message = depth(wrong).unwrap_err();
            assert!(message.contains("such as 12 or [0, 4095]"), "{wrong}: {message}");
        }
        assert!(depth("\"deep\"").unwrap_err().contains("a number of bits"));
    }
}
