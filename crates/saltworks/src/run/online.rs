//! Probes while a stage trains: on some training images and some held-out ones, always the same, so
//! that what they find from step to step can be compared. They draw no random number that training
//! draws and change nothing it reads: a run with them has the same bits as one without.

use crate::data::{Batch, Loader, LoaderOptions, Order, Part, Source};
use crate::eval::{self, Features, KnnOptions, LidarOptions, LinearOptions};
use crate::failure::{Failure, asked, loading, ran};
use crate::judge;
use crate::mask::Masking;
use crate::method::Method;
use crate::pictures::{self, NEIGHBOURS, Neighbour, PixelScale, Scene, SceneImages};
use crate::recipe::{Data, Probe, Recipe, Stage};
use crate::run::setup::{self, Images};
use crate::run_files::{Histogram, OnlineProbe};
use crate::train::Stop;
use engine::Tape;
use engine::ops::Images as ImageBatch;
use engine::random::Random;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Held-out images whose loss is taken. (guess: its noise is far below that of 64 training images)
const LOSS_IMAGES: usize = 256;
/// Training images of which LiDAR sees views, and how many of each. The rank it can find is at most
/// one less than the images; so it costs a quarter of what the probes' images cost.
const LIDAR_IMAGES: usize = 64;
const LIDAR_VIEWS: usize = 4;
/// Keys the choice of images, masks and views: not the run's seed, so that runs can be compared.
const SEED: u64 = 0;
/// Held-out images of which pictures are taken.
const SHOWN_IMAGES: usize = 8;
/// Images of the map, which takes time and memory by their square: 2,000 took 9 s (2026-11-26, two cores of a
/// Zen 4 EPYC), 10,000 would take minutes and 1.6 GB.
const MAP_IMAGES: usize = 2000;
/// Parts of a stage between whose ends probes are made, at most, where their interval is not given.
pub(crate) const MOST_PROBES: u64 = 20;

/// The probes of one stage.
pub(crate) struct Online<'a> {
    recipe: &'a Recipe,
    stage: &'a Stage,
    steps: u64,
    /// Images that cannot be read are for training and the last probes to tell of.
    data: Data,
    masking: &'a Masking,
    train: Arc<dyn Source>,
    test: Arc<dyn Source>,
    views: Arc<dyn Source>,
    view_options: LoaderOptions,
    /// Whether `test` is held out. Then all images have classes, and accuracies can be known.
    held_out: bool,
    interval: Interval,
}

