//! Progress of work that is counted: a bar on a terminal, plain lines elsewhere.

use super::{note, time_text};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of work of known length.
pub struct Count {
    total: usize,
    done: usize,
    bar: Option<ProgressBar>,
    begun: Instant,
    line: Instant,
}

impl Count {
    /// Work on `total` images.
    pub fn new(total: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total as u64);
            let style = "{bar:30} {pos}/{len} images  {per_sec}  {eta} left";
            // A fixed template of known keys.
            bar.set_style(ProgressStyle::with_template(style).expect("a valid template"));
            bar
        });
        let now = Instant::now();
        Self { total, done: 0, bar, begun: now, line: now }
    }

    /// Adds `more` images to those done.
    pub fn add(&mut self, more: usize) {
        self.done(self.done + more);
    }

    /// Sets the number of images done.
    pub fn done(&mut self, done: usize) {
        self.done = done;
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
        } else if self.line.elapsed() >= LINE_EVERY {
            self.line = Instant::now();
            let (total, rate) = (self.total, done as f64 / self.begun.elapsed().as_secs_f64());
            let left = total.saturating_sub(done) as f64 / rate;
            let left = time_text(Duration::try_from_secs_f64(left).unwrap_or(Duration::MAX));
            note(&format!("{done}/{total} images  {rate:.0} images/s  {left} left"));
        }
    }

    /// Removes the bar.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}
