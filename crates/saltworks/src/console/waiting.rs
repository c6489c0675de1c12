//! Signs of life of work that cannot be counted.

use super::{note, time_text};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Between two lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Work whose end is not known.
pub struct Waiting {
    what: String,
    begun: Instant,
    line: Mutex<Instant>,
}

impl Waiting {
    /// Begins it; `what` is what the lines say.
    pub fn new(what: String) -> Self {
        let now = Instant::now();
        Self { what, begun: now, line: Mutex::new(now) }
    }

    /// Says every ten seconds that the work goes on; called from any thread, as often as may be.
    pub fn tick(&self) {
        // A thread that finds it locked has nothing to add.
        let Ok(mut line) = self.line.try_lock() else { return };
        if line.elapsed() >= LINE_EVERY {
            *line = Instant::now();
            note(&format!("{}, {} so far", self.what, time_text(self.begun.elapsed())));
        }
    }
}
