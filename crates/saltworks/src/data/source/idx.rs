//! IDX files, the format of MNIST (LeCun, yann.lecun.com/exdb/mnist): a big-endian header, then
//! bytes. They are plain or gzipped.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::data::{Clip, Error, Notes, Result, Sample, Source, Stamp};
use crate::files::open_file;

/// The most bytes of one IDX file after unpacking. The file is held in memory, and a few megabytes
/// of gzip can unpack to gigabytes.
const MOST_BYTES: u64 = 4 << 30;

/// Grey images of one size from an IDX file, with labels from the file that belongs to it.
#[derive(Debug)]
pub struct Idx {
    path: PathBuf,
    /// [len, height, width]
    images: Vec<u8>,
    /// [len], or empty
    labels: Vec<u8>,
    height: usize,
    width: usize,
    classes: Vec<String>,
    left_alone: Vec<String>,
}

impl Idx {
    /// Opens a file of images and, if it is beside it, the file of their labels. The names are
    /// those of MNIST: `t10k-images-idx3-ubyte.gz` and `t10k-labels-idx1-ubyte.gz`.
    pub fn open(images: &Path) -> Result<Self> {
        let open = |path: &Path| open_file(path).map(BufReader::new);
        let image_file = open(images).map_err(|error| Error::read(images, error))?;
        let mut labels = label_files_of(images).into_iter();
        match labels.find(|labels| labels.exists()) {
            None => Self::parse(image_file, None::<io::Empty>, images, images),
            Some(labels) => {
                let label_file = open(&labels).map_err(|error| Error::read(&labels, error))?;
                Self::parse(image_file, Some(label_file), images, &labels)
            }
        }
    }

    /// Parses the contents of the two files. The paths are for messages.
    pub fn parse(
        images: impl Read,
        labels: Option<impl Read>,
        images_path: &Path,
        labels_path: &Path,
    ) -> Result<Self> {
        let ([len, height, width], images) = read_idx(images, images_path)?;
        if images.is_empty() {
            let problem =
                format!("holds {len} images of {height} x {width}, expected at least one");
            return Err(Error::file(images_path, problem));
        }
        let labels = match labels {
            None => Vec::new(),
            Some(labels) => {
                let ([label_len], labels) = read_idx(labels, labels_path)?;
                if label_len != len {
                    let path = images_path.display();
                    let problem = format!("holds {label_len} labels, expected {len} as in {path}");
                    return Err(Error::file(labels_path, problem));
                }
                labels
            }
        };
        let most = labels.iter().max().map_or(0, |&label| usize::from(label) + 1);
        let classes = (0..most).map(|class| class.to_string()).collect();
        let (path, left_alone) = (images_path.into(), Vec::new());
        Ok(Self { path, images, labels, height, width, classes, left_alone })
    }

    /// The same, with what is beside it and not read, for people.
    #[must_use]
    pub(super) fn leaving(self, left_alone: Vec<String>) -> Self {
        Self { left_alone, ..self }
    }

    /// The same images with names for the classes 0, 1, ...
    #[must_use]
    pub fn named(self, classes: Vec<String>) -> Self {
        assert!(classes.len() >= self.classes.len(), "a name for every label");
        Self { classes, ..self }
    }
}

impl Source for Idx {
    fn len(&self) -> usize {
        self.images.len() / (self.height * self.width)
    }

    fn read(&self, index: usize) -> Result<Sample> {
        let &Self { height, width, .. } = self;
        let size = height * width;
        let data = self.images[index * size..(index + 1) * size].to_vec();
        let name = self.stamp(index).name;
        let clip = Clip::image(height, width, 1, data);
        Ok(Sample { clip, label: self.label(index), name })
    }

    fn stamp(&self, index: usize) -> Stamp {
        let name = format!("{} image {index}", self.path.display());
        Stamp { name, bytes: (self.height * self.width) as u64 }
    }

    fn label(&self, index: usize) -> i32 {
        self.labels.get(index).map_or(-1, |&label| i32::from(label))
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn notes(&self) -> Notes {
        Notes { left_alone: self.left_alone.clone(), ..Notes::default() }
    }

    fn describe(&self) -> String {
        let Self { path, height, width, classes, .. } = self;
        let labels = match classes.len() {
            0 => "no labels".to_owned(),
            n => format!("{n} classes"),
        };
        format!("{}: {} images of {height} x {width}, {labels}", path.display(), self.len())
    }

    fn files(&self) -> Vec<&Path> {
        vec![&self.path]
    }
}

/// Whether a file is named as a file of IDX images.
pub(in crate::data) fn is_image_file(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase());
    name.is_some_and(|name| {
        ["idx3-ubyte", "idx3-ubyte.gz"].iter().any(|ending| name.ends_with(ending))
    })
}

