//! Sources of images: one trait, and a file for each kind of source.

mod beside;
pub mod builtin;
mod copies;
mod file_set;
mod folder;
mod holdout;
mod idx;
mod image_file;
pub(in crate::data) mod kind;
mod labels;
mod layout;
mod list;
mod mixed;
mod moving;
mod npy;
mod parquet;
mod part_column;
mod parts;
mod shards;

pub use copies::{Copies, copies_among, copies_between};
pub use holdout::{Holdout, Part, Split, hold_out, hold_out_of};
pub use idx::Idx;
pub(in crate::data) use image_file::EXTENSIONS;
pub use image_file::ImageFiles;
pub use kind::{OpenOptions, open};
pub use mixed::{Mixed, unite};
use moving::MovingFashion;
pub use npy::Npy;
pub use parquet::Parquet;
pub use parts::{TestsBeside, tests_beside};
pub use shards::Shards;

use super::{Clip, RawSample, Result, Stamp};
use std::path::Path;
use std::sync::Arc;

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
        let bytes = data.len() as u64;
        Ok(Info { height, width, channels, bytes, ..Info::ONE })
    }

    /// Name and length of the image `index`. Does not read the image.
    fn stamp(&self, index: usize) -> Stamp {
        Stamp { name: format!("image {index}"), bytes: 0 }
    }

    /// The class of the image `index`, -1 without one. Does not read the image.
    fn label(&self, index: usize) -> i32;

    /// Names of the classes 0, 1, ...; empty without labels.
    fn classes(&self) -> &[String];

    /// The names of its sets of labels. [`Source::label`] gives those of one of them, at first the
    /// first. Empty if it has one at most.
    fn label_sets(&self) -> Vec<String> {
        Vec::new()
    }

    /// The same images in the same order, with the labels of the set of this name.
    fn labelled_by(&self, _set: &str) -> Option<Arc<dyn Source>> {
        None
    }

    /// The frames of its shortest and of its longest clip. An image has one.
    fn frames(&self) -> [usize; 2] {
        [1, 1]
    }

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

    /// Bytes of the image `index` as stored, without reading it. None if it is not stored as an
    /// image file of its own.
    fn stored_bytes(&self, _index: usize) -> Option<u64> {
        None
    }

    /// Whether its file also has images to test, which it does not read.
    fn holds_tests(&self) -> bool {
        false
    }

    /// The column that the images are in. None if they are in no table.
    fn column(&self) -> Option<&str> {
        None
    }

    /// What people should know besides the description.
    fn notes(&self) -> Notes {
        Notes::default()
    }
}

/// What people should know of a source besides its description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// What is at the path but is not read.
    pub left_alone: Vec<String>,
    /// How it is read, if that is not obvious.
    pub remarks: Vec<String>,
}

impl Notes {
    /// Adds those of another source.
    pub(in crate::data) fn append(&mut self, mut other: Self) {
        self.left_alone.append(&mut other.left_alone);
        self.remarks.append(&mut other.remarks);
    }
}

/// An image's size and storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// H, after the orientation
    pub height: usize,
    /// W
    pub width: usize,
    /// C as decoded.
    pub channels: usize,
    /// Bytes it takes as stored.
    pub bytes: u64,
    /// Whether it is stored with transparency.
    pub alpha: bool,
    /// Whether its numbers are no unsigned bytes, so that `data.depth` counts.
    pub is_deep: bool,
    /// Whether it is a JPEG without its end, which is kept.
    pub is_cut: bool,
    /// Pictures in its file, of which it is the first.
    pub frames: usize,
}

impl Info {
    /// An image that has nothing unusual, and no size.
    pub(in crate::data) const ONE: Self = Self {
        height: 0,
        width: 0,
        channels: 0,
        bytes: 0,
        alpha: false,
        is_deep: false,
        is_cut: false,
        frames: 1,
    };
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

/// Kinds of files that are named with their numbers. (guess)
const MOST_KINDS: usize = 12;

/// Files by their extensions with their numbers, the most frequent first, for people.
pub(in crate::data) fn kinds_of_files(mut counts: Vec<(&String, &usize)>) -> String {
    counts.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let count = |(extension, count): &(&String, &usize)| match extension.as_str() {
        "" => format!("{count} without extension"),
        extension => format!("{count} .{extension}"),
    };
    let found: Vec<_> = counts.iter().take(MOST_KINDS).map(count).collect();
    let more = match counts.len().saturating_sub(MOST_KINDS) {
        0 => String::new(),
        n => {
            let files: usize = counts.iter().skip(MOST_KINDS).map(|(_, count)| **count).sum();
            format!(" and {n} more kinds ({files} files)")
        }
    };
    found.join(", ") + &more
}

/// The most names that are listed. (guess)
const MOST_NAMES: usize = 5;

/// Names for people, and how many more there are.
pub(in crate::data) fn several(names: &[impl std::fmt::Display]) -> String {
    let some: Vec<_> = names.iter().take(MOST_NAMES).map(ToString::to_string).collect();
    match names.len().saturating_sub(MOST_NAMES) {
        0 => some.join(", "),
        n => format!("{} and {n} more", some.join(", ")),
    }
}
