//! Generates reports from a run's log while it trains: report.html, and files for other programs.

use crate::console::note;
use crate::loggers::{FileMode, TensorBoard, Wandb};
use crate::recipe::Log;
use crate::report::{RunReader, html};
use crate::run_files::names::{REPORT, TENSORBOARD, WANDB};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The least time between two reports.
const LEAST: Duration = Duration::from_secs(10);
/// Reports may take this share of the time, since training waits for them. They are written at
/// least every `MOST`, so that readers see whether the run is alive.
const SHARE: f64 = 0.002;
const MOST: Duration = Duration::from_secs(300);

/// Keeps the reports of one run.
pub(crate) struct Reporter {
    folder: PathBuf,
    html: Option<RunReader>,
    tensorboard: Option<TensorBoard>,
    wandb: Option<Wandb>,
    /// When the next reports are due, and the pause before them.
    due: Instant,
    pause: Duration,
    /// Reports that could not be written. Each is noted once.
    failed: BTreeSet<&'static str>,
}

impl Reporter {
    /// The reporter of the run in a folder. None if the recipe requests no reports.
    pub(crate) fn new(folder: &Path, log: &Log) -> Option<Self> {
        let Log { report, tensorboard, wandb, .. } = *log;
        let any = report || tensorboard || wandb;
        any.then(|| Self {
            folder: folder.into(),
            html: report.then(|| RunReader::new(folder)),
            tensorboard: tensorboard
                .then(|| TensorBoard::new(folder, &folder.join(TENSORBOARD), FileMode::Append)),
            wandb: wandb.then(|| Wandb::new(folder, &folder.join(WANDB))),
            due: Instant::now() + LEAST,
            pause: LEAST,
            failed: BTreeSet::new(),
        })
    }

    /// The report's file, if one could be written.
    pub(crate) fn page(&self) -> Option<PathBuf> {
        let made = self.html.is_some() && !self.failed.contains(REPORT);
        made.then(|| self.folder.join(REPORT))
    }

    /// Writes the reports if they are due.
    pub(crate) fn refresh(&mut self) {
        if Instant::now() >= self.due {
            self.write(None);
        }
    }

    /// Writes the reports now; `status` is the status that the run is about to have. A failure does
    /// not stop training: reports can be generated from the run's other files at any time.
    pub(crate) fn write(&mut self, status: Option<&'static str>) {
        let begun = Instant::now();
        let all = [
            (REPORT, "report", self.html(status)),
            (TENSORBOARD, "log --to tensorboard", self.tensorboard(status)),
            (WANDB, "log --to wandb", self.wandb(status)),
        ];
        for (name, verb, written) in all {
            if let Err(error) = written
                && self.failed.insert(name)
            {
                let path = self.folder.join(name);
                let path = path.display();
                note(&format!(
                    "cannot write {path}: {error}. `saltworks {verb}` can write it later"
                ));
            }
        }
        self.pause = LEAST.max(begun.elapsed().div_f64(SHARE)).min(MOST);
        self.due = Instant::now() + self.pause;
    }

    fn html(&mut self, status: Option<&'static str>) -> io::Result<()> {
        let Some(reader) = &mut self.html else { return Ok(()) };
        let mut run = reader.read()?;
        run.status = status.unwrap_or(run.status);
        html::write(&[run], self.pause, &self.folder.join(REPORT))
    }

    fn tensorboard(&mut self, status: Option<&'static str>) -> io::Result<()> {
        match (&mut self.tensorboard, status) {
            (Some(board), Some(_)) => board.finish(),
            (Some(board), None) => board.update(),
            (None, _) => Ok(()),
        }
    }

    fn wandb(&mut self, status: Option<&'static str>) -> io::Result<()> {
        match (&mut self.wandb, status) {
            (Some(wandb), Some(status)) => wandb.finish(status == "finished").map(drop),
            (Some(wandb), None) => wandb.update(),
            (None, _) => Ok(()),
        }
    }
}
