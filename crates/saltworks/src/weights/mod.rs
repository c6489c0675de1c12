//! Weights in and out of safetensors files, strict: every tensor by name and shape.

mod listing;

pub use listing::{Listed, Listing};

use crate::files::{Record, write_whole_with};
use engine::{Parameter, Tensor};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::path::Path;

/// Weights that cannot be read or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which file.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is no safetensors file.
    #[error("{path} is no whole safetensors file: {problem}. Export it again, or choose another")]
    Format {
        /// Which file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// A tensor has another type.
    #[error("{path}: tensor {name} is {found}, expected F32. Convert the file to f32")]
    Dtype {
        /// Which file.
        path: String,
        /// Which tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// The tensors are not the model's.
    #[error("{path} does not fit the model: {problem}. {advice}")]
    Fit {
        /// Which file.
        path: String,
        /// Which tensors.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
}

/// Tensors by name, as a file holds them.
pub type Named = BTreeMap<String, Tensor>;

/// A file's tensors, and what was written beside them.
#[derive(Debug)]
pub struct File {
    /// By name.
    pub tensors: Named,
    /// By key.
    pub metadata: HashMap<String, String>,
}

impl File {
    /// The tensors of the encoder: those under `encoder.` or `student.` without that prefix where a
    /// file holds more than an encoder, else all; as stable-pretraining's SALT.from_checkpoint.
    pub fn encoder(&self) -> Named {
        for prefix in ["encoder.", "student."] {
            let parts = self.tensors.iter().filter_map(|(name, tensor)| {
                Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()))
            });
            let parts: Named = parts.collect();
            if !parts.is_empty() {
                return parts;
            }
        }
        self.tensors.clone()
    }
}

/// Writes tensors to `path`, whole or not at all. The same tensors give the same bytes: the crate's
/// `serialize` orders metadata as a hash map does, differently in every process, so the header is
/// made here. Format: <https://huggingface.co/docs/safetensors>, "Format".
pub fn save(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: &HashMap<String, String>,
) -> Result<Record, Error> {
    let header = header(tensors, metadata);
    let written = write_whole_with(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        tensors.iter().try_for_each(|(_, tensor)| write_values(file, tensor.as_slice()))
    });
    written.map_err(|source| Error::Write { path: path.display().to_string(), source })
}

fn header(tensors: &[(String, Tensor)], metadata: &HashMap<String, String>) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    header.insert("__metadata__".to_owned(), json!(metadata));
    let mut begin = 0;
    for (name, tensor) in tensors {
        let end = begin + size_of::<f32>() * tensor.len();
        let (shape, offsets) = (tensor.shape(), [begin, end]);
        let entry = json!({ "dtype": "F32", "shape": shape, "data_offsets": offsets });
        header.insert(name.clone(), entry);
        begin = end;
    }
    let mut header = Value::from(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    header
}

fn write_values(file: &mut dyn Write, values: &[f32]) -> io::Result<()> {
    let mut bytes = Vec::new();
    for values in values.chunks(1 << 14) {
        bytes.clear();
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        file.write_all(&bytes)?;
    }
    Ok(())
}

/// Reads all of a file.
pub fn load(path: &Path) -> Result<File, Error> {
    let name = || path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: name(), source })?;
    parse(path, &bytes)
}

/// [`load`] of a file's content; `path` is for messages.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<File, Error> {
    let name = || path.display().to_string();
    let format = |error: safetensors::SafeTensorError| Error::Format {
        path: name(),
        problem: error.to_string(),
    };
    let file = SafeTensors::deserialize(bytes).map_err(format)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(format)?;
    let tensors = file
        .iter()
        .map(|(tensor, view)| {
            if view.dtype() != Dtype::F32 {
                let found = format!("{:?}", view.dtype());
                return Err(Error::Dtype { path: name(), name: tensor.to_owned(), found });
            }
            let values: Vec<f32> = view
                .data()
                .chunks_exact(4)
                // Four bytes each, by the line above.
                .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes")))
                .collect();
            Ok((tensor.to_owned(), Tensor::from_vec(values, view.shape())))
        })
        .collect::<Result<_, _>>()?;
    Ok(File { tensors, metadata: header.metadata().clone().unwrap_or_default() })
}

