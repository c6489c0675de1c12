//! The verdict on each stage's encoder: how its frozen features compare with those of others.
//! Accuracies are compared image by image ([`RightImages::compare`]). Smaller differences may be
//! chance.

use crate::eval::{RightImages, wilson};
use crate::run_files::{OnlineProbe, ProbeRow, Right, random_row};
use serde::Serialize;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

/// Differences with a smaller p-value are not put down to chance. It is below the usual 5 %,
/// because several probes of an encoder are compared.
const SIGNIFICANT: f64 = 0.01;
/// The fewest images that must be right for one encoder alone: half to the power of eight, on two
/// sides, is below [`SIGNIFICANT`], and half to the power of seven is not.
const FEWEST_DIFFERENT: usize = 8;
/// With fewer test images, only large differences show. (guess)
const FEW_IMAGES: usize = 100;
/// RankMe below this share of its best value has fallen. (guess: its noise is far smaller)
const RANK_FALLEN: f64 = 0.75;

/// A stage that has begun, and what its online probes found.
pub struct JudgedStage<'a> {
    /// Its name in the recipe.
    pub name: &'a str,
    /// The stage of the run whose encoder is its teacher.
    pub teacher: Option<&'a str>,
    /// Its online probes, each with the steps made before it.
    pub probes: Vec<(u64, &'a OnlineProbe)>,
}

/// The verdict on a stage's encoder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageVerdict {
    /// The stage's name.
    pub stage: String,
    /// How its mean token compares with that of an untrained encoder, if that is known.
    pub outcome: Option<Outcome>,
    /// The verdict in a sentence, and what to do.
    pub text: String,
    /// Sentences on the class token, the teacher, raw pixels, and on what fell in training.
    pub details: Vec<String>,
    /// Accuracies of others on the same images that chance hardly explains.
    pub differences: Vec<Difference>,
}

/// An accuracy that differs from the one of a stage's encoder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// The row of the table of probes, or `before training` for the stage's first online probe.
    pub features: String,
    /// The name of the accuracy in that row.
    pub metric: &'static str,
    /// Whether it is higher than the stage's.
    pub higher: bool,
}

/// How an encoder compares with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// By at least one probe, and worse by none.
    Better,
    /// Chance may explain each difference.
    Same,
    /// Better by one probe and worse by another.
    Mixed,
    /// By at least one probe, and better by none.
    Worse,
}

/// The verdicts on stages. `rows` are the probes made after training.
pub fn verdicts(stages: &[JudgedStage<'_>], rows: &[ProbeRow]) -> Vec<StageVerdict> {
    let others = Others::new(stages, rows);
    let judge = |stage: &JudgedStage<'_>| {
        let mut verdict = match (others.rows.get(stage.name), stage.probes.last()) {
            (Some(trained), _) => of_trained(stage, &others, &Accuracies::of_row(trained)),
            (None, Some((1.., _))) => of_training(stage, &others),
            _ => StageVerdict::without_outcome(
                stage,
                format!("The {} is not probed yet.", stage.name),
            ),
        };
        verdict.details.extend(fallen(&stage.probes));
        verdict
    };
    stages.iter().map(judge).collect()
}

/// What a stage is compared with, by names.
struct Others<'a> {
    stages: HashMap<&'a str, &'a JudgedStage<'a>>,
    rows: HashMap<&'a str, &'a ProbeRow>,
    /// Rows of the stages' images. Those of further test sets have other names.
    same_images: Vec<&'a ProbeRow>,
    /// Whether each of these rows is compared with each other one.
    all_pairs: bool,
}

/// The most images of which all pairs of rows compare the outcomes, which takes about a second.
/// (guess: a run has under ten rows, of at most 11,000 images)
const MOST_COMPARED: usize = 20_000_000;

