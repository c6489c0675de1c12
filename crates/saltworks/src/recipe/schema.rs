//! The keys of a recipe as a user writes them. A key's doc comment is its documentation, from which
//! docs/recipe.md is generated. Its default is set here and nowhere else.

use super::values::{
    Covered, CutImages, DecoderSize, Duration, Loss, MethodName, PixelNorm, RopeForm,
};
use super::{Color, Depth, ImageSize, Origin, PatchSize};
use crate::data::{Blur, Decoding, Interpolation, Jitter, Solarize};
use crate::mask::{MaskList, Masking, MultiBlockMasking};
use crate::range::Range;
use serde::{Deserialize, Deserializer, Serialize};

/// These keys come before the first table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Every random draw of the run depends on it, except the choice of held-out images.
    pub seed: u64,
    /// How many threads compute. 0 means one per core.
    pub threads: usize,
    /// How long the whole run is to take. The lengths of the stages are multiplied by one factor,
    /// so that training and probes take this long. The factor follows from steps that are timed
    /// before the run. The run's own recipe holds the lengths in steps instead, so that the run can
    /// be resumed and repeated to the same bits.
    pub minutes: Option<f64>,
    /// How activations and their gradients are stored, and what weights, those of attention too,
    /// are rounded to before they are multiplied. Parameters, their gradients, AdamW's moments,
    /// losses, and sums within an operation are f32 in both. Probes compute in f32.
    pub precision: Precision,
    /// Words by which you find the run among others.
    pub tags: Vec<String>,
    /// Which images are read, and how they are prepared.
    pub data: Data,
    /// The encoder that every stage trains, unless the stage changes it.
    pub model: Model,
    /// How encoders are judged.
    pub probe: Probe,
    /// When the run saves a checkpoint.
    pub checkpoint: Checkpointing,
    /// What the run writes besides `metrics.jsonl`.
    pub log: Log,
    /// What is trained, in this order.
    pub stage: Vec<Stage>,
    /// Where the recipe was read.
    #[serde(skip)]
    pub origin: Origin,
}

impl Recipe {
    /// The stage with this name among those before `stage_index`: a teacher comes from these.
    pub fn stage_before(&self, stage_index: usize, name: &str) -> Option<&Stage> {
        self.stage[..stage_index].iter().find(|stage| stage.name == name)
    }

    /// Fills in defaults that do not depend on the data, and drops keys that no stage reads.
    pub(super) fn resolve(&mut self) {
        self.origin.is_without_data = self.data.path.is_none() && self.data.source.is_empty();
        self.data.resolve();
        self.stage.iter_mut().for_each(Stage::resolve_method);
    }

    /// The recipe with the keys of both methods in every stage. Checkpoints hold its checksum.
    #[must_use]
    pub fn whole(&self) -> Self {
        let mut recipe = self.clone();
        for stage in &mut recipe.stage {
            let sizes = stage.decoder.or(stage.predictor);
            let initial_weights = sizes.map(|sizes| sizes.initial_weights).unwrap_or_default();
            stage.decoder.get_or_insert(DecoderSize { initial_weights, ..stage.decoder() });
            stage.covered = Some(stage.covered());
            stage.pixel_norm = Some(stage.pixel_norm());
            stage.predictor.get_or_insert(DecoderSize { initial_weights, ..stage.predictor() });
            stage.target_layer_norm = Some(stage.target_layer_norm());
        }
        recipe
    }
}

