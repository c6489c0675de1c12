//! The files of a source that reads several of one kind.

use std::path::{Path, PathBuf};

use crate::data::store::object;

/// Files, and the path that the user gave for them.
pub(super) struct FileSet {
    path: PathBuf,
    files: Vec<PathBuf>,
    /// What a file is, such as `tar archive`.
    kind: &'static str,
}

impl FileSet {
    pub(super) fn new(path: &Path, files: &[PathBuf], kind: &'static str) -> Self {
        Self { path: path.into(), files: files.into(), kind }
    }

    /// The path of file number `file`.
    pub(super) fn path_of(&self, file: usize) -> &Path {
        &self.files[file]
    }

    /// See [`crate::data::Source::files`].
    pub(super) fn files(&self) -> Vec<&Path> {
        self.files.iter().map(PathBuf::as_path).collect()
    }

    /// See [`crate::data::Source::requests`].
    pub(super) fn requests(&self) -> usize {
        object::requests(&self.path)
    }

    /// See [`crate::data::Source::describe`].
    pub(super) fn describe(&self, images: usize, classes: &[String]) -> String {
        let (path, kind) = (self.path.display(), self.kind);
        let files = match self.files.len() {
            1 => format!("a {kind}"),
            n => format!("{n} {kind}s"),
        };
        format!("{path}: {images} images in {files}, {}", super::classes(classes))
    }
}
