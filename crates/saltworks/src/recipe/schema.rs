//! The keys of a recipe as a user writes them. A doc comment is the key's documentation; a default
//! stands here and nowhere else.

use super::{Origin, RecipeError};
use crate::data::{Blur, Interpolation, Jitter, Solarize};
use crate::mask::{Masking, MultiBlockMasking};
use crate::range::Range;
use serde::{Deserialize, Serialize};

/// A whole recipe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Keys every random draw of the run.
    pub seed: u64,
    /// Threads that compute; 0 for one per core.
    pub threads: usize,
    /// Words to find the run by among others.
    pub tags: Vec<String>,
    /// Which images, and how they are prepared.
    pub data: Data,
    /// The encoder that stages train unless they say otherwise.
    pub model: Model,
    /// How the trained encoders are judged.
    pub probe: Probe,
    /// When the run saves itself.
    pub checkpoint: Checkpointing,
    /// What is written of the run beside metrics.jsonl.
    pub log: Log,
    /// What is trained, in order.
    pub stage: Vec<Stage>,
    /// Where it was read.
    #[serde(skip)]
    pub origin: Origin,
}

impl Recipe {
    /// The stage of this name among those before number `place`: what a stage's teacher may mean.
    pub fn stage_before(&self, place: usize, name: &str) -> Option<&Stage> {
        self.stage[..place].iter().find(|stage| stage.name == name)
    }

    /// Where the built-in recipe trains on other images than its own: its sizes and lengths that nobody set.
    pub fn taken_over(&self) -> Option<String> {
        let Model { patch, width, depth, heads, .. } = self.model;
        let sizes = [
            ("data.size", Some(self.data.size)),
            ("model.patch", patch),
            ("model.width", width),
            ("model.depth", depth),
            ("model.heads", heads),
        ];
        let sizes = sizes.map(|(key, value)| Some((key.to_owned(), value?.to_string())));
        let lengths = self.stage.iter().map(|stage| {
            let epochs = stage.epochs?;
            Some((format!("{}.epochs", stage.name), epochs.to_string()))
        });
        let all = sizes.into_iter().chain(lengths).flatten();
        let taken = all.filter(|(key, _)| !self.origin.is_set(key));
        let taken: Vec<_> = taken.map(|(key, value)| format!("{key} {value}")).collect();
        (self.origin.is_lent && !taken.is_empty()).then(|| taken.join(", "))
    }

    /// Fills in what is not given and has one value whatever the data, and drops what no stage reads.
    pub(super) fn resolve(&mut self) {
        self.origin.is_without_data = self.data.path.is_none() && self.data.source.is_empty();
        self.data.resolve();
        self.stage.iter_mut().for_each(Stage::resolve_method);
    }

    /// The recipe with each key that a stage has for any method: what checkpoints hold the checksum of.
    #[must_use]
    pub fn whole(&self) -> Self {
        let mut recipe = self.clone();
        for stage in &mut recipe.stage {
            stage.decoder = Some(stage.decoder());
            stage.covered = Some(stage.covered());
            stage.pixel_norm = Some(stage.pixel_norm());
            stage.predictor = Some(stage.predictor());
            stage.target_layer_norm = Some(stage.target_layer_norm());
        }
        recipe
    }
}

