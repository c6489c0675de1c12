//! Folders of image files. The sub-folders directly inside are the classes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::data::source::image_file::{self, ImageFiles, extension};
use crate::data::source::kind::is_tar;
use crate::data::source::labels::{Classes, Labels};
use crate::data::source::layout::{self, Purpose};
use crate::data::source::list::{ImageList, ListFolder};
use crate::data::source::{Notes, kinds_of_files, several};
use crate::data::{Decoding, Error, Result};

/// Formats of images that are not read.
const UNREAD: [&str; 14] = [
    "gif", "heic", "heif", "avif", "jxl", "jp2", "j2k", "svg", "psd", "exr", "tga", "ico", "dng",
    "cr2",
];

/// Files in which Hugging Face's ImageFolder keeps labels.
const METADATA: [&str; 2] = ["metadata.csv", "metadata.jsonl"];

/// Extensions of files beside images that are probably lists. A `.txt` often is not.
const TABLES: [&str; 3] = ["csv", "tsv", "jsonl"];

/// What to do with Arrow files.
pub(in crate::data) const ARROW_ADVICE: &str = concat!(
    "Arrow files come from `save_to_disk` of Hugging Face's datasets. Write parquet, ",
    "as in `datasets.load_from_disk(FOLDER).to_parquet(\"train.parquet\")`"
);

impl ImageFiles {
    /// The images of a folder and its sub-folders in the order of their paths. A file at any depth
    /// below the sub-folder `cats` has the class `cats`. A file directly inside the folder has no
    /// class. Folders that are named as test images or masks are left alone, unless no image would
    /// be left. If all images are below a folder `train`, that is the folder.
    pub fn of_folder(root: &Path, decoding: Decoding) -> Result<Self> {
        Self::part_of_folder(root, decoding, false)
    }

    /// The same. Of a folder whose metadata names images to train on and others to test, those to
    /// test are read if `tests` is set.
    pub(super) fn part_of_folder(root: &Path, decoding: Decoding, tests: bool) -> Result<Self> {
        let mut listing = FolderListing::default();
        listing.walk(root, None)?;
        // Last, so that links in them take no images away from the training images.
        for (folder, named) in std::mem::take(&mut listing.later) {
            listing.walk(&folder, Some(&named))?;
        }
        // Those deeper down come last, and count.
        listing.metadata.sort_by_key(|file| (file.components().count(), file.clone()));
        let mut notes = Notes::default();
        listing.keep_some(&mut notes);
        if listing.images.is_empty() {
            return Err(listing.no_images(root));
        }
        let base = base(root, &listing.images);
        let (files, classes) = by_folder(&base, std::mem::take(&mut listing.images));
        notes.left_alone.extend(listing.left_alone(&base, &classes));
        let mut all =
            Self { path: base, kind: "", files, classes, decoding, notes, holds_tests: false };
        listing.metadata.iter().for_each(|file| all.take_labels(file, tests));
        Ok(all)
    }

