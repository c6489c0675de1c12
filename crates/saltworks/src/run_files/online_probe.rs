//! What is known of an encoder while it trains: probe lines and alarm lines of metrics.jsonl.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What probes found at a step. What could not be known is none: accuracies without classes, those of
/// the class token without one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OnlineProbe {
    /// The stage's loss on held-out images (see `held_out`), under masks that are always the same.
    pub loss: Option<f64>,
    /// Share of held-out images that kNN on mean tokens puts into the right class, 0 to 1.
    pub knn_mean: Option<f64>,
    /// The same on class tokens.
    pub knn_cls: Option<f64>,
    /// Of a linear probe on mean tokens.
    pub linear_mean: Option<f64>,
    /// The same on class tokens.
    pub linear_cls: Option<f64>,
    /// RankMe of the held-out images' mean tokens, about 1 to D.
    pub rank_me: Option<f64>,
    /// LiDAR of mean tokens of some training images under augmentation.
    pub lidar: Option<f64>,
    /// Spread of the held-out images' mean tokens: 0 where all are alike, 1 in all directions.
    pub feature_std: Option<f64>,
    /// Training images that kNN and the linear probe learned from.
    pub train_images: usize,
    /// Images of loss, ranks and accuracies.
    pub test_images: usize,
    /// Whether those are held out; else they train, too, and a loss on them tells nothing of others.
    pub held_out: bool,
    /// Time all this took.
    pub seconds: f64,
    /// Distributions of features and weights, where asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub histograms: BTreeMap<String, Histogram>,
}