/// `[data]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// Where the images are: `builtin:fashion-mnist` (as when neither this nor `source` is given), a
    /// folder, tar shards, a list, parquet, NumPy or IDX files. README, "Your own images", has the
    /// table.
    pub path: Option<String>,
    /// Several sources in place of one path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<DataSource>,
    /// Red, green and blue, 0 to 255, that transparent parts of images show.
    pub background: [u8; 3],
    /// Height and width in pixels that images are brought to; the model's image size.
    pub size: usize,
    /// 1 for grey, 3 for colour; if not given as the images of `builtin:fashion-mnist` are, which is 1, else 3.
    pub channels: Option<usize>,
    /// How pixel values are brought near 0.
    pub normalize: Normalize,
    /// Images kept from training for the probes: a number, from the end for the built-in data,
    /// else drawn with `holdout_seed`. A fifth of the images, 1,000 at most, if not given.
    pub holdout: Option<usize>,
    /// Which images are held out of data that is not built in. Not the run's seed: a teacher and its
    /// student from runs of other seeds then hold out the same.
    pub holdout_seed: u64,
    /// Threads that decode and augment.
    pub threads: usize,
    /// Most images that may be unreadable, as a share of all, rounded up: each is named, and the next
    /// that can be read stands in its place. More of them end the run.
    pub max_unreadable: f64,
    /// Random changes to training images.
    pub augment: Augment,
    /// For probes the shorter side is resized to this times `size`, bicubic, and the centre kept;
    /// 1.143 is the 256 to 224 of ImageNet.
    pub eval_zoom: f64,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            path: None,
            source: Vec::new(),
            background: [0; 3],
            size: 28,
            channels: None,
            normalize: Normalize::default(),
            holdout: None,
            holdout_seed: 0,
            threads: 1,
            // (guess) Large sets fetched from the web have broken files; more is a wrong path.
            max_unreadable: 0.01,
            augment: Augment::default(),
            eval_zoom: 1.0,
        }
    }
}

/// The data of a recipe that names none.
const BUILTIN: &str = "builtin:fashion-mnist";

impl Data {
    /// Fills in the path and the channels where nothing is given.
    fn resolve(&mut self) {
        if self.source.is_empty() {
            self.path.get_or_insert_with(|| BUILTIN.to_owned());
        }
        self.channels = Some(self.channels());
    }

    /// 1 or 3.
    pub fn channels(&self) -> usize {
        let built_in = self.sources().iter().all(|source| source.path.starts_with("builtin:"));
        self.channels.unwrap_or(if built_in { 1 } else { 3 })
    }

    /// How many of the images are held out.
    pub fn held_out_of(&self, images: usize) -> usize {
        self.holdout.unwrap_or((images / 5).min(1000))
    }

    /// The sources with their weights: `source`, or `path` alone.
    pub fn sources(&self) -> Vec<DataSource> {
        match (&self.path, self.source.as_slice()) {
            (path, []) => {
                let path = path.clone().unwrap_or_else(|| BUILTIN.to_owned());
                vec![DataSource { path, ..DataSource::default() }]
            }
            (_, sources) => sources.to_vec(),
        }
    }
}

/// `[[data.source]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSource {
    /// As `data.path`.
    pub path: String,
    /// How often an epoch shows each image of this source: 2 twice, 0.5 half of them.
    pub weight: f64,
}

impl Default for DataSource {
    /// Each image once.
    fn default() -> Self {
        Self { path: String::new(), weight: 1.0 }
    }
}

/// `data.normalize`: (v/255 - mean)/std by channel. Or a name: "imagenet", "inception" (0.5 and 0.5)
/// or "clip", timm's IMAGENET_DEFAULT, IMAGENET_INCEPTION and OPENAI_CLIP (timm/data/constants.py).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Normalize {
    /// One number, or one per channel.
    pub mean: Vec<f32>,
    /// One number, or one per channel.
    pub std: Vec<f32>,
}

impl Default for Normalize {
    /// "inception": to [-1, 1].
    fn default() -> Self {
        Self { mean: vec![0.5], std: vec![0.5] }
    }
}

/// `[data.augment]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Area of a random crop as a share of the image; [1, 1] for none.
    pub crop_scale: Range,
    /// Width over height of a random crop.
    pub crop_aspect: Range,
    /// Chance of a horizontal flip.
    pub flip: f64,
    /// How crops are resized: `bilinear`, as torchvision's default, or `bicubic`, as MAE.
    pub interpolation: Interpolation,
    /// Brightness, contrast, saturation and hue, e.g. `{ hue = 0.1 }`; none if not given.
    pub jitter: Option<Jitter>,
    /// Chance of a colour image becoming grey.
    pub greyscale: f64,
    /// Gaussian blur, e.g. `{ kernel = 9 }`; none if not given.
    pub blur: Option<Blur>,
    /// Inversion of bright values, e.g. `{ threshold = 128 }`; none if not given.
    pub solarize: Option<Solarize>,
}