/// Which images are read, and how they are prepared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// Where the images are: a folder, tar shards, a list, parquet, NumPy or IDX files, or a name
    /// such as `builtin:fashion-mnist`. docs/data.md has the table. Give this or `source`, not
    /// both.
    pub path: Option<String>,
    /// The column of parquet files that the images are in: bytes, or a struct with bytes. If not
    /// set, it is found by its name and type. docs/data.md has the rule.
    pub column: Option<String>,
    /// Several sources instead of one path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<DataSource>,
    /// The set of labels that probes judge first, of a source with several, such as `"what"` of
    /// `builtin:moving-fashion`. If not set, it is the source's first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// The colour that transparent parts of images show: red, green and blue, 0 to 255, a name or
    /// hexadecimal digits. `"white"` and `"#ffffff"` are the same as `[255, 255, 255]`.
    pub background: Color,
    /// The values that become black and white, for images of more than eight bits: a number of
    /// bits, such as `12`, or `[black, white]`, such as `[0, 4095]`. Values outside are cut. If not
    /// set, all values of 16 unsigned bits are shown, and other kinds of numbers are refused.
    /// Images of eight bits stay as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<Depth>,
    /// What happens to JPEGs that are cut off: `"refuse"` makes them unreadable, `"keep"` decodes
    /// them as far as they go. Their missing part is grey. If not set, they are refused.
    #[serde(skip_serializing_if = "CutImages::is_earlier")]
    pub cut_images: CutImages,
    /// Height and width of the model's images in pixels: a number for squares, or
    /// `[height, width]`. Images are resized to it.
    pub size: ImageSize,
    /// Frames of a clip, for models of clips. A longer clip gives consecutive ones, a shorter one
    /// repeats its last. If not set, it is 1, for images.
    #[serde(skip_serializing_if = "is_one")]
    pub frames: usize,
    /// 1 for grey, 3 for colour, or the number of bands of the images. If not set, it is 1 for the
    /// built-in images (as here) and 3 for all others. Grey and colour are converted to each other.
    pub channels: Option<usize>,
    /// How pixel values are normalised: a name or a table.
    pub normalize: Normalize,
    /// How many images are held out of training, for the probes. They are the last ones of the
    /// built-in data. Of other data they are drawn with `holdout_seed`. If not set, a fifth of the
    /// images is held out, at most 1,000.
    pub holdout: Option<usize>,
    /// Decides which images are held out, if the data is not built in. It is not the run's `seed`,
    /// so that runs with other seeds hold out the same images.
    pub holdout_seed: u64,
    /// How many threads decode and augment images.
    pub threads: usize,
    /// The share of images that may be unreadable, rounded up to whole images. Each is reported by
    /// name, and the next readable image takes its place. If there are more, the run ends.
    pub max_unreadable: f64,
    /// Random changes of the training images.
    pub augment: Augment,
    /// For probes, an image is resized until it just covers this times `size` (bicubic). Then its
    /// centre is cropped to `size`. 1.143 is ImageNet's 256 to 224.
    pub eval_zoom: f64,
}

impl Default for Data {
    fn default() -> Self {
        Self {
            path: None,
            column: None,
            source: Vec::new(),
            labels: None,
            background: Color::default(),
            depth: None,
            cut_images: CutImages::Refuse,
            size: ImageSize::square(28),
            frames: 1,
            channels: None,
            normalize: Normalize::default(),
            holdout: None,
            holdout_seed: 0,
            threads: 1,
            // (guess) Large sets from the web have some broken files. More means a wrong path.
            max_unreadable: 0.01,
            augment: Augment::default(),
            eval_zoom: 1.0,
        }
    }
}

fn is_one(count: &usize) -> bool {
    *count == 1
}

/// The images of a recipe that names none.
const BUILTIN: &str = "builtin:fashion-mnist";

impl Data {
    /// Fills in the path and the channels if they are not given.
    fn resolve(&mut self) {
        if self.source.is_empty() {
            self.path.get_or_insert_with(|| BUILTIN.to_owned());
        }
        self.channels = Some(self.channels());
    }

    /// Whether all images are part of the program.
    pub fn is_built_in(&self) -> bool {
        self.sources().iter().all(|source| source.path.starts_with("builtin:"))
    }

    /// The channels.
    pub fn channels(&self) -> usize {
        self.channels.unwrap_or(if self.is_built_in() { 1 } else { 3 })
    }

    /// How the files of images become pixels.
    pub fn decoding(&self) -> Decoding {
        Decoding {
            background: self.background.0,
            depth: self.depth.map(|depth| depth.0),
            keep_cut: self.cut_images == CutImages::Keep,
        }
    }

