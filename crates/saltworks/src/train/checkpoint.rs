//! Checkpoints: everything that a stage needs to resume bit for bit.
//!
//! A checkpoint is two files. `STAGE-STEP.safetensors` holds the trained parameters, AdamW's
//! moments and a [`Position`]. `STAGE-STEP.json` is its manifest: it holds the length and checksum
//! of the first file and is written after it. So if there is a manifest, any damage to the
//! checkpoint is detected. Masks, augmentations, order and stochastic depth are functions of (seed,
//! step), so the position holds no state for them.

use super::Optimizer;
use crate::files::{self, Record};
use crate::weights;
use engine::{Parameter, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A stage's position.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Which stage.
    pub stage: String,
    /// Optimizer steps applied so far. The next step reads the images after `step` batches.
    pub step: u64,
    /// Mean training loss since the previous checkpoint.
    pub loss: f64,
    /// Length of metrics.jsonl up to this step.
    pub metrics_bytes: u64,
    /// The version and processor that computed it. Others may round differently.
    pub machine: String,
    /// The SHA-256 of the resolved recipe, without settings that change no bit.
    pub recipe_sha256: String,
    /// The SHA-256 of the teacher's file. It is empty without a teacher.
    pub teacher_sha256: String,
    /// Number of AdamW's updates of each parameter.
    pub updates: BTreeMap<String, u64>,
    /// Indices of the images that the stage could not read up to this step.
    pub unreadable: BTreeSet<usize>,
}

/// A checkpoint's stage, step and checksum. It is written last.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    stage: String,
    step: u64,
    loss: f64,
    content: Record,
}

/// A checkpoint that cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Weights or moments are not finite.
    #[error(
        "stage {stage} diverged: {name} holds values that are not finite after step {step}; its \
         weights are not saved. Lower the learning rate or lengthen the warmup"
    )]
    Diverged {
        /// Which stage.
        stage: String,
        /// Counted from 1.
        step: u64,
        /// Which tensor.
        name: String,
    },
    /// The checkpoint could not be written. Earlier ones are unchanged.
    #[error(
        "cannot write {path}: {source}. Earlier checkpoints are intact. Correct the cause, then \
         the same command resumes from the last one"
    )]
    Write {
        /// Which file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The folder of checkpoints cannot be read.
    #[error(
        "cannot read {path}: {source}. Correct or remove it, then the same command resumes the run"
    )]
    Read {
        /// Which folder.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The file differs from what was written.
    #[error("checkpoint {path} is damaged: {problem}")]
    Damaged {
        /// Which file.
        path: String,
        /// What is wrong.
        problem: String,
    },
}

/// Which checkpoints of a stage are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Number of newest checkpoints that are kept, at least 1.
    pub last: usize,
    /// Whether the checkpoint with the lowest loss is also kept.
    pub best: bool,
}

/// The checkpoints of a run.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: Keep,
}

/// A checkpoint that was read from its file.
pub struct Checkpoint {
    /// The stage's position.
    pub position: Position,
    path: PathBuf,
    tensors: weights::NamedTensors,
}

/// The newest intact checkpoint, if there is one, and the problems of newer ones.
pub type Newest = (Option<Checkpoint>, Vec<CheckpointError>);

const PARAMETER: &str = "parameter.";
const FIRST: &str = "first_moment.";
const SECOND: &str = "second_moment.";
const POSITION: &str = "position";
/// The folder of checkpoints in a run's folder.
pub const CHECKPOINT_FOLDER: &str = "checkpoints";

impl Checkpoints {
    /// The checkpoints of the run in this folder.
    pub fn new(run: &Path, keep: Keep) -> Self {
        Self { folder: run.join(CHECKPOINT_FOLDER), keep }
    }

