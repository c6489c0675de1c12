//! Curves of any length in bounded memory: a point is the mean of as many steps as necessary.

use crate::run_files::StepLine;
use serde::Serialize;

/// The most points of a curve.
const MOST_POINTS: usize = 1000;

/// The curves of a stage, column by column. Row i stands for the steps after `step[i - 1]` up to
/// `step[i]`; its values are means, except for the extremes.
#[derive(Clone, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the names of StepLine, which documents them")]
pub struct Series {
    pub step: Vec<u64>,
    pub loss: Vec<f64>,
    /// The least loss of these steps.
    pub loss_min: Vec<f64>,
    /// The largest loss of these steps.
    pub loss_max: Vec<f64>,
    pub lr: Vec<f64>,
    pub weight_decay: Vec<f64>,
    pub grad_norm: Vec<f64>,
    pub images_per_second: Vec<f64>,
    pub data_wait_share: Vec<f64>,
    /// Time of all steps up to the row's last, without probes and pauses.
    pub seconds: Vec<f64>,
    /// Steps of each row; the last may have fewer.
    pub width: u64,
    #[serde(skip)]
    rows: Vec<StepSums>,
}

/// Sums over some steps.
#[derive(Clone, Copy, Debug)]
struct StepSums {
    step: u64,
    count: u64,
    sum: StepLine,
    min: f64,
    max: f64,
}

impl Series {
    /// Adds the step after the last one.
    pub fn push(&mut self, step: u64, line: StepLine) {
        let row = StepSums { step, count: 1, sum: line, min: line.loss, max: line.loss };
        let width = self.width.max(1);
        if let Some(last) = self.rows.last_mut().filter(|last| last.count < width) {
            *last = last.and(&row);
        } else {
            if self.rows.len() == MOST_POINTS {
                // A row gets twice as many steps, so there are half as many rows.
                let both = |pair: &[StepSums]| pair[1..].iter().fold(pair[0], |a, b| a.and(b));
                self.rows = self.rows.chunks(2).map(both).collect();
                self.width = 2 * width;
            }
            self.rows.push(row);
        }
        self.width = self.width.max(1);
    }

    /// Fills the columns.
    pub fn settle(&mut self) {
        let rows = &self.rows;
        let mean = |of: fn(&StepLine) -> f64| -> Vec<f64> {
            rows.iter().map(|row| of(&row.sum) / row.count as f64).collect()
        };
        self.step = rows.iter().map(|row| row.step).collect();
        self.loss = mean(|sum| sum.loss);
        self.loss_min = rows.iter().map(|row| row.min).collect();
        self.loss_max = rows.iter().map(|row| row.max).collect();
        self.lr = mean(|sum| sum.lr);
        self.weight_decay = mean(|sum| sum.weight_decay);
        self.grad_norm = mean(|sum| sum.grad_norm);
        self.images_per_second = mean(|sum| sum.images_per_second);
        self.data_wait_share = mean(|sum| sum.data_wait_share);
        let passed = rows.iter().scan(0.0, |passed, row| {
            *passed += row.sum.seconds;
            Some(*passed)
        });
        self.seconds = passed.collect();
    }
}

impl StepSums {
    /// The sums of both; `other` comes later.
    fn and(&self, other: &Self) -> Self {
        let (a, b) = (&self.sum, &other.sum);
        let sum = StepLine {
            seconds: a.seconds + b.seconds,
            loss: a.loss + b.loss,
            lr: a.lr + b.lr,
            weight_decay: a.weight_decay + b.weight_decay,
            grad_norm: a.grad_norm + b.grad_norm,
            images_per_second: a.images_per_second + b.images_per_second,
            data_wait_share: a.data_wait_share + b.data_wait_share,
            context_tokens: a.context_tokens + b.context_tokens,
            target_tokens: a.target_tokens + b.target_tokens,
        };
        Self {
            step: other.step,
            count: self.count + other.count,
            sum,
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(steps: u64) -> Series {
        let mut series = Series::default();
        for step in 1..=steps {
            let loss = if step == 777 { 50.0 } else { step as f64 };
            series.push(step, StepLine { loss, lr: 2.0, ..StepLine::default() });
        }
        series.settle();
        series
    }

    #[test]
    fn a_short_curve_is_unchanged() {
        let series = of(10);
        assert_eq!(series.step, (1..=10).collect::<Vec<u64>>());
        assert_eq!(series.loss, series.loss_max);
        assert_eq!((series.width, series.lr[3]), (1, 2.0));
    }

    #[test]
    fn a_long_curve_has_few_points_and_all_its_extremes() {
        for steps in [1000, 1001, 2001, 123_457] {
            let series = of(steps);
            assert!((500..=1001).contains(&series.step.len()), "{steps}: {}", series.step.len());
            assert_eq!(series.step.last(), Some(&steps));
            let least = series.loss_min.iter().copied().fold(f64::MAX, f64::min);
            let most = series.loss_max.iter().copied().fold(0.0, f64::max);
            assert_eq!((least, most), (1.0, steps as f64));
            assert!(series.loss_min.contains(&50.0), "the step that stands out");
            assert!(series.lr.iter().all(|lr| *lr == 2.0));
            // All rows except the last have the same number of steps.
            let width = series.width;
            assert!(series.step.windows(2).rev().skip(1).all(|pair| pair[1] - pair[0] == width));
        }
    }
}