    /// How many of `images` are held out.
    pub fn held_out_of(&self, images: usize) -> usize {
        self.holdout.unwrap_or((images / 5).min(1000))
    }

    /// The sources with their weights: `source`, or only `path`.
    pub fn sources(&self) -> Vec<DataSource> {
        match (&self.path, self.source.as_slice()) {
            (path, []) => {
                let path = path.clone().unwrap_or_else(|| BUILTIN.to_owned());
                let column = self.column.clone();
                vec![DataSource { path, column, ..DataSource::default() }]
            }
            (_, sources) => sources.to_vec(),
        }
    }
}

/// One of several sources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSource {
    /// Where its images are, as in `data.path`.
    pub path: String,
    /// How often an epoch shows each image of this source. With 2, it shows each image twice. With
    /// 0.5, it shows half of them, always the same.
    pub weight: f64,
    /// The column that its images are in, as in `data.column`.
    pub column: Option<String>,
}

impl Default for DataSource {
    /// Each image once.
    fn default() -> Self {
        Self { path: String::new(), weight: 1.0, column: None }
    }
}

/// A pixel value v, 0 to 255, becomes (v/255 - mean)/std, for each channel. A name stands for a
/// table: `"imagenet"`, `"inception"` (0.5 and 0.5) or `"clip"`. These are timm's IMAGENET_DEFAULT,
/// IMAGENET_INCEPTION and OPENAI_CLIP (timm/data/constants.py).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Normalize {
    /// One number, or one for each channel.
    pub mean: Vec<f32>,
    /// One number, or one for each channel.
    pub std: Vec<f32>,
}

impl Default for Normalize {
    /// "inception", which brings values to [-1, 1].
    fn default() -> Self {
        Self { mean: vec![0.5], std: vec![0.5] }
    }
}

/// Random changes of the training images. Each is defined as in torchvision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augment {
    /// Area of a random crop, as a share of the image. `[1, 1]` turns cropping off.
    pub crop_scale: Range,
    /// Width over height of a random crop.
    pub crop_aspect: Range,
    /// Chance of a horizontal flip.
    pub flip: f64,
    /// How crops are resized. torchvision's default is bilinear, MAE's is bicubic.
    pub interpolation: Interpolation,
    /// Random brightness, contrast, saturation and hue, e.g. `{ hue = 0.1 }`.
    pub jitter: Option<Jitter>,
    /// Chance that a colour image becomes grey.
    pub greyscale: f64,
    /// Gaussian blur, e.g. `{ kernel = 9 }`.
    pub blur: Option<Blur>,
    /// Inverts bright values, e.g. `{ threshold = 128 }`.
    pub solarize: Option<Solarize>,
}

impl Default for Augment {
    /// The crop and the flip of MAE (main_pretrain.py).
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

/// An encoder: a timm name, and the differences from it. A key that is not set has the value of the
/// named encoder.
///
/// A stage may have a model of its own, as `[stage.model]`. Without a name, it changes the recipe's
/// model. With a name, it replaces it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// timm's name. If not set, it is `vit_tiny_patch16_224`. The image size comes from
    /// `data.size`.
    pub name: Option<String>,
    /// Height and width of a patch in pixels: a number for squares, `[height, width]`, or
    /// `[frames, height, width]`.
    pub patch: Option<PatchSize>,
    /// Width of a token, D.
    pub width: Option<usize>,
    /// Number of blocks, L.
    pub depth: Option<usize>,
    /// Number of attention heads, A.
    pub heads: Option<usize>,
    /// Width of the MLP's hidden layer, as a multiple of `width`.
    pub mlp_ratio: Option<f64>,
    /// Number of register tokens.
    pub registers: Option<usize>,
    /// Whether there is a class token.
    pub class_token: Option<bool>,
    /// Whether the class token and the registers get no position embedding.
    pub no_embed_class: Option<bool>,
    /// Initial value of layer scale.
    pub layer_scale: Option<f32>,
    /// Whether queries and keys get a layer norm.
    pub qk_norm: Option<bool>,
    /// Rotary positions in place of a learned table, also in the decoder or predictor.
    pub rope: Option<RopeForm>,
    /// Whether tokens get a layer norm before the first block, as in CLIP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_norm: Option<bool>,
    /// Whether the MLPs are SwiGLU. Its hidden layer is the one behind the gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swiglu: Option<bool>,
    /// What layer norms add to the variance, ε.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps: Option<f32>,
    /// Rate of stochastic depth, which drops whole branches.
    pub drop_path: Option<f32>,
}

