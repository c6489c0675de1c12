//! Parquet files of images, as Hugging Face `datasets` writes them: a column `image` of
//! {bytes, path} and, often, a column of labels.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use parquet::basic::Type;
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, FileReader as _, Length, SerializedFileReader};
use parquet::file::statistics::Statistics;
use parquet::schema::types::{ColumnDescriptor, SchemaDescriptor};

use crate::data::clip::decode::{guarded, info};
use crate::data::source::file_set::FileSet;
use crate::data::source::labels::Labels;
use crate::data::store::object::{self, Object};
use crate::data::store::tar::ReadAt as _;
use crate::data::{Background, Error, Info, RawSample, Result, Sample, Source, Stamp, StoredAs};

mod features;

use features::HubFeatures;

/// Names of the column of images: plain bytes, or a struct with a field `bytes`. The first name
/// found is used.
const IMAGE_NAMES: [&str; 5] = ["image", "img", "images", "bytes", "image_bytes"];

/// Names of the column of labels. The first one that holds whole numbers or texts is used.
const LABEL_NAMES: [&str; 6] = ["label", "labels", "class", "cls", "target", "fine_label"];

/// The most bytes of decompressed pages that are cached for the next images of the same page.
/// (guess) About fifty of Hugging Face's row groups of a hundred images.
const MOST_CACHED_BYTES: usize = 512 << 20;

/// Images in the order of their files and rows.
pub struct Parquet {
    files: FileSet,
    tables: Vec<OpenFile>,
    groups: Vec<RowGroup>,
    labels: Vec<i32>,
    classes: Vec<String>,
    cache: PageCache,
    background: Background,
}

struct OpenFile {
    reader: SerializedFileReader<At>,
    /// The leaf column of the images' bytes.
    images: usize,
    /// Its length.
    bytes: u64,
}

impl OpenFile {
    /// Opens a file. Returns the table, the features in its metadata, and the labels of each row
    /// group.
    fn open(path: &Path) -> Result<(Self, HubFeatures, Vec<GroupLabels>)> {
        let fail = |error: ParquetError| broken(path, error);
        let object = Object::open(path)?;
        let bytes = object.len();
        let reader = SerializedFileReader::new(At(Arc::new(object))).map_err(fail)?;
        let metadata = reader.metadata();
        let features = HubFeatures::find(metadata.file_metadata().key_value_metadata());
        let schema = metadata.file_metadata().schema_descr();
        let images = image_column(schema, &features, path)?;
        let label = label_column(schema, &features);
        let mut rows = 0;
        let labels = |number: usize| {
            let len = metadata.row_group(number).num_rows();
            // A file states the length of a group. A length below zero or beyond memory is refused.
            let len = usize::try_from(len).ok().filter(|&len| len < u32::MAX as usize);
            let len = len.ok_or_else(|| Error::file(path, "has a row group without a size"))?;
            rows += len as u64;
            // Each image needs bytes in the file, and each label needs memory before any image is
            // read.
            if rows > bytes {
                let problem =
                    format!("states {rows} rows in {bytes} bytes. Fetch or write it again");
                return Err(Error::file(path, problem));
            }
            read_labels(&reader, number, label, len).map_err(fail)
        };
        let labels = (0..reader.num_row_groups()).map(labels).collect::<Result<_>>()?;
        check_embedded(metadata, images, path)?;
        Ok((Self { reader, images, bytes }, features, labels))
    }
}

/// The label of each row of a row group.
type GroupLabels = Vec<Option<String>>;

/// A row group. Its pages are located when its first image is read.
struct RowGroup {
    file: usize,
    number: usize,
    /// The number of its first row, counted over all files.
    first_row: usize,
    /// First row of each page in the group.
    pages: OnceLock<Vec<usize>>,
}

/// Images of a page. None if the bytes are null.
type Page = Vec<Option<ByteArray>>;

