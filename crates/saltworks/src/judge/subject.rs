//! What is probed or embedded: an encoder from a run or a file, and how it wants its images.

use super::Extractor;
use crate::console::note;
use crate::failure::{Failure, asked};
use crate::model::Encoder;
use crate::recipe::{self, Normalize, Recipe, Stage};
use crate::run_files::names::{ENCODER, MODEL, RECIPE, STATE};
use crate::weights::{Hint, LoadedEncoder, ModelFile};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// An encoder and how its images are prepared, as given.
#[derive(clap::Args)]
pub(crate) struct Given {
    /// A run's folder, a file of weights in any form that `export` reads, or a folder of transformers'.
    source: PathBuf,
    /// Images: what `data.path` may be (a folder with a folder for each class, tar shards, a list, parquet,
    /// .npy, IDX files, builtin:fashion-mnist). Of a run: its own, if not given.
    #[arg(long, value_name = "PATH")]
    pub(crate) data: Option<PathBuf>,
    /// Of a run: the stage (default: the last); of a file: encoder, student or teacher.
    #[arg(long, visible_alias = "part", value_name = "NAME")]
    stage: Option<String>,
    /// Side of the images in pixels (default: what the encoder was made for); its position table is resized
    /// as timm does.
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// How pixels are brought near 0: imagenet, inception, clip, or '{mean = [0.5], std = [0.25]}' (default:
    /// as the run or the file says; else imagenet, or inception for grey images).
    #[arg(long)]
    normalize: Option<String>,
    /// The shorter side is resized to this times the size and the centre kept (default: as the run, else 1).
    #[arg(long)]
    zoom: Option<f64>,
    /// Heads of the encoder, where the file does not tell and timm has none of its width.
    #[arg(long)]
    heads: Option<usize>,
    /// Threads that compute; 0 for one per core.
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
    /// Threads that decode images (default: as the run, else 1).
    #[arg(long, value_name = "N")]
    data_threads: Option<usize>,
}

/// How far the stage came whose encoder a file holds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trained {
    pub(crate) stage: String,
    /// Steps made.
    pub(crate) step: u64,
    /// Steps of the whole stage.
    pub(crate) steps: u64,
}

/// An encoder and its data settings.
pub(crate) struct Subject {
    /// `data` and `probe` are read; the size and channels are the encoder's.
    pub(crate) recipe: Recipe,
    /// The encoder.
    pub(crate) extractor: Extractor,
    /// Whether the recipe is a run's, whose own images may be probed.
    pub(crate) of_run: bool,
    /// Where the weights lie.
    pub(crate) path: PathBuf,
    /// What training left them, where the file tells.
    pub(crate) trained: Option<Trained>,
}

impl Given {
    /// Reads the recipe and the weights.
    pub(crate) fn open(&self) -> Result<Subject, Failure> {
        let run = run_of(&self.source);
        let model = match &run {
            Some(run) if *run == self.source => {
                let recipe = recipe::load_trained(&run.join(RECIPE), &[]).map_err(asked)?;
                let place = stage(run, &recipe, self.stage.as_deref())?;
                ModelFile::open(&run.join(&recipe.stage[place].name).join(MODEL))
            }
            _ => ModelFile::open(&self.source),
        };
        let model = model.map_err(asked)?;
        let LoadedEncoder { encoder, normalize, .. } = self.encoder(&model, run.as_deref())?;
        let mut recipe = self.recipe(run.as_deref(), encoder.spec().channels, normalize)?;
        let data = &mut recipe.data;
        let [_, height, width] = encoder.spec().image;
        if height != width {
            let side = height.max(width);
            return Err(asked(format!(
                "{}: its encoder is for images of {height} x {width} pixels, and images are brought to \
                 squares. Choose a side with --size {side}",
                model.path().display()
            )));
        }
        (data.size, data.channels) = (height, Some(encoder.spec().channels));
        // Judging leaves them out, however many there are; only training is to end.
        data.max_unreadable = 1.0;
        data.eval_zoom = self.zoom.unwrap_or(data.eval_zoom);
        data.threads = self.data_threads.unwrap_or(data.threads);
        if let Some(path) = &self.data {
            data.source.clear();
            data.path = Some(path.display().to_string());
        }
        let (path, trained) = (model.path().to_owned(), told(&model));
        let of_run = run.is_some();
        let subject =
            Subject { recipe, extractor: Extractor::Encoder(encoder), of_run, path, trained };
        note(&format!("encoder: {}", subject.describe()));
        Ok(subject)
    }

