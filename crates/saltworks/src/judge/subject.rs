//! What is probed or embedded: an encoder from a run or a file, and how its images are prepared.

use super::Extractor;
use crate::console::note;
use crate::failure::{Failure, input_error};
use crate::mask::Grid;
use crate::model::Encoder;
use crate::recipe::{self, DEPTH_EXPECTED, Depth, ImageSize, Normalize, Recipe, Stage};
use crate::run_files::names::{ENCODER, MODEL, RECIPE, STATE};
use crate::weights::{Hint, LoadedEncoder, ModelFile, expect_told};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The choice of an encoder and of its image preparation. The run or the file sets what is not
/// given.
pub(crate) struct SubjectOptions {
    /// A run's folder, a weights file, or a transformers folder.
    pub(crate) source: PathBuf,
    /// Images in place of a run's own.
    pub(crate) data: Option<PathBuf>,
    /// For a run: the stage. For a file: encoder, student or teacher.
    pub(crate) stage: Option<String>,
    /// Size of the images in pixels, to which the position table is resized.
    pub(crate) size: Option<ImageSize>,
    /// How pixels are normalised, in the form of `data.normalize`.
    pub(crate) normalize: Option<String>,
    /// The values that become black and white, in the form of `data.depth`.
    pub(crate) depth: Option<String>,
    /// The column of images in `data`.
    pub(crate) column: Option<String>,
    /// The set of labels, if the images have several.
    pub(crate) labels: Option<String>,
    /// The shorter side is resized to this factor times the size.
    pub(crate) zoom: Option<f64>,
    /// Rows and columns of patches that the position table was made for, if the file does not
    /// state them.
    pub(crate) grid: Option<Grid>,
    /// Heads of the encoder, if the file does not state them.
    pub(crate) heads: Option<usize>,
    /// ε of its layer norms, if the file does not state it.
    pub(crate) eps: Option<f32>,
    /// Threads that decode images.
    pub(crate) data_threads: Option<usize>,
    /// From how many of the last blocks features are taken.
    pub(crate) layers: usize,
}

/// The training progress of the encoder in a file.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StageProgress {
    pub(crate) stage: String,
    /// Steps made.
    pub(crate) step: u64,
    /// Steps of the whole stage.
    pub(crate) steps: u64,
}

/// An encoder and its data settings.
pub(crate) struct Subject {
    /// Only `data` and `probe` are used. The size and channels are the encoder's.
    pub(crate) recipe: Recipe,
    /// The encoder.
    pub(crate) extractor: Extractor,
    /// Whether the recipe belongs to a run. Then the run's own images may be probed.
    pub(crate) of_run: bool,
    /// The file of the weights.
    pub(crate) path: PathBuf,
    /// How far the weights are trained, if the file states it.
    pub(crate) trained: Option<StageProgress>,
}

impl SubjectOptions {
    /// Reads the recipe and the weights.
    pub(crate) fn open(&self) -> Result<Subject, Failure> {
        let run = run_of(&self.source);
        let model = match &run {
            Some(run) if *run == self.source => {
                let recipe = recipe::load_trained(&run.join(RECIPE), &[]).map_err(input_error)?;
                let index = stage_index(run, &recipe, self.stage.as_deref())?;
                ModelFile::open(&run.join(&recipe.stage[index].name).join(MODEL), None)
            }
            _ => ModelFile::open(&self.source, self.stage.as_deref()),
        };
        let model = model.map_err(input_error)?;
        let LoadedEncoder { encoder, normalize, .. } = self.encoder(&model)?;
        self.check_layers(encoder.spec().depth)?;
        let stated = (normalize, model.depth().map_err(input_error)?);
        let mut recipe = self.recipe(run.as_deref(), encoder.spec().channels, stated)?;
        let data = &mut recipe.data;
        let [frames, height, width] = encoder.spec().image;
        data.frames = frames;
        (data.size, data.channels) = (ImageSize { height, width }, Some(encoder.spec().channels));
        // Unreadable images are left out, however many there are. Only training has a limit.
        data.max_unreadable = 1.0;
        data.eval_zoom = self.zoom.unwrap_or(data.eval_zoom);
        data.threads = self.data_threads.unwrap_or(data.threads);
        if self.labels.is_some() || self.data.is_some() {
            data.labels.clone_from(&self.labels);
        }
        if let Some(path) = &self.data {
            data.source.clear();
            data.column = self.column.clone();
            data.path = Some(path.display().to_string());
        } else if self.column.is_some() {
            return Err(input_error(
                "--column names a column of --data, which is not given. Add --data, or leave out \
                 --column",
            ));
        }
        let (path, trained) = (model.path().to_owned(), training_of(&model));
        let of_run = run.is_some();
        let extractor = Extractor::Encoder { encoder: Arc::new(encoder), layers: self.layers };
        let subject = Subject { recipe, extractor, of_run, path, trained };
        note(&format!("encoder: {}", subject.describe()));
        Ok(subject)
    }

