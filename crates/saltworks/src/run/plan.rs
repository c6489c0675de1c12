//! Everything of a recipe that can be refused is refused here, before hours go into its stages.

use crate::console::note;
use crate::data;
use crate::failure::{Failure, asked};
use crate::judge::ImageSets;
use crate::mask;
use crate::method::{CheckpointError, Cost, Networks, Salt, Share};
use crate::model::VitSpec;
use crate::recipe::{MethodName, PixelNorm, Recipe, RecipeError, Schedule, Stage};
use crate::run::setup;
use crate::run_files::{PlanFile, PlannedStage};
use std::collections::BTreeMap;
use std::path::Path;

/// Everything a stage was checked for before the first one begins.
pub(crate) struct Planned<'a> {
    pub(crate) stage: &'a Stage,
    pub(crate) spec: VitSpec,
    /// Of stage 2.
    pub(crate) teacher: Option<VitSpec>,
    pub(crate) schedule: Schedule,
    /// What an image costs, as the mean of some draws of its masks.
    pub(crate) cost: Cost,
}

impl Planned<'_> {
    /// Images that the stage sees, those seen again too.
    pub(crate) fn images(&self) -> u64 {
        self.schedule.steps * self.stage.batch as u64
    }
}

/// Checks every stage against the data before anything is trained, and tells what is most likely a slip.
pub(crate) fn plan<'a>(
    recipe: &'a Recipe,
    images: &ImageSets,
) -> Result<Vec<Planned<'a>>, Failure> {
    let check = |(place, stage): (usize, &'a Stage)| {
        let spec = setup::spec(recipe, stage)?;
        match stage.method {
            MethodName::Mae => setup::trunk(stage.decoder()).check("decoder"),
            MethodName::Salt => setup::trunk(stage.predictor()).check("predictor"),
        }
        .map_err(|error| setup::refuse_sizes(recipe, stage, &error))?;
        check_masks(recipe, stage, &spec)?;
        let teacher = check_teacher(recipe, place, &spec)?;
        recipe
            .training_loader(place)
            .validate(images.train.as_ref())
            .map_err(|error| refuse_data(recipe, error))?;
        check_targets(recipe, stage, &spec)?;
        let schedule = stage.resolve(images.train.len());
        let schedule = schedule.map_err(|error| asked(recipe.origin.locate(error)))?;
        let cost = cost(recipe, place, &spec, teacher.as_ref())?;
        Ok(Planned { stage, spec, teacher, schedule, cost })
    };
    let planned = recipe.stage.iter().enumerate().map(check).collect::<Result<_, Failure>>()?;
    doubts(recipe, images).iter().for_each(|doubt| note(doubt));
    Ok(planned)
}

/// Learning rates above this diverge or leave nothing of what was learned. (guess)
const DOUBTFUL_LR: f64 = 1.0;

/// What can be trained and is most likely not meant.
fn doubts(recipe: &Recipe, images: &ImageSets) -> Vec<String> {
    let (k, train) = (recipe.probe.k, images.train.len());
    let mut doubts = Vec::new();
    if images.held_out.is_some() && k > train {
        doubts.push(format!("probe.k is {k}, of {train} training images: all of them vote"));
    }
    for Stage { name, lr, batch, .. } in &recipe.stage {
        if *lr > DOUBTFUL_LR {
            doubts.push(format!("{name}.lr is {lr}: usual values for AdamW are 1e-4 to 5e-3"));
        }
        if *batch > train {
            let times = *batch as f64 / train as f64;
            doubts.push(format!(
                "{name}.batch is {batch}, of {train} training images: each step sees every image {times:.1} \
                 times"
            ));
        }
    }
    doubts
}

fn check_masks(recipe: &Recipe, stage: &Stage, spec: &VitSpec) -> Result<(), Failure> {
    let table = format!("{}.masks", stage.name);
    stage.masks.validate(spec.grid()).map_err(|error| match error {
        mask::Error::Setting { name, found, expected } if name != "grid" => {
            let (key, expected) = (format!("{table}.{name}"), expected.to_owned());
            asked(recipe.origin.locate(RecipeError::Value { key, found, expected }))
        }
        other => asked(recipe.origin.refuse(&[&table], format!("{table}: {other}"))),
    })
}

fn refuse_data(recipe: &Recipe, error: data::Error) -> Failure {
    match &error {
        data::Error::Setting { name, .. } => {
            asked(recipe.origin.refuse(&[&format!("data.{name}")], &error))
        }
        _ => asked(error),
    }
}

