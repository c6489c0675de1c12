//! The numbers that follow from a recipe: lengths in steps, seeds, and how images are loaded. A
//! stage's networks are resolved in `run/plan.rs`.

use super::{Data, Duration, ImageSize, Loss, Model, Precision, Recipe, RecipeError, Stage};
use crate::data::{Crop, Effects, LoaderOptions, Normalize, Order, Transform};
use engine::Dtype;
use engine::ops::LossKind;

/// A stage's length and warmup in steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Optimizer steps.
    pub steps: u64,
    /// Steps of linear warmup.
    pub warmup_steps: u64,
    /// Steps of the cooldown, if there is one.
    pub cooldown_steps: Option<u64>,
}

/// Pixels of a batch whose features are computed at once. They are few, so that the batch ends soon
/// after a signal: eight images of 224 x 224, which take ViT-base two seconds on two cores. (guess)
const FEATURE_PIXELS: usize = 100 * 64 * 64;

impl Precision {
    /// The type of the activations.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::Bf16,
        }
    }
}

impl Recipe {
    /// The seed of a stage, used for its weights, order, augmentations and masks.
    pub fn stage_seed(&self, stage_index: usize) -> u64 {
        // An odd constant keeps stages of neighbouring seeds apart (a Weyl sequence).
        self.seed.wrapping_add((stage_index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// The model that a stage trains.
    pub fn model_of(&self, stage: &Stage) -> Model {
        stage.model.as_ref().map_or_else(|| self.model.clone(), |model| model.over(&self.model))
    }

    /// How a stage's training batches are loaded.
    pub fn training_loader(&self, stage_index: usize) -> LoaderOptions {
        let (data, stage) = (&self.data, &self.stage[stage_index]);
        let augment = &data.augment;
        let whole = augment.crop_scale.min == 1.0 && augment.crop_scale.max == 1.0;
        let crop = if whole {
            Crop::Center { zoom: 1.0 }
        } else {
            Crop::RandomResized { scale: augment.crop_scale, ratio: augment.crop_aspect }
        };
        let seed = self.stage_seed(stage_index);
        LoaderOptions {
            batch: stage.batch / stage.accumulate,
            threads: data.threads,
            prefetch: 2 * data.threads + 2,
            order: Order::Shuffled { seed },
            first_sample: 0,
            augment_seed: seed,
            transform: Transform {
                frames: data.frames,
                size: data.size.sides(),
                crop,
                flip: augment.flip,
                interpolation: augment.interpolation,
                effects: Effects {
                    jitter: augment.jitter,
                    greyscale: augment.greyscale,
                    blur: augment.blur,
                    solarize: augment.solarize,
                },
            },
            channels: data.channels(),
            normalize: data.channel_normalize(),
            max_unreadable: data.max_unreadable,
        }
    }
}

impl Data {
    /// How whole images are loaded for features: each once, in order, resized to `size`.
    pub fn feature_loader(&self, size: ImageSize) -> LoaderOptions {
        LoaderOptions {
            batch: (FEATURE_PIXELS / (self.frames * size.height * size.width).max(1)).clamp(4, 250),
            threads: self.threads,
            prefetch: 2 * self.threads + 2,
            order: Order::Once,
            first_sample: 0,
            augment_seed: 0,
            transform: Transform {
                frames: self.frames,
                crop: Crop::Center { zoom: self.eval_zoom },
                ..Transform::center(size.sides())
            },
            channels: self.channels(),
            normalize: self.channel_normalize(),
            max_unreadable: self.max_unreadable,
        }
    }

    /// Mean and deviation of each channel.
    pub fn channel_normalize(&self) -> Normalize {
        let each = |values: &[f32]| match values {
            [one] => vec![*one; self.channels()],
            values => values.to_vec(),
        };
        Normalize { mean: each(&self.normalize.mean), std: each(&self.normalize.std) }
    }
}

impl Stage {
    /// The length in steps, for `images` training images.
    pub fn resolve(&self, images: usize) -> Result<Schedule, RecipeError> {
        let lengths = [
            self.epochs.map(Duration::Epochs),
            self.steps.map(Duration::Steps),
            self.samples.map(Duration::Samples),
        ];
        let mut given = lengths.into_iter().flatten();
        // A length in minutes is replaced by steps before a stage is planned.
        let (Some(length), None, None) = (given.next(), given.next(), self.minutes) else {
            return Err(self.not_one_length());
        };
        let steps = self.steps_of(length, images, 0).max(1);
        let warmup_steps = self.steps_of(self.warmup, images, steps).min(steps);
        let cooldown = |length| self.steps_of(length, images, steps).min(steps - warmup_steps);
        Ok(Schedule { steps, warmup_steps, cooldown_steps: self.cooldown.map(cooldown) })
    }

    /// The error if a stage has no length, or several.
    pub(super) fn not_one_length(&self) -> RecipeError {
        let Self { epochs, steps, samples, minutes, .. } = self;
        let given = [epochs.is_some(), steps.is_some(), samples.is_some(), minutes.is_some()];
        let count = given.into_iter().filter(|given| *given).count();
        RecipeError::Value {
            key: self.name.clone(),
            found: format!("given {count} of epochs, steps, samples and minutes"),
            expected: "exactly one of them".into(),
        }
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

impl From<Loss> for LossKind {
    // The engine does not know recipes, so each has its own type.
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::L1 => Self::L1,
            Loss::SmoothL1(beta) => Self::SmoothL1 { beta },
            Loss::Mse => Self::Mse,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::data::{Blur, Effects, Interpolation, Jitter, Solarize, Transform};
    use crate::range::Range;
    use crate::recipe;

    #[test]
    fn every_key_of_augment_reaches_the_loader() {
        let set = [
            "data.channels=3",
            "data.augment.flip=0.25",
            "data.augment.interpolation=\"bicubic\"",
            "data.augment.jitter={hue=0.1, chance=0.5}",
            "data.augment.greyscale=0.125",
            "data.augment.blur={kernel=5, sigma=[0.5, 1.5], chance=0.75}",
            "data.augment.solarize={threshold=99, chance=0.3}",
        ];
        let recipe = recipe::load(None, &set.map(str::to_owned)).unwrap();
        let Transform { flip, interpolation, effects, .. } = recipe.training_loader(0).transform;
        assert_eq!((flip, interpolation), (0.25, Interpolation::Bicubic));
        let wanted = Effects {
            jitter: Some(Jitter { hue: 0.1, chance: 0.5, ..Jitter::default() }),
            greyscale: 0.125,
            blur: Some(Blur { kernel: 5, sigma: Range::new(0.5, 1.5), chance: 0.75 }),
            solarize: Some(Solarize { threshold: 99, chance: 0.3 }),
        };
        assert_eq!(effects, wanted);
    }
}
