//! A run's folder: its files, its lock, and the state of the run in it.

use super::RunTarget;
use super::lock::Lock;
use super::resume::{recipe_sha256, stamp, unchanged_recipe};
use crate::console::note;
use crate::data::Fingerprint;
use crate::failure::{Failure, input_error, run_error};
use crate::files::{self, Record, read_regular, write_whole};
use crate::judge::ImageSets;
use crate::loggers::{remove_events, remove_wandb};
use crate::recipe::{self, Checkpointing, Log, Probe, Recipe};
use crate::run_files::names::{
    ENCODER, ENVIRONMENT, LOCK, METRICS, MODEL, PICTURES, PLAN, PROBES, RECIPE, REPLAY, REPORT,
    STATE, STEP, TENSORBOARD, UNREADABLE, WANDB,
};
use crate::run_files::{Environment, LockOwner, PlanFile, ProbeRow, RunEnd, RunState, StageDone};
use crate::train::{CHECKPOINT_FOLDER, Checkpoints, Keep};
use serde::Serialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The largest file of JSON that is read.
const MOST_JSON_BYTES: u64 = 64 << 20;

/// The folder of a run, locked against other processes.
pub(crate) struct Folder {
    path: PathBuf,
    state: RunState,
    /// Whether the folder was made for this run.
    fresh: bool,
    /// Whether an earlier process began the run.
    resumed: bool,
    lock: Lock,
}

/// The recipe of the run in a folder.
pub(crate) fn recipe_of(out: &Path) -> Result<PathBuf, Failure> {
    let recipe = out.join(RECIPE);
    if recipe.is_file() {
        return Ok(recipe);
    }
    Err(input_error(format!(
        "{} holds no run to resume: there is no {RECIPE} in it. Give the run's folder with \
         --out, or leave out --resume to begin one",
        out.display()
    )))
}

impl Folder {
    /// Creates the folder of a new run, or opens that of an earlier one.
    pub(crate) fn open(
        target: &RunTarget,
        recipe: &Recipe,
        images: &ImageSets,
        threads: usize,
        lengths: Option<String>,
    ) -> Result<Self, Failure> {
        let out = &target.out;
        keep_out_of_data(recipe, out)?;
        if out.is_file() {
            let out = out.display();
            return Err(input_error(format!(
                "cannot write {out}/: {out} is a file, expected the folder of a run. Choose \
                 another folder \
                 with --out"
            )));
        }
        let fresh = !out.exists();
        if !target.overwrite {
            keep_others(recipe, out)?;
        }
        fs::create_dir_all(out).map_err(|error| cannot_write(out, &error))?;
        let lock = Lock::take(out)?;
        let data = images.train.describe();
        let held_out = images.held_out.as_deref();
        let images = Fingerprint::of([&*images.train].into_iter().chain(held_out));
        let mut folder =
            Self { path: out.clone(), state: RunState::default(), fresh, resumed: false, lock };
        let holds_run = out.join(RECIPE).exists();
        if target.overwrite && !replaces(target) {
            note("--overwrite is ignored: this is a requeued Slurm job, and its run is resumed");
        }
        if holds_run && !replaces(target) {
            folder.go_on(target, recipe, (&data, &images), lengths.as_deref())?;
            return Ok(folder);
        }
        keep_weights(recipe, out)?;
        if target.overwrite {
            remove_run(recipe, out).map_err(|error| cannot_write(out, &error))?;
        }
        (folder.state.data, folder.state.images) = (data, Some(images));
        folder.state.lengths = lengths;
        folder.state.recipe = Some(stamp(recipe_text(recipe).as_bytes(), recipe));
        folder.begin(recipe, threads).inspect_err(|_| folder.discard())?;
        Ok(folder)
    }

