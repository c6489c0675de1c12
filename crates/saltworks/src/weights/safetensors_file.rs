//! Reads and writes safetensors files. Format: <https://huggingface.co/docs/safetensors>, "Format".

use super::dtype::KINDS;
use super::file_kind::MOST_HEADER_BYTES;
use super::{Dtype, Error, File, expect_range};
use crate::files::{Record, write_whole_with};
use engine::Tensor;
use safetensors::tensor::TensorView;
use safetensors::{SafeTensorError, SafeTensors};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;

/// Writes tensors as f32 to `path`, whole or not at all. The same tensors give the same bytes.
pub fn save(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: &HashMap<String, String>,
) -> Result<Record, Error> {
    save_as(path, tensors, metadata, Dtype::F32)
}

/// [`save`] in another type, rounded to nearest even. A value that the type cannot hold is an
/// error. The crate's `serialize` orders metadata differently in every process, so the header is
/// made here.
pub fn save_as(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: &HashMap<String, String>,
    dtype: Dtype,
) -> Result<Record, Error> {
    expect_range(path, tensors, dtype)?;
    let header = header(tensors, metadata, dtype);
    let written = write_whole_with(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        tensors.iter().try_for_each(|(_, tensor)| write_values(file, &tensor.to_host(), dtype))
    });
    written.map_err(|source| Error::write(path, source))
}

fn header(
    tensors: &[(String, Tensor)],
    metadata: &HashMap<String, String>,
    dtype: Dtype,
) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_owned(), json!(metadata));
    let mut begin = 0;
    for (name, tensor) in tensors {
        let end = begin + dtype.kind().size * tensor.len();
        let (shape, offsets) = (tensor.shape(), [begin, end]);
        let entry = json!({ "dtype": dtype.kind().name, "shape": shape, "data_offsets": offsets });
        header.insert(name.clone(), entry);
        begin = end;
    }
    let mut header = Value::from(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

fn write_values(file: &mut dyn Write, values: &[f32], dtype: Dtype) -> io::Result<()> {
    let mut bytes = Vec::new();
    for values in values.chunks(1 << 14) {
        bytes.clear();
        dtype.encode(values, &mut bytes);
        file.write_all(&bytes)?;
    }
    Ok(())
}

/// [`load`](super::load) for a safetensors file's content. `path` is for messages.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<File, Error> {
    expect_short_header(path, bytes)?;
    let fail = |error: SafeTensorError| Error::format(path, error.to_string());
    let whole = SafeTensors::deserialize(bytes).map_err(fail)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(fail)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let mut file = File { metadata, ..File::default() };
    for (name, view) in whole.iter() {
        match tensor(&view) {
            Some(tensor) => drop(file.tensors.insert(name.to_owned(), tensor)),
            None => drop(file.others.insert(name.to_owned(), format!("{:?}", view.dtype()))),
        }
    }
    Ok(file)
}

/// Refuses a long header: parsing it takes many times its length in memory.
fn expect_short_header(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let length = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
    if length <= MOST_HEADER_BYTES {
        return Ok(());
    }
    let problem = format!(
        "it states a header of {length} bytes, expected at most {MOST_HEADER_BYTES}, and does not \
         begin like a file of torch.save either"
    );
    Err(Error::format(path, problem))
}

/// A tensor of floats, as f32.
fn tensor(view: &TensorView<'_>) -> Option<Tensor> {
    let name = format!("{:?}", view.dtype());
    let kind = KINDS.iter().find(|kind| kind.name == name)?;
    let values: Vec<f32> = view.data().chunks_exact(kind.size).map(kind.decoder()?).collect();
    Some(Tensor::from_vec(values, view.shape()))
}

#[cfg(test)]
mod tests;
