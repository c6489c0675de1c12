//! Parquet files of images, as Hugging Face `datasets` writes them: a column `image` of
//! {bytes, path} and, often, a column of labels. Footers and page headers are checked before memory
//! is taken for what they state, and a panic of the parquet crate makes its file damaged.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;

use crate::data::clip::decode::info;
use crate::data::guard::guarded;
use crate::data::source::file_set::FileSet;
use crate::data::source::kind::OpenOptions;
use crate::data::source::labels::{Classes, Labels};
use crate::data::store::object::{self, Object};
use crate::data::{
    Decoding, Error, Info, Notes, RawSample, Result, Sample, Source, Stamp, StoredAs,
};

mod agreement;
mod at;
mod cache;
mod columns;
mod features;
mod footer;
mod labels;
mod pages;
mod parts;
mod thrift;

use agreement::Agreement;
use at::At;
use cache::{PageCache, PageImages};
use columns::{TableColumns, label_name};
use features::HubFeatures;
use labels::FileLabels;
use pages::{ColumnPages, PageLimit, ParquetResult};
use parts::{FileParts, TableParts};

/// Images in the order of their files and rows.
pub struct Parquet {
    /// The rows of the images, counted over all files. None if every row is read.
    rows: Option<Vec<u32>>,
    holds_tests: bool,
    files: FileSet,
    tables: Vec<OpenFile>,
    groups: Vec<RowGroup>,
    classes: Classes,
    /// The column of the images.
    column: String,
    notes: Notes,
    cache: PageCache,
    decoding: Decoding,
}

struct OpenFile {
    file: At,
    metadata: ParquetMetaData,
    columns: TableColumns,
    /// The file's length.
    bytes: u64,
}

/// A file, the features in its metadata, its labels, and what says which rows are to train on.
type FoundFile = (OpenFile, HubFeatures, FileLabels, FileParts);

impl OpenFile {
    fn open(path: &Path, column: Option<&str>) -> Result<FoundFile> {
        guarded(|panic| damaged(path, panic), || Self::open_any(path, column))
    }

    /// Opens a file that may be damaged in any way.
    fn open_any(path: &Path, column: Option<&str>) -> Result<FoundFile> {
        let fail = |error: ParquetError| broken(path, error);
        let object = Object::open(path)?;
        let bytes = object.len();
        let file = At::new(object);
        let metadata = footer::read(&file, path)?;
        let features = HubFeatures::find(metadata.file_metadata().key_value_metadata());
        let columns = TableColumns::of(&metadata, &features, column, path)?;
        let (mut rows, mut labels) = (0, FileLabels::default());
        for group in metadata.row_groups() {
            // A file states the length of a group. A length below zero or beyond memory is refused.
            let len = usize::try_from(group.num_rows()).ok();
            let len = len.filter(|&len| len < u32::MAX as usize);
            let len = len.ok_or_else(|| damaged(path, "a row group without a size"))?;
            rows += len as u64;
            // Each image needs bytes in the file, and each label needs memory before any image is
            // read.
            if rows > bytes {
                let problem =
                    format!("states {rows} rows in {bytes} bytes. Fetch or write it again");
                return Err(Error::file(path, problem));
            }
            match columns.label {
                Some(column) => labels.add(&file, group, column).map_err(fail)?,
                None => labels.add_missing(len),
            }
        }
        check_embedded(&metadata, columns.image, path)?;
        let parts = parts::read(&file, &metadata, &columns);
        Ok((Self { file, metadata, columns, bytes }, features, labels, parts))
    }

    /// The name of the column of labels, if there is one.
    fn label_name(&self) -> Option<String> {
        let schema = self.metadata.file_metadata().schema_descr();
        self.columns.label.map(|label| label_name(&schema.column(label)))
    }
}

/// A row group. Its pages are located when its first image is read.
struct RowGroup {
    file: usize,
    number: usize,
    /// The number of its first row, counted over all files.
    first_row: usize,
    pages: OnceLock<ColumnPages>,
}

