//! NumPy arrays of bytes: `.npy` read by position, `.npz` read whole (numpy/lib/format.py).

use std::fs::File;
use std::io::{Cursor, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::data::source::labels::Labels;
use crate::data::{Clip, Error, Result, Sample, Source, Stamp};
use crate::files::open_file;
use crate::zip::Zip;

/// Names of the images in a `.npz`. The first name found is used.
const IMAGE_NAMES: [&str; 5] = ["images", "x", "x_train", "train_images", "arr_0"];

/// Names of the labels in a `.npz`. The first name found is used.
const LABEL_NAMES: [&str; 4] = ["labels", "y", "y_train", "train_labels"];

/// The most bytes of an array in an archive, which is held in memory.
const MOST_BYTES: u64 = 4 << 30;

/// The most bytes of an array's header. NumPy itself refuses more than 10,000 by default.
const MOST_HEADER_BYTES: usize = 65_536;

/// Images [N, H, W], [N, H, W, C] or [N, C, H, W] of bytes, with C = 1 or 3.
pub struct Npy {
    path: PathBuf,
    bytes: Bytes,
    layout: Layout,
    labels: Vec<i32>,
    classes: Vec<String>,
}

/// Where an array's bytes are.
enum Bytes {
    /// In a file from an offset on.
    File(File, u64),
    /// In memory.
    Memory(Vec<u8>),
}

/// The layout of the images in an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    len: usize,
    height: usize,
    width: usize,
    channels: usize,
    /// [N, C, H, W]
    channels_first: bool,
}

impl Layout {
    /// Bytes of an image.
    fn size(&self) -> usize {
        self.height * self.width * self.channels
    }
}

impl Npy {
    /// Opens a `.npy` of images.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = open_file(path).map_err(|error| Error::read(path, error))?;
        let found = file.metadata().map_err(|error| Error::read(path, error))?.len();
        let (header, offset) = Header::read(&mut file, path)?;
        let layout = header.images(path)?;
        let wanted = layout.len as u64 * layout.size() as u64 + offset as u64;
        if found != wanted {
            let problem = format!("has {found} bytes, expected {wanted} for {:?}", header.shape);
            return Err(Error::file(path, format!("{problem}. Write or fetch it again")));
        }
        let bytes = Bytes::File(file, offset as u64);
        Ok(Self { path: path.into(), bytes, layout, labels: Vec::new(), classes: Vec::new() })
    }

    /// Reads a `.npz` of images and, if there are any, their labels.
    pub fn open_archive(path: &Path) -> Result<Self> {
        let file = open_file(path).map_err(|error| Error::read(path, error))?;
        let mut zip = Zip::open(file).map_err(|problem| Error::file(path, problem))?;
        let member = |names: &[&str]| {
            let file = |name: &&str| format!("{name}.npy");
            names.iter().map(file).find(|name| zip.names().any(|found| found == name))
        };
        let images = member(&IMAGE_NAMES).ok_or_else(|| {
            let found: Vec<_> = zip.names().map(|name| name.trim_end_matches(".npy")).collect();
            let problem = format!(
                "has no array of images: looked for {}, found {}. Save the images under one of \
                 these names",
                IMAGE_NAMES.join(", "),
                found.join(", ")
            );
            Error::file(path, problem)
        })?;
        let labels = member(&LABEL_NAMES);
        let mut read =
            |name: &str| zip.read(name, MOST_BYTES).map_err(|problem| Error::file(path, problem));
        let (layout, bytes) = whole_images(&read(&images)?, &path.join(&images))?;
        let (labels, classes) = match labels {
            None => (Vec::new(), Vec::new()),
            Some(labels) => {
                let labels_path = path.join(&labels);
                whole_labels(&read(&labels)?, layout.len, &labels_path)?
            }
        };
        Ok(Self { path: path.into(), bytes: Bytes::Memory(bytes), layout, labels, classes })
    }
}

impl Source for Npy {
    fn len(&self) -> usize {
        self.layout.len
    }

