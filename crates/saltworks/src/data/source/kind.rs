//! The kind of source at a path. It is detected from the path, never declared.

use super::beside::FilesBeside;
use super::folder::ARROW_ADVICE;
use super::list::LISTS;
use super::parts::{training_files, training_folder};
use super::{
    Idx, ImageFiles, MovingFashion, Npy, Parquet, Shards, Source, builtin, idx, image_file,
};
use crate::data::store::{braces, object};
use crate::data::{Background, Decoding, Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How images are read, whatever their kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenOptions {
    /// How images become pixels.
    pub decoding: Decoding,
    /// The column of a table that the images are in. If not set, it is found by its name and type.
    pub column: Option<String>,
    /// Whether samples are clips: an array may have an axis of time.
    pub clips: bool,
    /// Whether these are images to test: of a list with several parts, those are read.
    pub tests: bool,
}

impl From<Background> for OpenOptions {
    fn from(background: Background) -> Self {
        Decoding::from(background).into()
    }
}

impl From<Decoding> for OpenOptions {
    fn from(decoding: Decoding) -> Self {
        Self { decoding, ..Self::default() }
    }
}

/// Opens the source at `path`. Its kind is detected from the path, by the table in docs/data.md.
/// A background stands for options that set nothing else.
pub fn open(path: &Path, options: impl Into<OpenOptions>) -> Result<Arc<dyn Source>> {
    let options = &options.into();
    if let Some(name) = path.to_str().and_then(|path| path.strip_prefix("builtin:")) {
        return builtin(name);
    }
    if let Some(url) = object::url(path) {
        return open_url(path, url, options);
    }
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => open_folder(path, options),
        Ok(_) => open_file(path, options),
        Err(error) => match path.to_str().filter(|text| text.contains('{')) {
            Some(text) => open_range(path, text, options),
            None => Err(Error::read(path, error)),
        },
    }
}

fn builtin(name: &str) -> Result<Arc<dyn Source>> {
    match name {
        "fashion-mnist" => Ok(Arc::new(builtin::fashion_mnist()?)),
        "moving-fashion" => Ok(Arc::new(MovingFashion::new(builtin::fashion_mnist()?))),
        other => {
            let expected = "builtin:fashion-mnist or builtin:moving-fashion";
            Err(Error::setting("path", &format!("builtin:{other}"), expected))
        }
    }
}

/// Opens archives or parquet files in a store by their names, or a folder that the store lists.
fn open_url(path: &Path, url: &str, options: &OpenOptions) -> Result<Arc<dyn Source>> {
    object::check_reachable(path)?;
    if is_tar(path) {
        return open_range(path, url, options);
    }
    if is_parquet(path) {
        let files = braces::expand(url).map_err(|problem| Error::file(path, problem))?;
        let files: Vec<_> = files.into_iter().map(PathBuf::from).collect();
        return Ok(Arc::new(Parquet::open(path, &files, options)?));
    }
    let (archives, tables) = object::find(path)?;
    match (archives.is_empty(), tables.is_empty()) {
        (false, _) => Ok(Arc::new(open_shards(path, archives, options)?)),
        (true, false) => Ok(Arc::new(open_tables(path, tables, options)?)),
        (true, true) => {
            let problem = "0 .tar or .parquet objects under it. Only these are read from stores. \
                           Check the URL, or pack the images";
            Err(Error::file(path, problem))
        }
    }
}

fn open_range(path: &Path, text: &str, options: &OpenOptions) -> Result<Arc<dyn Source>> {
    let files = braces::expand(text).map_err(|problem| Error::file(path, problem))?;
    let files: Vec<_> = files.into_iter().map(PathBuf::from).collect();
    Ok(Arc::new(Shards::open(path, &files, options.decoding)?))
}

