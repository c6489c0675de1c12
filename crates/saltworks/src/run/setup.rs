//! From a recipe to data, models and methods.

use crate::data::Loader;
use crate::failure::{Failure, asked};
use crate::judge::ImageSets;
use crate::method::{Covered, Mae, MaeOptions, Method, PixelNorm, SaltOptions};
use crate::model::{Encoder, SpecError, TransformerSpec, VitSpec};
use crate::recipe::{self, Loss, Model, Recipe, Schedule, Stage, Trunk};
use crate::train::{self, Curve, OptimizerOptions};
use engine::ops::LossKind;
use std::collections::BTreeSet;

/// The sizes of a stage's encoder.
pub(crate) fn spec(recipe: &Recipe, stage: &Stage) -> Result<VitSpec, Failure> {
    let model = stage.model.as_ref().map(|model| model.over(&recipe.model));
    let model = model.as_ref().unwrap_or(&recipe.model);
    let spec = spec_of(model, recipe.data.size, recipe.data.channels());
    spec.map_err(|error| refuse_sizes(recipe, stage, &error))
}

/// Refuses sizes by the keys that say them.
pub(crate) fn refuse_sizes(recipe: &Recipe, stage: &Stage, error: &SpecError) -> Failure {
    let (own, all) = (format!("{}.model", stage.name), "model".to_owned());
    let of_model = |key: &str| -> Vec<String> {
        // A stage's own model is said in its part of the recipe.
        let tables = stage.model.as_ref().map(|_| own.clone()).into_iter().chain([all.clone()]);
        let said = tables.map(|table| format!("{table}.{key}"));
        vec![said.into_iter().find(|key| recipe.origin.says(key)).unwrap_or(format!("model.{key}"))]
    };
    let of_trunk = |name: &str, key: &str| vec![format!("{}.{name}.{key}", stage.name)];
    let keys = match error {
        SpecError::Name(_) => of_model("name"),
        SpecError::Heads { name: "model", .. } => [of_model("width"), of_model("heads")].concat(),
        SpecError::Heads { name, .. } => {
            [of_trunk(name, "width"), of_trunk(name, "heads")].concat()
        }
        SpecError::Small { .. } | SpecError::Left { .. } => {
            [vec!["data.size".to_owned()], of_model("patch")].concat()
        }
        SpecError::Zero { name: "model", size } | SpecError::Large { name: "model", size, .. } => {
            of_model(size)
        }
        SpecError::Zero { name, size } | SpecError::Large { name, size, .. } => {
            of_trunk(name, size)
        }
        SpecError::LayerScale(_) => of_model("layer_scale"),
        SpecError::DropPath(_) => of_model("drop_path"),
    };
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let no_data = match (error, recipe.origin.is_without_data()) {
        (SpecError::Small { .. } | SpecError::Left { .. }, true) => {
            ". The recipe has no data.path, so the images are the built-in Fashion-MNIST, 28 x 28 pixels: set \
             data.path for your own"
        }
        _ => "",
    };
    let problem = format!("{}: {error}{no_data}", keys.join(", "));
    asked(recipe.origin.refuse(&keys, problem))
}

fn spec_of(model: &Model, size: usize, channels: usize) -> Result<VitSpec, SpecError> {
    let name = model.name.as_deref().unwrap_or("vit_tiny_patch16_224");
    let mut spec = VitSpec::from_name(name)?;
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
    spec.check()?;
    Ok(spec)
}

/// Sizes of a decoder or predictor.
pub(crate) fn trunk(trunk: Trunk) -> TransformerSpec {
    TransformerSpec { width: trunk.width, depth: trunk.depth, heads: trunk.heads }
}

fn loss(loss: Loss) -> LossKind {
    match loss {
        Loss::L1 => LossKind::L1,
        Loss::SmoothL1(beta) => LossKind::SmoothL1 { beta },
        Loss::Mse => LossKind::Mse,
    }
}

/// Which patches the loss of stage 1 covers.
pub(crate) fn covered(stage: &Stage) -> Covered {
    match stage.covered() {
        recipe::Covered::AllMasked => Covered::AllMasked,
        recipe::Covered::Targets => Covered::Targets,
    }
}

/// Stage 1 around a new encoder.
pub(crate) fn mae(encoder: Encoder, stage: &Stage, seed: u64) -> Mae {
    let options = MaeOptions {
        decoder: trunk(stage.decoder()),
        covered: covered(stage),
        pixel_norm: match stage.pixel_norm() {
            recipe::PixelNorm::None => PixelNorm::None,
            recipe::PixelNorm::Joint => PixelNorm::Joint,
            recipe::PixelNorm::PerChannel => PixelNorm::PerChannel,
        },
        loss: stage.loss.map_or(LossKind::Mse, loss),
    };
    Mae::new(encoder, options, seed)
}

/// Settings of stage 2.
pub(crate) fn salt_options(stage: &Stage) -> SaltOptions {
    SaltOptions {
        predictor: trunk(stage.predictor()),
        loss: stage.loss.map_or(LossKind::L1, loss),
        target_layer_norm: stage.target_layer_norm(),
    }
}

/// The schedules of learning rate and weight decay.
pub(crate) fn curves(stage: &Stage, schedule: Schedule) -> (Curve, Curve) {
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

/// A stage as the training loop takes it, from step `first_step` on; images in `unreadable` are known to be.
pub(crate) fn training<'m>(
    recipe: &Recipe,
    images: &ImageSets,
    (method, place): (&'m dyn Method, usize),
    schedule: Schedule,
    (first_step, unreadable): (u64, BTreeSet<usize>),
) -> Result<train::Stage<'m>, Failure> {
    let stage = &recipe.stage[place];
    let (lr, weight_decay) = curves(stage, schedule);
    let mut options = recipe.training_loader(place);
    options.first_sample = first_step * stage.batch as u64;
    let loader = Loader::new(images.train.clone(), options).map_err(asked)?;
    Ok(train::Stage {
        method,
        loader: loader.with_unreadable(unreadable),
        masking: stage.masks.clone(),
        grid: method.encoder().grid(),
        batch: stage.batch,
        accumulate: stage.accumulate,
        activation_checkpointing: stage.activation_checkpointing,
        first_step,
        steps: schedule.steps,
        lr,
        weight_decay,
        seed: recipe.stage_seed(place),
    })
}

/// AdamW and clipping.
pub(crate) fn optimizer(stage: &Stage) -> OptimizerOptions {
    OptimizerOptions {
        betas: (stage.betas[0], stage.betas[1]),
        eps: stage.eps,
        clip: (stage.clip > 0.0).then_some(stage.clip),
        decay_all: stage.decay_all,
    }
}
