//! How many pictures an image file holds. Only the first is read.

use std::collections::BTreeSet;

use image::ImageFormat;

/// Pages of a TIFF that are counted. A file of more is said to have this many.
const MOST_PAGES: usize = 10_000;

/// The pictures in a file: pages of a TIFF, frames of an animated PNG or WebP. At least one.
pub(super) fn frames(bytes: &[u8], format: ImageFormat) -> usize {
    let found = match format {
        ImageFormat::Png => animated_png(bytes),
        ImageFormat::WebP => animated_webp(bytes),
        ImageFormat::Tiff => pages(bytes),
        _ => None,
    };
    found.unwrap_or(1).max(1)
}

/// The frames that the chunk `acTL` states. It stands before the first data (PNG, third edition,
/// 11.3.6.1).
fn animated_png(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes.get(8..)?;
    loop {
        let [a, b, c, d, name @ ..] = rest else { return None };
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (name, after) = name.split_at_checked(4)?;
        match name {
            b"acTL" => {
                let frames = after.first_chunk().map(|frames| u32::from_be_bytes(*frames));
                return frames.map(|frames| frames as usize);
            }
            b"IDAT" => return None,
            // The chunk, and its checksum.
            _ => rest = after.get(length.checked_add(4)?..)?,
        }
    }
}

/// The chunks `ANMF` (RFC 9649, section 2.7).
fn animated_webp(bytes: &[u8]) -> Option<usize> {
    let (mut rest, mut found) = (bytes.get(12..)?, 0);
    while let [n0, n1, n2, n3, a, b, c, d, after @ ..] = rest {
        found += usize::from([*n0, *n1, *n2, *n3] == *b"ANMF");
        let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        rest = after.get(length.checked_next_multiple_of(2)?..).unwrap_or_default();
    }
    Some(found)
}

/// The directories of a TIFF that are no thumbnails, smaller copies or masks of others (TIFF 6.0,
/// sections 2 and 8; BigTIFF has longer numbers).
fn pages(bytes: &[u8]) -> Option<usize> {
    let tiff = TiffNumbers::of(bytes)?;
    let (mut at, mut seen, mut pages) = (tiff.first()?, BTreeSet::new(), 0);
    while at != 0 && seen.len() < MOST_PAGES && seen.insert(at) {
        let Some((subfile, next)) = tiff.directory(at) else { break };
        const SMALLER: u64 = 1;
        const MASK: u64 = 4;
        pages += usize::from(subfile & (SMALLER | MASK) == 0);
        at = next;
    }
    Some(pages)
}

/// A TIFF's numbers in its byte order.
struct TiffNumbers<'a> {
    bytes: &'a [u8],
    is_big_endian: bool,
    is_big_tiff: bool,
}

