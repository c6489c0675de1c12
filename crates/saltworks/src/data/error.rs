//! Errors in the data. Each names the file or the setting, what was found, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use super::NumberKind;
use crate::range::Range;

/// The result of functions of the data room.
pub type Result<T> = std::result::Result<T, Error>;

/// Why images cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path does not exist.
    #[error(
        "{}: no such file or folder. Check data.path; a relative path starts at the folder \
         the command runs in", .path.display()
    )]
    Missing {
        /// The requested path.
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
        "{}: 0 images: looked for .{} in it and its sub-folders, found {found}. {advice}",
        .path.display(), super::source::EXTENSIONS.join(" .")
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
    /// A JPEG without its end.
    #[error(
        "{name}: JPEG is cut off after {bytes} bytes, before its end marker. Fetch it again, \
         remove it, or keep such images with data.cut_images = \"keep\": their missing parts are \
         grey"
    )]
    CutJpeg {
        /// The image's file.
        name: String,
        /// Its length.
        bytes: usize,
    },
    /// Numbers for which no range is known.
    #[error(
        "{name}: holds {kind} from {} to {}, and nothing says which of them are black and white. \
         Set data.depth = [black, white], such as {found} (--depth of probe and embed)",
        .found.min, .found.max
    )]
    Depth {
        /// The image.
        name: String,
        /// How its numbers are stored.
        kind: NumberKind,
        /// The least and the greatest of them.
        found: Range,
    },
    /// Bands that are neither grey nor colours, and not what the model reads.
    #[error(
        "{name}: has {found} bands, and data.channels is {wanted}. Set data.channels = {found}, \
         or write the image with {wanted} of its bands"
    )]
    Bands {
        /// The image.
        name: String,
        /// Its bands.
        found: usize,
        /// The model's channels.
        wanted: usize,
    },
    /// An image that needs too much memory.
    #[error(
        "{name}: needs more than {most_mib} MiB of memory to decode. Resize it once, or remove it"
    )]
    TooLarge {
        /// The image's file.
        name: String,
        /// The most that an image may take.
        most_mib: u64,
    },
    /// A file that is not what its name or header says.
    #[error("{}: {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A setting with an unusable value.
    #[error("data.{name} is {found}, expected {expected}")]
    Setting {
        /// The setting's name in the recipe.
        name: &'static str,
        /// Its value.
        found: String,
        /// Which values are allowed.
        expected: String,
    },
    /// Too many images that cannot be read.
    #[error(
        "{unreadable} of {images} images cannot be read, expected at most {most}: \
         data.max_unreadable is {share}. The first:{first}\n`saltworks inspect --decode PATH` \
         lists them all. Fix or remove them, or raise data.max_unreadable",
        most = (share * *images as f64).ceil()
    )]
    TooManyUnreadable {
        /// The number of unreadable images.
        unreadable: usize,
        /// The number of all images.
        images: usize,
        /// The allowed share.
        share: f64,
        /// What is wrong with the first of them, each after a line break.
        first: String,
    },
    /// A loader thread ended by a panic. Its message was printed before.
    #[error("a loader thread stopped by an internal error; please report the message above")]
    Worker,
}

impl Error {
    /// Whether a store did not answer, or returned a different object than before. The image is not
    /// at fault, so no other image may replace it.
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
