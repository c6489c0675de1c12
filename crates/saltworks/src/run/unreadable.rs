//! Images of a run that could not be read: each is reported once and listed in unreadable.txt.

use super::folder::write_error;
use crate::console::note;
use crate::data::Unreadable;
use crate::failure::{Failure, run_error};
use crate::files::write_whole;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// So many are reported; the list has all.
const MOST_REPORTED: usize = 10;

/// What is wrong with each, by name.
pub(crate) struct UnreadableImages {
    path: PathBuf,
    problems: BTreeSet<String>,
}

impl UnreadableImages {
    /// Goes on with the list at `path`, if there is one.
    pub(crate) fn open(path: PathBuf) -> Self {
        // Only a list for people: one that cannot be read is started again.
        let text = fs::read_to_string(&path).unwrap_or_default();
        Self { path, problems: text.lines().map(str::to_owned).collect() }
    }

    /// Adds those that are new.
    pub(crate) fn add(&mut self, images: &[Unreadable]) -> Result<(), Failure> {
        let before = self.problems.len();
        for image in images {
            if self.problems.insert(image.problem.replace('\n', " ")) {
                match self.problems.len() {
                    ..=MOST_REPORTED => note(&format!("left out: {}", image.problem)),
                    met if met == MOST_REPORTED + 1 => {
                        note("more are left out: see unreadable.txt")
                    }
                    _ => {}
                }
            }
        }
        if self.problems.len() == before {
            return Ok(());
        }
        let text: String = self.problems.iter().map(|problem| format!("{problem}\n")).collect();
        let written = write_whole(&self.path, text.as_bytes());
        written.map_err(|error| run_error(write_error(&self.path, &error)))
    }

    /// Says how many there were, if any.
    pub(crate) fn summarize(&self) {
        if !self.problems.is_empty() {
            let (count, path) = (self.problems.len(), self.path.display());
            note(&format!("{count} images could not be read; others stood in for them: {path}"));
        }
    }
}
