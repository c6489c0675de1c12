//! What follows a stage while it trains: progress, the log and checkpoints, probes and their alarms.

use super::folder::{Folder, keep};
use super::online::{Online, ProbeOutcome};
use super::plan::StagePlan;
use super::reporter::Reporter;
use super::saver::Saver;
use super::unreadable::UnreadableImages;
use crate::console::{Progress, alarms};
use crate::data::Unreadable;
use crate::failure::{Failure, run_error};
use crate::files::write_whole;
use crate::judge::ImageSets;
use crate::method::Method;
use crate::recipe::Recipe;
use crate::run_files::{Alarm, LineKind, LogEvent, MetricsReader, OnlineProbe};
use crate::train::StepReport;
use crate::train::{Optimizer, Position, Stop};
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
    saver: Saver<'a>,
    online: Option<Online<'a>>,
    /// What was probed so far, with the steps it was of.
    probes: Vec<(u64, OnlineProbe)>,
    /// Alarms of the last probe, which were told.
    told: BTreeSet<String>,
}

impl<'a> Follower<'a> {
    /// Goes on at `position`: what was probed until there is read from the log.
    pub(crate) fn new(
        context: StageContext<'a>,
        unreadable: &'a mut UnreadableImages,
        reporter: Option<&'a mut Reporter>,
        position: Position,
    ) -> Result<Self, Failure> {
        let StageContext { recipe, images, folder, plan, .. } = context;
        let (name, steps) = (&plan.stage.name, plan.schedule.steps);
        let progress = Progress::new(name, steps, position.step);
        let checkpoints = folder.checkpoints(keep(recipe));
        // Cuts off what is made again.
        let saver = Saver::new(folder, checkpoints, recipe.checkpoint, position)?;
        let probes = earlier_probes(&folder.metrics_path(), name)?;
        let mut online = Online::new(recipe, images, plan);
        if let (Some(online), Some((step, _))) = (&mut online, probes.last()) {
            online.go_on_after(*step);
        }
        let told = alarms_of(&probes, steps).into_iter().map(|alarm| alarm.kind).collect();
        Ok(Self { context, unreadable, reporter, progress, saver, online, probes, told })
    }

    /// Steps made so far, in earlier processes too.
    pub(crate) fn made(&self) -> u64 {
        self.saver.steps()
    }

    /// Saves what was learned since the last checkpoint.
    pub(crate) fn save(&mut self, optimizer: &Optimizer) -> Result<(), Failure> {
        self.saver.save(optimizer)
    }

    /// Makes the log durable, and shows the stage's end where it was trained `whole`; the log's length.
    pub(crate) fn finish(mut self, whole: bool) -> Result<u64, Failure> {
        if whole {
            self.progress.finish();
        }
        self.saver.finish()
    }

    /// After a step: shows and logs it, probes and saves where that is due.
    pub(crate) fn step(
        &mut self,
        report: &StepReport,
        optimizer: &Optimizer,
        unreadable: &[Unreadable],
    ) -> Result<(), Failure> {
        self.progress.step(report);
        // The list before a checkpoint after which these images are not met again.
        self.unreadable.add(unreadable)?;
        self.saver.step(report, unreadable)?;
        self.probe()?;
        if let Some(reporter) = &mut self.reporter {
            reporter.refresh();
        }
        self.saver.save_if_due(optimizer)
    }

    /// Whether a probe that is due was not made: a signal came in between.
    pub(crate) fn owes_probe(&self) -> bool {
        self.online.as_ref().is_some_and(|online| online.is_due(self.made()))
    }

    /// Probes where that is due.
    pub(crate) fn probe(&mut self) -> Result<(), Failure> {
        let step = self.made();
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
        self.progress.between(&format!("after step {step}: {}", probe.text()), took);
        self.probes.push((step, probe));
        let mut found = alarms_of(&self.probes, self.context.plan.schedule.steps);
        let kinds = found.iter().map(|alarm| alarm.kind.clone()).collect();
        let told = std::mem::replace(&mut self.told, kinds);
        found.retain(|alarm| !told.contains(&alarm.kind));
        for alarm in &found {
            self.progress
                .between(&format!("ALARM ({}): {}", alarm.kind, alarm.text), Duration::ZERO);
        }
        // Pushed above.
        let (_, probe) = self.probes.last().expect("a probe");
        self.saver.probe(probe, &found)
    }

    /// Writes pictures. Those that cannot be written end no training.
    fn show(&mut self, pictures: &Value) {
        let path = self.context.folder.pictures_path(&self.context.plan.stage.name);
        let parent = path.parent().map_or(Ok(()), fs::create_dir_all);
        let text = pictures.to_string();
        if let Err(error) = parent.and_then(|()| write_whole(&path, text.as_bytes())) {
            let problem = format!("cannot write {}: {error}", path.display());
            self.progress.between(&problem, Duration::ZERO);
        }
    }
}

/// What the probes of a stage of so many steps give cause for.
fn alarms_of(probes: &[(u64, OnlineProbe)], steps: u64) -> Vec<Alarm> {
    let share = probes.last().map_or(0.0, |(step, _)| *step as f64 / steps as f64);
    let probes: Vec<_> = probes.iter().map(|(step, probe)| (*step, probe)).collect();
    alarms(&probes, share)
}

/// What was probed of a stage until now, with the steps it was of.
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
