//! The names of a run's files and folders, each once.

/// The recipe as it ran. It is written last and removed first: a folder without one holds no run.
pub const RECIPE: &str = "recipe.toml";
/// How far the run has come.
pub const STATE: &str = "state.json";
/// Where it ran.
pub const ENVIRONMENT: &str = "environment.json";
/// One line a step, and what probes found.
pub const METRICS: &str = "metrics.jsonl";
/// The table of probes.
pub const PROBES: &str = "probes.json";
/// Images that could not be read.
pub const UNREADABLE: &str = "unreadable.txt";
/// The report page.
pub const REPORT: &str = "report.html";
/// What the stages cost.
pub const PLAN: &str = "plan.json";
/// Pictures of each stage.
pub const PICTURES: &str = "pictures";
/// Event files of TensorBoard.
pub const TENSORBOARD: &str = "tensorboard";
/// Offline runs of Weights & Biases.
pub const WANDB: &str = "wandb";
/// Steps that failed.
pub const REPLAY: &str = "replay";
/// The file that is locked while a process trains.
pub const LOCK: &str = ".lock";
/// Of a stage: the encoder under timm's names.
pub const ENCODER: &str = "encoder.safetensors";
/// Of a stage: everything trained in it.
pub const MODEL: &str = "model.safetensors";
/// Of a failed step: its images.
pub const STEP_IMAGES: &str = "images.safetensors";
/// Of a failed step: what failed.
pub const STEP: &str = "step.json";
