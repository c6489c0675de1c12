//! Probes while a stage trains. They always use the same training and held-out images, so that
//! results of different steps can be compared. They use none of training's random numbers and do
//! not change its state. A run with probes has the same bits as one without.

use super::plan::StagePlan;
use crate::data::{Batch, Loader, LoaderOptions, Order, Part, Source};
use crate::eval::{
    self, Features, KnnOptions, LidarOptions, LinearOptions, Prediction, RightImages,
};
use crate::failure::{Failure, input_error, loading, run_error};
use crate::judge::{self, ImageSets};
use crate::mask::MaskList;
use crate::method::Method;
use crate::pictures::{self, NEIGHBOURS, Neighbour, PixelScale, Scene, SceneImages};
use crate::recipe::{Data, Probe, Recipe, Stage};
use crate::run_files::{Histogram, OnlineProbe};
use crate::train::Stop;
use engine::Tape;
use engine::ops::Images as ImageBatch;
use engine::random::Random;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Held-out images on which the loss is measured. (guess: its noise is far below that of 64
/// training images)
const LOSS_IMAGES: usize = 256;
/// Training images for LiDAR, and the views of each. The rank that LiDAR can find is at most one
/// less than the number of images. These images cost a quarter of what the probes' images cost.
const LIDAR_IMAGES: usize = 64;
const LIDAR_VIEWS: usize = 4;
/// Seed of the choice of images, masks and views. It is not the run's, so that runs can be
/// compared.
const SEED: u64 = 0;
/// Held-out images that are shown in pictures.
const SHOWN_IMAGES: usize = 8;
/// Images of the map. Its time and memory grow with their square: 2,000 took 9 s (2026-11-26, two
/// cores of a Zen 4 EPYC), 10,000 would take minutes and 1.6 GB.
const MAP_IMAGES: usize = 2000;

/// The probes of one stage.
pub(crate) struct Online<'a> {
    recipe: &'a Recipe,
    stage: &'a Stage,
    steps: u64,
    /// Training and the last probes report images that cannot be read. These probes do not.
    data: Data,
    masking: &'a MaskList,
    train: Arc<dyn Source>,
    test: Arc<dyn Source>,
    views: Arc<dyn Source>,
    view_options: LoaderOptions,
    /// Whether `test` is held out. Then all images have classes, and accuracies can be measured.
    held_out: bool,
    interval: Interval,
}

