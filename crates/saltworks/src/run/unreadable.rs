//! Images of a run that could not be read: each is reported once and listed in unreadable.txt.

use super::folder::write_error;
use crate::console::note;
use crate::data::Unreadable;
use crate::failure::{Failure, run_error};
use crate::files::{read_regular, write_whole};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// The most images that are reported. The list holds all of them.
const MOST_REPORTED: usize = 10;

/// The largest list that is read.
const MOST_BYTES: u64 = 64 << 20;

/// The problems of these images, each with the image's name.
pub(crate) struct UnreadableImages {
    path: PathBuf,
    problems: BTreeSet<String>,
}

impl UnreadableImages {
    /// Continues the list at `path`, if there is one.
    pub(crate) fn open(path: PathBuf) -> Self {
        // Only people read this list. If it cannot be read, a new one is started.
        let text = read_regular(&path, MOST_BYTES).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        Self { problems: text.lines().map(str::to_owned).collect(), path }
    }

    /// Adds images that are not in the list yet.
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

    /// Reports how many there were, if any.
    pub(crate) fn summarize(&self) {
        if !self.problems.is_empty() {
            let (count, path) = (self.problems.len(), self.path.display());
            let what = match count {
                1 => "1 image could not be read and was replaced by another".to_owned(),
                _ => format!("{count} images could not be read and were replaced by others"),
            };
            note(&format!("{what}: {path}"));
        }
    }
}
