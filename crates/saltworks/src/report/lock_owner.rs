//! Whether a process trains a run, told by those who look on.

use crate::files::read_regular;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;

/// A log that was written to so short a while ago is somebody's.
const FRESH_SECONDS: u64 = 120;

/// Where the process is that holds a run's lock, as it wrote into the lock's file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockOwner {
    /// The machine's name.
    pub host: String,
    /// The namespace of its processes: containers have their own, and see no locks of others.
    pub processes: String,
}

impl LockOwner {
    /// Of this process.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let processes = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Self {
            host: read("/proc/sys/kernel/hostname"),
            processes: processes.to_string_lossy().into_owned(),
        }
    }

    /// As the lock's file holds it.
    pub fn text(&self) -> String {
        // Strings: JSON holds them.
        serde_json::to_string(self).expect("JSON") + "\n"
    }

    fn of(lock: &Path) -> Self {
        let bytes = read_regular(lock, 4096).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }
}

/// Whether a process holds the lock of a run, as far as can be told: from the system's list where the
/// owner's locks are in it, else from the age of the log. Asking for the lock itself could refuse it to a run
/// that begins in that moment.
pub(super) fn is_training(run: &Path) -> bool {
    let lock = run.join(".lock");
    if !lock.exists() {
        return false;
    }
    let seen = LockOwner::of(&lock) == LockOwner::here();
    match is_listed(&lock) {
        Some(held) if seen => held,
        held => held == Some(true) || is_fresh(run),
    }
}

/// Whether the system's list of locks has that of a file; none where there is no list.
#[cfg(target_os = "linux")]
fn is_listed(lock: &Path) -> Option<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let (file, locks) = (fs::metadata(lock).ok()?, fs::read_to_string("/proc/locks").ok()?);
    // 1: FLOCK  ADVISORY  WRITE 708 fe:00:1325 0 EOF: device in hexadecimal digits, number of the file
    let (major, minor) = (libc::major(file.dev()), libc::minor(file.dev()));
    let wanted = format!("{major:02x}:{minor:02x}:{}", file.ino());
    let held =
        |line: &str| line.contains("FLOCK") && line.split_whitespace().any(|word| word == wanted);
    Some(locks.lines().any(held))
}

#[cfg(not(target_os = "linux"))]
fn is_listed(_: &Path) -> Option<bool> {
    None
}

fn is_fresh(run: &Path) -> bool {
    let log = fs::metadata(run.join("metrics.jsonl")).and_then(|log| log.modified());
    log.is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() < FRESH_SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_whole;
    use std::fs::File;

    #[test]
    fn a_run_trains_while_its_lock_is_held_and_elsewhere_while_its_log_grows() {
        let place = tempfile::tempdir().unwrap();
        let (run, lock) = (place.path(), place.path().join(".lock"));
        assert!(!is_training(run));
        write_whole(&run.join("metrics.jsonl"), b"").unwrap();
        write_whole(&lock, LockOwner::here().text().as_bytes()).unwrap();
        assert!(!is_training(run), "nobody holds it, and the log is fresh");
        let file = File::open(&lock).unwrap();
        file.lock().unwrap();
        assert!(is_training(run));
        drop(file);
        assert!(!is_training(run));
        let elsewhere = LockOwner { host: "another machine".into(), ..LockOwner::here() };
        write_whole(&lock, elsewhere.text().as_bytes()).unwrap();
        assert!(is_training(run), "its locks are not seen here, its log is fresh");
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(1000);
        let log = File::options().append(true).open(run.join("metrics.jsonl")).unwrap();
        log.set_modified(old).unwrap();
        assert!(!is_training(run));
    }
}