impl Parquet {
    /// Opens files of the same columns. `path` is the path that the user gave. Of tables that say
    /// which rows are to train on and which to test, only one kind is read: those to test if
    /// `options.tests` is set.
    pub fn open(path: &Path, files: &[PathBuf], options: &OpenOptions) -> Result<Self> {
        let column = options.column.as_deref();
        let opened = object::in_parallel(files, |path| OpenFile::open(path, column))?;
        let (mut tables, mut groups, mut rows) = (Vec::<OpenFile>::new(), Vec::new(), 0);
        let (mut labels, mut left_alone) = (Labels::default(), Vec::<String>::new());
        let (mut agreement, mut parts) = (Agreement::default(), TableParts::default());
        let mut stated = Vec::new();
        for ((table, features, of_rows, of_parts), path) in opened.into_iter().zip(files) {
            agreement.add(path, &table, &features)?;
            parts.add(&of_parts, of_rows.rows().len());
            stated.push((rows, of_rows));
            for (number, group) in table.metadata.row_groups().iter().enumerate() {
                let file = tables.len();
                groups.push(RowGroup { file, number, first_row: rows, pages: OnceLock::new() });
                rows += group.num_rows() as usize;
            }
            left_alone.extend(table.columns.left_alone.iter().cloned());
            tables.push(table);
        }
        let Some(column) = agreement.image().map(str::to_owned) else {
            return Err(Error::file(path, "holds 0 images. Set data.path to files with rows"));
        };
        let chosen = parts.choose(options.tests);
        for (first, of_rows) in &stated {
            let is_read = |row: usize| {
                let rows = chosen.rows.as_ref();
                rows.is_none_or(|rows| rows.binary_search(&((first + row) as u32)).is_ok())
            };
            let read = of_rows.rows().enumerate().filter(|(row, _)| is_read(*row));
            read.for_each(|(_, label)| labels.push_stated(label));
        }
        left_alone.extend(chosen.left_alone);
        let mut classes = labels.finish();
        agreement.name(&mut classes)?;
        if !classes.unused.is_empty() {
            left_alone.push(classes.unused.clone());
        } else if let (Some(name), true) = (agreement.label(), classes.names.is_empty()) {
            left_alone
                .push(format!("the column {name}, whose labels are all missing (null or -1)"));
        }
        let mut seen = BTreeSet::new();
        left_alone.retain(|part| seen.insert(part.clone()));
        let mut remarks = agreement.remarks(!classes.names.is_empty());
        remarks.extend(chosen.remarks);
        remarks.extend(classes.alike.take());
        let notes = Notes { left_alone, remarks };
        let (files, cache) = (FileSet::new(path, files, "parquet file"), PageCache::default());
        let decoding = options.decoding;
        let (rows, holds_tests) = (chosen.rows, chosen.holds_tests);
        Ok(Self {
            rows,
            holds_tests,
            files,
            tables,
            groups,
            classes,
            column,
            notes,
            cache,
            decoding,
        })
    }

    /// The same, with more that is not read, for people.
    #[must_use]
    pub(super) fn leaving(mut self, more: Vec<String>) -> Self {
        self.notes.left_alone.extend(more);
        self
    }

    /// The row of an image, counted over all files.
    fn row(&self, index: usize) -> usize {
        self.rows.as_ref().map_or(index, |rows| rows[index] as usize)
    }

    /// The row group of a row.
    fn group(&self, row: usize) -> usize {
        self.groups.partition_point(|group| group.first_row <= row) - 1
    }

    /// The bytes of an image, and its name.
    fn bytes(&self, index: usize) -> Result<(ByteArray, String)> {
        let row = self.row(index);
        let group_index = self.group(row);
        let name = self.stamp(index).name;
        let path = self.files.path_of(self.groups[group_index].file);
        // The row is named, as an image of its own would be.
        let named = |error: Error| match error {
            Error::File { problem, .. } => Error::file(Path::new(&name), problem),
            error => error,
        };
        let read = || self.bytes_of(group_index, row).map_err(|error| broken(path, error));
        let bytes = guarded(|panic| damaged(path, panic), read).map_err(named)?;
        let missing = || "has no bytes, only a path or nothing".to_owned();
        match bytes {
            Some(bytes) => Ok((bytes, name)),
            None => Err(Error::Image { name, problem: missing() }),
        }
    }

