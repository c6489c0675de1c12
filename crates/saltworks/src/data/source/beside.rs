//! What is beside files that each hold many images.

use super::kind::{files_in, folders_in};
use super::{image_file, kinds_of_files};
use crate::data::Result;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// What is not read in the folder of packed images.
pub(super) struct FilesBeside<'a> {
    /// The folder that the user gave.
    pub(super) given: &'a Path,
    /// The folder that is read: `given`, or the folder of training images inside.
    pub(super) read: &'a Path,
    /// The files that are read, or told of elsewhere.
    pub(super) known: HashSet<PathBuf>,
}

impl FilesBeside<'_> {
    /// The files beside those, which are called `packed`, and the folders beside `read`, for
    /// people. Links to folders are not followed.
    pub(super) fn told(&self, packed: &str) -> Result<Vec<String>> {
        let mut told = Vec::new();
        let mut found = FoundFiles::default();
        found.walk(self.read, &self.known)?;
        if self.read != self.given {
            for folder in folders_in(self.given)?.iter().filter(|folder| *folder != self.read) {
                let mut inside = FoundFiles::default();
                inside.walk(folder, &self.known)?;
                let files = inside.all();
                told.push(format!(
                    "the folder {} ({files}), named as validation or test images",
                    folder.display()
                ));
            }
            found.add(files_in(self.given)?, &self.known);
        }
        if found.images > 0 {
            let images = found.images;
            told.push(format!("{images} images beside the {packed}: give a path to their folder"));
        }
        if !found.others.is_empty() {
            told.push(format!("files of other kinds: {}", found.kinds()));
        }
        Ok(told)
    }
}

/// Numbers of files.
#[derive(Default)]
struct FoundFiles {
    images: usize,
    /// By extension.
    others: BTreeMap<String, usize>,
}

impl FoundFiles {
    /// Adds the files below a folder, at any depth.
    fn walk(&mut self, folder: &Path, known: &HashSet<PathBuf>) -> Result<()> {
        self.add(files_in(folder)?, known);
        folders_in(folder)?.iter().try_for_each(|folder| self.walk(folder, known))
    }

    fn add(&mut self, files: Vec<PathBuf>, known: &HashSet<PathBuf>) {
        for file in files.into_iter().filter(|file| !known.contains(file)) {
            match image_file::is_image(&file) {
                true => self.images += 1,
                false => *self.others.entry(image_file::extension(&file)).or_default() += 1,
            }
        }
    }

    fn kinds(&self) -> String {
        kinds_of_files(self.others.iter().collect())
    }

    /// All of them, for people.
    fn all(&self) -> String {
        match (self.images, self.others.is_empty()) {
            (0, true) => "no files".to_owned(),
            (0, false) => self.kinds(),
            (images, true) => format!("{images} images"),
            (images, false) => format!("{images} images, {}", self.kinds()),
        }
    }
}
