//! Converts labels as written to class numbers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::source::several;

/// The most classes that are allowed: each has a name in memory.
const MOST_CLASSES: i32 = 1_000_000;

/// The most bytes of a text that names a class.
const MOST_TEXT_BYTES: usize = 1024;

/// A label of a file whose labels have types.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(in crate::data) enum StatedLabel {
    /// A whole number, a truth value or a text. It names a class.
    Class(String),
    /// Anything else. It names no class.
    Other(NoClass),
}

/// What a label is that names no class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::data) enum NoClass {
    /// An image may have several of such labels.
    Several,
    /// A measured value.
    Fraction,
    /// A value with names within.
    Object,
    /// Bytes that are no text, such as an image.
    Bytes,
    /// A text of more than [`MOST_TEXT_BYTES`].
    Long,
}

impl NoClass {
    /// For people, in the plural.
    fn name(self) -> &'static str {
        match self {
            Self::Several => "lists of several (multi-label)",
            Self::Fraction => "numbers with a fraction",
            Self::Object => "tables of names",
            Self::Bytes => "bytes that are no text",
            Self::Long => "texts of more than 1,024 bytes",
        }
    }

    /// Whether no label of the set is a class if one is of this kind.
    fn is_of_all(self) -> bool {
        matches!(self, Self::Several | Self::Fraction)
    }
}

impl StatedLabel {
    /// A JSON value. A list of one is its element, an empty list and null are no label.
    pub(in crate::data) fn of_json(value: &Value) -> Option<Self> {
        match value {
            Value::Null => None,
            Value::Bool(value) => Some(Self::Class(value.to_string())),
            Value::Number(number) => match number.as_f64() {
                Some(value) if number.is_f64() => Self::of_number(value),
                _ => Some(Self::Class(number.to_string())),
            },
            Value::String(text) => Some(Self::Class(text.clone())),
            Value::Array(list) => match list.as_slice() {
                [] => None,
                [one] => Self::of_json(one),
                [_, ..] => Some(Self::Other(NoClass::Several)),
            },
            Value::Object(_) => Some(Self::Other(NoClass::Object)),
        }
    }

    /// Bytes. Short ones are a text, also if they are no UTF-8, as in Latin-1. Texts have no byte
    /// of zero, and images have some.
    pub(in crate::data) fn of_bytes(bytes: &[u8]) -> Self {
        let start = &bytes[..bytes.len().min(MOST_TEXT_BYTES)];
        let is_long = bytes.len() > MOST_TEXT_BYTES;
        match std::str::from_utf8(start) {
            Ok(text) if !is_long => Self::Class(text.to_owned()),
            Ok(_) => Self::Other(NoClass::Long),
            // A character may go on beyond the start.
            Err(error) if is_long && error.error_len().is_none() => Self::Other(NoClass::Long),
            Err(_) if is_long || start.contains(&0) => Self::Other(NoClass::Bytes),
            Err(_) => Self::Class(String::from_utf8_lossy(start).into_owned()),
        }
    }

    /// A number. A whole one names a class, and NaN stands for a missing label, as in pandas.
    pub(in crate::data) fn of_number(value: f64) -> Option<Self> {
        // Larger ones do not have all whole numbers.
        const MOST: f64 = 9_007_199_254_740_992.0;
        match value {
            _ if value.is_nan() => None,
            _ if value.fract() == 0.0 && value.abs() < MOST => {
                Some(Self::Class((value as i64).to_string()))
            }
            _ => Some(Self::Other(NoClass::Fraction)),
        }
    }
}

/// Collects the labels of images in order, each text once.
#[derive(Default)]
pub(in crate::data) struct Labels {
    texts: BTreeMap<String, i32>,
    /// Number of the text of each image, -1 without one.
    numbers: Vec<i32>,
    /// How many labels name no class, by kind.
    others: BTreeMap<NoClass, usize>,
}

