//! `saltworks probe`: how good an encoder's frozen features are.

mod results;

use super::embed::FeatureKind;
use super::subject::SubjectArguments;
use crate::console::{Count, Waiting, note};
use crate::data::{self, Holdout, Mixed, Part, Source, Unreadable};
use crate::eval::{
    self, AttentiveForm, AttentiveOptions, Features, FewShotOptions, KnnOptions, LinearOptions,
    Tokens as _, Vote,
};
use crate::failure::{Failure, expect_output, input_error, run_error, use_threads};
use crate::judge::{self, FrozenTokens, SharedFile, Subject, features, note_unreadable};
use crate::recipe::Data;
use crate::train::Stop;
use results::{ProbeResult, Results, Spread};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Options of `probe`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    subject: SubjectArguments,
    /// Test images. Their classes are matched with --data's by name (default: those that stand
    /// beside the training images of --data, as `val` beside `train`, else some are held out).
    #[arg(long, value_name = "PATH")]
    test: Option<PathBuf>,
    /// Number of images to hold out (default: the run's; for --data a fifth).
    #[arg(long, value_name = "N", conflicts_with = "test")]
    holdout: Option<usize>,
    /// Probes to fit, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "knn,linear")]
    kind: Vec<ProbeKind>,
    /// Features for kNN, linear and few-shot probes (default: both).
    #[arg(long, value_delimiter = ',')]
    features: Vec<FeatureKind>,
    /// kNN: neighbours that vote (default: the run's, else 20).
    #[arg(long)]
    k: Option<usize>,
    /// kNN: temperature T in a vote's weight (default: the run's, else 0.07).
    #[arg(long)]
    temperature: Option<f64>,
    /// kNN: the distance, and the weight of a vote.
    #[arg(long, default_value = "cosine")]
    vote: VoteKind,
    /// Attentive: the network.
    #[arg(long, default_value = "vjepa1")]
    form: Form,
    /// Attentive: passes over the training images (default: 20).
    #[arg(long)]
    epochs: Option<usize>,
    /// Attentive: images per step (default: 64; for fewer than 3,840 images a sixtieth, at least
    /// 8).
    #[arg(long)]
    batch: Option<usize>,
    /// Attentive: learning rates of the grid (default: 1e-2,3e-3,1e-3,3e-4).
    #[arg(long, value_delimiter = ',')]
    lr: Vec<f64>,
    /// Attentive: weight decays of the grid (default: 0.4,0.01).
    #[arg(long, value_delimiter = ',')]
    weight_decay: Vec<f64>,
    /// Attentive: MiB for the tokens of all images. Larger sets are encoded again each epoch.
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    token_memory: u64,
    /// Few-shot: images per class (default: those of 1,2,5,10 that every class has).
    #[arg(long, value_delimiter = ',')]
    shots: Vec<usize>,
    /// Few-shot: random draws for each number of images (default: 5).
    #[arg(long)]
    draws: Option<usize>,
    /// Seed of the few-shot draws, and of the attentive probe's initial weights and image order.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print precision, recall and images of each class.
    #[arg(long)]
    per_class: bool,
    /// Print the confusion table: how many images of each class were predicted as each class.
    #[arg(long)]
    confusion: bool,
    /// Write all results as JSON to a file, or to stdout with `-`: intervals, classes, confusion,
    /// grid.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  saltworks probe runs/first              # the last stage, on the run's held-out images
  saltworks probe runs/first --stage teacher --kind attentive --per-class
  saltworks probe vit.safetensors --data train --test val --normalize imagenet --json scores.json
  saltworks probe runs/first --data photos --kind knn,fewshot --shots 1,5

