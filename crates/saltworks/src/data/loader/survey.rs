//! What a source holds, image by image.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::data::store::object::at_once;
use crate::data::{Error, Info, Result, Source, StoredValues};

/// The most unreadable images that are named if only headers are read.
const MOST_NAMED: usize = 10;

/// The most images that are named as too large.
const MOST_TOO_LARGE: usize = 3;

/// The most images whose numbers are read if only headers are read.
const MOST_DEEP: usize = 16;

/// The most images that are named as cut, or as the first of several pictures in a file.
const MOST_CUT: usize = 3;
const MOST_SEVERAL: usize = 3;

/// The distance of images that are surveyed together if not all are. (guess)
const STRIDE: usize = 16;

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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// Heights in pixels, sorted.
    pub heights: Vec<usize>,
    /// Widths in pixels, sorted.
    pub widths: Vec<usize>,
    /// Widths in thousandths of the height, sorted.
    pub aspects: Vec<usize>,
    /// How many images are stored with transparency.
    pub transparent: usize,
    /// Images for each number of channels.
    pub channels: BTreeMap<usize, usize>,
    /// Pixels of all readable images.
    pub pixels: u64,
    /// Bytes of all readable images as stored.
    pub bytes: u64,
    /// The images of more than eight bits.
    pub deep: Vec<usize>,
    /// The numbers of those that were read.
    pub values: Option<StoredValues>,
    /// How many those are.
    pub images_of_values: usize,
    /// How many JPEGs without an end are kept.
    pub cut: usize,
    /// The first of them.
    pub names_cut: Vec<String>,
    /// How many files hold several pictures.
    pub several: usize,
    /// The first of them.
    pub names_several: Vec<String>,
    /// How many images cannot be read.
    pub unreadable: usize,
    /// How many of those need too much memory to decode.
    pub too_large: usize,
    /// The first of them.
    pub names_too_large: Vec<String>,
    /// The problems of the first unreadable ones, or of all if all pixels were read.
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
                chunk.clone().into_par_iter().map(|at| info(source, at, depth)).collect()
            });
            let named = if depth == SurveyDepth::Pixels { usize::MAX } else { MOST_NAMED };
            for (at, found) in chunk.zip(found) {
                survey.add(source, at, found, named);
            }
            progress(done);
        }
        for index in 0..source.len() {
            let class = usize::try_from(source.label(index)).ok();
            match class.and_then(|class| survey.classes.get_mut(class)) {
                Some(count) => *count += 1,
                None => survey.unlabelled += 1,
            }
        }
        let most = if depth == SurveyDepth::Pixels { usize::MAX } else { MOST_DEEP };
        survey.values = survey.stored_values(source, most);
        survey.images_of_values = survey.deep.len().min(most);
        survey.sort();
        survey
    }

    /// The numbers of at most `most` of the images of more than eight bits, spread evenly.
    pub fn stored_values(&self, source: &dyn Source, most: usize) -> Option<StoredValues> {
        let count = self.deep.len().min(most);
        let of = |nth: usize| {
            let index = self.deep[nth * self.deep.len() / count];
            // What cannot be read is reported elsewhere.
            source.raw(index).and_then(|raw| raw.stored_values()).ok().flatten()
        };
        at_once(source.requests(), || {
            (0..count).into_par_iter().filter_map(of).reduce_with(StoredValues::with)
        })
    }

    /// Surveys the headers of at most `most` images, spread evenly, until the time is over. Counts
    /// no classes.
    pub fn of_some(source: &dyn Source, most: usize, time: Duration) -> Self {
        let (begun, count) = (Instant::now(), source.len().min(most));
        let mut survey = Self::default();
        // In strides, so that images of all parts are read if the time does not suffice for all.
        for first in 0..STRIDE.min(count) {
            let picked: Vec<usize> = (first..count).step_by(STRIDE).collect();
            let look = |at: usize| {
                let index = at * source.len() / count;
                let look = || (index, info(source, index, SurveyDepth::Headers));
                (begun.elapsed() < time).then(look)
            };
            let found: Vec<_> =
                at_once(source.requests(), || picked.into_par_iter().filter_map(look).collect());
            for (index, found) in found {
                survey.add(source, index, found, MOST_NAMED);
            }
        }
        survey.sort();
        survey
    }

    /// Whether nearly all images have the same shape: nine of ten, within 5 %.
    pub fn has_one_shape(&self) -> bool {
        let Some(median) = self.aspects.get(self.aspects.len() / 2) else { return false };
        let near = |aspect: &&usize| aspect.abs_diff(*median) <= median / 20;
        10 * self.aspects.iter().filter(near).count() >= 9 * self.aspects.len()
    }

    fn sort(&mut self) {
        [&mut self.heights, &mut self.widths, &mut self.aspects]
            .into_iter()
            .for_each(|list| list.sort_unstable());
    }

    fn add(&mut self, source: &dyn Source, index: usize, found: Result<Info>, named: usize) {
        match found {
            Ok(Info { height, width, channels, bytes, alpha, is_deep, is_cut, frames }) => {
                if is_deep {
                    self.deep.push(index);
                }
                if is_cut {
                    self.cut += 1;
                    if self.names_cut.len() < MOST_CUT {
                        self.names_cut.push(source.stamp(index).name);
                    }
                }
                if frames > 1 {
                    self.several += 1;
                    if self.names_several.len() < MOST_SEVERAL {
                        self.names_several.push(source.stamp(index).name);
                    }
                }
                self.transparent += usize::from(alpha);
                self.aspects.push(1000 * width / height.max(1));
                self.heights.push(height);
                self.widths.push(width);
                *self.channels.entry(channels).or_default() += 1;
                self.pixels += (height * width) as u64;
                self.bytes += bytes;
            }
            Err(error) => {
                self.unreadable += 1;
                if self.problems.len() < named {
                    self.problems.push(error.to_string());
                }
                if let Error::TooLarge { name, .. } = error {
                    self.too_large += 1;
                    if self.names_too_large.len() < MOST_TOO_LARGE {
                        self.names_too_large.push(name);
                    }
                }
            }
        }
    }
}

fn info(source: &dyn Source, index: usize, depth: SurveyDepth) -> Result<Info> {
    let info = source.info(index)?;
    if depth == SurveyDepth::Pixels {
        source.read(index)?;
    }
    Ok(info)
}
