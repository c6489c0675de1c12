//! Images that are each in a file of their own.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::data::clip::decode::info;
use crate::data::source::Notes;
use crate::data::{Decoding, Error, Info, RawSample, Result, Sample, Source, Stamp, StoredAs};
use crate::files::open_file;

/// Extensions that are read, in upper or lower case.
pub(in crate::data) const EXTENSIONS: [&str; 13] =
    ["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff", "jfif", "jpe", "ppm", "pgm", "pbm", "pnm"];

/// The most bytes that one image may have.
pub(in crate::data) const MOST_BYTES: u64 = 1 << 30;

/// Whether a file has the extension of an image.
pub(in crate::data) fn is_image(path: &Path) -> bool {
    EXTENSIONS.contains(&extension(path).as_str())
}

/// The extension in lower case, without the dot. Empty if there is none.
pub(in crate::data) fn extension(path: &Path) -> String {
    path.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// Images in an order, each in a file of its own, with the classes of a folder or a list.
#[derive(Debug)]
pub struct ImageFiles {
    pub(in crate::data) path: PathBuf,
    /// What is at the path, as text for people. It ends in a space, or is empty.
    pub(in crate::data) kind: &'static str,
    /// The files with their classes, -1 without one.
    pub(in crate::data) files: Vec<(PathBuf, i32)>,
    pub(in crate::data) classes: Vec<String>,
    pub(in crate::data) decoding: Decoding,
    pub(in crate::data) notes: Notes,
    /// Whether the list also has images to test.
    pub(in crate::data) holds_tests: bool,
}

impl ImageFiles {
    /// The bytes of an image's file.
    fn bytes(&self, index: usize) -> Result<Vec<u8>> {
        let path = &self.files[index].0;
        expect_file(path)?;
        let bytes = read_at_most(path, MOST_BYTES, "Replace or remove the file");
        bytes.map_err(|error| match error {
            Error::Missing { .. } if !self.kind.is_empty() => {
                let list = self.path.display();
                let problem = format!("no such file. Fix or remove its line in {list}");
                Error::file(path, problem)
            }
            Error::Missing { .. } => {
                Error::file(path, "the file no longer exists. It existed when the run began")
            }
            error => error,
        })
    }
}

impl Source for ImageFiles {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn read(&self, index: usize) -> Result<Sample> {
        self.raw(index)?.decode()
    }

    fn raw(&self, index: usize) -> Result<RawSample> {
        let (path, label) = &self.files[index];
        let stored_as = StoredAs::File { bytes: self.bytes(index)?, decoding: self.decoding };
        Ok(RawSample { stored_as, label: *label, name: path.display().to_string() })
    }

    fn info(&self, index: usize) -> Result<Info> {
        let path = &self.files[index].0;
        info(&self.bytes(index)?, &path.display().to_string(), self.decoding)
    }

    fn stamp(&self, index: usize) -> Stamp {
        let path = &self.files[index].0;
        // A missing file has no length. Reading it reports the error.
        let bytes = path.metadata().map_or(0, |metadata| metadata.len());
        Stamp { name: path.display().to_string(), bytes }
    }

    fn label(&self, index: usize) -> i32 {
        self.files[index].1
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn describe(&self) -> String {
        let (path, kind, len) = (self.path.display(), self.kind, self.len());
        format!("{path}: {kind}{len} images, {}", crate::data::source::classes(&self.classes))
    }

    fn files(&self) -> Vec<&Path> {
        self.files.iter().map(|(path, _)| path.as_path()).collect()
    }

    fn stored_bytes(&self, index: usize) -> Option<u64> {
        self.files[index].0.metadata().ok().map(|metadata| metadata.len())
    }

    fn notes(&self) -> Notes {
        self.notes.clone()
    }

    fn holds_tests(&self) -> bool {
        self.holds_tests
    }
}

/// Refuses what is not a file. If a list names a pipe, reading it would never end.
fn expect_file(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            let (name, problem) = (path.display().to_string(), "is not a file".to_owned());
            Err(Error::Image { name, problem })
        }
        // Other errors are reported when the file is read.
        _ => Ok(()),
    }
}

/// Reads a whole file of at most `most` bytes. A longer file is an error with this `advice`.
pub(in crate::data) fn read_at_most(path: &Path, most: u64, advice: &str) -> Result<Vec<u8>> {
    let file = open_file(path).map_err(|error| Error::read(path, error))?;
    let mut bytes = Vec::new();
    // The file's stated size is not used: a device states none and has no end.
    let read = file.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::read(path, error))?;
    if bytes.len() as u64 > most {
        return Err(Error::file(path, format!("is longer than {most} bytes. {advice}")));
    }
    Ok(bytes)
}
