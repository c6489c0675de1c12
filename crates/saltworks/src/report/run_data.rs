//! Everything that a report shows of a run, read from its folder while the run grows.

use super::{Fit, Series, fit};
use crate::console::{JudgedStage, RunPace, StagePace, StageVerdict, alarms, verdicts};
use crate::recipe::{self, Recipe};
use crate::run_files::names::{ENVIRONMENT, METRICS, PLAN, PROBES, RECIPE, STATE, pictures_of};
use crate::run_files::{
    Alarm, Environment, Line, LineKind, LogEvent, MetricsReader, OnlineProbe, PlanFile,
    PlannedStage, ProbeRow, Right, RunEnd, RunState, is_training, reading,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
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
    /// The tags of its recipe.
    pub tags: Vec<String>,
    /// `training`, `finished` or `stopped`.
    pub status: &'static str,
    /// Why its last process ended before the run did, if it wrote a reason.
    pub ended: Option<RunEnd>,
    /// recipe.toml
    pub recipe: String,
    /// environment.json, empty without one.
    pub environment: Environment,
    /// plan.json, empty without one.
    pub plan: PlanFile,
    /// All stages of the recipe in their order.
    pub stages: Vec<StageData>,
    /// probes.json
    pub table: Vec<ProbeRow>,
    /// The verdict on each stage that has begun.
    pub verdicts: Vec<StageVerdict>,
    /// The time left, in words, if a process trains the run and the time can be known.
    pub left: Option<String>,
    /// What a process does between stages, if one trains the run: `probing raw pixels`.
    pub doing: Option<String>,
    /// When the last line was written.
    pub updated: Option<f64>,
    /// Files that could not be read or understood, and what is missing from the report.
    pub problems: Vec<String>,
}

/// A stage as reports show it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StageData {
    /// Its name in the recipe.
    pub name: String,
    /// `mae` or `salt`.
    pub method: String,
    /// All its steps, if plan.json or the recipe states them.
    pub steps: Option<u64>,
    /// Steps made.
    pub step: u64,
    /// When the last line was written.
    pub updated: Option<f64>,
    /// Time of its steps and probes, without pauses between processes.
    pub seconds: f64,
    /// Mean images per second of its steps, without probes.
    pub images_per_second: Option<f64>,
    /// Its curves.
    pub series: Series,
    /// Results of probes.
    pub probes: Vec<ProbePoint>,
    /// Signs that training goes wrong.
    pub alarms: Vec<AlarmPoint>,
    /// Lines through loss and accuracy.
    pub fits: Vec<LossFit>,
    /// pictures/STAGE.json, null without one.
    pub pictures: Value,
    /// Time and images of its steps.
    #[serde(skip)]
    stepped: (f64, f64),
}

/// A probe and its step.
#[derive(Clone, Debug, Serialize)]
pub struct ProbePoint {
    /// Steps made.
    pub step: u64,
    /// Mean training loss since the probe before.
    pub train_loss: Option<f64>,
    /// Its results.
    #[serde(flatten)]
    pub probe: OnlineProbe,
}

/// An alarm and its step.
#[derive(Clone, Debug, Serialize)]
pub struct AlarmPoint {
    /// Steps made.
    pub step: u64,
    /// The step of the first later probe without its sign.
    pub over: Option<u64>,
    /// `collapse`, `rank` or `flat`.
    pub kind: String,
    /// The sign, and what to do.
    pub text: String,
}

/// How well a loss predicts an accuracy.
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

/// Reads a run's folder, and later only what changed.
pub struct RunReader {
    folder: PathBuf,
    log: MetricsReader,
    stages: Vec<StageData>,
    /// The place of each stage among them. A damaged log may name tens of thousands.
    places: HashMap<String, usize>,
    /// Loss and steps since a stage's last probe.
    since: HashMap<String, (f64, u64)>,
    /// Pictures and when their file was written.
    pictures: HashMap<String, (Option<SystemTime>, Value)>,
    with_pictures: bool,
}

