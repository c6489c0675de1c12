//! Where images come from: one trait, and what kind of source a path is.

use std::path::Path;
use std::sync::Arc;

use super::{Background, Error, Folder, Idx, Pixels, Result, builtin, idx};

/// A numbered set of images that any thread may read.
pub trait Source: Send + Sync {
    /// How many images.
    fn len(&self) -> usize;

    /// Whether there is none; an opened source has at least one.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The image `index` < `len()`, decoded.
    fn read(&self, index: usize) -> Result<Sample>;

    /// Size and storage of the image `index`, without decoding it where its format allows.
    fn info(&self, index: usize) -> Result<Info> {
        let Pixels { height, width, channels, data } = self.read(index)?.image;
        Ok(Info { height, width, channels, bytes: data.len() as u64 })
    }

    /// The class of the image `index`, -1 without one; does not read the image.
    fn label(&self, index: usize) -> i32;

    /// Names of the classes 0, 1, ...; empty without labels.
    fn classes(&self) -> &[String];

    /// What and how many, for people.
    fn describe(&self) -> String;
}

/// An image's size and storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// H, after the orientation
    pub height: usize,
    /// W
    pub width: usize,
    /// C, 1 or 3 as decoded.
    pub channels: usize,
    /// Bytes it takes as stored.
    pub bytes: u64,
}

/// One image and what is known of it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The image as decoded.
    pub image: Pixels,
    /// Its class, -1 without one.
    pub label: i32,
    /// Its file, or its number in its file.
    pub name: String,
}

/// Transparent images show `background`. Opens `builtin:fashion-mnist`, a folder of images, an IDX file of images, or a folder of one.
pub fn open(path: &Path, background: Background) -> Result<Arc<dyn Source>> {
    if let Some(name) = path.to_str().and_then(|path| path.strip_prefix("builtin:")) {
        return builtin(name);
    }
    let metadata = std::fs::metadata(path).map_err(|error| Error::read(path, error))?;
    if metadata.is_file() {
        return open_file(path);
    }
    match idx::image_files_in(path)?.as_slice() {
        [] => Ok(Arc::new(Folder::open(path, background)?)),
        [images] => Ok(Arc::new(Idx::open(images)?)),
        [first, second, ..] => {
            let name = |file: &Path| file.file_name().map(|n| n.to_string_lossy().into_owned());
            let names = [first, second].map(|file| name(file).unwrap_or_default());
            let [first, second] = &names;
            let problem = format!(
                "holds several IDX files of images ({first}, {second}), expected one. Set data.path \
                 to one of the files"
            );
            Err(Error::file(path, problem))
        }
    }
}

fn builtin(name: &str) -> Result<Arc<dyn Source>> {
    match name {
        "fashion-mnist" => Ok(Arc::new(builtin::fashion_mnist()?)),
        other => Err(Error::setting("path", &format!("builtin:{other}"), "builtin:fashion-mnist")),
    }
}

fn open_file(path: &Path) -> Result<Arc<dyn Source>> {
    if idx::is_image_file(path) {
        return Ok(Arc::new(Idx::open(path)?));
    }
    let problem = "is a file, expected a folder of images or an IDX file named *-idx3-ubyte or \
                   *-idx3-ubyte.gz. Set data.path to the folder";
    Err(Error::file(path, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_path_says_where_to_look() {
        let message = open(Path::new("no/such"), [0; 3]).err().unwrap().to_string();
        assert!(message.starts_with("no/such: no such file or folder. Check data.path"));
        let message = open(Path::new("builtin:mnist"), [0; 3]).err().unwrap().to_string();
        assert_eq!(message, "data: path is builtin:mnist, expected builtin:fashion-mnist");
    }

    #[test]
    fn a_file_of_no_known_kind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("photo.tif");
        std::fs::File::create(&file).unwrap();
        assert!(
            open(&file, [0; 3]).err().unwrap().to_string().contains("is a file, expected a folder")
        );
    }

    #[test]
    fn the_built_in_source_opens_by_name() {
        let source = open(Path::new("builtin:fashion-mnist"), [0; 3]).unwrap();
        assert_eq!((source.len(), source.classes().len()), (10_000, 10));
    }
}
