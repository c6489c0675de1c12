//! A run: its stages one after another, each trained, saved and probed.

use super::Watch;
use super::dump::{FailedStep, dump};
use super::folder::{Folder, deciding, keep, recipe_text, write_error};
use super::follower::{Followed, Follower};
use super::plan::Planned;
use super::reporter::Reporter;
use super::unreadable::UnreadableImages;
use crate::console::{note, probe_table, result, worse_than_random};
use crate::failure::{Failure, asked, interrupted, loading, ran};
use crate::files::{Record, sha256};
use crate::judge::{Extractor, probe};
use crate::method::{Method, Salt};
use crate::model::Encoder;
use crate::recipe::{MethodName, Recipe, Schedule, Stage};
use crate::run::setup::{self, Images};
use crate::run_files::names::{MODEL, RECIPE};
use crate::run_files::{ProbeRow, RunEnd, unix_seconds};
use crate::train::{self, Ended, Event, Optimizer, Position, Stop};
use crate::weights::{self, MODEL_KEY};
use engine::{Module, Parameter};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// A run and its folder.
pub(crate) struct Run<'a> {
    recipe: &'a Recipe,
    images: &'a Images,
    folder: Folder,
    stop: &'a Stop,
    watch: Watch<'a>,
    rows: Vec<ProbeRow>,
    unreadable: UnreadableImages,
    /// None where nothing is to be made of the log.
    reporter: Option<Reporter>,
    /// Whether a step was made.
    trained: bool,
}

impl<'a> Run<'a> {
    /// Begins, or goes on with, the run in the folder.
    pub(crate) fn new(
        recipe: &'a Recipe,
        images: &'a Images,
        folder: Folder,
        (stop, watch): (&'a Stop, Watch<'a>),
        threads: usize,
    ) -> Result<Self, Failure> {
        let rows = folder.rows()?;
        let trains = format!("training: {}", images.train.describe());
        let probes = match (&images.held_out, &images.reason) {
            (Some(source), _) => format!("; probing: {}", source.describe()),
            (None, Some(reason)) if recipe.data.holdout != Some(0) => {
                format!("; nothing is held out: {reason}")
            }
            (None, _) => String::new(),
        };
        note(&format!("{trains}{probes}; {threads} threads"));
        let left_alone = images.train.left_alone();
        if !left_alone.is_empty() {
            note(&format!("left alone: {left_alone}"));
        }
        if folder.resumed() {
            note(&format!("going on with the run in {}", folder.path().display()));
        }
        let unreadable = UnreadableImages::open(folder.unreadable_path());
        let reporter = Reporter::new(folder.path(), &recipe.log);
        let trained = false;
        Ok(Self { recipe, images, folder, stop, watch, rows, unreadable, reporter, trained })
    }

