//! Whether a process trains a run, told by those who look on.

use super::names::LOCK;
use crate::files::read_regular;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A lock that was touched so short a while ago is somebody's: the clocks of two machines, and a busy network,
/// may miss some beats.
const FRESH: Duration = Duration::from_secs(120);

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
    /// Time between two touches of the lock's file by the process that holds it.
    pub const BEAT: Duration = Duration::from_secs(20);

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
/// owner's locks are in it, else from when the lock was touched last. Asking for the lock itself could refuse it
/// to a run that begins in that moment.
pub fn is_training(run: &Path) -> bool {
    let lock = run.join(LOCK);
    if !lock.exists() {
        return false;
    }
    let seen = LockOwner::of(&lock) == LockOwner::here();
    match is_listed(&lock) {
        Some(held) if seen => held,
        held => held == Some(true) || is_fresh(&lock),
    }
}

/// Whether the system's list of locks has that of a file; none where there is no list.
#[cfg(target_os = "linux")]
fn is_listed(lock: &Path) -> Option<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let (file, locks) = (fs::metadata(lock).ok()?, fs::read_to_string("/proc/locks").ok()?);
    // 1: FLOCK  ADVISORY  WRITE 708 fe:00:1325 0 EOF: device in hexadecimal digits, number of the file
    let (major, minor) = (libc::major(file.dev()), libc::minor(file.dev()));
    let (number, wanted) =
        (format!(":{}", file.ino()), format!("{major:02x}:{minor:02x}:{}", file.ino()));
    // Btrfs lists another device than it tells: there a file of that number is it while it is touched.
    let is_it = |word: &str| word == wanted || (word.ends_with(&number) && is_fresh(lock));
    let held = |line: &str| line.contains("FLOCK") && line.split_whitespace().any(is_it);
    Some(locks.lines().any(held))
}

#[cfg(not(target_os = "linux"))]
fn is_listed(_: &Path) -> Option<bool> {
    None
}

fn is_fresh(lock: &Path) -> bool {
    let touched = fs::metadata(lock).and_then(|lock| lock.modified());
    // A clock that runs ahead is fresh, too.
    touched.is_ok_and(|at| at.elapsed().is_ok_and(|age| age < FRESH) || at > SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_whole;
    use std::fs::File;

    #[test]
    fn a_run_trains_while_its_lock_is_held_and_elsewhere_while_it_is_touched() {
        let place = tempfile::tempdir().unwrap();
        let (run, lock) = (place.path(), place.path().join(LOCK));
        assert!(!is_training(run));
        write_whole(&lock, LockOwner::here().text().as_bytes()).unwrap();
        assert!(!is_training(run), "nobody holds it, though it is fresh");
        let file = File::open(&lock).unwrap();
        file.lock().unwrap();
        assert!(is_training(run));
        drop(file);
        assert!(!is_training(run));
        let elsewhere = LockOwner { host: "another machine".into(), ..LockOwner::here() };
        write_whole(&lock, elsewhere.text().as_bytes()).unwrap();
        assert!(is_training(run), "its locks are not seen here, and it is fresh");
        let (now, long) = (SystemTime::now(), Duration::from_secs(1000));
        let file = File::options().append(true).open(&lock).unwrap();
        for (touched, training) in [(now - long, false), (now + long, true)] {
            file.set_modified(touched).unwrap();
            assert_eq!(is_training(run), training);
        }
    }
}
