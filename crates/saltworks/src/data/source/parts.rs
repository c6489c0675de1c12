//! The parts of a data set that stand beside each other: training images, and images to validate or
//! test.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::kind::{
    OpenOptions, files_in, folders_in, is_parquet, is_tar, name, open, parquet_files,
};
use super::layout::{self, NamedPart};
use super::{Parquet, Shards, Source, idx, image_file, several};
use crate::data::Result;

/// Images to validate or test beside training images: a folder, packed files of one kind, or other
/// lines of a list or a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestsBeside {
    /// At least one.
    paths: Vec<PathBuf>,
}

impl TestsBeside {
    /// Opens them.
    pub fn open(&self, options: impl Into<OpenOptions>) -> Result<Arc<dyn Source>> {
        let options = OpenOptions { tests: true, ..options.into() };
        let name = PathBuf::from(self.to_string());
        match self.paths.as_slice() {
            [one] => open(one, options),
            files if is_parquet(&files[0]) => Ok(Arc::new(Parquet::open(&name, files, &options)?)),
            files => Ok(Arc::new(Shards::open(&name, files, options.decoding)?)),
        }
    }
}

impl fmt::Display for TestsBeside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, more) = (self.paths[0].display(), self.paths.len() - 1);
        match more {
            0 => write!(f, "{first}"),
            1 => write!(f, "{first} and 1 more file"),
            _ => write!(f, "{first} and {more} more files"),
        }
    }
}

/// Images to validate or test below `path`, or in the same list or table, beside the training
/// images that `source` reads of it. None if there are none. Test images are taken if nothing else
/// is there.
pub fn tests_beside(path: &Path, source: &dyn Source) -> Option<TestsBeside> {
    if let Some(folder) = test_folder(path, source) {
        return Some(TestsBeside { paths: vec![folder] });
    }
    if source.holds_tests() {
        return Some(TestsBeside { paths: vec![path.to_owned()] });
    }
    let used: HashSet<&Path> = source.files().into_iter().collect();
    let first = source.files().first()?.to_path_buf();
    if !path.is_dir() {
        return None;
    }
    let mut files = Vec::new();
    let is_idx = idx::is_image_file(&first);
    if is_parquet(&first) {
        parquet_files(path, &mut files).ok()?;
    } else {
        let is_archive = image_file::extension(&first) == "tar";
        files = files_in(first.parent()?).ok()?;
        files.retain(|file| match is_idx {
            true => idx::is_image_file(file),
            false => is_archive && image_file::extension(file) == "tar",
        });
    }
    let below = |file: &Path| file.strip_prefix(path).unwrap_or(file).to_path_buf();
    let sets: HashSet<Vec<String>> =
        used.iter().map(|file| layout::set_of_file(&below(file))).collect();
    let mut of_rank: BTreeMap<usize, Vec<PathBuf>> = BTreeMap::new();
    for file in files.into_iter().filter(|file| !used.contains(file.as_path())) {
        let name = below(&file);
        let is_of_set = sets.contains(&layout::set_of_file(&name)) || is_idx;
        if let Some(NamedPart::Test(rank)) = layout::part_of_file(&name)
            && is_of_set
            && !layout::has_mask_word(&name)
        {
            of_rank.entry(rank).or_default().push(file);
        }
    }
    let (_, mut paths) = of_rank.pop_first()?;
    if is_idx {
        // The same images may stand beside them, packed.
        paths.truncate(1);
    }
    Some(TestsBeside { paths })
}

/// The folder of training archives. None unless all folders directly inside `path` are named as
/// parts of a data set, and no archive is beside them.
pub(super) fn training_folder(path: &Path) -> Result<Option<PathBuf>> {
    let is_packed = |file: &PathBuf| is_tar(file) || is_parquet(file) || idx::is_image_file(file);
    if files_in(path)?.iter().any(is_packed) {
        return Ok(None);
    }
    let folders = folders_in(path)?;
    let names: Vec<String> = folders.iter().map(|folder| name(folder)).collect();
    let is_training = |at: &usize| layout::is_training(&names[*at], &names);
    let trainings: Vec<usize> = (0..names.len()).filter(is_training).collect();
    let is_test = |name: &String| layout::test_rank(name, &names).is_some();
    let tests = names.iter().filter(|name| is_test(name)).count();
    match trainings.as_slice() {
        [one] if tests + 1 == names.len() => Ok(Some(folders[*one].clone())),
        _ => Ok(None),
    }
}

/// The folder of validation images beside the folder of training images that `source` reads of
/// `path`. None if there are no such folders. Test images are taken if nothing else is there.
fn test_folder(path: &Path, source: &dyn Source) -> Option<PathBuf> {
    let files = source.files();
    let is_shared = |folder: &&Path| files.iter().all(|file| file.starts_with(folder));
    let above = files.first()?.ancestors().skip(1).take_while(|folder| *folder != path);
    let inside = above.filter(|folder| folder.starts_with(path)).filter(is_shared);
    inside.filter_map(test_folder_beside).last()
}