fn open_file(path: &Path, options: &OpenOptions) -> Result<Arc<dyn Source>> {
    if idx::is_image_file(path) {
        return Ok(Arc::new(Idx::open(path)?));
    }
    if is_tar(path) {
        return Ok(Arc::new(Shards::open(path, &[path.into()], options.decoding)?));
    }
    match image_file::extension(path).as_str() {
        extension if LISTS.contains(&extension) => {
            return Ok(Arc::new(ImageFiles::of_list(path, options.decoding, options.tests)?));
        }
        "npy" => return Ok(Arc::new(Npy::open(path, options)?)),
        "npz" => return Ok(Arc::new(Npy::open_archive(path, options)?)),
        "parquet" => return Ok(Arc::new(Parquet::open(path, &[path.into()], options)?)),
        "arrow" => {
            let problem = format!("is an Arrow file, which is not read. {ARROW_ADVICE}");
            return Err(Error::file(path, problem));
        }
        _ => {}
    }
    let problem = "is a file of an unsupported kind, expected .tar, .csv, .tsv, .txt, \
                   .jsonl, .parquet, .npy, .npz or an IDX file named *-idx3-ubyte or \
                   *-idx3-ubyte.gz. For image files set data.path to their folder";
    Err(Error::file(path, problem))
}

fn open_folder(path: &Path, options: &OpenOptions) -> Result<Arc<dyn Source>> {
    let train = training_folder(path)?;
    match open_packed(path, train.as_deref().unwrap_or(path), options)? {
        Some(packed) => Ok(packed),
        None => Ok(Arc::new(ImageFiles::part_of_folder(path, options.decoding, options.tests)?)),
    }
}

/// Opens the files of the folder `path` that each hold many images. None if it has none. The user
/// gave the folder `given`.
fn open_packed(
    given: &Path,
    path: &Path,
    options: &OpenOptions,
) -> Result<Option<Arc<dyn Source>>> {
    let files = files_in(path)?;
    let of_kind = |is_kind: fn(&Path) -> bool| -> Vec<PathBuf> {
        files.iter().filter(|file| is_kind(file)).cloned().collect()
    };
    let beside = |packed: &str, known: &[PathBuf]| {
        let known = known.iter().cloned().collect();
        FilesBeside { given, read: path, known }.told(packed)
    };
    let all_arrays = of_kind(idx::is_image_file);
    let (arrays, mut left_alone) = training_files(path, all_arrays.clone());
    match arrays.as_slice() {
        [] => {}
        [images] => {
            let labels = all_arrays.iter().flat_map(|file| idx::label_files_of(file));
            let known: Vec<_> = labels.chain(all_arrays.clone()).collect();
            left_alone.extend(beside("IDX file", &known));
            return Ok(Some(Arc::new(Idx::open(images)?.leaving(left_alone))));
        }
        [first, second, ..] => {
            let problem = format!(
                "holds several IDX files of images ({}, {}), expected one. Set data.path to one of \
                 the files",
                name(first),
                name(second)
            );
            return Err(Error::file(path, problem));
        }
    }
    let archives = of_kind(|file| image_file::extension(file) == "tar");
    if !archives.is_empty() {
        if ImageFiles::of_folder(path, options.decoding).is_ok() {
            // Often the archive that the images were unpacked from.
            let problem = "holds both .tar archives and images. Move one of them away, or set \
                           data.path to the archives, as in FOLDER/{a,b}.tar";
            return Err(Error::file(path, problem));
        }
        let beside = beside("archives", &archives);
        return Ok(Some(Arc::new(open_shards(path, archives, options)?.leaving(beside))));
    }
    let mut tables = Vec::new();
    parquet_files(path, &mut tables)?;
    if tables.is_empty() {
        return Ok(None);
    }
    let beside = beside("parquet files", &tables);
    Ok(Some(Arc::new(open_tables(path, tables, options)?.leaving(beside))))
}

/// Opens the archives that are named as training files.
fn open_shards(path: &Path, archives: Vec<PathBuf>, options: &OpenOptions) -> Result<Shards> {
    let (archives, left_alone) = training_files(path, archives);
    Ok(Shards::open(path, &archives, options.decoding)?.leaving(left_alone))
}