    /// Writes a checkpoint, then removes those that are no longer needed. The position's updates
    /// are filled in.
    pub fn save(&self, position: Position, optimizer: &Optimizer) -> Result<(), CheckpointError> {
        let tensors = tensors_of(optimizer);
        if let Some((name, _)) = tensors.iter().find(|(_, tensor)| !is_finite(tensor)) {
            return Err(diverged(&position.stage, position.step, name));
        }
        create(&self.folder).map_err(|error| cannot_write(&self.folder, error))?;
        let moments = optimizer.moments();
        let updates = moments.map(|(name, _, _, updates)| (name.to_owned(), updates)).collect();
        let position = Position { updates, ..position };
        // A position has only numbers and strings, which JSON can hold.
        let text = serde_json::to_string(&position).expect("a position as JSON");
        let metadata = HashMap::from([(POSITION.to_owned(), text)]);
        let path = self.folder.join(format!("{}-{:08}.safetensors", position.stage, position.step));
        let content = weights::save(&path, &tensors, &metadata).map_err(|error| {
            let weights::Error::Write { path, source } = error else {
                unreachable!("only writing can fail: {error}")
            };
            CheckpointError::Write { path, source }
        })?;
        let Position { stage, step, loss, .. } = position;
        let manifest = Manifest { stage, step, loss, content };
        let text = serde_json::to_string_pretty(&manifest).expect("a manifest as JSON") + "\n";
        let path = path.with_extension("json");
        files::write_whole(&path, text.as_bytes()).map_err(|error| cannot_write(&path, error))?;
        self.prune(&manifest.stage, manifest.step)
    }

    /// The newest intact checkpoint of a stage, if there is one, and the problems of newer ones.
    pub fn newest(&self, stage: &str) -> Result<Newest, CheckpointError> {
        let mut damaged = Vec::new();
        let mut candidates = Vec::new();
        let manifests = self.manifests(stage).map_err(|source| CheckpointError::Read {
            path: self.folder.display().to_string(),
            source,
        })?;
        for path in manifests {
            match read_manifest(&path) {
                Ok(manifest) if manifest.stage == stage => candidates.push((manifest, path)),
                Ok(_) => {}
                Err(error) => damaged.push(error),
            }
        }
        candidates.sort_by_key(|(manifest, _)| std::cmp::Reverse(manifest.step));
        for (manifest, path) in candidates {
            match read(&path, &manifest) {
                Ok(checkpoint) => return Ok((Some(checkpoint), damaged)),
                Err(error) => damaged.push(error),
            }
        }
        Ok((None, damaged))
    }

    /// Removes the checkpoints of a finished stage but the newest.
    pub fn keep_newest(&self, stage: &str) -> Result<(), CheckpointError> {
        let newest = Keep { last: 1, best: false };
        Self { keep: newest, ..self.clone() }.prune(stage, u64::MAX)
    }

    /// Removes the checkpoints of a finished stage.
    pub fn remove(&self, stage: &str) -> Result<(), CheckpointError> {
        let manifests = self.manifests(stage).map_err(|error| cannot_write(&self.folder, error))?;
        let of_stage = |path: &PathBuf| read_manifest(path).is_ok_and(|m| m.stage == stage);
        manifests.iter().filter(|path| of_stage(path)).try_for_each(|path| remove(path))?;
        self.remove_orphans(stage)?;
        // A folder that holds other files is kept.
        let _ = fs::remove_dir(&self.folder);
        Ok(())
    }

    /// The checkpoints and manifests of a stage of the run in this folder, intact or not.
    pub fn files_of(run: &Path, stage: &str) -> io::Result<Vec<PathBuf>> {
        let all = Self::new(run, Keep { last: 1, best: false }).files(stage, "")?;
        Ok(all.into_iter().filter(|path| is_of_stage(path, stage)).collect())
    }

    /// Files that may be manifests of a stage.
    fn manifests(&self, stage: &str) -> io::Result<Vec<PathBuf>> {
        self.files(stage, ".json")
    }

