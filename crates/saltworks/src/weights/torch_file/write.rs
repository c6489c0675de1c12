//! Writes state dictionaries as `torch.save` does. `torch.load(weights_only=True)` reads them.

use super::METADATA;
use super::archive::ArchiveWriter;
use crate::files::{Record, write_whole_with};
use crate::weights::{Dtype, Error, expect_range};
use engine::Tensor;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The folder in the archive. torch names it after the file.
const FOLDER: &str = "archive";

/// Writes tensors to `path`, whole or not at all: an `OrderedDict` in the order given. A
/// `container` is the key of an outer dictionary, with `metadata` under keys of ours beside it.
/// Values are rounded to nearest even. A value that `dtype` cannot hold is an error. The same
/// tensors give the same bytes.
pub fn save_torch(
    path: &Path,
    tensors: &[(String, Tensor)],
    container: Option<&str>,
    metadata: &HashMap<String, String>,
    dtype: Dtype,
) -> Result<Record, Error> {
    expect_range(path, tensors, dtype)?;
    let written = write_whole_with(path, |file| {
        let mut archive = ArchiveWriter::new(file);
        let mut record =
            |name: &str, bytes: &[u8]| archive.record(&format!("{FOLDER}/{name}"), bytes);
        record("data.pkl", &pickle(tensors, container, metadata, dtype))?;
        // torch/serialization.py, _save; 3: kMaxSupportedFileFormatVersion's least that it reads.
        record(".format_version", b"1")?;
        record(".storage_alignment", b"64")?;
        record("byteorder", b"little")?;
        let mut bytes = Vec::new();
        for (number, (_, tensor)) in tensors.iter().enumerate() {
            bytes.clear();
            dtype.encode(&tensor.to_host(), &mut bytes);
            record(&format!("data/{number}"), &bytes)?;
        }
        record("version", b"3\n")?;
        archive.finish()
    });
    written.map_err(|source| Error::write(path, source))
}

/// The dictionary in protocol 2 of Python's pickle (pickletools.py).
fn pickle(
    tensors: &[(String, Tensor)],
    container: Option<&str>,
    metadata: &HashMap<String, String>,
    dtype: Dtype,
) -> Vec<u8> {
    let mut pickle = b"\x80\x02".to_vec();
    if let Some(container) = container {
        pickle.push(b'}');
        text(&mut pickle, container);
    }
    pickle.extend(EMPTY_ORDERED_DICT);
    pickle.push(b'(');
    for (number, (name, tensor)) in tensors.iter().enumerate() {
        text(&mut pickle, name);
        rebuilt(&mut pickle, number, tensor, dtype);
    }
    pickle.push(b'u');
    if container.is_some() {
        pickle.push(b's');
        let sorted: BTreeMap<_, _> = metadata.iter().collect();
        for (key, value) in sorted {
            text(&mut pickle, &format!("{METADATA}{key}"));
            text(&mut pickle, value);
            pickle.push(b's');
        }
    }
    pickle.push(b'.');
    pickle
}

const EMPTY_ORDERED_DICT: &[u8] = b"ccollections\nOrderedDict\n)R";

/// `_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict())`. The storage is given by
/// its persistent id ("storage", class, key, "cpu", values).
fn rebuilt(pickle: &mut Vec<u8>, number: usize, tensor: &Tensor, dtype: Dtype) {
    pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    text(pickle, "storage");
    pickle.extend(format!("ctorch\n{}\n", dtype.kind().storage).as_bytes());
    text(pickle, &number.to_string());
    text(pickle, "cpu");
    integer(pickle, tensor.len());
    pickle.extend(b"tQ");
    integer(pickle, 0);
    let strides = contiguous(tensor.shape());
    for numbers in [tensor.shape(), strides.as_slice()] {
        pickle.push(b'(');
        numbers.iter().for_each(|&number| integer(pickle, number));
        pickle.push(b't');
    }
    // No gradient, no hooks.
    pickle.push(0x89);
    pickle.extend(EMPTY_ORDERED_DICT);
    pickle.extend(b"tR");
}

/// The number of values from one index of an axis to the next.
fn contiguous(shape: &[usize]) -> Vec<usize> {
    let behind = |axis: usize| shape[axis + 1..].iter().product();
    (0..shape.len()).map(behind).collect()
}

fn text(pickle: &mut Vec<u8>, text: &str) {
    pickle.push(b'X');
    pickle.extend((text.len() as u32).to_le_bytes());
    pickle.extend(text.as_bytes());
}

/// BININT has 31 bits. LONG1 has as many bytes as it states.
fn integer(pickle: &mut Vec<u8>, number: usize) {
    match i32::try_from(number) {
        Ok(number) => {
            pickle.push(b'J');
            pickle.extend(number.to_le_bytes());
        }
        Err(_) => {
            pickle.extend([0x8A, 8]);
            pickle.extend((number as u64).to_le_bytes());
        }
    }
}
