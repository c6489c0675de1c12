//! From a recipe to data, models and methods.

use super::{Failure, asked};
use crate::data::{
    self, Crop, Effects, Holdout, Loader, LoaderOptions, Order, Source, Transform, hold_out,
};
use crate::method::{Covered, Mae, MaeOptions, PixelNorm, SaltOptions};
use crate::model::{Encoder, TransformerSpec, VitSpec};
use crate::recipe::{self, Data, Loss, Model, Recipe, Schedule, Stage, Trunk};
use crate::train::{Curve, OptimizerOptions};
use engine::ops::LossKind;
use std::path::Path;
use std::sync::Arc;

/// The images of a run.
pub(super) struct Images {
    /// Trains.
    pub(super) train: Arc<dyn Source>,
    /// Probes; none without a holdout, or where not every image has one of two classes or more.
    pub(super) held_out: Option<Arc<dyn Source>>,
}

/// Opens the data, all of it.
pub(super) fn source(data: &Data) -> Result<Arc<dyn Source>, Failure> {
    data::open(Path::new(&data.path), data.background).map_err(asked)
}

/// Opens the data and holds out what the probes need.
pub(super) fn open(recipe: &Recipe) -> Result<Images, Failure> {
    let data = &recipe.data;
    let source = source(data)?;
    let labelled = source.classes().len() > 1 && (0..source.len()).all(|i| source.label(i) >= 0);
    if data.holdout == 0 || !labelled {
        // Nothing to probe: all images train.
        return Ok(Images { train: source, held_out: None });
    }
    let len = source.len();
    if data.holdout >= len {
        let (found, most, what) = (data.holdout, len - 1, source.describe());
        return Err(asked(format!(
            "data.holdout is {found}, expected 0 to {most} of the images ({what}). Add --set \
             data.holdout={} or another number",
            len / 10
        )));
    }
    let holdout = if data.path.starts_with("builtin:") {
        Holdout::Last { count: data.holdout }
    } else {
        let fraction = data.holdout as f64 / len as f64;
        Holdout::Share { fraction, seed: data.holdout_seed }
    };
    let (train, held_out) = hold_out(&source, holdout).map_err(asked)?;
    Ok(Images { train: Arc::new(train), held_out: Some(Arc::new(held_out)) })
}

/// One number for all channels, or one each.
fn by_channel(values: &[f32], channels: usize) -> Vec<f32> {
    if values.len() == 1 { vec![values[0]; channels] } else { values.to_vec() }
}

/// The normalisation of pixels.
pub(super) fn normalize(data: &Data) -> data::Normalize {
    data::Normalize {
        mean: by_channel(&data.normalize.mean, data.channels),
        std: by_channel(&data.normalize.std, data.channels),
    }
}

/// How training batches are loaded.
pub(super) fn training_loader(recipe: &Recipe, stage: &Stage, place: usize) -> LoaderOptions {
    let data = &recipe.data;
    let augment = &data.augment;
    let whole = augment.crop_scale.min == 1.0 && augment.crop_scale.max == 1.0;
    let size = [data.size; 2];
    let crop = if whole {
        Crop::Center { zoom: 1.0 }
    } else {
        Crop::RandomResized { scale: augment.crop_scale, ratio: augment.crop_aspect }
    };
    let effects = Effects {
        jitter: augment.jitter,
        greyscale: augment.greyscale,
        blur: augment.blur,
        solarize: augment.solarize,
    };
    // Each stage has its own order and augmentations.
    let seed = stage_seed(recipe.seed, place);
    LoaderOptions {
        batch: stage.batch / stage.accumulate,
        threads: data.threads,
        prefetch: 2 * data.threads + 2,
        order: Order::Shuffled { seed },
        first_sample: 0,
        augment_seed: seed,
        transform: Transform {
            size,
            crop,
            flip: augment.flip,
            interpolation: augment.interpolation,
            effects,
        },
        channels: data.channels,
        normalize: normalize(data),
        max_unreadable: data.max_unreadable,
    }
}

/// A loader of all images of a source in order, for features.
pub(super) fn feature_loader(data: &Data, source: Arc<dyn Source>) -> Result<Loader, Failure> {
    let options = LoaderOptions {
        batch: 250,
        threads: data.threads,
        prefetch: 2 * data.threads + 2,
        order: Order::Once,
        first_sample: 0,
        augment_seed: 0,
        transform: Transform {
            crop: Crop::Center { zoom: data.eval_zoom },
            ..Transform::center([data.size; 2])
        },
        channels: data.channels,
        normalize: normalize(data),
        max_unreadable: data.max_unreadable,
    };
    Loader::new(source, options).map_err(asked)
}