impl<'a> Online<'a> {
    /// For stage number `place` of `steps` steps; none if not asked for.
    pub(crate) fn new(
        recipe: &'a Recipe,
        images: &Images,
        (place, stage): (usize, &'a Stage),
        steps: u64,
    ) -> Option<Self> {
        if !recipe.probe.online {
            return None;
        }
        let some = |source: &Arc<dyn Source>, count: usize, copies: usize| {
            let mut order: Vec<usize> = (0..source.len()).collect();
            Random::new(SEED, "online probes", 0).shuffle(&mut order);
            order.truncate(count);
            order.sort_unstable();
            let index = order.into_iter().flat_map(|i| std::iter::repeat_n(i, copies)).collect();
            Arc::new(Part::new(source.clone(), index, "to probe")) as Arc<dyn Source>
        };
        let count = recipe.probe.images;
        let held_out = images.held_out.as_ref();
        let views = some(&images.to_probe, LIDAR_IMAGES, LIDAR_VIEWS);
        let view_options = LoaderOptions {
            order: Order::Once,
            first_sample: 0,
            augment_seed: SEED,
            batch: LIDAR_VIEWS * 16,
            max_unreadable: 1.0,
            ..setup::training_loader(recipe, stage, place)
        };
        Some(Self {
            recipe,
            stage,
            steps,
            data: Data { max_unreadable: 1.0, ..recipe.data.clone() },
            masking: &stage.masks,
            train: some(&images.to_probe, count, 1),
            test: some(held_out.unwrap_or(&images.to_probe), count, 1),
            views,
            view_options,
            held_out: held_out.is_some(),
            interval: Interval::new(&recipe.probe, steps),
        })
    }

    /// Whether a probe is due after this many steps.
    pub(crate) fn is_due(&self, step: u64) -> bool {
        self.interval.is_due(step)
    }

    /// Says of which step the last probe was, in an earlier process.
    pub(crate) fn go_on_after(&mut self, step: u64) {
        self.interval.last = Some(step);
    }

    /// Probes the method's encoder as it is after this many steps, and takes pictures; none if asked to
    /// stop on the way.
    pub(crate) fn probe(
        &mut self,
        method: &dyn Method,
        step: u64,
        stop: &Stop,
    ) -> Result<Option<Seen>, Failure> {
        let begun = Instant::now();
        let seen = self.find(method, stop).and_then(|found| {
            let pictures = match self.recipe.log.pictures {
                true => self.pictures(method, step, &found, stop)?,
                false => None,
            };
            Ok((found.probe, pictures))
        });
        let (probe, pictures) = match seen {
            Err(Problem::Stopped) => return Ok(None),
            Err(Problem::Failure(failure)) => return Err(failure),
            Ok(seen) => seen,
        };
        self.interval.probed(step, begun.elapsed());
        let probe = OnlineProbe { seconds: begun.elapsed().as_secs_f64(), ..probe };
        Ok(Some(Seen { probe, pictures }))
    }

    fn find(&self, method: &dyn Method, stop: &Stop) -> Result<Found, Problem> {
        let usual = |source: &Arc<dyn Source>| {
            setup::feature_loader(&self.data, self.data.size, source.clone())
        };
        let embedded = |loader: Result<Loader, Failure>| embedded(method, loader?, stop);
        let test = embedded(usual(&self.test))?;
        let views = Loader::new(self.views.clone(), self.view_options.clone()).map_err(asked);
        let views = embedded(views)?;
        if test.iter().any(Features::is_empty) {
            // None of these images can be read: of that the loader and the last probes tell.
            return Ok(Found { probe: OnlineProbe::default(), test: None, train: None });
        }
        let mut probe = OnlineProbe {
            loss: Some(self.loss(method, stop)?),
            rank_me: Some(eval::rank_me(&test[0])?),
            feature_std: Some(eval::feature_std(&test[0])?),
            lidar: lidar(&views[0])?,
            test_images: test[0].len(),
            held_out: self.held_out,
            ..OnlineProbe::default()
        };
        let train = match self.held_out || self.recipe.log.pictures {
            true => Some(embedded(usual(&self.train))?),
            false => None,
        };
        let train = train.filter(|train| train.iter().all(|kind| !kind.is_empty()));
        if let Some(train) = train.as_ref().filter(|_| self.held_out) {
            self.classify(train, &test, stop, &mut probe)?;
        }
        if self.recipe.log.tensorboard || self.recipe.log.wandb {
            probe.histograms = histograms(method, &test[0]);
        }
        let first = |all: Vec<Features>| all.into_iter().next();
        Ok(Found { probe, test: first(test), train: train.and_then(first) })
    }

    /// Pictures of a few held-out images, one of each class where there are as many; a map of all of them
    /// after the last step. None of clips.
    fn pictures(
        &self,
        method: &dyn Method,
        step: u64,
        found: &Found,
        stop: &Stop,
    ) -> Result<Option<Value>, Problem> {
        let (Some(test), Some(train)) = (&found.test, &found.train) else { return Ok(None) };
        let labelled = !self.test.classes().is_empty();
        let indices = one_of_each(&test.labels, SHOWN_IMAGES.min(test.len()));
        let Some(batch) = self.some(&self.test, &indices)? else { return Ok(None) };
        let grid = method.encoder().grid();
        let masks = self.masking.sample(grid, batch.images.samples(), SEED, 0).map_err(ran)?;
        let masks = method.masks(masks);
        let normalize = setup::normalize(&self.recipe.data);
        let scene = Scene {
            stage: &self.stage.name,
            step,
            kind: self.stage.method.word(),
            classes: self.test.classes(),
            held_out: self.held_out,
            method,
            shown: SceneImages {
                names: indices.iter().map(|&index| self.test.stamp(index).name).collect(),
                indices: indices.iter().map(|&index| index as u64).collect(),
                labels: batch.labels,
                images: &batch.images,
            },
            masks: &masks,
            pixels: PixelScale { mean: normalize.mean, std: normalize.std },
        };
        let Some(mut taken) = scene.take()? else { return Ok(None) };
        // Without a holdout both are the same images: none is its own neighbour.
        let own = |shown: usize| (!self.held_out).then_some(indices[shown]);
        let near = scene.neighbours(train, &own)?;
        let order: Vec<usize> = near.iter().flatten().map(|near: &Neighbour| near.index).collect();
        if let Some(batch) = self.some(&self.train, &order)? {
            scene.add_neighbours(&mut taken, &near, &batch.images)?;
        }
        if step == self.steps && test.len() > 3 * NEIGHBOURS {
            let stopped = || stop.signal().is_some();
            let some: Vec<usize> = (0..test.len().min(MAP_IMAGES)).collect();
            taken["map"] = pictures::map(&test.select(&some), labelled, &stopped)?;
        }
        Ok(Some(taken))
    }

    /// These images of a source in one batch; none where one of them cannot be read.
    fn some(&self, source: &Arc<dyn Source>, order: &[usize]) -> Result<Option<Batch>, Problem> {
        let part: Arc<dyn Source> = Arc::new(Part::new(source.clone(), order.to_vec(), "to show"));
        let options = LoaderOptions {
            batch: order.len().max(1),
            ..setup::feature_options(&self.data, self.data.size)
        };
        let mut loader = Loader::new(part, options).map_err(asked)?;
        let loaded = loader.next_batch().map_err(loading)?;
        Ok(loaded.map(|loaded| loaded.batch).filter(|batch| batch.unreadable.is_empty()))
    }

    /// kNN and the linear probe, on mean tokens and on class tokens where there are some.
    fn classify(
        &self,
        train: &[Features],
        test: &[Features],
        stop: &Stop,
        probe: &mut OnlineProbe,
    ) -> Result<(), Problem> {
        let stopped = || stop.signal().is_some();
        let Probe { k, temperature, linear, .. } = self.recipe.probe;
        let classes = train[0].labels.iter().min() != train[0].labels.iter().max();
        let accuracies = |kind: usize| {
            let (train, test) = (&train[kind], &test[kind]);
            let knn = eval::knn(train, test, KnnOptions { k, temperature }, &stopped)?.accuracy;
            let linear = (linear && classes)
                .then(|| eval::linear(train, test, &linear_options(), &stopped))
                .transpose()?;
            Ok::<_, eval::Error>((knn, linear.map(|found| found.prediction.accuracy)))
        };
        // Fits of so few rows keep no second thread busy: both kinds of tokens at once do.
        let cls = || (train.len() > 1).then(|| accuracies(1)).transpose();
        let (mean, cls) = rayon::join(|| accuracies(0), cls);
        let ((knn, linear), cls) = (mean?, cls?);
        (probe.knn_mean, probe.linear_mean) = (Some(knn), linear);
        if let Some((knn, linear)) = cls {
            (probe.knn_cls, probe.linear_cls) = (Some(knn), linear);
        }
        probe.train_images = train[0].len();
        Ok(())
    }

    /// The method's loss on held-out images: a mean over all their targets, as in training, under
    /// masks of their own.
    fn loss(&self, method: &dyn Method, stop: &Stop) -> Result<f64, Problem> {
        let images = self.test.len().min(LOSS_IMAGES);
        let some = Part::new(self.test.clone(), (0..images).collect(), "to probe");
        let mut loader = setup::feature_loader(&self.data, self.data.size, Arc::new(some))?;
        let (mut sum, mut targets, mut batches) = (0.0, 0, 0);
        while let Some(loaded) = loader.next_batch().map_err(loading)? {
            let images = loaded.batch.images;
            let grid = method.encoder().grid();
            let masks = self.masking.sample(grid, images.samples(), SEED, batches).map_err(ran)?;
            let masks = method.masks(masks);
            let step = method.step(&Tape::inference(), &images, &masks, None).map_err(ran)?;
            sum += f64::from(step.loss.item()) * step.target_count as f64;
            targets += step.target_count;
            batches += 1;
            if stop.signal().is_some() {
                return Err(Problem::Stopped);
            }
        }
        Ok(sum / targets as f64)
    }
}

/// What a probe found, and pictures for people.
pub(crate) struct Seen {
    pub(crate) probe: OnlineProbe,
    /// pictures/STAGE.json
    pub(crate) pictures: Option<Value>,
}

/// What a probe found, and the mean tokens it found it in.
struct Found {
    probe: OnlineProbe,
    test: Option<Features>,
    train: Option<Features>,
}

/// The first image of each class, then others, `count` in all and ascending.
fn one_of_each(labels: &[u32], count: usize) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    let (mut first, others): (Vec<usize>, Vec<usize>) =
        (0..labels.len()).partition(|&i| seen.insert(labels[i]));
    first.truncate(count);
    let missing = count - first.len();
    first.extend(others.into_iter().take(missing));
    first.sort_unstable();
    first
}

