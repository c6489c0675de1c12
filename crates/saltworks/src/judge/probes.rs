//! The probes after training. All encoders and the raw pixels are probed on the same images, which
//! are decoded once.

use super::{
    Extractor, FeatureBatch, FrameOrder, ImageSets, blank_loader, extract, gather, none_readable,
};
use crate::console::{Count, Waiting, note};
use crate::data::{Part, Source, Unreadable};
use crate::eval::{
    self, Features, KnnOptions, LinearOptions, Prediction, RightImages, knn, linear,
};
use crate::failure::{Failure, run_error};
use crate::recipe::{Data, Recipe};
use crate::run_files::{ProbeRow, Right};
use crate::train::Stop;
use engine::ops::Images as ImageBatch;
use engine::random::Random;
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

/// What is probed, and its name in the table.
pub(crate) struct NamedExtractor {
    pub(crate) name: String,
    pub(crate) extractor: Extractor,
    /// The frames of the clips that probes are fitted to, and of those they judge.
    pub(crate) frames: [FrameOrder; 2],
}

impl NamedExtractor {
    /// Whether probes judge clips as they are, in the order of those they are fitted to.
    fn keeps_order(&self) -> bool {
        self.frames[0] == self.frames[1]
    }
}

/// Features that some rows of the table share.
type ProbedView<'a> = (&'a Extractor, FrameOrder);

fn is_same((one, frames): &ProbedView<'_>, (other, of_other): &ProbedView<'_>) -> bool {
    let extractors = match (one, other) {
        (
            Extractor::Encoder { encoder, layers },
            Extractor::Encoder { encoder: other, layers: of_other },
        ) => Arc::ptr_eq(encoder, other) && layers == of_other,
        _ => std::mem::discriminant(*one) == std::mem::discriminant(*other),
    };
    extractors && frames == of_other
}

/// What is to be computed of training clips (0) or of others (1), each once, and for each row which
/// of it is its own.
fn views(all: &[NamedExtractor], part: usize) -> (Vec<ProbedView<'_>>, Vec<usize>) {
    let mut views: Vec<ProbedView<'_>> = Vec::new();
    let mut of_row = Vec::new();
    for judged in all {
        let view = (&judged.extractor, judged.frames[part]);
        let known = views.iter().position(|known| is_same(known, &view));
        of_row.push(known.unwrap_or_else(|| {
            views.push(view);
            views.len() - 1
        }));
    }
    (views, of_row)
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
    let sets = sets_to_probe(&train, &recipe.data);
    announce(recipe, images, &train, tested, &sets);
    let mut count = Count::new(train.len() + tested);
    let [(train_views, train_rows), (test_views, test_rows)] = [0, 1].map(|part| views(all, part));
    let mut of = |views: &[ProbedView<'_>], source| {
        features(views, recipe, source, stop, unreadable, &mut count)
    };
    let Some(train_features) = of(&train_views, &train)? else { return Ok(Vec::new()) };
    let mut tested = Vec::new();
    for (suffix, source) in &tests {
        let Some(features) = of(&test_views, source)? else { return Ok(Vec::new()) };
        tested.push((suffix, source, features));
    }
    count.finish();
    let mut fits = Vec::new();
    for set in sets {
        let own = set.as_deref().and_then(|set| train.labelled_by(set));
        let train_labels =
            own.as_ref().and_then(|own| train_features.labels_of(&**own, own.classes()));
        for (suffix, source, features) in &tested {
            let of_test = |set: &String| {
                let (own, test) = (own.as_ref()?, source.labelled_by(set)?);
                Some((train_labels.clone()?, features.labels_of(&*test, own.classes())?))
            };
            let labels = set.as_ref().and_then(of_test);
            if let (Some(set), None) = (&set, &labels) {
                note(&format!("{:>10}  {set} is not judged{suffix}: no such labels", "probes"));
                continue;
            }
            let suffix = set.iter().fold((*suffix).clone(), |suffix, set| suffix + ", " + set);
            // How another set fares on clips in another order says nothing of time.
            let rows = all.iter().zip(train_rows.iter().zip(&test_rows));
            let rows = rows.filter(|(judged, _)| set.is_none() || judged.keeps_order());
            for (judged, (&train, &test)) in rows {
                let (train, test) = (&train_features.of[train][..], &features.of[test][..]);
                let name = judged.name.clone() + &suffix;
                let (options, labels) = (linear_options(judged), labels.clone());
                fits.push(ProbeFit { name, options, train, test, labels });
            }
        }
    }
    // Small fits use one thread each.
    let rows: eval::Result<Vec<_>> =
        fits.into_par_iter().map(|fit| fit.run(recipe, stop)).collect();
    match rows {
        Err(eval::Error::Stopped) => Ok(Vec::new()),
        rows => rows.map_err(run_error),
    }
}

