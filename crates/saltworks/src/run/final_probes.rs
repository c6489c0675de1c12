//! The probes after training: of raw pixels, of untrained encoders and of each stage's encoder.

use super::plan::StagePlan;
use super::stages::Run;
use crate::failure::{Failure, interrupted, run_error};
use crate::judge::{Extractor, NamedExtractor, probe};
use crate::model::{Encoder, VitSpec};
use crate::recipe::Recipe;
use crate::run_files::random_row;
use crate::weights;
use engine::Module as _;

/// What these probes may cost, as a share of the training's FLOPs, if `probe.most_images` is not
/// set. (guess: they matter as much as the training, but nobody waits for them that long)
const SHARE: f64 = 0.2;
/// The most images then. Fits of more rows hardly change an accuracy. (guess)
const MOST_IMAGES: usize = 11_000;

impl Run<'_> {
    /// Probes what was not probed before.
    pub(super) fn probe(&mut self, plans: &[StagePlan<'_>]) -> Result<(), Failure> {
        let names: Vec<_> = names(plans).into_iter().filter(|name| !self.has_row(name)).collect();
        if self.images.held_out.is_some() && !names.is_empty() {
            let all: Result<Vec<_>, Failure> =
                names.into_iter().map(|name| self.judged(name, plans)).collect();
            let most = most_images(self.recipe, plans);
            // Readers see by the file that probes are being made.
            self.folder.write_rows(&self.rows)?;
            self.probe_all(&all?, most)?;
        }
        match self.stop.signal() {
            None => Ok(()),
            Some(_) => Err(interrupted(self.stop, "in the probes", self.folder.path())),
        }
    }

    fn has_row(&self, name: &str) -> bool {
        self.rows.iter().any(|row| row.name == name)
    }

    fn probe_all(&mut self, all: &[NamedExtractor], most: usize) -> Result<(), Failure> {
        let Self { recipe, images, stop, .. } = self;
        let mut met = Vec::new();
        let made = probe(all, recipe, (images, most), stop, &mut met);
        self.unreadable.add(&met)?;
        // All at once: rows are compared, so a part of them would say little.
        self.rows.extend(made?);
        self.folder.write_rows(&self.rows)?;
        if let Some(reporter) = &mut self.reporter {
            reporter.write(None);
        }
        Ok(())
    }

    /// The features of this name.
    fn judged(&self, name: String, plans: &[StagePlan<'_>]) -> Result<NamedExtractor, Failure> {
        let trained = plans.iter().find(|plan| plan.stage.name == name);
        let untrained = plans.iter().find(|plan| random_name(plan) == name);
        let extractor = match (trained, untrained) {
            (Some(plan), _) => {
                let (path, encoder) =
                    (self.folder.encoder_path(&name), Encoder::new(&plan.spec, 0));
                let file = weights::load(&path).map_err(run_error)?;
                weights::assign(&path, &file.tensors, &encoder.parameters()).map_err(run_error)?;
                Extractor::of(encoder)
            }
            (None, Some(plan)) => Extractor::of(plan.new_encoder()),
            (None, None) => Extractor::Pixels,
        };
        Ok(NamedExtractor { name, extractor })
    }
}

/// How many images are probed at most.
pub(crate) fn most_images(recipe: &Recipe, plans: &[StagePlan<'_>]) -> usize {
    if let Some(most) = recipe.probe.most_images {
        return most;
    }
    let trained: f64 = plans.iter().map(|plan| plan.cost.flops() * plan.images() as f64).sum();
    let each: f64 =
        plans.iter().map(|plan| encoders_of(plan, plans) as f64 * feature_flops(&plan.spec)).sum();
    let least = 2 * recipe.probe.images;
    ((SHARE * trained / each) as usize).clamp(least, MOST_IMAGES.max(least))
}

/// How many encoders of a stage's sizes are probed for it: its own, and an untrained one.
pub(crate) fn encoders_of(plan: &StagePlan<'_>, plans: &[StagePlan<'_>]) -> usize {
    1 + usize::from(is_first_of_its_size(plan, plans))
}

/// What is probed, in the order of the table.
fn names(plans: &[StagePlan<'_>]) -> Vec<String> {
    let random =
        |plan: &StagePlan<'_>| is_first_of_its_size(plan, plans).then(|| random_name(plan));
    let of_stage = |plan: &StagePlan<'_>| random(plan).into_iter().chain([plan.stage.name.clone()]);
    std::iter::once("raw pixels".to_owned()).chain(plans.iter().flat_map(of_stage)).collect()
}

/// The name of a stage's encoder before it was trained.
fn random_name(plan: &StagePlan<'_>) -> String {
    match plan.stage_index {
        0 => "random encoder".to_owned(),
        _ => random_row(&plan.stage.name),
    }
}

/// Whether the stage's encoder has other sizes than the first stage's, or is the first.
fn is_first_of_its_size(plan: &StagePlan<'_>, plans: &[StagePlan<'_>]) -> bool {
    plan.stage_index == 0 || plan.spec != plans[0].spec
}

/// FLOPs of an image's features.
fn feature_flops(spec: &VitSpec) -> f64 {
    let tokens = spec.grid().len();
    spec.embedding_flops(tokens) + spec.block_flops(tokens, None)
}
