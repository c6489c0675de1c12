//! The attentive probe: a small network that reads all tokens of a frozen encoder. A grid has one
//! probe for each pair of learning rate and weight decay. All are trained in one pass over the
//! tokens.

mod head;

use super::knn::classes;
use super::linear::split;
use super::{Error, Result, Scores, StopCheck};
use engine::optim::{AdamW, clip_grad_norm, decays_by_default, zero_grad};
use engine::random::Random;
use engine::{Module as _, Parameter, Segments, Tape, Tensor, ops};
use head::Head;
use serde::Serialize;
use std::f64::consts::PI;

/// The paper whose attentive probe is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentiveForm {
    /// One cross-attention block with a learned query and as many heads as the encoder. Gradients
    /// are clipped at 1, and the decay of matrices falls during training. V-JEPA (Bardes et al.
    /// 2024), facebookresearch/jepa evals/image_classification_frozen/eval.py.
    VJepa1,
    /// Three self-attention blocks before the cross-attention block, 16 heads. Gradients are not
    /// clipped, and all parameters have the same decay. V-JEPA 2 (Assran et al. 2025), and SALT
    /// (section 3).
    VJepa2,
}

impl AttentiveForm {
    fn blocks(self) -> usize {
        match self {
            Self::VJepa1 => 0,
            Self::VJepa2 => 3,
        }
    }

    /// The encoder's heads, or the largest divisor of the width up to 16.
    fn heads(self, width: usize, of_encoder: usize) -> usize {
        match self {
            Self::VJepa1 => of_encoder,
            // 1 divides every width.
            Self::VJepa2 => {
                (1..=16).rev().find(|heads| width.is_multiple_of(*heads)).expect("a divisor")
            }
        }
    }

    /// Weight decay at `share` of the training, 0 to 1. V-JEPA's falls by half a cosine to 1e-6.
    fn decay(self, first: f64, share: f64) -> f64 {
        const LAST: f64 = 1e-6;
        match self {
            Self::VJepa1 if first > LAST => {
                LAST + 0.5 * (first - LAST) * (1.0 + (PI * share).cos())
            }
            _ => first,
        }
    }
}

/// How attentive probes are trained. AdamW's rate falls by half a cosine to 0. Images are prepared
/// as in all other probes, while V-JEPA augments them.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentiveOptions {
    /// The paper whose probe is used.
    pub form: AttentiveForm,
    /// Passes over the training images.
    pub epochs: usize,
    /// Images of a step. None for [`usual_batch`].
    pub batch: Option<usize>,
    /// Initial learning rates of the grid.
    pub lrs: Vec<f64>,
    /// Weight decays of the grid.
    pub weight_decays: Vec<f64>,
    /// Seed of the initial weights and of the order of images.
    pub seed: u64,
}

impl Default for AttentiveOptions {
    /// SALT and V-JEPA 2 use the same number of epochs. Their grid has rates from 5e-3 to 1e-4 and
    /// decays of 0.8, 0.4, 0.1 and 0.01 at a batch of 256 to 1,024. Narrow encoders need larger
    /// rates.
    fn default() -> Self {
        Self {
            form: AttentiveForm::VJepa1,
            epochs: 20,
            batch: None,
            lrs: vec![1e-2, 3e-3, 1e-3, 3e-4],
            weight_decays: vec![0.4, 0.01],
            seed: 0,
        }
    }
}

/// Default number of images in a step: 64, or a sixtieth of the images if there are fewer than
/// 3,840, but at least 8. Twenty epochs are then 1,200 steps. (measured: 2026-11-26, 996 images of
/// digits, `probe --kind attentive --batch`: 320 steps of 64 reach 72.5 %, 520 of 39 the same,
/// 1,260 of 16 81.0 %, 2,500 of 8 80.0 %)
fn usual_batch(images: usize) -> usize {
    (images / 60).clamp(8, 64)
}

/// Tokens of some images.
pub struct TokenBatch {
    /// [R, D]
    pub tokens: Tensor,
    /// Rows of each image.
    pub segments: Segments,
    /// Class of each image.
    pub labels: Vec<u32>,
}

/// Images whose tokens a frozen encoder computes, or has computed.
pub trait Tokens {
    /// Why tokens cannot be read.
    type Error: From<Error>;

    /// Class of each image.
    fn labels(&self) -> &[u32];

    /// D
    fn width(&self) -> usize;