impl Default for Augment {
    /// MAE's crop (main_pretrain.py) and flip.
    fn default() -> Self {
        Self {
            crop_scale: Range::new(0.2, 1.0),
            crop_aspect: Range::new(3.0 / 4.0, 4.0 / 3.0),
            flip: 0.5,
            interpolation: Interpolation::Bilinear,
            jitter: None,
            greyscale: 0.0,
            blur: None,
            solarize: None,
        }
    }
}

/// `[model]` or `[stage.model]`: a timm name, and what differs from it. A stage's model without a
/// name changes the recipe's; with one it stands alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// timm's name, e.g. vit_tiny_patch16_224; the image size comes from `data.size`.
    pub name: Option<String>,
    /// Height and width of a patch in pixels.
    pub patch: Option<usize>,
    /// D
    pub width: Option<usize>,
    /// L
    pub depth: Option<usize>,
    /// A
    pub heads: Option<usize>,
    /// F over D.
    pub mlp_ratio: Option<f64>,
    /// Register tokens.
    pub registers: Option<usize>,
    /// Whether there is a class token.
    pub class_token: Option<bool>,
    /// Whether class token and registers go without a position.
    pub no_embed_class: Option<bool>,
    /// First value of layer scale.
    pub layer_scale: Option<f32>,
    /// Layer norm on queries and keys.
    pub qk_norm: Option<bool>,
    /// Rate of stochastic depth.
    pub drop_path: Option<f32>,
}

impl Model {
    /// This stage's model, on top of the recipe's.
    #[must_use]
    pub fn over(&self, base: &Self) -> Self {
        if self.name.is_some() {
            return self.clone();
        }
        Self {
            name: base.name.clone(),
            patch: self.patch.or(base.patch),
            width: self.width.or(base.width),
            depth: self.depth.or(base.depth),
            heads: self.heads.or(base.heads),
            mlp_ratio: self.mlp_ratio.or(base.mlp_ratio),
            registers: self.registers.or(base.registers),
            class_token: self.class_token.or(base.class_token),
            no_embed_class: self.no_embed_class.or(base.no_embed_class),
            layer_scale: self.layer_scale.or(base.layer_scale),
            qk_norm: self.qk_norm.or(base.qk_norm),
            drop_path: self.drop_path.or(base.drop_path),
        }
    }
}

/// `[probe]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Probe {
    /// Neighbours of kNN.
    pub k: usize,
    /// Temperature of kNN's votes.
    pub temperature: f64,
    /// Which probes: kNN always, a linear one too if true.
    pub linear: bool,
    /// Probe while a stage trains, too: before its first step, now and then, and after its last.
    pub online: bool,
    /// Optimizer steps between two of these probes; without it as many as `share` allows, twenty at most.
    pub every_steps: Option<u64>,
    /// Where `every_steps` is not given: time of a probe over the time trained since the last one.
    pub share: f64,
    /// Training images, and held-out images, of these probes, at most.
    pub images: usize,
}

impl Default for Probe {
    /// DINO's kNN temperature; k as stable-pretraining's OnlineKNN examples.
    fn default() -> Self {
        Self {
            k: 20,
            temperature: 0.07,
            linear: true,
            online: true,
            every_steps: None,
            // With the first and the last probe of a stage that stays under 5 %.
            share: 0.03,
            images: 500,
        }
    }
}

/// `[checkpoint]`: all that a stage needs to go on as if it had never stopped. A signal saves one too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Checkpointing {
    /// Minutes between two checkpoints: the most that a crash costs; 0 for none by time.
    pub every_minutes: f64,
    /// Optimizer steps between two checkpoints; 0 for none by steps.
    pub every_steps: u64,
    /// How many of a stage's newest are kept.
    pub keep: usize,
    /// Keep the one of the lowest training loss, too.
    pub keep_best: bool,
}

impl Default for Checkpointing {
    /// Two, so that one damaged on disk leaves another.
    fn default() -> Self {
        Self { every_minutes: 5.0, every_steps: 0, keep: 2, keep_best: true }
    }
}

