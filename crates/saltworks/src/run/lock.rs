//! The lock of a run's folder: two processes must not write one run.

use super::folder::cannot_write;
use crate::console::note;
use crate::failure::{Failure, input_error};
use crate::files::open_or_create;
use crate::run_files::LockOwner;
use crate::run_files::names::LOCK;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

/// Held until the process ends, however it ends.
pub(crate) struct Lock {
    _beat: Heartbeat,
    /// The folder itself, even if its name later refers to another one. While it is open, no other
    /// folder has its inode number.
    folder: Option<File>,
}

impl Lock {
    /// Locks a folder that exists.
    pub(crate) fn take(folder: &Path) -> Result<Self, Failure> {
        Self::take_with_beat(folder, LockOwner::BEAT)
    }

    fn take_with_beat(folder: &Path, beat: Duration) -> Result<Self, Failure> {
        let path = folder.join(LOCK);
        let file = open_or_create(&path).map_err(|error| cannot_write(&path, &error))?;
        if is_free(file.try_lock(), folder) {
            // Only the owner writes. The text names its machine. Nothing depends on it.
            let _ = file
                .set_len(0)
                .and_then(|()| (&file).write_all(LockOwner::here().text().as_bytes()));
            let folder = File::open(folder).ok();
            return Ok(Self { _beat: Heartbeat::of(file, beat), folder });
        }
        Err(input_error(format!(
            "{} is in use: another saltworks process writes its run there. Wait for it, or choose \
             another folder with --out",
            folder.display()
        )))
    }

    /// Whether `folder` still names the folder that was locked, and not a replacement.
    pub(crate) fn is_of(&self, folder: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        let number = |it: io::Result<fs::Metadata>| it.ok().map(|it| (it.dev(), it.ino()));
        self.folder
            .as_ref()
            .is_none_or(|held| number(held.metadata()) == number(fs::metadata(folder)))
    }
}

/// Touches the lock's file regularly, for machines that do not see this machine's locks. A step, or
/// the probes after a stage, may take longer than a reader would wait for a line of the log.
struct Heartbeat {
    /// Ends the thread when it is dropped.
    ends: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Heartbeat {
    fn of(file: File, every: Duration) -> Self {
        let (ends, ended) = channel::<()>();
        let beat = move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                // If this fails, the files that matter report the error.
                let _ = file.set_modified(SystemTime::now());
            }
        };
        Self { ends: Some(ends), thread: Some(thread::spawn(beat)) }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        drop(self.ends.take());
        // The lock is free when the thread has closed its file.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Whether a folder is free, by the result of locking it. Some network file systems have no locks.
/// There, a run without a lock is better than none.
fn is_free(tried: Result<(), TryLockError>, folder: &Path) -> bool {
    match tried {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(error)) => {
            let folder = folder.display();
            note(&format!(
                "{folder} cannot be locked ({error}). Make sure that no other process writes there"
            ));
            true
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// On other machines the run would be shown as stopped.
    #[test]
    fn a_lock_is_touched_while_it_is_held_and_no_longer() {
        let folder = tempfile::tempdir().unwrap();
        let beat = Duration::from_millis(10);
        let lock = Lock::take_with_beat(folder.path(), beat).unwrap_or_else(|_| panic!("free"));
        let file = File::options().append(true).open(folder.path().join(LOCK)).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(1000);
        let touched = || file.metadata().unwrap().modified().unwrap() > long_ago;
        let begun = Instant::now();
        for _ in 0..2 {
            file.set_modified(long_ago).unwrap();
            while !touched() {
                assert!(begun.elapsed() < Duration::from_secs(20), "it is not touched");
                thread::sleep(beat);
            }
        }
        drop(lock);
        file.set_modified(long_ago).unwrap();
        thread::sleep(10 * beat);
        assert!(!touched(), "its process has given it back");
    }

    /// Systems report missing locks by two error codes. std knows only the second.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_system_without_locks_takes_a_run() {
        let (enolck, enosys) = (37, 38);
        for code in [enolck, enosys] {
            let error = TryLockError::Error(io::Error::from_raw_os_error(code));
            assert!(is_free(Err(error), Path::new("run")), "{code}");
        }
        assert!(!is_free(Err(TryLockError::WouldBlock), Path::new("run")));
    }
}
