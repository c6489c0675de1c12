//! Computes a non-finite step again and checks every value.

use super::dump::FailedStep;
use super::plan::StagePlan;
use crate::console::result;
use crate::failure::{Failure, input_error, run_error, use_threads};
use crate::files::read_file;
use crate::method::Method;
use crate::model::StepKey;
use crate::recipe::{self, Recipe};
use crate::run_files::names::{MODEL, RECIPE, STEP, STEP_IMAGES};
use crate::weights;
use engine::ops::Images;
use engine::{Parameter, Pass, Tape, Tensor, Trouble};
use std::path::Path;

/// Finds the sample and the layer that made the step in `folder` non-finite.
pub(crate) fn replay(folder: &Path) -> Result<(), Failure> {
    let failed = read_step(folder)?;
    let recipe = recipe::load(Some(&folder.join(RECIPE)), &[]).map_err(input_error)?;
    use_threads(recipe.threads)?;
    let Some(stage) = recipe.stage.get(failed.stage_index) else {
        let (found, path) = (failed.stage_index, folder.join(STEP));
        let path = path.display();
        return Err(input_error(format!(
            "{path}: place is {found}, but the recipe has fewer stages"
        )));
    };
    // The stage's length does not matter here, so any number of images works.
    let plan = StagePlan::new(&recipe, failed.stage_index, failed.images.len())?;
    let method = method(folder, &plan, &failed)?;
    let images = images(folder, &recipe, &failed)?;
    let name = &stage.name;
    result(&format!("step {} of stage {name}: {}", failed.step + 1, failed.problem));
    let (recipe, failed, method) = (&recipe, &failed, method.as_ref());
    let step = ReplayedStep { recipe, plan, failed, method, images };
    step.report_batch()?;
    step.report_samples()
}

fn read_step(folder: &Path) -> Result<FailedStep, Failure> {
    let path = folder.join(STEP);
    let bytes = read_file(&path).map_err(|error| {
        input_error(format!(
            "{}: {error}. Give the folder that the run printed when it stopped, \
             RUN/replay/STAGE-STEP",
            path.display()
        ))
    })?;
    serde_json::from_slice(&bytes)
        .map_err(|error| input_error(format!("{}: {error}", path.display())))
}

/// The method with the weights that it had before the step.
fn method(
    folder: &Path,
    plan: &StagePlan<'_>,
    failed: &FailedStep,
) -> Result<Box<dyn Method>, Failure> {
    let method = plan.method(failed.teacher.as_deref(), None)?;
    let path = folder.join(MODEL);
    let file = weights::load(&path).map_err(input_error)?;
    weights::assign(&path, &file.tensors, &method.parameters()).map_err(input_error)?;
    Ok(method)
}

/// The images of the step, [B, C, T, H, W] values of 0 to 255.
fn images(folder: &Path, recipe: &Recipe, failed: &FailedStep) -> Result<Tensor, Failure> {
    let path = folder.join(STEP_IMAGES);
    let mut file = weights::load(&path).map_err(input_error)?;
    let (size, channels) = (recipe.data.size, recipe.data.channels());
    let frames = recipe.data.frames;
    let expected = [failed.images.len(), channels, frames, size.height, size.width];
    match file.tensors.remove("images") {
        Some(images) if images.shape() == expected && images.rows() > 0 => Ok(images),
        found => {
            let found = found.map_or("no tensor images".to_owned(), |t| format!("{:?}", t.shape()));
            Err(input_error(format!("{}: found {found}, expected {expected:?}", path.display())))
        }
    }
}

/// The most samples that are reported.
const MOST_REPORTED: usize = 8;

/// The step that is replayed.
struct ReplayedStep<'a> {
    recipe: &'a Recipe,
    plan: StagePlan<'a>,
    failed: &'a FailedStep,
    method: &'a dyn Method,
    images: Tensor,
}

