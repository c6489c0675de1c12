//! A run: its stages one after another, each trained, saved and probed.

use super::OnStep;
use super::dump::{FailedStep, dump};
use super::folder::{Folder, keep};
use super::follower::{Follower, StageContext};
use super::plan::StagePlan;
use super::reporter::Reporter;
use super::unreadable::UnreadableImages;
use crate::console::{note, probe_table, result};
use crate::failure::{Failure, count_threads, interrupted, loading, run_error};
use crate::judge::{ImageSets, note_reading};
use crate::method::Method;
use crate::recipe::Recipe;
use crate::report::RunReader;
use crate::run_files::{ProbeRow, RunEnd, memory_nodes, unix_seconds};
use crate::train::{self, Saver, StageEnd, Stop};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// A run and its folder.
pub(crate) struct Run<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) images: &'a ImageSets,
    pub(super) folder: Folder,
    pub(super) stop: &'a Stop,
    on_step: OnStep<'a>,
    pub(super) rows: Vec<ProbeRow>,
    pub(super) unreadable: UnreadableImages,
    /// None if the recipe requests no reports.
    pub(super) reporter: Option<Reporter>,
    /// Whether a step was made.
    trained: bool,
}

impl<'a> Run<'a> {
    /// Starts or resumes the run in the folder.
    pub(crate) fn new(
        recipe: &'a Recipe,
        images: &'a ImageSets,
        folder: Folder,
        stop: &'a Stop,
        on_step: OnStep<'a>,
    ) -> Result<Self, Failure> {
        let rows = folder.rows()?;
        let unreadable = UnreadableImages::open(folder.unreadable_path());
        let reporter = Reporter::new(folder.path(), &recipe.log);
        let trained = false;
        Ok(Self { recipe, images, folder, stop, on_step, rows, unreadable, reporter, trained })
    }