    /// Takes the labels of a list of images beside them, if it has some.
    fn take_labels(&mut self, file: &Path, tests: bool) {
        let folder = file.parent().unwrap_or(Path::new(""));
        // A list of the images in a folder that is left alone.
        if !self.files.iter().any(|(image, _)| image.starts_with(folder)) {
            return;
        }
        let name = file.display();
        let mut list = match ImageList::read(file) {
            Ok(list) => list,
            Err(error) => {
                let left = format!("{name}: not used for labels ({error})");
                return self.notes.left_alone.push(left);
            }
        };
        self.take_part(&mut list, file, tests);
        self.notes.append(list.notes.clone());
        let mut leave = |why: String| self.notes.left_alone.push(format!("{name}: {why}"));
        if !list.has_labels {
            return leave(format!("it has no labels, only {}", list.columns()));
        }
        let missing = list.files.iter().filter(|(file, _)| !file.exists()).count();
        if missing > 0 {
            leave(format!("{missing} of its {} files do not exist", list.files.len()));
        }
        let given: HashMap<&Path, Option<&str>> =
            list.files.iter().map(|(file, label)| (file.as_path(), label.as_deref())).collect();
        if !self.files.iter().any(|(image, _)| given.contains_key(image.as_path())) {
            return leave("it names none of the images".to_owned());
        }
        let mut labels = Labels::default();
        let mut without = 0;
        for (image, class) in &self.files {
            let label = given.get(image.as_path()).copied();
            without += usize::from(label.flatten().is_none() && image.starts_with(folder));
            // Images of other folders keep the class that they have.
            let class = usize::try_from(*class).ok().map(|class| self.classes[class].as_str());
            labels.push(if image.starts_with(folder) { label.flatten() } else { class });
        }
        let Classes { of: numbers, names: classes, alike, .. } = labels.finish();
        self.notes.remarks.extend(alike);
        self.files.iter_mut().zip(numbers).for_each(|((_, class), number)| *class = number);
        self.classes = classes;
        let lacking = match without {
            0 => String::new(),
            n => format!(", which has none for {n} of the images"),
        };
        self.notes.remarks.push(format!("labels are those of {name}{lacking}"));
    }

    /// Keeps the images that the list `file` names to train on, or those to test. All are kept if
    /// none would be.
    fn take_part(&mut self, list: &mut ImageList, file: &Path, tests: bool) {
        if list.tests.is_empty() {
            return;
        }
        if tests {
            list.take_tests();
        }
        let keys = ListFolder::new(file.parent().unwrap_or(Path::new("")));
        let named = if tests { &list.files } else { &list.tests };
        let named: BTreeSet<PathBuf> =
            named.iter().map(|(file, _)| keys.key_of_file(file)).collect();
        let is_test = |image: &Path| named.contains(&keys.key_of_file(image));
        let (taken, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.files).into_iter().partition(|(image, _)| is_test(image));
        let (name, count) = (file.display(), taken.len());
        match (left.is_empty(), taken.is_empty()) {
            (true, _) => {
                self.notes.remarks.push(format!("{name}: all images are those to test"));
                self.files = taken;
            }
            (false, true) => self.files = left,
            (false, false) if tests => {
                (self.kind, self.files) = ("the images to test by their metadata, ", taken);
            }
            (false, false) => {
                let named = &list.tests_named;
                let words =
                    format!("{name}: {count} images {named}. To read them, too, rename the column");
                self.notes.left_alone.push(words);
                (self.files, self.holds_tests) = (left, true);
            }
        }
    }
}

/// What was found in a folder and its sub-folders.
#[derive(Default)]
struct FolderListing {
    /// The images to train on.
    images: Vec<PathBuf>,
    /// Images that are left alone, by the reason and the folder that is named so.
    left_alone: BTreeMap<Named, Vec<PathBuf>>,
    /// Folders that are left alone by their names and are still to be walked.
    later: Vec<(PathBuf, Named)>,
    /// The number of files that are not images, by extension.
    others: BTreeMap<String, usize>,
    /// Masks beside their images.
    masks: CountedPaths,
    /// Hidden files and folders.
    hidden: CountedPaths,
    /// Folders that hold tar archives.
    archives: BTreeSet<PathBuf>,
    /// Lists of labels beside images.
    metadata: Vec<PathBuf>,
    /// Other files that may be lists of images.
    lists: BTreeSet<PathBuf>,
    /// The folders walked, in the order of their paths.
    folders: Vec<PathBuf>,
    /// Links to folders that were walked before.
    links: CountedPaths,
    /// Links whose target is gone.
    broken: CountedPaths,
    /// Real paths of the folders walked. A link to one of them is not followed. Otherwise its
    /// images would count twice: in training and in the held-out part.
    seen: BTreeSet<PathBuf>,
}