/// `[log]`: nothing of it changes a bit of what is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// report.html: curves, probes and pictures in one file, written again while the run goes on.
    pub report: bool,
    /// Reconstructions, attention, neighbours and more at each probe, in `pictures/`.
    pub pictures: bool,
    /// Event files of TensorBoard, in `tensorboard/`.
    pub tensorboard: bool,
    /// An offline run of Weights & Biases, in `wandb/`.
    pub wandb: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { report: true, pictures: true, tensorboard: false, wandb: false }
    }
}

/// `[[stage]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stage {
    /// How other stages, files and `--set` call it.
    pub name: String,
    /// `mae` or `salt`.
    pub method: MethodName,
    /// SALT's teacher: the name of an earlier stage, or a file of weights or a folder with one, of ours or
    /// of others.
    pub teacher: Option<String>,
    /// The encoder of this stage, if it is not the recipe's.
    pub model: Option<Model>,
    /// How long: exactly one of epochs, steps and samples.
    pub epochs: Option<f64>,
    /// How long, in optimizer steps.
    pub steps: Option<u64>,
    /// How long, in images seen.
    pub samples: Option<u64>,
    /// Images of an optimizer step.
    pub batch: usize,
    /// Parts that a batch is computed in, one after another, to save memory.
    pub accumulate: usize,
    /// Keep only the input of transformer blocks (all but a last one of which few rows are read) and
    /// compute each again in the backward pass: less memory, more time, the same bits.
    pub activation_checkpointing: bool,
    /// Learning rate after warmup.
    pub lr: f64,
    /// Learning rate before the first step, where the warmup begins.
    pub start_lr: f64,
    /// Learning rate at the last step, where the cosine ends.
    pub final_lr: f64,
    /// Linear warmup.
    pub warmup: Duration,
    /// Decoupled weight decay before the first step.
    pub weight_decay: f64,
    /// Weight decay at the last step, reached by a cosine; constant if not given.
    pub final_weight_decay: Option<f64>,
    /// Decay biases, norms, tokens and position tables too, as the reference.
    pub decay_all: bool,
    /// AdamW's β1 and β2.
    pub betas: [f64; 2],
    /// AdamW's ε.
    pub eps: f32,
    /// Most the gradient's L2 norm may be; no clipping if 0.
    pub clip: f32,
    /// Which patches are seen and which are predicted.
    pub masks: Masking,
    /// The loss between prediction and target; L1 for SALT, MSE for MAE if not given.
    pub loss: Option<Loss>,
    /// MAE's decoder; width 512, depth 8, heads 16 if not given.
    pub decoder: Option<Trunk>,
    /// MAE: which patches are reconstructed; `all_masked` if not given.
    pub covered: Option<Covered>,
    /// MAE: normalisation of the pixels to reconstruct; `joint` if not given.
    pub pixel_norm: Option<PixelNorm>,
    /// SALT's predictor; width 384, depth 12, heads 16 if not given.
    pub predictor: Option<Trunk>,
    /// SALT: a layer norm without parameters on the teacher's latents, as V-JEPA; none if not given.
    pub target_layer_norm: Option<bool>,
}

impl Default for Stage {
    /// Learning rate, decay and betas of stable-pretraining's SALT scripts; clip off as there.
    fn default() -> Self {
        Self {
            name: String::new(),
            method: MethodName::Mae,
            teacher: None,
            model: None,
            epochs: None,
            steps: None,
            samples: None,
            batch: 128,
            accumulate: 1,
            activation_checkpointing: false,
            lr: 6.25e-4,
            start_lr: 0.0,
            final_lr: 1e-6,
            warmup: Duration::Percent(10.0),
            weight_decay: 0.04,
            final_weight_decay: None,
            decay_all: false,
            betas: [0.9, 0.95],
            eps: 1e-8,
            clip: 0.0,
            masks: Masking::MultiBlock(MultiBlockMasking::default()),
            loss: None,
            decoder: None,
            covered: None,
            pixel_norm: None,
            predictor: None,
            target_layer_norm: None,
        }
    }
}

/// Which method trains a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MethodName {
    /// Pixel reconstruction.
    Mae,
    /// Prediction of a frozen teacher's latents.
    Salt,
}

impl MethodName {
    /// As recipes name it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mae => "mae",
            Self::Salt => "salt",
        }
    }
}

