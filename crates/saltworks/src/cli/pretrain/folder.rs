//! A run's folder: what lies in it, who may write there, and how far the run in it has come.

use super::super::replay::STEP;
use super::super::setup::Images;
use super::super::{Failure, asked, ran};
use super::Asked;
use crate::files::{self, Record, write_whole};
use crate::recipe::{self, Recipe};
use crate::report::{ProbeRow, environment, note};
use crate::train::{CHECKPOINT_FOLDER, Checkpoints, Keep};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// What is written of a run beside its stages. The recipe is written last and removed first: a
/// folder without one holds no run.
const RECIPE: &str = "recipe.toml";
const STATE: &str = "state.json";
const ENVIRONMENT: &str = "environment.json";
const METRICS: &str = "metrics.jsonl";
const PROBES: &str = "probes.json";
const UNREADABLE: &str = "unreadable.txt";
const REPLAY: &str = "replay";
const LOCK: &str = ".lock";

/// What is written of a stage.
pub(super) const ENCODER: &str = "encoder.safetensors";
pub(super) const MODEL: &str = "model.safetensors";

/// How far a run has come: state.json.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// What the data is; other data would be another run.
    data: String,
    /// The stages trained to their end, in order.
    done: Vec<Done>,
    /// Whether all is done, probes too.
    finished: bool,
}

/// A stage trained to its end.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Done {
    /// Which.
    stage: String,
    /// Length of metrics.jsonl when it ended.
    metrics_bytes: u64,
    /// What others read of it.
    encoder: Record,
}

/// The folder of a run, locked against other processes.
pub(super) struct Folder {
    path: PathBuf,
    state: State,
    /// Whether the folder was made for this run.
    fresh: bool,
    /// Whether the run began before.
    resumed: bool,
    /// Held until the process ends.
    _lock: File,
}

impl Folder {
    /// The recipe of the run in a folder.
    pub(super) fn recipe_of(out: &Path) -> Result<PathBuf, Failure> {
        let recipe = out.join(RECIPE);
        if recipe.is_file() {
            return Ok(recipe);
        }
        Err(asked(format!(
            "{} holds no run to go on with: there is no {RECIPE} in it. Give the run's folder with \
             --out, or leave out --resume to begin one",
            out.display()
        )))
    }

    /// Makes the folder of a new run, or finds how far the one in it has come.
    pub(super) fn open(
        place: &Asked,
        recipe: &Recipe,
        images: &Images,
        threads: usize,
    ) -> Result<Self, Failure> {
        let out = &place.out;
        let fresh = !out.exists();
        fs::create_dir_all(out).map_err(|error| cannot_write(out, &error))?;
        let lock = lock(out)?;
        let data = images.train.describe();
        let mut folder =
            Self { path: out.clone(), state: State::default(), fresh, resumed: false, _lock: lock };
        let holds_run = out.join(RECIPE).exists();
        if holds_run && !replaces(place) {
            folder.go_on(place, recipe, &data)?;
            return Ok(folder);
        }
        keep_teachers(recipe, out)?;
        remove_run(out).map_err(|error| cannot_write(out, &error))?;
        folder.state.data = data;
        folder.begin(recipe, threads).inspect_err(|_| folder.discard())?;
        Ok(folder)
    }

    fn begin(&self, recipe: &Recipe, threads: usize) -> Result<(), Failure> {
        let write = |name: &str, text: &str| {
            let path = self.path.join(name);
            write_whole(&path, text.as_bytes()).map_err(|error| cannot_write(&path, &error))
        };
        self.write_state()?;
        write(ENVIRONMENT, &format!("{:#}\n", environment(threads)))?;
        write(METRICS, "")?;
        write(RECIPE, &recipe_text(recipe))
    }

