//! `saltworks export`: weights in the formats of other programs.

use crate::console::{note, result};
use crate::failure::{Failure, input_error, run_error};
use crate::files::{sha256, write_whole};
use crate::judge::stage_index;
use crate::mask::Grid;
use crate::method::Salt;
use crate::model::{PRE_NORM_EPS, USUAL_EPS, VitSpec};
use crate::recipe::{self, Data, Depth, ImageSize, Normalize, Recipe};
use crate::run::TEACHER_SHA256;
use crate::run_files::names::{ENCODER, MODEL, RECIPE};
use crate::weights::{
    self, DEPTH_KEY, Dtype, Hint, MODEL_KEY, ModelFile, NORMALIZE_KEY, NamedTensors, PREPROCESSOR,
    Sizes, TEACHER_KEY, dialect, expect_told, onnx, pixel_metadata, processor,
};
use clap::ValueEnum as _;
use engine::Module as _;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Options of `export`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A run's folder, a stage's folder, a transformers folder, or a weights file in any of these
    /// formats.
    source: PathBuf,
    /// The program that reads the export.
    #[arg(long)]
    to: Target,
    /// The file to write. Its suffix is one that --to writes. For `hf`, the folder.
    #[arg(long)]
    out: PathBuf,
    /// For a run: the stage (default: the last). For a file with several models: a word before the
    /// names of one, such as teacher, student or target_encoder, or `ema` (see `inspect FILE`).
    #[arg(long)]
    part: Option<String>,
    /// The type of the values.
    #[arg(long, default_value = "f32")]
    dtype: ValueType,
    /// Heads of the encoder. Needed if the file does not state them and timm has no model of its
    /// width.
    #[arg(long)]
    heads: Option<usize>,
    /// What the encoder's layer norms add to the variance, if the file does not state it (default:
    /// 1e-6, and 1e-5 with a norm before the first block).
    #[arg(long, value_name = "NUMBER")]
    eps: Option<f32>,
    /// Rows and columns of patches that the position table was made for, as 8x16. Needed if they
    /// are no square and the file does not state them.
    #[arg(long, value_name = "ROWSxCOLUMNS")]
    grid: Option<Grid>,
    /// Image size for the encoder, as 224 or HEIGHTxWIDTH. The position table is resized as in
    /// timm.
    #[arg(long)]
    size: Option<ImageSize>,
    /// Write the tensors that are there, without comparing names and shapes with the encoder's.
    #[arg(long)]
    partial: bool,
    /// Replace an existing file or folder at --out.
    #[arg(long)]
    overwrite: bool,
}

/// The program that reads the export.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Target {
    /// timm: the encoder, for load_state_dict(..., strict=True). Writes .safetensors, or a torch
    /// file (.pt, .pth, .ckpt, .bin).
    Timm,
    /// PyTorch: the encoder under timm's names, for torch.load(..., weights_only=True). Writes .pt,
    /// .pth, .ckpt, .bin.
    Torch,
    /// stable-pretraining: the whole stage, for SALT.from_checkpoint and load_state_dict. Writes
    /// .pt, .pth, .ckpt, .bin.
    StablePretraining,
    /// transformers: the encoder as a folder, for ViTModel.from_pretrained.
    Hf,
    /// facebookresearch/mae: the encoder under `model`, for its models_vit.py. Writes .pt, .pth,
    /// .ckpt, .bin.
    Facebook,
    /// saltworks: the whole stage. Writes .safetensors.
    Safetensors,
    /// ONNX, opset 17: the encoder; images [B, C, H, W] to tokens, their mean, and the class token.
    /// Writes .onnx.
    Onnx,
}

/// What holds the tensors on disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Safetensors,
    Torch,
    Onnx,
    Folder,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum ValueType {
    F32,
    F16,
    Bf16,
}