/// Opens the parquet files that are named as training files.
fn open_tables(path: &Path, tables: Vec<PathBuf>, options: &OpenOptions) -> Result<Parquet> {
    let (tables, left_alone) = training_files(path, tables);
    Ok(Parquet::open(path, &tables, options)?.leaving(left_alone))
}

pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The parquet files at any depth, sorted. Links to folders are not followed.
pub(super) fn parquet_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    files.extend(files_in(folder)?.into_iter().filter(|file| is_parquet(file)));
    folders_in(folder)?.iter().try_for_each(|folder| parquet_files(folder, files))
}

/// The folders directly inside a folder, sorted, without hidden ones and links.
pub(super) fn folders_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|error| Error::read(folder, error))?;
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::read(folder, error))?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if !hidden && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(entry.path());
        }
    }
    folders.sort();
    Ok(folders)
}

pub(in crate::data) fn is_parquet(path: &Path) -> bool {
    image_file::extension(path) == "parquet"
}

/// The files directly inside a folder, sorted, without hidden ones.
pub(super) fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|error| Error::read(folder, error))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::read(folder, error))?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        // Links are followed: copies from Hugging Face's cache need that.
        let kind = entry.file_type();
        let is_file = match kind {
            Ok(kind) if !kind.is_symlink() => kind.is_file(),
            _ => entry.path().is_file(),
        };
        if !hidden && is_file {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a file is named as a tar archive. Compressed ones count, too: opening one reports what
/// to do.
pub(in crate::data) fn is_tar(path: &Path) -> bool {
    const ENDINGS: [&str; 6] = [".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.zst", ".tar.bz2"];
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    ENDINGS.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::store::tar::tests::{archive, member};
    use crate::data::{Loader, LoaderOptions, Normalize, Order, Transform};

    #[test]
    fn a_missing_path_says_where_to_look() {
        let message = open(Path::new("no/such"), [0; 3]).err().unwrap().to_string();
        assert!(message.starts_with("no/such: no such file or folder. Check data.path"));
        let message = open(Path::new("builtin:mnist"), [0; 3]).err().unwrap().to_string();
        assert_eq!(
            message,
            "data.path is builtin:mnist, expected builtin:fashion-mnist or builtin:moving-fashion"
        );
    }

    #[test]
    fn a_file_of_no_known_kind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("photo.heic");
        std::fs::File::create(&file).unwrap();
        assert!(
            open(&file, [0; 3])
                .err()
                .unwrap()
                .to_string()
                .contains("is a file of an unsupported kind")
        );
        let file = folder.path().join("data-00000-of-00001.arrow");
        std::fs::File::create(&file).unwrap();
        let message = open(&file, [0; 3]).err().unwrap().to_string();
        assert!(message.contains("is an Arrow file, which is not read"), "{message}");
        assert!(message.contains("to_parquet"), "{message}");
    }

    /// Six batches of a source: pixels, labels and numbers of the images.
    fn all(path: &Path) -> Vec<(Vec<f32>, Vec<i32>, Vec<u64>)> {
        let options = LoaderOptions {
            batch: 4,
            threads: 2,
            prefetch: 2,
            order: Order::Shuffled { seed: 3 },
            first_sample: 0,
            augment_seed: 5,
            transform: Transform::center([8, 8]),
            channels: 3,
            normalize: Normalize::imagenet(),
            max_unreadable: 0.0,
        };
        let mut loader = Loader::new(open(path, [0; 3]).unwrap(), options).unwrap();
        let mut next = || {
            let batch = loader.next_batch().unwrap().unwrap().batch;
            let tape = engine::Tape::inference();
            let all: Vec<u32> = (0..batch.labels.len() as u32).collect();
            let order = engine::ops::PatchOrder::ChannelsFirst;
            let rows = engine::ops::patchify(&tape, &batch.images, [1, 8, 8], order, &all);
            (rows.unwrap().to_vec(), batch.labels, batch.indices)
        };
        (0..6).map(|_| next()).collect()
    }

    #[test]
    fn one_set_packed_four_ways_gives_the_same_batches() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, bytes: &[u8]| {
            std::io::Write::write_all(&mut std::fs::File::create(path(name)).unwrap(), bytes)
                .unwrap();
        };
        let (mut members, mut rows, mut lines) = (Vec::new(), Vec::new(), String::new());
        for at in 0..10_u8 {
            let class = ["ants", "bees"][usize::from(at / 5)];
            let name = format!("{class}/{at:02}.jpg");
            std::fs::create_dir_all(path("folder").join(class)).unwrap();
            let image = image::RgbImage::from_fn(12, 9, |x, y| {
                image::Rgb([at * 20, (x * 20) as u8, (y * 20) as u8])
            });
            image.save(path("folder").join(&name)).unwrap();
            let bytes = std::fs::read(path("folder").join(&name)).unwrap();
            members.push(member(&name, b'0', &bytes));
            rows.push((bytes, i64::from(at / 5)));
            lines.push_str(&format!("folder/{name},{class}\n"));
        }
        // The order of packing does not change the order of the set.
        members.swap(0, 7);
        write("set-0.tar", &archive(&members[..6]));
        write("set-1.tar", &archive(&members[6..]));
        write("list.csv", lines.as_bytes());
        crate::data::source::parquet::tests::write(&path("a.parquet"), &rows, 4, &["ants", "bees"]);
        let want = all(&path("folder"));
        for other in ["set-{0..1}.tar", "list.csv", "a.parquet"] {
            assert!(all(&path(other)) == want, "{other}");
            let source = open(&path(other), [0; 3]).unwrap();
            assert_eq!(source.classes(), ["ants", "bees"], "{other}");
        }
    }

    #[test]
    fn the_training_images_are_taken_if_folders_are_parts_of_a_set() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for name in ["train/cats/1.png", "train/dogs/2.png", "val/cats/3.png"] {
            std::fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
            image::GrayImage::new(1, 1).save(path.join(name)).unwrap();
        }
        std::fs::File::create(path.join("train/4.gif")).unwrap();
        let source = open(path, [0; 3]).unwrap();
        assert!(
            source.describe().ends_with("/train: 2 images, 2 classes"),
            "{}",
            source.describe()
        );
        assert_eq!(source.classes(), ["cats", "dogs"]);
        let left_alone = source.notes().left_alone.join("\n");
        for words in ["/val (1 images), named as validation or test images", "1 .gif"] {
            assert!(left_alone.contains(words), "{words} is not in {left_alone}");
        }
        let tests = crate::data::tests_beside(path, &*source).unwrap();
        assert_eq!(tests.to_string(), path.join("val").display().to_string());
        // Other folders beside them are classes, but the folder `val` is none.
        std::fs::create_dir(path.join("bees")).unwrap();
        image::GrayImage::new(1, 1).save(path.join("bees/5.png")).unwrap();
        assert_eq!(open(path, [0; 3]).unwrap().classes(), ["bees", "train"]);
    }

    #[test]
    fn an_archive_beside_its_unpacked_images_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let tar = archive(&[member("cats/1.png", b'0', b"not looked into")]);
        std::io::Write::write_all(&mut std::fs::File::create(path.join("a.tar")).unwrap(), &tar)
            .unwrap();
        assert!(open(path, [0; 3]).unwrap().describe().contains("in a tar archive"));
        std::fs::create_dir(path.join("cats")).unwrap();
        image::GrayImage::new(1, 1).save(path.join("cats/1.png")).unwrap();
        let message = open(path, [0; 3]).err().unwrap().to_string();
        assert!(message.contains("holds both .tar archives and images"), "{message}");
    }

    #[test]
    fn the_built_in_source_opens_by_name() {
        let source = open(Path::new("builtin:fashion-mnist"), [0; 3]).unwrap();
        assert_eq!((source.len(), source.classes().len()), (10_000, 10));
    }
}
