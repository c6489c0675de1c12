//! `saltworks pretrain`: recipe, data, stages, probes.

use super::probe::{Extractor, probe};
use super::setup::{self, Images};
use super::{Failure, asked, ran, use_threads};
use crate::data::Loader;
use crate::files::write_whole;
use crate::mask::Masking;
use crate::method::{CheckpointError, MODEL_KEY, Mae, Method, Salt};
use crate::model::{Encoder, VitSpec};
use crate::recipe::{self, MethodName, PixelNorm, Recipe, Schedule, Stage};
use crate::report::{MetricsLog, ProbeRow, Progress, environment, note, probe_table, result};
use crate::train::{self, Ended, Event};
use crate::weights;
use engine::{Module, Tensor};
use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Options of `pretrain`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A recipe; the built-in quickstart (Fashion-MNIST) without one.
    recipe: Option<PathBuf>,
    /// Change a key of the recipe, e.g. teacher.lr=1e-3, data.size=32, seed=1; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder of the run; must not hold one already.
    #[arg(long, default_value = "runs/quickstart")]
    out: PathBuf,
    /// Replace a run that is in the folder.
    #[arg(long)]
    overwrite: bool,
}

/// What is written of a run before it begins.
const RECORDS: [&str; 3] = ["recipe.toml", "environment.json", "metrics.jsonl"];

/// What is written of a stage.
const WEIGHTS: [&str; 2] = ["encoder.safetensors", "model.safetensors"];

/// Everything a stage was checked for before the first one begins.
struct Planned<'a> {
    stage: &'a Stage,
    spec: VitSpec,
    schedule: Schedule,
}

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let recipe = recipe::load(arguments.recipe.as_deref(), &arguments.set).map_err(asked)?;
    let threads = use_threads(recipe.threads)?;
    let images = setup::open(&recipe)?;
    let plan = plan(&recipe, &images)?;
    let mut run = Run::create(arguments, &recipe, &images, threads)?;
    let done = run.stages(&plan).and_then(|()| run.finish());
    if matches!(done, Err(Failure::Asked(_))) && !run.trained && run.fresh {
        run.discard();
    }
    done
}

/// Checks every stage against the data before anything is trained.
fn plan<'a>(recipe: &'a Recipe, images: &Images) -> Result<Vec<Planned<'a>>, Failure> {
    let check = |(place, stage): (usize, &'a Stage)| {
        let spec = setup::spec(recipe, stage)?;
        match stage.method {
            MethodName::Mae => setup::trunk(stage.decoder).check("decoder"),
            MethodName::Salt => setup::trunk(stage.predictor).check("predictor"),
        }
        .map_err(asked)?;
        stage.masks.validate(spec.grid()).map_err(asked)?;
        check_teacher(recipe, place, &spec)?;
        setup::training_loader(recipe, stage, place)
            .validate(images.train.as_ref())
            .map_err(asked)?;
        check_targets(stage, &spec)?;
        let schedule = stage.resolve(images.train.len()).map_err(asked)?;
        Ok(Planned { stage, spec, schedule })
    };
    recipe.stage.iter().enumerate().map(check).collect()
}

/// Normalised pixels need more than one value to normalise over.
fn check_targets(stage: &Stage, spec: &VitSpec) -> Result<(), Failure> {
    let [t, h, w] = spec.patch;
    let values = match stage.pixel_norm {
        PixelNorm::Joint => t * h * w * spec.channels,
        PixelNorm::PerChannel => t * h * w,
        PixelNorm::None => return Ok(()),
    };
    if stage.method == MethodName::Mae && values < 2 {
        let name = &stage.name;
        return Err(asked(format!(
            "pixel_norm of stage {name:?} has one value of a patch to normalise over, expected two \
             or more. Use a larger patch or pixel_norm = \"none\""
        )));
    }
    Ok(())
}