Each class of --data needs labelled images. An attentive probe trains one network for each learning
rate and weight decay. The best on a fifth of the training images is reported. The papers' grid is
--form vjepa2 --lr 5e-3,3e-3,1e-3,3e-4,1e-4 --weight-decay 0.8,0.4,0.1,0.01 --batch 256.
Intervals are Wilson's, 95 %.";

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ProbeKind {
    /// Votes of the nearest training images.
    Knn,
    /// Logistic regression.
    Linear,
    /// A small network that reads all tokens.
    Attentive,
    /// Logistic regression on a few images of each class.
    Fewshot,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum VoteKind {
    /// exp(cosine similarity / T), as in DINO.
    Cosine,
    /// 1 / (distance + T), as in stable-pretraining's OnlineKNN.
    Euclidean,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Form {
    /// A learned query, cross-attention, linear.
    Vjepa1,
    /// The same after three self-attention blocks, as in SALT and V-JEPA 2.
    Vjepa2,
}

/// Images to fit on and images to test on, all labelled.
struct Sets {
    train: Arc<dyn Source>,
    test: Arc<dyn Source>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    use_threads(arguments.subject.threads)?;
    let stop = Stop::listen().map_err(run_error)?;
    let subject = arguments.subject.open()?;
    arguments.check(&subject)?;
    let sets = arguments.sets(&subject)?;
    arguments.check_sets(&sets)?;
    note(&format!("training: {}; testing: {}", described(&sets.train), described(&sets.test)));
    judge::note_reading(&*sets.train, "not trained on");
    let given = [(&arguments.subject.data, &sets.train), (&arguments.test, &sets.test)];
    for (path, source) in given.iter().filter_map(|(path, source)| Some((path.as_ref()?, source))) {
        judge::note_depth(&path.display().to_string(), &***source, subject.recipe.data.depth);
    }
    let mut judge = Judge { arguments, subject, sets, stop, unreadable: Vec::new() };
    let results = judge.results().map_err(|failure| match failure {
        // `eval` does not know which signal it was.
        Failure::Interrupted { text, .. } => {
            Failure::Interrupted { signal: judge.stop.signal().unwrap_or(0), text }
        }
        other => other,
    })?;
    let images = judge.sets.train.len() + judge.sets.test.len();
    note_unreadable(&judge.unreadable, images, "they are left out");
    results.show(arguments.json.as_deref(), arguments.per_class, arguments.confusion)
}

impl Arguments {
    /// Refuses wrong settings before features are computed, which may take hours.
    fn check(&self, subject: &Subject) -> Result<(), Failure> {
        self.knn(subject).check().map_err(input_error)?;
        self.attentive().check().map_err(input_error)?;
        if self.features.contains(&FeatureKind::Patches) {
            return Err(input_error(
                "--features patches is no choice of probe. --kind attentive reads all tokens",
            ));
        }
        if self.subject.layers > 1 && self.kind.contains(&ProbeKind::Attentive) {
            return Err(input_error(
                "an attentive probe reads the tokens of the last block. Remove --layers, or choose \
                 other probes with --kind",
            ));
        }
        match self.json.as_deref().filter(|path| *path != Path::new("-")) {
            Some(path) => expect_output(path),
            None => Ok(()),
        }
    }

    /// Refuses images for which probes would be meaningless.
    fn check_sets(&self, sets: &Sets) -> Result<(), Failure> {
        let labels = |source: &Arc<dyn Source>| -> Vec<u32> {
            (0..source.len()).map(|i| source.label(i) as u32).collect()
        };
        let (train, test) = (labels(&sets.train), labels(&sets.test));
        let known: BTreeSet<u32> = train.iter().copied().collect();
        if known.len() < 2 {
            return Err(input_error(format!(
                "{}: all images have the same class, expected two or more classes",
                sets.train.describe()
            )));
        }
        if self.kind.contains(&ProbeKind::Fewshot) {
            let name = |class: u32| sets.train.classes()[class as usize].as_str();
            let checked = self.few_shot(&train).check(&train);
            checked.map_err(|error| match error {
                eval::Error::Shots { shots, most, class } => input_error(format!(
                    "--shots is {shots}, expected 1 to {most}, the number of training images of \
                     class {}. Lower --shots, or add images to the class",
                    name(class)
                )),
                other => input_error(other),
            })?;
        }
        let strange: Vec<u32> =
            test.iter().copied().filter(|label| !known.contains(label)).collect();
        let names: BTreeSet<&str> =
            strange.iter().map(|&class| sets.test.classes()[class as usize].as_str()).collect();
        let names: Vec<&str> = names.into_iter().take(5).collect();
        let (some, names) = (strange.len(), names.join(", "));
        if some == test.len() {
            return Err(input_error(format!(
                "no class of the test images ({names}, ...) is a class of the training images ({}, \
                 ...). Give --data and --test folders with the same names",
                sets.train.classes().first().map_or("", String::as_str)
            )));
        }
        if some > 0 {
            note(&format!(
                "{some} of {} test images have classes without a training image ({names}). All \
                 probes get them wrong",
                test.len()
            ));
        }
        if self.test.is_some() {
            judge::note_missing_classes("--test", &*sets.test, &*sets.train);
        }
        Ok(())
    }

    /// The two sets. The test images are those of `--test`, or are held out from `--data` or the
    /// run.
    fn sets(&self, subject: &Subject) -> Result<Sets, Failure> {
        let mut recipe = subject.recipe.clone();
        let data = &mut recipe.data;
        if let Some(path) = &self.test {
            let test = data::open(path, judge::test_options(data)).map_err(input_error)?;
            let test = judge::test_labels(test, data).map_err(input_error)?;
            let train = judge::open_all(data)?;
            if train.describe() == test.describe() {
                self.refuse_same(data, path)?;
            }
            return two_sets(train, test, &path.display().to_string());
        }
        let of_run = subject.of_run && self.subject.data.is_none();
        let path = match self.subject.data.as_deref() {
            Some(path) => path.display().to_string(),
            None if of_run => String::new(),
            None => {
                return Err(input_error(
                    "no images are given. Add --data PATH, images of two classes or more",
                ));
            }
        };
        let all = judge::open_all(data)?;
        if !of_run && self.holdout.is_none() {
            let instead = "--test names others, and --holdout N holds images out instead";
            if let Some((name, test)) = judge::tests_beside((&path, &all), data, instead) {
                return two_sets(all, test, &name);
            }
        }
        let all = labelled(all)?;
        if let Some(count) = self.holdout.filter(|count| count + 2 > all.len()) {
            let most = all.len().saturating_sub(2);
            return Err(input_error(format!(
                "--holdout is {count}, expected 1 to {most}: at least two images must be left to \
                 train on"
            )));
        }
        if of_run {
            data.holdout = self.holdout.or(data.holdout);
            let images = judge::open_images(&recipe)?;
            let none = || {
                let (reason, advice) = match images.reason {
                    Some(reason) => (reason, "Add --data PATH, images of two classes or more"),
                    None => {
                        ("data.holdout is 0".to_owned(), "Add --holdout N, or --data and --test")
                    }
                };
                input_error(format!("the run holds out no images: {reason}. {advice}"))
            };
            let test = images.held_out.ok_or_else(none)?;
            return Ok(Sets { train: images.to_probe, test });
        }
        let count = self.holdout.unwrap_or(all.len() / 5);
        let builtin = data.path.as_ref().is_some_and(|path| path.starts_with("builtin:"));
        let holdout = match builtin {
            true => Holdout::Last { count },
            false => Holdout::Share {
                fraction: count as f64 / all.len() as f64,
                seed: data.holdout_seed,
            },
        };
        let mut split = data::hold_out(&all, holdout).map_err(input_error)?;
        judge::copies_text(&split).iter().for_each(|text| note(text));
        let (train, test) = split.parts.remove(0);
        Ok(Sets { train: Arc::new(train), test: Arc::new(test) })
    }

    /// Refuses test images that are also the training images.
    fn refuse_same(&self, data: &Data, test: &Path) -> Result<(), Failure> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let train = data.sources();
        match train.iter().find(|given| real(Path::new(&given.path)) == real(test)) {
            Some(given) => Err(input_error(format!(
                "{} is given as both the training and the --test images. Remove --test to hold \
                 some out",
                given.path
            ))),
            None => Ok(()),
        }
    }
}

/// Training images and test images at `path`, with the classes of both.
fn two_sets(train: Arc<dyn Source>, test: Arc<dyn Source>, path: &str) -> Result<Sets, Failure> {
    let both = [(&train, "--data"), (&test, path)];
    if let Some(SharedFile { file, .. }) = judge::shared_file(&both) {
        return Err(input_error(format!(
            "{} is in both the training and the test images, {path}. Remove it from one of them, \
             or hold some images out with --holdout N",
            file.display()
        )));
    }
    judge::note_tests_that_train(&[&*train], path, &*test);
    let classes = data::unite([&train, &test]);
    let renumber = |source: Arc<dyn Source>| {
        let mixed = Mixed::new(vec![(source, 1.0)], classes.clone()).map_err(input_error)?;
        labelled(Arc::new(mixed))
    };
    Ok(Sets { train: renumber(train)?, test: renumber(test)? })
}

/// A set's description with the number of classes of its own images. A united set lists the classes
/// of both sets.
fn described(source: &Arc<dyn Source>) -> String {
    let classes: BTreeSet<i32> = (0..source.len()).map(|i| source.label(i)).collect();
    let what = source.describe();
    let (known, classes) = (source.classes().len(), classes.len());
    match what.strip_suffix(&format!("; {known} classes")) {
        Some(what) => format!("{what}, of {classes} classes"),
        None => what,
    }
}

/// The labelled images of a source.
fn labelled(source: Arc<dyn Source>) -> Result<Arc<dyn Source>, Failure> {
    let with: Vec<usize> = (0..source.len()).filter(|&i| source.label(i) >= 0).collect();
    let what = source.describe();
    if with.is_empty() {
        return Err(input_error(format!(
            "{what}: no image has a class, but probes need classes. Sort images into a folder for \
             each class, or list them with labels"
        )));
    }
    if with.len() == source.len() {
        return Ok(source);
    }
    let without = source.len() - with.len();
    note(&format!("{what}: {without} images without a class are left out"));
    Ok(Arc::new(Part::new(source, with, "labelled")))
}

/// A kind of features of the training and the test images.
struct PooledSets {
    name: &'static str,
    train: Features,
    test: Features,
}

/// All that the probes need.
struct Judge<'a> {
    arguments: &'a Arguments,
    subject: Subject,
    sets: Sets,
    stop: Stop,
    unreadable: Vec<Unreadable>,
}

