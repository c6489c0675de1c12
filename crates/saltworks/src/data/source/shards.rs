//! WebDataset shards: tar archives whose members belong together by name
//! (github.com/webdataset/webdataset, "The WebDataset Format").

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data::clip::decode::info;
use crate::data::source::file_set::FileSet;
use crate::data::source::image_file::{EXTENSIONS, MOST_BYTES};
use crate::data::source::labels::Labels;
use crate::data::store::object::{self, Object};
use crate::data::store::tar::{Member, ReadAt as _};
use crate::data::{Background, Error, Info, RawSample, Result, Sample, Source, Stamp, StoredAs};

mod index;

/// The most shards whose files stay open. If there are more, a shard is opened for each image.
/// Systems allow a process 1,024 open files by default.
const MOST_OPEN: usize = 256;

/// Images in tar archives, sorted by name as in a folder of the unpacked files. Their order in the
/// archives does not matter.
///
/// A sample consists of the members with one key: their path up to the first dot of the file name.
/// Its image is its first member `KEY.EXTENSION` with an image's extension. If there is none, each
/// of its members `KEY.MORE.EXTENSION` is an image of its own, as in archives of plain files named
/// `cat.0.jpg`. Its label is the number in `KEY.cls`, or `label` or `cls` in `KEY.json`. If no
/// sample has a label, the first folder in which the names differ is the class.
pub struct Shards {
    files: FileSet,
    /// Files that stay open: all if there are few, and always objects in a store.
    open: Vec<Option<Object>>,
    entries: Vec<Entry>,
    classes: Vec<String>,
    background: Background,
}

struct Entry {
    shard: u32,
    label: i32,
    image: Member,
}

/// The members of an archive with one key.
#[derive(Default, Serialize, Deserialize)]
struct SampleGroup {
    image: Option<Member>,
    /// Members `KEY.MORE.EXTENSION`: for example masks of an image, or images.
    others: Vec<Member>,
    label: Option<String>,
}

impl SampleGroup {
    /// Its images with their label.
    fn images(self) -> impl Iterator<Item = (Member, Option<String>)> {
        let others = if self.image.is_some() { Vec::new() } else { self.others };
        let images = self.image.into_iter().chain(others);
        images.map(move |image| (image, self.label.clone()))
    }
}

impl Shards {
    /// Indexes the archives `files`. `path` is the path that the user gave.
    pub fn open(path: &Path, files: &[PathBuf], background: Background) -> Result<Self> {
        let keep_open = files.len() <= MOST_OPEN;
        let indexed = object::in_parallel(files, index::index)?;
        let mut open = Vec::new();
        let mut found = Vec::new();
        for (number, (file, groups)) in indexed.into_iter().enumerate() {
            open.push(Some(file).filter(|file| keep_open || file.is_remote()));
            let images = groups.into_iter().flat_map(SampleGroup::images);
            found.extend(images.map(|(image, label)| (number as u32, image, label)));
        }
        if found.is_empty() {
            let problem = format!(
                "0 images in {} archives: looked for members .{}. Set data.path to archives of \
                 images",
                files.len(),
                EXTENSIONS.join(" .")
            );
            return Err(Error::file(path, problem));
        }
        let names: Vec<&str> = found.iter().map(|(_, image, _)| image.name.as_str()).collect();
        let root = common_folder(&names);
        // A stable sort: images of one name keep the order of their shards.
        found.sort_by(|(_, a, _), (_, b, _)| in_folder_order(&a.name[root..], &b.name[root..]));
        let (entries, classes) = label(found);
        let files = FileSet::new(path, files, "tar archive");
        Ok(Self { files, open, entries, classes, background })
    }

    fn name(&self, index: usize) -> String {
        let Entry { shard, image, .. } = &self.entries[index];
        format!("{}: {}", self.files.path_of(*shard as usize).display(), image.name)
    }