    fn check_layers(&self, depth: usize) -> Result<(), Failure> {
        if (1..=depth).contains(&self.layers) {
            return Ok(());
        }
        let layers = self.layers;
        Err(input_error(format!(
            "--layers is {layers}, expected 1 to {depth}, the number of the encoder's blocks"
        )))
    }

    fn encoder(&self, model: &ModelFile) -> Result<LoadedEncoder, Failure> {
        let width = model.width(None).map_err(input_error)?;
        let heads = self.heads.map(|heads| (width, heads));
        let image = self.size.map(|size| [1, size.height, size.width]);
        let hint = Hint { heads, grid: self.grid, eps: self.eps, image };
        let made_for = model.sizes(None, hint).map_err(input_error)?.spec;
        expect_told(model.path(), hint, &made_for).map_err(input_error)?;
        let frames = made_for.image[0];
        let image = image.map(|[_, height, width]| [frames, height, width]);
        let loaded = model.load_encoder(None, hint, image).map_err(input_error)?;
        if let Some([from, to]) = loaded.resized {
            note(&format!("positions resized from {from} to {to} patches"));
        }
        loaded.notes.iter().for_each(|words| note(words));
        Ok(loaded)
    }

    /// The run's recipe, or the defaults for a single file, with the normalization and depth that
    /// it `stated`.
    fn recipe(
        &self,
        run: Option<&Path>,
        channels: usize,
        (stated, depth): (Option<Normalize>, Option<Depth>),
    ) -> Result<Recipe, Failure> {
        let path = run.map(|run| run.join(RECIPE));
        let preset = if channels == 3 { "imagenet" } else { "inception" };
        if let (Some(given), Some(stated)) = (&self.normalize, &stated) {
            let set = [format!("data.normalize={given}"), format!("data.channels={channels}")];
            let asked_for = recipe::load(None, &set).map_err(input_error)?.data.normalize;
            if asked_for != *stated {
                note(&format!(
                    "the file states pixels with mean {:?} and deviation {:?}, but --normalize \
                     {given} is used instead",
                    stated.mean, stated.std
                ));
            }
        }
        let normalize = match (&self.normalize, run, stated) {
            (Some(given), ..) => Some(given.clone()),
            (None, Some(_), _) => None,
            (None, None, Some(Normalize { mean, std })) => {
                Some(format!("{{mean = {mean:?}, std = {std:?}}}"))
            }
            (None, None, None) => {
                note(&format!("pixels are normalised as {preset}. --normalize changes this"));
                Some(preset.to_owned())
            }
        };
        let mut set: Vec<_> =
            normalize.map(|given| format!("data.normalize={given}")).into_iter().collect();
        let depth = match (&self.depth, run, depth) {
            (Some(given), ..) => {
                let set = [format!("data.depth={given}")];
                recipe::load(None, &set).map_err(|_| {
                    input_error(format!("--depth is {given}, expected {DEPTH_EXPECTED}"))
                })?;
                Some(given.clone())
            }
            (None, None, Some(depth)) => {
                note(&format!(
                    "images of more than eight bits are read with the file's depth, {depth}. \
                     --depth changes this"
                ));
                Some(depth.to_string())
            }
            (None, ..) => None,
        };
        set.extend(depth.map(|given| format!("data.depth={given}")));
        let Some(path) = path else {
            set.push(format!("data.channels={channels}"));
            return recipe::load(None, &set).map_err(input_error);
        };
        recipe::load_trained(&path, &set).map_err(input_error)
    }
}

