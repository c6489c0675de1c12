//! The work besides training: progress, the log and checkpoints, probes and their alarms.

use super::folder::Folder;
use super::online::{Online, ProbeOutcome};
use super::plan::StagePlan;
use super::reporter::Reporter;
use super::unreadable::UnreadableImages;
use crate::console::{Progress, alarms};
use crate::failure::{Failure, run_error};
use crate::files::write_whole;
use crate::judge::ImageSets;
use crate::method::Method;
use crate::recipe::Recipe;
use crate::report::RunReader;
use crate::run_files::{Alarm, LineKind, LogEvent, MetricsReader, OnlineProbe};
use crate::train::{Saver, StepEvent, Stop};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The stage that is followed, and what it needs.
#[derive(Clone, Copy)]
pub(crate) struct StageContext<'a> {
    pub(crate) recipe: &'a Recipe,
    pub(crate) images: &'a ImageSets,
    pub(crate) folder: &'a Folder,
    pub(crate) stop: &'a Stop,
    pub(crate) method: &'a dyn Method,
    pub(crate) plan: &'a StagePlan<'a>,
}

/// Follows one stage.
pub(crate) struct Follower<'a> {
    context: StageContext<'a>,
    unreadable: &'a mut UnreadableImages,
    reporter: Option<&'a mut Reporter>,
    progress: Progress,
    online: Option<Online<'a>>,
    /// Probes so far, each with its step.
    probes: Vec<(u64, OnlineProbe)>,
    /// Kinds of the last probe's alarms, which were reported.
    reported: BTreeSet<String>,
}

impl<'a> Follower<'a> {
    /// Starts after `step` steps. Earlier probes are read from the log.
    pub(crate) fn new(
        context: StageContext<'a>,
        unreadable: &'a mut UnreadableImages,
        reporter: Option<&'a mut Reporter>,
        step: u64,
    ) -> Result<Self, Failure> {
        let StageContext { recipe, images, folder, plan, .. } = context;
        let (name, steps) = (&plan.stage.name, plan.schedule.steps);
        let pace = RunReader::without_pictures(folder.path()).pace(recipe).map_err(run_error)?;
        let progress = Progress::new(name, steps, step, pace);
        let probes = earlier_probes(&folder.metrics_path(), name)?;
        let mut online = Online::new(recipe, images, plan);
        if let (Some(online), Some((step, _))) = (&mut online, probes.last()) {
            online.go_on_after(*step);
        }
        let reported = alarms_of(&probes, steps).into_iter().map(|alarm| alarm.kind).collect();
        Ok(Self { context, unreadable, reporter, progress, online, probes, reported })
    }

    /// Shows the end of the stage.
    pub(crate) fn finish(self) {
        self.progress.finish();
    }

    /// Shows a step, then probes if a probe is due.
    pub(crate) fn step(&mut self, event: StepEvent<'_, '_>) -> Result<(), Failure> {
        let StepEvent { report, unreadable, saver } = event;
        self.progress.step(&report);
        // The list is written before a checkpoint: a resumed run does not read these images again.
        self.unreadable.add(unreadable)?;
        if let Some(saver) = saver {
            self.probe(saver)?;
        }
        if let Some(reporter) = &mut self.reporter {
            reporter.refresh();
        }
        Ok(())
    }

    /// Whether a probe is still due because a signal prevented it.
    pub(crate) fn owes_probe(&self, step: u64) -> bool {
        self.online.as_ref().is_some_and(|online| online.is_due(step))
    }

    /// Probes if a probe is due.
    pub(crate) fn probe(&mut self, saver: &mut Saver<'_>) -> Result<(), Failure> {
        let step = saver.steps();
        let Some(online) = self.online.as_mut().filter(|online| online.is_due(step)) else {
            return Ok(());
        };
        let Some(seen) = online.probe(self.context.method, step, self.context.stop)? else {
            return Ok(());
        };
        let ProbeOutcome { probe, pictures } = seen;
        if let Some(pictures) = pictures {
            self.show(&pictures);
        }
        let took = Duration::from_secs_f64(probe.seconds);
        self.progress.probed(&probe.line(step), took);
        self.probes.push((step, probe));
        let mut found = alarms_of(&self.probes, self.context.plan.schedule.steps);
        let kinds = found.iter().map(|alarm| alarm.kind.clone()).collect();
        let reported = std::mem::replace(&mut self.reported, kinds);
        found.retain(|alarm| !reported.contains(&alarm.kind));
        for alarm in &found {
            self.progress.say(&format!("ALARM ({}): {}", alarm.kind, alarm.text));
        }
        // Pushed above.
        let (_, probe) = self.probes.last().expect("a probe");
        saver.probe(probe, &found).map_err(run_error)
    }

    /// Writes pictures. A failure does not stop training.
    fn show(&mut self, pictures: &Value) {
        let path = self.context.folder.pictures_path(&self.context.plan.stage.name);
        if let Err(problem) = self.context.folder.check() {
            return self.progress.say(&problem);
        }
        let parent = path.parent().map_or(Ok(()), fs::create_dir_all);
        let text = pictures.to_string();
        if let Err(error) = parent.and_then(|()| write_whole(&path, text.as_bytes())) {
            self.progress.say(&format!("cannot write {}: {error}", path.display()));
        }
    }
}

/// The alarms of the probes of a stage with `steps` steps.
fn alarms_of(probes: &[(u64, OnlineProbe)], steps: u64) -> Vec<Alarm> {
    let share = probes.last().map_or(0.0, |(step, _)| *step as f64 / steps as f64);
    let probes: Vec<_> = probes.iter().map(|(step, probe)| (*step, probe)).collect();
    alarms(&probes, share)
}

/// The probes of a stage so far, each with its step.
fn earlier_probes(log: &Path, stage: &str) -> Result<Vec<(u64, OnlineProbe)>, Failure> {
    let mut probes = Vec::new();
    let read = MetricsReader::new(log).read(&mut |event| {
        if let LogEvent::Line(line) = event
            && let LineKind::Probe(probe) = line.kind
            && line.stage == stage
        {
            probes.push((line.step, *probe));
        }
    });
    read.map_err(|error| run_error(format!("cannot read {}: {error}", log.display())))?;
    Ok(probes)
}