    /// Files with this ending that may belong to a stage.
    fn files(&self, stage: &str, ending: &str) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(&format!("{stage}-")) && name.ends_with(ending) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    /// Removes checkpoints that are no longer needed. A checkpoint that cannot be read is kept, so
    /// that the user can inspect it. A checkpoint after `step` is damaged, because the run did not
    /// resume from it. It is not counted.
    fn prune(&self, stage: &str, step: u64) -> Result<(), CheckpointError> {
        let paths = self.manifests(stage).map_err(|error| cannot_write(&self.folder, error))?;
        let read = |path: PathBuf| read_manifest(&path).ok().map(|manifest| (manifest, path));
        let mut all: Vec<_> = paths.into_iter().filter_map(read).collect();
        all.retain(|(manifest, _)| manifest.stage == stage && manifest.step <= step);
        all.sort_by_key(|(manifest, _)| std::cmp::Reverse(manifest.step));
        let best = all.iter().min_by(|(a, _), (b, _)| a.loss.total_cmp(&b.loss));
        let best = best.filter(|_| self.keep.best).map(|(manifest, _)| manifest.step);
        let old = all.iter().skip(self.keep.last.max(1));
        old.filter(|(manifest, _)| Some(manifest.step) != best)
            .try_for_each(|(_, path)| remove(path))?;
        self.remove_orphans(stage)
    }

    /// Removes files without a manifest, which a killed process left.
    fn remove_orphans(&self, stage: &str) -> Result<(), CheckpointError> {
        let files = self.files(stage, ".safetensors");
        let files = files.map_err(|error| cannot_write(&self.folder, error))?;
        let orphan =
            |path: &&PathBuf| is_of_stage(path, stage) && !path.with_extension("json").exists();
        files
            .iter()
            .filter(orphan)
            .try_for_each(|path| fs::remove_file(path).map_err(|error| cannot_write(path, error)))
    }
}

impl Checkpoint {
    /// Restores the optimizer's state and its parameters. On an error nothing is changed.
    pub fn restore(&self, optimizer: &mut Optimizer) -> Result<(), CheckpointError> {
        let damaged = |problem: String| damaged(&self.path, problem);
        let moments = self.moments(optimizer.parameters()).map_err(damaged)?;
        if let Some((name, _)) = self.tensors.iter().find(|(_, tensor)| !is_finite(tensor)) {
            return Err(damaged(format!("{name} holds values that are not finite")));
        }
        weights::assign(&self.path, &self.part(PARAMETER), optimizer.parameters())
            .map_err(|error| damaged(error.to_string()))?;
        for (name, first, second, updates) in moments {
            optimizer
                .restore(&name, &first, &second, updates)
                .map_err(|error| damaged(error.to_string()))?;
        }
        Ok(())
    }

    /// The tensors whose names start with `prefix`, by the rest of their names.
    fn part(&self, prefix: &str) -> weights::NamedTensors {
        let named = self.tensors.iter().filter_map(|(name, tensor)| {
            Some((name.strip_prefix(prefix)?.to_owned(), tensor.clone()))
        });
        named.collect()
    }

    /// AdamW's state for these parameters: (name, first moment, second, updates), or the problem.
    fn moments(
        &self,
        parameters: &[(String, Parameter)],
    ) -> Result<Vec<(String, Tensor, Tensor, u64)>, String> {
        let (mut first, mut second) = (self.part(FIRST), self.part(SECOND));
        let mut moments = Vec::new();
        for (name, parameter) in parameters {
            let (updates, shape) = (self.position.updates.get(name).copied(), parameter.shape());
            let found = (first.remove(name), second.remove(name), updates);
            match found {
                // The parameter never had a gradient.
                (None, None, None) => {}
                (Some(first), Some(second), Some(updates))
                    if first.shape() == shape
                        && second.shape() == shape
                        && second.to_host().iter().all(|&square| square >= 0.0)
                        && (1..=self.position.step).contains(&updates) =>
                {
                    moments.push((name.clone(), first, second, updates));
                }
                _ => {
                    let step = self.position.step;
                    return Err(format!(
                        "it has no moments of {name} of shape {shape:?} and of 1 to {step} updates"
                    ));
                }
            }
        }
        let known = |name: &&String| parameters.iter().any(|(other, _)| other == *name);
        match first
            .keys()
            .chain(second.keys())
            .chain(self.position.updates.keys())
            .find(|n| !known(n))
        {
            None => Ok(moments),
            Some(name) => Err(format!("it has moments of {name}, which is not trained")),
        }
    }
}