    fn begin(&self, recipe: &Recipe, threads: usize) -> Result<(), Failure> {
        let write = |name: &str, text: &str| {
            let path = self.path.join(name);
            write_whole(&path, text.as_bytes()).map_err(|error| cannot_write(&path, &error))
        };
        write(STATE, &self.state_text())?;
        write(ENVIRONMENT, &json_text(&Environment::here(threads)))?;
        write(METRICS, "")?;
        write(RECIPE, &recipe_text(recipe))
    }

    /// Reads the state of the run in the folder. Refuses a run of another recipe or of other data.
    fn go_on(
        &mut self,
        target: &RunTarget,
        recipe: &Recipe,
        (data, images): (&str, &Fingerprint),
        lengths: Option<&str>,
    ) -> Result<(), Failure> {
        let path = self.path.clone();
        let out = path.display();
        let state = path.join(STATE);
        self.read_state(&state)?;
        self.check_lengths(lengths)?;
        let earlier = self.earlier_recipe()?;
        let longer = target.resume && is_longer(&earlier, recipe);
        let differences = if longer { Vec::new() } else { differences(&earlier, recipe) };
        if self.state.finished && !target.resume {
            let of = match differences.is_empty() {
                true => "it is finished".to_owned(),
                false => format!("it is finished, with another recipe: {}", some_of(&differences)),
            };
            return Err(input_error(format!(
                "{out} holds a run already, and {of}. Choose another folder with --out, or add \
                 --overwrite; `saltworks pretrain --resume --out {out}` shows its results"
            )));
        }
        // A chosen recipe follows from the images, so these are compared first.
        if self.state.data != data {
            let began = &self.state.data;
            return Err(input_error(format!(
                "the run in {out} began with {began}, but now the data is {data}. Restore the \
                 data, or choose another folder with --out"
            )));
        }
        let other = self.state.images.as_ref().map_or(vec![], |began| images.differences(began));
        if !other.is_empty() {
            return Err(input_error(format!(
                "the run in {out} began with other images: the same number, but other {}. Restore \
                 the data, or choose another folder with --out",
                other.join(", ")
            )));
        }
        if !differences.is_empty() {
            return Err(input_error(format!(
                "{out} holds a run already, with another recipe: {}. Choose another folder with \
                 --out, or add --overwrite; `saltworks pretrain --resume --out {out}` resumes it",
                some_of(&differences)
            )));
        }
        self.resumed = true;
        let stamped = self.stamp_recipe(&earlier)?;
        remove_unfinished(&self.path, recipe)
            .map_err(|(folder, error)| cannot_write(&folder, &error))?;
        self.state.done.iter().try_for_each(|done| self.check_encoder(done))?;
        if longer {
            self.make_longer(&earlier, recipe)?;
        }
        match self.state.ended.take() {
            Some(_) => self.write_state(),
            None if stamped => self.write_state(),
            None => Ok(()),
        }
    }

    fn read_state(&mut self, state: &Path) -> Result<(), Failure> {
        let out = self.path.display();
        let bytes = read_regular(state, MOST_JSON_BYTES).map_err(|error| {
            input_error(format!(
                "{}: cannot be read ({error}), so the run in {out} cannot be resumed. Choose \
                 another \
                 folder with --out, or add --overwrite",
                state.display()
            ))
        })?;
        self.state = serde_json::from_slice(&bytes).map_err(|error| {
            input_error(format!(
                "{} is damaged: {error}. Choose another folder with --out, or add --overwrite",
                state.display()
            ))
        })?;
        Ok(())
    }

    /// Refuses other lengths in minutes than the run began with. Its steps were timed for those.
    fn check_lengths(&self, lengths: Option<&str>) -> Result<(), Failure> {
        match (lengths, &self.state.lengths) {
            (Some(now), Some(began)) if now != began => {
                let out = self.path.display();
                Err(input_error(format!(
                    "{out} holds a run already, which began with other lengths: {began}, but now \
                     {now}. Choose another folder with --out, or add --overwrite; `saltworks \
                     pretrain --resume --out {out}` resumes it, and with --set STAGE.steps=N makes \
                     its last stage longer"
                )))
            }
            (Some(now), None) => {
                let out = self.path.display();
                Err(input_error(format!(
                    "{out} holds a run already, whose lengths are in steps or epochs, but now \
                     {now}. A length in minutes can only be given to a new run"
                )))
            }
            _ => Ok(()),
        }
    }

