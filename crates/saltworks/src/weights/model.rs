//! A model read from a file, whoever wrote it, under our names.

use super::dialect::{Dialect, Place, hugging_face_differs, wrapping};
use super::{Error, File, Named, PREPROCESSOR, assign, load, pixels, sizes};
use crate::mask::Grid;
use crate::model::{Encoder, VitSpec, position};
use crate::recipe::Normalize;
use engine::{Module as _, Tensor};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The key of a file's metadata that holds the encoder's [`VitSpec`] as JSON.
pub const MODEL_KEY: &str = "model";

/// Names of the weights in a folder: of transformers, the first also of a stage of ours.
const FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// Encoders that a file may hold, the one that is taken first: as stable-pretraining's
/// `SALT.from_checkpoint`, then the one that was trained.
const PARTS: [&str; 3] = ["encoder", "student", "teacher"];

/// The tensors of a file under our names, and what it says of itself.
#[derive(Debug)]
pub struct Model {
    /// Whose names the file uses.
    pub dialect: Dialect,
    /// `encoder.`, `student.` or `teacher.` and timm's names; `decoder.`, `predictor.`.
    pub tensors: Named,
    /// Names in the file that are no part of an encoder, decoder or predictor of ours.
    pub left_out: Vec<String>,
    path: PathBuf,
    file: File,
    /// The `config.json` beside it.
    config: Option<Value>,
    /// The `preprocessor_config.json` beside it.
    processor: Option<Value>,
}

impl Model {
    /// The file of weights that is meant: of a folder the one in it.
    pub fn file(path: &Path) -> Result<PathBuf, Error> {
        if !path.is_dir() {
            return Ok(path.into());
        }
        FILES.iter().map(|name| path.join(name)).find(|file| file.exists()).ok_or_else(|| {
            let names = FILES.join(" or ");
            let problem = format!(
                "is a folder without {names}, expected a file of weights, a folder of transformers or \
                 of a run's stage"
            );
            Error::model(path, problem)
        })
    }

    /// Reads a file of weights, or that of a folder; of transformers' with the `config.json` beside.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = &Self::file(path)?;
        let model = Self::of(path, load(path)?)?;
        let beside = |name: &str| match model.dialect {
            Dialect::HuggingFace => json_beside(path, name),
            _ => Ok(None),
        };
        let (config, processor) = (beside("config.json")?, beside(PREPROCESSOR)?);
        Ok(Self { config, processor, ..model })
    }

    /// The model that these tensors are, of a state dict in memory, say; `what` they are is for messages.
    pub fn of_tensors(what: &str, tensors: Named) -> Result<Self, Error> {
        Self::of(Path::new(what), File { tensors, ..File::default() })
    }

    fn of(path: &Path, mut file: File) -> Result<Self, Error> {
        let names: Vec<&str> = file.tensors.keys().map(String::as_str).collect();
        let cut = wrapping(&names);
        let plain: Vec<&str> = names.iter().map(|name| &name[cut..]).collect();
        let Some(dialect) = Dialect::of(&plain) else {
            let some: Vec<_> = names.into_iter().take(3).collect();
            let problem = format!(
                "holds no vision transformer: looked for patch_embed.proj.weight and what others call \
                 it, found {} tensors ({}, ...)",
                file.tensors.len(),
                some.join(", ")
            );
            return Err(Error::model(path, problem));
        };
        let (mut tensors, mut left_out) = (Named::new(), Vec::new());
        for (name, tensor) in std::mem::take(&mut file.tensors) {
            match dialect.place(&name[cut..]) {
                Place::Ours(ours) => drop(tensors.insert(ours, tensor)),
                Place::LeftOut => left_out.push(name),
            }
        }
        super::dialect::join_qkv(&mut tensors);
        let (config, processor) = (None, None);
        Ok(Self { dialect, tensors, left_out, path: path.into(), file, config, processor })
    }

    /// Where it was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was written beside the tensors.
    pub fn metadata(&self) -> &std::collections::HashMap<String, String> {
        &self.file.metadata
    }

    /// The tensors of an encoder under timm's names: `part` is `encoder`, `student` or `teacher`, or
    /// the first of them that is there.
    pub fn encoder(&self, part: Option<&str>) -> Result<Named, Error> {
        let parts = part.map_or(PARTS.to_vec(), |part| vec![part]);
        for part in parts {
            let of_part = |(name, tensor): (&String, &Tensor)| {
                let name = name.strip_prefix(part)?.strip_prefix('.')?;
                Some((name.to_owned(), tensor.clone()))
            };
            let named: Named = self.tensors.iter().filter_map(of_part).collect();
            if !named.is_empty() {
                return Ok(named);
            }
        }
        let has =
            |part: &&str| self.tensors.keys().any(|name| name.starts_with(&format!("{part}.")));
        let found: Vec<_> = PARTS.into_iter().filter(has).collect();
        let (wanted, found) = (part.unwrap_or("encoder"), found.join(" and "));
        let problem = format!("holds no {wanted}, only {found}. Choose one of them");
        Err(Error::model(&self.path, problem))
    }

    /// The sizes that the file states; none if it states none.
    pub fn stated_sizes(&self) -> Result<Option<VitSpec>, Error> {
        let Some(text) = self.file.metadata.get(MODEL_KEY) else { return Ok(None) };
        let parsed = serde_json::from_str(text).map(Some);
        parsed.map_err(|error| {
            let problem = format!(
                "its metadata `{MODEL_KEY}` is not readable: {error}. Save it again, or remove the \
                 metadata"
            );
            Error::model(&self.path, problem)
        })
    }

    /// How the encoder, of so many channels, wants its pixels, as the file's metadata or a
    /// `preprocessor_config.json` of transformers say; none if nothing does.
    pub fn normalize(&self, channels: usize) -> Result<Option<Normalize>, Error> {
        pixels::normalize(&self.path, &self.file.metadata, self.processor.as_ref(), channels)
    }

    /// The sizes of an encoder of the file: as stated, else as its tensors' shapes, `config.json` and
    /// then `hint` say.
    pub fn sizes(&self, encoder: &Named, hint: Hint) -> Result<VitSpec, Error> {
        let fail = |problem: String| Error::model(&self.path, problem);
        let found = match self.stated_sizes()? {
            Some(stated) => stated,
            None => sizes::of(encoder, self.config.as_ref(), hint).map_err(fail)?,
        };
        found.check().map_err(|error| fail(error.to_string()))?;
        // Before memory is taken for what a file only claims.
        let held: usize = encoder.values().map(Tensor::len).sum();
        let claimed = found.block_parameters();
        if claimed > held {
            return Err(fail(format!(
                "tells the sizes of an encoder of {claimed} values or more, but holds {held}: not whole, \
                 or of other blocks than timm's plain ones. Choose another file"
            )));
        }
        Ok(found)
    }

    /// The encoder `part` (see [`Model::encoder`]), strictly: every tensor by name and shape, all
    /// finite. Its position table is resized where `image`, [T, H, W], is another than it was made for.
    pub fn load_encoder(
        &self,
        part: Option<&str>,
        hint: Hint,
        image: Option<[usize; 3]>,
    ) -> Result<Loaded, Error> {
        let mut tensors = self.encoder(part)?;
        let made_for = self.sizes(&tensors, hint)?;
        let differs = self.config.as_ref().map_or(Ok(None), hugging_face_differs);
        let differs = differs.map_err(|problem| Error::model(&self.path, problem))?;
        let normalize = self.normalize(made_for.channels)?;
        let finite = |tensor: &Tensor| tensor.as_slice().iter().all(|value| value.is_finite());
        if let Some((name, _)) = tensors.iter().find(|(_, tensor)| !finite(tensor)) {
            let problem = "holds values that are not finite: its training diverged";
            return Err(Error::model(&self.path, format!("tensor {name} {problem}")));
        }
        let spec = VitSpec { image: image.unwrap_or(made_for.image), ..made_for.clone() };
        spec.check().map_err(|error| Error::model(&self.path, error.to_string()))?;
        let resized = (spec.grid() != made_for.grid()).then(|| [made_for.grid(), spec.grid()]);
        if resized.is_some() {
            resize(&mut tensors, &made_for, spec.grid());
        }
        let encoder = Encoder::new(&spec, 0);
        let parameters = encoder.parameters();
        let names = parameters.iter().map(|(name, _)| name.as_str());
        self.file.expect_weights(&self.path, names)?;
        assign(&self.path, &tensors, &parameters).map_err(of_another_kind)?;
        Ok(Loaded { encoder, resized, normalize, notes: differs.into_iter().collect() })
    }
}