    fn read(&self, index: usize) -> Result<Sample> {
        let Layout { height, width, channels, channels_first, .. } = self.layout;
        let size = self.layout.size();
        let mut data = vec![0; size];
        match &self.bytes {
            Bytes::Memory(bytes) => data.copy_from_slice(&bytes[index * size..(index + 1) * size]),
            Bytes::File(file, offset) => {
                let read = file.read_exact_at(&mut data, offset + index as u64 * size as u64);
                read.map_err(|error| Error::read(&self.path, error))?;
            }
        }
        if channels_first && channels == 3 {
            data = interleaved(&data, height * width);
        }
        let name = self.stamp(index).name;
        let clip = Clip::image(height, width, channels, data);
        Ok(Sample { clip, label: self.label(index), name })
    }

    fn stamp(&self, index: usize) -> Stamp {
        let name = format!("{} image {index}", self.path.display());
        Stamp { name, bytes: self.layout.size() as u64 }
    }

    fn label(&self, index: usize) -> i32 {
        self.labels.get(index).copied().unwrap_or(-1)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn describe(&self) -> String {
        let Layout { len, height, width, channels, .. } = self.layout;
        let (path, classes) = (self.path.display(), crate::data::source::classes(&self.classes));
        format!("{path}: {len} images of {height} x {width} x {channels}, {classes}")
    }

    fn files(&self) -> Vec<&Path> {
        vec![&self.path]
    }
}

/// [3, H·W] -> [H·W, 3]
fn interleaved(planes: &[u8], pixels: usize) -> Vec<u8> {
    (0..pixels).flat_map(|at| [0, 1, 2].map(|channel| planes[channel * pixels + at])).collect()
}

/// An array's images and their bytes.
fn whole_images(bytes: &[u8], path: &Path) -> Result<(Layout, Vec<u8>)> {
    let (header, offset) = Header::read(&mut Cursor::new(bytes), path)?;
    let layout = header.images(path)?;
    let (found, wanted) = (bytes.len() - offset, layout.len * layout.size());
    if found != wanted {
        let problem = format!("has {found} bytes, expected {wanted} for {:?}", header.shape);
        return Err(Error::file(path, problem));
    }
    Ok((layout, bytes[offset..].to_vec()))
}

/// An array's labels as classes, and their names.
fn whole_labels(bytes: &[u8], images: usize, path: &Path) -> Result<(Vec<i32>, Vec<String>)> {
    let (header, offset) = Header::read(&mut Cursor::new(bytes), path)?;
    let fail = |expected: String| {
        let Header { kind, shape, .. } = &header;
        Error::file(path, format!("holds labels {kind:?} {shape:?}, expected {expected}"))
    };
    // [N], and Keras' [N, 1].
    let shape: Vec<usize> = header.shape.iter().copied().filter(|&side| side != 1).collect();
    let is_list = shape == [images] || (images == 1 && shape.is_empty());
    if !is_list {
        return Err(fail(format!("one for each of the {images} images")));
    }
    let size = match header.kind.as_str() {
        "|u1" | "|i1" => 1,
        "<i2" | "<u2" => 2,
        "<i4" | "<u4" => 4,
        "<i8" | "<u8" => 8,
        _ => return Err(fail("whole numbers of 1 to 8 bytes, little-endian".to_owned())),
    };
    if bytes.len() - offset != images * size {
        return Err(fail(format!("{} bytes of them", images * size)));
    }
    let signed = header.kind.as_bytes()[1] == b'i';
    let number = |bytes: &[u8]| -> i128 {
        let fill = if signed && bytes[size - 1] & 0x80 != 0 { 0xFF } else { 0 };
        let mut whole = [fill; 16];
        whole[..size].copy_from_slice(bytes);
        i128::from_le_bytes(whole)
    };
    let mut labels = Labels::default();
    bytes[offset..].chunks_exact(size).for_each(|at| labels.push(Some(&number(at).to_string())));
    Ok(labels.finish())
}

/// The content of an array's header.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    /// `descr`, e.g. `|u1`.
    kind: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Reads a header. Also returns the offset at which the array begins.
    fn read(file: &mut impl Read, path: &Path) -> Result<(Self, usize)> {
        let cut = |_| Error::file(path, "ends inside its header. Write or fetch it again");
        let mut start = [0; 10];
        file.read_exact(&mut start).map_err(cut)?;
        if &start[..6] != b"\x93NUMPY" {
            let problem = "does not start like a NumPy array. Write it with numpy.save";
            return Err(Error::file(path, problem));
        }
        let (length, begin) = match start[6] {
            1 => (usize::from(u16::from_le_bytes([start[8], start[9]])), 10),
            2 | 3 => {
                let mut more = [0; 2];
                file.read_exact(&mut more).map_err(cut)?;
                let length = u32::from_le_bytes([start[8], start[9], more[0], more[1]]);
                (length as usize, 12)
            }
            version => {
                let problem = format!("is a NumPy array of format {version}, expected 1 to 3");
                return Err(Error::file(path, problem));
            }
        };
        if length > MOST_HEADER_BYTES {
            let problem = format!("has a header of {length} bytes, expected {MOST_HEADER_BYTES}");
            return Err(Error::file(path, problem));
        }
        let mut text = vec![0; length];
        file.read_exact(&mut text).map_err(cut)?;
        let text = String::from_utf8_lossy(&text);
        let header = Self::parse(&text).ok_or_else(|| {
            let start: String = text.chars().take(80).collect();
            let problem = format!("has the header {start:?}, expected descr, fortran_order, shape");
            Error::file(path, format!("{problem}. Write it with numpy.save"))
        })?;
        Ok((header, begin + length))
    }

