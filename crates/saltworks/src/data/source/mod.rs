//! Sources of images: one trait, and a file for each kind of source.

pub mod builtin;
mod file_set;
mod folder;
mod holdout;
mod idx;
mod image_file;
pub(in crate::data) mod kind;
mod labels;
mod list;
mod mixed;
mod npy;
mod parquet;
mod shards;

pub use holdout::{Holdout, Part, hold_out};
pub use idx::Idx;
pub use image_file::ImageFiles;
pub use kind::{open, validation_folder};
pub use mixed::{Mixed, unite};
pub use npy::Npy;
pub use parquet::Parquet;
pub use shards::Shards;

use super::{Clip, RawSample, Result, Stamp};
use std::path::Path;

/// A numbered set of images that any thread may read.
pub trait Source: Send + Sync {
    /// How many images.
    fn len(&self) -> usize;

    /// Whether it has no images. An opened source has at least one.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The image `index` < `len()`, decoded.
    fn read(&self, index: usize) -> Result<Sample>;

    /// The image `index` as it is stored, so that a part of it can be decoded.
    fn raw(&self, index: usize) -> Result<RawSample> {
        self.read(index).map(RawSample::from)
    }

    /// Size and storage of the image `index`, without decoding it if its format allows.
    fn info(&self, index: usize) -> Result<Info> {
        let Clip { height, width, channels, data, .. } = self.read(index)?.clip;
        Ok(Info { height, width, channels, bytes: data.len() as u64, alpha: false })
    }

    /// Name and length of the image `index`. Does not read the image.
    fn stamp(&self, index: usize) -> Stamp {
        Stamp { name: format!("image {index}"), bytes: 0 }
    }

    /// The class of the image `index`, -1 without one. Does not read the image.
    fn label(&self, index: usize) -> i32;

    /// Names of the classes 0, 1, ...; empty without labels.
    fn classes(&self) -> &[String];

    /// How many images to request at once. More than one if each takes long to arrive.
    fn requests(&self) -> usize {
        1
    }

    /// A description for people: what the source holds, and how many images.
    fn describe(&self) -> String;

    /// The files that it reads, if any.
    fn files(&self) -> Vec<&Path> {
        Vec::new()
    }

    /// A description for people of what is at the path but is not read. Empty if there is nothing.
    fn left_alone(&self) -> String {
        String::new()
    }
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
    /// Whether it is stored with transparency.
    pub alpha: bool,
}

/// One image or clip, its class and its name.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The image as decoded.
    pub clip: Clip,
    /// Its class, -1 without one.
    pub label: i32,
    /// Its file, or its number in its file.
    pub name: String,
}

/// The number of classes, as text for people.
pub(in crate::data) fn classes(classes: &[String]) -> String {
    match classes.len() {
        0 => "no labels".to_owned(),
        1 => "1 class".to_owned(),
        n => format!("{n} classes"),
    }
}
