//! Images of more than eight bits. A stated range of values becomes 0 to 255.

use std::fmt;

use half::f16;
use image::{DynamicImage, ImageBuffer};

use crate::data::{Error, Result};
use crate::range::Range;

/// How a number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberKind {
    /// Unsigned, 8 bits.
    U8,
    /// Signed, 8 bits.
    I8,
    /// Unsigned, 16 bits.
    U16,
    /// Signed, 16 bits.
    I16,
    /// Unsigned, 32 bits.
    U32,
    /// Signed, 32 bits.
    I32,
    /// Unsigned, 64 bits.
    U64,
    /// Signed, 64 bits.
    I64,
    /// IEEE 754, 16 bits.
    F16,
    /// IEEE 754, 32 bits.
    F32,
    /// IEEE 754, 64 bits.
    F64,
}

impl NumberKind {
    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The range that is shown if none is stated: all numbers of 8 or 16 unsigned bits. Other
    /// kinds have none, because nearly all of their numbers never occur.
    pub fn usual_range(self) -> Option<Range> {
        match self {
            Self::U8 => Some(Range::new(0.0, 255.0)),
            Self::U16 => Some(Range::new(0.0, 65_535.0)),
            _ => None,
        }
    }
}

impl fmt::Display for NumberKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = 8 * self.size();
        match self {
            Self::U8 | Self::U16 | Self::U32 | Self::U64 => write!(f, "{bits}-bit numbers"),
            Self::I8 | Self::I16 | Self::I32 | Self::I64 => write!(f, "signed {bits}-bit numbers"),
            Self::F16 | Self::F32 | Self::F64 => write!(f, "{bits}-bit floating-point numbers"),
        }
    }
}

/// Numbers so far from 0 stand for what was not measured: GDAL writes -3.4e38.
const NOT_MEASURED: f64 = 1e30;

/// Numbers as a file stores them.
#[derive(Clone, Debug)]
pub struct Numbers {
    /// How each is stored.
    pub kind: NumberKind,
    /// Whether their most significant byte comes first.
    pub big_endian: bool,
    /// Their bytes.
    pub bytes: Vec<u8>,
}

/// What numbers were found in images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoredValues {
    /// How they are stored.
    pub kind: NumberKind,
    /// The least and the greatest finite number. The least is above the greatest if there are none.
    pub range: Range,
    /// The greatest number of the darkest image.
    pub darkest: f64,
    /// Whether some are infinite, NaN or as far from 0 as if not measured.
    pub some_not_finite: bool,
}

impl StoredValues {
    /// The range. None if no number is finite.
    fn finite(&self) -> Option<Range> {
        Some(self.range).filter(|range| range.min <= range.max)
    }

    fn of(kind: NumberKind, values: impl Iterator<Item = f64>) -> Option<Self> {
        let (mut range, mut some_not_finite) = (Range::new(f64::MAX, f64::MIN), false);
        for value in values {
            if value.abs() < NOT_MEASURED {
                range = Range::new(range.min.min(value), range.max.max(value));
            } else {
                some_not_finite = true;
            }
        }
        // An image without any finite number says nothing of the others.
        let darkest = if range.min > range.max { f64::MAX } else { range.max };
        (kind != NumberKind::U8).then_some(Self { kind, range, darkest, some_not_finite })
    }

    /// What was found, for people.
    pub fn describe(&self) -> String {
        let Self { kind, darkest, some_not_finite, .. } = self;
        let Some(Range { min, max }) = self.finite() else {
            return format!("{kind}, none of them finite");
        };
        let not_finite = if *some_not_finite { ", some NaN or not measured" } else { "" };
        // A quarter of the range is two bits less.
        let dark = match (*darkest - min) < (max - min) / 4.0 {
            true => format!(" (to {darkest} in the darkest image)"),
            false => String::new(),
        };
        format!("{kind} from {min} to {max}{dark}{not_finite}")
    }

    /// Both together. Of two kinds the larger one is stated.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        let kind = if other.kind.size() > self.kind.size() { other.kind } else { self.kind };
        let (a, b) = (self.range, other.range);
        Self {
            kind,
            range: Range::new(a.min.min(b.min), a.max.max(b.max)),
            darkest: self.darkest.min(other.darkest),
            some_not_finite: self.some_not_finite || other.some_not_finite,
        }
    }
}

