//! The probes after training: of raw pixels, of untrained encoders and of each stage's encoder.

use super::plan::StagePlan;
use super::stages::Run;
use crate::failure::{Failure, interrupted, run_error};
use crate::judge::{Extractor, FrameOrder, NamedExtractor, probe};
use crate::model::{Encoder, VitSpec};
use crate::recipe::Recipe;
use crate::run_files::random_row;
use crate::weights;
use engine::Module as _;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What these probes may cost, as a share of the training's FLOPs, if `probe.most_images` is not
/// set. (guess: they matter as much as the training, but nobody waits for them that long)
const SHARE: f64 = 0.2;
/// The most images then. Fits of more rows hardly change an accuracy. (guess)
const MOST_IMAGES: usize = 11_000;

impl Run<'_> {
    /// Probes what was not probed before.
    pub(super) fn probe(&mut self, plans: &[StagePlan<'_>]) -> Result<(), Failure> {
        let names: Vec<_> = names(plans, self.recipe.data.frames)
            .into_iter()
            .filter(|name| !self.has_row(name))
            .collect();
        if self.images.held_out.is_some() && !names.is_empty() {
            let mut encoders = BTreeMap::new();
            let all: Result<Vec<_>, Failure> =
                names.into_iter().map(|name| self.judged(name, plans, &mut encoders)).collect();
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

    /// The features of this name. Several rows share an encoder.
    fn judged(
        &self,
        name: String,
        plans: &[StagePlan<'_>],
        encoders: &mut BTreeMap<String, Arc<Encoder>>,
    ) -> Result<NamedExtractor, Failure> {
        let (of, frames) = of_frames(&name);
        let trained = plans.iter().find(|plan| plan.stage.name == of);
        let untrained = plans.iter().find(|plan| random_name(plan) == of);
        let extractor = match (trained, untrained) {
            (Some(plan), _) => {
                let encoder = match encoders.get(of) {
                    Some(encoder) => encoder.clone(),
                    None => Arc::new(self.trained_encoder(plan)?),
                };
                encoders.insert(of.to_owned(), encoder.clone());
                Extractor::Encoder { encoder, layers: 1 }
            }
            (None, Some(plan)) => Extractor::of(plan.new_encoder()),
            (None, None) if of == DIFFERENCES => Extractor::Differences,
            (None, None) => Extractor::Pixels,
        };
        Ok(NamedExtractor { name, extractor, frames })
    }

    fn trained_encoder(&self, plan: &StagePlan<'_>) -> Result<Encoder, Failure> {
        let path = self.folder.encoder_path(&plan.stage.name);
        let encoder = Encoder::new(&plan.spec, 0);
        let file = weights::load(&path).map_err(run_error)?;
        weights::assign(&path, &file.tensors, &encoder.parameters()).map_err(run_error)?;
        Ok(encoder)
    }
}

/// The row of the differences of successive frames of a clip.
const DIFFERENCES: &str = "frame differences";

/// What stands behind the name of the last stage in rows of clips: which frames the probes are
/// fitted to, and which they judge. An encoder that uses time fails with one frame. Of a reversed
/// clip, it sees the opposite motion.
const OF_FRAMES: [(&str, [FrameOrder; 2]); 3] = [
    (", one frame", [FrameOrder::OneFrame; 2]),
    (", reversed", [FrameOrder::Forward, FrameOrder::Reversed]),
    (", shuffled", [FrameOrder::Forward, FrameOrder::Shuffled]),
];

/// The name of what is probed, and its frames.
fn of_frames(name: &str) -> (&str, [FrameOrder; 2]) {
    let of = |(end, frames): &(&str, _)| Some((name.strip_suffix(end)?, *frames));
    OF_FRAMES.iter().find_map(of).unwrap_or((name, [FrameOrder::Forward; 2]))
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

/// How many encoders of a stage's sizes are probed for it: its own, and an untrained one. The last
/// stage's encodes clips again in other orders.
pub(crate) fn encoders_of(plan: &StagePlan<'_>, plans: &[StagePlan<'_>]) -> usize {
    let again = plan.spec.image[0] > 1 && plan.stage_index + 1 == plans.len();
    1 + usize::from(is_first_of_its_size(plan, plans)) + 2 * usize::from(again)
}

/// What is probed, in the order of the table.
fn names(plans: &[StagePlan<'_>], frames: usize) -> Vec<String> {
    let random =
        |plan: &StagePlan<'_>| is_first_of_its_size(plan, plans).then(|| random_name(plan));
    let of_stage = |plan: &StagePlan<'_>| random(plan).into_iter().chain([plan.stage.name.clone()]);
    let mut names = vec!["raw pixels".to_owned()];
    names.extend((frames > 1).then(|| DIFFERENCES.to_owned()));
    names.extend(plans.iter().flat_map(of_stage));
    // Of three frames or fewer, many orders are forward or reversed.
    let of_frames = OF_FRAMES.iter().filter(|(_, [_, order])| match order {
        FrameOrder::Shuffled => frames > 3,
        _ => frames > 1,
    });
    let last = plans.last().map_or("", |last| &last.stage.name);
    names.extend(of_frames.map(|(end, _)| format!("{last}{end}")));
    names
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
