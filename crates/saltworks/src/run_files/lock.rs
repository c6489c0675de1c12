//! The lock of a run: who holds it, and whether a process trains the run.

use super::names::LOCK;
use crate::files::read_regular;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// A lock that was touched so recently is held. The time is several beats: the clocks of two
/// machines differ, and a busy network loses some.
const FRESH: Duration = Duration::from_secs(120);
/// How far the clock of another machine may run ahead. (guess) To call a run stopped that trains is
/// worse than to call one trained that stopped an hour ago.
const MOST_AHEAD: Duration = Duration::from_secs(3600);
const _: () = assert!(FRESH.as_secs() >= 5 * LockOwner::BEAT.as_secs());

/// The machine and namespace of the process that holds a run's lock. They are written into the
/// lock's file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockOwner {
    /// The machine's name.
    pub host: String,
    /// The namespace of its processes. A container has its own, and sees no locks of others.
    pub processes: String,
}

impl LockOwner {
    /// Time between two touches of the lock's file by the process that holds it.
    pub const BEAT: Duration = Duration::from_secs(20);

    /// This process as the owner.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let processes = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Self {
            host: read("/proc/sys/kernel/hostname"),
            processes: processes.to_string_lossy().into_owned(),
        }
    }

    /// The text of the lock's file.
    pub fn text(&self) -> String {
        // Strings always become JSON.
        serde_json::to_string(self).expect("JSON") + "\n"
    }

    /// Whether saltworks wrote this lock file.
    pub fn wrote(lock: &Path) -> bool {
        read_regular(lock, 4096).is_ok_and(|found| found == Self::of(lock).text().as_bytes())
    }

    fn of(lock: &Path) -> Self {
        let bytes = read_regular(lock, 4096).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }
}

/// Whether a process holds the lock of a run, as far as can be known. If the system's list of locks
/// covers the owner, it decides. Otherwise, the time of the last touch decides.
///
/// Taking the lock to find out could keep it from a run that begins at that moment.
pub fn is_training(run: &Path) -> bool {
    let lock = run.join(LOCK);
    if !lock.exists() {
        return false;
    }
    let listed_here = LockOwner::of(&lock) == LockOwner::here();
    match is_listed(&lock) {
        Some(held) if listed_here => held,
        held => held == Some(true) || is_fresh(&lock),
    }
}

/// Whether the system lists a lock of this file. `None` if there is no list.
#[cfg(target_os = "linux")]
fn is_listed(lock: &Path) -> Option<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let (file, locks) = (fs::metadata(lock).ok()?, fs::read_to_string("/proc/locks").ok()?);
    // 1: FLOCK  ADVISORY  WRITE 708 fe:00:1325 0 EOF
    // The device is in hexadecimal digits; the number of the file follows.
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let (number, wanted) =
        (format!(":{}", file.ino()), format!("{major:02x}:{minor:02x}:{}", file.ino()));
    // Btrfs lists another device than `stat` returns. There, the number and recent touches decide.
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
    // The clock of another machine may run ahead, but a time far ahead would be fresh for ever.
    touched.is_ok_and(|at| match at.elapsed() {
        Ok(age) => age < FRESH,
        Err(ahead) => ahead.duration() < MOST_AHEAD,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_whole;
    use std::fs::File;
    use std::time::SystemTime;

    #[test]
    fn a_run_trains_while_its_lock_is_held_and_elsewhere_while_it_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let (run, lock) = (folder.path(), folder.path().join(LOCK));
        assert!(!is_training(run));
        write_whole(&lock, LockOwner::here().text().as_bytes()).unwrap();
        assert!(!is_training(run), "no process holds it, though it is fresh");
        let file = File::open(&lock).unwrap();
        file.lock().unwrap();
        assert!(is_training(run));
        drop(file);
        assert!(!is_training(run));
        let elsewhere = LockOwner { host: "another machine".into(), ..LockOwner::here() };
        write_whole(&lock, elsewhere.text().as_bytes()).unwrap();
        assert!(is_training(run), "its locks are not seen here, and it is fresh");
        let (now, seconds) = (SystemTime::now(), Duration::from_secs);
        let file = File::options().append(true).open(&lock).unwrap();
        for (touched, training) in [
            (now - seconds(60), true),
            (now - seconds(1000), false),
            // A clock that runs ahead, and a date of 2040.
            (now + seconds(60), true),
            (now + seconds(1000), true),
            (now + seconds(7200), false),
            (now + seconds(14 * 365 * 86_400), false),
        ] {
            file.set_modified(touched).unwrap();
            assert_eq!(is_training(run), training, "{touched:?}");
        }
    }
}
