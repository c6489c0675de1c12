//! Prepares batches ahead of the step: on its own threads, in order, in bounded memory.

mod fingerprint;
mod sampler;
mod survey;

pub use fingerprint::{Fingerprint, Stamp};
pub use sampler::{Order, Position, Sampler};
pub use survey::{Survey, SurveyDepth};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use engine::ops::Images;
use engine::random::Random;
use fast_image_resize::Resizer;

use crate::data::{Clip, Error, MOST_CHANNELS, Normalize, RawSample, Result, Source, Transform};

/// B images, with their labels and numbers.
#[derive(Clone)]
pub struct Batch {
    /// [B, C, T, H, W] bytes, with the normalisation that is applied when they are read.
    pub images: Images,
    /// [B] classes, -1 without one.
    pub labels: Vec<i32>,
    /// [B] numbers of the images in their source.
    pub indices: Vec<u64>,
    /// Images that could not be read. The next readable image replaces each.
    pub unreadable: Vec<Unreadable>,
}

impl std::fmt::Debug for Batch {
    /// Shows which images it holds, not their pixels.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("indices", &self.indices).finish_non_exhaustive()
    }
}

/// An image that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Its number in its source.
    pub index: usize,
    /// Its file, what is wrong with it and what to do.
    pub problem: String,
}

/// A batch and how long its reader waited for it.
pub struct TimedBatch {
    /// The batch.
    pub batch: Batch,
    /// Time in [`Loader::next_batch`].
    pub waited: Duration,
}

/// The settings of a loader.
#[derive(Clone, Debug)]
pub struct LoaderOptions {
    /// B, at least 1. The last batch of [`Order::Once`] may be smaller.
    pub batch: usize,
    /// Threads that decode and augment, at least 1.
    pub threads: usize,
    /// Batches in memory at once, ready or being made, at least 1.
    pub prefetch: usize,
    /// Order of the samples.
    pub order: Order,
    /// Number of the first sample. When a run is resumed it is the steps done times B.
    pub first_sample: u64,
    /// Seed of the random crops and flips.
    pub augment_seed: u64,
    /// Crop, flip and size.
    pub transform: Transform,
    /// C. Grey and colour are converted to each other.
    pub channels: usize,
    /// [C] means and deviations, which are part of each batch.
    pub normalize: Normalize,
    /// The most images that may be unreadable, as a share of the source, rounded up.
    pub max_unreadable: f64,
}

impl LoaderOptions {
    /// Checks whether a loader of this source can be made.
    pub fn validate(&self, source: &dyn Source) -> Result<()> {
        let counts =
            [("batch", self.batch), ("threads", self.threads), ("prefetch", self.prefetch)];
        for (name, found) in counts {
            if !(1..=65_536).contains(&found) {
                return Err(Error::setting(name, &found, "1 to 65536"));
            }
        }
        if !(1..=MOST_CHANNELS).contains(&self.channels) {
            let expected = format!("1 (grey), 3 (colour), or up to {MOST_CHANNELS} bands");
            return Err(Error::setting("channels", &self.channels, expected));
        }
        self.transform.effects.check_channels(self.channels)?;
        let Normalize { mean, std } = &self.normalize;
        for (name, values) in [("normalize.mean", mean), ("normalize.std", std)] {
            if values.len() != self.channels {
                let expected = format!("{} values, one per channel", self.channels);
                return Err(Error::setting(name, &format!("{values:?}"), expected));
            }
        }
        if let Some(found) = std.iter().find(|&&std| !(std.is_finite() && std > 0.0)) {
            return Err(Error::setting("normalize.std", &found, "numbers above 0"));
        }
        if source.is_empty() || u32::try_from(source.len()).is_err() {
            return Err(Error::setting("path", &source.describe(), "1 to 2^32 - 1 images"));
        }
        self.transform.validate()
    }