/// How many paths of a kind were found, and the first of them.
#[derive(Default)]
struct CountedPaths {
    count: usize,
    first: Option<PathBuf>,
}

impl CountedPaths {
    fn add(&mut self, path: PathBuf) {
        self.count += 1;
        if self.first.as_ref().is_none_or(|first| path < *first) {
            self.first = Some(path);
        }
    }
}

/// The folder whose name says why its images are left alone.
type Named = (Purpose, PathBuf);

impl FolderListing {
    /// Adds the images below a folder, at any depth.
    fn walk(&mut self, folder: &Path, named: Option<&Named>) -> Result<()> {
        let real = fs::canonicalize(folder).map_err(|error| Error::read(folder, error))?;
        if !self.seen.insert(real) {
            self.links.add(folder.to_owned());
            return Ok(());
        }
        self.folders.push(folder.to_owned());
        let (files, folders) = self.entries(folder)?;
        let mut files = self.without_masks(files);
        files.sort();
        let names: Vec<String> = folders.iter().map(|folder| name_of(folder)).collect();
        let images_beside = !files.is_empty();
        match named {
            Some((Purpose::Masks | Purpose::Clutter, _)) if files.is_empty() => {}
            Some(named) => self.left_alone.entry(named.clone()).or_default().extend(files),
            None => self.images.extend(files),
        }
        for (folder, name) in folders.into_iter().zip(&names) {
            // Masks of test images are masks still: the test images may be the only ones.
            let own = match (named, layout::purpose(name, &names, images_beside)) {
                (None | Some((Purpose::Test, _)), Some(found))
                    if Some(found) != named.map(|n| n.0) =>
                {
                    Some((found, folder.clone()))
                }
                _ => named.cloned(),
            };
            match own {
                Some(own) if named.is_none() => self.later.push((folder, own)),
                own => self.walk(&folder, own.as_ref())?,
            }
        }
        Ok(())
    }

    /// The images and the sorted sub-folders directly inside a folder, without hidden ones.
    fn entries(&mut self, folder: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(folder).map_err(|error| Error::read(folder, error))? {
            let entry = entry.map_err(|error| Error::read(folder, error))?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().to_lowercase();
            if name.starts_with('.') {
                self.hidden.add(path);
                continue;
            }
            // Links are followed. An entry that is neither a file nor a folder, such as a pipe, is
            // counted with the others.
            let kind = match entry.file_type() {
                Ok(kind) if !kind.is_symlink() => Ok(kind),
                _ => fs::metadata(&path).map(|metadata| metadata.file_type()),
            };
            let is_broken = kind.is_err();
            let is_file = kind.as_ref().is_ok_and(fs::FileType::is_file);
            if kind.is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if is_file && image_file::is_image(&path) {
                files.push(path);
            } else if is_file && METADATA.contains(&name.as_str()) {
                self.metadata.push(path);
            } else if is_broken {
                self.broken.add(path);
            } else {
                if is_tar(&path) {
                    self.archives.insert(folder.to_owned());
                }
                if is_file && TABLES.contains(&extension(&path).as_str()) {
                    self.lists.insert(path.clone());
                }
                *self.others.entry(extension(&path)).or_default() += 1;
            }
        }
        folders.sort();
        Ok((files, folders))
    }

    /// The images of a folder without masks such as `1_mask.png` beside `1.png`.
    fn without_masks(&mut self, files: Vec<PathBuf>) -> Vec<PathBuf> {
        let stem =
            |file: &Path| file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        // `1_mask.png`, `1_mask_2.png` and `1_masks.png`, but not `face_masked.png`.
        let image = |file: &Path| {
            let (stem, ends) = (stem(file), |rest: &str| rest.is_empty() || rest.starts_with('_'));
            let (name, rest) = stem.split_once("_mask")?;
            ends(rest.strip_prefix('s').unwrap_or(rest)).then(|| name.to_owned())
        };
        if !files.iter().any(|file| image(file).is_some()) {
            return files;
        }
        let stems: BTreeSet<String> = files.iter().map(|file| stem(file)).collect();
        let is_mask = |file: &PathBuf| image(file).is_some_and(|image| stems.contains(&image));
        let (masks, images): (Vec<_>, Vec<_>) = files.into_iter().partition(is_mask);
        masks.into_iter().for_each(|mask| self.masks.add(mask));
        images
    }

