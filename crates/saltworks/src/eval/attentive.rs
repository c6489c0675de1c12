//! The attentive probe: a small network that reads all tokens of a frozen encoder, one for each learning
//! rate and weight decay of a grid, all trained in one pass over the tokens.

mod head;

use super::knn::classes;
use super::linear::split;
use super::{Asked, Error, Result, Scores};
use engine::optim::{AdamW, clip_grad_norm, decays_by_default};
use engine::random::Random;
use engine::{Module as _, Parameter, Segments, Tape, Tensor, ops};
use head::Head;
use serde::Serialize;
use std::f64::consts::PI;

/// Whose attentive probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttentiveForm {
    /// One cross-attention block with a learned query; gradients clipped at 1, matrices decayed. V-JEPA
    /// (Bardes et al. 2024), facebookresearch/jepa evals/image_classification_frozen/eval.py.
    VJepa1,
    /// Three self-attention blocks before it; no clipping, all decayed. V-JEPA 2 (Assran et al. 2025), and
    /// SALT (section 3).
    VJepa2,
}

impl AttentiveForm {
    fn blocks(self) -> usize {
        match self {
            Self::VJepa1 => 0,
            Self::VJepa2 => 3,
        }
    }
}

/// How attentive probes are trained: AdamW, its rate falling by half a cosine to 0.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentiveOptions {
    /// Whose.
    pub form: AttentiveForm,
    /// Passes over the training images.
    pub epochs: usize,
    /// Images of a step.
    pub batch: usize,
    /// First learning rates of the grid.
    pub lrs: Vec<f64>,
    /// Weight decays of the grid.
    pub weight_decays: Vec<f64>,
    /// Keys first weights and the order of images.
    pub seed: u64,
}

impl Default for AttentiveOptions {
    /// Epochs are SALT's and V-JEPA 2's; their grid is these rates, 5e-3 and 1e-4 with these decays, 0.8 and
    /// 0.1, at a batch of 256 to 1,024.
    fn default() -> Self {
        Self {
            form: AttentiveForm::VJepa1,
            epochs: 20,
            batch: 64,
            lrs: vec![3e-3, 1e-3, 3e-4],
            weight_decays: vec![0.4, 0.01],
            seed: 0,
        }
    }
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

/// Images whose tokens a frozen encoder makes, or has made.
pub trait Tokens {
    /// What can go wrong with them.
    type Error: From<Error>;

    /// Class of each image.
    fn labels(&self) -> &[u32];

    /// D
    fn width(&self) -> usize;