impl Parquet {
    /// Opens files of the same columns. `path` is the path that the user gave.
    pub fn open(path: &Path, files: &[PathBuf], background: Background) -> Result<Self> {
        let opened = object::in_parallel(files, OpenFile::open)?;
        let (mut tables, mut groups, mut rows) = (Vec::new(), Vec::new(), 0);
        let (mut labels, mut features) = (Labels::default(), HubFeatures::default());
        let mut names = Vec::new();
        for (table, found, of_groups) in opened {
            features = if features.is_empty() { found } else { features };
            let schema = table.reader.metadata().file_metadata().schema_descr();
            let label = label_column(schema, &features);
            if let Some(of) = label.and_then(|at| features.labels.get(schema.column(at).name())) {
                names.clone_from(of);
            }
            for (number, found) in of_groups.iter().enumerate() {
                let file = tables.len();
                groups.push(RowGroup { file, number, first_row: rows, pages: OnceLock::new() });
                rows += found.len();
                found.iter().for_each(|label| labels.push(label.as_deref()));
            }
            tables.push(table);
        }
        if rows == 0 {
            return Err(Error::file(path, "holds 0 images. Set data.path to files with rows"));
        }
        let (labels, mut classes) = labels.finish();
        if names.len() >= classes.len() && !classes.is_empty() {
            classes = names;
        }
        let (files, cache) = (FileSet::new(path, files, "parquet file"), PageCache::default());
        Ok(Self { files, tables, groups, labels, classes, cache, background })
    }

    /// The row group of an image.
    fn group(&self, index: usize) -> usize {
        self.groups.partition_point(|group| group.first_row <= index) - 1
    }

    /// The bytes of an image, and its name.
    fn bytes(&self, index: usize) -> Result<(ByteArray, String)> {
        let group_index = self.group(index);
        let name = self.stamp(index).name;
        Ok((guarded(&name, || self.bytes_of(group_index, index, &name))?, name))
    }

    /// The bytes of an image of a row group.
    fn bytes_of(&self, group_index: usize, index: usize, name: &str) -> Result<ByteArray> {
        let group = &self.groups[group_index];
        let table = &self.tables[group.file];
        let row = index - group.first_row;
        let fail = |error: ParquetError| broken(self.files.path_of(group.file), error);
        let pages = match group.pages.get() {
            Some(pages) => pages,
            None => {
                let found = pages(table, group.number).map_err(fail)?;
                group.pages.get_or_init(|| found)
            }
        };
        let page = pages.partition_point(|&first| first <= row) - 1;
        let (first, end) = (pages[page], pages.get(page + 1).copied());
        let key = (group_index, page);
        let images =
            self.cache.page(key, || read_page(table, group.number, first, end)).map_err(fail)?;
        match images.get(row - first) {
            Some(Some(bytes)) => Ok(bytes.clone()),
            _ => Err(Error::Image {
                name: name.to_owned(),
                problem: "has no bytes, only a path or nothing".to_owned(),
            }),
        }
    }
}

impl Source for Parquet {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn read(&self, index: usize) -> Result<Sample> {
        self.raw(index)?.decode()
    }

    fn raw(&self, index: usize) -> Result<RawSample> {
        let (bytes, name) = self.bytes(index)?;
        let stored_as =
            StoredAs::File { bytes: bytes.data().to_vec(), background: self.background };
        Ok(RawSample { stored_as, label: self.label(index), name })
    }

    fn info(&self, index: usize) -> Result<Info> {
        let (bytes, name) = self.bytes(index)?;
        info(bytes.data(), &name, self.background)
    }

    fn stamp(&self, index: usize) -> Stamp {
        let file = self.groups[self.group(index)].file;
        let path = self.files.path_of(file).display();
        Stamp { name: format!("{path}: row {index}"), bytes: self.tables[file].bytes }
    }

    fn label(&self, index: usize) -> i32 {
        self.labels[index]
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn requests(&self) -> usize {
        self.files.requests()
    }

    fn describe(&self) -> String {
        self.files.describe(self.len(), &self.classes)
    }

    fn files(&self) -> Vec<&Path> {
        self.files.files()
    }
}

fn broken(path: &Path, error: ParquetError) -> Error {
    let error = match error {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(error) => return Error::read(path, *error),
            Err(inner) => ParquetError::External(inner),
        },
        error => error,
    };
    Error::file(path, format!("cannot be read as parquet ({error}). Fetch or write it again"))
}

/// Refuses a file whose metadata state that all its images are null.
fn check_embedded(metadata: &ParquetMetaData, images: usize, path: &Path) -> Result<()> {
    let groups = metadata.row_groups();
    let is_null = |group: &RowGroupMetaData| {
        let nulls = group.column(images).statistics().and_then(Statistics::null_count_opt);
        nulls == u64::try_from(group.num_rows()).ok()
    };
    if groups.is_empty() || !groups.iter().all(is_null) {
        return Ok(());
    }
    let problem = "holds no images, only their paths. Embed them before the file is written: ds = \
                   ds.cast_column(\"image\", datasets.Image()).with_format(\"arrow\")\
                   .map(datasets.table.embed_table_storage, batched=True); ds.to_parquet(...)";
    Err(Error::file(path, problem))
}