    /// Heads of the encoder.
    fn heads(&self) -> usize;

    /// Calls `each` with the images of the indices `order`, in this order, `batch` at a time.
    /// Images that cannot be read are skipped.
    fn read(
        &mut self,
        order: &[usize],
        batch: usize,
        each: &mut dyn FnMut(&TokenBatch) -> Result<()>,
    ) -> std::result::Result<(), Self::Error>;
}

/// One probe of the grid.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// Initial learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Mean training loss of the last epoch. None if it diverged.
    pub loss: Option<f64>,
    /// Accuracy on held-out training images. None if none are held out.
    pub held_out: Option<f64>,
    /// Accuracy on the test images. V-JEPA 2 reports the best of these.
    pub test: f64,
}

/// The result of an attentive probe.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentiveResult {
    /// The whole grid, rate by rate.
    pub trials: Vec<Trial>,
    /// Index of the chosen trial: the best on held-out training images.
    pub best: usize,
    /// The chosen trial's logits of the test images.
    pub scores: Scores,
    /// The classes of the test images as they were read `[B]`.
    pub truth: Vec<u32>,
    /// A
    pub heads: usize,
    /// Images on which each probe was trained.
    pub fitted: usize,
    /// Images of a step.
    pub batch: usize,
    /// Steps of training.
    pub steps: usize,
    /// Number of trained values of one probe.
    pub parameters: usize,
}

/// Trains the grid on `train`, and predicts `test` with the best probe. If the grid has several
/// probes, every fifth image of a class is held out to choose one. `done` is called with the number
/// of images after each batch.
///
/// # Errors
/// Settings out of range, fewer than two classes, a grid whose probes all diverged, and errors of
/// [`Tokens`].
pub fn attentive<T: Tokens>(
    train: &mut T,
    test: &mut T,
    options: &AttentiveOptions,
    done: &mut dyn FnMut(usize),
    stopped: StopCheck<'_>,
) -> std::result::Result<AttentiveResult, T::Error> {
    options.check()?;
    let classes = known_classes(train.labels())?;
    let (fit, held_out) = options.parts(train.labels());
    let width = train.width();
    let heads = options.form.heads(width, train.heads());
    let batch = options.batch.unwrap_or_else(|| usual_batch(fit.len()));
    let mut grid = ProbeGrid::new(options, (width, heads), (classes, batch));
    grid.train(train, &fit, done, stopped)?;
    let mut chosen = vec![None; grid.probes.len()];
    if !held_out.is_empty() {
        let GridOutput { right, truth, .. } = grid.right(train, &held_out, done, stopped)?;
        chosen = right.iter().map(|right| Some(*right as f64 / truth.len() as f64)).collect();
    }
    let best = grid.best(&chosen)?;
    let all: Vec<usize> = (0..test.labels().len()).collect();
    grid.kept = Some(best);
    let GridOutput { right, values, truth } = grid.right(test, &all, done, stopped)?;
    let trial = |((probe, held_out), right): ((&GridProbe, _), usize)| Trial {
        lr: probe.lr,
        weight_decay: probe.weight_decay,
        loss: probe.loss,
        held_out,
        test: right as f64 / truth.len() as f64,
    };
    Ok(AttentiveResult {
        trials: grid.probes.iter().zip(chosen).zip(right).map(trial).collect(),
        best,
        scores: Scores { values, classes: grid.classes },
        truth,
        heads,
        fitted: fit.len(),
        batch,
        steps: options.epochs * fit.len().div_ceil(batch),
        parameters: grid.probes[0].parameters.iter().map(|(_, p)| p.value().len()).sum(),
    })
}

/// Number of images that [`attentive`] reads, given the training labels and the number of test
/// images.
pub fn images_read(options: &AttentiveOptions, train: &[u32], test: usize) -> usize {
    let (fit, held_out) = options.parts(train);
    options.epochs * fit.len() + held_out.len() + test
}

fn known_classes(labels: &[u32]) -> Result<Vec<u32>> {
    let classes = classes(labels);
    match classes.as_slice() {
        [] => Err(Error::Empty { which: "training tokens", rows: 0, dim: 0 }),
        [label] => Err(Error::OneClass { rows: labels.len(), label: *label }),
        _ => Ok(classes),
    }
}