/// The best folder of test images beside a folder of training images.
fn test_folder_beside(train: &Path) -> Option<PathBuf> {
    let folders = folders_in(train.parent()?).ok()?;
    let names: Vec<String> = folders.iter().map(|folder| name(folder)).collect();
    if !layout::is_training(&name(train), &names) {
        return None;
    }
    let ranked = folders.into_iter().zip(&names);
    let ranked = ranked
        .filter_map(|(folder, name)| layout::test_rank(name, &names).map(|rank| (rank, folder)));
    ranked.min().map(|(_, folder)| folder)
}

/// Only the files that are named as training files or are below a folder of such a name, if there
/// are any. Otherwise only those that are not named as files to validate or test, such as
/// `t10k-...` or `val-...`, if there are any. The others are left alone, as the text for people
/// says.
pub(super) fn training_files(root: &Path, files: Vec<PathBuf>) -> (Vec<PathBuf>, Vec<String>) {
    let part = |file: &PathBuf| layout::part_of_file(file.strip_prefix(root).unwrap_or(file));
    let parts: Vec<_> = files.iter().map(part).collect();
    let has_training = parts.contains(&Some(NamedPart::Training));
    let is_read = |part: &Option<NamedPart>| match has_training {
        true => *part == Some(NamedPart::Training),
        false => part.is_none(),
    };
    if !parts.iter().any(is_read) {
        return (files, Vec::new());
    }
    let mut others = Vec::new();
    let mut training = Vec::new();
    for (file, part) in files.into_iter().zip(&parts) {
        if is_read(part) { training.push(file) } else { others.push(file) }
    }
    let below = |file: &PathBuf| file.strip_prefix(root).unwrap_or(file).display().to_string();
    let names: Vec<_> = others.iter().map(below).collect();
    let files = if others.len() == 1 { "file" } else { "files" };
    let why = if has_training { "beside those named train" } else { "named as test files" };
    let text = format!("{} {files} {why}: {}", others.len(), several(&names));
    (training, if others.is_empty() { Vec::new() } else { vec![text] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::source::parquet::tests::write;
    use crate::data::store::tar::tests::{archive, member};

    /// What stands beside the training images of a folder, without the folder's name.
    fn beside(root: &Path) -> Option<String> {
        let source = open(root, [0; 3]).unwrap();
        let tests = tests_beside(root, &*source)?.to_string();
        Some(tests.replace(&format!("{}/", root.display()), ""))
    }

    #[test]
    fn packed_files_named_as_tests_stand_beside_those_named_train() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let image = || {
            let mut bytes = std::io::Cursor::new(Vec::new());
            image::GrayImage::new(1, 1).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
            bytes.into_inner()
        };
        let table = |name: &str| {
            let path = root.join("tables").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            write(&path, &[(image(), 0), (image(), 1)], 4, &["ants", "bees"]);
        };
        table("data/train-00000-of-00001.parquet");
        assert_eq!(beside(&root.join("tables")), None);
        table("data/test-00001-of-00002.parquet");
        table("data/test-00000-of-00002.parquet");
        table("data/extra-00000-of-00001.parquet");
        table("other/validation-00000-of-00001.parquet");
        table("data/val_masks-00000-of-00001.parquet");
        let found = beside(&root.join("tables")).unwrap();
        assert_eq!(found, "data/test-00000-of-00002.parquet and 1 more file");
        let source = open(&root.join("tables"), [0; 3]).unwrap();
        let tests = tests_beside(&root.join("tables"), &*source).unwrap().open([0; 3]).unwrap();
        assert_eq!((source.len(), tests.len(), tests.classes().len()), (2, 4, 2));
        table("data/validation-00000-of-00001.parquet");
        let found = beside(&root.join("tables")).unwrap();
        assert_eq!(found, "data/validation-00000-of-00001.parquet");
        // A file that was given alone has nothing beside it.
        let one = root.join("tables/data/train-00000-of-00001.parquet");
        assert_eq!(tests_beside(&one, &*open(&one, [0; 3]).unwrap()), None);

        let tar = |name: &str| {
            let bytes = archive(&[member("ants/1.png", b'0', &image())]);
            std::fs::create_dir_all(root.join("tars")).unwrap();
            crate::files::write_whole(&root.join("tars").join(name), &bytes).unwrap();
        };
        tar("train-0.tar");
        tar("val-0.tar");
        assert_eq!(beside(&root.join("tars")).unwrap(), "val-0.tar");
        std::fs::remove_file(root.join("tars/train-0.tar")).unwrap();
        tar("shard-0.tar");
        let source = open(&root.join("tars"), [0; 3]).unwrap();
        let left = source.notes().left_alone;
        assert_eq!((source.len(), left), (1, vec!["1 file named as test files: val-0.tar".into()]));

        let idx = |name: &str| {
            std::fs::create_dir_all(root.join("idx")).unwrap();
            let bytes = [0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 7];
            crate::files::write_whole(&root.join("idx").join(name), &bytes).unwrap();
        };
        idx("train-images-idx3-ubyte");
        idx("t10k-images-idx3-ubyte");
        idx("t10k-images-idx3-ubyte.gz");
        assert_eq!(beside(&root.join("idx")).unwrap(), "t10k-images-idx3-ubyte");
    }
}