    /// The recipe of the run in the folder.
    fn earlier_recipe(&self) -> Result<Recipe, Failure> {
        unchanged_recipe(&self.path.join(RECIPE), &self.state)
    }

    /// Notes the checksums of the run's recipe anew, after harmless changes of the file. Returns
    /// whether they are new. In a run of an earlier version only checkpoints know what the recipe
    /// was.
    fn stamp_recipe(&mut self, earlier: &Recipe) -> Result<bool, Failure> {
        if self.state.recipe.is_none() {
            return Ok(false);
        }
        let path = self.path.join(RECIPE);
        let text = files::read_file(&path).map_err(|error| cannot_read(&path, &error))?;
        let now = Some(stamp(&text, earlier));
        let is_new = self.state.recipe != now;
        self.state.recipe = now;
        Ok(is_new)
    }

    /// Replaces the recipe by one whose last stage is longer, and takes back that the stage and its
    /// probes are done. A process that is killed here does the same again.
    fn make_longer(&mut self, earlier: &Recipe, recipe: &Recipe) -> Result<(), Failure> {
        let Some(last) = recipe.stage.last().map(|stage| stage.name.clone()) else { return Ok(()) };
        let kept = Checkpoints::files_of(&self.path, &last).unwrap_or_default();
        let weights = self.encoder_path(&last);
        if kept.is_empty() && weights.exists() {
            return Err(input_error(format!(
                "stage {last} cannot be made longer: there is no checkpoint of it in {}/. A run \
                 keeps one if checkpoint.keep_end is true. Begin a new run with --set \
                 {last}.init={}",
                self.path.join(CHECKPOINT_FOLDER).display(),
                weights.display()
            )));
        }
        self.state.shorter_recipes.push(recipe_sha256(earlier));
        self.state.recipe = Some(stamp(recipe_text(recipe).as_bytes(), recipe));
        self.state.finished = false;
        self.state.done.retain(|done| done.stage != last);
        self.write_state()?;
        // How many images are probed depends on the length, and rows are compared.
        self.write_rows(&[])?;
        let path = self.path.join(RECIPE);
        let written = write_whole(&path, recipe_text(recipe).as_bytes());
        written.map_err(|error| run_error(write_error(&path, &error)))
    }

    fn check_encoder(&self, done: &StageDone) -> Result<(), Failure> {
        let path = self.encoder_path(&done.stage);
        let problem = match files::read_file(&path) {
            Ok(bytes) => done.encoder.problem(&bytes),
            Err(error) => Some(error.to_string()),
        };
        problem.map_or(Ok(()), |problem| {
            Err(input_error(format!(
                "{}: {problem}. The run cannot be resumed without the weights of stage {}. Restore \
                 the file, or start again with --overwrite",
                path.display(),
                done.stage
            )))
        })
    }

    /// The folder's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this run began in an earlier process.
    pub(crate) fn resumed(&self) -> bool {
        self.resumed
    }

    /// Whether everything is done, probes too.
    pub(crate) fn is_finished(&self) -> bool {
        self.state.finished
    }

    /// The checksums of the recipe each time before the last stage was made longer.
    pub(crate) fn shorter_recipes(&self) -> &[String] {
        &self.state.shorter_recipes
    }

    /// Whether a stage is trained to its end.
    pub(crate) fn is_done(&self, stage: &str) -> bool {
        self.state.done.iter().any(|done| done.stage == stage)
    }

