//! NumPy arrays of images: `.npy` read by position, `.npz` read whole (numpy/lib/format.py).

use std::fs::File;
use std::io::{Cursor, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::data::source::labels::{Classes, Labels};
use crate::data::source::{Notes, OpenOptions, several};
use crate::data::{
    Decoding, Error, Info, MOST_CHANNELS, NumberKind, Numbers, RawSample, Result, Sample, Source,
    Stamp, StoredAs,
};
use crate::files::open_file;
use crate::zip::Zip;

/// Names of the images in a `.npz`. The first name found is used.
const IMAGE_NAMES: [&str; 6] = ["images", "clips", "x", "x_train", "train_images", "arr_0"];

/// Names of the labels in a `.npz`. The first name found is used.
const LABEL_NAMES: [&str; 4] = ["labels", "y", "y_train", "train_labels"];

/// The most bytes of an array in an archive, which is held in memory.
const MOST_BYTES: u64 = 4 << 30;

/// The most bytes of an array's header. NumPy itself refuses more than 10,000 by default.
const MOST_HEADER_BYTES: usize = 65_536;

/// Images [N, H, W], [N, H, W, C] or [N, C, H, W] of numbers, or clips [N, T, H, W],
/// [N, T, H, W, C] or [N, T, C, H, W].
pub struct Npy {
    path: PathBuf,
    bytes: Bytes,
    decoding: Decoding,
    layout: Layout,
    labels: Vec<i32>,
    classes: Vec<String>,
    /// Names of other arrays in the archive.
    others: Vec<String>,
}

/// Where an array's bytes are.
enum Bytes {
    /// In a file from an offset on.
    File(File, u64),
    /// In memory, from an offset on.
    Memory(Vec<u8>, usize),
}

/// The layout of the images in an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    len: usize,
    /// T, 1 for images.
    frames: usize,
    height: usize,
    width: usize,
    channels: usize,
    /// [C, H, W] for each frame.
    channels_first: bool,
    kind: NumberKind,
    big_endian: bool,
}

impl Layout {
    /// Bytes of an image.
    fn size(&self) -> usize {
        self.frames * self.height * self.width * self.channels * self.kind.size()
    }
}

impl Npy {
    /// Opens a `.npy` of images.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self> {
        let decoding = options.decoding;
        let mut file = open_file(path).map_err(|error| Error::read(path, error))?;
        let found = file.metadata().map_err(|error| Error::read(path, error))?.len();
        let (header, offset) = Header::read(&mut file, path)?;
        let layout = header.images(path, options.clips)?;
        let wanted = layout.len as u64 * layout.size() as u64 + offset as u64;
        if found != wanted {
            let problem = format!("has {found} bytes, expected {wanted} for {:?}", header.shape);
            return Err(Error::file(path, format!("{problem}. Write or fetch it again")));
        }
        let bytes = Bytes::File(file, offset as u64);
        let (labels, classes, others) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { path: path.into(), bytes, decoding, layout, labels, classes, others })
    }

    /// Reads a `.npz` of images and, if there are any, their labels.
    pub fn open_archive(path: &Path, options: &OpenOptions) -> Result<Self> {
        let decoding = options.decoding;
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
        let is_other = |name: &&str| *name != images && Some(*name) != labels.as_deref();
        let others = zip.names().filter(is_other).map(str::to_owned).collect();
        let mut read =
            |name: &str| zip.read(name, MOST_BYTES).map_err(|problem| Error::file(path, problem));
        let (layout, bytes) = whole_images(read(&images)?, &path.join(&images), options.clips)?;
        let (labels, classes) = match labels {
            None => (Vec::new(), Vec::new()),
            Some(labels) => {
                let labels_path = path.join(&labels);
                whole_labels(&read(&labels)?, layout.len, &labels_path)?
            }
        };
        Ok(Self { path: path.into(), bytes, decoding, layout, labels, classes, others })
    }
}

impl Source for Npy {
    fn len(&self) -> usize {
        self.layout.len
    }

    fn read(&self, index: usize) -> Result<Sample> {
        self.raw(index)?.decode()
    }

    fn raw(&self, index: usize) -> Result<RawSample> {
        let Layout { frames, height, width, channels, .. } = self.layout;
        let Layout { channels_first, kind, big_endian, .. } = self.layout;
        let size = self.layout.size();
        let mut bytes = vec![0; size];
        match &self.bytes {
            Bytes::Memory(all, offset) => {
                bytes.copy_from_slice(&all[offset + index * size..][..size]);
            }
            Bytes::File(file, offset) => {
                let read = file.read_exact_at(&mut bytes, offset + index as u64 * size as u64);
                read.map_err(|error| Error::read(&self.path, error))?;
            }
        }
        let stored_as = StoredAs::Array {
            numbers: Numbers { kind, big_endian, bytes },
            shape: [frames, height, width, channels],
            channels_first,
            depth: self.decoding.depth,
        };
        Ok(RawSample { stored_as, label: self.label(index), name: self.stamp(index).name })
    }