    /// The bytes of the image in a row of a row group, if there are any.
    fn bytes_of(&self, group_index: usize, row: usize) -> ParquetResult<Option<ByteArray>> {
        let group = &self.groups[group_index];
        let table = &self.tables[group.file];
        let row = row - group.first_row;
        let pages = match group.pages.get() {
            Some(pages) => pages,
            None => {
                let stated = table.metadata.row_group(group.number);
                let found = ColumnPages::find(&table.file, stated, table.columns.image)?;
                group.pages.get_or_init(|| found)
            }
        };
        let page = pages.page_of(row);
        let read = || {
            let _turn = pages.turn();
            PageImages::read(&table.file, pages, page)
        };
        let images = self.cache.page((group_index, page), read)?;
        Ok(images.get(row - pages.rows_of(page).start).cloned())
    }
}

impl Source for Parquet {
    fn len(&self) -> usize {
        self.classes.of.len()
    }

    fn read(&self, index: usize) -> Result<Sample> {
        self.raw(index)?.decode()
    }

    fn raw(&self, index: usize) -> Result<RawSample> {
        let (bytes, name) = self.bytes(index)?;
        let stored_as = StoredAs::File { bytes: bytes.data().to_vec(), decoding: self.decoding };
        Ok(RawSample { stored_as, label: self.label(index), name })
    }

    fn info(&self, index: usize) -> Result<Info> {
        let (bytes, name) = self.bytes(index)?;
        info(bytes.data(), &name, self.decoding)
    }

    fn stamp(&self, index: usize) -> Stamp {
        let row = self.row(index);
        let file = self.groups[self.group(row)].file;
        let path = self.files.path_of(file).display();
        Stamp { name: format!("{path}: row {row}"), bytes: self.tables[file].bytes }
    }

    fn label(&self, index: usize) -> i32 {
        self.classes.of[index]
    }

    fn classes(&self) -> &[String] {
        &self.classes.names
    }

    fn requests(&self) -> usize {
        self.files.requests()
    }

    fn describe(&self) -> String {
        // A run compares this with what it began with, so it says no more than earlier versions.
        self.files.describe(self.len(), self.classes())
    }

    fn files(&self) -> Vec<&Path> {
        self.files.files()
    }

    fn notes(&self) -> Notes {
        self.notes.clone()
    }

    fn holds_tests(&self) -> bool {
        self.holds_tests
    }

    fn column(&self) -> Option<&str> {
        Some(&self.column)
    }
}

fn broken(path: &Path, error: ParquetError) -> Error {
    let problem = match error {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(error) => return Error::read(path, *error),
            Err(inner) => match inner.downcast::<PageLimit>() {
                Ok(limit) => return Error::file(path, limit.0),
                Err(inner) => inner.to_string(),
            },
        },
        ParquetError::General(problem) | ParquetError::EOF(problem) => problem,
        error => error.to_string(),
    };
    damaged(path, &problem)
}

fn damaged(path: &Path, problem: &str) -> Error {
    let problem =
        format!("cannot be read as parquet: it is damaged ({problem}). Fetch or write it again");
    Error::file(path, problem)
}

/// Refuses a file whose metadata state that all its images are null.
fn check_embedded(metadata: &ParquetMetaData, images: usize, path: &Path) -> Result<()> {
    let mut groups = metadata.row_groups().iter().filter(|group| group.num_rows() > 0).peekable();
    let is_null = |group: &RowGroupMetaData| {
        let column = group.columns().get(images).and_then(|column| column.statistics());
        let nulls = column.and_then(Statistics::null_count_opt);
        nulls == u64::try_from(group.num_rows()).ok()
    };
    if groups.peek().is_none() || !groups.all(is_null) {
        return Ok(());
    }
    let problem = "holds no images, only their paths. Embed them before the file is written: ds = \
                   ds.cast_column(\"image\", datasets.Image()).with_format(\"arrow\")\
                   .map(datasets.table.embed_table_storage, batched=True); ds.to_parquet(...)";
    Err(Error::file(path, problem))
}

#[cfg(test)]
pub(in crate::data) mod tests;
