//! Everything a report shows of a run, read from its folder, again and again as the run goes on.

use super::{Fit, Follow, Line, OnlineProbe, ProbeRow, Series, Told, What, fit};
use crate::recipe::{self, Recipe};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A run as reports show it.
#[derive(Clone, Debug, Serialize)]
pub struct RunData {
    /// The folder's own name.
    pub name: String,
    /// The folder.
    pub folder: String,
    /// The recipe's.
    pub tags: Vec<String>,
    /// `training`, `finished` or `stopped`.
    pub status: &'static str,
    /// recipe.toml
    pub recipe: String,
    /// environment.json, null without one.
    pub environment: Value,
    /// plan.json, null without one.
    pub plan: Value,
    /// The stages in their order, those too that have not begun.
    pub stages: Vec<StageData>,
    /// probes.json
    pub table: Vec<ProbeRow>,
    /// When the last line was written.
    pub updated: Option<f64>,
}

/// A stage as reports show it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StageData {
    /// The recipe's.
    pub name: String,
    /// `mae` or `salt`.
    pub method: String,
    /// All its steps, where plan.json tells.
    pub steps: Option<u64>,
    /// Steps made.
    pub step: u64,
    /// When the first and the last line were written.
    pub began: Option<f64>,
    /// See `began`.
    pub updated: Option<f64>,
    /// Its curves.
    pub series: Series,
    /// What probes found.
    pub probes: Vec<ProbePoint>,
    /// What went wrong.
    pub alarms: Vec<AlarmPoint>,
    /// Lines through loss and accuracy.
    pub fits: Vec<LossFit>,
    /// pictures/STAGE.json, null without one.
    pub pictures: Value,
}

/// A probe and when it was made.
#[derive(Clone, Debug, Serialize)]
pub struct ProbePoint {
    /// Steps made.
    pub step: u64,
    /// Mean training loss since the probe before.
    pub train_loss: Option<f64>,
    /// What it found.
    #[serde(flatten)]
    pub probe: OnlineProbe,
}

/// An alarm and when it was given.
#[derive(Clone, Debug, Serialize)]
pub struct AlarmPoint {
    /// Steps made.
    pub step: u64,
    /// In a word.
    pub kind: String,
    /// In a sentence.
    pub text: String,
}

/// How well the loss foretells an accuracy.
#[derive(Clone, Debug, Serialize)]
pub struct LossFit {
    /// `loss` (held out) or `train_loss`.
    pub x: &'static str,
    /// `knn_mean`, ...
    pub y: &'static str,
    /// Whether the probe before the first step counts.
    pub from_start: bool,
    /// The line.
    #[serde(flatten)]
    pub fit: Fit,
}

/// Reads a run's folder, and again only what changed.
pub struct RunReader {
    folder: PathBuf,
    log: Follow,
    stages: Vec<StageData>,
    /// Loss and steps since a stage's last probe.
    since: HashMap<String, (f64, u64)>,
    /// Pictures and when their file was written.
    pictures: HashMap<String, (Option<SystemTime>, Value)>,
    with_pictures: bool,
}

impl RunReader {
    /// Of the run in a folder.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.into(),
            log: Follow::new(&folder.join("metrics.jsonl")),
            stages: Vec::new(),
            since: HashMap::new(),
            pictures: HashMap::new(),
            with_pictures: true,
        }
    }

    /// Of the run in a folder, telling of a stage's pictures only `{"version": ...}`, which changes when
    /// they do.
    pub fn without_pictures(folder: &Path) -> Self {
        Self { with_pictures: false, ..Self::new(folder) }
    }

    /// Whether a process trains it.
    pub fn is_training(&self) -> bool {
        is_locked(&self.folder.join(".lock"))
    }

    /// The run as it stands. Files that are missing or cannot be understood are left out: a report of a
    /// run that goes wrong is worth most.
    ///
    /// # Errors
    /// A recipe or a log that cannot be read.
    pub fn read(&mut self) -> io::Result<RunData> {
        let text = fs::read_to_string(self.folder.join("recipe.toml"))?;
        let recipe = recipe::from_text("recipe.toml", &text, &[]).ok();
        self.read_log()?;
        let plan = self.json("plan.json");
        self.order(recipe.as_ref(), &plan);
        for stage in &mut self.stages {
            let path = self.folder.join("pictures").join(format!("{}.json", stage.name));
            let seen = self.pictures.entry(stage.name.clone()).or_default();
            let changed = fs::metadata(&path).and_then(|file| file.modified()).ok();
            if changed != seen.0 {
                *seen = match self.with_pictures {
                    true => (changed, read_json(&path)),
                    false => (changed, version(changed)),
                };
            }
            stage.pictures = seen.1.clone();
            stage.series.settle();
            stage.fits = fits(&stage.probes);
        }
        let name = fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let updated = self.stages.iter().filter_map(|stage| stage.updated).reduce(f64::max);
        Ok(RunData {
            name: name.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
            folder: self.folder.display().to_string(),
            tags: recipe.map_or_else(Vec::new, |recipe| recipe.tags),
            status: self.status(),
            recipe: text,
            environment: self.json("environment.json"),
            plan,
            stages: self.stages.clone(),
            table: serde_json::from_value(self.json("probes.json")).unwrap_or_default(),
            updated,
        })
    }

    fn json(&self, name: &str) -> Value {
        read_json(&self.folder.join(name))
    }

    fn status(&self) -> &'static str {
        match &self.json("state.json")["finished"] {
            Value::Bool(true) => "finished",
            _ if self.is_training() => "training",
            _ => "stopped",
        }
    }

    fn read_log(&mut self) -> io::Result<()> {
        let (stages, since) = (&mut self.stages, &mut self.since);
        self.log.read(&mut |told| match told {
            Told::Anew => {
                stages.clear();
                since.clear();
            }
            Told::Line(line) => {
                let place = stages.iter().position(|stage| stage.name == line.stage);
                let place = place.unwrap_or_else(|| {
                    stages.push(StageData { name: line.stage.clone(), ..StageData::default() });
                    stages.len() - 1
                });
                stages[place].add(line, since);
            }
        })?;
        Ok(())
    }

    /// The recipe's stages first and in its order.
    fn order(&mut self, recipe: Option<&Recipe>, plan: &Value) {
        let known = recipe.map_or(&[][..], |recipe| &recipe.stage);
        for (place, stage) in known.iter().enumerate() {
            let found = self.stages.iter().position(|found| found.name == stage.name);
            let mut data = found.map_or_else(StageData::default, |found| self.stages.remove(found));
            data.name.clone_from(&stage.name);
            data.method = format!("{:?}", stage.method).to_lowercase();
            let planned = plan["stages"].as_array().into_iter().flatten();
            let mut planned = planned.filter(|planned| planned["name"] == stage.name.as_str());
            data.steps =
                planned.next().and_then(|planned| planned["steps"].as_u64()).or(stage.steps);
            self.stages.insert(place, data);
        }
    }
}