    /// Calls `each` with the images of these numbers, in this order, `batch` at a time.
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
    /// First learning rate.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Mean training loss of the last epoch; none if it diverged.
    pub loss: Option<f64>,
    /// Share of the training images held out that it gets right; none if none are.
    pub held_out: Option<f64>,
    /// Share of the test images that it gets right. The best of these is what V-JEPA 2 reports.
    pub test: f64,
}

/// What an attentive probe found.
#[derive(Clone, Debug, PartialEq)]
pub struct Attentive {
    /// The whole grid, rate by rate.
    pub trials: Vec<Trial>,
    /// The one chosen: the best on held-out training images.
    pub best: usize,
    /// Its logits of the test images.
    pub scores: Scores,
    /// The classes of the test images as they were read `[B]`.
    pub truth: Vec<u32>,
    /// A: the most up to 16 that divide D.
    pub heads: usize,
    /// Values that one probe trains.
    pub parameters: usize,
}

/// Trains the grid on `train`, whose every fifth image of a class chooses the probe (unless the grid is
/// one alone), and predicts `test`. `done` hears of every image read.
///
/// # Errors
/// Settings out of range, fewer than two classes, every probe diverged, and what [`Tokens`] fails with.
pub fn attentive<T: Tokens>(
    train: &mut T,
    test: &mut T,
    options: &AttentiveOptions,
    done: &mut dyn FnMut(usize),
    asked: Asked<'_>,
) -> std::result::Result<Attentive, T::Error> {
    options.check()?;
    let classes = known_classes(train.labels())?;
    let (width, heads) = (train.width(), heads(train.width()));
    let mut grid = Grid::new(options, (width, heads), classes);
    let (fit, held_out) = options.parts(train.labels());
    grid.train(train, &fit, done, asked)?;
    let mut chosen = vec![None; grid.probes.len()];
    if !held_out.is_empty() {
        let right = grid.right(train, &held_out, options.batch, done, asked)?.right;
        chosen = right.iter().map(|right| Some(*right as f64 / held_out.len() as f64)).collect();
    }
    let best = grid.best(&chosen)?;
    let all: Vec<usize> = (0..test.labels().len()).collect();
    grid.kept = Some(best);
    let Read { right, values, truth } = grid.right(test, &all, options.batch, done, asked)?;
    let trial = |((probe, held_out), right): ((&Probe, _), usize)| Trial {
        lr: probe.lr,
        weight_decay: probe.weight_decay,
        loss: probe.loss,
        held_out,
        test: right as f64 / all.len() as f64,
    };
    Ok(Attentive {
        trials: grid.probes.iter().zip(chosen).zip(right).map(trial).collect(),
        best,
        scores: Scores { values, classes: grid.classes },
        truth,
        heads,
        parameters: grid.probes[0].parameters.iter().map(|(_, p)| p.value().len()).sum(),
    })
}

/// Images that [`attentive`] reads of so many training and test images.
pub fn images_read(options: &AttentiveOptions, train: &[u32], test: usize) -> usize {
    let (fit, held_out) = options.parts(train);
    options.epochs * fit.len() + held_out.len() + test
}

/// The most heads up to 16, V-JEPA 2's, that divide the width.
fn heads(width: usize) -> usize {
    // 1 divides all.
    (1..=16).rev().find(|heads| width.is_multiple_of(*heads)).expect("a divisor")
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
    fn check(&self) -> Result<()> {
        let positive = |x: &f64| *x > 0.0 && x.is_finite();
        let wrong =
            |setting, found: String, expected| Err(Error::Setting { setting, found, expected });
        if self.epochs == 0 || self.batch == 0 {
            let found = format!("{} and {}", self.epochs, self.batch);
            return wrong("epochs and batch", found, "1 or more each");
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

    /// Images to fit on and images that choose.
    fn parts(&self, labels: &[u32]) -> (Vec<usize>, Vec<usize>) {
        match self.lrs.len() * self.weight_decays.len() {
            1 => ((0..labels.len()).collect(), Vec::new()),
            _ => split(labels),
        }
    }
}

/// A probe and its optimizer.
struct Probe {
    head: Head,
    parameters: Vec<(String, Parameter)>,
    adamw: AdamW,
    lr: f64,
    weight_decay: f64,
    /// Mean of this epoch; none once it is not finite.
    loss: Option<f64>,
}

impl Probe {
    /// A step on a batch at `share` of the way, 0 to 1. Of a probe that has diverged nothing more is asked.
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
        self.parameters.iter().for_each(|(_, parameter)| parameter.zero_grad());
        tape.backward(&loss)?;
        let value = f64::from(loss.item());
        let clipped = form == AttentiveForm::VJepa1 && value.is_finite();
        if !value.is_finite() || (clipped && clip_grad_norm(&self.parameters, 1.0).is_err()) {
            return Ok(f64::NAN);
        }
        let lr = (0.5 * self.lr * (1.0 + (PI * share).cos())) as f32;
        let decay = self.weight_decay as f32;
        self.adamw.step(self.parameters.iter().map(|(name, parameter)| {
            let decayed =
                form == AttentiveForm::VJepa2 || decays_by_default(name, &parameter.shape());
            (name.as_str(), parameter, lr, if decayed { decay } else { 0.0 })
        }));
        Ok(value)
    }
}

/// The probes of a grid.
struct Grid<'a> {
    options: &'a AttentiveOptions,
    probes: Vec<Probe>,
    classes: Vec<u32>,
    /// The probe whose logits are wanted.
    kept: Option<usize>,
}

/// What a grid makes of some images.
struct Read {
    /// How many each probe gets right.
    right: Vec<usize>,
    /// Logits of the probe that is kept `[B, K]`.
    values: Vec<f32>,
    /// The images' classes `[B]`.
    truth: Vec<u32>,
}

impl<'a> Grid<'a> {
    fn new(options: &'a AttentiveOptions, sizes: (usize, usize), classes: Vec<u32>) -> Self {
        let probe = |lr: f64, weight_decay: f64| {
            // All start alike, so that they differ by the grid alone.
            let head = Head::new(options.form, sizes, classes.len(), options.seed);
            let (parameters, loss) = (head.parameters(), Some(0.0));
            // torch's AdamW, as V-JEPA leaves it.
            Probe {
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
            kept: None,
        }
    }

    fn train<T: Tokens>(
        &mut self,
        train: &mut T,
        fit: &[usize],
        done: &mut dyn FnMut(usize),
        asked: Asked<'_>,
    ) -> std::result::Result<(), T::Error> {
        let (batch, epochs, seed) = (self.options.batch, self.options.epochs, self.options.seed);
        let all = (epochs * fit.len()) as f64;
        let mut seen = 0;
        for epoch in 0..epochs {
            let mut order = fit.to_vec();
            Random::new(seed, "attentive order", epoch as u64).shuffle(&mut order);
            self.probes.iter_mut().for_each(|probe| probe.loss = probe.loss.and(Some(0.0)));
            train.read(&order, batch, &mut |batch| {
                self.step(batch, seen as f64 / all, order.len(), asked)?;
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
        asked: Asked<'_>,
    ) -> Result<()> {
        // An image read in place of one that cannot be is of the same set: its class is known.
        let column = |label| self.classes.binary_search(label).expect("a known class") as u32;
        let columns: Vec<u32> = batch.labels.iter().map(column).collect();
        let weight = columns.len() as f64 / images as f64;
        for probe in &mut self.probes {
            if asked() {
                return Err(Error::Stopped);
            }
            let Some(mean) = probe.loss else { continue };
            let loss = probe.step(self.options.form, batch, &columns, share)?;
            probe.loss = Some(mean + weight * loss).filter(|loss| loss.is_finite());
        }
        Ok(())
    }

    /// The finite probe with the best share on held-out images, of equal ones the first.
    fn best(&self, held_out: &[Option<f64>]) -> Result<usize> {
        let finite = (0..self.probes.len()).filter(|&i| self.probes[i].loss.is_some());
        let better = |best: usize, i| if held_out[i] > held_out[best] { i } else { best };
        finite.reduce(better).ok_or(Error::Diverged)
    }

    /// What the probes make of the images of these numbers.
    fn right<T: Tokens>(
        &self,
        tokens: &mut T,
        order: &[usize],
        batch: usize,
        done: &mut dyn FnMut(usize),
        asked: Asked<'_>,
    ) -> std::result::Result<Read, T::Error> {
        let right = vec![0; self.probes.len()];
        let mut read = Read { right, values: Vec::new(), truth: Vec::new() };
        tokens.read(order, batch, &mut |batch| {
            for (i, probe) in self.probes.iter().enumerate() {
                if asked() {
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
