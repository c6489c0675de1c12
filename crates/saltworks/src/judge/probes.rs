//! The probes after training. All encoders and the raw pixels are probed on the same images, which
//! are decoded once.

use super::{Extractor, FeatureBatch, ImageSets, blank_loader, extract, gather, none_readable};
use crate::console::{Count, Waiting, note};
use crate::data::{Part, Source, Unreadable};
use crate::eval::{
    self, Features, KnnOptions, LinearOptions, Prediction, RightImages, knn, linear,
};
use crate::failure::{Failure, run_error};
use crate::recipe::Recipe;
use crate::run_files::{ProbeRow, Right};
use crate::train::Stop;
use engine::ops::Images as ImageBatch;
use engine::random::Random;
use rayon::prelude::*;
use std::sync::Arc;

/// What is probed, and its name in the table.
pub(crate) struct NamedExtractor {
    pub(crate) name: String,
    pub(crate) extractor: Extractor,
}

/// Seed of the choice of images. It is not the run's, so that runs can be compared.
const SEED: u64 = 0;

/// Probes features on at most `most` images: first held-out ones, up to half of them, then training
/// images. Returns all results, or none if nothing labelled is held out or a signal stops it.
/// Images that cannot be read are added to `unreadable`.
pub(crate) fn probe(
    all: &[NamedExtractor],
    recipe: &Recipe,
    (images, most): (&ImageSets, usize),
    stop: &Stop,
    unreadable: &mut Vec<Unreadable>,
) -> Result<Vec<ProbeRow>, Failure> {
    let Some(held_out) = &images.held_out else { return Ok(Vec::new()) };
    let first = (String::new(), some(held_out, most / 2));
    let train = some(&images.to_probe, most - first.1.len());
    let more = images.more_tests.iter();
    let more = more.map(|(path, source)| (format!(" on {path}"), some(source, most / 2)));
    let tests: Vec<_> = std::iter::once(first).chain(more).collect();
    let tested: usize = tests.iter().map(|(_, source)| source.len()).sum();
    let (few, all_train) = (train.len(), images.to_probe.len());
    let all_tests: usize = images.more_tests.iter().map(|(_, source)| source.len()).sum();
    note(&format!(
        "{:>10}  computing features of {few} of {all_train} training images and {tested} of {} \
         others. probe.most_images changes this",
        "probes",
        held_out.len() + all_tests
    ));
    let mut count = Count::new(train.len() + tested);
    let mut of = |source| features(all, recipe, source, stop, unreadable, &mut count);
    let Some(train) = of(&train)? else { return Ok(Vec::new()) };
    let mut fits = Vec::new();
    for (suffix, source) in &tests {
        let Some(test) = of(source)? else { return Ok(Vec::new()) };
        fits.extend(all.iter().zip(&train).zip(test).map(|((judged, train), test)| {
            (judged.name.clone() + suffix, linear_options(judged), train, test)
        }));
    }
    count.finish();
    // Small fits use one thread each.
    let rows: eval::Result<Vec<_>> = fits
        .into_par_iter()
        .map(|(name, options, train, test)| fit(&name, recipe, &options, (train, &test), stop))
        .collect();
    match rows {
        Err(eval::Error::Stopped) => Ok(Vec::new()),
        rows => rows.map_err(run_error),
    }
}

/// At most `count` images of a source, drawn at random, in their order.
fn some(source: &Arc<dyn Source>, count: usize) -> Arc<dyn Source> {
    if source.len() <= count {
        return source.clone();
    }
    let mut order: Vec<usize> = (0..source.len()).collect();
    Random::new(SEED, "probes", 0).shuffle(&mut order);
    order.truncate(count);
    order.sort_unstable();
    Arc::new(Part::new(source.clone(), order, "to probe"))
}

/// The features of all images that can be read, by what is probed: mean tokens (or pixels), and
/// class tokens if there are any. None if a signal stops it.
fn features(
    all: &[NamedExtractor],
    recipe: &Recipe,
    source: &Arc<dyn Source>,
    stop: &Stop,
    unreadable: &mut Vec<Unreadable>,
    count: &mut Count,
) -> Result<Option<Vec<Vec<Features>>>, Failure> {
    let mut kinds = Vec::new();
    let mut make = |images: &ImageBatch| -> Result<Vec<FeatureBatch>, Failure> {
        count.add(images.samples());
        let each = all.iter().map(|judged| extract(images, &judged.extractor));
        let each = each.collect::<engine::Result<Vec<_>>>().map_err(run_error)?;
        kinds = each.iter().map(Vec::len).collect();
        Ok(each.into_iter().flatten().collect())
    };
    let loader = blank_loader(&recipe.data, recipe.data.size, source)?;
    let Some(gathered) = gather(loader, &mut make, stop)? else { return Ok(None) };
    if gathered.replaced.len() == source.len() {
        return Err(none_readable(source.as_ref(), &gathered.replaced));
    }
    unreadable.extend(gathered.replaced.iter().cloned());
    let mut features = gathered.of_readable().into_iter();
    Ok(Some(kinds.iter().map(|&kinds| features.by_ref().take(kinds).collect()).collect()))
}

/// How precisely the linear probe is fitted. Pixels are many and alike, so that a fit takes longer
/// than that of any encoder, and they are only compared with.
fn linear_options(judged: &NamedExtractor) -> LinearOptions {
    match judged.extractor {
        Extractor::Pixels => {
            LinearOptions { iterations: 200, tolerance: 1e-3, ..LinearOptions::default() }
        }
        Extractor::Encoder { .. } => LinearOptions::default(),
    }
}

/// Fits the probes to the features of each kind.
fn fit(
    name: &str,
    recipe: &Recipe,
    options: &LinearOptions,
    (train, test): (&[Features], &[Features]),
    stop: &Stop,
) -> eval::Result<ProbeRow> {
    let (rows, dim) = (train[0].len(), train[0].dim);
    let waiting = Waiting::new(format!("{name:>10}  fitting probes to {rows} rows of {dim}"));
    let stopped = || {
        waiting.tick();
        stop.signal().is_some()
    };
    let neighbours = KnnOptions { k: recipe.probe.k, temperature: recipe.probe.temperature };
    let found = |prediction: &Prediction| {
        (prediction.accuracy, RightImages::new(prediction, &test[0].labels))
    };
    let knn_of =
        |kind: usize| knn(&train[kind], &test[kind], neighbours, &stopped).map(|p| found(&p));
    let linear_of = |kind: usize| {
        linear(&train[kind], &test[kind], options, &stopped).map(|l| found(&l.prediction))
    };
    let cls = (train.len() > 1).then_some(1);
    let wanted = |kind: usize| recipe.probe.linear.then_some(kind);
    let (knn_mean, right_knn_mean) = knn_of(0)?;
    let (knn_cls, right_knn_cls) = cls.map(knn_of).transpose()?.unzip();
    let (linear_mean, right_linear_mean) = wanted(0).map(linear_of).transpose()?.unzip();
    let (linear_cls, right_linear_cls) = cls.and_then(wanted).map(linear_of).transpose()?.unzip();
    Ok(ProbeRow {
        name: name.to_owned(),
        train_images: rows,
        images: test[0].len(),
        knn_mean,
        knn_cls,
        linear_mean,
        linear_cls,
        right: Right {
            knn_mean: Some(right_knn_mean),
            knn_cls: right_knn_cls,
            linear_mean: right_linear_mean,
            linear_cls: right_linear_cls,
        },
    })
}