impl Model {
    /// timm's name of the encoder.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("vit_tiny_patch16_224")
    }

    /// The keys of this stage's model, over those of the recipe's model `base`.
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
            rope: self.rope.or(base.rope),
            pre_norm: self.pre_norm.or(base.pre_norm),
            swiglu: self.swiglu.or(base.swiglu),
            eps: self.eps.or(base.eps),
            drop_path: self.drop_path.or(base.drop_path),
        }
    }
}

/// How encoders are judged, after training and while a stage trains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Probe {
    /// Images on which encoders are judged: a path as in `data.path`, or a list of them. Then
    /// nothing is held out of the training images, unless `data.holdout` is set. Probes while a
    /// stage trains use the first one. If not set, images to validate or test beside the training
    /// images are used, such as a folder `val` beside `train`, or held-out images.
    #[serde(deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// How many neighbours vote in kNN.
    pub k: usize,
    /// Temperature of kNN's votes.
    pub temperature: f64,
    /// Whether to train a linear probe too. kNN is always computed.
    pub linear: bool,
    /// Whether to probe while a stage trains: before its first step, from time to time, and after
    /// its last step.
    pub online: bool,
    /// Optimizer steps between two of these probes. If not set, there are as many probes as `share`
    /// allows, at most twenty between the first and the last. A probe at 5, 25, 50 and 75 % of the
    /// stage may take more: a tenth of the time trained so far.
    pub every_steps: Option<u64>,
    /// The time that a probe may take, as a share of the time trained since the last one. It counts
    /// only if `every_steps` is not set.
    pub share: f64,
    /// How many training images, and how many held-out images, these probes use at most.
    pub images: usize,
    /// How many images the probes after training use at most: held-out images, up to half of them,
    /// and training images. If not set, it is 11,000, or fewer if their features would take more
    /// than a fifth of the training's FLOPs, but not fewer than twice `images`.
    pub most_images: Option<usize>,
}

impl Default for Probe {
    /// The kNN temperature of DINO, and the k of stable-pretraining's OnlineKNN examples.
    fn default() -> Self {
        Self {
            test: Vec::new(),
            k: 20,
            temperature: 0.07,
            linear: true,
            online: true,
            every_steps: None,
            // Together with the first and the last probe of a stage, this stays under 5 %.
            share: 0.03,
            images: 500,
            most_images: None,
        }
    }
}

/// Reads a text or a list of texts.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a path in quotes, or a list of paths")]
    enum Written {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::One(one) => vec![one],
        Written::Many(many) => many,
    })
}

/// When a run saves a checkpoint, from which it resumes to the same bits. A
/// signal that stops the run saves one too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Checkpointing {
    /// Minutes between two checkpoints: the most that a crash costs. 0 means none by time.
    pub every_minutes: f64,
    /// Optimizer steps between two checkpoints. 0 means none by steps.
    pub every_steps: u64,
    /// How many of a stage's newest checkpoints are kept.
    pub keep: usize,
    /// Whether to keep the checkpoint with the lowest training loss, too.
    pub keep_best: bool,
    /// Whether to keep the last checkpoint of the last stage after its end, so that the stage can
    /// be made longer.
    pub keep_end: bool,
}

impl Default for Checkpointing {
    /// Two are kept, so that one remains if the other is damaged on disk.
    fn default() -> Self {
        Self { every_minutes: 5.0, every_steps: 0, keep: 2, keep_best: true, keep_end: true }
    }
}