/// A length of training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duration {
    /// Optimizer steps.
    Steps(u64),
    /// Passes over the training images.
    Epochs(f64),
    /// Images seen.
    Samples(u64),
    /// Of the stage.
    Percent(f64),
}

/// A loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// |δ|
    L1,
    /// Quadratic below the number, linear above.
    SmoothL1(f32),
    /// δ²
    Mse,
}

/// Sizes of a decoder or predictor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trunk {
    /// D
    pub width: usize,
    /// L
    pub depth: usize,
    /// A
    pub heads: usize,
}

/// Which patches MAE reconstructs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Covered {
    /// All that are not context, as the reference.
    AllMasked,
    /// The masks' targets.
    Targets,
}

/// How MAE's pixels are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PixelNorm {
    /// Not at all.
    None,
    /// Each patch: MAE and the reference.
    Joint,
    /// Each channel of each patch: VideoMAE.
    PerChannel,
}

/// A stage's length and schedules in steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Optimizer steps.
    pub steps: u64,
    /// Steps of linear warmup.
    pub warmup_steps: u64,
}

impl Stage {
    /// Gives the settings of the stage's method their values, and drops another method's.
    fn resolve_method(&mut self) {
        let Self { decoder, covered, pixel_norm, predictor, target_layer_norm, .. } =
            Self::default();
        match self.method {
            MethodName::Mae => {
                (self.predictor, self.target_layer_norm) = (predictor, target_layer_norm);
                self.decoder = Some(self.decoder());
                self.covered = Some(self.covered());
                self.pixel_norm = Some(self.pixel_norm());
            }
            MethodName::Salt => {
                (self.decoder, self.covered, self.pixel_norm) = (decoder, covered, pixel_norm);
                self.predictor = Some(self.predictor());
                self.target_layer_norm = Some(self.target_layer_norm());
            }
        }
    }

    /// Of MAE; stable-pretraining's if not given.
    pub fn decoder(&self) -> Trunk {
        self.decoder.unwrap_or(Trunk { width: 512, depth: 8, heads: 16 })
    }

    /// Of MAE.
    pub fn covered(&self) -> Covered {
        self.covered.unwrap_or(Covered::AllMasked)
    }

    /// Of MAE.
    pub fn pixel_norm(&self) -> PixelNorm {
        self.pixel_norm.unwrap_or(PixelNorm::Joint)
    }

    /// Of SALT; stable-pretraining's, and the paper's, if not given.
    pub fn predictor(&self) -> Trunk {
        self.predictor.unwrap_or(Trunk { width: 384, depth: 12, heads: 16 })
    }

    /// Of SALT.
    pub fn target_layer_norm(&self) -> bool {
        self.target_layer_norm.unwrap_or(false)
    }

    /// The length in steps, for `images` training images.
    pub fn resolve(&self, images: usize) -> Result<Schedule, RecipeError> {
        let length = match (self.epochs, self.steps, self.samples) {
            (Some(epochs), None, None) => Duration::Epochs(epochs),
            (None, Some(steps), None) => Duration::Steps(steps),
            (None, None, Some(samples)) => Duration::Samples(samples),
            given => {
                let count = [given.0.is_some(), given.1.is_some(), given.2.is_some()];
                let count = count.into_iter().filter(|given| *given).count();
                return Err(RecipeError::Value {
                    key: self.name.clone(),
                    found: format!("given {count} of epochs, steps and samples"),
                    expected: "exactly one of them".into(),
                });
            }
        };
        let steps = self.steps_of(length, images, 0).max(1);
        let warmup_steps = self.steps_of(self.warmup, images, steps).min(steps);
        Ok(Schedule { steps, warmup_steps })
    }

    fn steps_of(&self, length: Duration, images: usize, stage_steps: u64) -> u64 {
        let batch = self.batch as f64;
        let steps = match length {
            Duration::Steps(steps) => return steps,
            Duration::Epochs(epochs) => epochs * images as f64 / batch,
            Duration::Samples(samples) => samples as f64 / batch,
            Duration::Percent(percent) => stage_steps as f64 * percent / 100.0,
        };
        steps.round() as u64
    }
}
