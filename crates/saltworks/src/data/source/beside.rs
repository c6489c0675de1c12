//! What is beside files that each hold many images.

use super::kind::folders_in;
use super::{image_file, kinds_of_files, several};
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
    pub(super) fn told(&self, packed: &str) -> Vec<String> {
        let mut told = Vec::new();
        let mut found = FoundFiles::default();
        found.look(self.read, &self.known, true);
        if self.read != self.given {
            found.look(self.given, &self.known, false);
            // If the folder cannot be read, nothing else can.
            for folder in folders_in(self.given).unwrap_or_default() {
                if folder != self.read {
                    let mut inside = FoundFiles::default();
                    inside.look(&folder, &self.known, true);
                    let (folder, files) = (folder.display(), inside.all());
                    told.push(format!(
                        "the folder {folder} ({files}), named as validation or test images"
                    ));
                    found.closed.append(&mut inside.closed);
                }
            }
        }
        if found.images > 0 {
            let images = images(found.images);
            told.push(format!("{images} beside the {packed}: to read them, move them elsewhere"));
        }
        if !found.others.is_empty() {
            told.push(format!("files of other kinds: {}", found.kinds()));
        }
        for (what, count) in [
            ("hidden files and folders", found.hidden),
            ("links to folders", found.links),
            ("links to nothing", found.broken),
        ] {
            if count > 0 {
                told.push(format!("{what}: {count}"));
            }
        }
        if !found.closed.is_empty() {
            told.push(format!("folders that cannot be opened: {}", several(&found.closed)));
        }
        told
    }
}

/// Numbers of files.
#[derive(Default)]
struct FoundFiles {
    images: usize,
    /// By extension.
    others: BTreeMap<String, usize>,
    hidden: usize,
    links: usize,
    broken: usize,
    /// Folders that cannot be opened.
    closed: Vec<String>,
}

impl FoundFiles {
    /// Adds the files in a folder, at any depth if it is looked at `deep`.
    fn look(&mut self, folder: &Path, known: &HashSet<PathBuf>, deep: bool) {
        let Ok(entries) = std::fs::read_dir(folder) else {
            self.closed.push(folder.display().to_string());
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let kind = entry.file_type();
            let is_link = kind.as_ref().is_ok_and(|kind| kind.is_symlink());
            if entry.file_name().to_string_lossy().starts_with('.') {
                self.hidden += 1;
            } else if kind.is_ok_and(|kind| kind.is_dir()) {
                if deep {
                    self.look(&path, known, deep);
                }
            } else if is_link && path.is_dir() {
                self.links += 1;
            } else if is_link && !path.exists() {
                self.broken += 1;
            } else if !known.contains(&path) {
                self.add(&path);
            }
        }
    }

    fn add(&mut self, file: &Path) {
        match image_file::is_image(file) {
            true => self.images += 1,
            false => *self.others.entry(image_file::extension(file)).or_default() += 1,
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
            (count, true) => images(count),
            (count, false) => format!("{}, {}", images(count), self.kinds()),
        }
    }
}

fn images(count: usize) -> String {
    if count == 1 { "1 image".to_owned() } else { format!("{count} images") }
}
