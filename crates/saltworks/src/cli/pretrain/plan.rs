//! Everything of a recipe that can be refused is refused here, before hours go into its stages.

use super::super::setup::{self, Images};
use super::super::{Failure, asked};
use crate::method::{CheckpointError, Salt};
use crate::model::VitSpec;
use crate::recipe::{MethodName, PixelNorm, Recipe, Schedule, Stage};
use crate::report::note;
use std::path::Path;

/// Everything a stage was checked for before the first one begins.
pub(super) struct Planned<'a> {
    pub(super) stage: &'a Stage,
    pub(super) spec: VitSpec,
    pub(super) schedule: Schedule,
}

/// Checks every stage against the data before anything is trained.
pub(super) fn plan<'a>(recipe: &'a Recipe, images: &Images) -> Result<Vec<Planned<'a>>, Failure> {
    let check = |(place, stage): (usize, &'a Stage)| {
        let spec = setup::spec(recipe, stage)?;
        match stage.method {
            MethodName::Mae => setup::trunk(stage.decoder).check("decoder"),
            MethodName::Salt => setup::trunk(stage.predictor).check("predictor"),
        }
        .map_err(asked)?;
        stage.masks.validate(spec.grid()).map_err(asked)?;
        check_teacher(recipe, place, &spec)?;
        setup::training_loader(recipe, stage, place)
            .validate(images.train.as_ref())
            .map_err(asked)?;
        check_targets(stage, &spec)?;
        let schedule = stage.resolve(images.train.len()).map_err(asked)?;
        Ok(Planned { stage, spec, schedule })
    };
    recipe.stage.iter().enumerate().map(check).collect()
}

/// Normalised pixels need more than one value to normalise over.
fn check_targets(stage: &Stage, spec: &VitSpec) -> Result<(), Failure> {
    let [t, h, w] = spec.patch;
    let values = match stage.pixel_norm {
        PixelNorm::Joint => t * h * w * spec.channels,
        PixelNorm::PerChannel => t * h * w,
        PixelNorm::None => return Ok(()),
    };
    if stage.method == MethodName::Mae && values < 2 {
        let name = &stage.name;
        return Err(asked(format!(
            "pixel_norm of stage {name:?} has one value of a patch to normalise over, expected two \
             or more. Use a larger patch or pixel_norm = \"none\""
        )));
    }
    Ok(())
}

/// Checks that what teaches a stage can, before hours go into the stages ahead of it.
fn check_teacher(recipe: &Recipe, place: usize, spec: &VitSpec) -> Result<(), Failure> {
    let Some(teacher) = &recipe.stage[place].teacher else { return Ok(()) };
    let checked = match recipe.stage_before(place, teacher) {
        Some(earlier) => {
            Salt::check_sizes(&setup::spec(recipe, earlier)?, spec).map_err(Into::into)
        }
        None => Salt::load_teacher(Path::new(teacher), spec).map(|loaded| {
            if let Some([from, to]) = loaded.resized {
                note(&format!("{teacher}: positions resized from {from} to {to} patches"));
            }
            loaded.notes.iter().for_each(|words| note(&format!("{teacher}: {words}")));
        }),
    };
    checked.map_err(|error| match error {
        CheckpointError::Weights(named) => asked(named),
        other => asked(format!("teacher {teacher}: {other}")),
    })
}