impl AttentiveOptions {
    /// Refuses settings out of range.
    ///
    /// # Errors
    /// The setting that is out of range, and what is expected.
    pub fn check(&self) -> Result<()> {
        let positive = |x: &f64| *x > 0.0 && x.is_finite();
        let wrong =
            |setting, found: String, expected| Err(Error::Setting { setting, found, expected });
        if self.epochs == 0 || self.batch == Some(0) {
            let setting = if self.epochs == 0 { "epochs" } else { "batch" };
            return wrong(setting, "0".into(), "1 or more");
        }
        if self.lrs.is_empty() || !self.lrs.iter().all(positive) {
            return wrong("lr", format!("{:?}", self.lrs), "one or more numbers above 0");
        }
        let decays = &self.weight_decays;
        if decays.is_empty() || !decays.iter().all(|x| *x == 0.0 || positive(x)) {
            return wrong("weight_decay", format!("{decays:?}"), "one or more numbers, 0 or above");
        }
        Ok(())
    }

    /// Images for fitting, and images for choosing the probe.
    fn parts(&self, labels: &[u32]) -> (Vec<usize>, Vec<usize>) {
        match self.lrs.len() * self.weight_decays.len() {
            1 => ((0..labels.len()).collect(), Vec::new()),
            _ => split(labels),
        }
    }
}

/// A probe and its optimizer.
struct GridProbe {
    head: Head,
    parameters: Vec<(String, Parameter)>,
    adamw: AdamW,
    lr: f64,
    weight_decay: f64,
    /// Mean loss of this epoch. None once it is not finite.
    loss: Option<f64>,
}

impl GridProbe {
    /// A step on a batch at `share` of the training, 0 to 1. NaN if the probe has diverged.
    fn step(
        &mut self,
        form: AttentiveForm,
        batch: &TokenBatch,
        columns: &[u32],
        share: f64,
    ) -> Result<f64> {
        let tape = Tape::new();
        let logits = self.head.forward(&tape, &batch.tokens, &batch.segments)?;
        let loss = ops::cross_entropy(&tape, &logits, columns)?;
        zero_grad(self.parameters.iter().map(|(_, parameter)| parameter));
        tape.backward(&loss)?;
        let value = f64::from(loss.item());
        let clipped = form == AttentiveForm::VJepa1 && value.is_finite();
        if !value.is_finite() || (clipped && clip_grad_norm(&self.parameters, 1.0).is_err()) {
            return Ok(f64::NAN);
        }
        let lr = (0.5 * self.lr * (1.0 + (PI * share).cos())) as f32;
        let decay = form.decay(self.weight_decay, share) as f32;
        self.adamw.step(self.parameters.iter().map(|(name, parameter)| {
            let decayed =
                form == AttentiveForm::VJepa2 || decays_by_default(name, &parameter.shape());
            (name.as_str(), parameter, lr, if decayed { decay } else { 0.0 })
        }));
        Ok(value)
    }
}

/// The probes of a grid.
struct ProbeGrid<'a> {
    options: &'a AttentiveOptions,
    probes: Vec<GridProbe>,
    classes: Vec<u32>,
    /// Images of a step.
    batch: usize,
    /// The probe whose logits are collected.
    kept: Option<usize>,
}

/// Predictions of a grid.
struct GridOutput {
    /// Number of correct predictions of each probe.
    right: Vec<usize>,
    /// Logits of the kept probe `[B, K]`.
    values: Vec<f32>,
    /// The images' classes `[B]`.
    truth: Vec<u32>,
}

impl<'a> ProbeGrid<'a> {
    fn new(
        options: &'a AttentiveOptions,
        sizes: (usize, usize),
        (classes, batch): (Vec<u32>, usize),
    ) -> Self {
        let probe = |lr: f64, weight_decay: f64| {
            // All probes start with the same weights, so they differ only by their grid values.
            let head = Head::new(options.form, sizes, classes.len(), options.seed);
            let (parameters, loss) = (head.parameters(), Some(0.0));
            // torch's default betas and eps of AdamW, as in V-JEPA.
            GridProbe {
                head,
                parameters,
                adamw: AdamW::new((0.9, 0.999), 1e-8),
                lr,
                weight_decay,
                loss,
            }
        };
        let pairs =
            options.lrs.iter().flat_map(|lr| options.weight_decays.iter().map(|wd| (*lr, *wd)));
        Self {
            options,
            probes: pairs.map(|(lr, decay)| probe(lr, decay)).collect(),
            classes,
            batch,
            kept: None,
        }
    }

