//! What is written while a stage trains: a line per step, and checkpoints at intervals.

use super::{CheckpointError, Checkpoints, Optimizer, Position, StepReport};
use crate::data::Unreadable;
use crate::recipe::Checkpointing;
use crate::run_files::{Alarm, MetricsLog, OnlineProbe};
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A step or checkpoint that could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The log cannot be written.
    #[error("cannot write {path}: {source}")]
    Log {
        /// Its file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The checkpoint cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The folder no longer belongs to the run.
    #[error("{0}")]
    Folder(String),
}

/// Returns an error if something is wrong with the run's folder.
pub type FolderCheck<'a> = Box<dyn Fn() -> Result<(), String> + 'a>;

/// Saves the steps of one stage.
pub struct Saver<'a> {
    check_folder: FolderCheck<'a>,
    checkpoints: Checkpoints,
    every: Checkpointing,
    /// The next checkpoint's position.
    position: Position,
    log: MetricsLog,
    log_path: PathBuf,
    /// Time of the last checkpoint, or of the start.
    saved: Instant,
    saved_step: u64,
    /// Sums since the last checkpoint.
    loss_sum: f64,
    losses: u64,
}

impl<'a> Saver<'a> {
    /// Starts at `position`. The log is kept up to it.
    pub fn new(
        log_path: PathBuf,
        checkpoints: Checkpoints,
        every: Checkpointing,
        position: Position,
        check_folder: FolderCheck<'a>,
    ) -> Result<Self, SaveError> {
        let log = MetricsLog::open(&log_path, position.metrics_bytes)
            .map_err(|source| SaveError::Log { path: log_path.display().to_string(), source })?;
        let saved_step = position.step;
        let saved = Instant::now();
        Ok(Self {
            check_folder,
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
    pub fn step(
        &mut self,
        report: &StepReport,
        unreadable: &[Unreadable],
    ) -> Result<(), SaveError> {
        let logged = self.log.step(&self.position.stage, report.step, &report.line());
        logged.map_err(|source| self.log_error(source))?;
        self.position.step = report.step;
        self.position.unreadable.extend(unreadable.iter().map(|image| image.index));
        self.loss_sum += f64::from(report.loss);
        self.losses += 1;
        Ok(())
    }

    /// Logs the results of probes at this step.
    pub fn probe(&mut self, probe: &OnlineProbe, alarms: &[Alarm]) -> Result<(), SaveError> {
        let Position { stage, step, .. } = &self.position;
        let log = &mut self.log;
        let logged = log
            .probe(stage, *step, probe)
            .and_then(|()| alarms.iter().try_for_each(|alarm| log.alarm(stage, *step, alarm)));
        logged.and_then(|()| log.flush()).map_err(|source| self.log_error(source))
    }

    /// Saves a checkpoint if one is due.
    pub fn save_if_due(&mut self, optimizer: &Optimizer) -> Result<(), SaveError> {
        if self.is_due() { self.save(optimizer) } else { Ok(()) }
    }

    fn is_due(&self) -> bool {
        let Checkpointing { every_steps, every_minutes, .. } = self.every;
        let steps = self.position.step - self.saved_step;
        let time = Duration::from_secs_f64(60.0 * every_minutes);
        (every_steps > 0 && steps >= every_steps)
            || (every_minutes > 0.0 && self.saved.elapsed() >= time)
    }

    /// Saves a checkpoint if a step was applied since the last one.
    pub fn save(&mut self, optimizer: &Optimizer) -> Result<(), SaveError> {
        if self.losses == 0 {
            return Ok(());
        }
        self.position.metrics_bytes = self.finish()?;
        // Last before the checkpoint, because another folder may take this one's name at any time.
        (self.check_folder)().map_err(SaveError::Folder)?;
        self.position.loss = self.loss_sum / self.losses as f64;
        // If the folder was removed meanwhile, that is reported instead of the missing file.
        let saved = self.checkpoints.save(self.position.clone(), optimizer);
        saved.map_err(|error| match (self.check_folder)() {
            Err(problem) => SaveError::Folder(problem),
            Ok(()) => error.into(),
        })?;
        (self.loss_sum, self.losses) = (0.0, 0);
        (self.saved, self.saved_step) = (Instant::now(), self.position.step);
        Ok(())
    }

    /// Makes the log durable. Returns its length.
    pub fn finish(&mut self) -> Result<u64, SaveError> {
        self.log.sync().map_err(|source| self.log_error(source))
    }

    /// Steps applied so far, including those of earlier processes.
    pub fn steps(&self) -> u64 {
        self.position.step
    }
    fn log_error(&self, source: io::Error) -> SaveError {
        SaveError::Log { path: self.log_path.display().to_string(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{Keep, OptimizerOptions};
    use engine::{Parameter, Tensor};
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    fn optimizer() -> Optimizer {
        let weight = Parameter::new("w", Tensor::from_vec([0.5, -1.0], &[2]));
        let (betas, eps, clip, decay_all) = ((0.9, 0.95), 1e-8, None, true);
        let options = OptimizerOptions { betas, eps, clip, decay_all };
        Optimizer::new(vec![("w".to_owned(), weight)], options)
    }

    fn report(step: u64, loss: f32) -> StepReport {
        StepReport {
            step,
            loss,
            lr: 0.1,
            weight_decay: 0.0,
            grad_norm: 1.0,
            images: 8,
            context_tokens: 8,
            target_tokens: 8,
            time: Duration::from_secs(1),
            waited: Duration::ZERO,
        }
    }

    /// Makes a step of each loss after step `done`, with a checkpoint every two steps. Returns step
    /// and loss of the newest checkpoint after each.
    fn newest(run: &Path, done: u64, losses: &[f32]) -> Vec<Option<(u64, f64)>> {
        let position = Position {
            stage: "a".into(),
            step: done,
            loss: 0.0,
            metrics_bytes: 0,
            machine: String::new(),
            recipe_sha256: String::new(),
            teacher_sha256: String::new(),
            updates: BTreeMap::new(),
            unreadable: BTreeSet::new(),
        };
        let every =
            Checkpointing { every_minutes: 0.0, every_steps: 2, ..Checkpointing::default() };
        let checkpoints = Checkpoints::new(run, Keep { last: 2, best: true });
        let (log, check): (_, FolderCheck<'_>) = (run.join("metrics.jsonl"), Box::new(|| Ok(())));
        let mut saver = Saver::new(log, checkpoints.clone(), every, position, check).unwrap();
        let optimizer = optimizer();
        let step = |(step, loss): (u64, &f32)| {
            saver.step(&report(step, *loss), &[]).unwrap();
            saver.save_if_due(&optimizer).unwrap();
            let (found, _) = checkpoints.newest("a").unwrap();
            found.map(|found| (found.position.step, found.position.loss))
        };
        (done + 1..).zip(losses).map(step).collect()
    }

    #[test]
    fn a_checkpoint_has_its_step_and_the_mean_loss_since_the_one_before() {
        let run = tempfile::tempdir().unwrap();
        let [first, second] = [Some((2, 3.0)), Some((4, 4.0))];
        let found = newest(run.path(), 0, &[4.0, 2.0, 1.0, 7.0, 9.0]);
        assert_eq!(found, [None, first, first, second, second]);
        // A resumed run counts from its checkpoint.
        assert_eq!(newest(run.path(), 4, &[5.0, 6.0]), [second, Some((6, 5.5))]);
    }
}