impl ReplayedStep<'_> {
    /// The loss of some samples, the parameters whose gradients are not finite, and the first value
    /// that is not finite.
    fn watch(
        &self,
        samples: std::ops::Range<usize>,
    ) -> Result<(f32, Vec<String>, Option<Trouble>), Failure> {
        let StagePlan { stage, seed, .. } = self.plan;
        let (step, grid) = (self.failed.step, self.method.encoder().grid());
        let masks = stage.masks.sample(grid, self.images.rows(), seed, step).map_err(run_error)?;
        let masks = self.method.masks(masks).part(samples.clone());
        let key = StepKey { seed, step, first_sample: samples.start };
        let images = self.normalized(samples)?;
        let parameters = self.method.parameters();
        engine::optim::zero_grad(parameters.iter().map(|(_, parameter)| parameter));
        let tape = Tape::new().watched();
        let result = self.method.step(&tape, &images, &masks, Some(key)).map_err(run_error)?;
        tape.backward(&result.loss).map_err(run_error)?;
        let bad = parameters.iter().filter(|(_, parameter)| {
            let gradient = parameter.grad();
            gradient.is_some_and(|g| g.to_host().iter().any(|value| !value.is_finite()))
        });
        let bad = bad.map(|(name, _)| name.clone()).collect();
        Ok((result.loss.item(), bad, tape.trouble()))
    }

    fn normalized(&self, samples: std::ops::Range<usize>) -> Result<Images, Failure> {
        let images = self.images.narrow(samples).map_err(run_error)?;
        let shape = [0, 1, 2, 3, 4].map(|axis| images.dim(axis));
        let bytes: Vec<u8> = images.to_host().iter().map(|&value| value as u8).collect();
        let normalize = self.recipe.data.channel_normalize();
        let images = Images::u8(bytes, shape, normalize.mean, normalize.std).map_err(run_error)?;
        Ok(images.with_dtype(self.recipe.precision.dtype()))
    }

    fn report_batch(&self) -> Result<(), Failure> {
        let (loss, bad, trouble) = self.watch(0..self.images.rows())?;
        result(&format!("computed again: loss {loss}, {}", gradients(&bad)));
        let Some(trouble) = trouble else {
            result("all values are finite here: the run used other arithmetic");
            return Ok(());
        };
        let what = match trouble.pass {
            Pass::Forward => "the result",
            Pass::Backward => "the gradient of the result",
        };
        let near = self.location_of(trouble.near.as_deref(), &trouble);
        let (value, op, element) = (trouble.value, trouble.op, trouble.element);
        result(&format!("first: {value} in {what} of {op}, value {element}{near}"));
        Ok(())
    }

    /// The part of the model that an operation is near.
    fn location_of(&self, near: Option<&Parameter>, trouble: &Trouble) -> String {
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

    /// Computes each sample alone, to find out which samples are the cause, if any.
    fn report_samples(&self) -> Result<(), Failure> {
        let all = self.failed.images.len();
        let images = self.failed.images.iter().zip(&self.failed.names);
        let mut bad = Vec::new();
        for (sample, (number, name)) in images.enumerate() {
            let (loss, gradients_of, trouble) = self.watch(sample..sample + 1)?;
            if trouble.is_some() || !loss.is_finite() || !gradients_of.is_empty() {
                let gradients = gradients(&gradients_of);
                bad.push(format!(
                    "sample {sample} ({name}, training image {number}) alone: loss {loss}, \
                     {gradients}"
                ));
            }
        }
        bad.iter().take(MOST_REPORTED).for_each(|line| result(line));
        if bad.len() > MOST_REPORTED {
            result(&format!("and {} more", bad.len() - MOST_REPORTED));
        }
        result(&format!("{} of {all} samples are finite alone", all - bad.len()));
        if 2 * bad.len() > all {
            result(
                "The cause is not a few bad images: weights have grown too large. Lower lr, \
                 lengthen the warmup or set clip",
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