impl From<ValueType> for Dtype {
    fn from(given: ValueType) -> Self {
        match given {
            ValueType::F32 => Self::F32,
            ValueType::F16 => Self::F16,
            ValueType::Bf16 => Self::Bf16,
        }
    }
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let out = &arguments.out;
    if out.exists() && !arguments.overwrite {
        let problem = "exists already. Choose another --out, or replace it with --overwrite";
        return Err(input_error(format!("{} {problem}", out.display())));
    }
    let container = container(arguments.to, out)?;
    if arguments.partial && matches!(arguments.to, Target::Onnx | Target::Hf) {
        return Err(input_error(
            "--partial could write a wrong graph or config.json. Remove --partial",
        ));
    }
    if arguments.partial && arguments.size.is_some() {
        return Err(input_error(
            "--partial writes tensors as they are, but --size resizes positions. Remove one of the \
             two",
        ));
    }
    let source = read(arguments)?;
    let model = &source.model;
    if !model.left_out.is_empty() {
        let (count, dialect) = (model.left_out.len(), model.dialect);
        let some = model.left_out.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
        let more = if count > 4 { ", ..." } else { "" };
        note(&format!("{dialect}; {count} tensors do not belong to its encoder: {some}{more}"));
    }
    let whole = matches!(arguments.to, Target::StablePretraining | Target::Safetensors);
    match whole && arguments.size.is_none() {
        true => write_stage(arguments, &source)?,
        false => {
            if whole {
                note("--size exports only the encoder: the other tensors fit the original grid");
            }
            let (spec, encoder) = encoder(arguments, model)?;
            write_encoder(arguments, container, &source, &spec, encoder)?;
        }
    }
    let dtype = match arguments.dtype {
        ValueType::F32 => "f32",
        ValueType::F16 => "f16",
        ValueType::Bf16 => "bf16",
    };
    result(&format!("{}: {}, {dtype}", out.display(), arguments.to.form(container)));
    Ok(())
}

impl Target {
    /// What can hold the export.
    fn containers(self) -> &'static [Container] {
        match self {
            Self::Timm => &[Container::Safetensors, Container::Torch],
            Self::Torch | Self::StablePretraining | Self::Facebook => &[Container::Torch],
            Self::Hf => &[Container::Folder],
            Self::Safetensors => &[Container::Safetensors],
            Self::Onnx => &[Container::Onnx],
        }
    }

    /// The format that is written.
    fn form(self, container: Container) -> &'static str {
        match (self, container) {
            (Self::Timm, Container::Safetensors) => "safetensors with timm's names",
            (Self::Timm | Self::Torch, _) => "a torch.save file with timm's names",
            (Self::StablePretraining, _) => "a torch.save file with stable-pretraining's names",
            (Self::Hf, _) => "a transformers folder",
            (Self::Facebook, _) => "a torch.save file with facebookresearch/mae's names",
            (Self::Safetensors, _) => "safetensors with saltworks' names",
            (Self::Onnx, _) => "an ONNX graph",
        }
    }
}

impl Container {
    const ALL: [Self; 4] = [Self::Safetensors, Self::Torch, Self::Onnx, Self::Folder];

    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Safetensors => &["safetensors"],
            Self::Torch => &["pt", "pth", "ckpt", "bin"],
            Self::Onnx => &["onnx"],
            Self::Folder => &[],
        }
    }
}

/// The container that the suffix of --out names. Programs choose their reader by the suffix, so a
/// name that promises another format is refused.
fn container(to: Target, out: &Path) -> Result<Container, Failure> {
    let suffix = out.extension().map(|given| given.to_string_lossy().to_lowercase());
    let is_named =
        |kind: &Container| suffix.as_deref().is_some_and(|given| kind.suffixes().contains(&given));
    let named = Container::ALL.into_iter().find(is_named);
    if to == Target::Hf && named.is_none() {
        return Ok(Container::Folder);
    }
    if let Some(named) = named.filter(|named| to.containers().contains(named)) {
        return Ok(named);
    }
    let found = match suffix {
        Some(given) => format!("ends in .{given}"),
        None => "has no suffix".to_owned(),
    };
    let wanted = to.containers().iter().flat_map(|kind| kind.suffixes());
    let wanted = wanted.map(|suffix| format!(".{suffix}")).collect::<Vec<_>>().join(", ");
    let wanted = if to == Target::Hf { "a folder".to_owned() } else { wanted };
    let fits = |other: &Target| named.is_some_and(|named| other.containers().contains(&named));
    let others: Vec<_> = Target::value_variants().iter().copied().filter(fits).map(name).collect();
    let or_to = match others.is_empty() {
        true => String::new(),
        false => format!(", or choose --to {}", others.join(" or ")),
    };
    Err(input_error(format!(
        "--out {} {found}, but --to {} writes {wanted}. Change --out{or_to}",
        out.display(),
        name(to)
    )))
}

/// The target as it is given to --to.
fn name(target: Target) -> String {
    // No variant is skipped.
    target.to_possible_value().expect("a name").get_name().to_owned()
}

