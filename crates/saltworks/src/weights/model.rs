//! A model that is read from any supported kind of file, under our names.

use super::dialect::{Dialect, expect_supported, join_qkv};
use super::parts::{self, FoundModel, OWNERS};
use super::shapes::{self, Shapes};
use super::{
    Error, File, IsWanted, Listing, NamedTensors, PREPROCESSOR, Sizes, assign, fit, load_some,
    pixels, sizes,
};
use crate::files::{open_file, read_most};
use crate::mask::Grid;
use crate::model::{Encoder, VitSpec, position};
use crate::recipe::{Depth, Normalize};
use engine::{Module as _, Tensor};
use serde_json::Value;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

/// The key of a file's metadata that holds the encoder's [`VitSpec`] as JSON.
pub const MODEL_KEY: &str = "model";

/// The key for the teacher's [`VitSpec`] in a student's file.
pub const TEACHER_KEY: &str = "teacher_model";

/// Names of files of weights in a folder of transformers. The first is also the name in the folder
/// of our stages. Those of `index` join several files. The order is that of transformers.
const FILES: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// The tensors of a file under our names, and what the file states.
#[derive(Debug)]
pub struct ModelFile {
    /// Whose names the file uses.
    pub dialect: Dialect,
    /// `encoder.`, `student.` or `teacher.` and timm's names; `decoder.`, `predictor.`.
    pub tensors: NamedTensors,
    /// Names in the file that belong to no encoder, decoder or predictor of it.
    pub left_out: Vec<String>,
    /// Notes for the user.
    pub notes: Vec<String>,
    model: FoundModel,
    /// The encoder that is meant if none is named.
    chosen: &'static str,
    /// The grid of its positions, if the form of the file tells it.
    grid: Option<Grid>,
    path: PathBuf,
    file: File,
    /// The `config.json` beside it.
    config: Option<Value>,
    /// The `preprocessor_config.json` beside it.
    processor: Option<Value>,
}

impl ModelFile {
    /// The file of weights at `path`: the file itself, or the one in the folder.
    pub fn find(path: &Path) -> Result<PathBuf, Error> {
        if !path.is_dir() {
            return Ok(path.into());
        }
        FILES.iter().map(|name| path.join(name)).find(|file| file.exists()).ok_or_else(|| {
            let names = FILES.join(" or ");
            let problem = format!(
                "is a folder without {names}, expected a weights file, a stage's folder such as \
                 RUN/teacher, or a transformers folder"
            );
            Error::model(path, problem)
        })
    }

    /// Reads a file of weights, or the one in a folder. `part` names one of several models or
    /// encoders in it, by words before its names. Without it, the sensible one is taken, and a note
    /// says which. Only the tensors of that model are read. Models of transformers are read with
    /// the `config.json` beside them.
    pub fn open(path: &Path, part: Option<&str>) -> Result<Self, Error> {
        let path = &Self::find(path)?;
        let listing = Listing::read(path)?;
        let names: Vec<&str> = listing.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        let mut model = Self::of(path, &names, part, |is_wanted| load_some(path, is_wanted))?;
        let beside = |name: &str| match model.dialect {
            Dialect::HuggingFace => json_beside(path, name),
            _ => Ok(None),
        };
        let (config, processor) = (beside("config.json")?, beside(PREPROCESSOR)?);
        let supported = config.as_ref().map_or(Ok(()), expect_supported);
        supported.map_err(|problem| Error::model(path, problem))?;
        if config.as_ref().and_then(|config| config.get("qkv_bias")) == Some(&Value::Bool(false)) {
            model.notes.extend(add_biases(&mut model.tensors, "encoder"));
        }
        Ok(Self { config, processor, ..model })
    }

    /// The model of tensors in memory, for example of a state dict. `what` names them in messages.
    pub fn of_tensors(what: &str, tensors: NamedTensors) -> Result<Self, Error> {
        let names: Vec<String> = tensors.keys().cloned().collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        Self::of(Path::new(what), &names, None, |is_wanted| {
            let tensors = tensors.into_iter().filter(|(name, _)| is_wanted(name)).collect();
            Ok(File { tensors, ..File::default() })
        })
    }

