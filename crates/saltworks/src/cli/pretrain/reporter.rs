//! report.html of a run, made again while it trains.

use crate::report::{RunReader, html, note};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time between two reports, at least.
const LEAST: Duration = Duration::from_secs(10);
/// A report may take this share of the time: it is made on the training path.
const SHARE: f64 = 0.002;

/// Keeps the report of one run.
pub(super) struct Reporter {
    reader: RunReader,
    path: PathBuf,
    /// When the next one is due.
    due: Instant,
    /// Whether it was told that one cannot be written.
    told: bool,
}

impl Reporter {
    /// Of the run in a folder.
    pub(super) fn new(folder: &Path, name: &str) -> Self {
        let (reader, path) = (RunReader::new(folder), folder.join(name));
        Self { reader, path, due: Instant::now() + LEAST, told: false }
    }

    /// Makes the report where that is due.
    pub(super) fn refresh(&mut self) {
        if Instant::now() >= self.due {
            self.write(None);
        }
    }

    /// Makes the report now; `status` is what the run will be in a moment. One that cannot be written ends
    /// no training: it can be made from the run's other files at any time.
    pub(super) fn write(&mut self, status: Option<&'static str>) {
        let begun = Instant::now();
        let written = self.reader.read().and_then(|mut run| {
            run.status = status.unwrap_or(run.status);
            html::write(&[run], &self.path)
        });
        if let Err(error) = written
            && !self.told
        {
            self.told = true;
            note(&format!(
                "cannot write {}: {error}. `saltworks report` makes it later",
                self.path.display()
            ));
        }
        self.due = Instant::now() + LEAST.max(begun.elapsed().div_f64(SHARE));
    }
}