/// What is exported.
struct ExportSource {
    model: ModelFile,
    /// Whether one of a file's encoders was named.
    is_part: bool,
    /// How a run normalised pixels.
    normalize: Option<Normalize>,
    /// The depth of a run's images.
    depth: Option<Depth>,
    /// The sizes of a student's teacher. Its tensors start with `teacher.` in the model.
    teacher: Option<VitSpec>,
}

/// What to export, and which of its parts.
fn read(arguments: &Arguments) -> Result<ExportSource, Failure> {
    let source = &arguments.source;
    if !source.join(RECIPE).exists() {
        let model = ModelFile::open(source, arguments.part.as_deref()).map_err(input_error)?;
        let is_part = arguments.part.is_some();
        return Ok(ExportSource { model, is_part, normalize: None, depth: None, teacher: None });
    }
    let recipe = recipe::load_trained(&source.join(RECIPE), &[]).map_err(input_error)?;
    let index = stage_index(source, &recipe, arguments.part.as_deref())?;
    let stage = &recipe.stage[index];
    let model = ModelFile::open(&source.join(&stage.name).join(MODEL), None);
    let mut model = model.map_err(input_error)?;
    note_unfinished(&recipe, index, arguments.part.is_none(), model.metadata());
    let mut spec = None;
    // Only stable-pretraining's SALT stores the teacher.
    if let Some(name) = stage.teacher.as_ref().filter(|_| arguments.to == Target::StablePretraining)
    {
        let earlier = recipe.stage_before(index, name).is_some();
        let path = if earlier { source.join(name).join(ENCODER) } else { name.into() };
        match teacher(&path, stage.teacher_part.as_deref(), &model) {
            Ok((of_teacher, tensors)) => {
                model.tensors.extend(tensors);
                spec = Some(of_teacher);
            }
            Err(error) if arguments.partial => {
                note(&format!("exported without its teacher: {error}"))
            }
            Err(error) => {
                let advice =
                    "stable-pretraining's SALT also holds its teacher. --partial leaves it out";
                return Err(input_error(format!("{error}. {advice}")));
            }
        }
    }
    let Data { normalize, depth, .. } = recipe.data;
    Ok(ExportSource { model, is_part: false, normalize: Some(normalize), depth, teacher: spec })
}

/// The teacher of a stage, loaded for the student's images.
fn teacher(
    path: &Path,
    part: Option<&str>,
    student: &ModelFile,
) -> Result<(VitSpec, NamedTensors), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let file = ModelFile::find(path).map_err(|e| words(&e))?;
    if let Some(trained_by) = student.metadata().get(TEACHER_SHA256) {
        let bytes = fs::read(&file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        if sha256(&bytes) != *trained_by {
            let path = file.display();
            return Err(format!(
                "{path} is not the teacher that trained this student. Restore the original file"
            ));
        }
    }
    let sizes = student.sizes(None, Hint::default()).map_err(|e| words(&e))?;
    let encoder = Salt::load_teacher(&file, part, &sizes.spec).map_err(|e| words(&e))?.encoder;
    let named = encoder.parameters().into_iter();
    let named = named.map(|(name, parameter)| (format!("teacher.{name}"), parameter.value()));
    Ok((encoder.spec().clone(), named.collect()))
}

/// Notes that a run is not finished.
fn note_unfinished(
    recipe: &Recipe,
    index: usize,
    by_default: bool,
    metadata: &HashMap<String, String>,
) {
    let name = &recipe.stage[index].name;
    let number = |key: &str| metadata.get(key).and_then(|text| text.parse::<u64>().ok());
    if let (Some(step), Some(steps)) = (number("step"), number("steps"))
        && step < steps
    {
        note(&format!("stage {name} is not finished: step {step} of {steps}"));
    }
    if let Some(later) = recipe.stage.last().filter(|last| by_default && last.name != *name) {
        note(&format!("this is stage {name}: stage {} is not trained yet", later.name));
    }
}

/// The encoder and its sizes. Names and shapes are compared with the model's unless --partial is
/// given.
fn encoder(arguments: &Arguments, model: &ModelFile) -> Result<(VitSpec, NamedTensors), Failure> {
    let hint = hint(arguments, model)?;
    let Sizes { spec, guessed } = model.sizes(None, hint).map_err(input_error)?;
    expect_told(model.path(), hint, &spec).map_err(input_error)?;
    if arguments.partial {
        model.notes.iter().chain(&guessed).for_each(|words| note(words));
        return Ok((spec, model.encoder(None).map_err(input_error)?));
    }
    let image = arguments.size.map(|size| [spec.image[0], size.height, size.width]);
    let loaded = model.load_encoder(None, hint, image).map_err(input_error)?;
    if let Some([from, to]) = loaded.resized {
        note(&format!("positions resized from {from} to {to} patches"));
    }
    loaded.notes.iter().for_each(|words| note(words));
    let named = loaded.encoder.parameters().into_iter();
    let named = named.map(|(name, parameter)| (name, parameter.value())).collect();
    Ok((loaded.encoder.spec().clone(), named))
}