/// What a run writes besides `metrics.jsonl`. These keys do not change the trained
/// weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Write `report.html`: curves, probes and pictures in one file, written again during the run.
    pub report: bool,
    /// Draw reconstructions, attention, neighbours and more at each probe, in `pictures/`.
    pub pictures: bool,
    /// Write event files for TensorBoard, in `tensorboard/`.
    pub tensorboard: bool,
    /// Write an offline run for Weights & Biases, in `wandb/`.
    pub wandb: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { report: true, pictures: true, tensorboard: false, wandb: false }
    }
}

/// One stage of training: an encoder, trained by a method.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stage {
    /// The stage's name in files, in `--set`, and as a teacher of other stages.
    pub name: String,
    /// How it is trained.
    pub method: MethodName,
    /// SALT: its teacher, required. Give the name of an earlier stage, a file of weights, or a
    /// folder with one. The weights may come from other programs.
    pub teacher: Option<String>,
    /// SALT: of a teacher's file with several models, the one to read. It is a word before its
    /// names, such as `student` or `ema`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher_part: Option<String>,
    /// Weights with which its encoder starts: the name of an earlier stage, a file of weights, or a
    /// folder with one. Their sizes must be those of the encoder, except the size of the images. If
    /// not set, they are drawn at random.
    pub init: Option<String>,
    /// The same of the file `init`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_part: Option<String>,
    /// Changes the recipe's encoder for this stage.
    pub model: Option<Model>,
    /// Length in passes over the images. Give exactly one of `epochs`, `steps`, `samples` and
    /// `minutes`.
    pub epochs: Option<f64>,
    /// Length in optimizer steps.
    pub steps: Option<u64>,
    /// Length in images.
    pub samples: Option<u64>,
    /// Length in minutes, with the probes while the stage trains. It becomes a number of steps, as
    /// for the run's `minutes`.
    pub minutes: Option<f64>,
    /// Images per optimizer step.
    pub batch: usize,
    /// Number of parts in which a batch is computed, one after another, to save memory.
    pub accumulate: usize,
    /// Keep only the input of each transformer block, and compute the block again in the backward
    /// pass. It takes less memory and more time, and gives the same bits. The last block is kept
    /// whole if only few of its rows are read.
    pub activation_checkpointing: bool,
    /// Learning rate after the warmup.
    pub lr: f64,
    /// Learning rate at which the warmup begins.
    pub start_lr: f64,
    /// Learning rate at the last step. A cosine leads to it, or a straight line in the `cooldown`.
    pub final_lr: f64,
    /// Length of the last part, in which the learning rate falls in a straight line, after a
    /// constant (warmup-stable-decay). If not set, it falls by a cosine from the warmup on.
    pub cooldown: Option<Duration>,
    /// Length of the linear warmup.
    pub warmup: Duration,
    /// Decoupled weight decay at the first step.
    pub weight_decay: f64,
    /// Weight decay at the last step. A cosine leads to it. If not set, the decay is constant.
    pub final_weight_decay: Option<f64>,
    /// Decay biases, norms, tokens and position tables too, as stable-pretraining does.
    pub decay_all: bool,
    /// AdamW's β1 and β2.
    pub betas: [f64; 2],
    /// AdamW's ε.
    pub eps: f32,
    /// The gradient is clipped to this L2 norm. 0 means no clipping.
    pub clip: f32,
    /// Which patches the encoder sees, and which are predicted. A list gives each sample several
    /// masks.
    pub masks: MaskList,
    /// The loss between prediction and target. If not set, it is L1 for SALT and MSE for MAE.
    pub loss: Option<Loss>,
    /// MAE: the size of its decoder.
    pub decoder: Option<DecoderSize>,
    /// MAE: which patches are reconstructed.
    pub covered: Option<Covered>,
    /// MAE: how the pixels to reconstruct are normalised.
    pub pixel_norm: Option<PixelNorm>,
    /// SALT: the size of its predictor.
    pub predictor: Option<DecoderSize>,
    /// SALT: whether each mask of a sample has a mask token of its own, as in V-JEPA. If not set,
    /// it has one.
    pub mask_token_per_mask: Option<bool>,
    /// SALT: whether the teacher's latents get a layer norm without parameters, as in V-JEPA.
    pub target_layer_norm: Option<bool>,
}