impl<'a> Others<'a> {
    fn new(stages: &'a [JudgedStage<'a>], rows: &'a [ProbeRow]) -> Self {
        let of_stage = |stage: &JudgedStage<'_>| [stage.name.to_owned(), random_row(stage.name)];
        let mut same: HashSet<String> = stages.iter().flat_map(of_stage).collect();
        same.extend(["raw pixels".to_owned(), "random encoder".to_owned()]);
        // The first of a name counts.
        let by_name = rows.iter().rev().map(|row| (row.name.as_str(), row));
        let same_images: Vec<_> = rows.iter().filter(|row| same.contains(&row.name)).collect();
        // A row without images takes time, too.
        let images = same_images.iter().map(|row| row.images.max(20)).max().unwrap_or(0);
        let compared = images.saturating_mul(same_images.len()).saturating_mul(same_images.len());
        Self {
            stages: stages.iter().map(|stage| (stage.name, stage)).collect(),
            rows: by_name.collect(),
            same_images,
            all_pairs: compared <= MOST_COMPARED,
        }
    }
}

impl StageVerdict {
    fn without_outcome(stage: &JudgedStage<'_>, text: String) -> Self {
        Self {
            stage: stage.name.to_owned(),
            outcome: None,
            text,
            details: Vec::new(),
            differences: Vec::new(),
        }
    }

    /// Compares an encoder with an untrained one by mean tokens. Its class token is part of the
    /// details if it compares in another way.
    fn new(
        stage: &JudgedStage<'_>,
        subject: &str,
        than: &str,
        now: &Accuracies<'_>,
        untrained: Option<&Accuracies<'_>>,
    ) -> Self {
        let compared = untrained.map(|untrained| now.against(untrained));
        let Some([mean, class]) = compared else {
            return Self::without_outcome(stage, now.sentence(subject));
        };
        let outcome = mean.outcome();
        let text = outcome.map_or_else(
            || now.sentence(subject),
            |outcome| match outcome {
                Outcome::Mixed => format!("{subject} is {}.", mean.mixed(than)),
                Outcome::Better => format!("{subject} is better than {than}: {}.", mean.text()),
                Outcome::Same => format!("{subject} is no better than {than}: {}.", mean.text()),
                Outcome::Worse => format!("{subject} is worse than {than}: {}.", mean.text()),
            },
        );
        let other = class.outcome().filter(|class| Some(*class) != outcome);
        let other = other.map(|outcome| match outcome {
            Outcome::Mixed => format!("Its class token is {}.", class.mixed(than)),
            Outcome::Better => format!("Its class token is better: {}.", class.text()),
            Outcome::Same => format!("Its class token is no better: {}.", class.text()),
            Outcome::Worse => format!("Its class token is worse: {}.", class.text()),
        });
        Self { outcome, details: other.into_iter().collect(), ..Self::without_outcome(stage, text) }
    }
}

/// The verdict on a trained encoder, from all images.
fn of_trained(
    stage: &JudgedStage<'_>,
    others: &Others<'_>,
    trained: &Accuracies<'_>,
) -> StageVerdict {
    let row = |name: &str| others.rows.get(name).map(|row| Accuracies::of_row(row));
    let subject = format!("The {}", stage.name);
    // A random encoder of the same size, if there is one.
    let random = row(&random_row(stage.name)).or_else(|| row("random encoder"));
    let mut verdict =
        StageVerdict::new(stage, &subject, "a random encoder", trained, random.as_ref());
    let images = trained.0.iter().flatten().map(|accuracy| accuracy.images).max().unwrap_or(0);
    verdict.text += &match verdict.outcome {
        Some(Outcome::Same) if images < FEW_IMAGES => format!(
            " With only {images} images, a difference of fewer than {FEWEST_DIFFERENT} images may \
             be chance. Probe on more."
        ),
        Some(Outcome::Same) => " Train longer.".to_owned(),
        Some(Outcome::Worse) => " Train longer, or check lr, masks and augmentation.".to_owned(),
        _ => String::new(),
    };
    let teacher = stage.teacher.and_then(row);
    verdict.details.extend(teacher.and_then(|teacher| against_teacher(trained, &teacher)));
    let pixels = row("raw pixels");
    verdict.details.extend(pixels.and_then(|pixels| pixels_are_better(trained, &pixels)));
    let rows = &others.same_images;
    if !others.all_pairs {
        let text = format!("It is not compared with each of {} rows of probes.", rows.len());
        verdict.details.push(text);
        return verdict;
    }
    let rows = rows.iter().filter(|row| row.name != stage.name);
    let differences = rows.flat_map(|row| trained.differences(&row.name, &Accuracies::of_row(row)));
    verdict.differences = differences.collect();
    verdict
}

