//! Lists the contents of a file of weights. Only its header or its pickle is read.

use super::dialect::{self, Dialect};
use super::file_kind::{self, FileKind, MOST_HEADER_BYTES};
use super::model::{PARTS, json_beside, our_name};
use super::shapes::Shapes;
use super::{Error, Hint, MODEL_KEY, Sizes, TEACHER_KEY, sizes, torch_file};
use crate::files::open_file;
use crate::model::VitSpec;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// A file's tensors in the order in which they are stored. Those of torch files are sorted by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// Name, type and shape of each.
    pub tensors: Vec<TensorEntry>,
    /// The file's metadata. For a torch file, texts and numbers beside the tensors.
    pub metadata: Map<String, Value>,
    /// The key of a torch file's outer dictionary under which the tensors were found.
    pub container: Option<String>,
}

/// A tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// Its name.
    pub name: String,
    /// Its type, e.g. F32.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<u64>,
}

impl TensorEntry {
    /// How many values it has.
    pub fn values(&self) -> u64 {
        self.shape.iter().fold(1, |values, &side| values.saturating_mul(side))
    }
}

impl Listing {
    /// Reads the header of a safetensors file and checks that its tensors fill it, or the pickle of
    /// a torch file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        match FileKind::of(path)? {
            FileKind::Zip => torch_file::list(path),
            FileKind::Refused(problem) => Err(Error::torch(path, problem)),
            FileKind::Unknown => Err(file_kind::unknown(path)),
            FileKind::Safetensors => Self::read_safetensors(path),
        }
    }

    /// The dialect of the names, and the sizes of each encoder in words. Sizes come from the
    /// metadata, a `config.json` beside `path`, or the shapes. `None` and an empty list if it holds
    /// no supported model.
    pub fn encoders(&self, path: &Path) -> Result<(Option<Dialect>, Vec<String>), Error> {
        let names: Vec<&str> = self.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        let Ok(Some((dialect, before))) = dialect::find(&names) else {
            return Ok((None, Vec::new()));
        };
        let mut parts: BTreeMap<String, Shapes> = BTreeMap::new();
        for tensor in &self.tensors {
            let ours = our_name(dialect, before, &tensor.name);
            if let Some((part, name)) = ours.as_deref().and_then(|ours| ours.split_once('.')) {
                let shape = tensor.shape.iter().map(|&side| side as usize).collect();
                parts.entry(part.to_owned()).or_default().insert(name.to_owned(), shape);
            }
        }
        let config = match dialect {
            Dialect::HuggingFace => json_beside(path, "config.json")?,
            _ => None,
        };
        let sizes = |part: &str, shapes: &Shapes| {
            let beside_student = part == "teacher" && parts.len() > 1;
            let key = if beside_student { TEACHER_KEY } else { MODEL_KEY };
            let stated = self.metadata.get(key).or_else(|| {
                // As `save_torch` writes it.
                self.metadata.get(&format!("saltworks.{key}"))
            });
            match stated.and_then(Value::as_str) {
                Some(text) => serde_json::from_str(text)
                    .map(|spec| Sizes { spec, guessed: None })
                    .map_err(|error| format!("metadata `{key}`: {error}")),
                None => sizes::of(shapes, config.as_ref(), Hint::default()),
            }
        };
        let of_part = |(part, shapes): (&String, &Shapes)| match sizes(part, shapes) {
            Ok(Sizes { spec, guessed }) => in_words(part, &spec, guessed.as_deref()),
            Err(problem) => format!("{part} {problem}"),
        };
        let encoders = parts.iter().filter(|(part, _)| PARTS.contains(&part.as_str()));
        Ok((Some(dialect), encoders.map(of_part).collect()))
    }

    fn read_safetensors(path: &Path) -> Result<Self, Error> {
        let read = |source| Error::read(path, source);
        let fail = |problem: String| Error::format(path, problem);
        let mut file = open_file(path).map_err(read)?;
        let len = file.metadata().map_err(read)?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(|_| fail(format!("it has {len} bytes")))?;
        let length = u64::from_le_bytes(length);
        if length > MOST_HEADER_BYTES || length + 8 > len {
            return Err(fail(format!("it states a header of {length} bytes and has {len}")));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(read)?;
        Self::of_header(&header, len - 8 - length).map_err(fail)
    }

    /// Parses a safetensors header that `found` bytes follow.
    pub(super) fn of_header(header: &[u8], found: u64) -> Result<Self, String> {
        let mut header: Map<String, Value> =
            serde_json::from_slice(header).map_err(|error| format!("its header: {error}"))?;
        let metadata = match header.remove("__metadata__") {
            Some(Value::Object(metadata)) => metadata,
            _ => Map::new(),
        };
        let mut placed = header.into_iter().map(listed).collect::<Result<Vec<_>, _>>()?;
        placed.sort_by_key(|&(offsets, _)| offsets);
        let end = placed.iter().map(|([_, end], _)| *end).max().unwrap_or(0);
        if end != found {
            return Err(format!("its tensors take {end} bytes, it has {found}"));
        }
        let tensors = placed.into_iter().map(|(_, tensor)| tensor).collect();
        Ok(Self { tensors, metadata, container: None })
    }
}

/// An encoder's sizes in a line.
fn in_words(part: &str, spec: &VitSpec, guessed: Option<&str>) -> String {
    let [_, height, width] = spec.image;
    let [_, ph, pw] = spec.patch;
    let guessed = guessed.map_or(String::new(), |words| format!("; {words}"));
    format!(
        "{part}: {} wide, {} blocks, {} heads, patches of {ph} x {pw}, images of {height} x \
         {width} with {} channels{guessed}",
        spec.width, spec.depth, spec.heads, spec.channels
    )
}

/// A tensor of a safetensors header, with the offsets of its first byte and of its end.
fn listed((name, value): (String, Value)) -> Result<([u64; 2], TensorEntry), String> {
    let numbers = |key: &str| -> Option<Vec<u64>> {
        value.get(key)?.as_array()?.iter().map(Value::as_u64).collect()
    };
    let problem = format!("tensor {name} has no dtype, shape or data_offsets");
    let tensor = || {
        let dtype = value.get("dtype")?.as_str()?.to_owned();
        let place = numbers("data_offsets")?.try_into().ok()?;
        Some((place, TensorEntry { name, dtype, shape: numbers("shape")? }))
    };
    tensor().ok_or(problem)
}