    fn of(
        path: &Path,
        names: &[&str],
        part: Option<&str>,
        read: impl FnOnce(IsWanted<'_>) -> Result<File, Error>,
    ) -> Result<Self, Error> {
        let fail = |problem: String| Error::model(path, problem);
        let mut found = parts::find(names.iter().copied());
        if found.is_empty() {
            return Err(fail(parts::none_found(names.iter().copied())));
        }
        let (at, chosen, note) = parts::choose(&found, part).map_err(fail)?;
        let model = found.swap_remove(at);
        let mut file = read(&|name| model.our_name(name).is_some())?;
        let mut tensors = NamedTensors::new();
        for (name, tensor) in std::mem::take(&mut file.tensors) {
            if let Some(ours) = model.our_name(&name) {
                add(&mut tensors, ours, &name, tensor).map_err(fail)?;
            }
        }
        let left_out = names.iter().filter(|name| model.our_name(name).is_none());
        let left_out = left_out.map(|name| (*name).to_owned()).collect();
        join_qkv(&mut tensors);
        let mut notes: Vec<String> = note.into_iter().collect();
        if let Some((name, dtype)) = file.others.iter().next() {
            notes.push(format!(
                "tensors that are not of floats are not read: {}, such as {name} ({dtype})",
                file.others.len()
            ));
        }
        // transformers states in its config.json whether there are biases.
        if model.dialect != Dialect::HuggingFace {
            model.owners.iter().for_each(|owner| notes.extend(add_biases(&mut tensors, owner)));
        }
        let has_registers = matches!(model.dialect, Dialect::Dinov2 | Dialect::HuggingFace);
        let grid = has_registers.then(|| place_registers(&mut tensors)).flatten();
        let (config, processor) = (None, None);
        let (dialect, path) = (model.dialect, path.into());
        Ok(Self {
            dialect,
            tensors,
            left_out,
            notes,
            model,
            chosen,
            grid,
            path,
            file,
            config,
            processor,
        })
    }

    /// The path from which it was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's metadata.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.file.metadata
    }

    /// The tensors of an encoder under timm's names. `part` is `encoder`, `student` or `teacher`.
    /// Without it, the one that was chosen when the file was opened is used.
    pub fn encoder(&self, part: Option<&str>) -> Result<NamedTensors, Error> {
        Ok(self.part(part)?.1)
    }

