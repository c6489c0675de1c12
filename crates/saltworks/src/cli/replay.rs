//! `saltworks replay`: a step that was not finite, made again and looked at value by value.

use super::setup;
use super::{Failure, asked, ran};
use crate::method::{Method, Salt};
use crate::model::{Encoder, StepKey};
use crate::recipe::{self, MethodName, Recipe};
use crate::report::result;
use crate::weights;
use engine::ops::Images;
use engine::{Parameter, Pass, Tape, Tensor, Trouble};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Options of `replay`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The folder that the run named when it stopped: RUN/replay/STAGE-STEP.
    folder: PathBuf,
}

/// The files of a failed step.
pub(super) const IMAGES: &str = "images.safetensors";
pub(super) const MODEL: &str = "model.safetensors";
pub(super) const RECIPE: &str = "recipe.toml";
pub(super) const STEP: &str = "step.json";

/// What failed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FailedStep {
    /// Number of the stage in its recipe, from 0.
    pub(super) place: usize,
    /// Steps made before.
    pub(super) step: u64,
    /// What was not finite.
    pub(super) problem: String,
    /// The teacher's file, for SALT.
    pub(super) teacher: Option<PathBuf>,
    /// Numbers of the batch's images in the training data.
    pub(super) images: Vec<u64>,
    /// Their files, or their places in them.
    pub(super) names: Vec<String>,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let folder = &arguments.folder;
    let failed = read_step(folder)?;
    let recipe = recipe::load(Some(&folder.join(RECIPE)), &[]).map_err(asked)?;
    super::use_threads(recipe.threads)?;
    let stage = recipe.stage.get(failed.place).ok_or_else(|| {
        let (found, path) = (failed.place, folder.join(STEP));
        asked(format!("{}: place is {found}, the recipe has fewer stages", path.display()))
    })?;
    let method = method(folder, &recipe, &failed)?;
    let images = images(folder, &recipe, &failed)?;
    let name = &stage.name;
    result(&format!("step {} of stage {name}: {}", failed.step + 1, failed.problem));
    let step = ReplayedStep { recipe: &recipe, failed: &failed, method: method.as_ref(), images };
    step.tell_whole()?;
    step.tell_samples()
}

fn read_step(folder: &Path) -> Result<FailedStep, Failure> {
    let path = folder.join(STEP);
    let bytes = fs::read(&path).map_err(|error| {
        asked(format!(
            "{}: {error}. Give the folder that the run named when it stopped, RUN/replay/STAGE-STEP",
            path.display()
        ))
    })?;
    serde_json::from_slice(&bytes).map_err(|error| asked(format!("{}: {error}", path.display())))
}

/// The method as it was, its weights those before the step.
fn method(folder: &Path, recipe: &Recipe, failed: &FailedStep) -> Result<Box<dyn Method>, Failure> {
    let stage = &recipe.stage[failed.place];
    let seed = setup::stage_seed(recipe.seed, failed.place);
    let spec = setup::spec(recipe, stage)?;
    let encoder = Encoder::new(&spec, seed);
    let method: Box<dyn Method> = match (stage.method, &failed.teacher) {
        (MethodName::Salt, Some(teacher)) => {
            let options = setup::salt_options(stage);
            Box::new(Salt::from_checkpoint(teacher, encoder, options, seed).map_err(asked)?)
        }
        _ => Box::new(setup::mae(encoder, stage, seed)),
    };
    let path = folder.join(MODEL);
    let file = weights::load(&path).map_err(asked)?;
    weights::assign(&path, &file.tensors, &method.parameters()).map_err(asked)?;
    Ok(method)
}

/// The images of the step, [B, C, T, H, W] values of 0 to 255.
fn images(folder: &Path, recipe: &Recipe, failed: &FailedStep) -> Result<Tensor, Failure> {
    let path = folder.join(IMAGES);
    let mut file = weights::load(&path).map_err(asked)?;
    let (size, channels) = (recipe.data.size, recipe.data.channels());
    let expected = [failed.images.len(), channels, 1, size, size];
    match file.tensors.remove("images") {
        Some(images) if images.shape() == expected && images.rows() > 0 => Ok(images),
        found => {
            let found = found.map_or("no tensor images".to_owned(), |t| format!("{:?}", t.shape()));
            Err(asked(format!("{}: found {found}, expected {expected:?}", path.display())))
        }
    }
}

/// Samples that are told of, at most.
const TOLD: usize = 8;

/// What is replayed.
struct ReplayedStep<'a> {
    recipe: &'a Recipe,
    failed: &'a FailedStep,
    method: &'a dyn Method,
    images: Tensor,
}

