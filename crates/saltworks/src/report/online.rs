//! What is known of an encoder while it trains: probe lines and alarm lines of metrics.jsonl.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What probes found at a step. What could not be known is none: accuracies without classes, those of
/// the class token without one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OnlineProbe {
    /// The stage's loss on held-out images, under masks that are always the same.
    pub loss: Option<f64>,
    /// Share of held-out images that kNN on mean tokens puts into the right class, 0 to 1.
    pub knn_mean: Option<f64>,
    /// The same on class tokens.
    pub knn_cls: Option<f64>,
    /// Of a linear probe of one penalty on mean tokens.
    pub linear_mean: Option<f64>,
    /// The same on class tokens.
    pub linear_cls: Option<f64>,
    /// RankMe of the held-out images' mean tokens, 1 to D.
    pub rank_me: Option<f64>,
    /// LiDAR of mean tokens of some training images under augmentation.
    pub lidar: Option<f64>,
    /// Spread of the held-out images' mean tokens: 0 where all are alike, 1 in all directions.
    pub feature_std: Option<f64>,
    /// Training images that kNN and the linear probe learned from.
    pub train_images: usize,
    /// Held-out images; training images where none are held out.
    pub test_images: usize,
    /// Time all this took.
    pub seconds: f64,
    /// Distributions of features and weights, where asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub histograms: BTreeMap<String, Histogram>,
}

impl OnlineProbe {
    /// In one line, for people.
    pub fn text(&self) -> String {
        let percent = |name: &str, x: Option<f64>| x.map(|x| format!("{name} {:.1} %", 100.0 * x));
        let number = |name: &str, x: Option<f64>| x.map(|x| format!("{name} {x:.1}"));
        let parts = [
            percent("kNN", self.knn_mean),
            percent("linear", self.linear_mean),
            number("RankMe", self.rank_me),
            number("LiDAR", self.lidar),
            self.loss.map(|loss| format!("held-out loss {loss:.4}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// How often values fall between edges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Bounds of the bins, ascending, one more than counts.
    pub edges: Vec<f32>,
    /// Values in each bin.
    pub counts: Vec<u64>,
}

impl Histogram {
    const BINS: usize = 30;

    /// Thirty bins from the least to the largest of the values that are finite.
    pub fn of(values: &[f32]) -> Self {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        let (least, most) = (finite().fold(f32::MAX, f32::min), finite().fold(f32::MIN, f32::max));
        // One value, or none: a bin's width to either side of it.
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

/// A sign that a stage goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// In a word: `collapse`, `rank` or `flat`.
    #[serde(rename = "alarm")]
    pub kind: String,
    /// What was seen and what to do.
    pub text: String,
}

/// Spread and rank below which all images have nearly the same features. (guess: encoders that learn
/// stay above 0.1 and 5 in all runs of LOG.md)
const COLLAPSED_STD: f64 = 0.01;
const COLLAPSED_RANK: f64 = 1.5;
/// Part of its best RankMe that is lost when its fall is told. (guess)
const RANK_LEFT: f64 = 0.25;

/// The alarms that the last probe of a stage gives cause for. `share` of the stage is done, `probes`
/// are those so far, the first of them from before the first step.
pub fn alarms(probes: &[OnlineProbe], share: f64) -> Vec<Alarm> {
    let (Some(first), Some(last)) = (probes.first(), probes.last()) else { return Vec::new() };
    if probes.len() < 2 {
        return Vec::new();
    }
    let alarm = |kind: &str, text: String| Some(Alarm { kind: kind.to_owned(), text });
    let below = |value: Option<f64>, bound: f64| value.filter(|value| *value < bound);
    let collapse = match (
        below(last.feature_std, COLLAPSED_STD)
            .filter(|std| *std < first.feature_std.unwrap_or(1.0)),
        below(last.rank_me, COLLAPSED_RANK).filter(|rank| *rank < first.rank_me.unwrap_or(2.0)),
    ) {
        (None, None) => None,
        _ => alarm(
            "collapse",
            format!(
                "all images have nearly the same features (feature std {:.4}, RankMe {:.2}). Lower lr, \
                 lengthen the warmup or set clip; of a SALT stage look at its teacher",
                last.feature_std.unwrap_or(f64::NAN),
                last.rank_me.unwrap_or(f64::NAN)
            ),
        ),
    };
    let best = probes.iter().filter_map(|probe| probe.rank_me).fold(0.0, f64::max);
    let rank = below(last.rank_me, RANK_LEFT * best).filter(|_| collapse.is_none());
    let rank = rank.and_then(|rank| {
        let text = format!(
            "RankMe fell from {best:.1} to {rank:.1}: features use ever fewer directions. A lower lr \
             or less weight decay may keep them"
        );
        alarm("rank", text)
    });
    let flat = match (first.knn_mean, last.knn_mean) {
        (Some(before), Some(now)) if share >= 0.5 && now <= before => alarm(
            "flat",
            format!(
                "after {:.0} % of the stage kNN finds {:.1} %, before its first step {:.1} %: it has \
                 not learned what tells classes apart. Look at masks, lr and augmentation",
                100.0 * share,
                100.0 * now,
                100.0 * before
            ),
        ),
        _ => None,
    };
    [collapse, rank, flat].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(knn: f64, rank: f64, std: f64) -> OnlineProbe {
        OnlineProbe {
            knn_mean: Some(knn),
            rank_me: Some(rank),
            feature_std: Some(std),
            ..OnlineProbe::default()
        }
    }

    fn kinds(probes: &[OnlineProbe], share: f64) -> Vec<String> {
        alarms(probes, share).into_iter().map(|alarm| alarm.kind).collect()
    }

    #[test]
    fn each_way_of_going_wrong_has_its_alarm() {
        let start = probe(0.5, 20.0, 0.4);
        assert!(kinds(&[start.clone(), probe(0.6, 22.0, 0.5)], 0.9).is_empty());
        assert_eq!(kinds(&[start.clone(), probe(0.6, 1.1, 0.001)], 0.1), ["collapse"]);
        assert_eq!(kinds(&[start.clone(), probe(0.6, 4.0, 0.2)], 0.1), ["rank"]);
        assert_eq!(kinds(&[start.clone(), probe(0.5, 20.0, 0.4)], 0.5), ["flat"]);
        assert!(kinds(&[start.clone(), probe(0.5, 20.0, 0.4)], 0.4).is_empty(), "too early to say");
        assert!(kinds(&[start], 1.0).is_empty(), "nothing to compare with");
    }

    #[test]
    fn an_encoder_that_begins_narrow_is_not_called_collapsed() {
        let narrow = probe(0.5, 1.2, 0.005);
        assert!(kinds(&[narrow.clone(), probe(0.6, 1.3, 0.006)], 0.9).is_empty());
    }

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
    fn a_probe_is_told_in_one_line() {
        let text = OnlineProbe { loss: Some(0.5), ..probe(0.61, 20.0, 0.4) }.text();
        assert_eq!(text, "kNN 61.0 %, RankMe 20.0, held-out loss 0.5000");
    }
}