    /// Reads how far the run in the folder has come; one of another recipe, or of other data, stays
    /// as it is.
    fn go_on(&mut self, place: &Asked, recipe: &Recipe, data: &str) -> Result<(), Failure> {
        let out = self.path.display();
        let state = self.path.join(STATE);
        let bytes = fs::read(&state).map_err(|error| {
            asked(format!(
                "{}: cannot be read ({error}), so the run in {out} cannot go on. Choose another \
                 folder with --out, or add --overwrite",
                state.display()
            ))
        })?;
        self.state = serde_json::from_slice(&bytes).map_err(|error| {
            asked(format!(
                "{} is damaged: {error}. Choose another folder with --out, or add --overwrite",
                state.display()
            ))
        })?;
        if self.state.finished && !place.resume {
            return Err(asked(format!(
                "{out} holds a run already, and it is finished. Choose another folder with --out, \
                 or add --overwrite; --resume shows its results"
            )));
        }
        let differences = self.differences(recipe)?;
        if !differences.is_empty() {
            return Err(asked(format!(
                "{out} holds a run already, of another recipe: {}. Choose another folder with --out, \
                 or add --overwrite; `saltworks pretrain --resume --out {out}` goes on with it",
                differences.join("; ")
            )));
        }
        if self.state.data != data {
            let began = &self.state.data;
            return Err(asked(format!(
                "the run in {out} began with {began}, now the data is {data}. Restore the data, or \
                 choose another folder with --out"
            )));
        }
        self.resumed = true;
        for folder in self.folders().map_err(ran)? {
            files::remove_temporaries(&folder).map_err(|error| cannot_write(&folder, &error))?;
        }
        self.state.done.iter().try_for_each(|done| self.check_encoder(done))
    }

    /// The keys of the recipe that differ from the run's; what changes no bit may differ: threads, when
    /// checkpoints are written, activation checkpointing.
    fn differences(&self, recipe: &Recipe) -> Result<Vec<String>, Failure> {
        let mut earlier = recipe::load(Some(&self.path.join(RECIPE)), &[]).map_err(asked)?;
        earlier.threads = recipe.threads;
        earlier.data.threads = recipe.data.threads;
        earlier.checkpoint = recipe.checkpoint;
        for (earlier, stage) in earlier.stage.iter_mut().zip(&recipe.stage) {
            earlier.activation_checkpointing = stage.activation_checkpointing;
        }
        Ok(recipe::differences(&earlier, recipe))
    }

    /// The folders that a run writes to.
    fn folders(&self) -> io::Result<Vec<PathBuf>> {
        let mut folders = vec![self.path.clone()];
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let ours = path.join(ENCODER).exists() || path.ends_with(CHECKPOINT_FOLDER);
            if ours && path.is_dir() {
                folders.push(path);
            }
        }
        Ok(folders)
    }

    fn check_encoder(&self, done: &Done) -> Result<(), Failure> {
        let path = self.encoder_path(&done.stage);
        let problem = match fs::read(&path) {
            Ok(bytes) => done.encoder.problem(&bytes),
            Err(error) => Some(error.to_string()),
        };
        problem.map_or(Ok(()), |problem| {
            Err(asked(format!(
                "{}: {problem}. The run cannot go on without what stage {} learned. Restore the \
                 file, or begin anew with --overwrite",
                path.display(),
                done.stage
            )))
        })
    }

    /// Where the run lies.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this run began in an earlier process.
    pub(super) fn resumed(&self) -> bool {
        self.resumed
    }

    /// Whether everything is done, probes too.
    pub(super) fn is_finished(&self) -> bool {
        self.state.finished
    }

    /// Whether a stage is trained to its end.
    pub(super) fn is_done(&self, stage: &str) -> bool {
        self.state.done.iter().any(|done| done.stage == stage)
    }

    /// Length of metrics.jsonl when the last stage ended.
    pub(super) fn metrics_bytes(&self) -> u64 {
        self.state.done.last().map_or(0, |done| done.metrics_bytes)
    }

    /// Notes that a stage is trained to its end, its weights written.
    pub(super) fn set_done(
        &mut self,
        stage: &str,
        metrics_bytes: u64,
        encoder: Record,
    ) -> Result<(), Failure> {
        self.state.done.push(Done { stage: stage.to_owned(), metrics_bytes, encoder });
        self.write_state()
    }

    /// Notes that all is done.
    pub(super) fn set_finished(&mut self) -> Result<(), Failure> {
        self.state.finished = true;
        self.write_state()
    }

    fn write_state(&self) -> Result<(), Failure> {
        let path = self.path.join(STATE);
        // Numbers and strings: JSON holds them all.
        let text = serde_json::to_string_pretty(&self.state).expect("a state as JSON") + "\n";
        write_whole(&path, text.as_bytes()).map_err(|error| cannot_write(&path, &error))
    }

    /// The probes made so far.
    pub(super) fn rows(&self) -> Result<Vec<ProbeRow>, Failure> {
        let path = self.path.join(PROBES);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            bytes => bytes.map_err(ran)?,
        };
        serde_json::from_slice(&bytes).map_err(|error| {
            asked(format!("{} is damaged: {error}. Remove it to probe anew", path.display()))
        })
    }

    /// Writes the probes made so far.
    pub(super) fn write_rows(&self, rows: &[ProbeRow]) -> Result<(), Failure> {
        let path = self.path.join(PROBES);
        // Numbers and strings: JSON holds them all.
        let text = serde_json::to_string_pretty(rows).expect("probes as JSON") + "\n";
        let written = write_whole(&path, text.as_bytes());
        written.map_err(|error| ran(write_error(&path, &error)))
    }

    /// The log of steps.
    pub(super) fn metrics_path(&self) -> PathBuf {
        self.path.join(METRICS)
    }

    /// The list of images that could not be read.
    pub(super) fn unreadable_path(&self) -> PathBuf {
        self.path.join(UNREADABLE)
    }

    /// Where a step that failed is kept.
    pub(super) fn replay_path(&self, stage: &str, step: u64) -> PathBuf {
        self.path.join(REPLAY).join(format!("{stage}-{step:08}"))
    }

    /// What a stage leaves for others: its encoder under timm's names.
    pub(super) fn encoder_path(&self, stage: &str) -> PathBuf {
        self.path.join(stage).join(ENCODER)
    }

    /// Its checkpoints.
    pub(super) fn checkpoints(&self, keep: Keep) -> Checkpoints {
        Checkpoints::new(&self.path, keep)
    }

    /// Takes back what was made for a run that was refused, if the folder is new.
    pub(super) fn discard(&self) {
        if !self.fresh {
            return;
        }
        // Best effort: the refusal is what counts. A folder that holds anything else stays.
        for name in [RECIPE, STATE, ENVIRONMENT, METRICS, PROBES, UNREADABLE, LOCK] {
            let _ = fs::remove_file(self.path.join(name));
        }
        let _ = fs::remove_dir(&self.path);
    }
}

