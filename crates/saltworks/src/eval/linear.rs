//! The linear probe: logistic regression on standardised features. Its penalty is chosen on part of
//! the training rows.

use super::features::{Standardizer, check_pair};
use super::lbfgs::{Minimum, StopRule};
use super::logistic::{Gram, Logistic};
use super::{Error, Features, Prediction, Result, Scores, StopCheck};

/// How a linear probe is fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearOptions {
    /// Penalties to choose from: the loss is mean cross-entropy + (l2 / 2) |W|². If the best is the
    /// weakest or the strongest of them, powers of ten beyond it are tried while accuracy rises.
    pub l2: Vec<f64>,
    /// Largest number of L-BFGS steps for each penalty.
    pub iterations: usize,
    /// The share of its loss by which a fit may lie above the minimum. If rows can be separated
    /// without error, both the loss and the permitted difference are small.
    pub tolerance: f64,
}

impl Default for LinearOptions {
    fn default() -> Self {
        // On 9,000 rows scikit-learn's C = 1 is l2 = 1.1e-4. The grid covers powers of ten on both
        // sides of it, with one more on the strong side for wide features.
        Self { l2: vec![1e-1, 1e-2, 1e-3, 1e-4, 1e-5], iterations: 1000, tolerance: 1e-4 }
    }
}

/// The result of a linear probe.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearResult {
    /// The prediction on the test rows.
    pub prediction: Prediction,
    /// The logits of the test rows.
    pub scores: Scores,
    /// The penalty chosen.
    pub l2: f64,
    /// Whether it was chosen on held-out training rows. It is not if only one penalty was given, or
    /// if no class has five rows. In the first case the given penalty is used, in the second 1 /
    /// rows, scikit-learn's C = 1.
    pub chosen: bool,
    /// Loss on all training rows with that penalty: mean cross-entropy + (l2 / 2) |W|².
    pub loss: f64,
    /// An upper bound of the share by which the loss lies above the minimum: the duality gap, up to
    /// the rounding of logits to f32, about 1e-7. It exceeds the tolerance if the iterations or the
    /// precision did not suffice.
    pub gap: f64,
}

/// Fits on `train` and predicts `test`. Every fifth row of a class is held out to choose the
/// penalty. The final model is fitted on all of `train`.
pub fn linear(
    train: &Features,
    test: &Features,
    options: &LinearOptions,
    stopped: StopCheck<'_>,
) -> Result<LinearResult> {
    options.check()?;
    check_pair(train, test)?;
    if let Some(&label) = train.labels.first()
        && train.labels.iter().all(|other| *other == label)
    {
        return Err(Error::OneClass { rows: train.len(), label });
    }
    let standardizer = Standardizer::fit(train);
    let (train, test) = (standardizer.apply(train), standardizer.apply(test));
    let gram = Gram::new(&train, stopped);
    let (l2, chosen, mut model) = options.choose(&train, &gram, stopped)?;
    let stop = StopRule { gap: options.tolerance, iterations: options.iterations, stopped };
    let Minimum { value: loss, gap } = model.fit(&train, &gram, l2, stop);
    let scores = model.scores(&test, stopped);
    if stopped() {
        return Err(Error::Stopped);
    }
    Ok(LinearResult { prediction: scores.prediction(&test.labels), scores, l2, chosen, loss, gap })
}

impl LinearOptions {
    fn check(&self) -> Result<()> {
        if self.l2.is_empty() || self.l2.iter().any(|l2| !(*l2 > 0.0 && l2.is_finite())) {
            let found = format!("{:?}", self.l2);
            let expected = "one or more numbers above 0";
            return Err(Error::Setting { setting: "l2", found, expected });
        }
        if self.tolerance.is_nan() || self.tolerance <= 0.0 {
            let found = self.tolerance.to_string();
            let expected = "a number above 0";
            return Err(Error::Setting { setting: "tolerance", found, expected });
        }
        Ok(())
    }

