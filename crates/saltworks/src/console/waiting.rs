//! Progress of work that cannot be counted.

use super::{note, time_text};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Work of unknown length.
pub struct Waiting {
    what: String,
    begun: Instant,
    line: Mutex<Instant>,
}

impl Waiting {
    /// Begins the work. `what` begins each line.
    pub fn new(what: String) -> Self {
        let now = Instant::now();
        Self { what, begun: now, line: Mutex::new(now) }
    }

    /// Shows every ten seconds that the work continues. Any thread may call it, at any rate.
    pub fn tick(&self) {
        // If it is locked, another thread is showing the line.
        let Ok(mut line) = self.line.try_lock() else { return };
        if line.elapsed() >= LINE_EVERY {
            *line = Instant::now();
            note(&format!("{}, {} so far", self.what, time_text(self.begun.elapsed())));
        }
    }
}
