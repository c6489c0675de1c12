//! Reads and writes weights in files of safetensors and torch. Every tensor is checked by name and
//! shape.

pub mod dialect;
mod dtype;
mod error;
mod file_kind;
mod listing;
mod model;
pub mod onnx;
mod parts;
mod pixels;
mod safetensors_file;
mod shapes;
mod shards;
mod sizes;
mod torch_file;

pub use dtype::Dtype;
pub use error::Error;
pub use file_kind::is_weights;
pub use listing::{ListedModel, ListedModels, Listing, TensorEntry};
pub use model::{Hint, LoadedEncoder, MODEL_KEY, ModelFile, TEACHER_KEY, expect_told};
pub use pixels::{CHANNELS_KEY, DEPTH_KEY, NORMALIZE_KEY, PREPROCESSOR, pixel_metadata, processor};
pub use safetensors_file::{parse, save, save_as};
pub use sizes::Sizes;
pub use torch_file::save_torch;

use engine::{Parameter, Tensor};
use file_kind::FileKind;
use shapes::Shapes;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Tensors by name, as a file holds them.
pub type NamedTensors = BTreeMap<String, Tensor>;

/// A file's tensors and metadata.
#[derive(Debug, Default)]
pub struct File {
    /// Floating-point tensors by name, as f32, contiguous.
    pub tensors: NamedTensors,
    /// Names and types of tensors that cannot be weights: integers, booleans, complex numbers.
    pub others: BTreeMap<String, String>,
    /// Metadata by key. For a torch file, only those that [`save_torch`] wrote.
    pub metadata: HashMap<String, String>,
}

/// Whether the tensor of a name is to be read.
type IsWanted<'a> = &'a dyn Fn(&str) -> bool;

/// Refuses tensors with a value that `dtype` cannot hold.
pub fn expect_range(path: &Path, tensors: &[(String, Tensor)], dtype: Dtype) -> Result<(), Error> {
    let too_large =
        |(name, tensor): &(String, Tensor)| Some((name.clone(), dtype.too_large(tensor)?));
    match tensors.iter().find_map(too_large) {
        None => Ok(()),
        Some((name, value)) => {
            let (path, dtype) = (path.display().to_string(), dtype.kind().name);
            Err(Error::Range { path, name, value, dtype })
        }
    }
}

/// Reads all tensors of a safetensors file, of a torch file, or of the files that an index names.
/// The first bytes identify the format.
pub fn load(path: &Path) -> Result<File, Error> {
    load_some(path, &|_| true)
}

/// Reads the tensors whose names are wanted, and the metadata.
fn load_some(path: &Path, is_wanted: IsWanted<'_>) -> Result<File, Error> {
    match FileKind::of(path)? {
        FileKind::Zip => torch_file::load(path, is_wanted),
        FileKind::Index => shards::load(path, is_wanted),
        FileKind::Refused(problem) => Err(Error::torch(path, problem)),
        FileKind::Unknown => Err(file_kind::unknown(path)),
        FileKind::Safetensors => safetensors_file::load(path, is_wanted),
    }
}

/// Gives every parameter the tensor of its name. If a tensor is missing, unknown or of another
/// shape, this is an error and nothing is changed. `path` is for messages.
pub fn assign(
    path: &Path,
    named: &NamedTensors,
    parameters: &[(String, Parameter)],
) -> Result<(), Error> {
    fit(path, named, &parameters.iter().map(|(name, p)| (name.clone(), p.shape())).collect())?;
    for (name, parameter) in parameters {
        // The shapes were compared above.
        parameter.set_value(&named[name].to_host()).expect("the parameter's own size");
    }
    Ok(())
}

/// Refuses tensors that are missing, of another shape or unknown, and lists them.
fn fit(path: &Path, named: &NamedTensors, wanted: &Shapes) -> Result<(), Error> {
    let mut problems = Vec::new();
    for (name, shape) in wanted {
        match named.get(name) {
            None => problems.push(format!("missing {name}")),
            Some(tensor) if tensor.shape() != shape => {
                problems.push(format!("{name} is {:?}, the model needs {shape:?}", tensor.shape()))
            }
            Some(_) => {}
        }
    }
    let unknown = named.keys().filter(|name| !wanted.contains_key(*name));
    problems.extend(unknown.map(|name| format!("unexpected {name}")));
    if problems.is_empty() {
        return Ok(());
    }
    let shown = problems.iter().take(8).cloned().collect::<Vec<_>>().join("; ");
    let more = problems.len().saturating_sub(8);
    let problem = if more > 0 { format!("{shown}; and {more} more") } else { shown };
    let advice = "Set the model's sizes to those of the file, or choose another file";
    Err(Error::Fit { path: path.display().to_string(), problem, advice })
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
        let mut named: NamedTensors = values(&list[..1]).into_iter().collect();
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