/// The seed of stage number `place`.
pub(super) fn stage_seed(seed: u64, place: usize) -> u64 {
    // An odd constant: different stages of neighbouring seeds do not meet (Weyl sequence).
    seed.wrapping_add((place as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// The sizes of a stage's encoder.
pub(super) fn spec(recipe: &Recipe, stage: &Stage) -> Result<VitSpec, Failure> {
    let model = stage.model.as_ref().map(|model| model.over(&recipe.model));
    spec_of(model.as_ref().unwrap_or(&recipe.model), recipe.data.size, recipe.data.channels)
}

fn spec_of(model: &Model, size: usize, channels: usize) -> Result<VitSpec, Failure> {
    let name = model.name.as_deref().unwrap_or("vit_tiny_patch16_224");
    let mut spec = VitSpec::from_name(name).map_err(asked)?;
    let ratio = spec.hidden as f64 / spec.width as f64;
    spec.image = [1, size, size];
    spec.channels = channels;
    let patch = model.patch.unwrap_or(spec.patch[1]);
    spec.patch = [1, patch, patch];
    spec.width = model.width.unwrap_or(spec.width);
    spec.depth = model.depth.unwrap_or(spec.depth);
    spec.heads = model.heads.unwrap_or(spec.heads);
    spec.hidden = (spec.width as f64 * model.mlp_ratio.unwrap_or(ratio)) as usize;
    spec.registers = model.registers.unwrap_or(spec.registers);
    spec.class_token = model.class_token.unwrap_or(spec.class_token);
    spec.no_embed_class = model.no_embed_class.unwrap_or(spec.no_embed_class);
    spec.layer_scale = model.layer_scale;
    spec.qk_norm = model.qk_norm.unwrap_or(false);
    spec.drop_path = model.drop_path.unwrap_or(0.0);
    spec.check().map_err(asked)?;
    Ok(spec)
}

/// Sizes of a decoder or predictor.
pub(super) fn trunk(trunk: Trunk) -> TransformerSpec {
    TransformerSpec { width: trunk.width, depth: trunk.depth, heads: trunk.heads }
}

fn loss(loss: Loss) -> LossKind {
    match loss {
        Loss::L1 => LossKind::L1,
        Loss::SmoothL1(beta) => LossKind::SmoothL1 { beta },
        Loss::Mse => LossKind::Mse,
    }
}

/// Stage 1 around a new encoder.
pub(super) fn mae(encoder: Encoder, stage: &Stage, seed: u64) -> Mae {
    let options = MaeOptions {
        decoder: trunk(stage.decoder),
        covered: match stage.covered {
            recipe::Covered::AllMasked => Covered::AllMasked,
            recipe::Covered::Targets => Covered::Targets,
        },
        pixel_norm: match stage.pixel_norm {
            recipe::PixelNorm::None => PixelNorm::None,
            recipe::PixelNorm::Joint => PixelNorm::Joint,
            recipe::PixelNorm::PerChannel => PixelNorm::PerChannel,
        },
        loss: stage.loss.map_or(LossKind::Mse, loss),
    };
    Mae::new(encoder, options, seed)
}

/// Settings of stage 2.
pub(super) fn salt_options(stage: &Stage) -> SaltOptions {
    SaltOptions {
        predictor: trunk(stage.predictor),
        loss: stage.loss.map_or(LossKind::L1, loss),
        target_layer_norm: stage.target_layer_norm,
    }
}

/// The schedules of learning rate and weight decay.
pub(super) fn curves(stage: &Stage, schedule: Schedule) -> (Curve, Curve) {
    let lr = Curve {
        start: stage.start_lr,
        peak: stage.lr,
        last: stage.final_lr,
        warmup_steps: schedule.warmup_steps,
        steps: schedule.steps,
    };
    let last = stage.final_weight_decay.unwrap_or(stage.weight_decay);
    (lr, Curve::cosine(stage.weight_decay, last, schedule.steps))
}

/// AdamW and clipping.
pub(super) fn optimizer(stage: &Stage) -> OptimizerOptions {
    OptimizerOptions {
        betas: (stage.betas[0], stage.betas[1]),
        eps: stage.eps,
        clip: (stage.clip > 0.0).then_some(stage.clip),
        decay_all: stage.decay_all,
    }
}