impl Judge<'_> {
    fn results(&mut self) -> Result<Results, Failure> {
        let kinds = &self.arguments.kind;
        let pooled = match kinds.iter().any(|kind| *kind != ProbeKind::Attentive) {
            true => self.features()?,
            false => Vec::new(),
        };
        let waiting = Waiting::new("fitting probes".to_owned());
        let stopped = || {
            waiting.tick();
            self.stop.signal().is_some()
        };
        let (mut found, mut few_shot, mut spread) = (Vec::new(), Vec::new(), Vec::new());
        for pooled in &pooled {
            let name = pooled.name;
            let ranks = (eval::rank_me(&pooled.train)?, eval::feature_std(&pooled.train)?);
            spread.push(Spread { features: name, rank_me: ranks.0, feature_std: ranks.1 });
            if kinds.contains(&ProbeKind::Knn) {
                found.push(self.knn(pooled, &stopped)?);
            }
            if kinds.contains(&ProbeKind::Linear) {
                found.push(linear(pooled, &stopped)?);
            }
            if kinds.contains(&ProbeKind::Fewshot) {
                let options = self.arguments.few_shot(&pooled.train.labels);
                let few = eval::few_shot(&pooled.train, &pooled.test, &options, &stopped)?;
                few_shot.extend(few.into_iter().map(|few| (name, few)));
            }
        }
        if kinds.contains(&ProbeKind::Attentive) {
            found.push(self.attentive()?);
        }
        Ok(Results {
            weights: self.subject.path.clone(),
            trained: self.subject.trained.clone(),
            layers: self.arguments.subject.layers,
            train: self.sets.train.describe(),
            test: self.sets.test.describe(),
            classes: self.sets.train.classes().to_vec(),
            found,
            few_shot,
            spread,
        })
    }

    /// The requested kinds of features, for both sets.
    fn features(&mut self) -> Result<Vec<PooledSets>, Failure> {
        let Self { subject, sets, stop, unreadable, .. } = self;
        let mut count = Count::new(sets.train.len() + sets.test.len());
        let mut of = |source| {
            let made = features(
                &subject.recipe,
                source,
                &subject.extractor,
                stop,
                unreadable,
                &mut count,
            )?;
            made.ok_or_else(|| Failure::from(eval::Error::Stopped))
        };
        let (train, test) = (of(&sets.train)?.of_readable(), of(&sets.test)?.of_readable());
        count.finish();
        let wanted = &self.arguments.features;
        let kinds = [FeatureKind::Mean, FeatureKind::Cls];
        let both = kinds.into_iter().zip(train.into_iter().zip(test));
        let kept = both.filter(|(kind, _)| wanted.is_empty() || wanted.contains(kind));
        let kept = kept.map(|(kind, (train, test))| PooledSets { name: kind.name(), train, test });
        let kept: Vec<PooledSets> = kept.collect();
        match kept.is_empty() {
            true => Err(input_error("the encoder has no class token. Choose --features mean")),
            false => Ok(kept),
        }
    }

    fn knn(&self, pooled: &PooledSets, stop: eval::StopCheck<'_>) -> Result<ProbeResult, Failure> {
        let options = self.arguments.knn(&self.subject);
        let (vote, word) = match self.arguments.vote {
            VoteKind::Cosine => (Vote::Cosine, "cosine"),
            VoteKind::Euclidean => (Vote::Euclidean, "euclidean"),
        };
        let scores = eval::knn_scores(&pooled.train, &pooled.test, (options, vote), stop)?;
        let KnnOptions { k, temperature } = options;
        Ok(ProbeResult {
            kind: "kNN",
            features: pooled.name,
            note: format!("k {}, T {temperature}, {word}", k.min(pooled.train.len())),
            detail: json!({
                "k": k.min(pooled.train.len()), "temperature": temperature, "vote": word,
            }),
            report: scores.report(&pooled.test.labels),
        })
    }

    fn attentive(&mut self) -> Result<ProbeResult, Failure> {
        let options = self.arguments.attentive();
        let most = self.arguments.token_memory.saturating_mul(1 << 20);
        let test_share = (most as f64 * self.sets.test.len() as f64
            / (self.sets.test.len() + self.sets.train.len()) as f64)
            as u64;
        let (subject, stop) = (&self.subject, &self.stop);
        let mut train = FrozenTokens::new(subject, &self.sets.train, most - test_share, stop)?;
        let mut test = FrozenTokens::new(subject, &self.sets.test, test_share, stop)?;
        let images = eval::images_read(&options, train.labels(), self.sets.test.len());
        let mut count = Count::new(images);
        let stopped = || stop.signal().is_some();
        let mut done = |images| count.add(images);
        let probe = eval::attentive(&mut train, &mut test, &options, &mut done, &stopped)?;
        count.finish();
        let chosen = &probe.trials[probe.best];
        if let Some(words) = at_the_edge(&options.lrs, chosen.lr) {
            note(&format!(
                "attentive: the best learning rate, {}, is the {words} of the grid. Widen the grid \
                 with --lr",
                chosen.lr
            ));
        }
        let form = options.form;
        let found = ProbeResult {
            kind: "attentive",
            features: "tokens",
            note: format!(
                "lr {}, weight decay {}; {} steps of {} on {} images",
                chosen.lr, chosen.weight_decay, probe.steps, probe.batch, probe.fitted
            ),
            report: probe.scores.report(&probe.truth),
            detail: json!({
                "form": form, "heads": probe.heads, "parameters": probe.parameters,
                "epochs": options.epochs, "batch": probe.batch, "steps": probe.steps,
                "fitted_images": probe.fitted, "seed": options.seed,
                "lr": chosen.lr, "weight_decay": chosen.weight_decay, "grid": probe.trials,
            }),
        };
        self.unreadable.extend(train.unreadable.into_iter().chain(test.unreadable));
        Ok(found)
    }
}

