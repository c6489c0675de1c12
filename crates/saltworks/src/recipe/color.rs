//! `data.background` as written: red, green and blue, a name, or hexadecimal digits.

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use serde::{Serialize, Serializer};
use std::fmt;
use toml::Value;

/// Red, green and blue, 0 to 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Color(pub [u8; 3]);

impl Color {
    /// Whether this is so dark that 0 to 1 was most likely taken for the range of values.
    pub fn is_nearly_black(self) -> bool {
        self.0.iter().max() == Some(&1)
    }
}

/// Names as CSS has them, grey in both spellings.
const NAMED: [(&str, [u8; 3]); 7] = [
    ("black", [0; 3]),
    ("white", [255; 3]),
    ("grey", [128; 3]),
    ("gray", [128; 3]),
    ("red", [255, 0, 0]),
    ("green", [0, 128, 0]),
    ("blue", [0, 0, 255]),
];

const EXPECTED: &str = "red, green and blue as whole numbers from 0 to 255, a name, or hexadecimal \
                        digits, such as [255, 255, 255], \"white\" or \"#ffffff\"";

/// `#rrggbb` or `#rgb`, without the `#`.
fn from_hex(digits: &str) -> Option<[u8; 3]> {
    let digits: Vec<u8> =
        digits.chars().map(|digit| digit.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    match digits[..] {
        [red, green, blue] => Some([red, green, blue].map(|digit| 17 * digit)),
        [r, red, g, green, b, blue] => Some([16 * r + red, 16 * g + green, 16 * b + blue]),
        _ => None,
    }
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Always as numbers, so a recipe keeps its checksum however the colour was given.
impl Serialize for Color {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

struct ListOrText;

impl<'de> Visitor<'de> for ListOrText {
    type Value = Color;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Color, E> {
        if let Some(digits) = text.strip_prefix('#') {
            let problem = || E::custom(format!("{text:?} is no colour, expected {EXPECTED}"));
            return from_hex(digits).map(Color).ok_or_else(problem);
        }
        const NAMES: [&str; 7] =
            [NAMED[0].0, NAMED[1].0, NAMED[2].0, NAMED[3].0, NAMED[4].0, NAMED[5].0, NAMED[6].0];
        let known = NAMED.iter().find(|(name, _)| *name == text);
        known.map(|(_, color)| Color(*color)).ok_or_else(|| E::unknown_variant(text, &NAMES))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Color, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element::<Value>()? {
            let level = value.as_integer().and_then(|value| u8::try_from(value).ok());
            let problem = || A::Error::custom(format!("{value} in a colour, expected {EXPECTED}"));
            values.push(level.ok_or_else(problem)?);
        }
        let color = <[u8; 3]>::try_from(values.as_slice());
        color.map(Color).map_err(|_| A::Error::invalid_length(values.len(), &self))
    }
}

impl<'de> Deserialize<'de> for Color {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListOrText)
    }
}

#[cfg(test)]
mod tests {
    use super::Color;
    use crate::recipe::load;

    fn set(value: &str) -> Result<Color, String> {
        let recipe = load(None, &[format!("data.background={value}")]);
        recipe.map(|recipe| recipe.data.background).map_err(|error| error.to_string())
    }

    #[test]
    fn a_colour_is_numbers_a_name_or_hexadecimal_digits() {
        for white in ["[255, 255, 255]", "white", "\"white\"", "#ffffff", "#FFF", "\"#fff\""] {
            assert_eq!(set(white), Ok(Color([255; 3])), "{white}");
        }
        assert_eq!(set("gray"), set("grey"));
        assert_eq!(
            (set("#1e90ff"), set("#1af")),
            (Ok(Color([0x1E, 0x90, 0xFF])), Ok(Color([0x11, 0xAA, 0xFF])))
        );
        assert_eq!(set("[1, 1, 1]"), Ok(Color([1; 3])), "values go from 0 to 255");
    }

    /// The checksum of a run's recipe is that of this text.
    #[test]
    fn a_colour_is_written_as_numbers_however_it_was_given() {
        let written = |text: &str| {
            let recipe = load(None, &[format!("data.background={text}")]).unwrap();
            let text = toml::to_string(&recipe).unwrap();
            text.lines().find(|line| line.starts_with("background")).unwrap().to_owned()
        };
        for given in ["\"white\"", "\"#fff\"", "[255, 255, 255]"] {
            assert_eq!(written(given), "background = [255, 255, 255]");
        }
    }

    #[test]
    fn a_wrong_colour_is_refused_with_examples() {
        let examples = "such as [255, 255, 255], \"white\" or \"#ffffff\"";
        for (value, found) in [
            ("[1.0, 1.0, 1.0]", "1.0 in a colour"),
            ("[255, 255, 256]", "256 in a colour"),
            ("[255, 255]", "invalid length 2"),
            ("#ffffg", "\"#ffffg\" is no colour"),
            ("255", "invalid type: integer `255`"),
        ] {
            let message = set(value).unwrap_err();
            let whole = message.contains(found) && message.contains(examples);
            assert!(whole && message.starts_with("--set data.background="), "{message}");
        }
        let message = set("whit").unwrap_err();
        assert!(message.contains("Did you mean `white`?"), "{message}");
    }
}