    /// Trains every stage, then probes their encoders.
    pub(crate) fn stages(&mut self, plans: &[StagePlan<'_>]) -> Result<(), Failure> {
        let trained = plans.iter().try_for_each(|plan| self.stage(plan));
        let ended = trained.and_then(|()| self.probe(plans));
        if let Err(failure) = &ended {
            self.folder.set_ended(end(failure));
            if self.trained || self.folder.resumed() {
                self.report("stopped");
            }
        }
        ended
    }

    /// Removes a new folder in which nothing was trained, after its run was refused.
    pub(crate) fn discard_if_nothing_was_done(&self) {
        if !self.trained && !self.folder.resumed() {
            self.folder.discard();
        }
    }

    /// Trains a stage and saves its encoder, unless that is done.
    fn stage(&mut self, plan: &StagePlan<'_>) -> Result<(), Failure> {
        let name = &plan.stage.name;
        if self.folder.is_done(name) {
            // A process that was killed right after the stage's end may have left checkpoints.
            return self.clean_checkpoints(plan);
        }
        let init = plan.stage.init.as_deref().map(|name| self.weights_path(plan, name));
        let method = plan.method(self.teacher_path(plan).as_deref(), init.as_deref())?;
        self.train(method.as_ref(), plan)
    }

    /// Whether a stage's last checkpoint stays, so that the stage can be made longer.
    fn keeps_end(&self, plan: &StagePlan<'_>) -> bool {
        self.recipe.checkpoint.keep_end && plan.stage_index + 1 == self.recipe.stage.len()
    }

    /// Removes the checkpoints of a stage that ended, but the last one if it stays.
    fn clean_checkpoints(&self, plan: &StagePlan<'_>) -> Result<(), Failure> {
        let (name, checkpoints) = (&plan.stage.name, self.folder.checkpoints(keep(self.recipe)));
        let cleaned = match self.keeps_end(plan) {
            true => checkpoints.keep_newest(name),
            false => checkpoints.remove(name),
        };
        cleaned.map_err(run_error)
    }

    /// The file of a stage's teacher.
    pub(super) fn teacher_path(&self, plan: &StagePlan<'_>) -> Option<PathBuf> {
        plan.stage.teacher.as_deref().map(|name| self.weights_path(plan, name))
    }

    /// The weights that a stage names: an earlier stage's, or the file named.
    fn weights_path(&self, plan: &StagePlan<'_>, name: &str) -> PathBuf {
        let earlier = self.recipe.stage_before(plan.stage_index, name).is_some();
        if earlier { self.folder.encoder_path(name) } else { PathBuf::from(name) }
    }

    fn train(&mut self, method: &dyn Method, plan: &StagePlan<'_>) -> Result<(), Failure> {
        let mut optimizer = plan.optimizer(method);
        let position = self.restore(self.first_position(plan)?, &mut optimizer)?;
        let teacher_sha256 = position.teacher_sha256.clone();
        let (name, steps) = (&plan.stage.name, plan.schedule.steps);
        self.check_length(&position, steps)?;
        let keeps_end = self.keeps_end(plan);
        let Self { recipe, images, stop, .. } = *self;
        let unreadable = position.unreadable.clone();
        let training = plan.training(method, &images.train, position.step, unreadable)?;
        let folder = &self.folder;
        let (log, checkpoints) = (folder.metrics_path(), folder.checkpoints(keep(recipe)));
        let check_folder = Box::new(|| folder.check());
        // This removes the steps that are repeated from the log.
        let saver = Saver::new(log, checkpoints, recipe.checkpoint, position, check_folder);
        let mut saver = saver.map_err(run_error)?;
        let context = StageContext { recipe, images, folder, stop, method, plan };
        let reporter = self.reporter.as_mut();
        let mut follower = Follower::new(context, &mut self.unreadable, reporter, saver.steps())?;
        follower.probe(&mut saver)?;
        let mut followed = Ok(());
        let ended = train::run(training, &mut optimizer, Some(&mut saver), stop, &mut |event| {
            self.trained = true;
            let report = event.report;
            followed = follower.step(event);
            if followed.is_err() { ControlFlow::Break(()) } else { (self.on_step)(name, &report) }
        });
        let made = saver.steps();
        // A stage is complete after its last probe. A resumed run starts with that probe.
        let ended = match ended {
            Ok(StageEnd::Whole) if follower.owes_probe(made) => Ok(StageEnd::Stopped(steps)),
            ended => ended,
        };
        let metrics_bytes = followed.and_then(|()| {
            match &ended {
                Ok(StageEnd::Whole) => {
                    follower.finish();
                    if keeps_end {
                        saver.save(&optimizer).map_err(run_error)?;
                    }
                }
                // A full disk has no room for a checkpoint either.
                Err(train::Error::Save(_)) => {}
                // After a signal or an error, a checkpoint is saved: the training may have taken
                // hours.
                _ => saver.save(&optimizer).map_err(run_error)?,
            }
            saver.finish().map_err(run_error)
        });
        // It borrows the folder, whose state changes below.
        drop(saver);
        let saved = (made > 0).then(|| self.save(method, plan, made, &teacher_sha256));
        // The error that ended the stage matters more than files that could not be written after.
        let ended = ended.map_err(|error| self.train_failure(error, method, plan))?;
        let metrics_bytes = metrics_bytes?;
        match ended {
            StageEnd::Whole => {
                // A stage has at least one step.
                let encoder = saved.expect("a step")?;
                self.folder.set_done(name, metrics_bytes, encoder)?;
                self.clean_checkpoints(plan)
            }
            StageEnd::Stopped(step) => Err(interrupted(
                self.stop,
                &format!("in stage {name} after step {step} of {steps}"),
                self.folder.path(),
            )),
        }
    }

    /// The failure of a run whose stage ended by this error. A non-finite step is written to files
    /// for a replay.
    fn train_failure(
        &self,
        error: train::Error,
        method: &dyn Method,
        plan: &StagePlan<'_>,
    ) -> Failure {
        let error = match error {
            train::Error::Data(error) => return loading(error),
            error => error,
        };
        let (step, problem, batches) = match &error {
            train::Error::NotFinite { step, problem, batches } => (step - 1, problem, batches),
            _ => return run_error(error),
        };
        let (stage, teacher) = (plan.stage, self.teacher_path(plan));
        let images: Vec<u64> = batches.iter().flat_map(|batch| &batch.indices).copied().collect();
        let name = |&image: &u64| self.images.train.stamp(image as usize).name;
        let names = images.iter().map(name).collect();
        let (stage_index, problem) = (plan.stage_index, problem.clone());
        let failed = FailedStep { stage_index, step, problem, teacher, images, names };
        let folder = self.folder.replay_path(&stage.name, step + 1);
        let kept = match dump(&folder, &failed, self.recipe, method, batches) {
            Ok(()) => format!("`saltworks replay {}` finds the cause", folder.display()),
            Err(problem) => format!("it could not be written for a replay: {problem}"),
        };
        run_error(format!("stage {}, {error}. {kept}", stage.name))
    }

    /// Shows the table of probes.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        if !self.folder.is_finished() {
            self.folder.set_finished()?;
            self.report("finished");
        }
        if self.rows.is_empty() {
            let why = self.images.reason.as_deref().unwrap_or("data.holdout is 0");
            note(&format!("no probes: {why}"));
        } else {
            result(&format!("\n{}", probe_table(&self.rows)));
            RunReader::verdict_lines(self.folder.path()).iter().for_each(|line| result(line));
        }
        self.unreadable.summarize();
        let places = self.recipe.stage.iter().map(|stage| self.folder.encoder_path(&stage.name));
        let places: Vec<_> = places.map(|path| path.display().to_string()).collect();
        note(&format!("encoders (timm's names): {}", places.join(", ")));
        if let Some(page) = self.reporter.as_ref().and_then(Reporter::page) {
            note(&format!("report: {}", page.display()));
        }
        Ok(())
    }

    /// Makes the last report of this process.
    fn report(&mut self, status: &'static str) {
        // The folder may now belong to another run.
        if let Some(reporter) = self.reporter.as_mut().filter(|_| self.folder.check_lock().is_ok())
        {
            reporter.write(Some(status));
        }
    }
}