    /// Length of metrics.jsonl when the last stage ended.
    pub(crate) fn metrics_bytes(&self) -> u64 {
        self.state.done.last().map_or(0, |done| done.metrics_bytes)
    }

    /// Records that a stage is trained to its end and its weights are written.
    pub(crate) fn set_done(
        &mut self,
        stage: &str,
        metrics_bytes: u64,
        encoder: Record,
    ) -> Result<(), Failure> {
        self.state.done.push(StageDone { stage: stage.to_owned(), metrics_bytes, encoder });
        self.write_state()
    }

    /// Records why this process ends before the run does. Nothing is lost if that cannot be
    /// written.
    pub(crate) fn set_ended(&mut self, ended: RunEnd) {
        self.state.ended = Some(ended);
        let _ = self.write_state();
    }

    /// Records that the run is finished.
    pub(crate) fn set_finished(&mut self) -> Result<(), Failure> {
        self.state.finished = true;
        self.write_state()
    }

    fn write_state(&self) -> Result<(), Failure> {
        self.check_lock()?;
        let path = self.path.join(STATE);
        let written = write_whole(&path, self.state_text().as_bytes());
        written.map_err(|error| run_error(write_error(&path, &error)))
    }

    fn state_text(&self) -> String {
        json_text(&self.state)
    }

    /// Refuses to write if the folder was removed or moved. A folder that has its name now belongs
    /// to another run.
    pub(crate) fn check_lock(&self) -> Result<(), Failure> {
        self.check().map_err(run_error)
    }

    /// Returns an error if the folder was removed or moved.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.lock.is_of(&self.path) {
            return Ok(());
        }
        Err(format!(
            "cannot write into {}/: the folder was removed, moved or replaced while its run was \
             training. \
             If it was moved, --resume --out NEW_FOLDER resumes from the last checkpoint",
            self.path.display()
        ))
    }

    /// The probes made so far.
    pub(crate) fn rows(&self) -> Result<Vec<ProbeRow>, Failure> {
        let path = self.path.join(PROBES);
        let bytes = match read_regular(&path, MOST_JSON_BYTES) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            bytes => bytes.map_err(|error| cannot_read(&path, &error))?,
        };
        serde_json::from_slice(&bytes).map_err(|error| {
            input_error(format!("{} is damaged: {error}. Remove it to probe again", path.display()))
        })
    }

    /// Writes the cost of the stages, unless the file already holds it.
    pub(crate) fn write_plan(&self, plan: &PlanFile) -> Result<(), Failure> {
        let path = self.path.join(PLAN);
        let text = json_text(plan);
        if read_regular(&path, MOST_JSON_BYTES).is_ok_and(|found| found == text.as_bytes()) {
            return Ok(());
        }
        let written = write_whole(&path, text.as_bytes());
        written.map_err(|error| run_error(write_error(&path, &error)))
    }

    /// Writes the probes made so far.
    pub(crate) fn write_rows(&self, rows: &[ProbeRow]) -> Result<(), Failure> {
        self.check_lock()?;
        let path = self.path.join(PROBES);
        let written = write_whole(&path, json_text(rows).as_bytes());
        written.map_err(|error| run_error(write_error(&path, &error)))
    }

    /// The log of steps.
    pub(crate) fn metrics_path(&self) -> PathBuf {
        self.path.join(METRICS)
    }

    /// Pictures of a stage.
    pub(crate) fn pictures_path(&self, stage: &str) -> PathBuf {
        self.path.join(PICTURES).join(format!("{stage}.json"))
    }

    /// The list of images that could not be read.
    pub(crate) fn unreadable_path(&self) -> PathBuf {
        self.path.join(UNREADABLE)
    }

    /// The folder of a step that failed.
    pub(crate) fn replay_path(&self, stage: &str, step: u64) -> PathBuf {
        self.path.join(REPLAY).join(format!("{stage}-{step:08}"))
    }

    /// A stage's encoder under timm's names.
    pub(crate) fn encoder_path(&self, stage: &str) -> PathBuf {
        self.path.join(stage).join(ENCODER)
    }

    /// The checkpoints of the run.
    pub(crate) fn checkpoints(&self, keep: Keep) -> Checkpoints {
        Checkpoints::new(&self.path, keep)
    }

    /// Removes the files of a run that was refused, if the folder is new.
    pub(crate) fn discard(&self) {
        if !self.fresh {
            return;
        }
        // Errors are ignored: the refusal matters more. A folder that holds anything else is kept.
        let _ = fs::remove_dir_all(self.path.join(PICTURES));
        for name in [RECIPE, STATE, ENVIRONMENT, METRICS, PROBES, UNREADABLE, REPORT, PLAN, LOCK] {
            let _ = fs::remove_file(self.path.join(name));
        }
        let _ = fs::remove_dir(&self.path);
    }
}