/// --heads applies to the encoder's width.
fn hint(arguments: &Arguments, model: &ModelFile) -> Result<Hint, Failure> {
    let width = model.width(None).map_err(input_error)?;
    let heads = arguments.heads.map(|heads| (width, heads));
    let image = arguments.size.map(|size| [1, size.height, size.width]);
    Ok(Hint { heads, grid: arguments.grid, eps: arguments.eps, image })
}

fn write_encoder(
    arguments: &Arguments,
    container: Container,
    source: &ExportSource,
    spec: &VitSpec,
    encoder: NamedTensors,
) -> Result<(), Failure> {
    refuse_more(arguments.to, spec)?;
    let (out, dtype) = (arguments.out.as_path(), arguments.dtype.into());
    let metadata = metadata(source, spec)?;
    let list = |named: NamedTensors| named.into_iter().collect::<Vec<_>>();
    let encoder = match arguments.to {
        Target::Timm | Target::Torch => dialect::timm(spec, encoder),
        _ => encoder,
    };
    match arguments.to {
        Target::Timm | Target::Torch if container == Container::Safetensors => {
            weights::save_as(out, &list(encoder), &metadata, dtype).map_err(run_error)?;
            note(&timm_call(spec));
        }
        Target::Timm | Target::Torch => {
            weights::save_torch(out, &list(encoder), None, &metadata, dtype).map_err(run_error)?;
            note(&format!(
                "{} does not state {}. A program that reads it must be told. A .safetensors file \
                 of --to timm states all of them",
                out.display(),
                without_metadata(spec, &metadata).join(", ")
            ));
            note(&timm_call(spec));
        }
        Target::Facebook => {
            let eps = (spec.eps != USUAL_EPS).then_some("norms with another ε than 1e-6");
            if let Some(what) = dialect::beyond_plain(spec).or(eps) {
                let advice = "Export to timm or onnx instead";
                return Err(input_error(format!("facebookresearch/mae has no {what}. {advice}")));
            }
            let container = Some("model");
            weights::save_torch(out, &list(encoder), container, &metadata, dtype)
                .map_err(run_error)?;
        }
        Target::Hf => {
            let normalize = normalize(source, spec)?;
            let depth = metadata.get(DEPTH_KEY).map(String::as_str);
            write_hugging_face(out, spec, &encoder, dtype, (normalize.as_ref(), depth))?;
        }
        Target::Onnx => {
            if !matches!(arguments.dtype, ValueType::F32) {
                return Err(input_error("--to onnx writes only f32. Remove --dtype"));
            }
            onnx::save(out, spec, &encoder, &metadata).map_err(|error| match error {
                weights::Error::Write { .. } => run_error(error),
                error => input_error(error),
            })?;
        }
        Target::StablePretraining | Target::Safetensors => {
            let named = encoder.into_iter().map(|(name, t)| (format!("encoder.{name}"), t));
            write_whole_stage(arguments, &named.collect(), spec, &metadata)?;
        }
    }
    Ok(())
}

/// Refuses an encoder that no model of the target's form has.
fn refuse_more(to: Target, spec: &VitSpec) -> Result<(), Failure> {
    let what = match (spec.rope, spec.patch[0], spec.image[0]) {
        (Some(_), ..) => "rotary positions",
        (None, 2.., _) => "patches of several frames",
        (None, _, 2..) => "positions of several frames",
        _ => return Ok(()),
    };
    if to == Target::Safetensors {
        return Ok(());
    }
    Err(input_error(format!(
        "the encoder has {what}, which models of --to {} lack. --to safetensors writes all of it",
        name(to)
    )))
}