/// The end of a grid at which a value is, if the grid has three or more values.
fn at_the_edge(grid: &[f64], value: f64) -> Option<&'static str> {
    let (least, most) = grid.iter().fold((f64::MAX, 0.0_f64), |(a, b), x| (a.min(*x), b.max(*x)));
    match value {
        _ if grid.len() < 3 => None,
        value if value == most => Some("largest"),
        value if value == least => Some("least"),
        _ => None,
    }
}

/// A linear probe's loss is reported if it is this share above its minimum.
const FAR: f64 = 0.01;

fn linear(pooled: &PooledSets, stop: eval::StopCheck<'_>) -> Result<ProbeResult, Failure> {
    let options = LinearOptions::default();
    let probe = eval::linear(&pooled.train, &pooled.test, &options, stop)?;
    let [weakest, strongest] = eval::L2_BOUNDS;
    let bound = match probe.l2 {
        l2 if l2 <= weakest => ", the weakest that is tried",
        l2 if l2 >= strongest => ", the strongest that is tried",
        _ => "",
    };
    Ok(ProbeResult {
        kind: "linear",
        features: pooled.name,
        note: [
            format!("l2 {}", probe.l2),
            if probe.chosen { String::new() } else { ", 1 / images: too few to choose it".into() },
            bound.to_owned(),
            match probe.gap > FAR {
                true => format!("; its loss is up to {:.0} % above the minimum", 100.0 * probe.gap),
                false => String::new(),
            },
        ]
        .concat(),
        detail: json!({
            "l2": probe.l2, "chosen": probe.chosen, "loss": probe.loss, "gap": probe.gap,
        }),
        report: probe.scores.report(&pooled.test.labels),
    })
}

