//! Features as files of NumPy, safetensors and Parquet.

use crate::data::Source;
use crate::files::write_whole;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int32Type};
use parquet::errors::Result as ParquetResult;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A kind of file, by its ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FeatureFile {
    Npy,
    Safetensors,
    Parquet,
}

impl FeatureFile {
    /// By the file's name.
    pub(crate) fn of(path: &Path) -> Result<Self, String> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("npy") => Ok(Self::Npy),
            Some("safetensors") => Ok(Self::Safetensors),
            Some("parquet") => Ok(Self::Parquet),
            _ => Err(format!(
                "{}: expected a name that ends in .npy, .safetensors or .parquet",
                path.display()
            )),
        }
    }

    /// The files that are written. The file that the user named is last: if it exists, so do the
    /// others.
    pub(crate) fn files(self, path: &Path) -> Vec<PathBuf> {
        match self {
            Self::Npy => vec![path.with_extension("labels.npy"), path.to_owned()],
            Self::Safetensors | Self::Parquet => vec![path.to_owned()],
        }
    }
}

/// One kind of features.
pub(crate) struct FeatureRows {
    /// `mean` or `cls`.
    pub(crate) name: &'static str,
    /// D
    pub(crate) dim: usize,
    /// [N, D]
    pub(crate) rows: Vec<f32>,
}

impl FeatureRows {
    /// Makes a row NaN.
    pub(crate) fn forget(&mut self, row: usize) {
        self.rows[row * self.dim..(row + 1) * self.dim].fill(f32::NAN);
    }
}

/// Features and their images.
pub(crate) struct Embeddings<'a> {
    /// At least one kind.
    pub(crate) pooled: Vec<FeatureRows>,
    pub(crate) source: &'a dyn Source,
}

/// Rows of a row group. Readers hold one group in memory at a time.
const GROUP_ROWS: usize = 10_000;

impl Embeddings<'_> {
    /// Writes whole files and returns their paths.
    pub(crate) fn write(&self, form: FeatureFile, path: &Path) -> Result<Vec<PathBuf>, String> {
        let mut written = vec![path.to_owned()];
        match form {
            FeatureFile::Npy => {
                written.extend(write_labels(path, self.source)?);
                let FeatureRows { dim, rows, .. } = &self.pooled[0];
                let shape = [rows.len() / dim, *dim];
                write_npy(path, "<f4", &shape, rows).map_err(|error| fail(path, &error))?;
            }
            FeatureFile::Safetensors => {
                self.write_safetensors(path).map_err(|error| fail(path, &error))?;
            }
            FeatureFile::Parquet => {
                let file = self.parquet().map_err(|error| fail(path, &error))?;
                write_whole(path, &file).map_err(|error| fail(path, &error))?;
            }
        }
        Ok(written)
    }

    fn len(&self) -> usize {
        self.source.len()
    }

    fn write_safetensors(&self, path: &Path) -> io::Result<()> {
        let labels = bytes(&labels(self.source));
        let rows: Vec<Vec<u8>> = self.pooled.iter().map(|pooled| bytes(&pooled.rows)).collect();
        let view = |kind, shape, data| TensorView::new(kind, shape, data).map_err(io::Error::other);
        let mut tensors = vec![("label", view(Dtype::I64, vec![self.len()], &labels)?)];
        for (pooled, rows) in self.pooled.iter().zip(&rows) {
            tensors.push((pooled.name, view(Dtype::F32, vec![self.len(), pooled.dim], rows)?));
        }
        // Names are strings, which JSON can hold.
        let classes = serde_json::to_string(self.source.classes()).expect("names as JSON");
        let metadata = HashMap::from([("classes".to_owned(), classes)]);
        let file = safetensors::serialize(tensors, Some(metadata)).map_err(io::Error::other)?;
        write_whole(path, &file)
    }

    fn parquet(&self) -> ParquetResult<Vec<u8>> {
        let mut schema =
            "message embeddings { required binary image (STRING); optional int32 label; \
                          optional binary class (STRING); "
                .to_owned();
        for FeatureRows { name, .. } in &self.pooled {
            // Writing to a string cannot fail.
            let _ = write!(
                schema,
                "required group {name} (LIST) {{ repeated group list {{ required float element; \
                 }} }} "
            );
        }
        let schema = Arc::new(parse_message_type(&(schema + "}"))?);
        // Compression hardly shrinks features, but it shrinks names and labels.
        let compression = Compression::ZSTD(ZstdLevel::default());
        let properties = WriterProperties::builder().set_compression(compression).build();
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
        let images: Vec<usize> = (0..self.source.len()).collect();
        for images in images.chunks(GROUP_ROWS) {
            let mut group = writer.next_row_group()?;
            self.write_group(&mut group, images)?;
            group.close()?;
        }
        writer.into_inner()
    }

    fn write_group(
        &self,
        group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
        images: &[usize],
    ) -> ParquetResult<()> {
        let text = |text: &str| ByteArray::from(text.as_bytes().to_vec());
        let names: Vec<_> =
            images.iter().map(|&image| text(&self.source.stamp(image).name)).collect();
        column::<ByteArrayType>(group, &names, None, None)?;
        // Which values are present.
        let labels = images.iter().map(|&image| self.source.label(image));
        let known: Vec<i32> = labels.clone().filter(|label| *label >= 0).collect();
        let defined: Vec<i16> = labels.map(|label| i16::from(label >= 0)).collect();
        column::<Int32Type>(group, &known, Some(&defined), None)?;
        let class = |label: &i32| text(&self.source.classes()[*label as usize]);
        let classes: Vec<_> = known.iter().map(class).collect();
        column::<ByteArrayType>(group, &classes, Some(&defined), None)?;
        for FeatureRows { dim, rows, .. } in &self.pooled {
            let values = &rows[images[0] * dim..(images[0] + images.len()) * dim];
            let defined = vec![1; values.len()];
            // 0 begins a list.
            let repeated: Vec<i16> =
                (0..values.len()).map(|i| i16::from(!i.is_multiple_of(*dim))).collect();
            column::<FloatType>(group, values, Some(&defined), Some(&repeated))?;
        }
        Ok(())
    }
}