    /// The encoders in the file.
    fn parts(&self) -> Vec<&'static str> {
        let has =
            |part: &&str| self.tensors.keys().any(|name| name.starts_with(&format!("{part}.")));
        OWNERS.into_iter().filter(has).collect()
    }

    /// [`ModelFile::encoder`] with its name.
    fn part(&self, wanted: Option<&str>) -> Result<(&'static str, NamedTensors), Error> {
        let parts = self.parts();
        let part = parts.iter().find(|part| **part == wanted.unwrap_or(self.chosen));
        let Some(part) = part else {
            let found = if parts.is_empty() { "none".to_owned() } else { parts.join(" and ") };
            let wanted = wanted.unwrap_or(self.chosen);
            let problem = format!("holds no {wanted}; found {found}. Choose another part or file");
            return Err(self.why_no_sizes(wanted, problem));
        };
        let of_part = |(name, tensor): (&String, &Tensor)| {
            let name = name.strip_prefix(part)?.strip_prefix('.')?;
            Some((name.to_owned(), tensor.clone()))
        };
        Ok((part, self.tensors.iter().filter_map(of_part).collect()))
    }

    /// The width of the encoder `part` (see [`ModelFile::encoder`]), 0 if it is unknown.
    pub fn width(&self, part: Option<&str>) -> Result<usize, Error> {
        Ok(width(&self.part(part)?.1))
    }

    /// The sizes that the file's metadata state under `key`, if any.
    fn stated(&self, key: &str) -> Result<Option<VitSpec>, Error> {
        let Some(text) = self.file.metadata.get(key) else { return Ok(None) };
        let parsed = serde_json::from_str(text).map(Some);
        parsed.map_err(|error| {
            let problem = format!(
                "its metadata `{key}` is not readable: {error}. Save it again, or remove the \
                 metadata"
            );
            Error::model(&self.path, problem)
        })
    }

    /// The normalisation that an encoder of `channels` channels expects, if it is known. It comes
    /// from the file's metadata or a `preprocessor_config.json` of transformers.
    pub fn normalize(&self, channels: usize) -> Result<Option<Normalize>, Error> {
        pixels::normalize(&self.path, &self.file.metadata, self.processor.as_ref(), channels)
    }

    /// The values of images of more than eight bits that become black and white, if the file's
    /// metadata state them.
    pub fn depth(&self) -> Result<Option<Depth>, Error> {
        pixels::depth(&self.path, &self.file.metadata)
    }

    /// The sizes of the encoder `part` (see [`ModelFile::encoder`]). The file states them, or they
    /// come from its tensors' shapes, `config.json` and `hint`. [`ModelFile::load_encoder`] checks
    /// them against the tensors.
    pub fn sizes(&self, part: Option<&str>, hint: Hint) -> Result<Sizes, Error> {
        let (part, tensors) = self.part(part)?;
        self.sizes_of(part, &tensors, hint)
    }

    fn sizes_of(&self, part: &str, tensors: &NamedTensors, hint: Hint) -> Result<Sizes, Error> {
        let hint = Hint { grid: hint.grid.or(self.grid), ..hint };
        let fail = |problem: String| Error::model(&self.path, problem);
        let beside_student = part == "teacher" && self.parts().len() > 1;
        let found = match self.stated(if beside_student { TEACHER_KEY } else { MODEL_KEY })? {
            Some(spec) => Sizes { spec, guessed: None },
            None => sizes::of(&shapes::of(tensors), self.config.as_ref(), hint)
                .map_err(|problem| self.why_no_sizes(part, problem))?,
        };
        found.spec.check().map_err(|error| fail(error.to_string()))?;
        Ok(found)
    }

    /// Why an encoder's sizes cannot be told: a tensor that states them may have a type that no
    /// weight can have, or belong to another kind of encoder.
    fn why_no_sizes(&self, part: &str, problem: String) -> Error {
        let states_sizes = |name: &String| {
            let ours = self.model.our_name(name).unwrap_or_default();
            let ours = ours.strip_prefix(part).and_then(|ours| ours.strip_prefix('.'));
            ours.is_some_and(|ours| ours.starts_with("blocks.") || ours.starts_with("patch_embed."))
        };
        if let Some((name, found)) = self.file.others.iter().find(|(name, _)| states_sizes(name)) {
            let path = self.path.display().to_string();
            return Error::Dtype { path, name: name.clone(), found: found.clone() };
        }
        let has = |words: &str| self.tensors.keys().any(|name| name.contains(words));
        match FEATURES.iter().find(|(name, _)| has(name)) {
            Some((_, what)) => {
                let words = "which is not read. Choose another file";
                Error::model(&self.path, format!("{problem}. It has {what}, {words}"))
            }
            None => Error::model(&self.path, problem),
        }
    }

    /// Checks every tensor of the file by name and shape against its encoders, predictor and
    /// decoder. All values must be finite.
    pub fn check_whole(&self, mut hint: Hint) -> Result<(), Error> {
        let (mut wanted, mut width) = (Shapes::new(), 0);
        for part in self.parts() {
            let (_, tensors) = self.part(Some(part))?;
            // Heads cannot be derived from shapes. Those of a teacher of another width do not
            // matter here.
            let own = self::width(&tensors);
            hint.heads = hint.heads.filter(|(of, _)| *of == own).or(Some((own, 1)));
            let spec = self.sizes_of(part, &tensors, hint)?.spec;
            // A teacher sees the same patches as its student.
            hint.grid = hint.grid.or(Some(spec.grid()));
            width = if width == 0 { spec.width } else { width };
            let shapes = shapes::encoder(&spec).into_iter();
            wanted.extend(shapes.map(|(name, shape)| (format!("{part}.{name}"), shape)));
        }
        self.expect_weights(wanted.keys())?;
        shapes::fit_stage(&self.path, &self.tensors, wanted, width).map_err(of_another_kind)?;
        self.expect_finite(&self.tensors)
    }

    /// Refuses tensors of these names with a type that no weight can have.
    fn expect_weights<'a>(&self, names: impl Iterator<Item = &'a String>) -> Result<(), Error> {
        let joined = |name: &str| {
            let parts = [".attn.q.", ".attn.k.", ".attn.v."].into_iter();
            parts.fold(name.to_owned(), |name, part| name.replacen(part, ".attn.qkv.", 1))
        };
        let others =
            self.file.others.iter().filter_map(|(name, found)| {
                Some((joined(&self.model.our_name(name)?), (name, found)))
            });
        let others: HashMap<String, (&String, &String)> = others.collect();
        match names.into_iter().find_map(|name| others.get(name)) {
            None => Ok(()),
            Some((name, found)) => {
                let (path, name, found) = (self.path.display().to_string(), *name, *found);
                Err(Error::Dtype { path, name: name.clone(), found: found.clone() })
            }
        }
    }

    fn expect_finite(&self, tensors: &NamedTensors) -> Result<(), Error> {
        let finite = |tensor: &Tensor| tensor.to_host().iter().all(|value| value.is_finite());
        match tensors.iter().find(|(_, tensor)| !finite(tensor)) {
            None => Ok(()),
            Some((name, _)) => {
                let problem = "holds values that are not finite: its training diverged";
                Err(Error::model(&self.path, format!("tensor {name} {problem}")))
            }
        }
    }

    /// Loads the encoder `part` (see [`ModelFile::encoder`]). Every tensor is checked by name and
    /// shape, and all must be finite. The position table is resized if `image`, [T, H, W], differs
    /// from the image the encoder was trained for.
    pub fn load_encoder(
        &self,
        part: Option<&str>,
        hint: Hint,
        image: Option<[usize; 3]>,
    ) -> Result<LoadedEncoder, Error> {
        let (part, mut tensors) = self.part(part)?;
        let Sizes { spec: made_for, guessed } = self.sizes_of(part, &tensors, hint)?;
        let normalize = self.normalize(made_for.channels)?;
        // Checks come before any allocation that relies on the file's claims.
        let wanted = shapes::encoder(&made_for);
        let names: Vec<String> = wanted.keys().map(|name| format!("{part}.{name}")).collect();
        self.expect_weights(names.iter())?;
        fit(&self.path, &tensors, &wanted).map_err(of_another_kind)?;
        self.expect_finite(&tensors)?;
        let spec = VitSpec { image: image.unwrap_or(made_for.image), ..made_for.clone() };
        spec.check().map_err(|error| Error::model(&self.path, error.to_string()))?;
        let resized = (spec.grid() != made_for.grid()).then(|| [made_for.grid(), spec.grid()]);
        if resized.is_some() {
            resize(&mut tensors, &made_for, spec.grid());
        }
        let encoder = Encoder::new(&spec, 0);
        assign(&self.path, &tensors, &encoder.parameters())?;
        let behind_mean = spec.fc_norm.then(|| BEHIND_MEAN.to_owned());
        let notes = self.notes.iter().cloned().chain(guessed).chain(behind_mean).collect();
        Ok(LoadedEncoder { encoder, resized, normalize, notes })
    }
}