impl RunReader {
    /// A reader of the run in a folder.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.into(),
            log: MetricsReader::new(&folder.join(METRICS)),
            stages: Vec::new(),
            places: HashMap::new(),
            since: HashMap::new(),
            pictures: HashMap::new(),
            with_pictures: true,
        }
    }

    /// A reader of the run in a folder. In place of a stage's pictures it returns
    /// `{"version": ...}`, which changes when they do.
    pub fn without_pictures(folder: &Path) -> Self {
        Self { with_pictures: false, ..Self::new(folder) }
    }

    /// Whether a process trains the run.
    pub fn is_training(&self) -> bool {
        is_training(&self.folder)
    }

    /// Whether all stages and probes are done.
    pub fn is_finished(&self) -> bool {
        self.json::<RunState>(STATE, &mut Vec::new()).finished
    }

    /// The run as it is now. Files that are missing or damaged are left out, because a report of a
    /// run that goes wrong is the most useful.
    ///
    /// # Errors
    /// A recipe or a log that cannot be read.
    pub fn read(&mut self) -> io::Result<RunData> {
        let mut problems = Vec::new();
        let text = reading::recipe_text(&self.folder)?;
        let recipe = recipe::from_trained_text(RECIPE, &text);
        let recipe = recipe.map_err(|error| problems.push(format!("{error}"))).ok();
        self.read_log()?;
        let plan: PlanFile = self.json(PLAN, &mut problems);
        self.order(recipe.as_ref(), &plan);
        for stage in &mut self.stages {
            let name = pictures_of(&stage.name);
            let cached = self.pictures.entry(stage.name.clone()).or_default();
            let changed = fs::metadata(self.folder.join(&name)).and_then(|file| file.modified());
            let changed = changed.ok();
            if changed != cached.0 {
                *cached = match self.with_pictures {
                    true => (changed, reading::json_or(&self.folder, &name, &mut problems)),
                    false => (changed, version(changed)),
                };
            }
            stage.pictures = cached.1.clone();
            stage.series.settle();
            stage.fits = fits(&stage.probes);
        }
        let mut state: RunState = self.json(STATE, &mut problems);
        let mut table: Vec<ProbeRow> = self.json(PROBES, &mut problems);
        let verdicts = self.verdicts(recipe.as_ref(), &table);
        // Which images are right is part of the verdicts. Pages need no more of it.
        table.iter_mut().for_each(|row| row.right = Right::default());
        let mut stages = self.stages.clone();
        let probes = stages.iter_mut().flat_map(|stage| &mut stage.probes);
        probes.for_each(|point| point.probe.right = Right::default());
        let mut environment: Environment = self.json(ENVIRONMENT, &mut problems);
        let texts = environment.command.iter_mut().chain(&mut problems);
        let texts = texts.chain(state.ended.as_mut().map(|ended| &mut ended.why));
        texts.for_each(|text| *text = reading::redacted(text));
        let status = self.status(&state);
        problems.extend(self.log_problem(status));
        let pace = recipe.as_ref().filter(|_| status == "training");
        let doing = pace.and_then(|recipe| self.doing(recipe, &table));
        // Between stages nothing is known of the next one.
        let pace = pace.filter(|_| doing.is_none());
        let left = pace.and_then(|recipe| self.pace_of(recipe, &plan).left());
        let name = fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let updated = self.stages.iter().filter_map(|stage| stage.updated).reduce(f64::max);
        Ok(RunData {
            name: name.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
            folder: self.folder.display().to_string(),
            tags: recipe.map_or_else(Vec::new, |recipe| recipe.tags),
            status,
            ended: state.ended,
            recipe: reading::redacted(&text),
            environment,
            plan,
            stages,
            table,
            verdicts,
            left,
            doing,
            updated,
            problems,
        })
    }

    /// The pace of the run so far, for the estimate of the time left.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub fn pace(&mut self, recipe: &Recipe) -> io::Result<RunPace> {
        let plan = self.json(PLAN, &mut Vec::new());
        self.read_log()?;
        self.order(Some(recipe), &plan);
        Ok(self.pace_of(recipe, &plan))
    }

    fn pace_of(&self, recipe: &Recipe, plan: &PlanFile) -> RunPace {
        let planned = planned_stages(plan);
        let stage = |stage: &StageData| {
            let flops = planned.get(stage.name.as_str()).and_then(|planned| {
                Some(planned.flops_per_image.get("total")? * planned.batch as f64)
            });
            let probe_seconds = stage.probes.iter().map(|point| point.probe.seconds).sum();
            StagePace {
                name: stage.name.clone(),
                steps: stage.steps.unwrap_or(stage.step),
                step: stage.step,
                step_seconds: stage.stepped.0,
                probes: stage.probes.len() as u64,
                probe_seconds,
                step_flops: flops.unwrap_or(0.0),
            }
        };
        RunPace { stages: self.stages.iter().map(stage).collect(), probe: recipe.probe.clone() }
    }

    /// What the process of a run does while no stage trains, as its files show. Else none.
    fn doing(&self, recipe: &Recipe, table: &[ProbeRow]) -> Option<String> {
        let begun = self.stages.iter().rposition(StageData::has_begun);
        let Some(now) = begun.map(|index| &self.stages[index]) else {
            let first = self.stages.first().map_or("run", |stage| &stage.name);
            let probes = recipe.probe.online && !self.stages.is_empty();
            return Some(match probes {
                true => format!("probing the {first} before training"),
                false => format!("starting the {first}"),
            });
        };
        if now.step == 0 || Some(now.step) != now.steps {
            return None;
        }
        if let Some(next) = self.stages.get(begun? + 1) {
            return Some(format!("starting the {}", next.name));
        }
        // The file appears before the first of these probes. Images without classes have none.
        let probed = |name: &str| table.iter().any(|row| row.name == name);
        let probing = self.folder.join(PROBES).exists() && !probed(&now.name);
        Some(if probing { "probing all encoders, and raw pixels" } else { "ending" }.to_owned())
    }

    /// The verdicts on the stages of the run in a folder, for its end in a terminal. Empty if the
    /// folder cannot be read.
    pub fn verdict_lines(folder: &Path) -> Vec<String> {
        let run = Self::without_pictures(folder).read();
        let verdicts = run.map_or_else(|_| Vec::new(), |run| run.verdicts);
        let lines = |StageVerdict { text, details, .. }: StageVerdict| {
            let details = details.into_iter().map(|text| format!("  {text}"));
            std::iter::once(text).chain(details).collect::<Vec<_>>()
        };
        verdicts.into_iter().flat_map(lines).collect()
    }

    fn verdicts(&self, recipe: Option<&Recipe>, table: &[ProbeRow]) -> Vec<StageVerdict> {
        let of_recipe = recipe.map_or(&[][..], |recipe| &recipe.stage);
        let indices: HashMap<&str, usize> = of_recipe
            .iter()
            .enumerate()
            .map(|(index, stage)| (stage.name.as_str(), index))
            .collect();
        let teacher = |name: &str| {
            let index = *indices.get(name)?;
            let (teacher, place) = indices.get_key_value(of_recipe[index].teacher.as_deref()?)?;
            (*place < index).then_some(*teacher)
        };
        let stages = self.stages.iter().filter(|stage| stage.has_begun()).map(|stage| {
            let probes = stage.probes.iter().map(|point| (point.step, &point.probe)).collect();
            JudgedStage { name: &stage.name, teacher: teacher(&stage.name), probes }
        });
        verdicts(&stages.collect::<Vec<_>>(), table)
    }

    fn json<T: DeserializeOwned + Default>(&self, name: &str, problems: &mut Vec<String>) -> T {
        reading::json_or(&self.folder, name, problems)
    }

    /// What is wrong with the part of the log that was read.
    fn log_problem(&self, status: &str) -> Option<String> {
        if !self.folder.join(METRICS).exists() {
            // A run that has just begun has no log yet.
            let missing = || format!("{METRICS} is missing: there are no curves");
            return (status != "training").then(missing);
        }
        let lines = self.log.foreign_lines();
        (lines > 0).then(|| {
            format!(
                "{lines} lines of {METRICS} are left out: they are damaged or of another program"
            )
        })
    }

    fn status(&self, state: &RunState) -> &'static str {
        match state.finished {
            true => "finished",
            // A process that wrote why it ended has ended, even if its lock is fresh.
            false if state.ended.is_none() && self.is_training() => "training",
            false => "stopped",
        }
    }

    fn read_log(&mut self) -> io::Result<()> {
        let (stages, places, since) = (&mut self.stages, &mut self.places, &mut self.since);
        self.log.read(&mut |event| match event {
            LogEvent::Restart => {
                stages.clear();
                places.clear();
                since.clear();
            }
            LogEvent::Line(line) => {
                let known = places.get(&line.stage).copied();
                let index = known.unwrap_or_else(|| {
                    places.insert(line.stage.clone(), stages.len());
                    stages.push(StageData { name: line.stage.clone(), ..StageData::default() });
                    stages.len() - 1
                });
                stages[index].add(line, since);
            }
        })?;
        Ok(())
    }

    /// Puts the stages into the order of the recipe, and adds those that have not begun.
    fn order(&mut self, recipe: Option<&Recipe>, plan: &PlanFile) {
        let planned = planned_stages(plan);
        let mut found: Vec<Option<StageData>> = self.stages.drain(..).map(Some).collect();
        for stage in recipe.map_or(&[][..], |recipe| &recipe.stage) {
            let known = self.places.get(&stage.name).and_then(|&place| found[place].take());
            let planned = planned.get(stage.name.as_str()).map(|planned| planned.steps);
            self.stages.push(StageData {
                name: stage.name.clone(),
                method: stage.method.word().into(),
                steps: planned.or(stage.steps),
                ..known.unwrap_or_default()
            });
        }
        self.stages.extend(found.into_iter().flatten());
        let names = self.stages.iter().map(|stage| stage.name.clone());
        self.places = names.zip(0..).collect();
    }
}