    fn train<T: Tokens>(
        &mut self,
        train: &mut T,
        fit: &[usize],
        done: &mut dyn FnMut(usize),
        stopped: StopCheck<'_>,
    ) -> std::result::Result<(), T::Error> {
        let (batch, epochs, seed) = (self.batch, self.options.epochs, self.options.seed);
        let all = (epochs * fit.len()) as f64;
        let mut seen = 0;
        for epoch in 0..epochs {
            let mut order = fit.to_vec();
            Random::new(seed, "attentive order", epoch as u64).shuffle(&mut order);
            self.probes.iter_mut().for_each(|probe| probe.loss = probe.loss.and(Some(0.0)));
            train.read(&order, batch, &mut |batch| {
                self.step(batch, seen as f64 / all, order.len(), stopped)?;
                seen += batch.labels.len();
                done(batch.labels.len());
                Ok(())
            })?;
        }
        Ok(())
    }

    /// A step of every probe that is still finite.
    fn step(
        &mut self,
        batch: &TokenBatch,
        share: f64,
        images: usize,
        stopped: StopCheck<'_>,
    ) -> Result<()> {
        // The image is from the training set, so its class is known.
        let column = |label| self.classes.binary_search(label).expect("a known class") as u32;
        let columns: Vec<u32> = batch.labels.iter().map(column).collect();
        let weight = columns.len() as f64 / images as f64;
        for probe in &mut self.probes {
            if stopped() {
                return Err(Error::Stopped);
            }
            let Some(mean) = probe.loss else { continue };
            let loss = probe.step(self.options.form, batch, &columns, share)?;
            probe.loss = Some(mean + weight * loss).filter(|loss| loss.is_finite());
        }
        Ok(())
    }

    /// The finite probe with the best accuracy on held-out images. Of equal probes the first is
    /// chosen.
    fn best(&self, held_out: &[Option<f64>]) -> Result<usize> {
        let finite = (0..self.probes.len()).filter(|&i| self.probes[i].loss.is_some());
        let better = |best: usize, i| if held_out[i] > held_out[best] { i } else { best };
        finite.reduce(better).ok_or(Error::Diverged)
    }

