//! The names of a run's files and folders, each once.

use std::path::{Path, PathBuf};

/// The recipe of the run, in full. It is written last and removed first: a folder without one holds
/// no run.
pub const RECIPE: &str = "recipe.toml";
/// The progress of the run.
pub const STATE: &str = "state.json";
/// The program, the machine and the command.
pub const ENVIRONMENT: &str = "environment.json";
/// One line per step, and the results of probes.
pub const METRICS: &str = "metrics.jsonl";
/// The table of probes.
pub const PROBES: &str = "probes.json";
/// Images that could not be read.
pub const UNREADABLE: &str = "unreadable.txt";
/// The report page.
pub const REPORT: &str = "report.html";
/// The cost of each stage.
pub const PLAN: &str = "plan.json";
/// The folder of pictures: one file per stage.
pub const PICTURES: &str = "pictures";
/// Event files of TensorBoard.
pub const TENSORBOARD: &str = "tensorboard";
/// Offline runs of Weights & Biases.
pub const WANDB: &str = "wandb";
/// Steps that failed.
pub const REPLAY: &str = "replay";
/// The file that is locked while a process trains.
pub const LOCK: &str = ".lock";
/// In a stage's folder: the encoder under timm's names.
pub const ENCODER: &str = "encoder.safetensors";
/// In a stage's folder: everything that it trained.
pub const MODEL: &str = "model.safetensors";
/// In the folder of a failed step: its images.
pub const STEP_IMAGES: &str = "images.safetensors";
/// In the folder of a failed step: what failed.
pub const STEP: &str = "step.json";

/// The file of a stage's pictures, below the run's folder.
pub fn pictures_of(stage: &str) -> PathBuf {
    Path::new(PICTURES).join(format!("{stage}.json"))
}
