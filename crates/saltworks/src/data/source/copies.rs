//! Images whose files have the same bytes. Lengths are compared first, and only files of equal
//! lengths are read.

use std::collections::BTreeSet;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::data::{Source, StoredAs};

/// The most images that are read before a run begins. (guess) At 100 kB an image these are 10 GB.
const MOST_READ: usize = 100_000;

/// The most test images that are compared with training images. (guess)
const MOST_TESTS: usize = 1000;

/// Images that have the bytes of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// How many images have the bytes of another one.
    pub images: usize,
    /// How many different images those are.
    pub different: usize,
    /// How many of the different images are in several classes.
    pub contradictory: usize,
    /// The names of two equal images in different classes.
    pub contradiction: Option<[String; 2]>,
    /// The names of two that are equal.
    pub example: Option<[String; 2]>,
    /// How many images were compared with all others.
    pub compared: usize,
    /// How many images have the length of another one and were not read, because they are too many.
    pub unread: usize,
}

/// The number of a source, and the number of an image in it.
pub(super) type Place = (usize, usize);

/// Images of some sources by their lengths.
pub(super) struct ImageLengths<'a> {
    sources: Vec<&'a dyn Source>,
    /// Length, source and image, sorted.
    sorted: Vec<(u64, u32, u32)>,
}

impl<'a> ImageLengths<'a> {
    /// Asks for the length of each image. Images in stores are left out, because each would have to
    /// be fetched.
    pub(super) fn of(sources: Vec<&'a dyn Source>) -> Self {
        let mut sorted = Vec::new();
        for (number, source) in (0..).zip(&sources).filter(|(_, source)| source.requests() == 1) {
            let length = |index: u32| {
                // An empty file is no image.
                let bytes = source.stored_bytes(index as usize).filter(|bytes| *bytes > 0)?;
                Some((bytes, number, index))
            };
            let images = 0..source.len() as u32;
            sorted.extend(images.into_par_iter().filter_map(length).collect::<Vec<_>>());
        }
        sorted.par_sort_unstable();
        Self { sources, sorted }
    }

    /// The groups of equal images that have one of these. If more than `most` images would have to
    /// be read, the error is their number.
    pub(super) fn equal_to(&self, some: &[Place], most: usize) -> Result<Vec<Vec<Place>>, usize> {
        let lengths: BTreeSet<u64> =
            some.iter().filter_map(|&(source, at)| self.sources[source].stored_bytes(at)).collect();
        let groups = self.equal(|length| lengths.contains(&length), most)?;
        let some: BTreeSet<&Place> = some.iter().collect();
        Ok(groups.into_iter().filter(|group| group.iter().any(|at| some.contains(at))).collect())
    }

    /// The groups of equal images of these lengths.
    fn equal(
        &self,
        is_wanted: impl Fn(u64) -> bool,
        most: usize,
    ) -> Result<Vec<Vec<Place>>, usize> {
        let same = self.sorted.chunk_by(|a, b| a.0 == b.0);
        let same: Vec<_> = same.filter(|same| same.len() > 1 && is_wanted(same[0].0)).collect();
        let images: Vec<_> = same.into_iter().flatten().collect();
        if images.len() > most {
            return Err(images.len());
        }
        let hash = |&&(_, source, index): &&(u64, u32, u32)| {
            let place = (source as usize, index as usize);
            // An image that cannot be read is no copy. It is reported when it is needed.
            let raw = self.sources[place.0].raw(place.1).ok()?;
            let StoredAs::File { bytes, .. } = raw.stored_as else { return None };
            Some((<[u8; 32]>::from(Sha256::digest(&bytes)), place))
        };
        let mut hashes: Vec<_> = images.par_iter().filter_map(hash).collect();
        hashes.sort_unstable();
        let equal = hashes.chunk_by(|a, b| a.0 == b.0).filter(|equal| equal.len() > 1);
        Ok(equal.map(|equal| equal.iter().map(|(_, place)| *place).collect()).collect())
    }

    pub(super) fn name(&self, (source, index): Place) -> String {
        self.sources[source].stamp(index).name
    }

    fn copies(&self, groups: &[Vec<Place>]) -> Copies {
        let example = groups.iter().min().map(|group| [group[0], group[1]].map(|at| self.name(at)));
        let images = groups.iter().map(Vec::len).sum();
        let compared = self.sorted.len();
        let label = |&(source, at): &Place| {
            let source = self.sources[source];
            usize::try_from(source.label(at)).ok().and_then(|class| source.classes().get(class))
        };
        let contradiction = |group: &Vec<Place>| {
            let mut labelled = group.iter().filter_map(|at| Some((*at, label(at)?)));
            let (first, class) = labelled.next()?;
            let (other, _) = labelled.find(|(_, other)| *other != class)?;
            Some([first, other])
        };
        let mut contradictory: Vec<_> = groups.iter().filter_map(contradiction).collect();
        contradictory.sort_unstable();
        let contradiction = contradictory.first().map(|two| two.map(|at| self.name(at)));
        let contradictory = contradictory.len();
        let different = groups.len();
        Copies { images, different, contradictory, contradiction, example, compared, unread: 0 }
    }
}