/// Prints what is trained on and what is probed.
pub(crate) fn announce(recipe: &Recipe, images: &ImageSets, folder: &Folder, threads: usize) {
    let trains = format!("training: {}", images.train.describe());
    let probes = match (&images.held_out, &images.reason) {
        (Some(source), _) => format!("; probing: {}", source.describe()),
        (None, Some(reason)) if recipe.data.holdout != Some(0) => {
            format!("; nothing is held out: {reason}")
        }
        (None, _) => String::new(),
    };
    let precision = recipe.precision.dtype().name();
    note(&format!("{trains}{probes}; {}, {precision}", count_threads(threads)));
    if let Some(nodes @ 2..) = memory_nodes().filter(|_| threads > 1) {
        note(&format!(
            "these processors belong to {nodes} memory nodes (NUMA): a run on each node is faster \
             than one on all. See docs/speed.md, Many cores"
        ));
    }
    // The probes read some of it.
    let not = if images.is_beside { "not trained on" } else { "not read" };
    note_reading(&*images.train, not);
    if folder.resumed() {
        note(&format!("resuming the run in {}", folder.path().display()));
    }
}

/// Why a run ended, for its state.
fn end(failure: &Failure) -> RunEnd {
    let (signal, why) = match failure {
        Failure::Input(error) | Failure::Run(error) => (None, error.to_string()),
        Failure::Interrupted { signal, text } => (Some(*signal), text.clone()),
    };
    RunEnd { unix_seconds: unix_seconds(), signal, why }
}
