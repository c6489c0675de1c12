//! The plan of a run: everything that a stage needs, resolved and checked once, before the first
//! stage trains for hours. It refuses what cannot be trained. Settings that need no network are
//! resolved in `recipe/plan.rs`.

use super::doubts::doubts;
use super::sizes::{check_trunk, encoder_spec};
use crate::console::note;
use crate::data::{self, Loader, LoaderOptions, Source};
use crate::failure::{Failure, input_error};
use crate::judge::ImageSets;
use crate::mask;
use crate::method::{Cost, Method, MethodSettings, NetworkCost, Networks, Salt, TeacherError};
use crate::model::{Encoder, VitSpec};
use crate::recipe::{PixelNorm, Recipe, RecipeError, Schedule, Stage};
use crate::run_files::{PlanFile, PlannedStage, free_memory_bytes};
use crate::train::{self, Curve, Optimizer, OptimizerOptions};
use crate::weights::{Hint, ModelFile};
use engine::Dtype;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Everything a stage needs.
#[derive(Clone)]
pub(crate) struct StagePlan<'a> {
    /// Index of the stage in its recipe.
    pub(crate) stage_index: usize,
    pub(crate) stage: &'a Stage,
    /// Sizes of the encoder.
    pub(crate) spec: VitSpec,
    /// Sizes of the teacher's encoder, in stage 2.
    pub(crate) teacher: Option<VitSpec>,
    pub(crate) settings: MethodSettings,
    /// How training batches are loaded.
    pub(crate) loader: LoaderOptions,
    pub(crate) schedule: Schedule,
    /// Seed of the initial weights, the order, augmentations, masks and stochastic depth.
    pub(crate) seed: u64,
    /// How activations are stored.
    pub(crate) dtype: Dtype,
    /// The cost of an image: a mean over some draws of its masks.
    pub(crate) cost: Cost,
}

impl<'a> StagePlan<'a> {
    /// Resolves a stage for this many training images.
    pub(crate) fn new(
        recipe: &'a Recipe,
        stage_index: usize,
        images: usize,
    ) -> Result<Self, Failure> {
        let stage = &recipe.stage[stage_index];
        let spec = encoder_spec(recipe, stage)?;
        let settings = MethodSettings::of(stage);
        check_trunk(recipe, stage, &settings, spec.rope)?;
        check_masks(recipe, stage, &spec)?;
        let teacher = check_teacher(recipe, stage_index, &spec)?;
        check_targets(recipe, stage, &settings, &spec)?;
        check_init(recipe, stage_index, &spec)?;
        let schedule = stage.resolve(images);
        let schedule = schedule.map_err(|error| input_error(recipe.origin.locate(error)))?;
        let (seed, loader) = (recipe.stage_seed(stage_index), recipe.training_loader(stage_index));
        let cost = cost(stage, seed, &settings, &spec, teacher.as_ref())?;
        let dtype = recipe.precision.dtype();
        Ok(Self {
            stage_index,
            stage,
            spec,
            teacher,
            settings,
            loader,
            schedule,
            seed,
            dtype,
            cost,
        })
    }

    /// Images in all steps. An image counts each time it is used.
    pub(crate) fn images(&self) -> u64 {
        self.schedule.steps * self.stage.batch as u64
    }

    /// The bytes of a step besides its activations: in f32, weights that are trained, their
    /// gradients and AdamW's two moments, and the teacher's weights.
    fn state_bytes(&self) -> u64 {
        let Cost { encoder, trunk, teacher } = &self.cost;
        let teacher = teacher.map_or(0, |teacher| teacher.parameters);
        4 * (4 * (encoder.parameters + trunk.parameters) + teacher) as u64
    }

    /// Refuses a stage whose weights cannot be in memory.
    pub(crate) fn expect_memory(&self) -> Result<(), Failure> {
        let (needed, name) = (self.state_bytes(), &self.stage.name);
        let Some(free) = free_memory_bytes().filter(|free| *free < needed) else { return Ok(()) };
        let [needed, free] = [needed, free].map(|bytes| bytes as f64 * 1e-9);
        Err(input_error(format!(
            "stage {name}: its weights, gradients and AdamW's moments take {needed:.1} GB, but \
             {free:.1} GB of memory are free. Choose a smaller model, or a machine with more memory"
        )))
    }

    /// The encoder with its initial weights.
    pub(crate) fn new_encoder(&self) -> Encoder {
        Encoder::new(&self.spec, self.seed)
    }