/// The leaf column that holds the images' bytes.
fn image_column(schema: &SchemaDescriptor, features: &HubFeatures, path: &Path) -> Result<usize> {
    let is_bytes = |column: usize| {
        let leaf = schema.column(column);
        leaf.physical_type() == Type::BYTE_ARRAY && leaf.max_rep_level() == 0
    };
    let at = |parts: &[&str]| {
        let columns = 0..schema.num_columns();
        columns.into_iter().find(|&at| schema.column(at).path().parts() == parts && is_bytes(at))
    };
    let names = features.image.iter().map(String::as_str).chain(IMAGE_NAMES);
    let named = names.into_iter().find_map(|name| at(&[name, "bytes"]).or_else(|| at(&[name])));
    named.ok_or_else(|| {
        let columns = schema.columns().iter().map(|column| column.path().string());
        let problem = format!(
            "has no column of images: looked for {} (bytes, or a struct with bytes), found {}. \
             Rename the column",
            IMAGE_NAMES.join(", "),
            columns.collect::<Vec<_>>().join(", ")
        );
        Error::file(path, problem)
    })
}

fn label_column(schema: &SchemaDescriptor, features: &HubFeatures) -> Option<usize> {
    let at = |name: &str| {
        let columns = schema.columns().iter();
        let is_label = |column: &ColumnDescriptor| {
            let readable =
                matches!(column.physical_type(), Type::INT32 | Type::INT64 | Type::BYTE_ARRAY);
            readable && column.max_rep_level() == 0 && column.path().parts() == [name]
        };
        columns.enumerate().find(|(_, column)| is_label(column)).map(|(at, _)| at)
    };
    // Columns that the metadata call labels come before columns that only have the name of a label.
    let (stated, named): (Vec<_>, Vec<_>) =
        LABEL_NAMES.into_iter().partition(|&name| features.labels.contains_key(name));
    let others = features.labels.keys().map(String::as_str);
    stated.into_iter().chain(others).chain(named).find_map(at)
}

/// A row group's labels: whole numbers or texts.
fn read_labels(
    reader: &SerializedFileReader<At>,
    group: usize,
    column: Option<usize>,
    rows: usize,
) -> std::result::Result<GroupLabels, ParquetError> {
    let Some(column) = column else { return Ok(vec![None; rows]) };
    let group = reader.get_row_group(group)?;
    let most = reader.metadata().file_metadata().schema_descr().column(column).max_def_level();
    let mut levels = Vec::new();
    let texts: Vec<String> = match group.get_column_reader(column)? {
        ColumnReader::Int64ColumnReader(mut column) => {
            let mut values = Vec::new();
            column.read_records(rows, Some(&mut levels), None, &mut values)?;
            values.iter().map(ToString::to_string).collect()
        }
        ColumnReader::Int32ColumnReader(mut column) => {
            let mut values = Vec::new();
            column.read_records(rows, Some(&mut levels), None, &mut values)?;
            values.iter().map(ToString::to_string).collect()
        }
        ColumnReader::ByteArrayColumnReader(mut column) => {
            let mut values: Vec<ByteArray> = Vec::new();
            column.read_records(rows, Some(&mut levels), None, &mut values)?;
            values.iter().map(|text| String::from_utf8_lossy(text.data()).into_owned()).collect()
        }
        _ => {
            let problem = "its labels are neither whole numbers nor texts";
            return Err(ParquetError::General(problem.to_owned()));
        }
    };
    spread(texts, &levels, most, rows)
}

/// Spreads values by their definition levels. Rows that are null get none.
fn spread<T>(
    values: Vec<T>,
    levels: &[i16],
    most: i16,
    rows: usize,
) -> std::result::Result<Vec<Option<T>>, ParquetError> {
    let mut values = values.into_iter();
    let spread: Vec<Option<T>> = match most {
        // A column that is never null has no levels.
        0 => values.by_ref().map(Some).collect(),
        _ => levels.iter().map(|&level| (level == most).then(|| values.next()).flatten()).collect(),
    };
    if spread.len() != rows {
        let found = spread.len();
        return Err(ParquetError::General(format!(
            "{found} values, expected {rows} rows as stated"
        )));
    }
    Ok(spread)
}