/// Writes all tensors of the file or stage.
fn write_stage(arguments: &Arguments, source: &ExportSource) -> Result<(), Failure> {
    let model = &source.model;
    // Names and shapes are compared with a model's. Then all tensors are written as they were read.
    let (spec, _) = encoder(arguments, model)?;
    refuse_more(arguments.to, &spec)?;
    if !source.is_part && !arguments.partial {
        model.check_whole(hint(arguments, model)?).map_err(input_error)?;
    }
    let tokens = model.tensors.get("predictor.mask_token");
    let tokens = tokens.and_then(|token| token.shape().first().copied()).unwrap_or(1);
    if arguments.to == Target::StablePretraining && tokens > 1 && !source.is_part {
        return Err(input_error(format!(
            "the predictor has {tokens} mask tokens, but stable-pretraining's has one. --to \
             safetensors writes all of it"
        )));
    }
    let all: NamedTensors = match source.is_part {
        false => model.tensors.clone(),
        true => {
            let tensors = model.encoder(None).map_err(input_error)?.into_iter();
            tensors.map(|(name, t)| (format!("encoder.{name}"), t)).collect()
        }
    };
    write_whole_stage(arguments, &all, &spec, &metadata(source, &spec)?)
}

fn write_whole_stage(
    arguments: &Arguments,
    tensors: &NamedTensors,
    spec: &VitSpec,
    metadata: &HashMap<String, String>,
) -> Result<(), Failure> {
    let (out, dtype) = (arguments.out.as_path(), arguments.dtype.into());
    if arguments.to == Target::StablePretraining {
        let all = match arguments.partial {
            // Tensors are only renamed. Added ones would have sizes that were not checked.
            true => dialect::stable_pretraining_renamed(tensors).into_iter().collect(),
            false => dialect::stable_pretraining(tensors, spec.grid()),
        };
        let written = weights::save_torch(out, &all, Some("state_dict"), metadata, dtype);
        return written.map(drop).map_err(run_error);
    }
    // A teacher has a file of its own.
    let own = tensors.iter().filter(|(name, _)| !name.starts_with("teacher."));
    let own: Vec<_> = own.map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    weights::save_as(out, &own, metadata, dtype).map(drop).map_err(run_error)
}

/// A folder with `config.json`, which is written last.
fn write_hugging_face(
    folder: &Path,
    spec: &VitSpec,
    encoder: &NamedTensors,
    dtype: Dtype,
    (normalize, depth): (Option<&Normalize>, Option<&str>),
) -> Result<(), Failure> {
    let config = dialect::hugging_face_config(spec).map_err(|what| {
        input_error(format!("transformers' ViTModel has no {what}. Export to timm or onnx instead"))
    })?;
    let fail =
        |error: std::io::Error| run_error(format!("cannot write {}: {error}", folder.display()));
    // transformers' files have no place for a depth.
    let depth = depth.map(|depth| (DEPTH_KEY, depth));
    let metadata = [("format", "pt")].into_iter().chain(depth);
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let tensors = dialect::hugging_face(encoder);
    let path = folder.join("model.safetensors");
    weights::expect_range(&path, &tensors, dtype).map_err(run_error)?;
    fs::create_dir_all(folder).map_err(fail)?;
    // New weights must never appear beside a config.json of other weights.
    for old in ["config.json", PREPROCESSOR].map(|name| folder.join(name)) {
        if old.exists() {
            fs::remove_file(old).map_err(fail)?;
        }
    }
    weights::save_as(&path, &tensors, &metadata, dtype).map_err(run_error)?;
    let write = |name: &str, json: &serde_json::Value| {
        write_whole(&folder.join(name), format!("{json:#}\n").as_bytes()).map_err(fail)
    };
    if let Some(normalize) = normalize {
        let [_, height, width] = spec.image;
        write(PREPROCESSOR, &processor(normalize, [height, width], spec.channels))?;
    }
    write("config.json", &config)?;
    note("in Python: transformers.ViTModel.from_pretrained(FOLDER, add_pooling_layer=False)");
    Ok(())
}

/// The encoder's pixel normalization: from its file, or else from its run.
fn normalize(source: &ExportSource, spec: &VitSpec) -> Result<Option<Normalize>, Failure> {
    let stated = source.model.normalize(spec.channels).map_err(input_error)?;
    Ok(stated.or_else(|| source.normalize.clone()))
}

/// A file's metadata: that of its source, the encoder's sizes and its pixel normalization.
fn metadata(source: &ExportSource, spec: &VitSpec) -> Result<HashMap<String, String>, Failure> {
    let mut metadata = source.model.metadata().clone();
    // Sizes are numbers, strings and booleans, which JSON can hold.
    let sizes = |spec: &VitSpec| serde_json::to_string(spec).expect("sizes as JSON");
    metadata.insert("format".to_owned(), "pt".to_owned());
    metadata.insert(MODEL_KEY.to_owned(), sizes(spec));
    if let Some(teacher) = &source.teacher {
        metadata.insert(TEACHER_KEY.to_owned(), sizes(teacher));
    }
    if let Some(normalize) = normalize(source, spec)? {
        let depth = source.model.depth().map_err(input_error)?.or(source.depth);
        metadata.extend(pixel_metadata(&normalize, spec.channels, depth));
    }
    Ok(metadata)
}