    fn bytes(&self, index: usize) -> Result<(Vec<u8>, String)> {
        let Entry { shard, image, .. } = &self.entries[index];
        let path = self.files.path_of(*shard as usize);
        let name = self.name(index);
        if image.size > MOST_BYTES {
            let problem = format!("is longer than {MOST_BYTES} bytes");
            return Err(Error::Image { name, problem });
        }
        let mut bytes = vec![0; image.size as usize];
        let read = match &self.open[*shard as usize] {
            Some(file) => file.read_at(&mut bytes, image.offset),
            None => Object::open(path)?.read_at(&mut bytes, image.offset),
        };
        read.map_err(|error| Error::read(path, error))?;
        Ok((bytes, name))
    }
}

impl Source for Shards {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn read(&self, index: usize) -> Result<Sample> {
        self.raw(index)?.decode()
    }

    fn raw(&self, index: usize) -> Result<RawSample> {
        let (bytes, name) = self.bytes(index)?;
        let stored_as = StoredAs::File { bytes, background: self.background };
        Ok(RawSample { stored_as, label: self.label(index), name })
    }

    fn info(&self, index: usize) -> Result<Info> {
        let (bytes, name) = self.bytes(index)?;
        info(&bytes, &name, self.background)
    }

    fn stamp(&self, index: usize) -> Stamp {
        Stamp { name: self.name(index), bytes: self.entries[index].image.size }
    }

    fn label(&self, index: usize) -> i32 {
        self.entries[index].label
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn requests(&self) -> usize {
        self.files.requests()
    }

    fn describe(&self) -> String {
        self.files.describe(self.len(), &self.classes)
    }

    fn files(&self) -> Vec<&Path> {
        self.files.files()
    }
}

/// The order in a folder: files directly inside come before those of its sub-folders. Then paths
/// are compared part by part.
fn in_folder_order(a: &str, b: &str) -> std::cmp::Ordering {
    let is_deep = |name: &str| name.contains('/');
    is_deep(a).cmp(&is_deep(b)).then_with(|| Path::new(a).cmp(Path::new(b)))
}

/// Labels as written, or the folders of the images.
fn label(found: Vec<(u32, Member, Option<String>)>) -> (Vec<Entry>, Vec<String>) {
    let written = found.iter().any(|(_, _, label)| label.is_some());
    let (labels, classes) = if written {
        let mut labels = Labels::default();
        found.iter().for_each(|(_, _, label)| labels.push(label.as_deref()));
        labels.finish()
    } else {
        let names: Vec<&str> = found.iter().map(|(_, image, _)| image.name.as_str()).collect();
        folders(&names)
    };
    let entry = |((shard, image, _), label)| Entry { shard, label, image };
    (found.into_iter().zip(labels).map(entry).collect(), classes)
}

/// The first folder in which the names differ is the class. A file beside such folders has none.
fn folders(names: &[&str]) -> (Vec<i32>, Vec<String>) {
    let common = common_folder(names);
    let folder = |name: &&str| name[common..].split_once('/').map(|(folder, _)| folder.to_owned());
    let of: Vec<Option<String>> = names.iter().map(folder).collect();
    let mut classes: BTreeMap<&str, i32> = of.iter().flatten().map(|f| (f.as_str(), 0)).collect();
    classes.values_mut().enumerate().for_each(|(number, class)| *class = number as i32);
    let label = |folder: &Option<String>| folder.as_ref().map_or(-1, |f| classes[f.as_str()]);
    (of.iter().map(label).collect(), classes.keys().map(ToString::to_string).collect())
}

/// The number of bytes of the folders that all names begin with.
fn common_folder(names: &[&str]) -> usize {
    let mut common =
        names.first().map_or("", |name| &name[..name.rfind('/').map_or(0, |at| at + 1)]);
    for name in names {
        while !name.starts_with(common) {
            let shorter = common.trim_end_matches('/').rfind('/').map_or(0, |at| at + 1);
            common = &common[..shorter];
        }
    }
    common.len()
}

#[cfg(test)]
pub(in crate::data) mod tests;
