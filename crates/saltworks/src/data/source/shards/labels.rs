//! The labels of samples in archives.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::data::source::labels::StatedLabel;

/// The most samples that are named as left out.
const MOST_NAMED: usize = 3;

/// The label of a sample, by the member that holds it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) enum SampleLabel {
    /// A value in a `.json`.
    Stated(StatedLabel),
    /// A whole number in a `.cls`.
    Number(String),
    /// A text in a `.cls`. It names a class unless there are few beside numbers.
    Name {
        /// The member.
        member: String,
        /// What it holds.
        text: String,
    },
    /// What is wrong with which member.
    Damaged(String),
}

impl SampleLabel {
    pub(super) fn damaged(member: &str, problem: &str) -> Self {
        Self::Damaged(format!("{member}: {problem}"))
    }

    /// What a `.cls` holds.
    pub(super) fn of_cls(member: &str, bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes).trim().to_owned();
        match text.parse::<i32>() {
            Ok(_) => Self::Number(text),
            Err(_) if text.is_empty() => Self::damaged(member, "is empty, expected a class"),
            Err(_) => Self::Name { member: member.to_owned(), text },
        }
    }

    /// The label in a `.json`, if it has one.
    pub(super) fn of_json(member: &str, bytes: &[u8]) -> Option<Self> {
        let json: Value = match serde_json::from_slice(bytes) {
            Ok(json) => json,
            Err(error) => return Some(Self::damaged(member, &format!("is not JSON ({error})"))),
        };
        let label = ["label", "cls"].iter().find_map(|key| json.get(key))?;
        StatedLabel::of_json(label).map(Self::Stated)
    }

    /// The label, or what is wrong with it. `text_is_damage` says whether a text in a
    /// `.cls` is no class.
    pub(super) fn stated(self, text_is_damage: bool) -> Result<StatedLabel, String> {
        match self {
            Self::Stated(label) => Ok(label),
            Self::Name { member, text } if text_is_damage => {
                let start: String = text.chars().take(20).collect();
                Err(format!("{member}: holds {start:?}, expected a number as in most .cls"))
            }
            Self::Number(text) | Self::Name { text, .. } => Ok(StatedLabel::Class(text)),
            Self::Damaged(problem) => Err(problem),
        }
    }

    /// Of two labels of a sample the one of the higher rank is used, and of equal ones the later.
    pub(super) fn rank(&self) -> usize {
        match self {
            Self::Damaged(_) => 0,
            Self::Stated(StatedLabel::Other(_)) => 1,
            Self::Stated(StatedLabel::Class(_)) | Self::Number(_) | Self::Name { .. } => 2,
        }
    }
}

/// How many labels are damaged, the first of them, and whether their samples are left out, for
/// people.
pub(super) fn damaged(damaged: &[String], are_left_out: bool) -> String {
    if damaged.is_empty() {
        return String::new();
    }
    let first = damaged.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    let more = match damaged.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let samples =
        if damaged.len() == 1 { "1 sample" } else { &format!("{} samples", damaged.len()) };
    match are_left_out {
        true => format!("{samples} with a damaged label ({first}{more})"),
        false => format!("the damaged labels of {samples}, whose images are read ({first}{more})"),
    }
}