    fn encoder(&self, model: &ModelFile, run: Option<&Path>) -> Result<LoadedEncoder, Failure> {
        // A run's file has one encoder.
        let part = self.stage.as_deref().filter(|_| run != Some(&self.source));
        let width = model.width(part).map_err(asked)?;
        let hint = Hint { heads: self.heads.map(|heads| (width, heads)), grid: None };
        let image = self.size.map(|side| [1, side, side]);
        let loaded = model.load_encoder(part, hint, image).map_err(asked)?;
        if let Some([from, to]) = loaded.resized {
            note(&format!("positions resized from {from} to {to} patches"));
        }
        loaded.notes.iter().for_each(|words| note(words));
        let frames = loaded.encoder.spec().image[0];
        if frames != 1 {
            let path = model.path().display();
            return Err(asked(format!(
                "{path}: its encoder reads clips of {frames} frames, expected one for images. Choose \
                 another file"
            )));
        }
        Ok(loaded)
    }

    /// The run's recipe, or the defaults for a file alone, whose pixels are as it `stated`.
    fn recipe(
        &self,
        run: Option<&Path>,
        channels: usize,
        stated: Option<Normalize>,
    ) -> Result<Recipe, Failure> {
        let path = run.map(|run| run.join(RECIPE));
        let preset = if channels == 1 { "inception" } else { "imagenet" };
        if let (Some(given), Some(stated)) = (&self.normalize, &stated) {
            let set = [format!("data.normalize={given}"), format!("data.channels={channels}")];
            let asked_for = recipe::load(None, &set).map_err(asked)?.data.normalize;
            if asked_for != *stated {
                note(&format!(
                    "the file says that pixels have mean {:?} and deviation {:?}; --normalize {given} \
                     says otherwise, and is done",
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
                note(&format!("pixels are normalised as {preset}; --normalize says otherwise"));
                Some(preset.to_owned())
            }
        };
        let mut set: Vec<_> =
            normalize.map(|given| format!("data.normalize={given}")).into_iter().collect();
        let Some(path) = path else {
            set.push(format!("data.channels={channels}"));
            return recipe::load(None, &set).map_err(asked);
        };
        recipe::load_trained(&path, &set).map_err(asked)
    }
}

/// The number of the stage asked for, or of the last that has weights.
pub(crate) fn stage(run: &Path, recipe: &Recipe, name: Option<&str>) -> Result<usize, Failure> {
    let has_weights = |place: &usize| run.join(&recipe.stage[*place].name).join(MODEL).exists();
    let trained: Vec<usize> = (0..recipe.stage.len()).filter(has_weights).collect();
    let found = match name {
        None => trained.last(),
        Some(name) => trained.iter().find(|&&place| recipe.stage[place].name == name),
    };
    found.copied().ok_or_else(|| {
        let names: Vec<_> =
            trained.iter().map(|&place| recipe.stage[place].name.as_str()).collect();
        let wanted = name.map_or("trained stage".to_owned(), |name| format!("stage {name}"));
        let found = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let advice = match names.is_empty() {
            true => ". A stage's weights are written when it ends, or is stopped by Ctrl-C",
            false => "",
        };
        asked(format!("{} holds no {wanted}; trained: {found}{advice}", run.display()))
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
    // `encoder.safetensors` alone is a path in the folder itself.
    let run = if run.as_os_str().is_empty() { Path::new(".") } else { run };
    let stage = stage.file_name()?.to_str()?;
    let names = || Some(recipe::load_trained(&run.join(RECIPE), &[]).ok()?.stage);
    let has = |stages: Vec<Stage>| stages.iter().any(|known| known.name == stage);
    (ours && is_run(run) && names().is_some_and(has)).then(|| run.to_owned())
}

/// Which stage's encoder a file of a run holds, and after how many steps, as its metadata tell.
fn told(model: &ModelFile) -> Option<Trained> {
    let text = |key: &str| model.metadata().get(key);
    let number = |key: &str| text(key)?.parse().ok();
    Some(Trained { stage: text("stage")?.clone(), step: number("step")?, steps: number("steps")? })
}

impl Subject {
    /// Which encoder it is.
    fn describe(&self) -> String {
        let path = self.path.display();
        match &self.trained {
            Some(Trained { stage, step, steps }) if step < steps => {
                format!("{path}, stage {stage}, stopped after step {step} of {steps}")
            }
            Some(Trained { stage, step: 1, .. }) => format!("{path}, stage {stage}, its one step"),
            Some(Trained { stage, step, .. }) => format!("{path}, stage {stage}, all {step} steps"),
            None => path.to_string(),
        }
    }

    /// The encoder.
    pub(crate) fn encoder(&self) -> &Encoder {
        match &self.extractor {
            Extractor::Encoder(encoder) => encoder,
            Extractor::Pixels => unreachable!("`Given::open` makes an encoder"),
        }
    }
}
