//! Signals that stop a run.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Set by SIGINT (Ctrl-C), SIGTERM (shutdown or preemption), SIGUSR1 and SIGUSR2 (Slurm's warnings,
/// as Lightning and submitit use them). SIGHUP (a closed terminal or ssh session) also sets it,
/// unless the process was started with nohup.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicUsize>);

impl Stop {
    /// Starts to listen. Only a second Ctrl-C ends the process at once. Schedulers send the other
    /// signals more than once, and the checkpoint that they request takes time.
    pub fn listen() -> io::Result<Self> {
        let stop = Self::default();
        let interrupted = Arc::new(AtomicBool::new(false));
        let code = 128 + SIGINT;
        signal_hook::flag::register_conditional_shutdown(SIGINT, code, interrupted.clone())?;
        signal_hook::flag::register(SIGINT, interrupted)?;
        let hangup = (!is_ignored(SIGHUP)).then_some(SIGHUP);
        for signal in [SIGINT, SIGTERM, SIGUSR1, SIGUSR2].into_iter().chain(hangup) {
            signal_hook::flag::register_usize(signal, stop.0.clone(), signal as usize)?;
        }
        Ok(stop)
    }

    /// Acts as if this signal had arrived. It is for callers that are stopped in another way.
    pub fn ask(&self, signal: i32) {
        self.0.store(signal as usize, Ordering::Relaxed);
    }

    /// The last signal that arrived, if any.
    pub fn signal(&self) -> Option<i32> {
        let signal = self.0.load(Ordering::Relaxed);
        (signal != 0).then_some(signal as i32)
    }
}

/// Whether this process was started with a signal ignored. Only Linux reports this without system
/// calls that Rust does not have. On other systems a signal counts as ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_none_or(|set| set >> (signal - 1) & 1 == 1)
}