impl Default for OnlineProbe {
    /// Of nothing, held out.
    fn default() -> Self {
        Self {
            loss: None,
            knn_mean: None,
            knn_cls: None,
            linear_mean: None,
            linear_cls: None,
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
    /// In one line, for people.
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
/// stay above 0.03 and 1.7 in all runs of LOG.md)
const COLLAPSED_STD: f64 = 0.01;
const COLLAPSED_RANK: f64 = 1.5;
/// Part of its best RankMe below which its fall is told. (guess: encoders that learn keep a fifth or more)
const RANK_LEFT: f64 = 0.15;
/// Images without which RankMe tells of their number and not of the encoder. (guess)
const RANK_IMAGES: usize = 64;
/// Probes in a row that must not be better than the one before the first step: one alone is noise.
const FLAT_PROBES: usize = 3;
/// Part of a stage before which nothing is said of accuracy: it often falls at first.
const FLAT_SHARE: f64 = 0.5;

/// The alarms that the probes of a stage, each with the steps it was made after, give cause for. `share` of the
/// stage is done. An alarm that is not among them any more is over.
pub fn alarms(probes: &[(u64, &OnlineProbe)], share: f64) -> Vec<Alarm> {
    let Some(&(1.., last)) = probes.last() else { return Vec::new() };
    // Runs may begin without probes and go on with them.
    let start = probes.first().and_then(|(step, first)| (*step == 0).then_some(*first));
    let probes: Vec<&OnlineProbe> = probes.iter().map(|(_, probe)| *probe).collect();
    let collapse = collapse(start, last);
    let rank = if collapse.is_none() { fallen_rank(&probes, last) } else { None };
    let flat = match start {
        Some(start) if share >= FLAT_SHARE => flat(start, &probes[1..], share),
        _ => None,
    };
    let alarm =
        |kind: &str, text: Option<String>| text.map(|text| Alarm { kind: kind.into(), text });
    let all = [alarm("collapse", collapse), alarm("rank", rank), alarm("flat", flat)];
    all.into_iter().flatten().collect()
}

/// RankMe, where it is of enough images.
fn rank(probe: &OnlineProbe) -> Option<f64> {
    probe.rank_me.filter(|_| probe.test_images >= RANK_IMAGES)
}

/// Features that are nearly the same for all images, unless they are known to have begun so.
fn collapse(start: Option<&OnlineProbe>, last: &OnlineProbe) -> Option<String> {
    let below = |get: fn(&OnlineProbe) -> Option<f64>, bound: f64| {
        let first = start.and_then(get);
        get(last).filter(|value| *value < bound && first.is_none_or(|first| *value < first))
    };
    let std = below(|probe| probe.feature_std, COLLAPSED_STD).map(|std| {
        format!(
            "all images have nearly the same features (feature std {std:.4}, below {COLLAPSED_STD})"
        )
    });
    let seen = std.or_else(|| {
        let rank = below(rank, COLLAPSED_RANK)?;
        Some(format!(
            "features of images differ in hardly more than one direction (RankMe {rank:.2}, below \
             {COLLAPSED_RANK})"
        ))
    })?;
    Some(format!(
        "{seen}. Lower lr, lengthen the warmup or set clip; of a SALT stage look at its teacher"
    ))
}

/// A fall of RankMe by which accuracy did not gain: in training that goes well it may fall, too.
fn fallen_rank(probes: &[&OnlineProbe], last: &OnlineProbe) -> Option<String> {
    let higher = |best: &OnlineProbe, probe: &OnlineProbe| rank(probe) > rank(best);
    let best = probes
        .iter()
        .copied()
        .reduce(|best, probe| if higher(best, probe) { probe } else { best })?;
    let (now, then) = (rank(last)?, rank(best)?);
    (now < RANK_LEFT * then && !is_better(last, best)).then(|| {
        format!(
            "RankMe fell from {then:.1} to {now:.1}, and no probe is more accurate for it: features use \
             ever fewer directions. A lower lr or less weight decay may keep them"
        )
    })
}

/// Whether any accuracy is above that of another probe.
fn is_better(probe: &OnlineProbe, than: &OnlineProbe) -> bool {
    let accuracies =
        |probe: &OnlineProbe| [probe.knn_mean, probe.knn_cls, probe.linear_mean, probe.linear_cls];
    accuracies(probe).into_iter().zip(accuracies(than)).any(|(this, that)| this > that)
}

/// Accuracies of which none is above that before the first step, for several probes.
fn flat(start: &OnlineProbe, since: &[&OnlineProbe], share: f64) -> Option<String> {
    let recent = since.last_chunk::<FLAT_PROBES>()?;
    let (before, now) = (start.knn_mean?, recent[FLAT_PROBES - 1].knn_mean?);
    (!recent.iter().any(|probe| is_better(probe, start))).then(|| {
        format!(
            "after {:.0} % of the stage no probe is more accurate than before the first step, for \
             {FLAT_PROBES} probes in a row (kNN {:.1} %, was {:.1} %): the encoder has not learned what \
             tells classes apart. Look at masks, lr and augmentation",
            100.0 * share,
            100.0 * now,
            100.0 * before
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(knn: f64, rank: f64, std: f64) -> OnlineProbe {
        OnlineProbe {
            knn_mean: Some(knn),
            rank_me: Some(rank),
            feature_std: Some(std),
            test_images: 500,
            ..OnlineProbe::default()
        }
    }

    /// Alarms of probes after 0, 100, 200, ... steps.
    fn kinds(probes: &[OnlineProbe], share: f64) -> Vec<String> {
        kinds_from(0, probes, share)
    }

    fn kinds_from(first: u64, probes: &[OnlineProbe], share: f64) -> Vec<String> {
        let probes: Vec<_> =
            probes.iter().zip(0..).map(|(probe, i)| (first + 100 * i, probe)).collect();
        alarms(&probes, share).into_iter().map(|alarm| alarm.kind).collect()
    }

    #[test]
    fn each_way_of_going_wrong_has_its_alarm() {
        let start = probe(0.5, 20.0, 0.4);
        assert!(kinds(&[start.clone(), probe(0.6, 22.0, 0.5)], 0.9).is_empty());
        assert_eq!(kinds(&[start.clone(), probe(0.6, 1.1, 0.001)], 0.1), ["collapse"]);
        assert_eq!(kinds(&[start.clone(), probe(0.5, 2.0, 0.2)], 0.1), ["rank"]);
        assert!(kinds(&[start.clone(), probe(0.6, 2.0, 0.2)], 0.1).is_empty(), "it learns");
        let of_few = |probe| OnlineProbe { test_images: 8, ..probe };
        let few = [of_few(start.clone()), of_few(probe(0.4, 1.1, 0.2))];
        assert!(kinds(&few, 0.1).is_empty(), "eight images have no rank to lose");
        let healed = [start.clone(), probe(0.6, 1.1, 0.001), probe(0.6, 21.0, 0.4)];
        assert!(kinds(&healed, 0.2).is_empty(), "it is over");
        assert!(kinds(&[start], 1.0).is_empty(), "nothing to compare with");
    }

    #[test]
    fn accuracy_is_called_flat_after_several_probes_none_of_which_is_better() {
        let (start, same) = (probe(0.5, 20.0, 0.4), probe(0.5, 20.0, 0.4));
        let mut probes = vec![start, same.clone(), same.clone()];
        assert!(kinds(&probes, 0.9).is_empty(), "two probes may be noise");
        probes.push(same.clone());
        assert_eq!(kinds(&probes, 0.5), ["flat"]);
        assert!(kinds(&probes, 0.4).is_empty(), "too early to say");
        let linear = OnlineProbe { linear_mean: Some(0.7), ..same };
        probes[0].linear_mean = Some(0.6);
        probes.push(linear);
        assert!(kinds(&probes, 0.9).is_empty(), "another probe is better");
    }

    #[test]
    fn an_encoder_that_begins_narrow_is_not_called_collapsed() {
        let narrow = probe(0.5, 1.2, 0.005);
        assert!(kinds(&[narrow.clone(), probe(0.6, 1.3, 0.006)], 0.9).is_empty());
    }

    #[test]
    fn a_run_probed_from_its_middle_on_is_not_held_against_a_start_that_nobody_knows() {
        let worse = probe(0.4, 20.0, 0.4);
        let probes = [probe(0.5, 20.0, 0.4), worse.clone(), worse.clone(), worse];
        assert_eq!(kinds(&probes, 0.9), ["flat"]);
        assert!(kinds_from(100, &probes, 0.9).is_empty());
        assert_eq!(kinds_from(100, &[probe(0.5, 20.0, 0.001)], 0.1), ["collapse"]);
    }

    #[test]
    fn a_collapse_is_told_by_what_was_seen_of_it() {
        let start = probe(0.5, 20.0, 0.4);
        let text = |last: &OnlineProbe| alarms(&[(0, &start), (9, last)], 0.1)[0].text.clone();
        assert!(text(&probe(0.5, 1.27, 0.02)).contains("(RankMe 1.27, below 1.5)"));
        assert!(text(&probe(0.5, 20.0, 0.002)).contains("(feature std 0.0020, below 0.01)"));
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