impl<'a> Online<'a> {
    /// The probes of one stage. None if the recipe requests none.
    pub(crate) fn new(
        recipe: &'a Recipe,
        images: &ImageSets,
        plan: &StagePlan<'a>,
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
            ..plan.loader.clone()
        };
        Some(Self {
            recipe,
            stage: plan.stage,
            steps: plan.schedule.steps,
            data: Data { max_unreadable: 1.0, ..recipe.data.clone() },
            masking: &plan.stage.masks,
            train: some(&images.to_probe, count, 1),
            test: some(held_out.unwrap_or(&images.to_probe), count, 1),
            views,
            view_options,
            held_out: held_out.is_some(),
            interval: Interval::new(&recipe.probe, plan.schedule.steps),
        })
    }

    /// Whether a probe is due after this many steps.
    pub(crate) fn is_due(&self, step: u64) -> bool {
        self.interval.is_due(step)
    }

    /// Sets the step of the last probe, which an earlier process made.
    pub(crate) fn go_on_after(&mut self, step: u64) {
        self.interval.last = Some(step);
    }

    /// Probes the method's encoder after this many steps, and takes pictures. Returns none if a
    /// signal stops it.
    pub(crate) fn probe(
        &mut self,
        method: &dyn Method,
        step: u64,
        stop: &Stop,
    ) -> Result<Option<ProbeOutcome>, Failure> {
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
        Ok(Some(ProbeOutcome { probe, pictures }))
    }

    fn find(&self, method: &dyn Method, stop: &Stop) -> Result<Findings, Problem> {
        let usual = |source: &Arc<dyn Source>| self.loader(source.clone());
        let embedded = |loader: Result<Loader, Failure>| embedded(method, loader?, stop);
        let test = embedded(usual(&self.test))?;
        let views = Loader::new(self.views.clone(), self.view_options.clone()).map_err(input_error);
        let views = embedded(views)?;
        if test.iter().any(Features::is_empty) {
            // None of these images can be read. The loader and the last probes report it.
            return Ok(Findings { probe: OnlineProbe::default(), test: None, train: None });
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
        Ok(Findings { probe, test: first(test), train: train.and_then(first) })
    }

    /// Pictures of a few held-out images, one of each class if there are enough, and a map of all
    /// of them after the last step.
    fn pictures(
        &self,
        method: &dyn Method,
        step: u64,
        found: &Findings,
        stop: &Stop,
    ) -> Result<Option<Value>, Problem> {
        let (Some(test), Some(train)) = (&found.test, &found.train) else { return Ok(None) };
        let labelled = !self.test.classes().is_empty();
        let indices = one_of_each(&test.labels, SHOWN_IMAGES.min(test.len()));
        let Some(batch) = self.some(&self.test, &indices)? else { return Ok(None) };
        let grid = method.encoder().grid();
        let masks =
            self.masking.sample(grid, batch.images.samples(), SEED, 0).map_err(run_error)?;
        let masks = method.masks(masks);
        let normalize = self.recipe.data.channel_normalize();
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
        let mut taken = scene.take()?;
        // Without a holdout both sets are the same images. No image is its own neighbour.
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

    /// These images of a source in one batch. None if one of them cannot be read.
    fn some(&self, source: &Arc<dyn Source>, order: &[usize]) -> Result<Option<Batch>, Problem> {
        let part: Arc<dyn Source> = Arc::new(Part::new(source.clone(), order.to_vec(), "to show"));
        let options =
            LoaderOptions { batch: order.len().max(1), ..self.data.feature_loader(self.data.size) };
        let mut loader = Loader::new(part, options).map_err(input_error)?;
        let loaded = loader.next_batch().map_err(loading)?;
        Ok(loaded.map(|loaded| loaded.batch).filter(|batch| batch.unreadable.is_empty()))
    }

    /// Loads whole images, each once, in order.
    fn loader(&self, source: Arc<dyn Source>) -> Result<Loader, Failure> {
        Loader::new(source, self.data.feature_loader(self.data.size)).map_err(input_error)
    }

    /// kNN and the linear probe, on mean tokens and on class tokens if there are any.
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
            let knn = eval::knn(train, test, KnnOptions { k, temperature }, &stopped)?;
            let linear = (linear && classes)
                .then(|| eval::linear(train, test, &linear_options(), &stopped))
                .transpose()?;
            let found = |prediction: &Prediction| {
                (prediction.accuracy, RightImages::new(prediction, &test.labels))
            };
            let linear = linear.map(|linear| found(&linear.prediction));
            Ok::<_, eval::Error>((found(&knn), linear.unzip()))
        };
        // Fits of so few rows use only one thread, so both kinds of tokens are fitted at once.
        let cls = || (train.len() > 1).then(|| accuracies(1)).transpose();
        let (mean, cls) = rayon::join(|| accuracies(0), cls);
        let (((knn, right_knn), (linear, right_linear)), cls) = (mean?, cls?);
        (probe.knn_mean, probe.linear_mean) = (Some(knn), linear);
        (probe.right.knn_mean, probe.right.linear_mean) = (Some(right_knn), right_linear);
        if let Some(((knn, right_knn), (linear, right_linear))) = cls {
            (probe.knn_cls, probe.linear_cls) = (Some(knn), linear);
            (probe.right.knn_cls, probe.right.linear_cls) = (Some(right_knn), right_linear);
        }
        probe.train_images = train[0].len();
        Ok(())
    }

    /// The method's loss on held-out images, under fixed masks. It is a mean over all targets, as
    /// in training.
    fn loss(&self, method: &dyn Method, stop: &Stop) -> Result<f64, Problem> {
        let images = self.test.len().min(LOSS_IMAGES);
        let some = Part::new(self.test.clone(), (0..images).collect(), "to probe");
        let mut loader = self.loader(Arc::new(some))?;
        let (mut sum, mut targets, mut batches) = (0.0, 0, 0);
        while let Some(loaded) = loader.next_batch().map_err(loading)? {
            let images = loaded.batch.images;
            let grid = method.encoder().grid();
            let masks =
                self.masking.sample(grid, images.samples(), SEED, batches).map_err(run_error)?;
            let masks = method.masks(masks);
            let step = method.step(&Tape::inference(), &images, &masks, None).map_err(run_error)?;
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

/// The results of a probe, and its pictures.
pub(crate) struct ProbeOutcome {
    pub(crate) probe: OnlineProbe,
    /// pictures/STAGE.json
    pub(crate) pictures: Option<Value>,
}

/// The results of a probe, and the mean tokens that it measured.
struct Findings {
    probe: OnlineProbe,
    test: Option<Features>,
    train: Option<Features>,
}

/// The first image of each class, then others: `count` in total, in ascending order.
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

/// Why a probe has no results.
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
            error => Self::Failure(run_error(error)),
        }
    }
}