impl ReplayedStep<'_> {
    /// The loss of some samples, the parameters whose gradients are not finite, and the first value
    /// that is not.
    fn watch(
        &self,
        samples: std::ops::Range<usize>,
    ) -> Result<(f32, Vec<String>, Option<Trouble>), Failure> {
        let stage = &self.recipe.stage[self.failed.place];
        let seed = setup::stage_seed(self.recipe.seed, self.failed.place);
        let (step, grid) = (self.failed.step, self.method.encoder().grid());
        let masks = stage.masks.sample(grid, self.images.rows(), seed, step).map_err(ran)?;
        let masks = self.method.masks(masks).part(samples.clone());
        let key = StepKey { seed, step, first_sample: samples.start };
        let images = self.normalized(samples)?;
        let parameters = self.method.parameters();
        parameters.iter().for_each(|(_, parameter)| parameter.zero_grad());
        let tape = Tape::new().watched();
        let result = self.method.step(&tape, &images, &masks, Some(key)).map_err(ran)?;
        tape.backward(&result.loss).map_err(ran)?;
        let bad = parameters.iter().filter(|(_, parameter)| {
            let gradient = parameter.grad();
            gradient.is_some_and(|g| g.to_host().iter().any(|value| !value.is_finite()))
        });
        let bad = bad.map(|(name, _)| name.clone()).collect();
        Ok((result.loss.item(), bad, tape.trouble()))
    }

    fn normalized(&self, samples: std::ops::Range<usize>) -> Result<Images, Failure> {
        let images = self.images.narrow(samples).map_err(ran)?;
        let shape = [0, 1, 2, 3, 4].map(|axis| images.dim(axis));
        let bytes: Vec<u8> = images.to_host().iter().map(|&value| value as u8).collect();
        let normalize = setup::normalize(&self.recipe.data);
        Images::u8(bytes, shape, normalize.mean, normalize.std).map_err(ran)
    }

    fn tell_whole(&self) -> Result<(), Failure> {
        let (loss, bad, trouble) = self.watch(0..self.images.rows())?;
        result(&format!("made again: loss {loss}, {}", gradients(&bad)));
        let Some(trouble) = trouble else {
            result("no value of it is infinite or NaN here: it was made by other arithmetic");
            return Ok(());
        };
        let what = match trouble.pass {
            Pass::Forward => "the result",
            Pass::Backward => "the gradient of the result",
        };
        let near = self.place_of(trouble.near.as_deref(), &trouble);
        let (value, op, element) = (trouble.value, trouble.op, trouble.element);
        result(&format!("first: {value} in {what} of {op}, value {element}{near}"));
        Ok(())
    }

    /// About where in the model an operation is.
    fn place_of(&self, near: Option<&Parameter>, trouble: &Trouble) -> String {
        let parameters = self.method.parameters();
        let name = near.and_then(|near| parameters.iter().find(|(_, p)| p.is(near)));
        match name {
            Some((name, _)) => format!(", at or after {name}"),
            None if trouble.pass == Pass::Backward => {
                ", before the first trained parameter".to_owned()
            }
            None => ", before the first trained parameter: in the teacher or the images".to_owned(),
        }
    }

    /// Each sample alone: which of them are the cause, if it is any of them.
    fn tell_samples(&self) -> Result<(), Failure> {
        let all = self.failed.images.len();
        let images = self.failed.images.iter().zip(&self.failed.names);
        let mut bad = Vec::new();
        for (sample, (number, name)) in images.enumerate() {
            let (loss, gradients_of, trouble) = self.watch(sample..sample + 1)?;
            if trouble.is_some() || !loss.is_finite() || !gradients_of.is_empty() {
                let gradients = gradients(&gradients_of);
                bad.push(format!(
                    "sample {sample} ({name}, training image {number}) alone: loss {loss}, {gradients}"
                ));
            }
        }
        bad.iter().take(TOLD).for_each(|line| result(line));
        if bad.len() > TOLD {
            result(&format!("and {} more", bad.len() - TOLD));
        }
        result(&format!("{} of {all} samples are finite alone", all - bad.len()));
        if 2 * bad.len() > all {
            result(
                "It is not a few bad images: weights have grown too large. Lower lr, lengthen the warmup or set \
                 clip",
            );
        }
        Ok(())
    }
}

fn gradients(bad: &[String]) -> String {
    match bad {
        [] => "all gradients finite".to_owned(),
        [one] => format!("the gradient of {one} not finite"),
        [first, ..] => format!("gradients of {} parameters not finite, first {first}", bad.len()),
    }
}
