//! Lists the contents of a file of weights. Only its header or its pickle is read.

use super::dialect::Dialect;
use super::dtype::KINDS;
use super::error::not_a_weight;
use super::file_kind::{self, FileKind};
use super::model::json_beside;
use super::parts::{self, FoundModel, OWNERS};
use super::shapes::Shapes;
use super::{
    Error, Hint, MODEL_KEY, Sizes, TEACHER_KEY, safetensors_file, shards, sizes, torch_file,
};
use crate::files::open_file;
use crate::mask::Grid;
use crate::model::VitSpec;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// A file's tensors in the order in which they are stored. Those of torch files are sorted by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// Name, type and shape of each.
    pub tensors: Vec<TensorEntry>,
    /// The file's metadata. For a torch file, texts and numbers beside the tensors.
    pub metadata: Map<String, Value>,
}

/// What the names in a file say.
#[derive(Clone, Debug)]
pub struct ListedModels {
    /// The models.
    pub models: Vec<ListedModel>,
    /// The first words of the names that belong to no model, with the numbers of their tensors and
    /// values.
    pub others: Vec<(String, usize, u64)>,
    /// Why none of the models would be read.
    pub problem: Option<String>,
}

/// A model in a file.
#[derive(Clone, Debug)]
pub struct ListedModel {
    /// Whose names it uses.
    pub dialect: Dialect,
    /// What stands before its names.
    pub words: String,
    /// Its encoders with their sizes, for people.
    pub encoders: Vec<String>,
    /// How many tensors it has.
    pub tensors: usize,
    /// How many values those have.
    pub values: u64,
    /// Whether it is the one that would be read.
    pub is_taken: bool,
    /// Why it cannot be read: the first tensor of a kind or a type that no weight can have.
    pub problem: Option<String>,
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
    /// Why it cannot be read, if it cannot, whatever its type.
    pub problem: Option<String>,
}

impl TensorEntry {
    /// How many values it has.
    pub fn values(&self) -> u64 {
        self.shape.iter().fold(1, |values, &side| values.saturating_mul(side))
    }

    /// Why an encoder that has it under our name `ours` cannot be read, if it cannot. Other tensors
    /// than weights may have any type.
    fn refusal(&self, ours: &str) -> Option<String> {
        if self.problem.is_some() {
            return self.problem.clone();
        }
        let last = ours.rsplit('.').next().unwrap_or_default();
        let kind = KINDS.iter().find(|kind| kind.name == self.dtype);
        let is_float = kind.is_some_and(|kind| kind.decoder().is_some());
        (WEIGHTS.contains(&last) && !is_float).then(|| not_a_weight(&self.name, &self.dtype))
    }
}