/// Whether a run in the folder is to be replaced. Slurm runs the same command again when it requeues
/// a job: then `--overwrite` must not cost the run.
fn replaces(place: &Asked) -> bool {
    let restarts = std::env::var("SLURM_RESTART_COUNT").ok();
    let restarted =
        restarts.and_then(|count| count.parse().ok()).is_some_and(|count: u64| count > 0);
    if place.overwrite && restarted {
        note("--overwrite is left aside: this is a requeued Slurm job, its run goes on");
    }
    place.overwrite && !restarted
}

/// A resolved recipe as its run keeps it.
pub(super) fn recipe_text(recipe: &Recipe) -> String {
    // A recipe holds only what TOML can.
    toml::to_string(recipe).expect("a recipe as TOML")
}

/// Two processes must not write one run. The lock ends with the process, however it ends.
fn lock(out: &Path) -> Result<File, Failure> {
    let path = out.join(LOCK);
    let file = File::options().create(true).write(true).truncate(false).open(&path);
    let file = file.map_err(|error| cannot_write(&path, &error))?;
    match file.try_lock() {
        // Some network file systems have no locks: better a run without than none.
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::WouldBlock) => Err(asked(format!(
            "{} is in use: another saltworks process writes its run there. Wait for it, or choose \
             another folder with --out",
            out.display()
        ))),
        Err(TryLockError::Error(error)) => Err(cannot_write(&path, &error)),
    }
}

pub(super) fn write_error(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let advice = "Make room or choose another folder with --out";
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

/// Removes what an earlier run left, and nothing else.
fn remove_run(out: &Path) -> io::Result<()> {
    let remove = |path: &Path| match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    [RECIPE, STATE].iter().try_for_each(|name| remove(&out.join(name)))?;
    for entry in fs::read_dir(out)? {
        let path = entry?.path();
        let weights = [ENCODER, MODEL].map(|name| path.join(name));
        if weights.iter().any(|file| file.is_file()) {
            weights.iter().try_for_each(|file| remove(file))?;
            // A folder that holds anything else stays.
            let _ = fs::remove_dir(&path);
        }
    }
    Checkpoints::remove_all(out)?;
    for entry in fs::read_dir(out.join(REPLAY)).into_iter().flatten() {
        let path = entry?.path();
        if path.join(STEP).is_file() {
            fs::remove_dir_all(path)?;
        }
    }
    // A folder that holds anything else stays.
    let _ = fs::remove_dir(out.join(REPLAY));
    [ENVIRONMENT, METRICS, PROBES, UNREADABLE].iter().try_for_each(|name| remove(&out.join(name)))
}
