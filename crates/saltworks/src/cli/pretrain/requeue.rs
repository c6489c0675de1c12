//! Requeues the job under Slurm.

use signal_hook::consts::{SIGHUP, SIGINT};
use std::process::Command;

/// Requeues this Slurm job after a signal from the scheduler. Returns `text` and the outcome.
pub(super) fn requeue(signal: i32, text: &str) -> String {
    // These signals come from a person, not from a scheduler.
    if [SIGINT, SIGHUP].contains(&signal) {
        return text.to_owned();
    }
    let Some(job) = job() else {
        return format!("{text}. Not requeued: this is not a Slurm job (SLURM_JOB_ID is not set)");
    };
    match Command::new("scontrol").args(["requeue", &job]).output() {
        Ok(output) if output.status.success() => format!("{text}. Slurm job {job} is requeued"),
        Ok(output) => {
            let problem = String::from_utf8_lossy(&output.stderr);
            format!("{text}. `scontrol requeue {job}` failed: {}", problem.trim())
        }
        Err(error) => format!("{text}. `scontrol requeue {job}` cannot be run: {error}"),
    }
}

/// The job's name for scontrol. An element of an array is named by the array and its index.
fn job() -> Option<String> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    match (set("SLURM_ARRAY_JOB_ID"), set("SLURM_ARRAY_TASK_ID")) {
        (Some(array), Some(index)) => Some(format!("{array}_{index}")),
        _ => set("SLURM_JOB_ID"),
    }
}