/// What a file need not tell.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hint {
    /// A width and the heads of an encoder of it.
    pub heads: Option<(usize, usize)>,
    /// The grid of a position table with as many patches.
    pub grid: Option<Grid>,
}

/// An encoder from a file.
pub struct Loaded {
    /// With the file's weights.
    pub encoder: Encoder,
    /// From which grid to which its position table was resized.
    pub resized: Option<[Grid; 2]>,
    /// How it wants its pixels, if the file tells; see [`Model::normalize`].
    pub normalize: Option<Normalize>,
    /// What its user should know: sizes that were guessed, arithmetic that differs from that at home.
    pub notes: Vec<String>,
}

/// A file of JSON beside one of transformers', if there is one.
fn json_beside(file: &Path, name: &str) -> Result<Option<Value>, Error> {
    let path = file.with_file_name(name);
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read_to_string(&path).map_err(|error| Error::read(&path, error))?;
    let parsed = serde_json::from_str(&text).map(Some);
    parsed.map_err(|error| {
        Error::model(&path, format!("is no JSON: {error}. Save the model again, or remove it"))
    })
}

/// The sizes were the file's own: what still does not fit is of a model that we do not have.
fn of_another_kind(error: Error) -> Error {
    let advice = "Only timm's plain encoders are read: a norm after the last block, biases, no fc_norm, \
                  no pool of attention. Choose another file, or export it with --partial";
    match error {
        Error::Fit { path, problem, .. } => Error::Fit { path, problem, advice },
        other => other,
    }
}

/// Brings the position table of an encoder of sizes `from` to another grid, as timm does
/// (layers/pos_embed.py, `resample_abs_pos_embed`). A table that is not of these sizes stays, to be
/// told.
fn resize(encoder: &mut Named, from: &VitSpec, to: Grid) {
    let rows_before = from.position_rows() - from.grid().len();
    let expected = [1, from.position_rows(), from.width];
    if let Some(table) = encoder.get_mut("pos_embed").filter(|table| table.shape() == expected) {
        let values = position::resample(table.as_slice(), from.width, rows_before, from.grid(), to);
        *table = Tensor::from_vec(values, &[1, rows_before + to.len(), from.width]);
    }
}