/// Why a probe found nothing.
enum Problem {
    Stopped,
    Failure(Failure),
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<eval::Error> for Problem {
    fn from(error: eval::Error) -> Self {
        match error {
            eval::Error::Stopped => Self::Stopped,
            error => Self::Failure(ran(error)),
        }
    }
}

/// Mean tokens, and class tokens where there are some, of all that a loader gives and that can be read.
fn embedded(method: &dyn Method, loader: Loader, stop: &Stop) -> Result<Vec<Features>, Problem> {
    let mut make = |images: &ImageBatch| judge::embedded(method.encoder(), images).map_err(ran);
    let gathered = judge::gather(loader, &mut make, stop)?.ok_or(Problem::Stopped)?;
    Ok(gathered.of_readable())
}

/// How exactly the linear probe is fitted. The penalty is chosen as after training: an encoder whose features
/// have few large directions needs a weak one, and with one for all its accuracy seemed to fall (half of what
/// it was, LOG.md).
fn linear_options() -> LinearOptions {
    LinearOptions { iterations: 100, tolerance: 1e-2, ..LinearOptions::default() }
}

/// None where there are not two images to tell apart.
fn lidar(views: &Features) -> eval::Result<Option<f64>> {
    let images = views.len() / LIDAR_VIEWS;
    let options = LidarOptions { images, views: LIDAR_VIEWS, ..LidarOptions::default() };
    (images > 1).then(|| eval::lidar(views, options)).transpose()
}

/// The features, and the weights of each part of what is trained: `encoder.blocks.0`.
fn histograms(method: &dyn Method, features: &Features) -> BTreeMap<String, Histogram> {
    let mut parts: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    method.visit(&mut |name, parameter| {
        let words: Vec<&str> = name.split('.').collect();
        let kept = if words.get(1) == Some(&"blocks") { 3 } else { 2 };
        let part = format!("weights {}", words[..kept.min(words.len())].join("."));
        parts.entry(part).or_default().extend(parameter.value().to_vec());
    });
    let weights = parts.into_iter().map(|(part, values)| (part, Histogram::of(&values)));
    weights.chain([("features".to_owned(), Histogram::of(&features.rows))]).collect()
}

/// When probes are due.
struct Interval {
    every_steps: Option<u64>,
    share: f64,
    steps: u64,
    /// The step of the last one.
    last: Option<u64>,
    ended: Instant,
    took: Duration,
}

impl Interval {
    fn new(probe: &Probe, steps: u64) -> Self {
        let Probe { every_steps, share, .. } = *probe;
        Self { every_steps, share, steps, last: None, ended: Instant::now(), took: Duration::ZERO }
    }

