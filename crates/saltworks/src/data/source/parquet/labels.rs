//! The labels of a table.

use std::collections::HashMap;

use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;

use super::at::At;
use super::pages::{ColumnPages, ParquetResult, damaged, read_ahead, too_large};
use crate::data::source::labels::{NoClass, StatedLabel};

/// The most bytes of different labels of a file. Names of classes are far fewer.
const MOST_LABEL_BYTES: usize = 64 << 20;

/// A row without a label.
const MISSING: u32 = u32::MAX;

/// The labels of a file's rows, each different one once.
#[derive(Default)]
pub(super) struct FileLabels {
    distinct: Vec<StatedLabel>,
    numbers: HashMap<StatedLabel, u32>,
    /// For each row the number of its label, or [`MISSING`].
    of: Vec<u32>,
    bytes: usize,
}

impl FileLabels {
    /// The label of each row.
    pub(super) fn rows(&self) -> impl ExactSizeIterator<Item = Option<&StatedLabel>> {
        self.of.iter().map(|&number| self.distinct.get(number as usize))
    }

    /// Whether there are more than so many different labels.
    pub(super) fn are_more_than(&self, most: usize) -> bool {
        self.distinct.len() > most
    }

    /// Adds rows without labels.
    pub(super) fn add_missing(&mut self, rows: usize) {
        self.of.resize(self.of.len() + rows, MISSING);
    }

    /// Adds a row group's labels.
    pub(super) fn add(
        &mut self,
        file: &At,
        group: &RowGroupMetaData,
        column: usize,
    ) -> ParquetResult<()> {
        let rows = group.num_rows() as usize;
        if rows == 0 {
            return Ok(());
        }
        let file = read_ahead(file, group, column)?;
        let pages = ColumnPages::find(&file, group, column)?;
        let _turn = pages.turn();
        let text = |text: &ByteArray| Some(StatedLabel::of_bytes(text.data()));
        match pages.reader(&file)? {
            ColumnReader::BoolColumnReader(column) => self.records(column, rows, class),
            ColumnReader::Int32ColumnReader(column) => self.records(column, rows, class),
            ColumnReader::Int64ColumnReader(column) => self.records(column, rows, class),
            ColumnReader::FloatColumnReader(column) => {
                self.records(column, rows, |value| StatedLabel::of_number(f64::from(*value)))
            }
            ColumnReader::DoubleColumnReader(column) => {
                self.records(column, rows, |value| StatedLabel::of_number(*value))
            }
            ColumnReader::ByteArrayColumnReader(column) => self.records(column, rows, text),
            _ => Err(damaged("labels that are neither numbers nor texts")),
        }
    }

    fn records<T: DataType>(
        &mut self,
        mut column: ColumnReaderImpl<T>,
        rows: usize,
        label: impl Fn(&T::T) -> Option<StatedLabel>,
    ) -> ParquetResult<()> {
        let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..rows {
            values.clear();
            [&mut defined, &mut repeated].into_iter().for_each(Vec::clear);
            let levels = (Some(&mut defined), Some(&mut repeated));
            let (read, _, places) = column.read_records(1, levels.0, levels.1, &mut values)?;
            if read == 0 {
                return Err(damaged(format!("{row} labels, expected {rows} rows as stated")));
            }
            // A list has a place for each element, and one if it is empty.
            let label = match values.first() {
                _ if places > 1 => Some(StatedLabel::Other(NoClass::Several)),
                value => value.and_then(&label),
            };
            self.push(label)?;
        }
        Ok(())
    }

    fn push(&mut self, label: Option<StatedLabel>) -> Result<(), ParquetError> {
        let Some(label) = label else {
            self.of.push(MISSING);
            return Ok(());
        };
        if let Some(&number) = self.numbers.get(&label) {
            self.of.push(number);
            return Ok(());
        }
        if let StatedLabel::Class(text) = &label {
            self.bytes += text.len();
        }
        if self.bytes > MOST_LABEL_BYTES {
            let most = MOST_LABEL_BYTES >> 20;
            let problem =
                format!("has more than {most} MiB of different labels. Rename the column");
            return Err(too_large(problem));
        }
        let number = self.distinct.len() as u32;
        self.distinct.push(label.clone());
        self.numbers.insert(label, number);
        self.of.push(number);
        Ok(())
    }
}

/// A whole number or a truth value.
fn class(value: &impl ToString) -> Option<StatedLabel> {
    Some(StatedLabel::Class(value.to_string()))
}