    /// Probes what needs no training, then trains and probes every stage.
    pub(crate) fn stages(&mut self, plan: &[Planned<'_>]) -> Result<(), Failure> {
        self.probe("raw pixels", &|| Ok(Extractor::Pixels))?;
        let ended =
            plan.iter().enumerate().try_for_each(|(place, planned)| self.stage(place, planned));
        if let Err(failure) = &ended
            && (self.trained || self.folder.resumed())
        {
            self.folder.set_ended(end(failure));
            self.report("stopped");
        }
        ended
    }

    /// Takes back a new folder in which nothing was trained, for a run that was refused.
    pub(crate) fn discard_if_nothing_was_done(&self) {
        if !self.trained && !self.folder.resumed() {
            self.folder.discard();
        }
    }

    /// Trains a stage, saves its encoder and probes it.
    fn stage(&mut self, place: usize, planned: &Planned<'_>) -> Result<(), Failure> {
        let Planned { stage, spec, schedule, .. } = planned;
        let seed = setup::stage_seed(self.recipe.seed, place);
        let random = format!("random {}", if place == 0 { "encoder" } else { &stage.name });
        if place == 0 || setup::spec(self.recipe, &self.recipe.stage[0])? != *spec {
            self.probe(&random, &|| Ok(Extractor::Encoder(Encoder::new(spec, seed))))?;
        }
        if self.folder.is_done(&stage.name) {
            // A process that was killed right after the stage's end left them.
            self.folder.checkpoints(keep(self.recipe)).remove(&stage.name).map_err(ran)?;
        } else {
            let encoder = Encoder::new(spec, seed);
            match stage.method {
                MethodName::Mae => {
                    self.train(&setup::mae(encoder, stage, seed), place, stage, *schedule)?;
                }
                MethodName::Salt => {
                    let (teacher, options) = (self.teacher_path(place), setup::salt_options(stage));
                    let salt = Salt::from_checkpoint(&teacher, encoder, options, seed);
                    self.train(&salt.map_err(asked)?, place, stage, *schedule)?;
                }
            }
        }
        let path = self.folder.encoder_path(&stage.name);
        self.probe(&stage.name, &|| {
            let encoder = Encoder::new(spec, 0);
            let file = weights::load(&path).map_err(ran)?;
            weights::assign(&path, &file.tensors, &encoder.parameters()).map_err(ran)?;
            Ok(Extractor::Encoder(encoder))
        })
    }

    /// The weights of the teacher: an earlier stage's, or the file named.
    fn teacher_path(&self, place: usize) -> PathBuf {
        // The recipe's check saw that a SALT stage names its teacher.
        let name = self.recipe.stage[place].teacher.as_deref().expect("a teacher");
        let earlier = self.recipe.stage_before(place, name).is_some();
        if earlier { self.folder.encoder_path(name) } else { PathBuf::from(name) }
    }

    /// Where a stage begins that has made no step.
    fn first_position(&self, place: usize) -> Result<Position, Failure> {
        let stage = &self.recipe.stage[place];
        let teacher = match stage.method {
            MethodName::Mae => String::new(),
            MethodName::Salt => {
                let path = weights::ModelFile::find(&self.teacher_path(place)).map_err(asked)?;
                let bytes = fs::read(&path);
                sha256(&bytes.map_err(|e| ran(format!("cannot read {}: {e}", path.display())))?)
            }
        };
        Ok(Position {
            stage: stage.name.clone(),
            step: 0,
            loss: 0.0,
            metrics_bytes: self.folder.metrics_bytes(),
            machine: machine(),
            recipe_sha256: sha256(recipe_text(&deciding(self.recipe).whole()).as_bytes()),
            teacher_sha256: teacher,
            updates: BTreeMap::new(),
            unreadable: BTreeSet::new(),
        })
    }

    /// Puts back the newest whole checkpoint of a stage, if there is one; where the stage stands.
    fn restore(&self, first: Position, optimizer: &mut Optimizer) -> Result<Position, Failure> {
        let checkpoints = self.folder.checkpoints(keep(self.recipe));
        let (found, damaged) = checkpoints.newest(&first.stage).map_err(ran)?;
        for problem in &damaged {
            note(&format!("{problem}. An earlier one is used, or the stage begins anew"));
        }
        let Some(checkpoint) = found else {
            if self.folder.resumed() {
                let stage = &first.stage;
                note(&format!("{stage:>10}  begins at its first step: it left no checkpoint"));
            }
            return Ok(first);
        };
        let found = &checkpoint.position;
        self.check_origin(found, &first)?;
        checkpoint.restore(optimizer).map_err(|problem| {
            asked(format!(
                "{problem}. Remove it: the same command then goes on from an earlier one, or begins \
                 the stage anew"
            ))
        })?;
        note(&format!("{:>10}  going on after step {}", first.stage, found.step));
        let (step, metrics_bytes) = (found.step, found.metrics_bytes);
        let unreadable = found.unreadable.clone();
        Ok(Position { step, metrics_bytes, unreadable, ..first })
    }

    /// Refuses a checkpoint of another teacher or recipe, and tells of one of another machine.
    fn check_origin(&self, found: &Position, first: &Position) -> Result<(), Failure> {
        let stage = &first.stage;
        if found.teacher_sha256 != first.teacher_sha256 {
            return Err(asked(format!(
                "the teacher of stage {stage} is not the file this stage began with. Restore it, or \
                 begin anew with --overwrite"
            )));
        }
        if found.machine != first.machine {
            let (there, here) = (&found.machine, &first.machine);
            note(&format!("the run was made by {there}, this is {here}: sums may round otherwise"));
        } else if found.recipe_sha256 != first.recipe_sha256 {
            // Another version may write the same recipe otherwise.
            return Err(asked(format!(
                "the checkpoint of stage {stage} is of another recipe than {} says now. Restore that \
                 file, or begin anew with --overwrite",
                self.folder.path().join(RECIPE).display()
            )));
        }
        Ok(())
    }

    /// Refuses to go on after more steps than the stage has.
    fn check_length(&self, position: &Position, steps: u64) -> Result<(), Failure> {
        if position.step <= steps {
            return Ok(());
        }
        Err(asked(format!(
            "a checkpoint of stage {} is of step {}, the stage has {steps}. Remove {}, or begin anew \
             with --overwrite",
            position.stage,
            position.step,
            self.folder.path().join(train::CHECKPOINT_FOLDER).display()
        )))
    }

    fn train(
        &mut self,
        method: &dyn Method,
        place: usize,
        stage: &Stage,
        schedule: Schedule,
    ) -> Result<(), Failure> {
        let mut optimizer = Optimizer::new(method.parameters(), setup::optimizer(stage));
        let position = self.restore(self.first_position(place)?, &mut optimizer)?;
        let taught_by = position.teacher_sha256.clone();
        self.check_length(&position, schedule.steps)?;
        let Self { recipe, images, stop, .. } = *self;
        let from = (position.step, position.unreadable.clone());
        let training = setup::training(recipe, images, (method, place), schedule, from)?;
        let (folder, steps) = (&self.folder, schedule.steps);
        let of = Followed { recipe, images, folder, stop, method, place, steps };
        let told = (&mut self.unreadable, self.reporter.as_mut());
        let mut follower = Follower::new(of, told, position)?;
        follower.probe()?;
        let mut written = Ok(());
        let ended = train::run(training, &mut optimizer, stop, &mut |event| {
            let Event::Step { report, optimizer, unreadable } = event;
            self.trained = true;
            written = follower.step(&report, optimizer, unreadable);
            // A disk that is full now will not take the weights later: stop, and keep what there is.
            if written.is_err() {
                ControlFlow::Break(())
            } else {
                (self.watch)(&stage.name, &report)
            }
        });
        // A stage is whole with its last probe: whoever goes on makes it first.
        let ended = match ended {
            Ok(Ended::Whole) if follower.owes_probe() => Ok(Ended::Stopped(steps)),
            ended => ended,
        };
        if written.is_ok() && !matches!(ended, Ok(Ended::Whole)) {
            // What was learned until a signal or an error is kept: it may have been hours.
            written = follower.save(&optimizer);
        }
        let made = follower.made();
        let metrics_bytes =
            written.and_then(|()| follower.finish(matches!(ended, Ok(Ended::Whole))));
        let saved =
            if made > 0 { Some(self.save(method, stage, [made, steps], taught_by)) } else { None };
        // What ended the stage matters more than what could not be written because of it.
        let ended = ended.map_err(|error| self.train_failure(error, method, place))?;
        let metrics_bytes = metrics_bytes?;
        match ended {
            Ended::Whole => {
                // A stage has at least one step.
                let encoder = saved.expect("a step")?;
                self.folder.set_done(&stage.name, metrics_bytes, encoder)?;
                self.folder.checkpoints(keep(self.recipe)).remove(&stage.name).map_err(ran)
            }
            Ended::Stopped(step) => Err(interrupted(
                self.stop,
                &format!("in stage {} after step {step} of {}", stage.name, schedule.steps),
                self.folder.path(),
            )),
        }
    }

    /// What a stage's error is to its user. A step that was
    /// not finite is kept for a replay.
    fn train_failure(&self, error: train::Error, method: &dyn Method, place: usize) -> Failure {
        let error = match error {
            train::Error::Data(error) => return loading(error),
            error => error,
        };
        let (step, problem, batches) = match &error {
            train::Error::NotFinite { step, problem, batches } => (step - 1, problem, batches),
            _ => return ran(error),
        };
        let stage = &self.recipe.stage[place];
        let teacher = (stage.method == MethodName::Salt).then(|| self.teacher_path(place));
        let images: Vec<u64> = batches.iter().flat_map(|batch| &batch.indices).copied().collect();
        let name = |&image: &u64| self.images.train.stamp(image as usize).name;
        let names = images.iter().map(name).collect();
        let failed = FailedStep { place, step, problem: problem.clone(), teacher, images, names };
        let folder = self.folder.replay_path(&stage.name, step + 1);
        let kept = match dump(&folder, &failed, self.recipe, method, batches) {
            Ok(()) => format!("`saltworks replay {}` finds where", folder.display()),
            Err(problem) => format!("it could not be kept for a replay: {problem}"),
        };
        ran(format!("stage {}, {error}. {kept}", stage.name))
    }

    /// Writes the encoder under timm's names, and everything trained under the method's; what the
    /// encoder's file is. Weights that are not finite are kept from overwriting any.
    fn save(
        &self,
        method: &dyn Method,
        stage: &Stage,
        [step, steps]: [u64; 2],
        taught_by: String,
    ) -> Result<Record, Failure> {
        let all = method.parameters();
        train::refuse_divergence(&stage.name, step, &all).map_err(ran)?;
        self.folder.check_place()?;
        let path = self.folder.encoder_path(&stage.name);
        let folder = self.folder.path().join(&stage.name);
        fs::create_dir_all(&folder).map_err(|error| ran(write_error(&folder, &error)))?;
        let mut metadata = metadata(method, stage, step, steps);
        let data = &self.recipe.data;
        metadata.extend(weights::pixel_metadata(&data.normalize, data.channels()));
        let encoder = weights::save(&path, &values(method.encoder().parameters()), &metadata);
        if !taught_by.is_empty() {
            metadata.insert(TEACHER_SHA256.to_owned(), taught_by);
        }
        weights::save(&folder.join(MODEL), &values(all), &metadata).map_err(ran)?;
        encoder.map_err(ran)
    }

    /// Probes features that were not probed before.
    fn probe(
        &mut self,
        name: &str,
        extractor: &dyn Fn() -> Result<Extractor, Failure>,
    ) -> Result<(), Failure> {
        if self.images.held_out.is_some() && !self.rows.iter().any(|row| row.name == name) {
            note(&format!("{name:>10}  probing"));
            let mut met = Vec::new();
            let made = probe(name, self.recipe, self.images, &extractor()?, self.stop, &mut met);
            self.unreadable.add(&met)?;
            self.rows.extend(made?);
            self.folder.write_rows(&self.rows)?;
            if let Some(reporter) = &mut self.reporter {
                reporter.write(None);
            }
        }
        match self.stop.signal() {
            None => Ok(()),
            Some(_) => {
                let when = format!("after probing {name}");
                Err(interrupted(self.stop, &when, self.folder.path()))
            }
        }
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
            let stages = self.recipe.stage.iter();
            let worse = stages.filter_map(|stage| worse_than_random(&self.rows, &stage.name));
            worse.for_each(|warning| note(&format!("WARNING: {warning}")));
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
        // What lies there now may be of another run.
        if let Some(reporter) = self.reporter.as_mut().filter(|_| self.folder.check_place().is_ok())
        {
            reporter.write(Some(status));
        }
    }
}

/// What is kept of why a run ended.
fn end(failure: &Failure) -> RunEnd {
    let (signal, why) = match failure {
        Failure::Asked(error) | Failure::Run(error) => (None, error.to_string()),
        Failure::Interrupted { signal, text } => (Some(*signal), text.clone()),
    };
    RunEnd { unix_seconds: unix_seconds(), signal, why }
}

/// The key of a stage's metadata that holds the SHA-256 of its teacher's file.
pub(crate) const TEACHER_SHA256: &str = "teacher_sha256";

/// Whose arithmetic this is.
fn machine() -> String {
    let set = engine::cpu::instruction_set();
    format!("saltworks {} on {} ({set})", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH)
}

fn metadata(method: &dyn Method, stage: &Stage, step: u64, steps: u64) -> HashMap<String, String> {
    // Numbers, strings and booleans: JSON holds them all.
    let sizes = serde_json::to_string(method.encoder().spec()).expect("sizes as JSON");
    [
        ("format", "pt"),
        ("saltworks", env!("CARGO_PKG_VERSION")),
        ("stage", &stage.name),
        ("step", &step.to_string()),
        ("steps", &steps.to_string()),
        (MODEL_KEY, &sizes),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn values(list: Vec<(String, Parameter)>) -> Vec<(String, engine::Tensor)> {
    list.into_iter().map(|(name, parameter)| (name, parameter.value())).collect()
}