/// Gives every parameter the tensor of its name; anything missing, left over or of another shape
/// is an error, and then nothing is changed. `path` is for messages.
pub fn assign(path: &Path, named: &Named, parameters: &[(String, Parameter)]) -> Result<(), Error> {
    let mut problems = Vec::new();
    for (name, parameter) in parameters {
        match named.get(name) {
            None => problems.push(format!("missing {name}")),
            Some(tensor) if tensor.shape() != parameter.shape() => problems.push(format!(
                "{name} is {:?}, the model needs {:?}",
                tensor.shape(),
                parameter.shape()
            )),
            Some(_) => {}
        }
    }
    let known = |name: &String| parameters.iter().any(|(other, _)| other == name);
    problems
        .extend(named.keys().filter(|name| !known(name)).map(|name| format!("unexpected {name}")));
    if !problems.is_empty() {
        let shown = problems.iter().take(8).cloned().collect::<Vec<_>>().join("; ");
        let more = problems.len().saturating_sub(8);
        let problem = if more > 0 { format!("{shown}; and {more} more") } else { shown };
        let advice = "Set the model's sizes to those of the file, or choose another file";
        return Err(Error::Fit { path: path.display().to_string(), problem, advice });
    }
    for (name, parameter) in parameters {
        // The shapes were compared above.
        parameter.set_value(named[name].as_slice()).expect("the parameter's own size");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters() -> Vec<(String, Parameter)> {
        let parameter = |name: &str, len: usize| {
            let values: Vec<f32> = (0..len).map(|x| x as f32).collect();
            (name.to_owned(), Parameter::new(name, Tensor::from_vec(values, &[len])))
        };
        vec![parameter("a", 3), parameter("b.weight", 5)]
    }

    fn values(list: &[(String, Parameter)]) -> Vec<(String, Tensor)> {
        list.iter().map(|(name, parameter)| (name.clone(), parameter.value())).collect()
    }

    #[test]
    fn a_file_gives_back_what_was_saved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        save(&path, &values(&parameters()), &HashMap::new()).unwrap();
        let other = parameters();
        other.iter().for_each(|(_, p)| p.set_value(&vec![0.0; p.value().len()]).unwrap());
        assign(&path, &load(&path).unwrap().tensors, &other).unwrap();
        assert_eq!(other[1].1.value().to_vec(), [0.0, 1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn the_same_weights_are_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = |name: &str| {
            let path = folder.path().join(name);
            // Each hash map has an order of its own.
            let metadata = ["a", "b", "c", "d", "e"].map(|key| (key.into(), "x".into())).into();
            save(&path, &values(&parameters()), &metadata).unwrap();
            assert_eq!(load(&path).unwrap().metadata["e"], "x");
            std::fs::read(&path).unwrap()
        };
        assert_eq!(bytes("one"), bytes("two"));
    }

    #[test]
    fn what_does_not_fit_is_listed_by_name_and_nothing_changes() {
        let list = parameters();
        let mut named: Named = values(&list[..1]).into_iter().collect();
        named.insert("a".into(), Tensor::zeros(&[4]));
        named.insert("c".into(), Tensor::zeros(&[1]));
        let message = assign(Path::new("f"), &named, &list).unwrap_err().to_string();
        for part in ["a is [4], the model needs [3]", "missing b.weight", "unexpected c"] {
            assert!(message.contains(part), "{message}");
        }
        assert_eq!(list[0].1.value().to_vec(), [0.0, 1.0, 2.0]);
    }

    #[test]
    fn a_broken_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        save(&path, &values(&parameters()), &HashMap::new()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 7, 20, whole.len() - 1] {
            crate::files::write_whole(&path, &whole[..cut]).unwrap();
            assert!(matches!(load(&path), Err(Error::Format { .. })), "cut at {cut}");
        }
        let mut huge = whole;
        huge[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        crate::files::write_whole(&path, &huge).unwrap();
        assert!(matches!(load(&path), Err(Error::Format { .. })));
    }
}
