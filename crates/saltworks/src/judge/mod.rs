//! Frozen features of images and their probes. A run, `probe` and `embed` share this code.

mod feature_files;
mod images;
mod large_images;
mod patch_files;
mod pixels;
mod probes;
mod subject;
mod tokens;

pub(crate) use feature_files::{Embeddings, FeatureFile, FeatureRows};
pub(crate) use images::{
    ImageSets, SharedFile, contradiction_text, copies_text, note_depth, note_missing_classes,
    note_reading, note_tests_that_train, open_all, open_all_tests, open_images, shared_file,
    test_labels, test_options, tests_beside,
};
pub(crate) use large_images::{size_doubts, size_notes};
pub(crate) use patch_files::PatchTokens;
pub(crate) use probes::{NamedExtractor, probe};
pub(crate) use subject::{StageProgress, Subject, SubjectOptions, stage_index};
pub(crate) use tokens::FrozenTokens;

use crate::console::{Count, note};
use crate::data::{Loader, Source, Unreadable};
use crate::eval::Features;
use crate::failure::{Failure, input_error, loading, run_error};
use crate::method::embed;
use crate::model::Encoder;
use crate::recipe::{Data, ImageSize, Recipe};
use crate::train::Stop;
use engine::ops::Images as ImageBatch;
use engine::random::Random;
use engine::{Tape, Tensor};
use std::collections::BTreeSet;
use std::sync::Arc;

/// One batch's features of one kind: [B, D].
pub(crate) type FeatureBatch = (Vec<f32>, usize);

/// What turns images into features.
pub(crate) enum Extractor {
    /// The normalised pixels themselves, of images that are shrunk if they are large.
    Pixels,
    /// The differences of successive frames, shrunk in the same way.
    Differences,
    /// An encoder's class token and mean patch token, those of the last `layers` blocks side by
    /// side.
    Encoder { encoder: Arc<Encoder>, layers: usize },
}

/// Which frames of a clip features are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameOrder {
    /// All, as they come.
    Forward,
    /// All, the last one first.
    Reversed,
    /// All, each clip in a random order of its own, which is always the same.
    Shuffled,
    /// The middle one, repeated.
    OneFrame,
}

impl FrameOrder {
    /// The clips of a batch with their frames in this order.
    fn of(self, images: &ImageBatch) -> engine::Result<ImageBatch> {
        let (clips, frames) = (images.samples(), images.shape()[2]);
        let forward: Vec<usize> = (0..frames).collect();
        let lists = match self {
            Self::Forward => return Ok(images.clone()),
            Self::Reversed => vec![forward.into_iter().rev().collect(); clips],
            Self::Shuffled => (0..clips).map(|clip| shuffled(&forward, clip)).collect(),
            Self::OneFrame => vec![vec![frames / 2; frames]; clips],
        };
        images.with_frames(&lists)
    }
}

/// A random order for this clip of a batch. One order for all clips might keep a direction.
fn shuffled(frames: &[usize], clip: usize) -> Vec<usize> {
    let mut order = frames.to_vec();
    Random::new(0, "frames", clip as u64).shuffle(&mut order);
    order
}

impl Extractor {
    /// Features of an encoder's last block.
    pub(crate) fn of(encoder: Encoder) -> Self {
        Self::Encoder { encoder: Arc::new(encoder), layers: 1 }
    }
}

/// Features of all images of a source. None if a signal stops it.
pub(crate) fn features(
    recipe: &Recipe,
    source: &Arc<dyn Source>,
    extractor: &Extractor,
    stop: &Stop,
    unreadable: &mut Vec<Unreadable>,
    count: &mut Count,
) -> Result<Option<SourceFeatures>, Failure> {
    let loader = blank_loader(&recipe.data, recipe.data.size, source)?;
    let mut make = |images: &ImageBatch| {
        count.add(images.samples());
        extract(images, extractor).map_err(run_error)
    };
    let gathered = gather(loader, &mut make, stop)?;
    if let Some(all) = gathered.as_ref().filter(|all| all.replaced.len() == source.len()) {
        return Err(none_readable(source.as_ref(), &all.replaced));
    }
    unreadable.extend(gathered.iter().flat_map(|gathered| gathered.replaced.iter().cloned()));
    Ok(gathered)
}

/// A loader of all images of a source in order, resized to `size`. Images that cannot be read are
/// black. They are left out later.
fn blank_loader(data: &Data, size: ImageSize, source: &Arc<dyn Source>) -> Result<Loader, Failure> {
    Loader::leaving_blank(source.clone(), data.feature_loader(size)).map_err(input_error)
}

fn none_readable(source: &dyn Source, unreadable: &[Unreadable]) -> Failure {
    let first = unreadable.first().map_or("", |image| image.problem.as_str());
    input_error(format!(
        "{}: none of the images can be read. The first: {first}",
        source.describe()
    ))
}

/// The most unreadable images that are named. (guess)
const MOST_NAMED: usize = 5;

/// Notes how many of `images` images cannot be read, what happens to them, and the first of them.
pub(crate) fn note_unreadable(unreadable: &[Unreadable], images: usize, fate: &str) {
    // Training and test images, features and tokens are read separately. Each image is named once.
    let mut problems: Vec<&str> = unreadable.iter().map(|one| one.problem.as_str()).collect();
    problems.sort_unstable();
    problems.dedup();
    let count = problems.len();
    if count == 0 {
        return;
    }
    note(&format!("{count} of {images} images cannot be read: {fate}"));
    problems.iter().take(MOST_NAMED).for_each(|problem| note(&format!("  {problem}")));
    if count > MOST_NAMED {
        note(&format!(
            "  and {} more; `saltworks inspect --decode` lists them",
            count - MOST_NAMED
        ));
    }
}