/// The first differences of a list, and the number of the others.
fn some_of(differences: &[String]) -> String {
    const MOST: usize = 5; // (guess) what a reader compares at a glance
    let first = &differences[..differences.len().min(MOST)];
    match differences.len() - first.len() {
        0 => first.join("; "),
        more => format!("{}; and {more} more keys", first.join("; ")),
    }
}

/// Whether to replace a run in the folder. Slurm repeats the same command if it requeues a job. In
/// that case, `--overwrite` must not remove the run.
pub(super) fn replaces(target: &RunTarget) -> bool {
    let restarts = std::env::var("SLURM_RESTART_COUNT").ok();
    let restarted = restarts.and_then(|count| count.parse().ok()).is_some_and(|n: u64| n > 0);
    target.overwrite && !restarted
}

/// A recipe without the settings that do not change the trained bits: threads, tags, when
/// checkpoints are written, online probes, logs, activation checkpointing, and how many unreadable
/// images end a run.
pub(crate) fn deciding(recipe: &Recipe) -> Recipe {
    let mut recipe = recipe.clone();
    (recipe.threads, recipe.data.threads) = (0, 0);
    recipe.data.max_unreadable = 0.0;
    recipe.tags.clear();
    recipe.checkpoint = Checkpointing::default();
    recipe.log = Log::default();
    let Probe { test, k, temperature, linear, .. } = recipe.probe;
    recipe.probe = Probe { test, k, temperature, linear, ..Probe::default() };
    for stage in &mut recipe.stage {
        stage.activation_checkpointing = false;
    }
    recipe
}

/// The keys that differ and that decide the weights.
fn differences(earlier: &Recipe, recipe: &Recipe) -> Vec<String> {
    recipe::differences(&deciding(earlier), &deciding(recipe))
}

/// Whether a recipe is the earlier one with more steps in its last stage.
fn is_longer(earlier: &Recipe, recipe: &Recipe) -> bool {
    let mut shorter = recipe.clone();
    let (Some(then), Some(now)) = (earlier.stage.last(), shorter.stage.last_mut()) else {
        return false;
    };
    let longer = [(then.epochs, now.epochs), (steps(then.steps), steps(now.steps))]
        .into_iter()
        .chain([(steps(then.samples), steps(now.samples))])
        .any(|(then, now)| then.zip(now).is_some_and(|(then, now)| now > then));
    (now.epochs, now.steps, now.samples) = (then.epochs, then.steps, then.samples);
    longer && deciding(&shorter) == deciding(earlier)
}

fn steps(count: Option<u64>) -> Option<f64> {
    count.map(|count| count as f64)
}

/// Which checkpoints are kept.
pub(crate) fn keep(recipe: &Recipe) -> Keep {
    let checkpoint = recipe.checkpoint;
    Keep { last: checkpoint.keep, best: checkpoint.keep_best }
}