/// Labels as classes.
#[derive(Debug, Default)]
pub(in crate::data) struct Classes {
    /// The class of each image, -1 without one.
    pub(in crate::data) of: Vec<i32>,
    /// The names of the classes.
    pub(in crate::data) names: Vec<String>,
    /// Which labels are not used and why, for people. Empty if all are.
    pub(in crate::data) unused: String,
    /// Texts that name one class, such as `01` and `1`, for people.
    pub(in crate::data) alike: Option<String>,
}

impl Labels {
    /// Adds the next image's label, if it has one.
    pub(in crate::data) fn push(&mut self, label: Option<&str>) {
        let label = label.map(str::trim).filter(|label| !label.is_empty());
        let next = self.texts.len() as i32;
        self.numbers.push(match label {
            None => -1,
            Some(text) => match self.texts.get(text) {
                Some(&number) => number,
                None => *self.texts.entry(text.to_owned()).or_insert(next),
            },
        });
    }

    /// Adds the next image's label, if it has one.
    pub(in crate::data) fn push_stated(&mut self, label: Option<&StatedLabel>) {
        match label {
            Some(StatedLabel::Class(text)) => self.push(Some(text)),
            Some(StatedLabel::Other(kind)) => {
                *self.others.entry(*kind).or_default() += 1;
                self.push(None);
            }
            None => self.push(None),
        }
    }

    /// The classes of all images. If all labels are whole numbers, they are the classes (-1 for
    /// none). Otherwise the sorted texts are the classes. If any label is a list of several or has
    /// a fraction, no label is a class.
    pub(in crate::data) fn finish(mut self) -> Classes {
        let images = self.numbers.len();
        let kinds = self.others.iter();
        let parts = kinds.map(|(kind, count)| format!("{count} of {images} are {}", kind.name()));
        let mut unused = parts.collect::<Vec<_>>().join(", ");
        if self.others.keys().any(|kind| kind.is_of_all()) {
            unused = format!("the labels, which are not used as classes: {unused}");
            self = Self { numbers: vec![-1; images], ..Self::default() };
        } else if !unused.is_empty() {
            unused = format!("some labels: {unused}");
        }
        Classes { unused, ..self.classes() }
    }

    fn classes(self) -> Classes {
        let number = |text: &String| {
            let number: i32 = text.parse().ok()?;
            (-1..MOST_CLASSES).contains(&number).then_some(number)
        };
        let numbers: Option<Vec<i32>> = self.texts.keys().map(number).collect();
        let mut alike = None;
        let (classes, names) = match numbers {
            Some(numbers) => {
                let most = numbers.iter().max().map_or(0, |&most| most + 1);
                alike = alike_texts(self.texts.keys().zip(&numbers));
                (numbers, (0..most).map(|class| class.to_string()).collect())
            }
            None => ((0..self.texts.len() as i32).collect(), self.texts.keys().cloned().collect()),
        };
        let mut class_of = vec![-1; self.texts.len()];
        for (&text, &class) in self.texts.values().zip(&classes) {
            class_of[text as usize] = class;
        }
        let class = |&text: &i32| usize::try_from(text).map_or(-1, |text| class_of[text]);
        let of = self.numbers.iter().map(class).collect();
        Classes { of, names, alike, ..Classes::default() }
    }
}