/// What a file that holds tensors alone does not state of its encoder.
fn without_metadata(spec: &VitSpec, metadata: &HashMap<String, String>) -> Vec<String> {
    let mut missing = vec![format!("its {} heads", spec.heads)];
    let [_, height, width] = spec.image;
    if height != width {
        missing.push(format!("its image size of {height} x {width}"));
    }
    let assumed = if spec.pre_norm { PRE_NORM_EPS } else { USUAL_EPS };
    if spec.eps != assumed {
        missing.push(format!("its norms' ε of {:e}", spec.eps));
    }
    let stated = [(NORMALIZE_KEY, "normalisation"), (DEPTH_KEY, "depth")];
    missing.extend(stated.into_iter().filter_map(|(key, what)| {
        let value = metadata.get(key)?;
        Some(format!("its {what} {value}"))
    }));
    missing
}

/// The call of timm that creates a model for these weights.
fn timm_call(spec: &VitSpec) -> String {
    let named = |size: &str| {
        let patch = if ["huge", "giant", "gigantic"].contains(&size) { 14 } else { 16 };
        let name = format!("vit_{size}_patch{patch}_224");
        Some((VitSpec::from_name(&name).ok()?, name))
    };
    let sizes = ["tiny", "small", "base", "large", "huge", "giant", "gigantic"];
    let widths = |spec: &VitSpec| (spec.width, spec.depth, spec.heads, spec.hidden);
    let mut known = sizes.into_iter().filter_map(named);
    let fits = known.find(|(named, _)| widths(named) == widths(spec));
    // timm has a model of the first size.
    let (base, name) = fits.or_else(|| named("tiny")).expect("a name of timm");
    let mut call = format!("timm.create_model(\"{name}\"");
    let mut add = |differs: bool, text: String| {
        if differs {
            call += ", ";
            call += &text;
        }
    };
    let [[_, h, w], [_, ph, pw]] = [spec.image, spec.patch];
    add(spec.image != base.image, format!("img_size=({h}, {w})"));
    add(spec.patch != base.patch, format!("patch_size=({ph}, {pw})"));
    add(spec.channels != base.channels, format!("in_chans={}", spec.channels));
    add(spec.width != base.width, format!("embed_dim={}", spec.width));
    add(spec.depth != base.depth, format!("depth={}", spec.depth));
    add(spec.heads != base.heads, format!("num_heads={}", spec.heads));
    let ratio = |spec: &VitSpec| {
        // timm multiplies and truncates, so a quotient that was rounded down would lose one.
        // Of SwiGLU, timm counts both halves.
        let hidden = if spec.swiglu { 2 * spec.hidden } else { spec.hidden };
        let ratio = hidden as f64 / spec.width as f64;
        let cut = (spec.width as f64 * ratio) as usize;
        if cut < hidden { ratio.next_up() } else { ratio }
    };
    add(ratio(spec) != ratio(&base), format!("mlp_ratio={}", ratio(spec)));
    // Without a class token timm pools, and by default applies the norm after pooling.
    add(!spec.class_token, "class_token=False".to_owned());
    let pools = !spec.class_token || spec.fc_norm;
    let fc_norm = if spec.fc_norm { "True" } else { "False" };
    add(pools, format!("global_pool=\"avg\", fc_norm={fc_norm}"));
    add(spec.registers > 0, format!("reg_tokens={}", spec.registers));
    add(spec.no_embed_class, "no_embed_class=True".to_owned());
    add(spec.layer_scale.is_some(), "init_values=1e-5".to_owned());
    add(spec.qk_norm, "qk_norm=True".to_owned());
    add(spec.pre_norm, "pre_norm=True".to_owned());
    let swiglu = "mlp_layer=timm.layers.SwiGLUPacked, act_layer=torch.nn.SiLU";
    add(spec.swiglu, swiglu.to_owned());
    let norm = format!("norm_layer=functools.partial(timm.layers.LayerNorm, eps={:e})", spec.eps);
    add(spec.eps != USUAL_EPS, norm);
    format!("in Python: {call}, num_classes=0)")
}