impl StageData {
    fn add(&mut self, line: Line, since: &mut HashMap<String, (f64, u64)>) {
        let Line { step, unix_seconds, what, .. } = line;
        self.began = self.began.or(unix_seconds);
        self.updated = unix_seconds.or(self.updated);
        let since = since.entry(self.name.clone()).or_default();
        match what {
            What::Step(line) => {
                self.step = step;
                self.series.push(step, line);
                *since = (since.0 + line.loss, since.1 + 1);
            }
            What::Probe(probe) => {
                let train_loss = (since.1 > 0).then_some(since.0 / since.1 as f64);
                self.probes.push(ProbePoint { step, train_loss, probe: *probe });
                *since = (0.0, 0);
            }
            What::Alarm(alarm) => {
                self.alarms.push(AlarmPoint { step, kind: alarm.kind, text: alarm.text });
            }
        }
    }
}

/// Lines through each loss and each accuracy, with and without the probe before the first step: that
/// one tells of a random encoder and not of learning, and lies far from the others.
fn fits(probes: &[ProbePoint]) -> Vec<LossFit> {
    type Get = fn(&ProbePoint) -> Option<f64>;
    let losses: [(&str, Get); 2] = [("loss", |p| p.probe.loss), ("train_loss", |p| p.train_loss)];
    let accuracies: [(&str, Get); 4] = [
        ("knn_mean", |p| p.probe.knn_mean),
        ("knn_cls", |p| p.probe.knn_cls),
        ("linear_mean", |p| p.probe.linear_mean),
        ("linear_cls", |p| p.probe.linear_cls),
    ];
    let mut fits = Vec::new();
    for (x, loss) in losses {
        for (y, accuracy) in accuracies {
            for from_start in [false, true] {
                let counted = probes.iter().filter(|probe| from_start || probe.step > 0);
                let points: Vec<_> =
                    counted.filter_map(|probe| Some((loss(probe)?, accuracy(probe)?))).collect();
                fits.extend(fit(&points).map(|fit| LossFit { x, y, from_start, fit }));
            }
        }
    }
    fits
}

/// Largest file of JSON that is read.
const MOST_JSON_BYTES: u64 = 64 << 20;

/// Null for a file that is not there, is too large, or is no JSON.
pub(super) fn read_json(path: &Path) -> Value {
    let small =
        fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() <= MOST_JSON_BYTES);
    let bytes = if small { fs::read(path).ok() } else { None };
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn version(changed: Option<SystemTime>) -> Value {
    let since = changed.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.map_or(Value::Null, |since| json!({"version": since.as_nanos().to_string()}))
}

/// Whether a process of this machine holds the lock of a run. The system's list is read: asking for
/// the lock itself could refuse it to a run that begins in that moment.
#[cfg(target_os = "linux")]
fn is_locked(lock: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let (Ok(file), Ok(locks)) = (fs::metadata(lock), fs::read_to_string("/proc/locks")) else {
        return is_fresh(lock);
    };
    // 1: FLOCK  ADVISORY  WRITE 708 fe:00:1325 0 EOF
    let inode = file.ino().to_string();
    let held = |line: &str| {
        line.contains("FLOCK")
            && line
                .split_whitespace()
                .any(|word| word.rsplit_once(':').is_some_and(|(_, i)| i == inode))
    };
    locks.lines().any(held)
}

/// Whether a process holds the lock of a run, as far as can be told.
#[cfg(not(target_os = "linux"))]
fn is_locked(lock: &Path) -> bool {
    is_fresh(lock)
}

/// Whether the log beside a lock was written to a short while ago.
fn is_fresh(lock: &Path) -> bool {
    if !lock.exists() {
        return false;
    }
    let log = fs::metadata(lock.with_file_name("metrics.jsonl")).and_then(|log| log.modified());
    log.is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() < 120))
}