fn fail(path: &Path, error: &dyn std::fmt::Display) -> String {
    format!("cannot write {}: {error}", path.display())
}

/// The class of each image [N], -1 without one.
pub(super) fn labels(source: &dyn Source) -> Vec<i64> {
    (0..source.len()).map(|image| i64::from(source.label(image))).collect()
}

/// Makes way for a .npy file, and writes the labels beside it if there are any. Old files are
/// removed first. Features never appear beside labels of other images.
pub(super) fn write_labels(path: &Path, source: &dyn Source) -> Result<Option<PathBuf>, String> {
    let mut files = FeatureFile::Npy.files(path);
    for old in files.iter().rev().filter(|old| old.exists()) {
        fs::remove_file(old).map_err(|error| fail(old, &error))?;
    }
    if source.classes().is_empty() {
        return Ok(None);
    }
    let (beside, labels) = (files.swap_remove(0), labels(source));
    write_npy(&beside, "<i8", &[labels.len()], &labels).map_err(|error| fail(&beside, &error))?;
    Ok(Some(beside))
}

/// Writes the next column of a row group.
fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
    defined: Option<&[i16]>,
    repeated: Option<&[i16]>,
) -> ParquetResult<()> {
    // The schema has as many columns as are written.
    let mut column = group.next_column()?.expect("a column of the schema");
    column.typed::<T>().write_batch(values, defined, repeated)?;
    column.close()
}

/// A number that files can hold.
pub(super) trait Number: Copy {
    fn add_to(self, bytes: &mut Vec<u8>);
}

impl Number for f32 {
    fn add_to(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.to_le_bytes());
    }
}

impl Number for i64 {
    fn add_to(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.to_le_bytes());
    }
}

pub(super) fn bytes(values: &[impl Number]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of_val(values));
    values.iter().for_each(|value| value.add_to(&mut bytes));
    bytes
}

fn write_npy(path: &Path, kind: &str, shape: &[usize], values: &[impl Number]) -> io::Result<()> {
    let mut file = npy_header(kind, shape);
    file.extend(bytes(values));
    write_whole(path, &file)
}

/// NumPy's format, version 1.0 (numpy/lib/format.py): a header that ends on a multiple of 64 bytes.
pub(super) fn npy_header(kind: &str, shape: &[usize]) -> Vec<u8> {
    let shape: String = shape.iter().map(|size| format!("{size},")).collect();
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((length as u16).to_le_bytes());
    file.extend(format!("{header:<width$}\n", width = length - 1).into_bytes());
    file
}