    /// Takes images that would be left alone if there are no others: test images rather than
    /// clutter and masks.
    fn keep_some(&mut self, notes: &mut Notes) {
        for purpose in [Purpose::Test, Purpose::Clutter, Purpose::Masks] {
            if self.images.is_empty() {
                let is_of = |(found, _): &Named| *found == purpose;
                let mut kept = Vec::new();
                for (_, images) in self.left_alone.iter_mut().filter(|(named, _)| is_of(named)) {
                    kept.append(images);
                }
                if !kept.is_empty() {
                    self.left_alone.retain(|named, _| !is_of(named));
                    let what = described(purpose);
                    notes.remarks.push(format!("all images are in folders named as {what}"));
                }
                self.images = kept;
            }
        }
    }

    /// What is left alone, as text for people.
    fn left_alone(&self, base: &Path, classes: &[String]) -> Vec<String> {
        let mut all = self.named();
        let empty = self.empty_folders(base, classes);
        if !empty.is_empty() {
            let folders = if empty.len() == 1 { "folder" } else { "folders" };
            all.push(format!("{} {folders} without images: {}", empty.len(), several(&empty)));
        }
        let (unread, others): (Vec<_>, Vec<_>) =
            self.others.iter().partition(|(kind, _)| UNREAD.contains(&kind.as_str()));
        if !unread.is_empty() {
            let unread = kinds_of_files(unread);
            all.push(format!("{unread}: convert them to PNG or JPEG to read them"));
        }
        if !others.is_empty() {
            all.push(format!("files of other kinds: {}", kinds_of_files(others)));
        }
        if let Some(list) = self.list() {
            all.push(format!("lists: to read the images of one, set data.path={}", list.display()));
        }
        for (what, found) in [
            ("masks beside their images", &self.masks),
            ("links to folders that are read anyway", &self.links),
            ("hidden files and folders", &self.hidden),
            ("links to nothing", &self.broken),
        ] {
            if let Some(first) = &found.first {
                all.push(format!("{what}: {}, such as {}", found.count, first.display()));
            }
        }
        all
    }

    /// The folders that are left alone by their names, as text for people.
    fn named(&self) -> Vec<String> {
        let mut all = Vec::new();
        for purpose in [Purpose::Test, Purpose::Masks, Purpose::Clutter] {
            let of: Vec<_> =
                self.left_alone.iter().filter(|((found, _), _)| *found == purpose).collect();
            let Some(((_, first), _)) = of.first() else { continue };
            let images: usize = of.iter().map(|(_, images)| images.len()).sum();
            let names: Vec<_> = of.iter().map(|((_, folder), _)| folder.display()).collect();
            let (what, names) = (described(purpose), several(&names));
            let folders = if of.len() == 1 { "folder" } else { "folders" };
            let (first, it) = (first.display(), if of.len() == 1 { "it" } else { "them" });
            all.push(format!(
                "the {folders} {names} ({images} images), named as {what}. To train on {it}, \
                 rename {it} or give a path such as {first}"
            ));
        }
        all
    }

    /// Names of the folders directly inside the base that hold no image at all.
    fn empty_folders(&self, base: &Path, classes: &[String]) -> Vec<String> {
        let with_images: BTreeSet<&str> = classes.iter().map(String::as_str).collect();
        let is_left_alone =
            |folder: &Path| self.left_alone.keys().any(|(_, named)| named.starts_with(folder));
        let below = self.folders.iter().filter(|folder| folder.parent() == Some(base));
        let names = below.filter(|folder| !is_left_alone(folder)).map(|folder| name_of(folder));
        names.filter(|name| !with_images.contains(name.as_str())).collect()
    }