/// Creates a folder inside an existing one. A run's folder that was removed must not be created
/// again with only a part of its files.
fn create(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Whether a file has the name of a checkpoint of exactly this stage.
fn is_of_stage(path: &Path, stage: &str) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    is_checkpoint(path) && stem.rsplit_once('-').is_some_and(|(name, _)| name == stage)
}

/// Whether a file has the name of a checkpoint or its manifest: `STAGE-00000123.json`.
fn is_checkpoint(path: &Path) -> bool {
    let extension = path.extension().is_some_and(|e| e == "json" || e == "safetensors");
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let step = stem.rsplit_once('-').map_or("", |(_, step)| step);
    extension && step.len() >= 8 && step.bytes().all(|byte| byte.is_ascii_digit())
}

fn tensors_of(optimizer: &Optimizer) -> Vec<(String, Tensor)> {
    let parameters = optimizer.parameters().iter();
    let mut tensors: Vec<_> =
        parameters.map(|(name, p)| (format!("{PARAMETER}{name}"), p.value())).collect();
    for (name, first, second, _) in optimizer.moments() {
        tensors.push((format!("{FIRST}{name}"), first.clone()));
        tensors.push((format!("{SECOND}{name}"), second.clone()));
    }
    tensors
}

/// Returns an error if a parameter holds a value that is not finite.
pub fn refuse_divergence(
    stage: &str,
    step: u64,
    parameters: &[(String, Parameter)],
) -> Result<(), CheckpointError> {
    match parameters.iter().find(|(_, parameter)| !is_finite(&parameter.value())) {
        None => Ok(()),
        Some((name, _)) => Err(diverged(stage, step, name)),
    }
}

fn diverged(stage: &str, step: u64, name: &str) -> CheckpointError {
    CheckpointError::Diverged { stage: stage.to_owned(), step, name: name.to_owned() }
}

fn is_finite(tensor: &Tensor) -> bool {
    tensor.to_host().iter().all(|value| value.is_finite())
}

fn read_manifest(path: &Path) -> Result<Manifest, CheckpointError> {
    let bytes = files::read_file(path).map_err(|error| damaged(path, error.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| damaged(path, error.to_string()))
}

/// Reads the checkpoint of a manifest. The position inside is the one used, because it has a
/// checksum.
fn read(path: &Path, manifest: &Manifest) -> Result<Checkpoint, CheckpointError> {
    let path = path.with_extension("safetensors");
    let problem = |problem: String| damaged(&path, problem);
    // A file of another length is not read, because it may be arbitrarily large.
    let bytes = fs::metadata(&path).map_err(|error| problem(error.to_string()))?.len();
    if bytes != manifest.content.bytes {
        let expected = manifest.content.bytes;
        return Err(problem(format!("holds {bytes} bytes, expected {expected}")));
    }
    let bytes = files::read_file(&path).map_err(|error| problem(error.to_string()))?;
    if let Some(found) = manifest.content.problem(&bytes) {
        return Err(problem(found));
    }
    let file = weights::parse(&path, &bytes).map_err(|error| problem(error.to_string()))?;
    let text = file.metadata.get(POSITION).map_or("", String::as_str);
    let position: Position =
        serde_json::from_str(text).map_err(|error| problem(format!("its position: {error}")))?;
    if (&position.stage, position.step) != (&manifest.stage, manifest.step) {
        let found = format!("belongs to step {} of stage {}", position.step, position.stage);
        return Err(problem(format!("{found}, but its manifest to step {}", manifest.step)));
    }
    Ok(Checkpoint { position, path, tensors: file.tensors })
}

/// Removes a checkpoint, its manifest first. Without the manifest, the rest is not a checkpoint.
fn remove(manifest: &Path) -> Result<(), CheckpointError> {
    for path in [manifest.to_owned(), manifest.with_extension("safetensors")] {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(cannot_write(&path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn cannot_write(path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::Write { path: path.display().to_string(), source }
}

fn damaged(path: &Path, problem: String) -> CheckpointError {
    CheckpointError::Damaged { path: path.display().to_string(), problem }
}

#[cfg(test)]
mod tests;