impl<'a> TiffNumbers<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let is_big_endian = match bytes.get(..2)? {
            b"II" => false,
            b"MM" => true,
            _ => return None,
        };
        let mut tiff = Self { bytes, is_big_endian, is_big_tiff: false };
        tiff.is_big_tiff = match tiff.number(2, 2)? {
            42 => false,
            43 => true,
            _ => return None,
        };
        Some(tiff)
    }

    /// The number of `size` bytes at a position.
    fn number(&self, at: usize, size: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(size)?)?;
        let join = |all: u64, &byte: &u8| (all << 8) | u64::from(byte);
        Some(match self.is_big_endian {
            true => bytes.iter().fold(0, join),
            false => bytes.iter().rev().fold(0, join),
        })
    }

    fn first(&self) -> Option<u64> {
        if self.is_big_tiff { self.number(8, 8) } else { self.number(4, 4) }
    }

    /// The value of NewSubfileType in the directory at a position, and the position of the next
    /// directory, 0 after the last.
    fn directory(&self, at: u64) -> Option<(u64, u64)> {
        const NEW_SUBFILE_TYPE: u64 = 254;
        let at = usize::try_from(at).ok()?;
        let (count_size, entry_size, offset_size) =
            if self.is_big_tiff { (8, 20, 8) } else { (2, 12, 4) };
        let entries = usize::try_from(self.number(at, count_size)?).ok()?;
        let first = at.checked_add(count_size)?;
        let end = first.checked_add(entries.checked_mul(entry_size)?)?;
        let next = self.number(end, offset_size)?;
        // Entries are sorted, and this tag has the lowest number.
        let is_known = entries > 0 && self.number(first, 2)? == NEW_SUBFILE_TYPE;
        let subfile = if is_known { self.number(first + 4 + offset_size, 4)? } else { 0 };
        Some((subfile, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz;

    /// A TIFF whose directories have these kinds of subfile.
    fn tiff(kinds: &[Option<u32>], is_big_endian: bool) -> Vec<u8> {
        let two = |n: u16| if is_big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
        let four = |n: u32| if is_big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
        let mut bytes = if is_big_endian { b"MM".to_vec() } else { b"II".to_vec() };
        bytes.extend([two(42).as_slice(), &four(8)].concat());
        for (number, kind) in kinds.iter().enumerate() {
            let (tag, value) = kind.map_or((256, 9), |kind| (254, kind));
            bytes.extend([two(1), two(tag), two(4)].concat());
            bytes.extend([four(1), four(value)].concat());
            let next = if number + 1 == kinds.len() { 0 } else { bytes.len() as u32 + 4 };
            bytes.extend(four(next));
        }
        bytes
    }

    #[test]
    fn pages_of_a_tiff_are_counted_without_smaller_copies_and_masks() {
        for is_big_endian in [false, true] {
            let count =
                |kinds: &[Option<u32>]| frames(&tiff(kinds, is_big_endian), ImageFormat::Tiff);
            assert_eq!(count(&[None]), 1);
            assert_eq!(count(&[Some(0), Some(1), None, Some(2), Some(4)]), 3);
        }
        // Two directories that name each other as the next.
        let mut bytes = tiff(&[None, None], false);
        let end = bytes.len() - 4;
        bytes[end..].copy_from_slice(&8_u32.to_le_bytes());
        assert_eq!(frames(&bytes, ImageFormat::Tiff), 2);
    }

    #[test]
    fn frames_of_animations_are_counted() {
        let chunk = |name: &[u8], data: &[u8]| {
            [&(data.len() as u32).to_be_bytes(), name, data, &[0; 4]].concat()
        };
        let png = [vec![0; 8], chunk(b"IHDR", &[0; 13]), chunk(b"acTL", &[0, 0, 0, 7, 0, 0, 0, 0])];
        assert_eq!(frames(&png.concat(), ImageFormat::Png), 7);
        let plain = [vec![0; 8], chunk(b"IHDR", &[0; 13]), chunk(b"IDAT", b"acTL")].concat();
        assert_eq!(frames(&plain, ImageFormat::Png), 1);
        let part = |name: &[u8], length: u8| {
            [name, &[length, 0, 0, 0], &vec![0; usize::from(length.next_multiple_of(2))]].concat()
        };
        let parts = [vec![0; 12], part(b"VP8X", 10), part(b"ANMF", 3), part(b"ANMF", 4)].concat();
        assert_eq!(frames(&parts, ImageFormat::WebP), 2);
        assert_eq!(frames(&[vec![0; 12], part(b"VP8L", 9)].concat(), ImageFormat::WebP), 1);
    }

    #[test]
    fn damaged_files_are_counted_without_a_panic() {
        let seed = tiff(&[Some(0), None, Some(1)], false);
        for number in 0..fuzz::inputs(2000) {
            let bytes = fuzz::input("frames", &seed, number);
            for format in [ImageFormat::Tiff, ImageFormat::Png, ImageFormat::WebP] {
                assert!((1..=u32::MAX as usize).contains(&frames(&bytes, format)));
            }
        }
    }
}