/// Refuses an encoder in the file `path` that states other sizes than its user does: another grid
/// of positions, number of heads or ε.
pub fn expect_told(path: &Path, told: Hint, found: &VitSpec) -> Result<(), Error> {
    let other = |option: &str, told: String, has: String| {
        let advice = format!("Leave out {option}");
        Error::model(path, format!("has {has}, but {option} is {told}. {advice}"))
    };
    if let Some((_, heads)) = told.heads.filter(|(_, heads)| *heads != found.heads) {
        return Err(other("--heads", heads.to_string(), format!("{} heads", found.heads)));
    }
    if let Some(eps) = told.eps.filter(|eps| *eps != found.eps) {
        return Err(other(
            "--eps",
            format!("{eps:e}"),
            format!("norms with an ε of {:e}", found.eps),
        ));
    }
    let (Some(stated), found) = (told.grid, found.grid()) else { return Ok(()) };
    if stated == found {
        return Ok(());
    }
    let (count, needed) = (found.len(), stated.len());
    let problem = format!(
        "its positions are those of {found} patches, {count} in all, but a grid of {stated} is \
         stated, {needed} in all. State the rows and columns that it was trained with, or none"
    );
    Err(Error::model(path, problem))
}

fn width(encoder: &NamedTensors) -> usize {
    let weight = encoder.get("patch_embed.proj.weight");
    weight.and_then(|weight| weight.shape().first()).copied().unwrap_or(0)
}