    /// The predictions of the probes for the images of these indices.
    fn right<T: Tokens>(
        &self,
        tokens: &mut T,
        order: &[usize],
        done: &mut dyn FnMut(usize),
        stopped: StopCheck<'_>,
    ) -> std::result::Result<GridOutput, T::Error> {
        let right = vec![0; self.probes.len()];
        let mut read = GridOutput { right, values: Vec::new(), truth: Vec::new() };
        tokens.read(order, self.batch.max(64), &mut |batch| {
            for (i, probe) in self.probes.iter().enumerate() {
                if stopped() {
                    return Err(Error::Stopped);
                }
                let tape = Tape::inference();
                let logits = probe.head.forward(&tape, &batch.tokens, &batch.segments)?;
                let scores = Scores { values: logits.to_vec(), classes: self.classes.clone() };
                let given = scores.prediction(&batch.labels).labels;
                read.right[i] += given.iter().zip(&batch.labels).filter(|(a, b)| a == b).count();
                if self.kept == Some(i) {
                    read.values.extend(scores.values);
                }
            }
            read.truth.extend(&batch.labels);
            done(batch.labels.len());
            Ok(())
        })?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::random::Random;

    /// Images and their tokens in memory.
    struct TokensInMemory {
        tokens: Vec<f32>,
        labels: Vec<u32>,
    }

    const WIDTH: usize = 8;
    const TOKENS: usize = 3;

    impl TokensInMemory {
        /// Noise around one of two centres. The label is the centre's number, or that of the other
        /// centre if `flipped`.
        fn new(images: usize, flipped: bool, seed: u64) -> Self {
            let mut random = Random::new(seed, "attentive test", 0);
            let (mut tokens, mut labels) = (Vec::new(), Vec::new());
            for image in 0..images {
                let class = image % 2;
                labels.push((class ^ usize::from(flipped)) as u32);
                for at in 0..TOKENS * WIDTH {
                    let centre = if at % 2 == class { 1.5 } else { -1.5 };
                    tokens.push(centre + random.normal());
                }
            }
            Self { tokens, labels }
        }
    }

    impl Tokens for TokensInMemory {
        type Error = Error;

        fn labels(&self) -> &[u32] {
            &self.labels
        }

        fn width(&self) -> usize {
            WIDTH
        }

        fn heads(&self) -> usize {
            2
        }

        fn read(
            &mut self,
            order: &[usize],
            batch: usize,
            each: &mut dyn FnMut(&TokenBatch) -> Result<()>,
        ) -> Result<()> {
            for images in order.chunks(batch) {
                let size = TOKENS * WIDTH;
                let of = |i: &usize| self.tokens[i * size..(i + 1) * size].to_vec();
                let values: Vec<f32> = images.iter().flat_map(of).collect();
                each(&TokenBatch {
                    tokens: Tensor::from_vec(values, &[images.len() * TOKENS, WIDTH]),
                    segments: Segments::uniform(images.len(), TOKENS),
                    labels: images.iter().map(|&i| self.labels[i]).collect(),
                })?;
            }
            Ok(())
        }
    }

    fn probe(flipped: bool, lrs: &[f64]) -> AttentiveResult {
        let (mut train, mut test) =
            (TokensInMemory::new(60, false, 1), TokensInMemory::new(40, flipped, 2));
        let options = AttentiveOptions {
            epochs: 8,
            batch: Some(8),
            lrs: lrs.into(),
            weight_decays: vec![0.01],
            ..AttentiveOptions::default()
        };
        attentive(&mut train, &mut test, &options, &mut |_| {}, &|| false).unwrap()
    }

    #[test]
    fn the_probe_is_chosen_on_training_images_and_never_on_the_test() {
        // One probe learns, the other hardly changes. On flipped test images the first is worse.
        for (flipped, lrs) in [(false, [3e-3, 1e-9]), (true, [3e-3, 1e-9]), (true, [1e-9, 3e-3])] {
            let found = probe(flipped, &lrs);
            let best = &found.trials[found.best];
            assert_eq!(best.lr, 3e-3, "{:?}", found.trials);
            assert!(best.held_out.unwrap() > 0.9 && (best.test > 0.9) != flipped);
            let other = &found.trials[1 - found.best];
            assert!(!flipped || other.test > best.test, "{:?}", found.trials);
            // The scores are the chosen probe's.
            let report = found.scores.report(&found.truth);
            assert_eq!((report.accuracy, report.images), (best.test, 40));
            assert_eq!((found.fitted, found.batch, found.steps), (48, 8, 48));
        }
    }

    #[test]
    fn the_rate_falls_to_zero_and_decay_falls_with_it() {
        let mut kept = TokensInMemory::new(8, false, 3);
        let options = AttentiveOptions { batch: Some(8), ..AttentiveOptions::default() };
        let mut grid = ProbeGrid::new(&options, (WIDTH, 2), (vec![0, 1], 8));
        let moved = |share: f64, grid: &mut ProbeGrid<'_>, kept: &mut TokensInMemory| {
            let before: Vec<_> =
                grid.probes[0].parameters.iter().map(|(_, p)| p.value().to_vec()).collect();
            let order: Vec<usize> = (0..8).collect();
            kept.read(&order, 8, &mut |batch| grid.step(batch, share, 8, &|| false)).unwrap();
            let after = grid.probes[0].parameters.iter().map(|(_, p)| p.value().to_vec());
            let apart = |(a, b): (Vec<f32>, Vec<f32>)| -> f32 {
                a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
            };
            before.into_iter().zip(after).map(apart).fold(0.0, f32::max)
        };
        // AdamW's first step changes each value with a gradient by about its rate: 1e-2 in this
        // grid.
        let first = moved(0.0, &mut grid, &mut kept);
        assert!((0.9e-2..1.2e-2).contains(&first), "{first}");
        let middle = moved(0.5, &mut grid, &mut kept);
        assert!((0.3..0.7).contains(&(middle / first)), "{middle} after {first}");
        assert_eq!(moved(1.0, &mut grid, &mut kept), 0.0);
        assert!((AttentiveForm::VJepa1.decay(0.4, 0.5) - 0.2).abs() < 1e-5);
        assert_eq!(AttentiveForm::VJepa2.decay(0.4, 0.5), 0.4);
    }

    #[test]
    fn small_sets_get_small_batches() {
        assert_eq!([100, 996, 3840, 9000].map(usual_batch), [8, 16, 64, 64]);
        let forms = [AttentiveForm::VJepa1, AttentiveForm::VJepa2];
        assert_eq!(forms.map(|form| form.heads(192, 3)), [3, 16]);
    }
}