/// The verdict while a stage trains, from online probes. These always use the same images.
fn of_training(stage: &JudgedStage<'_>, others: &Others<'_>) -> StageVerdict {
    // The caller has found a probe.
    let (step, last) = *stage.probes.last().expect("a probe");
    let Some(now) = Accuracies::of_online(last) else {
        return StageVerdict::without_outcome(stage, without_accuracy(stage.name, step, last));
    };
    let subject =
        format!("After step {step}, on {} held-out images, the {}", last.test_images, stage.name);
    let start = stage.probes.first().filter(|(step, _)| *step == 0);
    let start = start.and_then(|(_, start)| Accuracies::of_online(start));
    let mut verdict = StageVerdict::new(stage, &subject, "before training", &now, start.as_ref());
    let teacher = stage.teacher.and_then(|teacher| others.stages.get(teacher));
    let teacher = teacher.and_then(|teacher| teacher.probes.last()).map(|(_, probe)| *probe);
    let images = |probe: &OnlineProbe| (probe.train_images, probe.test_images);
    let teacher = teacher.filter(|teacher| images(teacher) == images(last));
    let teacher = teacher.and_then(Accuracies::of_online);
    verdict.details.extend(teacher.and_then(|teacher| against_teacher(&now, &teacher)));
    let start = start.iter().flat_map(|start| now.differences("before training", start));
    verdict.differences = start.collect();
    verdict
}

/// What is known without accuracies.
fn without_accuracy(name: &str, step: u64, last: &OnlineProbe) -> String {
    let why = if last.held_out { "the images have no classes" } else { "nothing is held out" };
    format!(
        "No accuracy is known, because {why}. After step {step} of the {name}: {}.",
        last.text()
    )
}

fn against_teacher(student: &Accuracies<'_>, teacher: &Accuracies<'_>) -> Option<String> {
    let [mean, _] = student.against(teacher);
    Some(match mean.outcome()? {
        Outcome::Mixed => format!("It is {}.", mean.mixed("its teacher")),
        Outcome::Better => format!("It is better than its teacher: {}.", mean.text()),
        Outcome::Same => format!("It equals its teacher within chance: {}.", mean.text()),
        Outcome::Worse => format!("It is worse than its teacher: {}.", mean.text()),
    })
}

fn pixels_are_better(trained: &Accuracies<'_>, pixels: &Accuracies<'_>) -> Option<String> {
    let [mean, _] = pixels.against(trained);
    let higher = mean.all(Ordering::Greater).map(AccuracyPair::text);
    let higher = higher.collect::<Vec<_>>().join(", ");
    (!higher.is_empty()).then(|| format!("Raw pixels still score higher: {higher}."))
}

/// What fell since the best probe before the last one, in a sentence.
fn fallen(probes: &[(u64, &OnlineProbe)]) -> Option<String> {
    let (&(_, last), before) = probes.split_last()?;
    let ranks = before.iter().filter_map(|(_, probe)| probe.rank_me).reduce(f64::max);
    let rank = ranks.zip(last.rank_me).filter(|(then, now)| *now < RANK_FALLEN * then);
    let rank = rank.map(|(then, now)| format!("RankMe fell from {then:.1} to {now:.1}"));
    let now = Accuracies::of_online(last);
    let before: Vec<_> =
        before.iter().filter_map(|(_, probe)| Accuracies::of_online(probe)).collect();
    // The best of many probes is partly chance.
    let level = SIGNIFICANT / before.len().max(1) as f64;
    let names = ["kNN", "linear", "kNN of the class token", "linear of the class token"];
    let fell = names.into_iter().enumerate().filter_map(|(metric, name)| {
        let now = now.as_ref()?.0[metric]?;
        let earlier = before.iter().filter_map(|before| before.0[metric]);
        let best = earlier.max_by(|a, b| a.share.total_cmp(&b.share))?;
        let fell = now.compare(best, level) == Ordering::Less;
        fell.then(|| format!("{name} fell from {} to {}", percent(best.share), percent(now.share)))
    });
    let parts: Vec<String> = rank.into_iter().chain(fell).collect();
    (!parts.is_empty()).then(|| format!("While it trained, {}.", parts.join(", ")))
}

