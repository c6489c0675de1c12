//! What is written while a stage trains: a line a step, a checkpoint now and then.

use super::folder::{Folder, write_error};
use crate::data::Unreadable;
use crate::failure::{Failure, run_error};
use crate::recipe::Checkpointing;
use crate::run_files::{Alarm, MetricsLog, OnlineProbe};
use crate::train::StepReport;
use crate::train::{Checkpoints, Optimizer, Position};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Writes the steps of one stage.
pub(crate) struct Saver<'a> {
    folder: &'a Folder,
    checkpoints: Checkpoints,
    every: Checkpointing,
    /// What every checkpoint of the stage says alike.
    position: Position,
    log: MetricsLog,
    log_path: PathBuf,
    /// Of the last checkpoint, or of the first step here.
    saved: Instant,
    saved_step: u64,
    /// Since then.
    loss_sum: f64,
    losses: u64,
}

impl<'a> Saver<'a> {
    /// Goes on at `position`.
    pub(crate) fn new(
        folder: &'a Folder,
        checkpoints: Checkpoints,
        every: Checkpointing,
        position: Position,
    ) -> Result<Self, Failure> {
        let log_path = folder.metrics_path();
        let log = MetricsLog::open(&log_path, position.metrics_bytes)
            .map_err(|error| run_error(write_error(&log_path, &error)))?;
        let saved_step = position.step;
        let saved = Instant::now();
        Ok(Self {
            folder,
            checkpoints,
            every,
            position,
            log,
            log_path,
            saved,
            saved_step,
            loss_sum: 0.0,
            losses: 0,
        })
    }

    /// Logs a step.
    pub(crate) fn step(
        &mut self,
        report: &StepReport,
        unreadable: &[Unreadable],
    ) -> Result<(), Failure> {
        let logged = self.log.step(&self.position.stage, report.step, &report.line());
        logged.map_err(|error| run_error(write_error(&self.log_path, &error)))?;
        self.position.step = report.step;
        self.position.unreadable.extend(unreadable.iter().map(|image| image.index));
        self.loss_sum += f64::from(report.loss);
        self.losses += 1;
        Ok(())
    }

    /// Logs what probes found at this step.
    pub(crate) fn probe(&mut self, probe: &OnlineProbe, alarms: &[Alarm]) -> Result<(), Failure> {
        let Position { stage, step, .. } = &self.position;
        let log = &mut self.log;
        let logged = log
            .probe(stage, *step, probe)
            .and_then(|()| alarms.iter().try_for_each(|alarm| log.alarm(stage, *step, alarm)));
        logged
            .and_then(|()| log.flush())
            .map_err(|error| run_error(write_error(&self.log_path, &error)))
    }

    /// Saves a checkpoint when one is due.
    pub(crate) fn save_if_due(&mut self, optimizer: &Optimizer) -> Result<(), Failure> {
        if self.is_due() { self.save(optimizer) } else { Ok(()) }
    }

    fn is_due(&self) -> bool {
        let Checkpointing { every_steps, every_minutes, .. } = self.every;
        let steps = self.position.step - self.saved_step;
        let time = Duration::from_secs_f64(60.0 * every_minutes);
        (every_steps > 0 && steps >= every_steps)
            || (every_minutes > 0.0 && self.saved.elapsed() >= time)
    }

    /// Saves a checkpoint, if a step was made since the last one.
    pub(crate) fn save(&mut self, optimizer: &Optimizer) -> Result<(), Failure> {
        if self.losses == 0 {
            return Ok(());
        }
        self.folder.check_lock()?;
        self.position.metrics_bytes = self.finish()?;
        self.position.loss = self.loss_sum / self.losses as f64;
        // A folder that goes away in the middle is the reason, not the file that is missing for it.
        let reason = |error| self.folder.check_lock().err().unwrap_or_else(|| run_error(error));
        self.checkpoints.save(self.position.clone(), optimizer).map_err(reason)?;
        (self.loss_sum, self.losses) = (0.0, 0);
        (self.saved, self.saved_step) = (Instant::now(), self.position.step);
        Ok(())
    }

    /// Makes the log durable; its length.
    pub(crate) fn finish(&mut self) -> Result<u64, Failure> {
        self.log.sync().map_err(|error| run_error(write_error(&self.log_path, &error)))
    }

    /// Steps made so far, in earlier processes too.
    pub(crate) fn steps(&self) -> u64 {
        self.position.step
    }
}