    fn info(&self, _: usize) -> Result<Info> {
        let Layout { height, width, channels, kind, .. } = self.layout;
        let (bytes, is_deep) = (self.layout.size() as u64, kind != NumberKind::U8);
        Ok(Info { height, width, channels, bytes, is_deep, ..Info::ONE })
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

    fn frames(&self) -> [usize; 2] {
        [self.layout.frames; 2]
    }

    fn describe(&self) -> String {
        let Layout { len, frames, height, width, channels, .. } = self.layout;
        let (path, classes) = (self.path.display(), crate::data::source::classes(&self.classes));
        let samples = match frames {
            1 => "images of".to_owned(),
            _ => format!("clips of {frames} x"),
        };
        format!("{path}: {len} {samples} {height} x {width} x {channels}, {classes}")
    }

    fn files(&self) -> Vec<&Path> {
        vec![&self.path]
    }

    fn notes(&self) -> Notes {
        let names = several(&self.others);
        let told = (!self.others.is_empty()).then(|| format!("other arrays: {names}"));
        let Layout { len, frames, .. } = self.layout;
        let time_first = (frames > len).then(|| {
            format!(
                "{len} clips of {frames} frames: if the array has time first, [T, N, ...], save it \
                 with its first two axes swapped"
            )
        });
        let (left_alone, remarks) = (told.into_iter().collect(), time_first.into_iter().collect());
        Notes { left_alone, remarks }
    }
}

/// An array's images and their bytes.
fn whole_images(bytes: Vec<u8>, path: &Path, clips: bool) -> Result<(Layout, Bytes)> {
    let (header, offset) = Header::read(&mut Cursor::new(&bytes), path)?;
    let layout = header.images(path, clips)?;
    let (found, wanted) = (bytes.len() - offset, layout.len * layout.size());
    if found != wanted {
        let problem = format!("has {found} bytes, expected {wanted} for {:?}", header.shape);
        return Err(Error::file(path, problem));
    }
    Ok((layout, Bytes::Memory(bytes, offset)))
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
    let Classes { of, names, .. } = labels.finish();
    Ok((of, names))
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

    /// The layout of its images, or of its clips.
    fn images(&self, path: &Path, clips: bool) -> Result<Layout> {
        let fail = |problem: String| Err(Error::file(path, problem));
        let Some((kind, big_endian)) = number_kind(&self.kind) else {
            return fail(format!(
                "holds numbers of kind {:?}, expected whole numbers or floating-point numbers. \
                 Save images.astype(\"uint8\"), or another kind of number",
                self.kind
            ));
        };
        let shape = &self.shape;
        if self.fortran_order {
            return fail("is in Fortran order. Save numpy.ascontiguousarray(images)".to_owned());
        }
        let Some(([len, frames, height, width, channels], channels_first)) = axes(shape, clips)
        else {
            if shape.len() == 5 && !clips {
                return fail(format!(
                    "has the shape {shape:?}, which is that of clips. Set data.frames to the \
                     frames of a clip, or save images [N, H, W, C]"
                ));
            }
            if clips {
                return fail(format!(
                    "has the shape {shape:?}, expected clips [N, T, H, W], [N, T, H, W, C] or \
                     [N, T, C, H, W], or images [N, H, W], because data.frames is above 1"
                ));
            }
            return fail(format!(
                "has the shape {shape:?}, expected [N, H, W], [N, H, W, C] or [N, C, H, W]. C is 1 \
                 or 3, else the side that differs if the two others are equal, else the smaller \
                 one of the first and the last side. It is at most {MOST_CHANNELS}. Save grey \
                 images as [N, H, W]"
            ));
        };
        let sides = [len, frames, height, width, channels, kind.size()];
        let bytes = sides.iter().try_fold(1_usize, |product, &side| product.checked_mul(side));
        // Half of what can be addressed, so that an offset can be added.
        if bytes.is_none_or(|bytes| bytes == 0 || bytes > usize::MAX / 2) {
            return fail(format!(
                "has the shape {shape:?}, expected at least one image with pixels"
            ));
        }
        Ok(Layout { len, frames, height, width, channels, channels_first, kind, big_endian })
    }
}

/// [N, T, H, W, C] of a shape, and whether the channels come first. None if it cannot be told. With
/// `clips`, the second of four or five axes is time.
fn axes(shape: &[usize], clips: bool) -> Option<([usize; 5], bool)> {
    let [n, t, first, middle, last] = match *shape {
        [n, h, w] => return Some(([n, 1, h, w, 1], false)),
        [n, t, h, w] if clips => return Some(([n, t, h, w, 1], false)),
        [n, first, middle, last] => [n, 1, first, middle, last],
        [n, t, first, middle, last] if clips => [n, t, first, middle, last],
        _ => return None,
    };
    let is_colour = |side: usize| side == 1 || side == 3;
    let channels_first = match (is_colour(first), is_colour(last)) {
        (true, true) => return None,
        // Images are often square: the third side is that of the channels.
        (false, false) if first == middle && middle != last => false,
        (false, false) if middle == last && first != middle => true,
        (false, false) if first == last => return None,
        (false, false) => first < last,
        (first_is, _) => first_is,
    };
    let (h, w, c) = if channels_first { (middle, last, first) } else { (first, middle, last) };
    (c <= MOST_CHANNELS).then_some(([n, t, h, w, c], channels_first))
}

/// A `descr` of numbers, and whether it is big-endian.
fn number_kind(descr: &str) -> Option<(NumberKind, bool)> {
    let (order, kind) = descr.split_at_checked(1)?;
    let kind = match kind {
        "u1" => NumberKind::U8,
        "i1" => NumberKind::I8,
        "u2" => NumberKind::U16,
        "i2" => NumberKind::I16,
        "u4" => NumberKind::U32,
        "i4" => NumberKind::I32,
        "u8" => NumberKind::U64,
        "i8" => NumberKind::I64,
        "f2" => NumberKind::F16,
        "f4" => NumberKind::F32,
        "f8" => NumberKind::F64,
        _ => return None,
    };
    match order {
        "<" => Some((kind, false)),
        ">" => Some((kind, true)),
        "|" if kind.size() == 1 => Some((kind, false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