/// Accuracies of one encoder by kNN and by a linear probe.
/// In the order of [`METRICS`].
struct Accuracies<'a>([Option<Accuracy<'a>>; 4]);

/// The accuracy of a probe, and which test images it classifies right if that is known.
#[derive(Clone, Copy)]
struct Accuracy<'a> {
    share: f64,
    images: usize,
    right: Option<&'a RightImages>,
}

/// The names of accuracies: mean tokens by kNN and by a linear probe, then class tokens.
const METRICS: [&str; 4] = ["knn_mean", "linear_mean", "knn_cls", "linear_cls"];

impl<'a> Accuracies<'a> {
    fn of_row(row: &'a ProbeRow) -> Self {
        let ProbeRow { knn_mean, knn_cls, linear_mean, linear_cls, .. } = *row;
        Self::new([Some(knn_mean), linear_mean, knn_cls, linear_cls], row.images, &row.right)
    }

    /// None without an accuracy.
    fn of_online(probe: &'a OnlineProbe) -> Option<Self> {
        let OnlineProbe { knn_mean, knn_cls, linear_mean, linear_cls, .. } = *probe;
        let shares = [knn_mean, linear_mean, knn_cls, linear_cls];
        knn_mean.map(|_| Self::new(shares, probe.test_images, &probe.right))
    }

    /// `shares` are in the order of [`METRICS`].
    fn new(shares: [Option<f64>; 4], images: usize, right: &'a Right) -> Self {
        let rights = [&right.knn_mean, &right.linear_mean, &right.knn_cls, &right.linear_cls];
        Self(std::array::from_fn(|metric| {
            shares[metric].map(|share| Accuracy { share, images, right: rights[metric].as_ref() })
        }))
    }

    /// The mean tokens of both, and the class tokens of both.
    fn against(&self, other: &Self) -> [Comparison; 2] {
        let pair = |(metric, name): (usize, &'static str)| {
            let (this, that) = (self.0[metric]?, other.0[metric]?);
            let order = this.compare(that, SIGNIFICANT);
            Some(AccuracyPair { name, this: this.share, that: that.share, order })
        };
        [0, 2].map(|first| {
            let pairs = [(first, "kNN"), (first + 1, "linear")];
            Comparison(pairs.into_iter().filter_map(pair).collect())
        })
    }

    /// The accuracies of `features` that differ from these by more than chance explains.
    fn differences(&self, features: &str, other: &Self) -> Vec<Difference> {
        let difference = |(index, metric): (usize, _)| {
            let order = other.0[index]?.compare(self.0[index]?, SIGNIFICANT);
            let features = features.to_owned();
            let higher = order == Ordering::Greater;
            (order != Ordering::Equal).then_some(Difference { features, metric, higher })
        };
        METRICS.into_iter().enumerate().filter_map(difference).collect()
    }

    /// Its accuracies, without a comparison.
    fn sentence(&self, subject: &str) -> String {
        let known = ["kNN", "linear"].into_iter().zip(self.0);
        let known =
            known.filter_map(|(name, known)| Some(format!("{name} {}", percent(known?.share))));
        format!("{subject} reaches {}.", known.collect::<Vec<_>>().join(", "))
    }
}

/// One kind of token of two encoders.
struct Comparison(Vec<AccuracyPair>);

/// An accuracy of two encoders. The order is `Equal` if chance may explain the difference.
struct AccuracyPair {
    name: &'static str,
    this: f64,
    that: f64,
    order: Ordering,
}

impl AccuracyPair {
    fn text(&self) -> String {
        format!("{} {} against {}", self.name, percent(self.this), percent(self.that))
    }
}

impl Comparison {
    /// None if the encoders have no accuracy in common.
    fn outcome(&self) -> Option<Outcome> {
        let any = |order| self.all(order).next().is_some();
        Some(match (any(Ordering::Greater), any(Ordering::Less)) {
            _ if self.0.is_empty() => return None,
            (true, true) => Outcome::Mixed,
            (true, false) => Outcome::Better,
            (false, true) => Outcome::Worse,
            (false, false) => Outcome::Same,
        })
    }