    /// [C, T, H, W]
    fn clip_shape(&self) -> [usize; 4] {
        let [height, width] = self.transform.size;
        [self.channels, self.transform.frames, height, width]
    }
}

/// Reads, decodes and augments on its own threads. The content of batch number n depends only on
/// the options, not on the number of threads or on timing. Dropping the loader ends the threads.
pub struct Loader {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    wanted: u64,
    /// Unreadable images so far, in batches that were returned.
    unreadable: BTreeSet<usize>,
    /// The problems of the first of them, each once.
    problems: Vec<String>,
}

/// The most unreadable images that are named in the error that ends a run.
const MOST_NAMED: usize = 5;

/// The most images that are tried in place of an unreadable one. If none of them can be read, the
/// problem is not in a single image.
const MOST_REPLACEMENTS: usize = 99;

/// Seconds per image in one thread, as the mean over several images.
#[derive(Clone, Copy, Debug, Default)]
pub struct PartTimes {
    /// Reading the bytes.
    pub read: f64,
    /// Decoding the part that is used.
    pub decode: f64,
    /// Crop, resizing, flip, effects and the copy into the batch.
    pub augment: f64,
}

/// Measures the time of each part of loading, on `images` images spread over the source.
pub fn time_parts(
    source: &dyn Source,
    options: &LoaderOptions,
    images: usize,
) -> Result<PartTimes> {
    options.validate(source)?;
    let count = images.clamp(1, source.len());
    let mut planes = vec![0; options.clip_shape().iter().product()];
    let mut resizer = Resizer::new();
    let mut times = PartTimes::default();
    for image in 0..count {
        let mut random = Random::new(options.augment_seed, "augment", image as u64);
        let start = Instant::now();
        let raw = source.raw(image * source.len() / count)?;
        let read = start.elapsed();
        let choose = |extent| options.transform.region(extent, &mut random);
        let name = raw.name.clone();
        let (clip, region) = raw.decode_part(choose)?;
        let decoded = start.elapsed();
        let clip = clip.with_channels(options.channels, &name)?;
        options.transform.show(&clip, &region, &mut random, &mut resizer).write_planes(&mut planes);
        let mean = |time: Duration| time.as_secs_f64() / count as f64;
        times.read += mean(read);
        times.decode += mean(decoded - read);
        times.augment += mean(start.elapsed() - decoded);
    }
    Ok(times)
}

struct Shared {
    source: Arc<dyn Source>,
    options: LoaderOptions,
    /// The most images that are tried in place of an unreadable one.
    replacements: usize,
    state: Mutex<State>,
    /// Signals that the state changed.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The first batch that no thread has begun.
    begun: u64,
    /// Batches that were returned.
    taken: u64,
    /// Batches that were made but not yet returned. `None` is the end.
    made: BTreeMap<u64, Result<Option<Batch>>>,
    /// The loader is being dropped.
    stop: bool,
    /// A thread panicked.
    broken: bool,
}

impl Loader {
    /// Starts the threads.
    pub fn new(source: Arc<dyn Source>, options: LoaderOptions) -> Result<Self> {
        Self::start(source, options, MOST_REPLACEMENTS)
    }

    /// Like [`Loader::new`], but no other image replaces an unreadable one. It stays black and
    /// keeps its own label, so that the caller can leave it out.
    pub fn leaving_blank(source: Arc<dyn Source>, options: LoaderOptions) -> Result<Self> {
        Self::start(source, options, 0)
    }

    fn start(source: Arc<dyn Source>, options: LoaderOptions, replacements: usize) -> Result<Self> {
        options.validate(source.as_ref())?;
        let threads = options.threads.min(options.prefetch);
        let (state, changed) = (Mutex::new(State::default()), Condvar::new());
        let shared = Arc::new(Shared { source, options, replacements, state, changed });
        let spawn = |index| {
            let shared = Arc::clone(&shared);
            let name = format!("loader {index}");
            thread::Builder::new().name(name).spawn(move || shared.work())
        };
        let threads: std::io::Result<Vec<_>> = (0..threads).map(spawn).collect();
        match threads {
            Ok(threads) => {
                let (unreadable, problems) = (BTreeSet::new(), Vec::new());
                Ok(Self { shared, threads, wanted: 0, unreadable, problems })
            }
            Err(error) => {
                shared.stop();
                Err(Error::setting("threads", &error, "as many threads as the system grants"))
            }
        }
    }