/// The text of a resolved recipe in the run's folder.
pub(crate) fn recipe_text(recipe: &Recipe) -> String {
    // A recipe holds only values that TOML can hold.
    toml::to_string(recipe).expect("a recipe as TOML")
}

/// The text of a JSON file.
fn json_text(value: &(impl Serialize + ?Sized)) -> String {
    // The values are numbers and strings, which JSON can hold.
    serde_json::to_string_pretty(value).expect("JSON") + "\n"
}

pub(crate) fn write_error(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

pub(crate) fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let advice = "Make room or choose another folder with --out";
    input_error(format!("{}. {advice}", write_error(path, error)))
}

fn cannot_read(path: &Path, error: &io::Error) -> Failure {
    run_error(format!("cannot read {}: {error}", path.display()))
}

/// Refuses a run in the folder of its images.
fn keep_out_of_data(recipe: &Recipe, out: &Path) -> Result<(), Failure> {
    // Links are resolved in the part of the path that exists.
    let real = out.ancestors().find_map(|folder| {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        fs::canonicalize(folder).ok()
    });
    for source in recipe.data.sources() {
        let data = fs::canonicalize(&source.path).ok().filter(|data| data.is_dir());
        if let (Some(real), Some(data)) = (&real, data)
            && real.starts_with(&data)
        {
            let (out, data) = (out.display(), source.path);
            return Err(input_error(format!(
                "the run's folder {out} is inside the data's folder {data}. Choose another one \
                 with --out"
            )));
        }
    }
    Ok(())
}

/// Refuses a file of weights that overwriting the folder would remove.
fn keep_weights(recipe: &Recipe, out: &Path) -> Result<(), Failure> {
    let real = |path: &Path| fs::canonicalize(path).ok();
    let Some(folder) = real(out) else { return Ok(()) };
    let inside = |file: &str| real(Path::new(file)).is_some_and(|file| file.starts_with(&folder));
    for (index, stage) in recipe.stage.iter().enumerate() {
        for (key, file) in [("teacher", &stage.teacher), ("init", &stage.init)] {
            let file = file.as_ref().filter(|name| recipe.stage_before(index, name).is_none());
            if let Some(file) = file.filter(|file| inside(file)) {
                let (name, out) = (&stage.name, out.display());
                return Err(input_error(format!(
                    "{name}.{key}: {file} is inside the folder of the run, {out}. Choose another \
                     --out"
                )));
            }
        }
    }
    Ok(())
}

/// Refuses a folder without a run if it holds files that a run would write: they may have another
/// owner. A leftover lock of saltworks means that a run was killed before it wrote its recipe. Its
/// files can be replaced.
fn keep_others(recipe: &Recipe, out: &Path) -> Result<(), Failure> {
    if out.join(RECIPE).exists() {
        return Ok(());
    }
    let mut files: Vec<_> = [PROBES, UNREADABLE, REPORT, PLAN].map(|name| out.join(name)).into();
    if !LockOwner::wrote(&out.join(LOCK)) {
        files.extend([STATE, ENVIRONMENT, METRICS].map(|name| out.join(name)));
    }
    for stage in &recipe.stage {
        files.extend([ENCODER, MODEL].map(|name| out.join(&stage.name).join(name)));
        files.extend(Checkpoints::files_of(out, &stage.name).unwrap_or_default());
    }
    match files.into_iter().find(|file| file.exists()) {
        None => Ok(()),
        Some(file) => Err(input_error(format!(
            "{} is a file that a run would write, but no {RECIPE} shows that it belongs to a run. \
             Choose another folder with --out, or add --overwrite to replace it",
            file.display()
        ))),
    }
}

