//! environment.json: the program, the machine and the command of a run.

use super::unix_seconds;
use serde::{Deserialize, Serialize};

/// The contents of environment.json. A value that the file lacks is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Version of the program.
    pub saltworks: String,
    /// `linux`, ...
    pub os: String,
    /// `x86_64`, ...
    pub architecture: String,
    /// The processor's name, if the system reports it.
    pub cpu: Option<String>,
    /// Threads that compute.
    pub threads: usize,
    /// When the run began.
    pub started_unix_seconds: u64,
    /// The words of the command.
    pub command: Vec<String>,
}

impl Environment {
    /// The environment of this process, which computes on `threads` threads.
    pub fn here(threads: usize) -> Self {
        Self {
            saltworks: env!("CARGO_PKG_VERSION").into(),
            os: std::env::consts::OS.into(),
            architecture: std::env::consts::ARCH.into(),
            cpu: cpu_name(),
            threads,
            started_unix_seconds: unix_seconds() as u64,
            // `args` panics if a word is not Unicode.
            command: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
        }
    }
}

/// The processor's name, if Linux reports it.
fn cpu_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The peak memory of this process, if Linux reports it.
pub fn peak_memory_bytes() -> Option<u64> {
    status_bytes("VmHWM")
}

/// The memory of this process now, if Linux reports it.
pub fn resident_memory_bytes() -> Option<u64> {
    status_bytes("VmRSS")
}

fn status_bytes(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