/// Normalised pixels need more than one value to normalise over.
fn check_targets(recipe: &Recipe, stage: &Stage, spec: &VitSpec) -> Result<(), Failure> {
    let [t, h, w] = spec.patch;
    let values = match stage.pixel_norm() {
        PixelNorm::Joint => t * h * w * spec.channels,
        PixelNorm::PerChannel => t * h * w,
        PixelNorm::None => return Ok(()),
    };
    if stage.method == MethodName::Mae && values < 2 {
        let key = format!("{}.pixel_norm", stage.name);
        let problem = format!(
            "{key} has one value of a patch to normalise over, expected two or more. Use a larger patch \
             or pixel_norm = \"none\""
        );
        return Err(asked(recipe.origin.refuse(&[&key], problem)));
    }
    Ok(())
}

/// The plan as `plan.json` holds it.
pub(crate) fn as_file(plan: &[Planned<'_>]) -> PlanFile {
    PlanFile {
        flops: COUNTED.into(),
        paper_flops: PAPER.into(),
        stages: plan.iter().map(stage_file).collect(),
    }
}

/// How FLOPs are counted.
pub(crate) const COUNTED: &str = "matrix products, two FLOPs a multiply-add, forward and backward";

/// How the paper counts them.
pub(crate) const PAPER: &str = "6ND where trained and 2ND where frozen, N parameters and D tokens; attention's \
     products left out (SALT, appendix on FLOPs)";

fn stage_file(planned: &Planned<'_>) -> PlannedStage {
    let Planned { stage, schedule, cost, .. } = planned;
    let parts = parts(planned);
    let by = |of: &dyn Fn(&Share) -> f64| -> BTreeMap<String, f64> {
        parts.iter().map(|(name, share)| ((*name).to_owned(), of(share))).collect()
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
        images: planned.images(),
        parameters: parts.iter().map(|(name, of)| ((*name).to_owned(), of.parameters)).collect(),
        tokens_per_image: by(&|share| share.tokens),
        flops_per_image: with_total(by(&|share| share.flops), cost.flops()),
        paper_flops_per_image: with_total(by(&|share| share.paper_flops), cost.paper_flops()),
    }
}

/// The networks of a stage by name.
pub(crate) fn parts<'a>(planned: &'a Planned<'_>) -> Vec<(&'static str, &'a Share)> {
    let cost = &planned.cost;
    let (encoder, trunk) = match planned.stage.method {
        MethodName::Mae => ("encoder", "decoder"),
        MethodName::Salt => ("student", "predictor"),
    };
    let teacher = cost.teacher.as_ref().map(|teacher| ("teacher", teacher));
    [(encoder, &cost.encoder), (trunk, &cost.trunk)].into_iter().chain(teacher).collect()
}

/// Samples whose masks are drawn to tell what an image costs.
const DRAWS: usize = 256;

fn cost(
    recipe: &Recipe,
    place: usize,
    encoder: &VitSpec,
    teacher: Option<&VitSpec>,
) -> Result<Cost, Failure> {
    let stage = &recipe.stage[place];
    let seed = recipe.stage_seed(place);
    let step = |step: u64| stage.masks.sample(encoder.grid(), 1, seed, step).map_err(asked);
    let mut masks = step(0)?;
    for more in 1..DRAWS as u64 {
        let more = step(more)?;
        masks.context.extend(more.context);
        masks.target.extend(more.target);
    }
    let (trunk, masks) = match stage.method {
        MethodName::Mae => (stage.decoder(), setup::covered(stage).masks(masks)),
        MethodName::Salt => (stage.predictor(), masks),
    };
    let activation_checkpointing = stage.activation_checkpointing;
    let trunk = setup::trunk(trunk);
    let networks = Networks { encoder, trunk, teacher, activation_checkpointing };
    Ok(Cost::new(&networks, &masks))
}

/// Checks that what teaches a stage can, before hours go into the stages ahead of it; its sizes.
fn check_teacher(
    recipe: &Recipe,
    place: usize,
    spec: &VitSpec,
) -> Result<Option<VitSpec>, Failure> {
    let Some(teacher) = &recipe.stage[place].teacher else { return Ok(None) };
    let checked = match recipe.stage_before(place, teacher) {
        Some(earlier) => {
            let earlier = setup::spec(recipe, earlier)?;
            Salt::check_sizes(&earlier, spec).map(|()| earlier).map_err(Into::into)
        }
        None => Salt::load_teacher(Path::new(teacher), spec).map(|loaded| {
            if let Some([from, to]) = loaded.resized {
                note(&format!("{teacher}: positions resized from {from} to {to} patches"));
            }
            loaded.notes.iter().for_each(|words| note(&format!("{teacher}: {words}")));
            loaded.encoder.spec().clone()
        }),
    };
    checked.map(Some).map_err(|error| match error {
        CheckpointError::Weights(named) => asked(named),
        other => asked(format!("teacher {teacher}: {other}")),
    })
}