/// The stages of a plan by their names. The first of a name counts.
fn planned_stages(plan: &PlanFile) -> HashMap<&str, &PlannedStage> {
    plan.stages.iter().rev().map(|stage| (stage.name.as_str(), stage)).collect()
}

impl StageData {
    /// Whether a step or a probe was made.
    pub fn has_begun(&self) -> bool {
        self.step > 0 || !self.probes.is_empty()
    }

    fn add(&mut self, line: Line, since: &mut HashMap<String, (f64, u64)>) {
        let Line { step, unix_seconds, kind, .. } = line;
        self.updated = unix_seconds.or(self.updated);
        let since = since.entry(self.name.clone()).or_default();
        match kind {
            LineKind::Step(line) => {
                self.step = step;
                self.series.push(step, line);
                *since = (since.0 + line.loss, since.1 + 1);
                self.seconds += line.seconds;
                self.stepped.0 += line.seconds;
                self.stepped.1 += line.seconds * line.images_per_second;
                let (seconds, images) = self.stepped;
                self.images_per_second = (seconds > 0.0).then(|| images / seconds);
            }
            LineKind::Probe(mut probe) => {
                // No page shows histograms, and they are most of a log.
                probe.histograms.clear();
                let train_loss = (since.1 > 0).then_some(since.0 / since.1 as f64);
                self.seconds += probe.seconds;
                self.probes.push(ProbePoint { step, train_loss, probe: *probe });
                *since = (0.0, 0);
                self.end_alarms(step);
            }
            LineKind::Alarm(Alarm { kind, text }) => {
                self.alarms.push(AlarmPoint { step, over: None, kind, text });
            }
        }
    }