    /// The method with its first weights, those of the encoder from the file `init`, and with the
    /// teacher in the file `teacher`.
    pub(crate) fn method(
        &self,
        teacher: Option<&Path>,
        init: Option<&Path>,
    ) -> Result<Box<dyn Method>, Failure> {
        let (of_teacher, of_init) = (self.stage.teacher_part.as_deref(), &self.stage.init_part);
        let load = |path| Salt::load_teacher(path, of_teacher, &self.spec);
        let teacher = teacher.map(load).transpose();
        let teacher = teacher.map_err(input_error)?.map(|loaded| loaded.encoder);
        let encoder =
            init.map(|path| first_encoder(path, of_init.as_deref(), &self.spec)).transpose()?;
        let encoder = encoder.unwrap_or_else(|| self.new_encoder());
        self.settings.build(encoder, teacher, self.seed).map_err(input_error)
    }

    /// The method with an untrained teacher, for timing.
    pub(crate) fn untrained_method(&self) -> Result<Box<dyn Method>, Failure> {
        let teacher = self.teacher.as_ref().map(|spec| Encoder::new(spec, 1));
        self.settings.build(self.new_encoder(), teacher, self.seed).map_err(input_error)
    }

    /// AdamW and clipping for the method's parameters.
    pub(crate) fn optimizer(&self, method: &dyn Method) -> Optimizer {
        let stage = self.stage;
        let options = OptimizerOptions {
            betas: (stage.betas[0], stage.betas[1]),
            eps: stage.eps,
            clip: (stage.clip > 0.0).then_some(stage.clip),
            decay_all: stage.decay_all,
        };
        Optimizer::new(method.parameters(), options)
    }

    /// The input of the training loop for this stage, from step `first_step` on. Images in
    /// `unreadable` are known to be unreadable.
    pub(crate) fn training<'m>(
        &self,
        method: &'m dyn Method,
        images: &Arc<dyn Source>,
        first_step: u64,
        unreadable: BTreeSet<usize>,
    ) -> Result<train::StageTraining<'m>, Failure> {
        let Self { stage, schedule: Schedule { steps, warmup_steps, cooldown_steps }, .. } = *self;
        let first_sample = first_step * stage.batch as u64;
        let options = LoaderOptions { first_sample, ..self.loader.clone() };
        let loader = Loader::new(images.clone(), options).map_err(input_error)?;
        let (start, peak, last) = (stage.start_lr, stage.lr, stage.final_lr);
        Ok(train::StageTraining {
            method,
            loader: loader.with_unreadable(unreadable),
            masking: stage.masks.clone(),
            grid: method.encoder().grid(),
            batch: stage.batch,
            accumulate: stage.accumulate,
            activation_checkpointing: stage.activation_checkpointing,
            dtype: self.dtype,
            first_step,
            steps,
            lr: Curve { start, peak, last, warmup_steps, steps, cooldown_steps },
            weight_decay: Curve::cosine(stage.weight_decay, stage.final_weight_decay(), steps),
            seed: self.seed,
        })
    }

    /// The networks of the stage by name.
    pub(crate) fn networks(&self) -> Vec<(&'static str, &NetworkCost)> {
        let Cost { encoder, trunk, teacher } = &self.cost;
        let all = [(self.settings.encoder_name(), encoder), (self.settings.trunk().0, trunk)];
        all.into_iter().chain(teacher.as_ref().map(|teacher| ("teacher", teacher))).collect()
    }
}

/// Resolves every stage against the data, and notes likely mistakes.
pub(crate) fn plan<'a>(
    recipe: &'a Recipe,
    images: &ImageSets,
) -> Result<Vec<StagePlan<'a>>, Failure> {
    let resolve = |stage_index| {
        let plan = StagePlan::new(recipe, stage_index, images.train.len())?;
        let loadable = plan.loader.validate(images.train.as_ref());
        loadable.map_err(|error| refuse_data(recipe, error))?;
        Ok(plan)
    };
    let plans = (0..recipe.stage.len()).map(resolve).collect::<Result<_, Failure>>()?;
    doubts(recipe, images).iter().for_each(|doubt| note(doubt));
    Ok(plans)
}

fn check_masks(recipe: &Recipe, stage: &Stage, spec: &VitSpec) -> Result<(), Failure> {
    let table = format!("{}.masks", stage.name);
    stage.masks.validate(spec.grid()).map_err(|error| match error {
        mask::Error::Setting { name, found, expected } if name != "grid" => {
            let key = if name == "masks" { table.clone() } else { format!("{table}.{name}") };
            let expected = expected.to_owned();
            input_error(recipe.origin.locate(RecipeError::Value { key, found, expected }))
        }
        other => input_error(recipe.origin.refuse(&[&table], format!("{table}: {other}"))),
    })
}