impl Listing {
    /// Reads the header of a safetensors file and checks that its tensors fill it, or the pickle of
    /// a torch file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        match FileKind::of(path)? {
            FileKind::Zip => torch_file::list(path),
            FileKind::Index => shards::list(path),
            FileKind::Refused(problem) => Err(Error::torch(path, problem)),
            FileKind::Unknown => Err(file_kind::unknown(path)),
            FileKind::Safetensors => Self::read_safetensors(path),
        }
    }

    /// What the names say: the models, the one that would be read, and what belongs to none.
    /// `part` names a model, as for [`ModelFile::open`](super::ModelFile::open). Sizes come from
    /// the metadata, a `config.json` beside `path`, or the shapes. Positions are those of `grid`,
    /// if they are as many.
    pub fn contents(
        &self,
        path: &Path,
        part: Option<&str>,
        grid: Option<Grid>,
    ) -> Result<ListedModels, Error> {
        let names = || self.tensors.iter().map(|tensor| tensor.name.as_str());
        let found = parts::find(names());
        let taken = match found.is_empty() {
            true => Err(parts::none_found(names())),
            false => parts::choose(&found, part),
        };
        let mut models = Vec::new();
        for (at, model) in found.iter().enumerate() {
            let is_of = |tensor: &&TensorEntry| model.our_name(&tensor.name).is_some();
            let tensors = self.tensors.iter().filter(is_of);
            let refusal = |tensor: &TensorEntry| tensor.refusal(&model.our_name(&tensor.name)?);
            let problem = tensors.clone().find_map(refusal);
            models.push(ListedModel {
                dialect: model.dialect,
                words: model.words().to_owned(),
                encoders: self.encoders(model, path, grid)?,
                tensors: tensors.clone().count(),
                values: tensors.map(TensorEntry::values).fold(0, u64::saturating_add),
                is_taken: taken.as_ref().is_ok_and(|(taken, ..)| *taken == at),
                problem,
            });
        }
        let mut others: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
        for tensor in &self.tensors {
            if found.iter().all(|model| model.our_name(&tensor.name).is_none()) {
                let (word, _) = tensor.name.split_once('.').unwrap_or((&tensor.name, ""));
                let (tensors, values) = others.entry(word).or_default();
                *tensors += 1;
                *values = values.saturating_add(tensor.values());
            }
        }
        let others =
            others.into_iter().map(|(word, (tensors, values))| (word.to_owned(), tensors, values));
        Ok(ListedModels { models, others: others.collect(), problem: taken.err() })
    }

    /// The sizes of each encoder of a model, in words.
    fn encoders(
        &self,
        model: &FoundModel,
        path: &Path,
        given: Option<Grid>,
    ) -> Result<Vec<String>, Error> {
        let mut parts: BTreeMap<String, Shapes> = BTreeMap::new();
        for tensor in &self.tensors {
            let ours = model.our_name(&tensor.name);
            if let Some((part, name)) = ours.as_deref().and_then(|ours| ours.split_once('.')) {
                let shape = tensor.shape.iter().map(|&side| side as usize).collect();
                parts.entry(part.to_owned()).or_default().insert(name.to_owned(), shape);
            }
        }
        let config = match model.dialect {
            Dialect::HuggingFace => json_beside(path, "config.json")?,
            _ => None,
        };
        let sizes = |part: &str, shapes: &Shapes, heads: Option<(usize, usize)>| {
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
                None => {
                    let mut shapes = shapes.clone();
                    let grid = match model.dialect {
                        Dialect::Dinov2 | Dialect::HuggingFace => {
                            sizes::without_class_position(&mut shapes)
                        }
                        _ => None,
                    };
                    let grid = given.or(grid);
                    sizes::of(&shapes, config.as_ref(), Hint { heads, grid, ..Hint::default() })
                }
            }
        };
        let of_part = |(part, shapes): (&String, &Shapes)| match sizes(part, shapes, None) {
            Ok(Sizes { spec, guessed }) => in_words(part, &spec, guessed.as_deref()),
            Err(problem) => {
                // Without heads, all other sizes may be known.
                let width = shapes.get("patch_embed.proj.weight").and_then(|s| s.first().copied());
                let known = sizes(part, shapes, width.map(|width| (width, 1))).ok();
                let known = known.map(|found| in_words(part, &found.spec, None));
                match known {
                    Some(text) => format!("{}; it {problem}", text.replace("1 heads, ", "")),
                    None => format!("{part} {problem}"),
                }
            }
        };
        let encoders = parts.iter().filter(|(part, _)| OWNERS.contains(&part.as_str()));
        Ok(encoders.map(of_part).collect())
    }

    fn read_safetensors(path: &Path) -> Result<Self, Error> {
        let read = |source| Error::read(path, source);
        let mut file = open_file(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let (header, _) = safetensors_file::read_header(path, &mut file, length)?;
        let listed = |name: String| {
            let info = header.info(&name)?;
            let shape = info.shape.iter().map(|&side| side as u64).collect();
            Some(TensorEntry { dtype: format!("{:?}", info.dtype), shape, problem: None, name })
        };
        let metadata = header.metadata().iter().flatten();
        Ok(Self {
            tensors: header.offset_keys().into_iter().filter_map(listed).collect(),
            metadata: metadata.map(|(key, text)| (key.clone(), text.as_str().into())).collect(),
        })
    }
}

/// The last words of an encoder's weights.
const WEIGHTS: [&str; 6] = ["weight", "bias", "gamma", "cls_token", "reg_token", "pos_embed"];

/// An encoder's sizes in a line.
fn in_words(part: &str, spec: &VitSpec, guessed: Option<&str>) -> String {
    let sides = |[frames, height, width]: [usize; 3]| match spec.image[0] {
        1 => format!("{height} x {width}"),
        _ => format!("{frames} x {height} x {width}"),
    };
    let samples = if spec.image[0] == 1 { "images" } else { "clips" };
    let (patch, image) = (sides(spec.patch), sides(spec.image));
    let guessed = guessed.map_or(String::new(), |words| format!("; {words}"));
    let features = spec.features();
    let more: String = features.iter().map(|words| format!(", {words}")).collect();
    format!(
        "{part}: {} wide, {} blocks, {} heads, patches of {patch}, {samples} of {image} with {} \
         channels{more}{guessed}",
        spec.width, spec.depth, spec.heads, spec.channels
    )
}
