//! Columns of a table that say which rows are to train on and which to test.

use std::collections::{BTreeMap, HashMap};

use parquet::file::metadata::ParquetMetaData;

use super::at::At;
use super::columns::{TableColumns, name_of};
use super::labels::FileLabels;
use crate::data::source::labels::StatedLabel;
use crate::data::source::part_column::{MOST_PARTS, PartColumn};

/// The texts of such columns in a file, by their names.
pub(super) type FileParts = BTreeMap<String, FileLabels>;

/// Reads the columns. One that cannot be read, or has too many different texts, is left out:
/// nothing else of the table needs it.
pub(super) fn read(file: &At, metadata: &ParquetMetaData, columns: &TableColumns) -> FileParts {
    let schema = metadata.file_metadata().schema_descr();
    let texts = |&column: &usize| {
        let mut texts = FileLabels::default();
        for group in metadata.row_groups() {
            texts.add(file, group, column).ok()?;
            if texts.are_more_than(MOST_PARTS) {
                return None;
            }
        }
        Some((name_of(schema, column), texts))
    };
    columns.parts.iter().filter_map(texts).collect()
}

/// The texts of columns over several files.
#[derive(Default)]
pub(super) struct TableParts {
    columns: BTreeMap<String, Texts>,
    rows: usize,
}

/// The text of each row.
#[derive(Default)]
struct Texts {
    distinct: Vec<String>,
    numbers: HashMap<String, u32>,
    of: Vec<u32>,
}

impl Texts {
    fn push(&mut self, text: &str) {
        let number = self.numbers.get(text).copied().unwrap_or_else(|| {
            let number = self.distinct.len() as u32;
            self.distinct.push(text.to_owned());
            self.numbers.insert(text.to_owned(), number);
            number
        });
        self.of.push(number);
    }

    /// Rows without a text, up to the number `rows`.
    fn fill(&mut self, rows: usize) {
        while self.of.len() < rows {
            self.push("");
        }
    }
}

/// The rows that are read of a table.
#[derive(Default)]
pub(super) struct ChosenRows {
    /// The numbers of the rows, ascending. None for all.
    pub(super) rows: Option<Vec<u32>>,
    /// Whether images to test are among those that are not read.
    pub(super) holds_tests: bool,
    /// What is not read.
    pub(super) left_alone: Option<String>,
    /// What people should know.
    pub(super) remarks: Vec<String>,
}

impl TableParts {
    /// Adds a file of `rows` rows.
    pub(super) fn add(&mut self, parts: &FileParts, rows: usize) {
        for (name, labels) in parts {
            let texts = self.columns.entry(name.clone()).or_default();
            texts.fill(self.rows);
            for label in labels.rows() {
                match label {
                    Some(StatedLabel::Class(text)) => texts.push(text),
                    _ => texts.push(""),
                }
            }
        }
        self.rows += rows;
    }

    /// The rows to train on, or with `tests` the best of those to validate or test, if there are
    /// any.
    pub(super) fn choose(mut self, tests: bool) -> ChosenRows {
        let mut chosen = ChosenRows::default();
        for (name, texts) in &mut self.columns {
            texts.fill(self.rows);
            if texts.distinct.len() > MOST_PARTS {
                continue;
            }
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for &number in &texts.of {
                *counts.entry(texts.distinct[number as usize].clone()).or_default() += 1;
            }
            let found = PartColumn::of(name, &counts);
            chosen.remarks.extend(found.remarks);
            if !found.is_used {
                continue;
            }
            if found.ranks.is_empty() {
                break;
            }
            let ranks: Vec<Option<usize>> =
                texts.distinct.iter().map(|text| found.ranks.get(text).copied()).collect();
            let wanted = if tests { ranks.iter().flatten().min().copied() } else { None };
            let of = texts.of.iter().zip(0u32..);
            let rows: Vec<u32> = of
                .filter(|(number, _)| ranks[**number as usize] == wanted)
                .map(|(_, row)| row)
                .collect();
            let left = texts.of.len() - rows.len();
            chosen.left_alone = Some(match tests {
                true => format!("{left} images of other parts of the table"),
                false => {
                    format!("{left} images {}. To read them, too, rename the column", found.named)
                }
            });
            chosen.holds_tests = !tests;
            chosen.rows = Some(rows);
            break;
        }
        chosen
    }
}