fn refuse_data(recipe: &Recipe, error: data::Error) -> Failure {
    match &error {
        data::Error::Setting { name, .. } => {
            input_error(recipe.origin.refuse(&[&format!("data.{name}")], &error))
        }
        _ => input_error(error),
    }
}

/// Refuses pixels that would be normalised over one value.
fn check_targets(
    recipe: &Recipe,
    stage: &Stage,
    settings: &MethodSettings,
    spec: &VitSpec,
) -> Result<(), Failure> {
    let MethodSettings::Mae(options) = settings else { return Ok(()) };
    let [t, h, w] = spec.patch;
    let values = match options.pixel_norm {
        PixelNorm::Joint => t * h * w * spec.channels,
        PixelNorm::PerChannel => t * h * w,
        PixelNorm::None => return Ok(()),
    };
    if values >= 2 {
        return Ok(());
    }
    let key = format!("{}.pixel_norm", stage.name);
    let problem = format!(
        "{key} normalises over one value per patch, expected two or more. Use a larger patch or \
         pixel_norm = \"none\""
    );
    Err(input_error(recipe.origin.refuse(&[&key], problem)))
}

/// The plan as `plan.json` holds it.
pub(crate) fn plan_file(plans: &[StagePlan<'_>]) -> PlanFile {
    PlanFile {
        flops: COUNTED.into(),
        paper_flops: PAPER.into(),
        stages: plans.iter().map(stage_file).collect(),
    }
}

/// How FLOPs are counted.
pub(crate) const COUNTED: &str = "matrix products, two FLOPs per multiply-add, forward and \
                                  backward";

/// How the paper counts them.
pub(crate) const PAPER: &str = "6ND if trained and 2ND if frozen, N parameters and D tokens, \
                                without attention's products (SALT, appendix on FLOPs)";

fn stage_file(plan: &StagePlan<'_>) -> PlannedStage {
    let StagePlan { stage, schedule, cost, .. } = plan;
    let networks = plan.networks();
    let by = |of: &dyn Fn(&NetworkCost) -> f64| -> BTreeMap<String, f64> {
        networks.iter().map(|(name, share)| ((*name).to_owned(), of(share))).collect()
    };
    let with_total = |mut flops: BTreeMap<String, f64>, total: f64| {
        flops.insert("total".into(), total);
        flops
    };
    PlannedStage {
        name: stage.name.clone(),
        method: stage.method.word().into(),
        steps: schedule.steps,
        batch: stage.batch,
        images: plan.images(),
        parameters: networks.iter().map(|(name, of)| ((*name).to_owned(), of.parameters)).collect(),
        tokens_per_image: by(&|share| share.tokens),
        flops_per_image: with_total(by(&|share| share.flops), cost.flops()),
        paper_flops_per_image: with_total(by(&|share| share.paper_flops), cost.paper_flops()),
    }
}

/// Samples whose masks are drawn to estimate the cost of an image. (guess)
const DRAWS: usize = 256;

fn cost(
    stage: &Stage,
    seed: u64,
    settings: &MethodSettings,
    encoder: &VitSpec,
    teacher: Option<&VitSpec>,
) -> Result<Cost, Failure> {
    let step = |step: u64| stage.masks.sample(encoder.grid(), 1, seed, step).map_err(input_error);
    let drawn = (0..DRAWS as u64).map(|index| Ok(settings.masks(step(index)?)));
    let masks = drawn.collect::<Result<Vec<_>, Failure>>()?;
    let activation_checkpointing = stage.activation_checkpointing;
    let (_, trunk) = settings.trunk();
    let mask_tokens = settings.mask_tokens();
    let networks = Networks { encoder, trunk, teacher, mask_tokens, activation_checkpointing };
    Ok(Cost::new(&networks, &masks))
}

/// The encoder in a file, or one of several, with positions for the images of `spec`. Refuses other
/// sizes.
fn first_encoder(path: &Path, part: Option<&str>, spec: &VitSpec) -> Result<Encoder, Failure> {
    let file = ModelFile::open(path, part).map_err(input_error)?;
    let heads = Some((spec.width, spec.heads));
    let (eps, image) = (Some(spec.eps), Some(spec.image));
    let hint = Hint { heads, eps, image, ..Hint::default() };
    let loaded = file.load_encoder(None, hint, Some(spec.image)).map_err(input_error)?;
    let path = path.display();
    if let Some([from, to]) = loaded.resized {
        note(&format!("{path}: positions resized from {from} to {to} patches"));
    }
    loaded.notes.iter().for_each(|words| note(&format!("{path}: {words}")));
    let found = loaded.encoder.spec();
    if !has_weights_of(found, spec) {
        return Err(input_error(format!(
            "{path}: its encoder has {}, expected {} for this stage. Set [model] to its sizes, or \
             choose another init",
            sizes_in_words(found),
            sizes_in_words(spec)
        )));
    }
    Ok(loaded.encoder)
}

/// Whether both encoders have the same tensors and compute the same function of them. Stochastic
/// depth only matters while training, and a layer scale's initial value only before it.
fn has_weights_of(found: &VitSpec, spec: &VitSpec) -> bool {
    let layer_scale = |spec: &VitSpec| spec.layer_scale.map(|_| 1.0);
    let (found_scale, scale) = (layer_scale(found), layer_scale(spec));
    VitSpec { drop_path: 0.0, image: spec.image, layer_scale: found_scale, ..found.clone() }
        == VitSpec { drop_path: 0.0, layer_scale: scale, ..spec.clone() }
}

fn sizes_in_words(spec: &VitSpec) -> String {
    let VitSpec { patch: [_, h, w], channels, width, depth, heads, .. } = spec;
    let features: String = spec.features().iter().map(|words| format!(", {words}")).collect();
    format!(
        "width {width}, depth {depth}, {heads} heads, {channels} channels, patches of {h} x \
         {w}{features}"
    )
}

/// Checks that a stage's encoder can start from the weights that `init` names.
fn check_init(recipe: &Recipe, stage_index: usize, spec: &VitSpec) -> Result<(), Failure> {
    let stage = &recipe.stage[stage_index];
    let Some(init) = &stage.init else { return Ok(()) };
    let Some(earlier) = recipe.stage_before(stage_index, init) else {
        let part = stage.init_part.as_deref();
        return first_encoder(Path::new(init), part, spec).map(drop);
    };
    let found = encoder_spec(recipe, earlier)?;
    if has_weights_of(&found, spec) {
        return Ok(());
    }
    let key = format!("{}.init", stage.name);
    let problem = format!(
        "{key} is {init:?}, whose encoder has {}, expected {}. Remove the stage's own model, or \
         choose another init",
        sizes_in_words(&found),
        sizes_in_words(spec)
    );
    Err(input_error(recipe.origin.refuse(&[&key], problem)))
}

/// Checks that a stage's teacher can teach it. Returns the teacher's sizes.
fn check_teacher(
    recipe: &Recipe,
    stage_index: usize,
    spec: &VitSpec,
) -> Result<Option<VitSpec>, Failure> {
    let stage = &recipe.stage[stage_index];
    let (Some(teacher), part) = (&stage.teacher, stage.teacher_part.as_deref()) else {
        return Ok(None);
    };
    let checked = match recipe.stage_before(stage_index, teacher) {
        Some(earlier) => {
            let earlier = encoder_spec(recipe, earlier)?;
            Salt::check_sizes(&earlier, spec).map(|()| earlier).map_err(Into::into)
        }
        None => Salt::load_teacher(Path::new(teacher), part, spec).map(|loaded| {
            if let Some([from, to]) = loaded.resized {
                note(&format!("{teacher}: positions resized from {from} to {to} patches"));
            }
            loaded.notes.iter().for_each(|words| note(&format!("{teacher}: {words}")));
            loaded.encoder.spec().clone()
        }),
    };
    checked.map(Some).map_err(|error| match error {
        TeacherError::Weights(named) => input_error(named),
        other => input_error(format!("teacher {teacher}: {other}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::open_images;
    use crate::recipe;

    #[test]
    fn a_resumed_stage_reads_on_where_it_stopped_also_if_its_batches_have_parts() {
        let set = ["teacher.batch=8", "teacher.accumulate=4"].map(str::to_owned);
        let recipe = recipe::load(None, &set).unwrap();
        let images = open_images(&recipe).ok().unwrap();
        let plan = StagePlan::new(&recipe, 0, images.train.len()).ok().unwrap();
        let method = plan.method(None, None).ok().unwrap();
        let read = |first_step, parts: usize| -> Vec<Vec<u64>> {
            let training = plan.training(&*method, &images.train, first_step, BTreeSet::new());
            let mut loader = training.ok().unwrap().loader;
            (0..parts).map(|_| loader.next_batch().unwrap().unwrap().batch.indices).collect()
        };
        // Three steps of four parts, of two images each.
        let whole = read(0, 12);
        assert_eq!(whole[11].len(), 2);
        assert_eq!(read(2, 4), whole[8..]);
    }
}