/// Where the labels may be: first packed as the images are, then the other way.
pub(super) fn label_files_of(images: &Path) -> [PathBuf; 2] {
    let name = images.file_name().unwrap_or_default().to_string_lossy();
    let name = name.replace("images", "labels").replace("idx3", "idx1");
    let other = match name.strip_suffix(".gz") {
        Some(plain) => plain.to_owned(),
        None => format!("{name}.gz"),
    };
    [images.with_file_name(name), images.with_file_name(other)]
}

/// Reads an IDX file of bytes with RANK dimensions. It begins with the magic 0, 0, 8 (bytes), RANK.
/// Then follow each dimension as a big-endian u32, and exactly as many bytes as their product.
/// Memory grows with the bytes found, not with the size in the header.
fn read_idx<const RANK: usize>(file: impl Read, path: &Path) -> Result<([usize; RANK], Vec<u8>)> {
    let fail = |problem: String| Error::file(path, problem);
    let mut file = unpacked(file).map_err(|error| Error::read(path, error))?;
    let mut header = vec![0; 4 + 4 * RANK];
    file.read_exact(&mut header).map_err(|error| fail(header_problem(&error, header.len())))?;
    let magic = [0, 0, 8, RANK as u8];
    if header[..4] != magic {
        let found = &header[..4];
        return Err(fail(format!(
            "starts with {found:?}, expected {magic:?}: an IDX file of bytes with {RANK} dimensions"
        )));
    }
    let words = header[4..].chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]);
    let mut dims = [0; RANK];
    dims.iter_mut().zip(words).for_each(|(dim, word)| *dim = u32::from_be_bytes(word) as usize);
    let wanted = dims.iter().try_fold(1_u64, |product, &dim| product.checked_mul(dim as u64));
    let Some(wanted) = wanted.filter(|&wanted| wanted <= MOST_BYTES) else {
        return Err(fail(format!("states {dims:?} bytes, expected at most {MOST_BYTES} in total")));
    };
    let mut bytes = Vec::new();
    // One byte more than wanted shows whether more data follows.
    file.take(wanted + 1).read_to_end(&mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => fail("gzip data is cut off. Fetch the file again".into()),
        _ => Error::read(path, error),
    })?;
    let found = bytes.len() as u64;
    if found != wanted {
        let found = if found > wanted { "more".to_owned() } else { found.to_string() };
        return Err(fail(format!(
            "holds {found} bytes after its header, expected {wanted} for {dims:?}. Fetch the file \
             again"
        )));
    }
    Ok((dims, bytes))
}

fn header_problem(error: &io::Error, expected: usize) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            format!("ends inside its header, expected {expected} bytes of it. Fetch the file again")
        }
        _ => format!("cannot be unpacked ({error}). Fetch the file again"),
    }
}