impl Numbers {
    fn values(&self) -> impl Iterator<Item = f64> {
        let (kind, big_endian) = (self.kind, self.big_endian);
        self.bytes.chunks_exact(kind.size()).map(move |number| {
            let mut bytes = [0; 8];
            bytes[..number.len()].copy_from_slice(number);
            if big_endian {
                bytes[..number.len()].reverse();
            }
            let [a, b, c, d, ..] = bytes;
            match kind {
                NumberKind::U8 => f64::from(a),
                NumberKind::I8 => f64::from(a as i8),
                NumberKind::U16 => f64::from(u16::from_le_bytes([a, b])),
                NumberKind::I16 => f64::from(i16::from_le_bytes([a, b])),
                NumberKind::U32 => f64::from(u32::from_le_bytes([a, b, c, d])),
                NumberKind::I32 => f64::from(i32::from_le_bytes([a, b, c, d])),
                NumberKind::U64 => u64::from_le_bytes(bytes) as f64,
                NumberKind::I64 => i64::from_le_bytes(bytes) as f64,
                NumberKind::F16 => f16::from_le_bytes([a, b]).to_f64(),
                NumberKind::F32 => f64::from(f32::from_le_bytes([a, b, c, d])),
                NumberKind::F64 => f64::from_le_bytes(bytes),
            }
        })
    }

    /// The range of the numbers. None for bytes.
    pub(in crate::data) fn stored_values(&self) -> Option<StoredValues> {
        StoredValues::of(self.kind, self.values())
    }

    /// One byte for each number. Bytes stay as they are. Of other numbers, `depth` becomes 0 to
    /// 255. `name` is the image's.
    pub(in crate::data) fn to_bytes(&self, depth: Option<Range>, name: &str) -> Result<Vec<u8>> {
        if self.kind == NumberKind::U8 {
            return Ok(self.bytes.clone());
        }
        let Some(depth) = depth.or(self.kind.usual_range()) else {
            let found = self.stored_values().and_then(|values| values.finite());
            let found = found.unwrap_or(Range::new(0.0, 0.0));
            return Err(Error::Depth { name: name.to_owned(), kind: self.kind, found });
        };
        let shown = ByteScale::of(depth);
        Ok(self.values().map(|value| shown.byte(value)).collect())
    }
}

/// A range of values that becomes 0 to 255.
#[derive(Clone, Copy)]
struct ByteScale {
    min: f64,
    scale: f64,
}

impl ByteScale {
    fn of(depth: Range) -> Self {
        Self { min: depth.min, scale: 255.0 / (depth.max - depth.min) }
    }

    /// Rounded. What lies outside the range, and NaN, becomes 0 or 255.
    fn byte(self, value: f64) -> u8 {
        // `as` gives 0 for NaN.
        ((value - self.min) * self.scale).round().clamp(0.0, 255.0) as u8
    }
}

/// An image of sixteen bits with `depth` as eight bits. Transparency keeps its own range. Other
/// images stay as they are.
pub(super) fn with_depth(image: DynamicImage, depth: Option<Range>) -> DynamicImage {
    let Some(depth) = depth else { return image };
    let shown = ByteScale::of(depth);
    let (width, height) = (image.width(), image.height());
    let all = |values: Vec<u16>, channels: usize, alpha: bool| -> Vec<u8> {
        let byte = |(at, value): (usize, u16)| {
            // 65,535 = 257 · 255
            let is_alpha = alpha && at % channels == channels - 1;
            if is_alpha { (value / 257) as u8 } else { shown.byte(f64::from(value)) }
        };
        values.into_iter().enumerate().map(byte).collect()
    };
    // The number of values does not change.
    const SAME: &str = "as many values as before";
    match image {
        DynamicImage::ImageLuma16(image) => {
            let values = all(image.into_raw(), 1, false);
            ImageBuffer::from_raw(width, height, values).map(DynamicImage::ImageLuma8).expect(SAME)
        }
        DynamicImage::ImageLumaA16(image) => {
            let values = all(image.into_raw(), 2, true);
            ImageBuffer::from_raw(width, height, values).map(DynamicImage::ImageLumaA8).expect(SAME)
        }
        DynamicImage::ImageRgb16(image) => {
            let values = all(image.into_raw(), 3, false);
            ImageBuffer::from_raw(width, height, values).map(DynamicImage::ImageRgb8).expect(SAME)
        }
        DynamicImage::ImageRgba16(image) => {
            let values = all(image.into_raw(), 4, true);
            ImageBuffer::from_raw(width, height, values).map(DynamicImage::ImageRgba8).expect(SAME)
        }
        other => other,
    }
}