    /// The penalty with the best accuracy on held-out training rows. Of equal penalties of the grid
    /// the strongest is chosen. Its fitted model is the start of the last fit.
    fn choose(
        &self,
        train: &Features,
        gram: &Gram,
        stopped: StopCheck<'_>,
    ) -> Result<(f64, bool, Logistic)> {
        let mut model = Logistic::new(&train.labels, train.dim);
        let mut grid = self.l2.clone();
        // From strong to weak penalties, so each fit starts near its minimum.
        grid.sort_by(|a, b| b.total_cmp(a));
        let (fit, held_out) = split(&train.labels);
        if grid.len() == 1 {
            return Ok((grid[0], false, model));
        }
        if held_out.is_empty() {
            return Ok((1.0 / train.len() as f64, false, model));
        }
        // A hundred times looser than the last fit, because accuracies settle much earlier.
        let stop = StopRule { gap: 100.0 * self.tolerance, iterations: self.iterations, stopped };
        let (fit, held_out) = (train.select(&fit), train.select(&held_out));
        let mut choice = Choice { fit, held_out, gram, stop, best: None };
        for &l2 in &grid {
            choice.try_penalty(&mut model, l2)?;
        }
        choice.go_beyond(&grid, model)?;
        let (_, l2, model) = choice.into_best();
        Ok((l2, true, model))
    }
}

/// Penalties beyond a grid, from strong to weak. Weaker ones change no probabilities that f32 can
/// hold on features of any use, and stronger ones leave only the shares of the classes. (guess)
const BEYOND: [f64; 12] = [1e3, 1e2, 1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8];

/// The weakest and the strongest penalty that is tried beyond a grid.
pub const L2_BOUNDS: [f64; 2] = [BEYOND[BEYOND.len() - 1], BEYOND[0]];

/// The search for a penalty.
struct Choice<'a> {
    fit: Features,
    held_out: Features,
    gram: &'a Gram,
    stop: StopRule<'a>,
    /// The best accuracy so far, with its penalty and the model fitted with it.
    best: Option<(f64, f64, Logistic)>,
}

impl Choice<'_> {
    /// Moves `model` to the minimum for a penalty. Returns whether it is better than all before.
    fn try_penalty(&mut self, model: &mut Logistic, l2: f64) -> Result<bool> {
        model.fit(&self.fit, self.gram, l2, self.stop);
        let scores = model.scores(&self.held_out, self.stop.stopped);
        if (self.stop.stopped)() {
            return Err(Error::Stopped);
        }
        let accuracy = scores.prediction(&self.held_out.labels).accuracy;
        let is_best = self.best.as_ref().is_none_or(|(highest, ..)| accuracy > *highest);
        if is_best {
            self.best = Some((accuracy, l2, model.clone()));
        }
        Ok(is_best)
    }

    /// If the best penalty is an end of the grid, tries powers of ten beyond it while they are
    /// better. The grid is ordered from strong to weak, and `model` is fitted with its last.
    fn go_beyond(&mut self, grid: &[f64], mut model: Logistic) -> Result<()> {
        let (strongest, weakest) = (grid[0], grid[grid.len() - 1]);
        let Some((_, best, fitted)) = &self.best else { return Ok(()) };
        let beyond: Vec<f64> = if *best == weakest {
            BEYOND.into_iter().filter(|l2| *l2 < weakest).collect()
        } else if *best == strongest {
            model = fitted.clone();
            BEYOND.into_iter().rev().filter(|l2| *l2 > strongest).collect()
        } else {
            Vec::new()
        };
        for l2 in beyond {
            if !self.try_penalty(&mut model, l2)? {
                break;
            }
        }
        Ok(())
    }

    fn into_best(self) -> (f64, f64, Logistic) {
        // `check` refuses an empty grid.
        self.best.expect("a penalty was tried")
    }
}

/// Rows for fitting and held-out rows. Every fifth row of each class is held out.
pub(super) fn split(labels: &[u32]) -> (Vec<usize>, Vec<usize>) {
    let mut seen = std::collections::BTreeMap::new();
    (0..labels.len()).partition(|&i| {
        let count = seen.entry(labels[i]).or_insert(0);
        *count += 1;
        *count % 5 != 0
    })
}
