//! Reads and writes safetensors files. Format: <https://huggingface.co/docs/safetensors>, "Format".

use super::dtype::KINDS;
use super::file_kind::MOST_HEADER_BYTES;
use super::{Dtype, Error, File, IsWanted, expect_range};
use crate::files::{Record, open_file, write_whole_with};
use engine::Tensor;
use safetensors::tensor::Metadata;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
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

/// Values as little-endian bytes of this type.
pub(super) fn write_values(file: &mut dyn Write, values: &[f32], dtype: Dtype) -> io::Result<()> {
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
    read(path, &mut io::Cursor::new(bytes), bytes.len() as u64, &|_| true)
}

/// Reads the tensors of a file whose names are wanted, one after the other. A file that is mapped
/// into memory would end the program if another one cut it.
pub(super) fn load(path: &Path, is_wanted: IsWanted<'_>) -> Result<File, Error> {
    let failed = |source| Error::read(path, source);
    let mut file = open_file(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    read(path, &mut file, length, is_wanted)
}

fn read(
    path: &Path,
    source: &mut (impl Read + Seek),
    length: u64,
    is_wanted: IsWanted<'_>,
) -> Result<File, Error> {
    let (header, begin) = read_header(path, source, length)?;
    let metadata = header.metadata().clone().unwrap_or_default();
    let mut file = File { metadata, ..File::default() };
    for (name, info) in header.tensors().into_iter().filter(|(name, _)| is_wanted(name)) {
        let dtype = format!("{:?}", info.dtype);
        let kind = KINDS.iter().find(|kind| kind.name == dtype);
        let Some((kind, decode)) = kind.and_then(|kind| Some((kind, kind.decoder()?))) else {
            file.others.insert(name, dtype);
            continue;
        };
        let (first, end) = info.data_offsets;
        let place = begin + first as u64;
        let values = read_values(source, place, end - first, (kind.size, decode));
        let values = values.map_err(|source| Error::read(path, source))?;
        file.tensors.insert(name, Tensor::from_vec(values, &info.shape));
    }
    Ok(file)
}

/// The header of a file of this length, and where the values begin. The tensors fill the rest of
/// the file.
pub(super) fn read_header(
    path: &Path,
    source: &mut impl Read,
    length: u64,
) -> Result<(Metadata, u64), Error> {
    let mut stated = [0; 8];
    let short = |_| Error::format(path, format!("it has {length} bytes"));
    source.read_exact(&mut stated).map_err(short)?;
    let stated = u64::from_le_bytes(stated);
    // Parsing takes many times its length in memory.
    if stated > MOST_HEADER_BYTES {
        let problem = format!(
            "it states a header of {stated} bytes, expected at most {MOST_HEADER_BYTES}, and does \
             not begin like a file of torch.save either"
        );
        return Err(Error::format(path, problem));
    }
    if stated + 8 > length {
        let problem = format!("it states a header of {stated} bytes and has {length}");
        return Err(Error::format(path, problem));
    }
    let mut header = vec![0; stated as usize];
    source.read_exact(&mut header).map_err(|source| Error::read(path, source))?;
    let fail = |problem: String| Error::format(path, problem);
    let header: Metadata =
        serde_json::from_slice(&header).map_err(|error| fail(format!("its header: {error}")))?;
    let begin = stated + 8;
    check(&header, length - begin).map_err(fail)?;
    Ok((header, begin))
}

/// Checks that the tensors fill the rest of the file, each by its type and shape.
fn check(header: &Metadata, found: u64) -> Result<(), String> {
    let mut begin = 0_usize;
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        let (first, end) = info.data_offsets;
        let values = info.shape.iter().try_fold(1_usize, |all, &side| all.checked_mul(side));
        let bits = values.and_then(|values| values.checked_mul(info.dtype.bitsize()));
        let wanted = bits.filter(|bits| bits % 8 == 0).and_then(|bits| begin.checked_add(bits / 8));
        if first != begin || wanted != Some(end) {
            let (dtype, shape) = (info.dtype, &info.shape);
            return Err(format!(
                "tensor {name}, {dtype:?} {shape:?}, lies at bytes {first} to {end}, expected it \
                 to begin at {begin} and to be as long as its values"
            ));
        }
        begin = end;
    }
    if begin as u64 != found {
        return Err(format!("its tensors take {begin} bytes, it has {found}"));
    }
    Ok(())
}

/// Values of `length` bytes from `place` on, as f32.
fn read_values(
    source: &mut (impl Read + Seek),
    place: u64,
    length: usize,
    (size, decode): (usize, fn(&[u8]) -> f32),
) -> io::Result<Vec<f32>> {
    source.seek(SeekFrom::Start(place))?;
    let mut values = Vec::with_capacity(length / size);
    let mut bytes = vec![0; length.min(1 << 18)];
    let mut left = length;
    while left > 0 {
        let now = left.min(bytes.len());
        source.read_exact(&mut bytes[..now])?;
        values.extend(bytes[..now].chunks_exact(size).map(decode));
        left -= now;
    }
    Ok(values)
}

#[cfg(test)]
mod tests;