    /// The list that is named as one of training images, or the first.
    fn list(&self) -> Option<&PathBuf> {
        let is_training = |file: &&PathBuf| {
            layout::named_part(&name_of(file)) == Some(layout::NamedPart::Training)
        };
        self.lists.iter().find(is_training).or(self.lists.first())
    }

    fn no_images(&self, root: &Path) -> Error {
        let is_training = |folder: &&PathBuf| name_of(folder).starts_with("train");
        let archives = self.archives.iter().find(is_training).or(self.archives.first());
        let advice = match archives {
            Some(folder) => format!("For the archives set data.path={}", folder.display()),
            None if self.others.contains_key("arrow") => ARROW_ADVICE.to_owned(),
            None if self.list().is_some() => {
                let list = self.list().map(|list| list.display().to_string()).unwrap_or_default();
                format!("If the images are elsewhere and a list names them, set data.path={list}")
            }
            None if self.others.contains_key("npy") => {
                "Set data.path to one of the .npy files, or name each in a [[data.source]]"
                    .to_owned()
            }
            None if self.others.is_empty() => {
                "Set data.path to the folder of the images".to_owned()
            }
            None => "Convert them to PNG, JPEG or WebP, or choose another folder".to_owned(),
        };
        let mut others = self.others.clone();
        for file in &self.metadata {
            *others.entry(extension(file)).or_default() += 1;
        }
        let found = match others.is_empty() {
            true => "no file".to_owned(),
            false => kinds_of_files(others.iter().collect()),
        };
        Error::NoImages { path: root.into(), found, advice }
    }
}

fn described(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Test => "validation or test images",
        Purpose::Masks => "masks",
        Purpose::Clutter => "Caltech's clutter, which is no class",
    }
}

fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The folder whose sub-folders are the classes: the deepest one named as a part of a data set that
/// holds all images. Without one it is the root.
fn base(root: &Path, images: &[PathBuf]) -> PathBuf {
    let folders = |image: &PathBuf| -> Vec<OsString> {
        let below = image.parent().and_then(|folder| folder.strip_prefix(root).ok());
        let names = below.into_iter().flat_map(Path::components);
        names.map(|name| name.as_os_str().to_owned()).collect()
    };
    let Some(mut common) = images.first().map(folders) else { return root.into() };
    for image in images {
        if common.is_empty() {
            break;
        }
        let names =
            image.strip_prefix(root).unwrap_or(image).components().map(Component::as_os_str);
        let same = names.zip(&common).take_while(|(name, common)| name == common).count();
        common.truncate(same);
    }
    let is_part = |name: &OsString| layout::is_part(&name.to_string_lossy());
    let depth = common.iter().rposition(is_part).map_or(0, |at| at + 1);
    root.join(common[..depth].iter().collect::<PathBuf>())
}

/// Images in order, with their classes: those directly in the folder, then folder by folder.
fn by_folder(base: &Path, images: Vec<PathBuf>) -> (Vec<(PathBuf, i32)>, Vec<String>) {
    let mut folders: BTreeMap<Option<OsString>, Vec<PathBuf>> = BTreeMap::new();
    for image in images {
        let below = image.strip_prefix(base).unwrap_or(&image);
        let mut names = below.components();
        let first = names.next().filter(|_| names.next().is_some());
        folders.entry(first.map(|name| name.as_os_str().to_owned())).or_default().push(image);
    }
    let (mut files, mut classes) = (Vec::new(), Vec::new());
    for (folder, mut images) in folders {
        images.sort();
        let class = folder.map_or(-1, |folder| {
            classes.push(folder.to_string_lossy().into_owned());
            classes.len() as i32 - 1
        });
        files.extend(images.into_iter().map(|image| (image, class)));
    }
    (files, classes)
}

#[cfg(test)]
mod tests;