    /// Before the first step, after the last, and between them as the recipe says.
    fn is_due(&self, step: u64) -> bool {
        let Some(last) = self.last else { return true };
        if step <= last {
            return false;
        }
        let between = match self.every_steps {
            Some(every) => step.is_multiple_of(every),
            None => {
                let trained = self.ended.elapsed().as_secs_f64();
                let apart = self.steps.div_ceil(MOST_PROBES);
                // One just ahead of the last would tell nothing more.
                step - last >= apart
                    && self.steps - step >= apart / 2
                    && self.took.as_secs_f64() <= self.share * trained
            }
        };
        between || step == self.steps
    }

    fn probed(&mut self, step: u64, took: Duration) {
        (self.last, self.took, self.ended) = (Some(step), took, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(every_steps: Option<u64>) -> Interval {
        Interval::new(&Probe { every_steps, ..Probe::default() }, 1000)
    }

    #[test]
    fn probes_stand_before_the_first_step_after_the_last_and_between_them() {
        let mut interval = interval(Some(300));
        let mut made = Vec::new();
        for step in 0..=1000 {
            if interval.is_due(step) {
                made.push(step);
                interval.probed(step, Duration::from_secs(100));
            }
        }
        assert_eq!(made, [0, 300, 600, 900, 1000]);
    }

    #[test]
    fn probes_wait_until_training_took_long_enough_for_their_share() {
        let mut interval = interval(None);
        interval.probed(0, Duration::from_secs(3));
        assert!(!interval.is_due(500));
        interval.ended = Instant::now().checked_sub(Duration::from_secs(101)).unwrap();
        assert!(interval.is_due(50) && !interval.is_due(49), "twenty at most");
        assert!(!interval.is_due(990), "the last step's is near");
        assert!(interval.is_due(1000));
    }
}