/// Adds a tensor. A second one of this name must have the same values.
fn add(tensors: &mut NamedTensors, ours: String, name: &str, tensor: Tensor) -> Result<(), String> {
    let same = |first: &Tensor| {
        let bits =
            |tensor: &Tensor| tensor.to_host().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        first.shape() == tensor.shape() && bits(first) == bits(&tensor)
    };
    if tensors.get(&ours).is_some_and(|first| !same(first)) {
        return Err(format!(
            "has two tensors for {ours}, one of them {name}, with different values. Remove one"
        ));
    }
    tensors.insert(ours, tensor);
    Ok(())
}

/// Adds zeros for biases that an encoder was built without: the same function. Says so.
fn add_biases(tensors: &mut NamedTensors, owner: &str) -> Vec<String> {
    let mut notes = Vec::new();
    for (layer, what) in [("attn.qkv", "queries, keys and values"), ("patch_embed.proj", "patches")]
    {
        let is_of = |name: &str, kind: &str| {
            let name = name.strip_prefix(owner).and_then(|name| name.strip_prefix('.'));
            let layer_of = name.and_then(|name| name.strip_suffix(kind));
            layer_of.is_some_and(|found| found == layer || found.ends_with(&format!(".{layer}")))
        };
        if tensors.keys().any(|name| is_of(name, ".bias")) {
            continue;
        }
        let biases = tensors.iter().filter(|(name, _)| is_of(name, ".weight"));
        let biases = biases.filter_map(|(name, weight)| {
            let name = format!("{}.bias", name.strip_suffix(".weight")?);
            Some((name, Tensor::zeros(&[*weight.shape().first()?])))
        });
        let biases: Vec<_> = biases.collect();
        if !biases.is_empty() {
            notes.push(format!("its {what} have no bias, so zeros are added"));
        }
        tensors.extend(biases);
    }
    notes
}

/// Gives registers the form that timm gives them (models/vision_transformer.py,
/// `_convert_dinov2`): in DINOv2 the class token has a position and registers have none. In timm
/// neither has, so the position is added to the token. Returns the grid of all other positions.
fn place_registers(tensors: &mut NamedTensors) -> Option<Grid> {
    let [registers, token, table] = ["encoder.reg_token", "encoder.cls_token", "encoder.pos_embed"]
        .map(|name| tensors.get(name));
    let (_, token, table) = (registers?, token?, table?);
    let &[1, rows, width] = table.shape() else { return None };
    let grid = sizes::square_behind_class(rows)?;
    if token.shape() != [1, 1, width] {
        return None;
    }
    let (token, table) = (token.to_host(), table.to_host());
    let (first, rest) = table.split_at(width);
    let sum: Vec<f32> = token.iter().zip(first).map(|(token, place)| token + place).collect();
    let rest = Tensor::from_vec(rest, &[1, rows - 1, width]);
    tensors.insert("encoder.cls_token".to_owned(), Tensor::from_vec(sum, &[1, 1, width]));
    tensors.insert("encoder.pos_embed".to_owned(), rest);
    Some(grid)
}