impl Default for Stage {
    /// Learning rate, decay and betas of stable-pretraining's SALT scripts, which do not clip.
    fn default() -> Self {
        Self {
            name: String::new(),
            method: MethodName::Mae,
            teacher: None,
            teacher_part: None,
            init: None,
            init_part: None,
            model: None,
            epochs: None,
            steps: None,
            samples: None,
            minutes: None,
            batch: 128,
            accumulate: 1,
            activation_checkpointing: false,
            lr: 6.25e-4,
            start_lr: 0.0,
            final_lr: 1e-6,
            cooldown: None,
            warmup: Duration::Percent(10.0),
            weight_decay: 0.04,
            final_weight_decay: None,
            decay_all: false,
            betas: [0.9, 0.95],
            eps: 1e-8,
            clip: 0.0,
            masks: Masking::MultiBlock(MultiBlockMasking::default()).into(),
            loss: None,
            decoder: None,
            covered: None,
            pixel_norm: None,
            predictor: None,
            mask_token_per_mask: None,
            target_layer_norm: None,
        }
    }
}

/// How activations are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floating point.
    #[default]
    F32,
    /// bfloat16: half the memory for activations, two to three significant digits instead of seven.
    Bf16,
}

impl Stage {
    /// Fills in the settings of the stage's method, and drops those of the other method.
    fn resolve_method(&mut self) {
        let Self { decoder, covered, pixel_norm, predictor, target_layer_norm, .. } =
            Self::default();
        match self.method {
            MethodName::Mae => {
                (self.predictor, self.target_layer_norm) = (predictor, target_layer_norm);
                self.mask_token_per_mask = None;
                self.decoder = Some(self.decoder());
                self.covered = Some(self.covered());
                self.pixel_norm = Some(self.pixel_norm());
            }
            MethodName::Salt => {
                (self.decoder, self.covered, self.pixel_norm) = (decoder, covered, pixel_norm);
                self.predictor = Some(self.predictor());
                self.target_layer_norm = Some(self.target_layer_norm());
                if self.masks.per_sample() == 1 {
                    self.mask_token_per_mask = None;
                }
            }
        }
    }

    /// The decoder of MAE. The default is stable-pretraining's.
    pub fn decoder(&self) -> DecoderSize {
        self.decoder.unwrap_or(DecoderSize::new(512, 8, 16))
    }

    /// Which patches MAE reconstructs.
    pub fn covered(&self) -> Covered {
        self.covered.unwrap_or(Covered::AllMasked)
    }

    /// How MAE's pixels are normalised.
    pub fn pixel_norm(&self) -> PixelNorm {
        self.pixel_norm.unwrap_or(PixelNorm::Joint)
    }

    /// The loss. If not set, it is the paper's L1 for SALT, and MSE for MAE.
    pub fn loss(&self) -> Loss {
        self.loss.unwrap_or(match self.method {
            MethodName::Mae => Loss::Mse,
            MethodName::Salt => Loss::L1,
        })
    }

    /// Weight decay at the last step.
    pub fn final_weight_decay(&self) -> f64 {
        self.final_weight_decay.unwrap_or(self.weight_decay)
    }

    /// The predictor of SALT. The default is that of stable-pretraining and of the paper.
    pub fn predictor(&self) -> DecoderSize {
        self.predictor.unwrap_or(DecoderSize::new(384, 12, 16))
    }

    /// Mask tokens of SALT's predictor.
    pub fn mask_tokens(&self) -> usize {
        if self.mask_token_per_mask.unwrap_or(true) { self.masks.per_sample() } else { 1 }
    }

    /// Whether SALT's targets get a layer norm.
    pub fn target_layer_norm(&self) -> bool {
        self.target_layer_norm.unwrap_or(false)
    }
}