/// The first row of each page of a group's images, from the page headers.
fn pages(table: &OpenFile, group: usize) -> std::result::Result<Vec<usize>, ParquetError> {
    let mut reader = table.reader.get_row_group(group)?.get_column_page_reader(table.images)?;
    let (mut first, mut pages) = (0, Vec::new());
    while let Some(page) = reader.peek_next_page()? {
        if !page.is_dict {
            pages.push(first);
            let rows = page.num_rows.or(page.num_levels);
            let problem = || ParquetError::General("a page without a length".to_owned());
            first += rows.ok_or_else(problem)?;
        }
        reader.skip_next_page()?;
    }
    match pages.is_empty() {
        true => Err(ParquetError::General("a row group without pages".to_owned())),
        false => Ok(pages),
    }
}

/// The rows `first..end` of a group's images, or all from `first` on without an `end`.
fn read_page(
    table: &OpenFile,
    group: usize,
    first: usize,
    end: Option<usize>,
) -> std::result::Result<Page, ParquetError> {
    let metadata = table.reader.metadata();
    let stated = metadata.row_group(group).num_rows() as usize;
    let rows = end.unwrap_or(stated).saturating_sub(first);
    let most = metadata.file_metadata().schema_descr().column(table.images).max_def_level();
    let reader = table.reader.get_row_group(group)?.get_column_reader(table.images)?;
    let ColumnReader::ByteArrayColumnReader(mut reader) = reader else {
        // `image_column` takes byte arrays only.
        unreachable!("images are byte arrays");
    };
    reader.skip_records(first)?;
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    reader.read_records(rows, Some(&mut levels), None, &mut values)?;
    spread(values, &levels, most, rows)
}

/// The most recently used pages, shared by all threads.
#[derive(Default)]
struct PageCache(Mutex<CachedPages>);

#[derive(Default)]
struct CachedPages {
    pages: HashMap<(usize, usize), CacheEntry>,
    bytes: usize,
    clock: u64,
}

#[derive(Default)]
struct CacheEntry {
    page: Arc<Mutex<Option<Arc<Page>>>>,
    bytes: usize,
    used: u64,
}

impl PageCache {
    /// The page with this row group and number. One thread reads it. Others that need it wait.
    fn page(
        &self,
        key: (usize, usize),
        read: impl FnOnce() -> std::result::Result<Page, ParquetError>,
    ) -> std::result::Result<Arc<Page>, ParquetError> {
        let slot = self.slot(key);
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = &*slot {
            return Ok(Arc::clone(page));
        }
        let page = Arc::new(read()?);
        *slot = Some(Arc::clone(&page));
        let bytes = page.iter().flatten().map(ByteArray::len).sum();
        self.note(key, bytes);
        Ok(page)
    }

    fn slot(&self, key: (usize, usize)) -> Arc<Mutex<Option<Arc<Page>>>> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.clock += 1;
        let clock = cache.clock;
        let page = cache.pages.entry(key).or_default();
        page.used = clock;
        Arc::clone(&page.page)
    }

    /// Counts a page's bytes, and drops the least recently used pages if the cache is full.
    fn note(&self, key: (usize, usize), bytes: usize) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(page) = cache.pages.get_mut(&key) {
            page.bytes = bytes;
            cache.bytes += bytes;
        }
        while cache.bytes > MOST_CACHED_BYTES {
            let others =
                cache.pages.iter().filter(|(other, page)| **other != key && page.bytes > 0);
            let Some(oldest) = others.min_by_key(|(_, page)| page.used).map(|(&oldest, _)| oldest)
            else {
                break;
            };
            let gone = cache.pages.remove(&oldest).map_or(0, |page| page.bytes);
            cache.bytes -= gone;
        }
    }
}

/// A file read by position. The parquet crate's own file reader shares one cursor between threads.
struct At(Arc<Object>);

impl Length for At {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for At {
    type T = BufReader<From>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let from = From { object: Arc::clone(&self.0), at: start };
        // Page headers have about fifty bytes.
        Ok(BufReader::with_capacity(512, from))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<bytes::Bytes> {
        let found = self.0.len();
        if start.checked_add(length as u64).is_none_or(|end| end > found) {
            let problem = format!("{length} bytes at {start} of a file of {found} bytes");
            return Err(ParquetError::EOF(problem));
        }
        let mut bytes = vec![0; length];
        self.0.read_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// The bytes of a file from an offset on.
struct From {
    object: Arc<Object>,
    at: u64,
}

impl Read for From {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.object.len().saturating_sub(self.at);
        let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.object.read_at(&mut buffer[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
pub(in crate::data) mod tests;