    /// Parses `{'descr': '|u1', 'fortran_order': False, 'shape': (2, 28, 28), }`.
    fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            let (_, after) = text.split_once(&format!("'{key}':"))?;
            Some(after.trim_start())
        };
        let kind = value("descr")?.strip_prefix('\'')?.split_once('\'')?.0.to_owned();
        let order = value("fortran_order")?;
        let fortran_order = order.starts_with("True");
        if !fortran_order && !order.starts_with("False") {
            return None;
        }
        let (shape, _) = value("shape")?.strip_prefix('(')?.split_once(')')?;
        let sides = shape.split(',').map(str::trim).filter(|side| !side.is_empty());
        let shape = sides.map(|side| side.parse().ok()).collect::<Option<Vec<usize>>>()?;
        Some(Self { kind, fortran_order, shape })
    }

    /// The layout of its images.
    fn images(&self, path: &Path) -> Result<Layout> {
        let fail = |problem: String| Err(Error::file(path, problem));
        if self.kind != "|u1" {
            return fail(format!(
                "holds numbers of kind {:?}, expected bytes (uint8). Scale the images to 0 to 255 \
                 and save images.astype(\"uint8\")",
                self.kind
            ));
        }
        let shape = &self.shape;
        if self.fortran_order {
            return fail("is in Fortran order. Save numpy.ascontiguousarray(images)".to_owned());
        }
        let is_colour = |side: usize| side == 1 || side == 3;
        let (len, height, width, channels, channels_first) = match shape[..] {
            [n, h, w] => (n, h, w, 1, false),
            [n, first, h, w] if is_colour(first) && !is_colour(w) => (n, h, w, first, true),
            [n, h, w, last] if is_colour(last) && !is_colour(h) => (n, h, w, last, false),
            [_, first, _, last] if is_colour(first) && is_colour(last) => {
                return fail(format!(
                    "has the shape {shape:?}: channels may come first or last. Save [N, H, W] of \
                     grey images, or larger images"
                ));
            }
            _ => {
                let expected = "[N, H, W], [N, H, W, C] or [N, C, H, W] with 1 or 3 channels";
                return fail(format!("has the shape {shape:?}, expected {expected}"));
            }
        };
        let sides = [len, height, width, channels];
        let bytes = sides.iter().try_fold(1_usize, |product, &side| product.checked_mul(side));
        // Half of what can be addressed, so that an offset can be added.
        if bytes.is_none_or(|bytes| bytes == 0 || bytes > usize::MAX / 2) {
            return fail(format!(
                "has the shape {shape:?}, expected at least one image with pixels"
            ));
        }
        Ok(Layout { len, height, width, channels, channels_first })
    }
}

#[cfg(test)]
mod tests;