/// Features of a loader's images, each once and in order.
pub(crate) struct SourceFeatures {
    /// Mean tokens (or pixels) first, then class tokens if there are any.
    pub(crate) kinds: Vec<Features>,
    /// Images that could not be read. Their rows have no meaning.
    pub(crate) replaced: Vec<Unreadable>,
}

impl SourceFeatures {
    /// Which of `len` images could be read.
    pub(crate) fn readable(&self, len: usize) -> Vec<usize> {
        let replaced: BTreeSet<usize> = self.replaced.iter().map(|image| image.index).collect();
        (0..len).filter(|row| !replaced.contains(row)).collect()
    }

    /// The rows of images that could be read.
    pub(crate) fn of_readable(self) -> Vec<Features> {
        if self.replaced.is_empty() {
            return self.kinds;
        }
        let left = |features: &Features| features.select(&self.readable(features.len()));
        self.kinds.iter().map(left).collect()
    }
}

/// Computes the features of all images of a loader. None if a signal stops it.
pub(crate) fn gather(
    mut loader: Loader,
    make: &mut dyn FnMut(&ImageBatch) -> Result<Vec<FeatureBatch>, Failure>,
    stop: &Stop,
) -> Result<Option<SourceFeatures>, Failure> {
    let mut gathered = SourceFeatures { kinds: Vec::new(), replaced: Vec::new() };
    while let Some(loaded) = loader.next_batch().map_err(loading)? {
        if stop.signal().is_some() {
            return Ok(None);
        }
        let batch = loaded.batch;
        gathered.replaced.extend(batch.unreadable);
        for (kind, (rows, dim)) in make(&batch.images)?.into_iter().enumerate() {
            if gathered.kinds.len() == kind {
                gathered.kinds.push(Features { rows: Vec::new(), dim, labels: Vec::new() });
            }
            let features = &mut gathered.kinds[kind];
            features.rows.extend(rows);
            features.labels.extend(batch.labels.iter().map(|&label| label as u32));
        }
    }
    Ok(Some(gathered))
}

/// An encoder's mean tokens, and class tokens if it has one.
pub(crate) fn embedded(
    encoder: &Encoder,
    images: &ImageBatch,
) -> engine::Result<Vec<FeatureBatch>> {
    let embedding = embed(encoder, images)?;
    let kinds = std::iter::once(embedding.mean).chain(embedding.cls);
    Ok(kinds.map(|rows| (rows.to_vec(), rows.dim(1))).collect())
}

/// The same of the last `layers` blocks, side by side.
fn embedded_layers(
    encoder: &Encoder,
    layers: usize,
    images: &ImageBatch,
) -> engine::Result<Vec<FeatureBatch>> {
    let (tape, encoded) = (Tape::inference(), encoder.last_layers(images, layers)?);
    let means =
        encoded.iter().map(|layer| layer.mean(&tape)).collect::<engine::Result<Vec<_>>>()?;
    let with_cls = encoded.iter().filter(|layer| layer.class_token);
    let cls = with_cls.map(|layer| layer.row(&tape, 0)).collect::<engine::Result<Vec<_>>>()?;
    let kinds = [means, cls].into_iter().filter(|layers| !layers.is_empty());
    Ok(kinds.map(|layers| side_by_side(&layers)).collect())
}

/// [R, D] of each layer -> [R, L D], and L D.
fn side_by_side(layers: &[Tensor]) -> FeatureBatch {
    let width = layers.iter().map(|layer| layer.dim(1)).sum();
    let values: Vec<Vec<f32>> = layers.iter().map(Tensor::to_vec).collect();
    let rows = layers.first().map_or(0, Tensor::rows);
    let mut joined = Vec::with_capacity(rows * width);
    for row in 0..rows {
        for (layer, values) in layers.iter().zip(&values) {
            joined.extend_from_slice(&values[row * layer.dim(1)..(row + 1) * layer.dim(1)]);
        }
    }
    (joined, width)
}

fn extract(images: &ImageBatch, extractor: &Extractor) -> engine::Result<Vec<FeatureBatch>> {
    match extractor {
        Extractor::Pixels => Ok(vec![pixels::of(images)?]),
        Extractor::Differences => Ok(vec![pixels::differences_of(images)?]),
        Extractor::Encoder { encoder, layers: 1 } => embedded(encoder, images),
        Extractor::Encoder { encoder, layers } => embedded_layers(encoder, *layers, images),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffled_clips_have_orders_of_their_own_and_no_direction() {
        let frames: Vec<usize> = (0..8).collect();
        let orders: Vec<_> = (0..400).map(|clip| shuffled(&frames, clip)).collect();
        let ahead = |order: &Vec<usize>| order.windows(2).filter(|pair| pair[0] < pair[1]).count();
        let steps: usize = orders.iter().map(ahead).sum();
        // Half of 2,800 steps go ahead. The deviation of a mean is about 16.
        assert!((1340..1460).contains(&steps), "{steps}");
        assert_ne!(orders[0], orders[1]);
        assert!(orders.iter().all(|order| order.iter().sum::<usize>() == 28));
    }
}
