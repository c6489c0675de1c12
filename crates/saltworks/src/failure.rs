//! Why a command or a run did not finish.

use crate::train::Stop;
use std::path::Path;

/// Why a command did not finish.
pub enum Failure {
    /// What was asked cannot be done, or an image cannot be read: for the user to correct.
    Asked(Box<dyn std::error::Error>),
    /// The run failed.
    Run(Box<dyn std::error::Error>),
    /// Stopped by a signal, or by the caller.
    Interrupted {
        /// Its number; 0 where the caller asked.
        signal: i32,
        /// What to know then.
        text: String,
    },
}

/// For `map_err`: an error in what was asked.
pub(crate) fn asked(error: impl Into<Box<dyn std::error::Error>>) -> Failure {
    Failure::Asked(error.into())
}

/// For `map_err`: an error of the run.
pub(crate) fn ran(error: impl Into<Box<dyn std::error::Error>>) -> Failure {
    Failure::Run(error.into())
}

/// Refuses a file in a folder that is not there, before the work whose result it shall hold.
pub(crate) fn expect_parent(file: &Path) -> Result<(), Failure> {
    match file.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
        Some(parent) => Err(asked(format!(
            "{}: there is no folder {}. Make it, or choose another place",
            file.display(),
            parent.display()
        ))),
        None => Ok(()),
    }
}

/// For `map_err` while images are loaded: those that cannot be read are the user's to mend, a store
/// that does not answer fails a run that may go on later.
pub(crate) fn loading(error: crate::data::Error) -> Failure {
    if error.is_of_store() { ran(error) } else { asked(error) }
}

/// For a run in `folder` that a signal ended at a point called `when`.
pub(crate) fn interrupted(stop: &Stop, when: &str, folder: &Path) -> Failure {
    let out = folder.display();
    let text = format!("interrupted {when}; `saltworks pretrain --resume --out {out}` goes on");
    // Nothing but a signal ends a run there.
    Failure::Interrupted { signal: stop.signal().unwrap_or(0), text }
}

/// Uses this many threads for all computation; 0 for one per core. Returns how many there are.
pub(crate) fn use_threads(threads: usize) -> Result<usize, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // More than cores only cost time, many more seem to hang.
    let most = 8 * cores;
    if threads > most {
        return Err(asked(format!(
            "threads is {threads}, expected at most {most}, eight for each core here; 0 is one each"
        )));
    }
    // This thread is one of them: asking a pool from outside costs two trips through the kernel for
    // every operation. It can only fail if the pool exists already, and then its threads are as good.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread();
    let _ = pool.build_global();
    Ok(rayon::current_num_threads())
}
