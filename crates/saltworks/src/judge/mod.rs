//! Frozen features of images and their probes. A run, `probe` and `embed` share this code.

mod feature_files;
mod images;
mod subject;
mod tokens;

pub(crate) use feature_files::{Embeddings, FeatureFile, FeatureRows};
pub(crate) use images::{ImageSets, SharedFile, open_all, open_images, shared_file};
pub(crate) use subject::{StageProgress, Subject, SubjectOptions, stage_index};
pub(crate) use tokens::FrozenTokens;

use crate::console::{Count, Waiting, note};
use crate::data::{Loader, Source, Unreadable};
use crate::eval::{self, Features, KnnOptions, LinearOptions, knn, linear};
use crate::failure::{Failure, input_error, loading, run_error};
use crate::method::embed;
use crate::model::Encoder;
use crate::recipe::{Data, ImageSize, Recipe};
use crate::run_files::ProbeRow;
use crate::train::Stop;
use engine::Tape;
use engine::ops::{Images as ImageBatch, PatchOrder, patchify};
use std::collections::BTreeSet;
use std::sync::Arc;

/// One batch's features of one kind: [B, D].
pub(crate) type FeatureBatch = (Vec<f32>, usize);

/// The most values of an image whose pixels are probed: 32 x 32 in colour, 55 x 55 in grey. A
/// linear probe of the 150,528 values of 224 x 224 takes longer than many training runs.
const MOST_PIXEL_VALUES: usize = 3072;

/// What turns images into features.
pub(crate) enum Extractor {
    /// The normalised pixels themselves, of images shrunk to [`MOST_PIXEL_VALUES`].
    Pixels,
    /// An encoder's class token and mean patch token.
    Encoder(Encoder),
}

/// Probes one kind of features. Returns none if nothing labelled is held out, or if a signal stops
/// it. Images that cannot be read are added to `unreadable`.
pub(crate) fn probe(
    name: &str,
    recipe: &Recipe,
    images: &ImageSets,
    extractor: &Extractor,
    stop: &Stop,
    unreadable: &mut Vec<Unreadable>,
) -> Result<Option<ProbeRow>, Failure> {
    let Some(held_out) = &images.held_out else { return Ok(None) };
    let mut count = Count::new(images.to_probe.len() + held_out.len());
    let mut of = |source| features(recipe, source, extractor, stop, unreadable, &mut count);
    let [train, test] = [&images.to_probe, held_out].map(&mut of);
    count.finish();
    let (Some(train), Some(test)) = (train?, test?) else { return Ok(None) };
    match fit(name, recipe, &train.of_readable(), &test.of_readable(), stop) {
        Ok(row) => Ok(Some(row)),
        Err(eval::Error::Stopped) => Ok(None),
        Err(error) => Err(run_error(error)),
    }
}

/// Fits the probes to the features of each kind.
fn fit(
    name: &str,
    recipe: &Recipe,
    train: &[Features],
    test: &[Features],
    stop: &Stop,
) -> eval::Result<ProbeRow> {
    let (rows, dim) = (train[0].len(), train[0].dim);
    let waiting = Waiting::new(format!("{name:>10}  fitting probes to {rows} rows of {dim}"));
    let stopped = || {
        waiting.tick();
        stop.signal().is_some()
    };
    let options = KnnOptions { k: recipe.probe.k, temperature: recipe.probe.temperature };
    let knn_of =
        |kind: usize| knn(&train[kind], &test[kind], options, &stopped).map(|p| p.accuracy);
    let linear_of = |kind: usize| {
        linear(&train[kind], &test[kind], &LinearOptions::default(), &stopped)
            .map(|l| l.prediction.accuracy)
    };
    let cls = (train.len() > 1).then_some(1);
    let wanted = |kind: usize| recipe.probe.linear.then_some(kind);
    Ok(ProbeRow {
        name: name.to_owned(),
        images: test[0].len(),
        knn_mean: knn_of(0)?,
        knn_cls: cls.map(knn_of).transpose()?,
        linear_mean: wanted(0).map(linear_of).transpose()?,
        linear_cls: cls.and_then(wanted).map(linear_of).transpose()?,
    })
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
    let size = match extractor {
        Extractor::Pixels => recipe.data.size.at_most(MOST_PIXEL_VALUES / recipe.data.channels()),
        Extractor::Encoder(_) => recipe.data.size,
    };
    let loader = blank_loader(&recipe.data, size, source)?;
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
    /// The rows of images that could be read.
    pub(crate) fn of_readable(self) -> Vec<Features> {
        if self.replaced.is_empty() {
            return self.kinds;
        }
        let replaced: BTreeSet<usize> = self.replaced.iter().map(|image| image.index).collect();
        let left = |features: &Features| {
            let rows: Vec<_> = (0..features.len()).filter(|row| !replaced.contains(row)).collect();
            features.select(&rows)
        };
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

fn extract(images: &ImageBatch, extractor: &Extractor) -> engine::Result<Vec<FeatureBatch>> {
    match extractor {
        Extractor::Pixels => {
            let [b, _, t, h, w] = images.shape();
            let whole: Vec<u32> = (0..b as u32).collect();
            let order = PatchOrder::ChannelsFirst;
            let pixels = patchify(&Tape::inference(), images, [t, h, w], order, &whole)?;
            Ok(vec![(pixels.to_vec(), pixels.dim(1))])
        }
        Extractor::Encoder(encoder) => embedded(encoder, images),
    }
}
