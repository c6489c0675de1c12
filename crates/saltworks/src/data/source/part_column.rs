//! Columns of lists and tables that say which images are to train on and which to test.

use std::collections::{BTreeMap, HashMap};

use super::layout::{self, NamedPart};
use super::several;

/// Names of such columns. Case, `_`, `-` and spaces do not matter.
const NAMES: [&str; 8] =
    ["split", "subset", "partition", "phase", "usage", "set", "data_set", "data_split"];

/// A column of more different texts says nothing of parts.
pub(super) const MOST_PARTS: usize = 100;

/// Whether a column has the name of one that says which images are to train on.
pub(super) fn is_part_name(column: &str) -> bool {
    NAMES.iter().any(|name| plain(name) == plain(column))
}

/// A name of a column without what does not count.
pub(super) fn plain(name: &str) -> String {
    name.trim().to_lowercase().replace(['_', '-', ' '], "")
}

/// What the texts of a column say.
#[derive(Default)]
pub(super) struct PartColumn {
    /// The texts of images to test, with their places in the order of preference. Empty if all
    /// images are trained on.
    pub(super) ranks: HashMap<String, usize>,
    /// What the images to test are called.
    pub(super) named: String,
    /// Whether the texts name parts.
    pub(super) is_used: bool,
    /// What people should know.
    pub(super) remarks: Vec<String>,
}

impl PartColumn {
    /// `values` are the texts of the column `name`, with their numbers of images. The column counts
    /// if one of them names images to train on.
    pub(super) fn of(name: &str, values: &BTreeMap<String, usize>) -> Self {
        let of = |is: fn(&Option<NamedPart>) -> bool| -> Vec<&String> {
            values.keys().filter(|value| is(&layout::named_part(value))).collect()
        };
        let training = of(|part| *part == Some(NamedPart::Training));
        let tests = of(|part| matches!(part, Some(NamedPart::Test(_))));
        let mut found = Self::default();
        if training.is_empty() && tests.len() < values.len() {
            if !tests.is_empty() || plain(name) == "split" {
                let values = several(&values.keys().collect::<Vec<_>>());
                found.remarks.push(format!("the column {name} says {values}: all are trained on"));
            }
            return found;
        }
        found.is_used = true;
        if tests.len() == values.len() {
            let tests = several(&tests);
            found.remarks.push(format!("all images have {tests} in the column {name}"));
            return found;
        }
        for value in values.keys().filter(|value| layout::named_part(value).is_none()) {
            let (count, value) = (values[value], if value.is_empty() { "nothing" } else { value });
            found
                .remarks
                .push(format!("{count} images with {value} in the column {name} are trained on"));
        }
        found.named = format!("with {} in the column {name}", several(&tests));
        for value in values.keys() {
            if let Some(NamedPart::Test(rank)) = layout::named_part(value) {
                found.ranks.insert(value.clone(), rank);
            }
        }
        found
    }
}