    fn all(&self, order: Ordering) -> impl Iterator<Item = &AccuracyPair> {
        self.0.iter().filter(move |pair| pair.order == order)
    }

    /// The differences that chance does not explain. Without any, the first one.
    fn text(&self) -> String {
        let apart = self.0.iter().filter(|pair| pair.order != Ordering::Equal);
        let apart: Vec<_> = apart.map(AccuracyPair::text).collect();
        if apart.is_empty() {
            return self.0.first().map_or_else(String::new, AccuracyPair::text);
        }
        apart.join(", ")
    }

    fn mixed(&self, than: &str) -> String {
        let text = |order| self.all(order).map(AccuracyPair::text).collect::<Vec<_>>().join(", ");
        format!(
            "better than {than} by one probe ({}), but worse by another ({})",
            text(Ordering::Greater),
            text(Ordering::Less)
        )
    }
}

impl Accuracy<'_> {
    /// Compares image by image if it is known which ones are right, at this level of significance.
    /// If not, the accuracies are equal if their 95 % intervals overlap.
    fn compare(self, other: Accuracy<'_>, level: f64) -> Ordering {
        let known = self.right.zip(other.right).filter(|_| self.images == other.images);
        let paired = known.and_then(|(these, those)| these.compare(those, level));
        paired.unwrap_or_else(|| {
            if self.images == 0 || other.images == 0 {
                return Ordering::Equal;
            }
            let [low, high] = self.interval();
            let [other_low, other_high] = other.interval();
            match () {
                () if low > other_high => Ordering::Greater,
                () if high < other_low => Ordering::Less,
                () => Ordering::Equal,
            }
        })
    }

    fn interval(self) -> [f64; 2] {
        wilson((self.share * self.images as f64).round() as usize, self.images)
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::Prediction;

    fn row(name: &str, mean: [f64; 2], class: Option<[f64; 2]>) -> ProbeRow {
        ProbeRow {
            name: name.into(),
            train_images: 900,
            images: 300,
            knn_mean: mean[0],
            linear_mean: Some(mean[1]),
            knn_cls: class.map(|class| class[0]),
            linear_cls: class.map(|class| class[1]),
            right: Right::default(),
        }
    }

    /// Which of 300 images are right: `right` of them, from number `swapped` on.
    fn right(right: usize, swapped: usize) -> Option<RightImages> {
        let is_right = |image| image >= swapped && image < right + swapped;
        let labels = (0..300).map(|image| u32::from(is_right(image))).collect();
        let truth = [1; 300];
        Some(RightImages::new(&Prediction::new(labels, &truth), &truth))
    }

    fn student<'a>(probes: &[(u64, &'a OnlineProbe)]) -> JudgedStage<'a> {
        JudgedStage { name: "student", teacher: Some("teacher"), probes: probes.to_vec() }
    }

    /// The verdict on a student with these accuracies, beside these other rows.
    fn of(mean: [f64; 2], class: Option<[f64; 2]>, others: &[ProbeRow]) -> StageVerdict {
        let mut rows = others.to_vec();
        rows.push(row("student", mean, class));
        verdicts(&[student(&[])], &rows).remove(0)
    }

    #[test]
    fn a_trained_encoder_is_better_no_better_or_worse_than_a_random_one() {
        let random = [row("random encoder", [0.6, 0.7], None)];
        let better = of([0.8, 0.75], None, &random);
        assert_eq!(
            (better.outcome, better.text.as_str()),
            (
                Some(Outcome::Better),
                "The student is better than a random encoder: kNN 80.0 % against 60.0 %."
            )
        );
        let same = of([0.58, 0.72], None, &random);
        assert_eq!(
            same.text,
            "The student is no better than a random encoder: kNN 58.0 % against 60.0 %. Train \
             longer."
        );
        let worse = of([0.3, 0.4], None, &random);
        assert_eq!(
            worse.text,
            "The student is worse than a random encoder: kNN 30.0 % against 60.0 %, linear 40.0 % \
             against 70.0 %. Train longer, or check lr, masks and augmentation."
        );
        let mixed = of([0.8, 0.4], None, &random);
        assert_eq!(
            (mixed.outcome, mixed.text.as_str()),
            (
                Some(Outcome::Mixed),
                "The student is better than a random encoder by one probe (kNN 80.0 % against \
                 60.0 %), but worse by another (linear 40.0 % against 70.0 %)."
            )
        );
    }

    /// Images tell apart what intervals alone do not, and the other way round.
    #[test]
    fn accuracies_are_compared_image_by_image() {
        let said = |swapped: usize| {
            let row = |name: &str, share: f64, known: Option<RightImages>| ProbeRow {
                right: Right { knn_mean: known, ..Right::default() },
                ..row(name, [share, 0.7], None)
            };
            let random = row("random encoder", 0.60, right(180, 0));
            let student = row("student", 0.65, right(195, swapped));
            verdicts(&[self::student(&[])], &[random, student]).remove(0)
        };
        let better = said(0);
        assert_eq!(better.outcome, Some(Outcome::Better), "{}", better.text);
        let random =
            Difference { features: "random encoder".into(), metric: "knn_mean", higher: false };
        assert_eq!(better.differences, [random]);
        assert_eq!(said(60).outcome, Some(Outcome::Same));
        assert!(said(60).differences.is_empty());
        // Another test set has as many images, but others.
        let far = ProbeRow { name: "random encoder on far".into(), ..row("", [0.1, 0.1], None) };
        let near = row("student", [0.65, 0.7], None);
        assert!(verdicts(&[student(&[])], &[far, near]).remove(0).differences.is_empty());
        assert_eq!(
            of([0.65, 0.7], None, &[row("random encoder", [0.6, 0.7], None)]).outcome,
            Some(Outcome::Same),
            "without images"
        );
    }

    #[test]
    fn a_class_token_that_is_worse_is_reported() {
        let random = [row("random encoder", [0.92, 0.9], Some([0.887, 0.88]))];
        let said = of([0.877, 0.9], Some([0.743, 0.86]), &random);
        assert_eq!(
            said.text,
            "The student is no better than a random encoder: kNN 87.7 % against 92.0 %. Train \
             longer."
        );
        assert_eq!(said.details, ["Its class token is worse: kNN 74.3 % against 88.7 %."]);
        assert!(of([0.877, 0.9], Some([0.9, 0.9]), &random).details.is_empty());
    }

    #[test]
    fn few_images_are_no_reason_to_train_longer() {
        let said = |images: usize| {
            let row = |name: &str, mean| ProbeRow { images, ..row(name, mean, None) };
            let rows = [row("random encoder", [0.6, 0.6]), row("student", [0.65, 0.6])];
            verdicts(&[student(&[])], &rows).remove(0).text
        };
        let advice = "With only 20 images, a difference of fewer than 8 images may be chance.";
        assert!(said(20).contains(advice), "{}", said(20));
        assert!(said(FEW_IMAGES).ends_with("Train longer."), "{}", said(FEW_IMAGES));
        let chance = |different: i32| 2.0 * 0.5_f64.powi(different);
        assert!(chance(FEWEST_DIFFERENT as i32) < SIGNIFICANT);
        assert!(chance(FEWEST_DIFFERENT as i32 - 1) > SIGNIFICANT);
    }

    #[test]
    fn a_random_encoder_of_the_same_size_comes_first() {
        let random =
            [row("random encoder", [0.2, 0.2], None), row("random student", [0.7, 0.7], None)];
        assert_eq!(of([0.4, 0.4], None, &random).outcome, Some(Outcome::Worse));
    }

    #[test]
    fn a_student_is_compared_with_its_teacher() {
        let said = |teacher: f64| {
            let others =
                [row("random encoder", [0.2, 0.2], None), row("teacher", [teacher, 0.8], None)];
            of([0.7, 0.8], None, &others).details.remove(0)
        };
        assert_eq!(said(0.5), "It is better than its teacher: kNN 70.0 % against 50.0 %.");
        assert_eq!(said(0.69), "It equals its teacher within chance: kNN 70.0 % against 69.0 %.");
        assert_eq!(said(0.9), "It is worse than its teacher: kNN 70.0 % against 90.0 %.");
    }

    #[test]
    fn raw_pixels_that_are_better_are_reported() {
        let others = |pixels: f64| {
            [row("raw pixels", [pixels, 0.7], None), row("random encoder", [0.2, 0.2], None)]
        };
        let said = of([0.7, 0.7], None, &others(0.9)).details;
        assert_eq!(said, ["Raw pixels still score higher: kNN 90.0 % against 70.0 %."]);
        assert!(of([0.7, 0.7], None, &others(0.72)).details.is_empty(), "may be chance");
    }

    fn online(knn: f64, class: f64, rank: f64) -> OnlineProbe {
        OnlineProbe {
            knn_mean: Some(knn),
            knn_cls: Some(class),
            rank_me: Some(rank),
            test_images: 500,
            ..OnlineProbe::default()
        }
    }

    #[test]
    fn an_untrained_encoder_gets_no_verdict() {
        let start = online(0.5, 0.5, 20.0);
        let said = verdicts(&[student(&[]), student(&[(0, &start)])], &[]);
        for verdict in said {
            assert_eq!(verdict.text, "The student is not probed yet.");
            assert!(verdict.outcome.is_none() && verdict.details.is_empty());
        }
    }

    #[test]
    fn a_stage_that_trains_is_compared_with_itself_before_training() {
        let (start, last) = (online(0.45, 0.4, 20.0), online(0.62, 0.42, 21.0));
        let taught = online(0.8, 0.7, 20.0);
        let teacher = JudgedStage { name: "teacher", teacher: None, probes: vec![(60, &taught)] };
        let said = verdicts(&[teacher, student(&[(0, &start), (30, &last)])], &[]);
        assert_eq!(
            said[1].text,
            "After step 30, on 500 held-out images, the student is better than before training: \
             kNN 62.0 % against 45.0 %."
        );
        assert_eq!(
            said[1].details,
            [
                "Its class token is no better: kNN 42.0 % against 40.0 %.",
                "It is worse than its teacher: kNN 62.0 % against 80.0 %."
            ]
        );
        assert_eq!(said[1].outcome, Some(Outcome::Better));
        let features = "before training".to_owned();
        assert_eq!(
            said[1].differences,
            [Difference { features, metric: "knn_mean", higher: false }]
        );
        let alone = verdicts(&[student(&[(30, &last)])], &[]).remove(0).text;
        assert_eq!(alone, "After step 30, on 500 held-out images, the student reaches kNN 62.0 %.");
    }

    #[test]
    fn what_fell_while_a_stage_trained_is_reported() {
        let probes = [online(0.45, 0.83, 10.0), online(0.6, 0.8, 9.0), online(0.6, 0.66, 4.7)];
        let probes: Vec<_> = (0..).zip(&probes).collect();
        let details =
            |probes: &[(u64, &OnlineProbe)]| verdicts(&[student(probes)], &[]).remove(0).details;
        assert_eq!(
            details(&probes).pop().unwrap(),
            "While it trained, RankMe fell from 10.0 to 4.7, kNN of the class token fell from \
             83.0 % to 66.0 %."
        );
        assert!(details(&probes[..2]).iter().all(|text| !text.contains("fell")));
    }

    #[test]
    fn without_classes_ranks_and_losses_are_reported() {
        let start = OnlineProbe { rank_me: Some(9.5), held_out: false, ..OnlineProbe::default() };
        let text = verdicts(&[student(&[(0, &start), (8, &start)])], &[]).remove(0).text;
        assert_eq!(
            text,
            "No accuracy is known, because nothing is held out. After step 8 of the student: \
             RankMe 9.5."
        );
    }

    /// Of 300 images, 8 are right only at the best probe and none only at the last one: p = 2 / 2^8
    /// = 0.0078. That is below 0.01, but not below 0.01 / 2.
    #[test]
    fn the_best_of_more_probes_has_to_be_further_above_the_last_one() {
        let online = |count: usize| OnlineProbe {
            knn_mean: Some(count as f64 / 300.0),
            test_images: 300,
            right: Right { knn_mean: right(count, 0), ..Right::default() },
            ..OnlineProbe::default()
        };
        let (best, other, last) = (online(188), online(184), online(180));
        let wanted = "While it trained, kNN fell from 62.7 % to 60.0 %.";
        assert_eq!(fallen(&[(10, &best), (20, &last)]).as_deref(), Some(wanted));
        assert_eq!(fallen(&[(10, &best), (15, &other), (20, &last)]), None);
    }
}
