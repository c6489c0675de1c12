//! What a safetensors file holds, from its header alone.

use super::Error;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Most bytes of a header; the safetensors crate allows as many.
const MOST_HEADER_BYTES: u64 = 100_000_000;

/// A file's tensors in the order they are stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// Name, type and shape of each.
    pub tensors: Vec<Listed>,
    /// The file's own notes.
    pub metadata: Map<String, Value>,
}

/// A tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its type, e.g. F32.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<u64>,
    /// Its first byte and the one after its last.
    offsets: [u64; 2],
}

impl Listing {
    /// Reads the header of a file and checks that its tensors fill it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let read = |source| Error::read(path, source);
        let fail = |problem: String| Error::format(path, problem);
        let mut file = File::open(path).map_err(read)?;
        let len = file.metadata().map_err(read)?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|_| fail(format!("it has {len} bytes")))?;
        let length = u64::from_le_bytes(length);
        if length > MOST_HEADER_BYTES || length + 8 > len {
            return Err(fail(format!("it states a header of {length} bytes and has {len}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(read)?;
        let listing = Self::parse(&header).map_err(fail)?;
        let end = listing.tensors.iter().map(|tensor| tensor.offsets[1]).max().unwrap_or(0);
        if end != len - 8 - length {
            let found = len - 8 - length;
            return Err(fail(format!("its tensors take {end} bytes, it has {found}")));
        }
        Ok(listing)
    }

    fn parse(header: &[u8]) -> Result<Self, String> {
        let mut header: Map<String, Value> =
            serde_json::from_slice(header).map_err(|error| format!("its header: {error}"))?;
        let metadata = match header.remove("__metadata__") {
            Some(Value::Object(metadata)) => metadata,
            _ => Map::new(),
        };
        let tensor = |(name, value): (String, Value)| {
            let number = |value: &Value| value.as_u64();
            let numbers = |key: &str| -> Option<Vec<u64>> {
                value.get(key)?.as_array()?.iter().map(number).collect()
            };
            let tensor = || {
                let dtype = value.get("dtype")?.as_str()?.to_owned();
                let offsets = numbers("data_offsets")?.try_into().ok()?;
                Some(Listed { name: name.clone(), dtype, shape: numbers("shape")?, offsets })
            };
            tensor().ok_or_else(|| format!("tensor {name} has no dtype, shape or place"))
        };
        let mut tensors = header.into_iter().map(tensor).collect::<Result<Vec<_>, _>>()?;
        tensors.sort_by_key(|tensor| tensor.offsets);
        Ok(Self { tensors, metadata })
    }
}