/// Says what is probed: how many images, and by which sets of labels.
fn announce(
    recipe: &Recipe,
    images: &ImageSets,
    train: &Arc<dyn Source>,
    tested: usize,
    sets: &[Option<String>],
) {
    let (few, all) = (train.len(), images.to_probe.len());
    let held_out = images.held_out.as_ref().map_or(0, |source| source.len());
    let more: usize = images.more_tests.iter().map(|(_, source)| source.len()).sum();
    note(&format!(
        "{:>10}  computing features of {few} of {all} training images and {tested} of {} others. \
         probe.most_images changes this",
        "probes",
        held_out + more
    ));
    if let (Some(first), [None, others @ ..]) = (label_set(train, &recipe.data), sets) {
        let others: Vec<_> = others.iter().flatten().map(String::as_str).collect();
        note(&format!(
            "{:>10}  labels: {first}, and in the rows that say so: {}",
            "probes",
            others.join(", ")
        ));
    }
}

/// The set of labels that a source gives, if it has several.
fn label_set(source: &Arc<dyn Source>, data: &Data) -> Option<String> {
    data.labels.clone().or_else(|| source.label_sets().into_iter().next())
}

/// None for the labels of the source as it is, then the names of its other sets.
fn sets_to_probe(source: &Arc<dyn Source>, data: &Data) -> Vec<Option<String>> {
    let first = label_set(source, data);
    let others = source.label_sets().into_iter().filter(|set| Some(set) != first.as_ref());
    std::iter::once(None).chain(others.map(Some)).collect()
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

/// The features of the images of a source that can be read.
struct ProbedFeatures {
    /// By what is probed: mean tokens (or pixels), and class tokens if there are any.
    of: Vec<Vec<Features>>,
    /// The numbers of these images in the source.
    images: Vec<usize>,
}

impl ProbedFeatures {
    /// The labels of `source` as numbers of these classes. None if one has no class, or another.
    fn labels_of(&self, source: &dyn Source, classes: &[String]) -> Option<Vec<u32>> {
        let numbers: HashMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
        let number = |&image: &usize| {
            let class = source.classes().get(usize::try_from(source.label(image)).ok()?)?;
            numbers.get(class.as_str()).copied()
        };
        self.images.iter().map(number).collect()
    }
}

/// The features of all images that can be read. None if a signal stops it.
fn features(
    all: &[ProbedView<'_>],
    recipe: &Recipe,
    source: &Arc<dyn Source>,
    stop: &Stop,
    unreadable: &mut Vec<Unreadable>,
    count: &mut Count,
) -> Result<Option<ProbedFeatures>, Failure> {
    let mut kinds = Vec::new();
    let mut make = |images: &ImageBatch| -> Result<Vec<FeatureBatch>, Failure> {
        count.add(images.samples());
        let each = all.iter().map(|(extractor, frames)| extract(&frames.of(images)?, extractor));
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
    let images = gathered.readable(source.len());
    let mut features = gathered.of_readable().into_iter();
    let of = kinds.iter().map(|&kinds| features.by_ref().take(kinds).collect()).collect();
    Ok(Some(ProbedFeatures { of, images }))
}

/// How precisely the linear probe is fitted. Pixels are many and alike, so that a fit takes longer
/// than that of any encoder, and they are only compared with.
fn linear_options(judged: &NamedExtractor) -> LinearOptions {
    match judged.extractor {
        Extractor::Pixels | Extractor::Differences => {
            LinearOptions { iterations: 200, tolerance: 1e-3, ..LinearOptions::default() }
        }
        Extractor::Encoder { .. } => LinearOptions::default(),
    }
}

/// Probes to be fitted.
struct ProbeFit<'a> {
    name: String,
    options: LinearOptions,
    train: &'a [Features],
    test: &'a [Features],
    /// The labels of both, if other than the features have.
    labels: Option<(Vec<u32>, Vec<u32>)>,
}

impl ProbeFit<'_> {
    fn run(&self, recipe: &Recipe, stop: &Stop) -> eval::Result<ProbeRow> {
        let Self { name, options, train, test, labels } = self;
        let Some((train_labels, test_labels)) = labels else {
            return fit(name, recipe, options, (train, test), stop);
        };
        let labelled = |features: &[Features], labels: &[u32]| -> Vec<Features> {
            let with =
                |features: &Features| Features { labels: labels.to_vec(), ..features.clone() };
            features.iter().map(with).collect()
        };
        let (train, test) = (labelled(train, train_labels), labelled(test, test_labels));
        fit(name, recipe, options, (&train, &test), stop)
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