    /// Ends the alarms whose sign the newest probe does not have.
    fn end_alarms(&mut self, step: u64) {
        if self.alarms.iter().all(|alarm| alarm.over.is_some()) {
            return;
        }
        let probes: Vec<_> = self.probes.iter().map(|point| (point.step, &point.probe)).collect();
        // These alarms were given, so the stage had come far enough for them.
        let now = alarms(&probes, 1.0);
        let over = |alarm: &&mut AlarmPoint| now.iter().all(|now| now.kind != alarm.kind);
        let begun = self.alarms.iter_mut().filter(|alarm| alarm.over.is_none());
        begun.filter(over).for_each(|alarm| alarm.over = Some(step));
    }
}

/// The fewest points that a line is drawn through. A line nearly always fits fewer.
const LEAST_POINTS: usize = 5;

/// Lines through each loss and each accuracy, with and without the probe before the first step.
/// That probe is of a random encoder, and is far from the others.
fn fits(probes: &[ProbePoint]) -> Vec<LossFit> {
    type PointValue = fn(&ProbePoint) -> Option<f64>;
    let losses: [(&str, PointValue); 2] =
        [("loss", |p| p.probe.loss), ("train_loss", |p| p.train_loss)];
    let accuracies: [(&str, PointValue); 4] = [
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
                let fit = fit(&points).filter(|fit| fit.n >= LEAST_POINTS);
                fits.extend(fit.map(|fit| LossFit { x, y, from_start, fit }));
            }
        }
    }
    fits
}

fn version(changed: Option<SystemTime>) -> Value {
    let since = changed.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.map_or(Value::Null, |since| json!({"version": since.as_nanos().to_string()}))
}