/// Texts of one number, for people.
fn alike_texts<'a>(texts: impl Iterator<Item = (&'a String, &'a i32)>) -> Option<String> {
    let mut of: BTreeMap<i32, Vec<&str>> = BTreeMap::new();
    texts.for_each(|(text, &number)| of.entry(number).or_default().push(text));
    // Of -1, which is no class, there may be several, too.
    let same = of.iter().filter(|(number, texts)| **number >= 0 && texts.len() > 1);
    let same = same.map(|(_, texts)| several(texts).replace(", ", " and "));
    let same: Vec<_> = same.collect();
    let text = || format!("labels of the same number are one class: {}", several(&same));
    (!same.is_empty()).then(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(labels: &[&str]) -> (Vec<i32>, Vec<String>) {
        let mut all = Labels::default();
        labels.iter().for_each(|label| all.push(Some(label)));
        all.push(None);
        let Classes { of, names, .. } = all.finish();
        (of, names)
    }

    /// Classes, names, and what is not used, of JSON values.
    fn of_json(json: &str) -> (Vec<i32>, String, String) {
        let mut all = Labels::default();
        let values: Vec<Value> = serde_json::from_str(json).unwrap();
        values.iter().for_each(|value| all.push_stated(StatedLabel::of_json(value).as_ref()));
        let Classes { of, names, unused, .. } = all.finish();
        (of, names.join(" "), unused)
    }

    #[test]
    fn truth_values_whole_floats_and_lists_of_one_are_classes() {
        let used = |json: &str| {
            let (of, names, unused) = of_json(json);
            assert_eq!(unused, "", "{json}");
            (of, names)
        };
        assert_eq!(used("[true, false, null]"), (vec![1, 0, -1], "false true".into()));
        assert_eq!(used("[1.0, 0.0, 2]"), (vec![1, 0, 2], "0 1 2".into()));
        assert_eq!(used(r#"[["cat"], ["ant"], []]"#), (vec![1, 0, -1], "ant cat".into()));
        assert_eq!(StatedLabel::of_number(f64::NAN), None);
    }

    #[test]
    fn labels_that_are_no_classes_are_counted_by_kind() {
        let (of, names, unused) = of_json("[[0, 3], 1, [2]]");
        assert_eq!((of, names), (vec![-1; 3], String::new()));
        let words = "the labels, which are not used as classes: 1 of 3 are lists of several \
                     (multi-label)";
        assert_eq!(unused, words);
        let (of, _, unused) = of_json("[0.25, 1]");
        assert_eq!(of, [-1, -1]);
        assert!(unused.contains("1 of 2 are numbers with a fraction"), "{unused}");
        let (of, _, unused) = of_json(r#"[{"id": 3}, 1]"#);
        assert_eq!((of, unused.as_str()), (vec![-1, 1], "some labels: 1 of 2 are tables of names"));
    }

    #[test]
    fn short_texts_of_any_encoding_are_classes_and_long_ones_are_counted() {
        let class = |text: &str| StatedLabel::Class(text.to_owned());
        assert_eq!(StatedLabel::of_bytes(b"caf\xE9"), class("caf\u{FFFD}"));
        assert_eq!(StatedLabel::of_bytes(b"\x89PNG\0"), StatedLabel::Other(NoClass::Bytes));
        let text = "é".repeat(512);
        assert_eq!(StatedLabel::of_bytes(text.as_bytes()), class(&text));
        for long in [format!("{text}a"), format!("a{text}")] {
            assert_eq!(StatedLabel::of_bytes(long.as_bytes()), StatedLabel::Other(NoClass::Long));
        }
        assert_eq!(StatedLabel::of_bytes(&[0xE9; 1025]), StatedLabel::Other(NoClass::Bytes));
    }

    #[test]
    fn numbers_are_classes_and_names_are_sorted() {
        let (classes, names) = finish(&["2", " 0", "-1", "", "2"]);
        assert_eq!((classes, names.join(" ")), (vec![2, 0, -1, -1, 2, -1], "0 1 2".into()));
        let (classes, names) = finish(&["dog", "cat", "10", "dog"]);
        assert_eq!((classes, names.join(" ")), (vec![2, 1, 0, 2, -1], "10 cat dog".into()));
    }

    #[test]
    fn texts_of_one_number_are_one_class_and_are_reported() {
        let alike = |labels: &[&str]| {
            let mut all = Labels::default();
            labels.iter().for_each(|label| all.push(Some(label)));
            all.finish().alike
        };
        let words = "labels of the same number are one class: 01 and 1, 007 and 07 and 7";
        assert_eq!(alike(&["01", "7", "1", "07", "2", "007"]).unwrap(), words);
        assert_eq!(alike(&["01", "02", "1b"]), None, "names");
        assert_eq!(alike(&["0", "1", "1"]), None);
    }

    #[test]
    fn a_number_too_large_for_a_class_is_a_name() {
        let (classes, names) = finish(&["2000000000", "1"]);
        assert_eq!((classes, names.len()), (vec![1, 0, -1], 2));
        assert_eq!(finish(&[]), (vec![-1], Vec::new()));
    }
}