/// Mean tokens, and class tokens if there are any, of all readable images of a loader.
fn embedded(method: &dyn Method, loader: Loader, stop: &Stop) -> Result<Vec<Features>, Problem> {
    let mut make =
        |images: &ImageBatch| judge::embedded(method.encoder(), images).map_err(run_error);
    let gathered = judge::gather(loader, &mut make, stop)?.ok_or(Problem::Stopped)?;
    Ok(gathered.of_readable())
}

/// The precision of the linear probe's fit. The penalty is chosen as after training. An encoder
/// whose features have few large directions needs a weak penalty. With one penalty for all
/// encoders, its accuracy seemed to fall (half of what it was, LOG.md).
fn linear_options() -> LinearOptions {
    LinearOptions { iterations: 100, tolerance: 1e-2, ..LinearOptions::default() }
}

/// None if there are fewer than two images, or if all features are equal.
fn lidar(views: &Features) -> eval::Result<Option<f64>> {
    let images = views.len() / LIDAR_VIEWS;
    let options = LidarOptions { images, views: LIDAR_VIEWS, ..LidarOptions::default() };
    if images > 1 { eval::lidar(views, options) } else { Ok(None) }
}

/// Histograms of the features, and of the weights of each trained part: `encoder.blocks.0`.
fn histograms(method: &dyn Method, features: &Features) -> BTreeMap<String, Histogram> {
    let mut parts: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    method.visit("", &mut |name, parameter| {
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
    /// The step of the last probe.
    last: Option<u64>,
    ended: Instant,
    took: Duration,
    /// Time between probes, up to the last one.
    trained: Duration,
}

impl Interval {
    fn new(probe: &Probe, steps: u64) -> Self {
        let Probe { every_steps, share, .. } = *probe;
        let (took, trained) = (Duration::ZERO, Duration::ZERO);
        Self { every_steps, share, steps, last: None, ended: Instant::now(), took, trained }
    }

    /// A probe is due before the first step, after the last, and between them as the recipe sets.
    fn is_due(&self, step: u64) -> bool {
        let Some(last) = self.last else { return true };
        if step <= last {
            return false;
        }
        let between = match self.every_steps {
            Some(every) => step.is_multiple_of(every),
            None => {
                let apart = self.steps.div_ceil(Probe::MOST);
                let far_enough =
                    step - last >= apart || Probe::is_share_reached(self.steps, last, step);
                // A probe just before the last one would add nothing.
                far_enough && self.steps - step >= apart / 2 && self.is_cheap(last, step)
            }
        };
        between || step == self.steps
    }

    /// Whether a probe takes little of the time trained since the last one. At some shares of the
    /// stage it may take more.
    fn is_cheap(&self, last: u64, step: u64) -> bool {
        let (took, since) = (self.took.as_secs_f64(), self.ended.elapsed());
        let most = Probe::MOST_DUE_SHARE * (self.trained + since).as_secs_f64();
        took <= self.share * since.as_secs_f64()
            || (took <= most && Probe::is_share_reached(self.steps, last, step))
    }

    fn probed(&mut self, step: u64, took: Duration) {
        self.trained += self.ended.elapsed().saturating_sub(took);
        (self.last, self.took, self.ended) = (Some(step), took, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::open_images;
    use crate::mask::Masks;
    use crate::method::Step;
    use crate::model::{Encoder, StepKey};
    use crate::recipe;
    use engine::{Module, Parameter, Tensor};

    fn interval(every_steps: Option<u64>) -> Interval {
        Interval::new(&Probe { every_steps, ..Probe::default() }, 1000)
    }

    #[test]
    fn probes_are_made_before_the_first_step_after_the_last_and_between_them() {
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

    /// As if training had gone on for so many seconds since the last probe.
    fn train(interval: &mut Interval, seconds: u64) {
        interval.ended = Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn probes_wait_until_training_took_long_enough_for_their_share() {
        let mut interval = interval(None);
        interval.probed(0, Duration::from_secs(3));
        assert!(!interval.is_due(500));
        train(&mut interval, 101);
        assert!(interval.is_due(50) && !interval.is_due(49), "twenty at most");
        assert!(!interval.is_due(990), "the last step's is near");
        assert!(interval.is_due(1000));
    }

    #[test]
    fn probes_at_fixed_shares_of_a_stage_wait_until_a_tenth_of_the_time_trained_pays_for_them() {
        let mut interval = interval(None);
        interval.probed(0, Duration::from_secs(3));
        train(&mut interval, 29);
        assert!(!interval.is_due(50) && !interval.is_due(60));
        train(&mut interval, 31);
        assert!(interval.is_due(60), "it waited");
        train(&mut interval, 34);
        interval.probed(60, Duration::from_secs(3));
        train(&mut interval, 10);
        assert!(!interval.is_due(249) && interval.is_due(250), "all the time trained counts");
    }

    /// A method whose loss is the number of images in the batch, and whose targets are as many.
    struct BatchLength(Box<dyn Method>);

    impl Module for BatchLength {
        fn visit(&self, prefix: &str, f: &mut dyn FnMut(&str, &Parameter)) {
            self.0.visit(prefix, f);
        }
    }

    impl Method for BatchLength {
        fn step(
            &self,
            tape: &Tape,
            images: &ImageBatch,
            masks: &Masks,
            key: Option<StepKey>,
        ) -> engine::Result<Step> {
            let target_count = images.samples();
            let loss = Tensor::from_vec([target_count as f32], &[1]);
            Ok(Step { loss, target_count, ..self.0.step(tape, images, masks, key)? })
        }

        fn encoder(&self) -> &Encoder {
            self.0.encoder()
        }
    }

    #[test]
    fn the_held_out_loss_is_a_mean_over_targets_not_over_batches() {
        let sizes = ["width=8", "depth=1", "heads=1", "patch=32"].map(|key| format!("model.{key}"));
        let set = [&sizes[..], &["data.size=64".to_owned()]].concat();
        let recipe = recipe::load(None, &set).unwrap();
        let images = open_images(&recipe).ok().unwrap();
        let plan = StagePlan::new(&recipe, 0, images.train.len()).ok().unwrap();
        let method = BatchLength(plan.method(None, None).ok().unwrap());
        let online = Online::new(&recipe, &images, &plan).unwrap();
        // 256 images of 64 x 64 are batches of 100, 100 and 56.
        let wanted = (100.0 * 100.0 + 100.0 * 100.0 + 56.0 * 56.0) / 256.0;
        assert_eq!(online.loss(&method, &Stop::default()).ok(), Some(wanted));
    }
}