/// The file's bytes, through gzip if it starts with gzip's magic 1f 8b.
fn unpacked<'a>(mut file: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut start = Vec::new();
    file.by_ref().take(2).read_to_end(&mut start)?;
    let packed = start == [0x1F, 0x8B];
    let whole = io::Cursor::new(start).chain(file);
    Ok(if packed { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn idx(dims: &[u32], bytes: &[u8]) -> Vec<u8> {
        let dims_bytes = dims.iter().flat_map(|dim| dim.to_be_bytes());
        [0, 0, 8, dims.len() as u8]
            .into_iter()
            .chain(dims_bytes)
            .chain(bytes.iter().copied())
            .collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    fn parse(images: &[u8], labels: &[u8]) -> Result<Idx> {
        Idx::parse(images, Some(labels), Path::new("images"), Path::new("labels"))
    }

    #[test]
    fn plain_and_gzipped_files_read_alike() {
        let (images, labels) = (idx(&[2, 1, 3], &[1, 2, 3, 4, 5, 6]), idx(&[2], &[4, 0]));
        for source in [parse(&images, &labels), parse(&gzip(&images), &gzip(&labels))] {
            let source = source.unwrap();
            let sample = source.read(1).unwrap();
            assert_eq!((sample.clip.data, sample.label), (vec![4, 5, 6], 0));
            assert_eq!((source.label(0), source.classes().len()), (4, 5));
        }
    }

    #[test]
    fn a_pair_on_disk_opens_by_its_images_or_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            std::fs::File::create(folder.path().join(name)).unwrap().write_all(bytes).unwrap();
        };
        write("t10k-images-idx3-ubyte.gz", &gzip(&idx(&[2, 1, 1], &[7, 8])));
        let images = folder.path().join("t10k-images-idx3-ubyte.gz");
        assert_eq!(crate::data::open(&images, [0; 3]).unwrap().label(0), -1);
        write("t10k-labels-idx1-ubyte.gz", &gzip(&idx(&[2], &[1, 0])));
        assert_eq!(crate::data::open(&images, [0; 3]).unwrap().label(0), 1);
        assert_eq!(crate::data::open(folder.path(), [0; 3]).unwrap().len(), 2);
        write("train-images-idx3-ubyte", &idx(&[1, 1, 1], &[7]));
        // Training files go before test files.
        assert_eq!(crate::data::open(folder.path(), [0; 3]).unwrap().len(), 1);
        write("train-more-images-idx3-ubyte", &idx(&[1, 1, 1], &[7]));
        let message = crate::data::open(folder.path(), [0; 3]).err().unwrap().to_string();
        assert!(
            message.contains("(train-images-idx3-ubyte, train-more-images-idx3-ubyte)"),
            "{message}"
        );
    }

    #[test]
    fn labels_may_be_packed_if_the_images_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            std::fs::File::create(folder.path().join(name)).unwrap().write_all(bytes).unwrap();
        };
        write("train-images-idx3-ubyte", &idx(&[2, 1, 1], &[7, 8]));
        write("train-labels-idx1-ubyte.gz", &gzip(&idx(&[2], &[1, 0])));
        assert_eq!(crate::data::open(folder.path(), [0; 3]).unwrap().label(0), 1);
    }

    #[test]
    fn no_bytes_make_the_reader_panic() {
        let (images, labels) = (idx(&[2, 1, 3], &[1, 2, 3, 4, 5, 6]), idx(&[2], &[4, 0]));
        let packed = gzip(&images);
        crate::fuzz::mutate("idx", &images, |bytes| {
            let _ = parse(bytes, &labels);
        });
        crate::fuzz::mutate("idx.gz", &packed, |bytes| {
            let _ = parse(bytes, &labels);
        });
        crate::fuzz::mutate("idx labels", &labels, |bytes| {
            let _ = parse(&images, bytes);
        });
    }

    #[test]
    fn wrong_files_are_refused_by_name() {
        let (images, labels) = (idx(&[2, 1, 3], &[1, 2, 3, 4, 5, 6]), idx(&[2], &[4, 0]));
        let message = |images: &[u8], labels: &[u8]| parse(images, labels).unwrap_err().to_string();
        let refused = |images: &[u8], labels: &[u8], part: &str| {
            let message = message(images, labels);
            assert!(message.contains(part), "{message}");
        };
        refused(&labels, &labels, "images: ends inside its header, expected 16 bytes");
        refused(b"not an idx file, but long enough", &labels, "expected [0, 0, 8, 3]");
        refused(&images[..20], &labels, "images: holds 4 bytes after its header, expected 6");
        refused(&[&images[..], &[0]].concat(), &labels, "holds more bytes after its header");
        refused(&images, &idx(&[3], &[1, 2, 3]), "labels: holds 3 labels, expected 2 as in images");
        refused(&images, b"", "labels: ends inside its header");
        refused(&idx(&[0, 28, 28], &[]), &idx(&[0], &[]), "holds 0 images of 28 x 28");
        let packed = gzip(&images);
        refused(&packed[..packed.len() - 9], &labels, "images: ");
    }

    #[test]
    fn a_header_that_promises_too_much_takes_no_memory() {
        let huge = idx(&[u32::MAX, u32::MAX, u32::MAX], &[1]);
        assert!(parse(&huge, &[]).unwrap_err().to_string().contains("expected at most"));
        let large = idx(&[1 << 20, 64, 64], &[1]);
        assert!(parse(&large, &[]).unwrap_err().to_string().contains("holds 1 bytes"));
    }
}
