//! WebDataset shards: tar archives whose members belong together by name
//! (github.com/webdataset/webdataset, "The WebDataset Format").

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data::clip::decode::info;
use crate::data::source::Notes;
use crate::data::source::file_set::FileSet;
use crate::data::source::image_file::{EXTENSIONS, MOST_BYTES};
use crate::data::source::labels::{Classes, Labels, StatedLabel};
use crate::data::store::object::{self, Object};
use crate::data::store::tar::{Member, ReadAt as _};
use crate::data::{Decoding, Error, Info, RawSample, Result, Sample, Source, Stamp, StoredAs};

mod index;
mod labels;
mod not_read;

use index::TarIndex;
use labels::SampleLabel;
use not_read::NotRead;

/// The most shards whose files stay open. If there are more, a shard is opened for each image.
/// Systems allow a process 1,024 open files by default.
const MOST_OPEN: usize = 256;

/// So few texts among `.cls` with numbers are damage. (guess)
const FEW_TEXTS: usize = 10;

/// Images in tar archives, sorted by name as in a folder of the unpacked files. Their order in the
/// archives does not matter.
///
/// A sample consists of the members with one key: their path up to the first dot of the file name.
/// Its image is its first member `KEY.EXTENSION` with an image's extension. If there is none, each
/// of its members `KEY.MORE.EXTENSION` is an image of its own, as in archives of plain files named
/// `cat.0.jpg`. Links inside an archive are followed. If a name comes twice, the last member
/// counts. The label is in `KEY.cls`, or is `label` or `cls` in `KEY.json`. An image
/// `KEY.MORE.EXTENSION` may have its own in `KEY.MORE.cls` or `KEY.MORE.json`. If no sample has a
/// class, the first folder in which the names differ is the class. A sample whose label is damaged
/// is left out, unless it has a good one, too.
pub struct Shards {
    files: FileSet,
    /// Files that stay open: all if there are few, and always objects in a store.
    open: Vec<Option<Object>>,
    entries: Vec<Entry>,
    classes: Vec<String>,
    decoding: Decoding,
    notes: Notes,
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
    /// Members `KEY.MORE.EXTENSION`, with MORE: for example masks of an image, or images.
    others: Vec<(String, Member)>,
    /// The labels by MORE, which is empty for that of the whole group.
    labels: BTreeMap<String, SampleLabel>,
}

impl SampleGroup {
    /// Counts images that stand beside the sample's image, such as masks.
    fn count_beside(&self, not_read: &mut NotRead) {
        if self.image.is_some() {
            self.others.iter().for_each(|(_, image)| not_read.beside.add(&image.name));
        }
    }

    /// Adds a label, unless it has a better one, and returns the label that is not used then.
    fn add_label(&mut self, more: &str, label: SampleLabel) -> Option<SampleLabel> {
        let earlier = self.labels.get(more);
        if earlier.is_none_or(|earlier| earlier.rank() <= label.rank()) {
            self.labels.insert(more.to_owned(), label)
        } else {
            Some(label)
        }
    }

    /// Its images with their label.
    fn images(self) -> impl Iterator<Item = (Member, Option<SampleLabel>)> {
        let others = if self.image.is_some() { Vec::new() } else { self.others };
        let images = self.image.into_iter().map(|image| (String::new(), image)).chain(others);
        images.map(move |(more, image)| {
            let label = self.labels.get(&more).or_else(|| self.labels.get(""));
            (image, label.cloned())
        })
    }
}

/// The number of an archive, an image in it, and its label.
type FoundImage = (u32, Member, Option<StatedLabel>);

/// The images of archives, and the problems of damaged labels.
struct FoundImages {
    found: Vec<FoundImage>,
    damaged: Vec<(u32, String)>,
    /// Whether the samples of damaged labels are left out.
    are_left_out: bool,
}

/// Takes the images of archives with their labels.
fn images(archives: Vec<Vec<SampleGroup>>) -> FoundImages {
    let of_archive = |(number, groups): (u32, Vec<SampleGroup>)| {
        let images = groups.into_iter().flat_map(SampleGroup::images);
        images.map(move |(image, label)| (number, image, label))
    };
    let all: Vec<_> = (0..).zip(archives).flat_map(of_archive).collect();
    let count = |is: fn(&SampleLabel) -> bool| {
        all.iter().filter_map(|(_, _, label)| label.as_ref()).filter(|label| is(label)).count()
    };
    let numbers = count(|label| matches!(label, SampleLabel::Number(_)));
    let texts = count(|label| matches!(label, SampleLabel::Name { .. }));
    // More are classes, as of digits and letters.
    let is_damage = numbers >= texts && (texts < FEW_TEXTS || numbers >= 10 * texts);
    // If all other images have no label, the damaged files most likely hold something else, such
    // as captions.
    let is_label = |label: &SampleLabel| !matches!(label, SampleLabel::Damaged(_));
    let labelled = all.iter().any(|(_, _, label)| label.as_ref().is_some_and(is_label));
    let are_left_out = labelled || all.iter().all(|(_, _, label)| label.is_some());
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    for (archive, image, label) in all {
        match label.map(|label| label.stated(is_damage)).transpose() {
            Ok(label) => found.push((archive, image, label)),
            Err(problem) => {
                damaged.push((archive, problem));
                if !are_left_out {
                    found.push((archive, image, None));
                }
            }
        }
    }
    FoundImages { found, damaged, are_left_out }
}