/// Removes the unfinished files that killed processes left in the folders that a run writes to. A
/// link to a folder is none of them. An error comes with its folder.
fn remove_unfinished(run: &Path, recipe: &Recipe) -> Result<(), (PathBuf, io::Error)> {
    let stages = recipe.stage.iter().map(|stage| stage.name.as_str());
    let folders = ["", CHECKPOINT_FOLDER, PICTURES, REPLAY].into_iter().chain(stages);
    let folders = folders
        .map(|name| run.join(name))
        .filter(|folder| fs::symlink_metadata(folder).is_ok_and(|metadata| metadata.is_dir()));
    for folder in folders {
        files::remove_temporaries(&folder).map_err(|error| (folder, error))?;
    }
    Ok(())
}

/// Removes only the files of an earlier run and those that this one will write.
fn remove_run(recipe: &Recipe, out: &Path) -> io::Result<()> {
    let remove = |path: &Path| match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    // A recipe that cannot be read names no stages.
    let earlier = recipe::load(Some(&out.join(RECIPE)), &[]).ok();
    [RECIPE, STATE].iter().try_for_each(|name| remove(&out.join(name)))?;
    for recipe in earlier.iter().chain([recipe]) {
        remove_unfinished(out, recipe).map_err(|(_, error)| error)?;
    }
    for stage in earlier.iter().chain([recipe]).flat_map(|recipe| &recipe.stage) {
        let folder = out.join(&stage.name);
        if folder.is_dir() {
            [ENCODER, MODEL].iter().try_for_each(|name| remove(&folder.join(name)))?;
            // A folder that holds anything else stays.
            let _ = fs::remove_dir(&folder);
        }
        remove(&out.join(PICTURES).join(format!("{}.json", stage.name)))?;
        Checkpoints::files_of(out, &stage.name)?.iter().try_for_each(|file| remove(file))?;
    }
    // What a link leads to is not the run's.
    let replay = out.join(REPLAY);
    let own = !fs::symlink_metadata(&replay).is_ok_and(|replay| replay.is_symlink());
    for entry in fs::read_dir(&replay).into_iter().flatten() {
        let path = entry?.path();
        if own && path.join(STEP).is_file() {
            fs::remove_dir_all(path)?;
        }
    }
    let checkpoints = out.join(CHECKPOINT_FOLDER);
    remove_events(&out.join(TENSORBOARD))?;
    remove_wandb(&out.join(WANDB))?;
    for folder in [checkpoints, out.join(REPLAY), out.join(PICTURES)] {
        // A folder that holds anything else stays.
        let _ = fs::remove_dir(folder);
    }
    let files = [ENVIRONMENT, METRICS, PROBES, UNREADABLE, REPORT, PLAN];
    files.iter().try_for_each(|name| remove(&out.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_more_of_the_unit_of_the_recipe_is_longer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recipe.toml");
        let of = |length: &str| {
            let text = format!("[[stage]]\nname = \"a\"\nmethod = \"mae\"\n{length}\n");
            write_whole(&path, text.as_bytes()).unwrap();
            recipe::load(Some(&path), &[]).unwrap()
        };
        for unit in ["epochs", "steps", "samples"] {
            let [shorter, longer] = [2, 3].map(|count| of(&format!("{unit} = {count}")));
            assert!(is_longer(&shorter, &longer), "{unit}");
            assert!(!is_longer(&longer, &shorter), "{unit}");
            assert!(!is_longer(&shorter, &shorter), "{unit}");
        }
        assert!(!is_longer(&of("epochs = 2"), &of("steps = 3000")));
        assert!(!is_longer(&of("epochs = 2"), &of("epochs = 3\nbatch = 7")));
    }

    #[test]
    fn the_best_checkpoint_is_kept_unless_the_recipe_says_no() {
        let kept = |set: &[&str]| {
            let set: Vec<String> = set.iter().map(ToString::to_string).collect();
            keep(&recipe::load(None, &set).unwrap())
        };
        assert_eq!(kept(&[]), Keep { last: 2, best: true });
        let set = ["checkpoint.keep=5", "checkpoint.keep_best=false"];
        assert_eq!(kept(&set), Keep { last: 5, best: false });
    }
}