/// The index of the stage with this name, or of the last stage with weights.
pub(crate) fn stage_index(
    run: &Path,
    recipe: &Recipe,
    name: Option<&str>,
) -> Result<usize, Failure> {
    let has_weights = |index: &usize| run.join(&recipe.stage[*index].name).join(MODEL).exists();
    let trained: Vec<usize> = (0..recipe.stage.len()).filter(has_weights).collect();
    let found = match name {
        None => trained.last(),
        Some(name) => trained.iter().find(|&&index| recipe.stage[index].name == name),
    };
    found.copied().ok_or_else(|| {
        let names: Vec<_> =
            trained.iter().map(|&index| recipe.stage[index].name.as_str()).collect();
        let wanted = name.map_or("trained stage".to_owned(), |name| format!("stage {name}"));
        let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let advice = match names.is_empty() {
            true => ". A stage's weights are written when it ends, or is stopped by Ctrl-C",
            false => "",
        };
        input_error(format!("{} holds no {wanted}; trained: {found}{advice}", run.display()))
    })
}

/// The run that a path is, or that a file RUN/STAGE/encoder.safetensors belongs to.
fn run_of(source: &Path) -> Option<PathBuf> {
    let is_run = |folder: &Path| [RECIPE, STATE].iter().all(|name| folder.join(name).is_file());
    if is_run(source) {
        return Some(source.to_owned());
    }
    let ours = source.file_name().is_some_and(|name| name == MODEL || name == ENCODER);
    let (stage, run) = (source.parent()?, source.parent()?.parent()?);
    // A bare `encoder.safetensors` is a path in the current folder.
    let run = if run.as_os_str().is_empty() { Path::new(".") } else { run };
    let stage = stage.file_name()?.to_str()?;
    let names = || Some(recipe::load_trained(&run.join(RECIPE), &[]).ok()?.stage);
    let has = |stages: Vec<Stage>| stages.iter().any(|known| known.name == stage);
    (ours && is_run(run) && names().is_some_and(has)).then(|| run.to_owned())
}

/// Stage and step of a run's file, from its metadata.
fn training_of(model: &ModelFile) -> Option<StageProgress> {
    let text = |key: &str| model.metadata().get(key);
    let number = |key: &str| text(key)?.parse().ok();
    Some(StageProgress {
        stage: text("stage")?.clone(),
        step: number("step")?,
        steps: number("steps")?,
    })
}

impl Subject {
    /// A description of the encoder.
    fn describe(&self) -> String {
        let path = self.path.display();
        match &self.trained {
            Some(StageProgress { stage, step, steps }) if step < steps => {
                format!("{path}, stage {stage}, stopped after step {step} of {steps}")
            }
            Some(StageProgress { stage, step: 1, .. }) => {
                format!("{path}, stage {stage}, its one step")
            }
            Some(StageProgress { stage, step, .. }) => {
                format!("{path}, stage {stage}, all {step} steps")
            }
            None => path.to_string(),
        }
    }

    /// The encoder, and from how many of its last blocks features are taken.
    pub(crate) fn encoder(&self) -> (&Encoder, usize) {
        match &self.extractor {
            Extractor::Encoder { encoder, layers } => (encoder, *layers),
            _ => unreachable!("`SubjectOptions::open` makes an encoder"),
        }
    }
}