impl Shards {
    /// Indexes the archives `files`. `path` is the path that the user gave.
    pub fn open(path: &Path, files: &[PathBuf], decoding: Decoding) -> Result<Self> {
        let keep_open = files.len() <= MOST_OPEN;
        let indexed = object::in_parallel(files, index::index)?;
        let (mut open, mut archives) = (Vec::new(), Vec::new());
        let mut not_read = NotRead::default();
        for (file, TarIndex { groups, not_read: more }) in indexed {
            not_read.merge(more);
            groups.iter().for_each(|group| group.count_beside(&mut not_read));
            open.push(Some(file).filter(|file| keep_open || file.is_remote()));
            archives.push(groups);
        }
        let FoundImages { mut found, damaged, are_left_out } = images(archives);
        let damaged: Vec<_> = damaged
            .iter()
            .map(|(archive, problem)| format!("{}: {problem}", files[*archive as usize].display()))
            .collect();
        if found.is_empty() {
            let problem = match damaged.first() {
                Some(first) => format!("0 images whose label can be read. The first: {first}"),
                None => format!(
                    "0 images in {} archives: looked for members .{}. Set data.path to archives \
                     of images",
                    files.len(),
                    EXTENSIONS.join(" .")
                ),
            };
            return Err(Error::file(path, problem));
        }
        let names: Vec<&str> = found.iter().map(|(_, image, _)| image.name.as_str()).collect();
        let root = common_folder(&names);
        // A stable sort: images of one name keep the order of their shards.
        found.sort_by(|(_, a, _), (_, b, _)| in_folder_order(&a.name[root..], &b.name[root..]));
        let (entries, Classes { names: classes, unused, alike, .. }) = label(found);
        let parts =
            [labels::damaged(&damaged, are_left_out), unused].into_iter().chain(not_read.told());
        let left_alone = parts.filter(|part| !part.is_empty()).collect();
        let notes = Notes { left_alone, remarks: alike.into_iter().collect() };
        let files = FileSet::new(path, files, "tar archive");
        Ok(Self { files, open, entries, classes, decoding, notes })
    }

    /// The same, with more that is not read, for people.
    #[must_use]
    pub(super) fn leaving(mut self, more: Vec<String>) -> Self {
        self.notes.left_alone.extend(more);
        self
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
        let stored_as = StoredAs::File { bytes, decoding: self.decoding };
        Ok(RawSample { stored_as, label: self.label(index), name })
    }

    fn info(&self, index: usize) -> Result<Info> {
        let (bytes, name) = self.bytes(index)?;
        info(&bytes, &name, self.decoding)
    }

    fn stamp(&self, index: usize) -> Stamp {
        Stamp { name: self.name(index), bytes: self.entries[index].image.size }
    }

    fn stored_bytes(&self, index: usize) -> Option<u64> {
        Some(self.entries[index].image.size)
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

    fn notes(&self) -> Notes {
        self.notes.clone()
    }
}

/// The order in a folder: files directly inside come before those of its sub-folders. Then paths
/// are compared part by part.
fn in_folder_order(a: &str, b: &str) -> std::cmp::Ordering {
    let is_deep = |name: &str| name.contains('/');
    is_deep(a).cmp(&is_deep(b)).then_with(|| Path::new(a).cmp(Path::new(b)))
}

/// Labels as written, or the folders of the images if none names a class.
fn label(found: Vec<FoundImage>) -> (Vec<Entry>, Classes) {
    let is_class = |label: &Option<StatedLabel>| matches!(label, Some(StatedLabel::Class(_)));
    let written = found.iter().any(|(_, _, label)| is_class(label));
    let mut labels = Labels::default();
    found.iter().for_each(|(_, _, label)| labels.push_stated(label.as_ref()));
    let mut classes = labels.finish();
    if !written {
        let names: Vec<&str> = found.iter().map(|(_, image, _)| image.name.as_str()).collect();
        (classes.of, classes.names) = folders(&names);
    }
    let images = found.into_iter().zip(&classes.of);
    let entry = |((shard, image, _), &label)| Entry { shard, label, image };
    (images.map(entry).collect(), classes)
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
