//! `data.size` and `model.patch` as written: one number for a square, or a list.

use crate::mask::Grid;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// `data.size`: height and width in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSize {
    /// H
    pub height: usize,
    /// W
    pub width: usize,
}

/// `model.patch`: frames, height and width of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchSize {
    /// pt, 1 for images.
    pub frames: usize,
    /// ph
    pub height: usize,
    /// pw
    pub width: usize,
}

impl ImageSize {
    /// A square.
    pub fn square(side: usize) -> Self {
        Self { height: side, width: side }
    }

    /// [H, W]
    pub fn sides(self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// The largest size of this shape with at most `pixels` pixels, or this size if it has no more.
    #[must_use]
    pub fn at_most(self, pixels: usize) -> Self {
        let Self { height, width } = self;
        if height * width <= pixels {
            return self;
        }
        let side = |side: usize, other: usize| (pixels * side / other).isqrt().max(1);
        Self { height: side(height, width), width: side(width, height) }
    }

    fn written(self) -> Written {
        match self {
            Self { height, width } if height == width => Written::Number(height),
            Self { height, width } => Written::List(vec![height, width]),
        }
    }
}

impl PatchSize {
    /// [pt, ph, pw]
    pub fn sides(self) -> [usize; 3] {
        [self.frames, self.height, self.width]
    }

    fn written(self) -> Written {
        match self.sides() {
            [1, height, width] if height == width => Written::Number(height),
            [1, height, width] => Written::List(vec![height, width]),
            sides => Written::List(sides.to_vec()),
        }
    }
}

/// Parses `224` or `224x160`, height first, the form of command-line options.
impl FromStr for ImageSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("{text:?} is not a size, expected pixels or HEIGHTxWIDTH, such as 224x160");
        let side = |text: &str| text.parse().ok().filter(|side| *side > 0).ok_or_else(expected);
        match text.split_once('x') {
            None => side(text).map(Self::square),
            Some((height, width)) => Ok(Self { height: side(height)?, width: side(width)? }),
        }
    }
}

/// Parses a grid of patches such as `8x16`, rows first, the form of command-line options.
impl FromStr for Grid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let side = |text: &str| text.parse().ok().filter(|side| (1..1 << 16).contains(side));
        let sides = text.split_once('x').map(|(rows, columns)| (side(rows), side(columns)));
        match sides {
            Some((Some(rows), Some(columns))) => Ok(Self::image(rows, columns)),
            _ => {
                Err(format!("{text:?} is no grid of patches, expected ROWSxCOLUMNS, such as 8x16"))
            }
        }
    }
}

/// A size in a recipe.
#[derive(Serialize)]
#[serde(untagged)]
enum Written {
    Number(usize),
    List(Vec<usize>),
}

impl Display for Written {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(side) => side.fmt(f),
            Self::List(sides) => write!(f, "{sides:?}"),
        }
    }
}

impl Display for ImageSize {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.written().fmt(f)
    }
}

impl Display for PatchSize {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.written().fmt(f)
    }
}

impl Serialize for ImageSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written().serialize(serializer)
    }
}

impl Serialize for PatchSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.written().serialize(serializer)
    }
}

/// Reads a number, or a list of an expected length.
struct Sides {
    expected: &'static str,
    lengths: &'static [usize],
}

impl<'de> Visitor<'de> for Sides {
    type Value = Vec<usize>;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_i64<E: Error>(self, side: i64) -> Result<Vec<usize>, E> {
        let side = usize::try_from(side);
        let negative = |_| E::custom(format!("a size below 0, expected {}", self.expected));
        Ok(vec![side.map_err(negative)?])
    }

