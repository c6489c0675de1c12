//! Progress of work that is counted: a bar on a terminal, a line now and then elsewhere.

use super::note;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Work of known length.
pub struct Count {
    total: usize,
    done: usize,
    bar: Option<ProgressBar>,
    line: Instant,
}

impl Count {
    /// Of `total` images.
    pub fn new(total: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total as u64);
            let style = "{bar:30} {pos}/{len} images  {eta} left";
            // A fixed template of known keys.
            bar.set_style(ProgressStyle::with_template(style).expect("a valid template"));
            bar
        });
        Self { total, done: 0, bar, line: Instant::now() }
    }

    /// So many more are done.
    pub fn add(&mut self, more: usize) {
        self.done(self.done + more);
    }

    /// So many are done.
    pub fn done(&mut self, done: usize) {
        self.done = done;
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
        } else if self.line.elapsed() >= LINE_EVERY {
            self.line = Instant::now();
            note(&format!("{done}/{} images", self.total));
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