/// Copies among all images of a source. None if its images are not stored as files of their own.
pub fn copies_among(source: &dyn Source) -> Option<Copies> {
    let lengths = ImageLengths::of(vec![source]);
    if lengths.sorted.is_empty() {
        return None;
    }
    let groups = lengths.equal(|_| true, usize::MAX).unwrap_or_default();
    Some(lengths.copies(&groups))
}

/// Test images that are training images, too: of all test images, or of 1,000 spread evenly.
pub fn copies_between(train: &[&dyn Source], test: &dyn Source) -> Copies {
    let count = test.len().min(MOST_TESTS);
    let tests: Vec<Place> = (0..count).map(|at| (train.len(), at * test.len() / count)).collect();
    let lengths = ImageLengths::of(train.iter().copied().chain([test]).collect());
    match lengths.equal_to(&tests, MOST_READ) {
        Err(unread) => Copies { unread, ..Copies::default() },
        Ok(mut groups) => {
            groups.retain(|group| group.iter().any(|(source, _)| *source < train.len()));
            let is_test = |at: &&Place| tests.binary_search(at).is_ok();
            let images = groups.iter().flatten().filter(is_test).count();
            // A training image and a test image.
            let example = groups.iter().min().map(|group| {
                [group.first(), group.last()]
                    .map(|at| at.map_or(String::new(), |&at| lengths.name(at)))
            });
            let (different, compared) = (groups.len(), count);
            Copies { images, different, example, compared, ..Copies::default() }
        }
    }
}

/// How equal images were found while some are held out.
#[derive(Default)]
pub(super) struct CopySearch {
    groups: Vec<Vec<Place>>,
    unread: usize,
}

impl CopySearch {
    /// The groups of these images.
    pub(super) fn groups(&mut self, lengths: &ImageLengths<'_>, some: &[Place]) -> Vec<Vec<Place>> {
        if self.unread > 0 {
            return Vec::new();
        }
        match lengths.equal_to(some, MOST_READ) {
            Err(unread) => {
                self.unread = unread;
                Vec::new()
            }
            Ok(groups) => {
                self.groups.extend(groups.iter().cloned());
                groups
            }
        }
    }

    /// All that was found.
    pub(super) fn copies(&self, lengths: &ImageLengths<'_>) -> Copies {
        let groups: BTreeSet<_> = self.groups.iter().cloned().collect();
        let groups: Vec<_> = groups.into_iter().collect();
        Copies { unread: self.unread, ..lengths.copies(&groups) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::open;
    use crate::data::store::tar::tests::{archive, member};
    use std::path::Path;

    fn write(path: &Path, bytes: &[u8]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::io::Write::write_all(&mut std::fs::File::create(path).unwrap(), bytes).unwrap();
    }

    #[test]
    fn equal_files_are_found_and_files_of_equal_length_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (name, bytes) in [("a/1.png", "same"), ("b/copy.png", "same"), ("b/2.png", "else")] {
            write(&root.join(name), bytes.as_bytes());
        }
        write(&root.join("a/empty.png"), b"");
        write(&root.join("b/empty.png"), b"");
        let copies = copies_among(&*open(root, [0; 3]).unwrap()).unwrap();
        assert_eq!((copies.images, copies.different), (2, 1));
        let [one, other] = copies.contradiction.unwrap();
        assert!(one.ends_with("a/1.png") && other.ends_with("b/copy.png"), "{one} {other}");
        assert_eq!(copies.contradictory, 1);
        write(&root.join("a/2.png"), b"same");
        let again = copies_among(&*open(&root.join("a"), [0; 3]).unwrap()).unwrap();
        assert_eq!((again.images, again.contradictory), (2, 0), "no classes");
        let [one, other] = copies.example.unwrap();
        assert!(one.ends_with("a/1.png") && other.ends_with("b/copy.png"), "{one} {other}");
        let none = copies_among(&crate::data::builtin::fashion_mnist().unwrap());
        assert_eq!(none, None, "images of an array have no files");
    }

    #[test]
    fn a_test_image_that_trains_is_found_in_an_archive_too() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (name, bytes) in [("val/1.png", "same"), ("val/2.png", "else")] {
            write(&root.join(name), bytes.as_bytes());
        }
        write(&root.join("train.tar"), &archive(&[member("x/9.png", b'0', b"same")]));
        let [train, test] =
            ["train.tar", "val"].map(|name| open(&root.join(name), [0; 3]).unwrap());
        let copies = copies_between(&[&*train], &*test);
        let [one, other] = copies.example.unwrap();
        assert_eq!((copies.images, copies.different), (1, 1));
        assert!(one.ends_with("train.tar: x/9.png") && other.ends_with("val/1.png"), "{one}");
    }

    #[test]
    fn test_images_that_are_copies_of_each_other_are_no_training_images() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        for (name, bytes) in [("train/1.png", "else"), ("val/1.png", "same"), ("val/2.png", "same")]
        {
            write(&root.join(name), bytes.as_bytes());
        }
        let [train, test] = ["train", "val"].map(|name| open(&root.join(name), [0; 3]).unwrap());
        let copies = copies_between(&[&*train], &*test);
        assert_eq!((copies.images, copies.example, copies.compared), (0, None, 2));
    }
}
