//! The probe lines and alarm lines of metrics.jsonl.

use super::Right;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Results of probes at a step. A value is `None` if it cannot be measured: accuracies without
/// classes, or values of the class token without one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OnlineProbe {
    /// The stage's loss on the test images, under masks that are always the same.
    pub loss: Option<f64>,
    /// Share of test images that kNN on mean tokens puts into the right class, 0 to 1.
    pub knn_mean: Option<f64>,
    /// The same on class tokens.
    pub knn_cls: Option<f64>,
    /// The same of a linear probe on mean tokens.
    pub linear_mean: Option<f64>,
    /// The same on class tokens.
    pub linear_cls: Option<f64>,
    /// Which test images each probe classifies right.
    pub right: Right,
    /// RankMe of the test images' mean tokens, about 1 to D.
    pub rank_me: Option<f64>,
    /// LiDAR of mean tokens of some training images under augmentation.
    pub lidar: Option<f64>,
    /// Spread of the test images' mean tokens: 0 if all are alike, 1 if they point everywhere.
    pub feature_std: Option<f64>,
    /// Training images that kNN and the linear probe learn from.
    pub train_images: usize,
    /// Test images: those of loss, ranks and accuracies.
    pub test_images: usize,
    /// Whether the test images are held out. If not, the encoder trains on them, too.
    pub held_out: bool,
    /// Time that the probes took.
    pub seconds: f64,
    /// Distributions of features and weights, if the recipe requests them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub histograms: BTreeMap<String, Histogram>,
}

impl Default for OnlineProbe {
    /// Nothing measured, on held-out images.
    fn default() -> Self {
        Self {
            loss: None,
            knn_mean: None,
            knn_cls: None,
            linear_mean: None,
            linear_cls: None,
            right: Right::default(),
            rank_me: None,
            lidar: None,
            feature_std: None,
            train_images: 0,
            test_images: 0,
            held_out: true,
            seconds: 0.0,
            histograms: BTreeMap::new(),
        }
    }
}

impl OnlineProbe {
    /// When it was made, on how many images, and a summary in one line.
    pub fn line(&self, step: u64) -> String {
        let when = match step {
            0 => "before training".to_owned(),
            step => format!("after step {step}"),
        };
        format!("{when}, on {} images: {}", self.test_images, self.text())
    }

    /// A summary in one line.
    pub fn text(&self) -> String {
        let percent = |name: &str, x: Option<f64>| x.map(|x| format!("{name} {:.1} %", 100.0 * x));
        let number = |name: &str, x: Option<f64>| x.map(|x| format!("{name} {x:.1}"));
        let parts = [
            percent("kNN", self.knn_mean),
            percent("linear", self.linear_mean),
            number("RankMe", self.rank_me),
            number("LiDAR", self.lidar),
            self.loss.map(|loss| match self.held_out {
                true => format!("held-out loss {loss:.4}"),
                false => format!("loss on fixed training images {loss:.4}"),
            }),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// Counts of values between edges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Bounds of the bins, ascending, one more than counts.
    pub edges: Vec<f32>,
    /// Values in each bin.
    pub counts: Vec<u64>,
}

impl Histogram {
    const BINS: usize = 30;

    /// Thirty bins from the least to the largest finite value.
    pub fn of(values: &[f32]) -> Self {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let (least, most) = (finite().fold(f32::MAX, f32::min), finite().fold(f32::MIN, f32::max));
        // One value or none gives bins of a total width of 1.
        let (least, most) = match (least < most, least <= most) {
            (true, _) => (least, most),
            (false, true) => (least - 0.5, least + 0.5),
            (false, false) => (-0.5, 0.5),
        };
        let width = (most - least) / Self::BINS as f32;
        let mut counts = vec![0; Self::BINS];
        for value in finite() {
            counts[(((value - least) / width) as usize).min(Self::BINS - 1)] += 1;
        }
        Self { edges: (0..=Self::BINS).map(|i| least + width * i as f32).collect(), counts }
    }
}

/// A sign that the training of a stage goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// `collapse`, `rank` or `flat`.
    #[serde(rename = "alarm")]
    pub kind: String,
    /// The sign, and what to do.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_every_finite_value_once() {
        let values = [-1.0, 0.0, 0.5, 2.0, f32::NAN, 2.0];
        let histogram = Histogram::of(&values);
        assert_eq!(histogram.counts.iter().sum::<u64>(), 5);
        assert_eq!((histogram.edges[0], histogram.counts[29]), (-1.0, 2));
        assert_eq!(Histogram::of(&[3.0; 4]).counts.iter().sum::<u64>(), 4);
        assert_eq!(Histogram::of(&[]).counts.iter().sum::<u64>(), 0);
    }

    #[test]
    fn a_probe_is_shown_in_one_line() {
        let probe = OnlineProbe {
            loss: Some(0.5),
            knn_mean: Some(0.61),
            rank_me: Some(20.0),
            ..OnlineProbe::default()
        };
        let text = probe.text();
        assert_eq!(text, "kNN 61.0 %, RankMe 20.0, held-out loss 0.5000");
        let probe = OnlineProbe { test_images: 500, ..probe };
        assert_eq!(probe.line(0), format!("before training, on 500 images: {text}"));
        assert_eq!(probe.line(9), format!("after step 9, on 500 images: {text}"));
    }
}