impl Arguments {
    fn knn(&self, subject: &Subject) -> KnnOptions {
        let default = &subject.recipe.probe;
        KnnOptions {
            k: self.k.unwrap_or(default.k),
            temperature: self.temperature.unwrap_or(default.temperature),
        }
    }

    fn few_shot(&self, labels: &[u32]) -> FewShotOptions {
        let default = FewShotOptions::default();
        let mut sizes = BTreeMap::new();
        labels.iter().for_each(|label| *sizes.entry(label).or_insert(0) += 1);
        let least: usize = sizes.into_values().min().unwrap_or(0);
        let usual = || default.shots.iter().copied().filter(|&shots| shots <= least).collect();
        let shots = if self.shots.is_empty() { usual() } else { self.shots.clone() };
        FewShotOptions { shots, draws: self.draws.unwrap_or(default.draws), seed: self.seed }
    }

    fn attentive(&self) -> AttentiveOptions {
        let default = AttentiveOptions::default();
        let or = |given: &Vec<f64>, default| if given.is_empty() { default } else { given.clone() };
        AttentiveOptions {
            form: match self.form {
                Form::Vjepa1 => AttentiveForm::VJepa1,
                Form::Vjepa2 => AttentiveForm::VJepa2,
            },
            epochs: self.epochs.unwrap_or(default.epochs),
            batch: self.batch,
            lrs: or(&self.lr, default.lrs),
            weight_decays: or(&self.weight_decay, default.weight_decays),
            seed: self.seed,
        }
    }
}
