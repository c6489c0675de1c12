//! Why a command or a run did not finish.

use crate::files::expect_replaceable;
use crate::train::Stop;
use std::path::Path;

/// Why a command did not finish.
pub enum Failure {
    /// The input cannot be used, e.g. an option or an image. The user must correct it.
    Input(Box<dyn std::error::Error>),
    /// The run failed.
    Run(Box<dyn std::error::Error>),
    /// Stopped by a signal, or by the caller.
    Interrupted {
        /// The signal's number, or 0 if the caller stopped it.
        signal: i32,
        /// When it stopped, and how to resume.
        text: String,
    },
}

/// For `map_err`: an error of the input.
pub(crate) fn input_error(error: impl Into<Box<dyn std::error::Error>>) -> Failure {
    Failure::Input(error.into())
}

/// For `map_err`: an error of the run.
pub(crate) fn run_error(error: impl Into<Box<dyn std::error::Error>>) -> Failure {
    Failure::Run(error.into())
}

/// Refuses an output in a missing folder, or in place of a device, before hours of work for it.
pub(crate) fn expect_output(file: &Path) -> Result<(), Failure> {
    expect_replaceable(file).map_err(|error| {
        input_error(format!("cannot write {}: {error}. Choose another file", file.display()))
    })?;
    match file.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
        Some(parent) => Err(input_error(format!(
            "{}: there is no folder {}. Create it, or choose another folder",
            file.display(),
            parent.display()
        ))),
        None => Ok(()),
    }
}

/// For `map_err` while images are loaded. The user must correct an image that cannot be read. A
/// store that does not answer fails the run, which may be resumed later.
pub(crate) fn loading(error: crate::data::Error) -> Failure {
    if error.is_of_store() { run_error(error) } else { input_error(error) }
}

/// The failure of a run in `folder` that a signal stopped. `when` says at which point.
pub(crate) fn interrupted(stop: &Stop, when: &str, folder: &Path) -> Failure {
    let out = folder.display();
    let text = format!("interrupted {when}; `saltworks pretrain --resume --out {out}` resumes it");
    // Only a signal stops a run there.
    Failure::Interrupted { signal: stop.signal().unwrap_or(0), text }
}

/// "1 thread", "2 threads".
pub(crate) fn count_threads(threads: usize) -> String {
    if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") }
}

/// Uses this many threads for all computation. 0 means one per core. Returns how many there are.
pub(crate) fn use_threads(threads: usize) -> Result<usize, Failure> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // More threads than cores only cost time. With many more, a run seems to hang.
    let most = 8 * cores;
    if threads > most {
        return Err(input_error(format!(
            "threads is {threads}, expected at most {most}, eight per core here. 0 means one per \
             core"
        )));
    }
    // This thread is part of the pool. Calling a pool from outside costs two trips through the
    // kernel for every operation. `build_global` can only fail if a pool exists already, and then
    // that pool is used.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread();
    let _ = pool.build_global();
    Ok(rayon::current_num_threads())
}