/// Checks that what teaches a stage can, before hours go into the stages ahead of it.
fn check_teacher(recipe: &Recipe, place: usize, spec: &VitSpec) -> Result<(), Failure> {
    let Some(teacher) = &recipe.stage[place].teacher else { return Ok(()) };
    let checked = match recipe.stage_before(place, teacher) {
        Some(earlier) => {
            Salt::check_sizes(&setup::spec(recipe, earlier)?, spec).map_err(Into::into)
        }
        None => Salt::load_teacher(Path::new(teacher), spec).map(drop),
    };
    checked.map_err(|error| match error {
        CheckpointError::Weights(named) => asked(named),
        other => asked(format!("teacher {teacher}: {other}")),
    })
}

/// A run and its folder.
struct Run<'a> {
    recipe: &'a Recipe,
    images: &'a Images,
    out: PathBuf,
    log: MetricsLog,
    rows: Vec<ProbeRow>,
    stop: Arc<AtomicBool>,
    /// Whether a step was made.
    trained: bool,
    /// Whether the folder was made for this run.
    fresh: bool,
}

impl<'a> Run<'a> {
    /// Makes the folder and records what runs where.
    fn create(
        arguments: &Arguments,
        recipe: &'a Recipe,
        images: &'a Images,
        threads: usize,
    ) -> Result<Self, Failure> {
        let out = arguments.out.clone();
        keep_teachers(recipe, &out)?;
        let fresh = prepare_folder(&out, arguments.overwrite)?;
        let write = |name: &str, text: &str| {
            let path = out.join(name);
            write_whole(&path, text.as_bytes()).map_err(|error| cannot_write(&path, &error))
        };
        // A recipe holds only what TOML can.
        let [recipe_name, environment_name, metrics_name] = RECORDS;
        write(recipe_name, &toml::to_string(recipe).expect("a recipe as TOML"))?;
        write(environment_name, &format!("{:#}\n", environment(threads)))?;
        let path = out.join(metrics_name);
        let log = MetricsLog::create(&path).map_err(|error| cannot_write(&path, &error))?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // A second signal ends the process at once.
            let now = signal_hook::flag::register_conditional_shutdown(signal, 130, stop.clone());
            let later = signal_hook::flag::register(signal, stop.clone());
            now.and(later).map_err(ran)?;
        }
        let trains = format!("training: {}", images.train.describe());
        let probes = images.held_out.as_ref().map(|s| format!("; probing: {}", s.describe()));
        note(&format!("{trains}{}; {threads} threads", probes.unwrap_or_default()));
        let rows = Vec::new();
        Ok(Self { recipe, images, out, log, rows, stop, trained: false, fresh })
    }

    /// Probes what needs no training, then trains and probes every stage.
    fn stages(&mut self, plan: &[Planned<'_>]) -> Result<(), Failure> {
        self.probe("raw pixels", &Extractor::Pixels)?;
        plan.iter().enumerate().try_for_each(|(place, planned)| self.stage(place, planned))
    }

    /// Takes back what `create` made, for a run that was refused.
    fn discard(&self) {
        // Best effort: the refusal is what counts. A folder that holds anything else stays.
        for name in RECORDS {
            let _ = fs::remove_file(self.out.join(name));
        }
        let _ = fs::remove_dir(&self.out);
    }

    /// Trains a stage, saves its encoder and probes it.
    fn stage(&mut self, place: usize, planned: &Planned<'_>) -> Result<(), Failure> {
        let Planned { stage, spec, schedule } = planned;
        let seed = setup::stage_seed(self.recipe.seed, place);
        let encoder = Encoder::new(spec, seed);
        let random = format!("random {}", if place == 0 { "encoder" } else { &stage.name });
        if place == 0 || setup::spec(self.recipe, &self.recipe.stage[0])? != *spec {
            self.probe(&random, &Extractor::Encoder(&encoder))?;
        }
        let encoder = match stage.method {
            MethodName::Mae => {
                let mae = setup::mae(encoder, stage, seed);
                self.train(&mae, place, stage, *schedule)?;
                Mae::into_encoder(mae)
            }
            MethodName::Salt => {
                let (teacher, options) = (self.teacher_path(place), setup::salt_options(stage));
                let salt = Salt::from_checkpoint(&teacher, spec, encoder, options, seed);
                let salt = salt.map_err(asked)?;
                self.train(&salt, place, stage, *schedule)?;
                Salt::into_student(salt)
            }
        };
        self.probe(&stage.name, &Extractor::Encoder(&encoder))
    }

    /// The weights of the teacher: an earlier stage's, or the file named.
    fn teacher_path(&self, place: usize) -> PathBuf {
        // The recipe's check saw that a SALT stage names its teacher.
        let name = self.recipe.stage[place].teacher.as_deref().expect("a teacher");
        let earlier = self.recipe.stage_before(place, name).is_some();
        if earlier { self.weights_path(name) } else { PathBuf::from(name) }
    }

    fn weights_path(&self, stage: &str) -> PathBuf {
        self.out.join(stage).join(WEIGHTS[0])
    }

    fn train(
        &mut self,
        method: &dyn Method,
        place: usize,
        stage: &Stage,
        schedule: Schedule,
    ) -> Result<(), Failure> {
        let (lr, weight_decay) = setup::curves(stage, schedule);
        let source = self.images.train.clone();
        let masking: Masking = stage.masks.clone();
        let training = train::Stage {
            method,
            loader: Loader::new(source, setup::training_loader(self.recipe, stage, place))
                .map_err(asked)?,
            masking,
            grid: method.encoder().grid(),
            batch: stage.batch,
            accumulate: stage.accumulate,
            activation_checkpointing: stage.activation_checkpointing,
            steps: schedule.steps,
            lr,
            weight_decay,
            optimizer: setup::optimizer(stage),
            seed: setup::stage_seed(self.recipe.seed, place),
        };
        let mut progress = Progress::new(&stage.name, schedule.steps);
        let mut written = Ok(());
        let mut steps = 0;
        let log = &mut self.log;
        let ended = train::run(training, &self.stop, &mut |Event::Step(report)| {
            steps = report.step;
            progress.step(&report);
            if written.is_ok() {
                written = log.step(&stage.name, &report);
            }
            // A disk that is full now will not take the weights later: stop, and keep what there is.
            if written.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let flushed = log.flush();
        if steps > 0 {
            self.trained = true;
            // What was learned until an error is kept too: it may have been hours.
            self.save(&stage.name, method, steps, schedule.steps)?;
        }
        let path = self.out.join("metrics.jsonl");
        written
            .and(flushed)
            .map_err(|error| ran(format!("cannot write {}: {error}", path.display())))?;
        match ended.map_err(train_failure)? {
            Ended::Whole => {
                progress.finish();
                Ok(())
            }
            Ended::Stopped(step) => Err(Failure::Interrupted(format!(
                "interrupted in stage {} after step {step} of {}; its weights are in {}",
                stage.name,
                schedule.steps,
                self.out.join(&stage.name).display()
            ))),
        }
    }

    /// Writes the encoder under timm's names, and everything trained under the method's.
    /// Weights that are not finite are kept from overwriting any.
    fn save(&self, stage: &str, method: &dyn Method, step: u64, steps: u64) -> Result<(), Failure> {
        let all = method.parameters();
        let finite = |value: Tensor| value.as_slice().iter().all(|value| value.is_finite());
        if let Some((name, _)) = all.iter().find(|(_, parameter)| !finite(parameter.value())) {
            return Err(ran(format!(
                "stage {stage} diverged: {name} holds values that are not finite after step {step}; \
                 its weights are not saved. Lower the learning rate or lengthen the warmup"
            )));
        }
        let folder = self.out.join(stage);
        fs::create_dir_all(&folder).map_err(|error| ran(write_error(&folder, &error)))?;
        // Numbers, strings and booleans: JSON holds them all.
        let sizes = serde_json::to_string(method.encoder().spec()).expect("sizes as JSON");
        let metadata: HashMap<String, String> = [
            ("format", "pt"),
            ("saltworks", env!("CARGO_PKG_VERSION")),
            ("stage", stage),
            ("step", &step.to_string()),
            ("steps", &steps.to_string()),
            (MODEL_KEY, &sizes),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        let values = |list: Vec<(String, engine::Parameter)>| -> Vec<_> {
            list.into_iter().map(|(name, parameter)| (name, parameter.value())).collect()
        };
        let encoder = values(method.encoder().parameters());
        weights::save(&self.weights_path(stage), &encoder, &metadata).map_err(ran)?;
        let whole = folder.join(WEIGHTS[1]);
        weights::save(&whole, &values(all), &metadata).map_err(ran)
    }

    fn probe(&mut self, name: &str, extractor: &Extractor<'_>) -> Result<(), Failure> {
        if self.images.held_out.is_some() {
            note(&format!("{name:>10}  probing"));
        }
        if let Some(row) = probe(name, self.recipe, self.images, extractor)? {
            self.rows.push(row);
        }
        if self.stop.load(Ordering::Relaxed) {
            let text = format!("interrupted after probing {name}");
            return Err(Failure::Interrupted(text));
        }
        Ok(())
    }

    /// Writes the table of probes and shows it.
    fn finish(&self) -> Result<(), Failure> {
        if self.rows.is_empty() {
            note("no probes: no images are held out (data.holdout is 0, or not all have a class)");
        } else {
            let rows: Vec<_> = self.rows.iter().map(row_json).collect();
            let path = self.out.join("probes.json");
            let text = format!("{:#}\n", serde_json::Value::from(rows));
            write_whole(&path, text.as_bytes()).map_err(|e| ran(write_error(&path, &e)))?;
            let held_out = self.images.held_out.as_ref().map_or(0, |source| source.len());
            result(&format!("\n{}", probe_table(&self.rows, held_out)));
        }
        let places = self.recipe.stage.iter().map(|stage| self.weights_path(&stage.name));
        let places: Vec<_> = places.map(|path| path.display().to_string()).collect();
        note(&format!("encoders (timm's names): {}", places.join(", ")));
        Ok(())
    }
}

/// An image that cannot be read is the user's to mend, anything else a failed run.
fn train_failure(error: train::Error) -> Failure {
    match error {
        train::Error::Data(error) => asked(error),
        other => ran(other),
    }
}

fn row_json(row: &ProbeRow) -> serde_json::Value {
    serde_json::json!({
        "features": row.name,
        "knn_mean": row.knn_mean,
        "knn_cls": row.knn_cls,
        "linear_mean": row.linear_mean,
        "linear_cls": row.linear_cls,
    })
}

fn write_error(path: &Path, error: &std::io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    let advice = "Choose another folder with --out";
    asked(format!("{}. {advice}", write_error(path, error)))
}

/// Refuses a teacher's file that overwriting the folder would remove.
fn keep_teachers(recipe: &Recipe, out: &Path) -> Result<(), Failure> {
    let real = |path: &Path| fs::canonicalize(path).ok();
    let Some(folder) = real(out) else { return Ok(()) };
    for (place, stage) in recipe.stage.iter().enumerate() {
        let file = stage.teacher.as_ref().filter(|name| recipe.stage_before(place, name).is_none());
        if let Some(file) =
            file.filter(|file| real(Path::new(file)).is_some_and(|f| f.starts_with(&folder)))
        {
            let out = out.display();
            return Err(asked(format!(
                "the teacher {file} lies in the folder of the run, {out}. Choose another --out"
            )));
        }
    }
    Ok(())
}

/// Makes the run's folder; one that holds a run is refused, or emptied of it if asked. Whether it
/// was not there before.
fn prepare_folder(out: &Path, overwrite: bool) -> Result<bool, Failure> {
    let fresh = !out.exists();
    if out.join("recipe.toml").exists() && !overwrite {
        return Err(asked(format!(
            "{} holds a run already. Choose another folder with --out, or add --overwrite",
            out.display()
        )));
    }
    fs::create_dir_all(out).map_err(|error| cannot_write(out, &error))?;
    remove_run(out).map_err(|error| cannot_write(out, &error))?;
    Ok(fresh)
}

/// Removes what an earlier run left, and nothing else.
fn remove_run(out: &Path) -> std::io::Result<()> {
    let remove = |path: &Path| match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        let weights = WEIGHTS.map(|name| path.join(name));
        if weights.iter().any(|file| file.is_file()) {
            weights.iter().try_for_each(|file| remove(file))?;
            // A folder that holds anything else stays.
            let _ = fs::remove_dir(&path);
        }
    }
    RECORDS.iter().chain(&["probes.json"]).try_for_each(|name| remove(&out.join(name)))
}