    fn visit_u64<E: Error>(self, side: u64) -> Result<Vec<usize>, E> {
        Ok(vec![side as usize])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<usize>, A::Error> {
        let mut sides = Vec::new();
        while let Some(side) = list.next_element()? {
            sides.push(side);
        }
        match self.lengths.contains(&sides.len()) {
            true => Ok(sides),
            false => Err(A::Error::invalid_length(sides.len(), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for ImageSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a whole number of pixels or [height, width]";
        let sides = deserializer.deserialize_any(Sides { expected, lengths: &[2] })?;
        Ok(match sides[..] {
            [height, width] => Self { height, width },
            _ => Self::square(sides[0]),
        })
    }
}

impl<'de> Deserialize<'de> for PatchSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a whole number of pixels, [height, width] or [frames, height, width]";
        let sides = deserializer.deserialize_any(Sides { expected, lengths: &[2, 3] })?;
        Ok(match sides[..] {
            [frames, height, width] => Self { frames, height, width },
            [height, width] => Self { frames: 1, height, width },
            _ => Self { frames: 1, height: sides[0], width: sides[0] },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::load;

    fn set(text: &str) -> Result<crate::recipe::Recipe, String> {
        load(None, &[text.to_owned()]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_number_is_a_square_and_a_list_is_height_first() {
        let size = |text: &str| set(&format!("data.size={text}")).unwrap().data.size;
        assert_eq!(size("32"), ImageSize::square(32));
        assert_eq!(size("[32, 64]"), ImageSize { height: 32, width: 64 });
        let patch = |text: &str| set(&format!("model.patch={text}")).unwrap().model.patch.unwrap();
        assert_eq!(patch("8").sides(), [1, 8, 8]);
        assert_eq!(patch("[8,4]").sides(), [1, 8, 4]);
        assert_eq!(patch("[2,8,4]").sides(), [2, 8, 4]);
    }

    #[test]
    fn a_square_is_written_as_a_number() {
        let written = |keys: &[&str]| {
            let set: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
            let recipe = toml::to_string(&load(None, &set).unwrap()).unwrap();
            let line = |key: &str| recipe.lines().find(|line| line.starts_with(key)).unwrap();
            [line("size"), line("patch")].map(str::to_owned)
        };
        assert_eq!(
            written(&["data.size=[28,28]", "model.patch=[1,4,4]"]),
            ["size = 28", "patch = 4"]
        );
        assert_eq!(
            written(&["data.size=[24,40]", "model.patch=[8,4]"]),
            ["size = [24, 40]", "patch = [8, 4]"]
        );
        assert_eq!(written(&["model.patch=[2,4,4]"])[1], "patch = [2, 4, 4]");
    }

    #[test]
    fn an_invalid_size_is_refused_with_what_is_expected() {
        for (text, words) in [
            ("data.size=[1,2,3]", "invalid length 3, expected a whole number of pixels or [height"),
            ("data.size=big", "invalid type: string \"big\", expected a whole number of pixels"),
            (
                "data.size=-3",
                "a size below 0, expected a whole number of pixels or [height, width]",
            ),
            ("data.size=[8, -3]", "expected a whole number, 0 or more"),
            ("data.size=[8, 0]", "data.size is [8, 0], expected at least one pixel each way"),
            ("data.size=1.5", "expected a whole number of pixels or [height, width]"),
            ("model.patch=[8]", "invalid length 1, expected a whole number of pixels, [height"),
        ] {
            let message = set(text).unwrap_err();
            let named = format!("--set {text}: ");
            assert!(message.starts_with(&named) && message.contains(words), "{message}");
        }
    }

    #[test]
    fn a_smaller_size_has_the_same_shape() {
        let size = |height, width| ImageSize { height, width };
        assert_eq!(size(24, 40).at_most(960), size(24, 40));
        assert_eq!(size(200, 100).at_most(5000), size(100, 50));
        assert_eq!(ImageSize::square(100).at_most(1000), ImageSize::square(31));
        assert_eq!("24x40".parse(), Ok(size(24, 40)));
        assert_eq!("24".parse(), Ok(size(24, 24)));
        assert!("24x".parse::<ImageSize>().is_err() && "0".parse::<ImageSize>().is_err());
    }
}