    /// Counts these images as unreadable, because a resumed run found them before.
    pub fn with_unreadable(mut self, met: BTreeSet<usize>) -> Self {
        self.unreadable = met;
        self
    }

    /// The next batch, or none after the last. After an error every further call returns none.
    pub fn next_batch(&mut self) -> Result<Option<TimedBatch>> {
        let start = Instant::now();
        let mut state = self.shared.lock();
        let made = loop {
            if let Some(made) = state.made.remove(&self.wanted) {
                break made;
            }
            if state.broken {
                return Err(Error::Worker);
            }
            if state.stop {
                return Ok(None);
            }
            state = self.shared.wait(state);
        };
        let made = made.and_then(|made| match made {
            Some(batch) => {
                let met = (&mut self.unreadable, &mut self.problems);
                count_unreadable(&self.shared, met, &batch).map(|()| Some(batch))
            }
            None => Ok(None),
        });
        if !matches!(made, Ok(Some(_))) {
            state.stop = true;
            state.made.clear();
        }
        state.taken += 1;
        self.wanted += 1;
        drop(state);
        self.shared.changed.notify_all();
        Ok(made?.map(|batch| TimedBatch { batch, waited: start.elapsed() }))
    }
}

/// Adds the unreadable images of a batch to those found before. This is done in the order of the
/// batches, so that a run stops at the same batch each time.
fn count_unreadable(
    shared: &Shared,
    (met, problems): (&mut BTreeSet<usize>, &mut Vec<String>),
    batch: &Batch,
) -> Result<()> {
    for Unreadable { index, problem } in &batch.unreadable {
        if met.insert(*index) && problems.len() < MOST_NAMED {
            problems.push(problem.replace('\n', " "));
        }
    }
    let (images, share) = (shared.source.len(), shared.options.max_unreadable);
    if batch.unreadable.is_empty() || met.len() <= (share * images as f64).ceil() as usize {
        return Ok(());
    }
    let first = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    Err(Error::TooManyUnreadable { unreadable: met.len(), images, share, first })
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // A panic of the thread was reported by `next_batch`, or no longer matters.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The loop of a thread: begins a batch when there is room, makes it, and hands it over.
    fn work(&self) {
        let _guard = PanicSignal(self);
        let mut sampler = Sampler::new(self.source.len(), self.options.order);
        let mut resizer = Resizer::new();
        while let Some(number) = self.begin() {
            let made = self.make(number, &mut sampler, &mut resizer);
            self.lock().made.insert(number, made);
            self.changed.notify_all();
        }
    }

    fn begin(&self) -> Option<u64> {
        let mut state = self.lock();
        while !state.stop && state.begun >= state.taken + self.options.prefetch as u64 {
            state = self.wait(state);
        }
        state.begun += 1;
        (!state.stop).then_some(state.begun - 1)
    }

    /// The batch of a number. None if all its samples are after the end.
    fn make(
        &self,
        number: u64,
        sampler: &mut Sampler,
        resizer: &mut Resizer,
    ) -> Result<Option<Batch>> {
        let size = self.options.batch as u64;
        let first = self.options.first_sample + number * size;
        let positions: Vec<_> = (first..first + size).map_while(|i| sampler.position(i)).collect();
        if positions.is_empty() {
            return Ok(None);
        }
        let clip_shape = self.options.clip_shape();
        let [channels, frames, height, width] = clip_shape;
        let shape = [positions.len(), channels, frames, height, width];
        // Collected from an iterator of known length: allocated once, in place.
        let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, shape.iter().product()).collect();
        let mut planes = Arc::get_mut(&mut bytes)
            .into_iter()
            .flat_map(|bytes| bytes.chunks_exact_mut(clip_shape.iter().product()));
        let mut labels = Vec::with_capacity(positions.len());
        let mut unreadable = Vec::new();
        for positions in positions.chunks(self.source.requests()) {
            let samples = read_together(&*self.source, positions);
            for ((position, raw), planes) in positions.iter().zip(samples).zip(&mut planes) {
                labels.push(self.sample(*position, raw, planes, resizer, &mut unreadable)?);
            }
        }
        let Normalize { mean, std } = self.options.normalize.clone();
        let images = Images::u8(bytes, shape, mean, std)
            .map_err(|error| Error::setting("normalize", &error, "one value per channel"))?;
        let indices = positions.iter().map(|position| position.index as u64).collect();
        Ok(Some(Batch { images, labels, indices, unreadable }))
    }

    /// Writes one clip [C, T, H, W] and returns its label. Its random numbers are those of (seed,
    /// epoch, image). An unreadable clip is recorded. The next readable one replaces it, if
    /// replacements are allowed. `raw` is the first clip, already read.
    fn sample(
        &self,
        at: Position,
        raw: Result<RawSample>,
        planes: &mut [u8],
        resizer: &mut Resizer,
        unreadable: &mut Vec<Unreadable>,
    ) -> Result<i32> {
        let len = self.source.len();
        let key = at.epoch * len as u64 + at.index as u64;
        let (mut first, mut last) = (Some(raw), None);
        for index in (at.index..len).chain(0..at.index).take(1 + self.replacements) {
            let random = Random::new(self.options.augment_seed, "augment", key);
            let raw = first.take().unwrap_or_else(|| self.source.raw(index));
            match raw.and_then(|raw| self.shown(raw, random, resizer)) {
                Ok((clip, label)) => {
                    clip.write_planes(planes);
                    return Ok(label);
                }
                Err(error) if error.is_of_store() => return Err(error),
                Err(error) => {
                    unreadable.push(Unreadable { index, problem: error.to_string() });
                    last = Some(error);
                }
            }
        }
        if self.replacements == 0 {
            return Ok(self.source.label(at.index));
        }
        // A source has at least one image, so the loop ran.
        Err(last.expect("an unreadable image"))
    }

    /// An image at its final size, and its label.
    fn shown(
        &self,
        raw: RawSample,
        mut random: Random,
        resizer: &mut Resizer,
    ) -> Result<(Clip, i32)> {
        let LoaderOptions { transform, channels, .. } = &self.options;
        let (label, name) = (raw.label, raw.name.clone());
        let choose = |extent| transform.region(extent, &mut random);
        let (clip, region) = raw.decode_part(choose)?;
        let clip = clip.with_channels(*channels, &name)?;
        Ok((transform.show(&clip, &region, &mut random, resizer), label))
    }

    fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    /// The state stays valid when a thread panics: no panic can happen while it is locked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads images. If there are several, each is read on its own thread, which mostly waits for its
/// answer.
fn read_together(source: &dyn Source, positions: &[Position]) -> Vec<Result<RawSample>> {
    if let [one] = positions {
        return vec![source.raw(one.index)];
    }
    thread::scope(|scope| {
        let read = |at: &Position| {
            let index = at.index;
            scope.spawn(move || source.raw(index))
        };
        let threads: Vec<_> = positions.iter().map(read).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(Error::Worker))).collect()
    })
}

/// Wakes the reader when this thread panics, so that the reader does not wait forever.
struct PanicSignal<'a>(&'a Shared);

impl Drop for PanicSignal<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.lock().broken = true;
            self.0.stop();
        }
    }
}

#[cfg(test)]
mod tests;
