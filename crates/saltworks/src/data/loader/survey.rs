//! What a source holds, image by image.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::data::store::object::at_once;
use crate::data::{Info, Source};

/// The most unreadable images that are named if only headers are read.
const MOST_NAMED: usize = 10;

/// Images surveyed between two calls of `progress`.
const CHUNK: usize = 1024;

/// How much of each image a survey reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SurveyDepth {
    /// Headers, and whether a JPEG reaches its end.
    Headers,
    /// Every pixel.
    Pixels,
}

/// What a survey found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Heights in pixels, sorted.
    pub heights: Vec<usize>,
    /// Widths in pixels, sorted.
    pub widths: Vec<usize>,
    /// Images for each number of channels.
    pub channels: BTreeMap<usize, usize>,
    /// Bytes of all readable images as stored.
    pub bytes: u64,
    /// How many images cannot be read.
    pub unreadable: usize,
    /// The problems of the first of them, or of all if all pixels were read.
    pub problems: Vec<String>,
    /// Images of each class.
    pub classes: Vec<usize>,
    /// Images without a class.
    pub unlabelled: usize,
}

impl Survey {
    /// Surveys all images of a source. `progress` gets the number done.
    pub fn of(source: &dyn Source, depth: SurveyDepth, mut progress: impl FnMut(usize)) -> Self {
        let mut survey = Self { classes: vec![0; source.classes().len()], ..Self::default() };
        for first in (0..source.len()).step_by(CHUNK) {
            let chunk = first..(first + CHUNK).min(source.len());
            let done = chunk.end;
            let found: Vec<_> = at_once(source.requests(), || {
                chunk.into_par_iter().map(|at| info(source, at, depth)).collect()
            });
            let named = if depth == SurveyDepth::Pixels { usize::MAX } else { MOST_NAMED };
            found.into_iter().for_each(|found| survey.add(found, named));
            progress(done);
        }
        for index in 0..source.len() {
            let class = usize::try_from(source.label(index)).ok();
            match class.and_then(|class| survey.classes.get_mut(class)) {
                Some(count) => *count += 1,
                None => survey.unlabelled += 1,
            }
        }
        survey.heights.sort_unstable();
        survey.widths.sort_unstable();
        survey
    }

    fn add(&mut self, found: Result<Info, String>, named: usize) {
        match found {
            Ok(Info { height, width, channels, bytes }) => {
                self.heights.push(height);
                self.widths.push(width);
                *self.channels.entry(channels).or_default() += 1;
                self.bytes += bytes;
            }
            Err(problem) => {
                self.unreadable += 1;
                if self.problems.len() < named {
                    self.problems.push(problem);
                }
            }
        }
    }
}

fn info(source: &dyn Source, index: usize, depth: SurveyDepth) -> Result<Info, String> {
    let info = source.info(index).map_err(|error| error.to_string())?;
    if depth == SurveyDepth::Pixels {
        source.read(index).map_err(|error| error.to_string())?;
    }
    Ok(info)
}
