//! What can be wrong with data: always the file or the setting, what was found, and what to do.

use std::io;
use std::path::{Path, PathBuf};

/// What the data room answers.
pub type Result<T> = std::result::Result<T, Error>;

/// Why there are no images.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing lies at the path.
    #[error(
        "{}: no such file or folder. Check data.path; a relative path starts at the folder \
         the command runs in", .path.display()
    )]
    Missing {
        /// The path asked for.
        path: PathBuf,
    },
    /// The system refused to read.
    #[error("{}: cannot be read: {source}", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A folder without images.
    #[error(
        "{}: 0 images: looked for .png .jpg .jpeg .webp .bmp .tif .tiff in it and its sub-folders, \
         found {found}. {advice}", .path.display()
    )]
    NoImages {
        /// The folder.
        path: PathBuf,
        /// The files it holds instead.
        found: String,
        /// What to do.
        advice: String,
    },
    /// An image that cannot be decoded.
    #[error("{name}: {problem}. Replace or remove the file")]
    Image {
        /// The image's file.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A file that is not what its name or header says.
    #[error("{}: {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A setting that cannot be met.
    #[error("data.{name} is {found}, expected {expected}")]
    Setting {
        /// The setting's name in the recipe.
        name: &'static str,
        /// Its value.
        found: String,
        /// What would do.
        expected: String,
    },
    /// Too many images that cannot be read.
    #[error(
        "{unreadable} of {images} images cannot be read, expected at most {most}: \
         data.max_unreadable \
         is {share}. The first:{first}\n`saltworks inspect --decode PATH` lists them all; mend or \
         remove \
         them, or raise data.max_unreadable", most = (share * *images as f64).ceil()
    )]
    TooManyUnreadable {
        /// So many.
        unreadable: usize,
        /// Of so many.
        images: usize,
        /// The share allowed.
        share: f64,
        /// What is wrong with some of them, a line end before each.
        first: String,
    },
    /// A loader thread ended by a panic; its message is above.
    #[error("a loader thread stopped by an internal error; please report the message above")]
    Worker,
}

impl Error {
    /// Whether a store did not answer, or not with the object it had before. That is no fault of
    /// the image, so no other may replace it.
    pub fn is_of_store(&self) -> bool {
        matches!(self, Self::Read { source, .. } if super::store::object::is_of_store(source))
    }

    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path: path.into() },
            _ => Self::Read { path: path.into(), source },
        }
    }

    pub(super) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File { path: path.into(), problem: problem.into() }
    }

    pub(super) fn setting(
        name: &'static str,
        found: &dyn std::fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Self::Setting { name, found: found.to_string(), expected: expected.into() }
    }
}