/// Sizes that a file may leave open.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hint {
    /// A width, and the heads of an encoder of this width.
    pub heads: Option<(usize, usize)>,
    /// The grid that the position table was made for, if the user states it. See [`expect_told`].
    pub grid: Option<Grid>,
    /// The ε of its layer norms, if the user states it.
    pub eps: Option<f32>,
    /// The image [T, H, W] to assume if the file states none and its patches form no square.
    pub image: Option<[usize; 3]>,
}

/// An encoder from a file.
pub struct LoadedEncoder {
    /// With the file's weights.
    pub encoder: Encoder,
    /// The old and new grid of its position table, if it was resized.
    pub resized: Option<[Grid; 2]>,
    /// The normalisation it expects, if known. See [`ModelFile::normalize`].
    pub normalize: Option<Normalize>,
    /// Notes for the user: sizes that were guessed, and what differs from a plain encoder.
    pub notes: Vec<String>,
}

/// What a norm behind the mean does to features.
const BEHIND_MEAN: &str = "its last norm comes behind the mean, so patch tokens have no norm";

/// The most bytes of a JSON file beside a model.
const MOST_JSON_BYTES: u64 = 4 << 20;

/// A JSON file beside a file of transformers, if it exists.
pub(super) fn json_beside(file: &Path, name: &str) -> Result<Option<Value>, Error> {
    let path = file.with_file_name(name);
    if !path.exists() {
        return Ok(None);
    }
    let read = open_file(&path).and_then(|file| read_most(file, MOST_JSON_BYTES));
    let read = read.and_then(|bytes| String::from_utf8(bytes).map_err(io::Error::other));
    let text = read.map_err(|error| Error::read(&path, error))?;
    let parsed = serde_json::from_str(&text).map(Some);
    parsed.map_err(|error| {
        Error::model(&path, format!("is not JSON: {error}. Save the model again, or remove it"))
    })
}

/// Parts of names of tensors that other encoders have, and what those are.
const FEATURES: [(&str, &str); 5] = [
    ("mlp.fc1_g", "SwiGLU in place of an MLP, with a layer of its own for the gate"),
    ("dist_token", "a token for distillation, as in DeiT"),
    ("attn_pool", "attention pooling"),
    ("rope", "rotary positions"),
    ("rel_pos", "relative positions"),
];

/// Adds advice for tensors that do not fit even the file's own sizes: the model is not supported.
fn of_another_kind(error: Error) -> Error {
    let advice = "Only timm's plain encoders are read: a norm after the last block or behind the \
                  mean, biases, no attention pooling. Choose another file, or export it with \
                  --partial";
    match error {
        Error::Fit { path, problem, .. } => {
            let feature = FEATURES.iter().find(|(name, _)| problem.contains(name));
            let problem = match feature {
                Some((_, what)) => format!("{problem}. It has {what}"),
                None => problem,
            };
            Error::Fit { path, problem, advice }
        }
        other => other,
    }
}

/// Resizes the position table of an encoder of sizes `from` to another grid, as timm does
/// (layers/pos_embed.py, `resample_abs_pos_embed`). A table of another shape is left for the later
/// checks to report. Rotary positions have no table.
fn resize(encoder: &mut NamedTensors, from: &VitSpec, to: Grid) {
    if from.rope.is_some() {
        return;
    }
    let rows_before = from.position_rows() - from.grid().len();
    let expected = [1, from.position_rows(), from.width];
    if let Some(table) = encoder.get_mut("pos_embed").filter(|table| table.shape() == expected) {
        let values = position::resample(&table.to_host(), from.width, rows_before, from.grid(), to);
        *table = Tensor::from_vec(values, &[1, rows_before + to.len(), from.width]);
    }
}