/// The values of an image of sixteen bits, without transparency. None for other images.
pub(super) fn values_of(image: &DynamicImage) -> Option<StoredValues> {
    let of = |values: &[u16], channels: usize, shown: usize| {
        let pixels = values.chunks_exact(channels);
        let values = pixels.flat_map(|pixel| pixel[..shown].iter().map(|&value| f64::from(value)));
        StoredValues::of(NumberKind::U16, values)
    };
    match image {
        DynamicImage::ImageLuma16(image) => of(image.as_raw(), 1, 1),
        DynamicImage::ImageLumaA16(image) => of(image.as_raw(), 2, 1),
        DynamicImage::ImageRgb16(image) => of(image.as_raw(), 3, 3),
        DynamicImage::ImageRgba16(image) => of(image.as_raw(), 4, 3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_number_is_read_in_both_orders() {
        let read = |kind, big_endian, bytes: &[u8]| {
            let numbers = Numbers { kind, big_endian, bytes: bytes.to_vec() };
            numbers.values().collect::<Vec<_>>()
        };
        assert_eq!(read(NumberKind::U8, false, &[7, 255]), [7.0, 255.0]);
        assert_eq!(read(NumberKind::I8, false, &[7, 255]), [7.0, -1.0]);
        assert_eq!(read(NumberKind::U16, false, &[1, 2]), [513.0]);
        assert_eq!(read(NumberKind::U16, true, &[1, 2]), [258.0]);
        assert_eq!(read(NumberKind::I16, true, &[0xFF, 0xFE]), [-2.0]);
        assert_eq!(read(NumberKind::U32, false, &4_000_000_000_u32.to_le_bytes()), [4e9]);
        assert_eq!(read(NumberKind::I32, true, &(-70_000_i32).to_be_bytes()), [-70_000.0]);
        assert_eq!(read(NumberKind::U64, false, &(1_u64 << 40).to_le_bytes()), [2_f64.powi(40)]);
        assert_eq!(read(NumberKind::I64, true, &(-5_i64).to_be_bytes()), [-5.0]);
        assert_eq!(read(NumberKind::F16, true, &f16::from_f32(0.5).to_be_bytes()), [0.5]);
        assert_eq!(read(NumberKind::F32, false, &1.5_f32.to_le_bytes()), [1.5]);
        assert_eq!(read(NumberKind::F64, true, &(-0.1_f64).to_be_bytes()), [-0.1]);
    }

    #[test]
    fn the_stated_range_becomes_black_to_white() {
        let bytes: Vec<u8> =
            [0_u16, 1, 2048, 4095, 9000].iter().flat_map(|value| value.to_le_bytes()).collect();
        let numbers = Numbers { kind: NumberKind::U16, big_endian: false, bytes };
        let shown = |depth| numbers.to_bytes(depth, "a").unwrap();
        // 2048 · 255 / 4095 = 127.53
        assert_eq!(shown(Some(Range::new(0.0, 4095.0))), [0, 0, 128, 255, 255]);
        // 2048 · 255 / 65535 = 7.97, 4095 -> 15.9, 9000 -> 35.02
        assert_eq!(shown(None), [0, 0, 8, 16, 35]);
        let values = numbers.stored_values().unwrap();
        assert_eq!((values.range, values.some_not_finite), (Range::new(0.0, 9000.0), false));
    }

    #[test]
    fn floats_need_a_range_and_nan_is_black_and_told() {
        let bytes: Vec<u8> =
            [-1.0_f32, f32::NAN, 3.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let numbers = Numbers { kind: NumberKind::F32, big_endian: false, bytes };
        let message = numbers.to_bytes(None, "a.tif").unwrap_err().to_string();
        assert_eq!(
            message,
            "a.tif: holds 32-bit floating-point numbers from -1 to 3, and nothing says which of \
             them are black and white. Set data.depth = [black, white], such as [-1, 3] \
             (--depth of probe and embed)"
        );
        assert_eq!(numbers.to_bytes(Some(Range::new(-1.0, 4.0)), "a").unwrap(), [0, 0, 204]);
        let found = numbers.stored_values().unwrap();
        assert!(found.some_not_finite);
        let bytes = [f32::NAN, -3.4e38].iter().flat_map(|value| value.to_le_bytes()).collect();
        let empty = Numbers { bytes, ..numbers }.stored_values().unwrap();
        assert_eq!(empty.describe(), "32-bit floating-point numbers, none of them finite");
        assert_eq!(found.with(empty).range, Range::new(-1.0, 3.0));
    }
}
