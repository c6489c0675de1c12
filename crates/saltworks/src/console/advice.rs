//! Signs that training goes wrong, and what to do about each.

use crate::run_files::{Alarm, OnlineProbe};

/// Advice is given if steps spend at least this share of their time waiting for data.
const MOST_WAIT: f64 = 0.2;

/// Spread and rank below which all images have nearly the same features. (guess: encoders that
/// learn stay above 0.03 and 1.7 in all runs of LOG.md)
const COLLAPSED_STD: f64 = 0.01;
const COLLAPSED_RANK: f64 = 1.5;
/// Spread below which features are constant up to rounding. No encoder that sees its images begins
/// so. (guess)
const CONSTANT_STD: f64 = 1e-5;
/// A fall of RankMe below this share of its best value is reported. (guess: encoders that learn
/// keep a fifth or more)
const RANK_LEFT: f64 = 0.15;
/// With fewer images, RankMe depends more on their number than on the encoder. (guess)
const RANK_IMAGES: usize = 64;
/// Consecutive probes that must not be better than the one before the first step. A single one may
/// be noise.
const FLAT_PROBES: usize = 3;
/// Accuracy is not judged before this share of a stage: it often falls at first.
const FLAT_SHARE: f64 = 0.5;

/// Advice if steps spend the share `wait` of their time waiting for data.
pub(super) fn slow_data(wait: f64) -> Option<String> {
    (wait >= MOST_WAIT).then(|| {
        format!(
            "steps wait {:.0} % of their time for data. More data.threads decode more images at \
             once. Smaller images decode faster",
            100.0 * wait
        )
    })
}

/// The alarms for the probes of a stage, each with the steps made before it. `share` of the stage
/// is done. An earlier alarm that is not returned is over.
pub fn alarms(probes: &[(u64, &OnlineProbe)], share: f64) -> Vec<Alarm> {
    let Some(&(1.., last)) = probes.last() else { return Vec::new() };
    // A run may begin without probes, and be resumed with them.
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

/// RankMe, if it was measured on enough images.
fn rank(probe: &OnlineProbe) -> Option<f64> {
    probe.rank_me.filter(|_| probe.test_images >= RANK_IMAGES)
}

/// Features are the same for all images, or nearly so if they were not at the start.
fn collapse(start: Option<&OnlineProbe>, last: &OnlineProbe) -> Option<String> {
    let constant = last.feature_std.is_some_and(|std| std < CONSTANT_STD);
    if constant && last.test_images > 1 {
        return Some(
            "all images have the same features. The encoder sees nothing of them: check \
             data.normalize, the images, and the weights that a stage begins with. If it began \
             well, lower lr, lengthen the warmup or set clip"
                .to_owned(),
        );
    }
    let below = |get: fn(&OnlineProbe) -> Option<f64>, bound: f64| {
        let first = start.and_then(get);
        get(last).filter(|value| *value < bound && first.is_none_or(|first| *value < first))
    };
    let std = below(|probe| probe.feature_std, COLLAPSED_STD).map(|std| {
        format!(
            "all images have nearly the same features (feature std {std:.4}, below {COLLAPSED_STD})"
        )
    });
    let sign = std.or_else(|| {
        let rank = below(rank, COLLAPSED_RANK)?;
        Some(format!(
            "features of images vary in hardly more than one direction (RankMe {rank:.2}, below \
             {COLLAPSED_RANK})"
        ))
    })?;
    Some(format!(
        "{sign}. Lower lr, lengthen the warmup or set clip. For a SALT stage, check its teacher"
    ))
}

/// RankMe fell and no accuracy rose. RankMe may also fall in training that goes well.
fn fallen_rank(probes: &[&OnlineProbe], last: &OnlineProbe) -> Option<String> {
    let higher = |best: &OnlineProbe, probe: &OnlineProbe| rank(probe) > rank(best);
    let best = probes
        .iter()
        .copied()
        .reduce(|best, probe| if higher(best, probe) { probe } else { best })?;
    let (now, then) = (rank(last)?, rank(best)?);
    (now < RANK_LEFT * then && !is_better(last, best)).then(|| {
        format!(
            "RankMe fell from {then:.1} to {now:.1}, and no probe became more accurate. Features \
             use fewer and fewer directions. A lower lr or less weight decay may help"
        )
    })
}

/// Whether any accuracy is above that of another probe.
fn is_better(probe: &OnlineProbe, than: &OnlineProbe) -> bool {
    let accuracies =
        |probe: &OnlineProbe| [probe.knn_mean, probe.knn_cls, probe.linear_mean, probe.linear_cls];
    accuracies(probe).into_iter().zip(accuracies(than)).any(|(this, that)| this > that)
}

/// Several probes in a row are no more accurate than the one before the first step.
fn flat(start: &OnlineProbe, since: &[&OnlineProbe], share: f64) -> Option<String> {
    let recent = since.last_chunk::<FLAT_PROBES>()?;
    let (before, now) = (start.knn_mean?, recent[FLAT_PROBES - 1].knn_mean?);
    (!recent.iter().any(|probe| is_better(probe, start))).then(|| {
        format!(
            "after {:.0} % of the stage no probe is more accurate than before the first step, for \
             {FLAT_PROBES} probes in a row (kNN {:.1} %, was {:.1} %). The encoder has not learned \
             to separate the classes. Check masks, lr and augmentation",
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
    fn accuracy_is_called_flat_after_several_probes_without_a_better_one() {
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
    fn features_that_are_constant_from_the_first_step_are_a_collapse() {
        let constant = probe(0.1, 1.0, 0.0);
        assert_eq!(kinds(&[constant.clone(), constant.clone()], 0.1), ["collapse"]);
        let one = OnlineProbe { test_images: 1, ..constant };
        assert!(kinds(&[one.clone(), one], 0.1).is_empty(), "one image has no spread");
    }

    #[test]
    fn a_run_probed_only_from_its_middle_on_is_not_compared_with_a_start() {
        let worse = probe(0.4, 20.0, 0.4);
        let probes = [probe(0.5, 20.0, 0.4), worse.clone(), worse.clone(), worse];
        assert_eq!(kinds(&probes, 0.9), ["flat"]);
        assert!(kinds_from(100, &probes, 0.9).is_empty());
        assert_eq!(kinds_from(100, &[probe(0.5, 20.0, 0.001)], 0.1), ["collapse"]);
    }

    #[test]
    fn the_alarm_of_a_collapse_names_its_sign() {
        let start = probe(0.5, 20.0, 0.4);
        let text = |last: &OnlineProbe| alarms(&[(0, &start), (9, last)], 0.1)[0].text.clone();
        assert!(text(&probe(0.5, 1.27, 0.02)).contains("(RankMe 1.27, below 1.5)"));
        assert!(text(&probe(0.5, 20.0, 0.002)).contains("(feature std 0.0020, below 0.01)"));
    }
}
