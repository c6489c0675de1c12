//! How many pictures an image file holds. Only the first is read.

use std::collections::BTreeSet;

use image::ImageFormat;

/// Pages of a TIFF that are counted. A file of more is said to have this many.
const MOST_PAGES: usize = 10_000;

/// The pictures in a file: pages of a TIFF, frames of an animated PNG or WebP, pictures of an MPO
/// file. At least one.
pub(super) fn frames(bytes: &[u8], format: ImageFormat) -> usize {
    let found = match format {
        ImageFormat::Png => animated_png(bytes),
        ImageFormat::WebP => animated_webp(bytes),
        ImageFormat::Tiff => pages(bytes),
        ImageFormat::Jpeg => multi_picture(bytes),
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

/// The pictures that the index of a JPEG lists, without previews (CIPA DC-007, section 5.2). The
/// second picture of a photograph with a gain map is no picture.
fn multi_picture(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes.get(2..)?;
    while let [0xFF, marker, high, low, ..] = *rest {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let segment = rest.get(4..2 + length)?;
        match (marker, segment) {
            (0xE1, _) if memchr::memmem::find(segment, b"hdrgm").is_some() => return None,
            (0xE2, [b'M', b'P', b'F', 0, index @ ..]) => return listed_pictures(index),
            (0xDA, _) => return None,
            _ => rest = rest.get(2 + length..)?,
        }
    }
    None
}

fn listed_pictures(index: &[u8]) -> Option<usize> {
    const ENTRIES: usize = 0xB002;
    let index = TiffNumbers::of(index)?;
    let at = index.number(4, 4)?;
    let tags = (0..index.number(at, 2)?).map(|tag| at + 2 + 12 * tag);
    let entries = tags.into_iter().find(|&tag| index.number(tag, 2) == Some(ENTRIES))?;
    let (count, first) = (index.number(entries + 4, 4)? / 16, index.number(entries + 8, 4)?);
    let kinds = (0..count).map_while(|entry| index.number(first.checked_add(16 * entry)?, 4));
    // The third byte of a kind is 1 for a preview.
    Some(kinds.filter(|kind| (kind >> 16) & 0xFF != 1).count())
}

/// The directories of a TIFF that are no thumbnails, smaller copies or masks of others, and the
/// first, which is read (TIFF 6.0, sections 2 and 8).
fn pages(bytes: &[u8]) -> Option<usize> {
    let tiff = TiffNumbers::of(bytes)?;
    let (mut at, mut seen, mut pages) = (tiff.number(4, 4)?, BTreeSet::new(), 0);
    while at != 0 && seen.len() < MOST_PAGES && seen.insert(at) {
        let Some((is_whole, next)) = tiff.directory(at) else { break };
        pages += usize::from(is_whole || seen.len() == 1);
        at = next;
    }
    Some(pages)
}

/// A TIFF's numbers in its byte order.
struct TiffNumbers<'a> {
    bytes: &'a [u8],
    is_big_endian: bool,
}

impl<'a> TiffNumbers<'a> {
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let is_big_endian = match bytes.get(..2)? {
            b"II" => false,
            b"MM" => true,
            _ => return None,
        };
        Some(Self { bytes, is_big_endian })
    }

    /// The number of `size` bytes at a position.
    fn number(&self, at: usize, size: usize) -> Option<usize> {
        let bytes = self.bytes.get(at..at.checked_add(size)?)?;
        let join = |all: usize, &byte: &u8| (all << 8) | usize::from(byte);
        Some(match self.is_big_endian {
            true => bytes.iter().fold(0, join),
            false => bytes.iter().rev().fold(0, join),
        })
    }

    /// Whether the directory at a position is of a whole picture, and the position of the next
    /// directory, 0 after the last. None if no directory is there: its tags are sorted, and it
    /// states a width.
    fn directory(&self, at: usize) -> Option<(bool, usize)> {
        const ENTRY: usize = 12;
        const NEW_SUBFILE_TYPE: usize = 254;
        const SUBFILE_TYPE: usize = 255;
        const WIDTH: usize = 256;
        let (entries, first) = (self.number(at, 2)?, at.checked_add(2)?);
        let next = self.number(first.checked_add(ENTRY * entries)?, 4)?;
        let (mut before, mut is_whole, mut has_width) = (None, true, false);
        for entry in (0..entries).map(|entry| first + ENTRY * entry) {
            let tag = self.number(entry, 2)?;
            if before.is_some_and(|before| tag <= before) {
                return None;
            }
            before = Some(tag);
            match tag {
                // Bits: a smaller copy, and a mask.
                NEW_SUBFILE_TYPE => is_whole &= self.number(entry + 8, 4)? & 0b101 == 0,
                // The old tag: 2 is a smaller copy.
                SUBFILE_TYPE => is_whole &= self.number(entry + 8, 2)? != 2,
                WIDTH => has_width = true,
                _ => {}
            }
        }
        has_width.then_some((is_whole, next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz;

    /// A TIFF whose directories have these tags of four bytes and their values.
    fn tiff(directories: &[&[(u16, u32)]], is_big_endian: bool) -> Vec<u8> {
        let two = |n: u16| if is_big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
        let four = |n: u32| if is_big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
        let mut bytes = if is_big_endian { b"MM".to_vec() } else { b"II".to_vec() };
        bytes.extend([two(42).as_slice(), &four(8)].concat());
        for (number, tags) in directories.iter().enumerate() {
            bytes.extend(two(tags.len() as u16));
            for (tag, value) in *tags {
                bytes.extend([two(*tag), two(4)].concat());
                bytes.extend([four(1), four(*value)].concat());
            }
            let is_last = number + 1 == directories.len();
            let next = if is_last { 0 } else { bytes.len() as u32 + 4 };
            bytes.extend(four(next));
        }
        bytes
    }

    const PLAIN: &[(u16, u32)] = &[(256, 9)];
    const SMALLER: &[(u16, u32)] = &[(254, 1), (256, 3)];

    #[test]
    fn pages_of_a_tiff_are_counted_without_smaller_copies_and_masks() {
        for is_big_endian in [false, true] {
            let count = |directories: &[&[(u16, u32)]]| {
                frames(&tiff(directories, is_big_endian), ImageFormat::Tiff)
            };
            assert_eq!(count(&[PLAIN]), 1);
            let (mask, page) = (&[(254, 4), (256, 9)][..], &[(254, 2), (256, 9)][..]);
            assert_eq!(count(&[PLAIN, SMALLER, PLAIN, page, mask]), 3);
            assert_eq!(count(&[SMALLER, PLAIN]), 2, "the smaller one is read");
            assert_eq!(count(&[PLAIN, &[(256, 9), (254, 0)]]), 1, "no directory");
        }
        let old = [(255, 2 << 16), (256, 3)];
        assert_eq!(frames(&tiff(&[PLAIN, &old], true), ImageFormat::Tiff), 1);
        // Two directories that name each other as the next.
        let mut bytes = tiff(&[PLAIN, PLAIN], false);
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

    /// The headers of a JPEG whose index lists pictures of these kinds.
    fn mpo(kinds: &[u32], xmp: &[u8]) -> Vec<u8> {
        let mut index = b"MPF\0II*\0\x08\0\0\0\x01\0\x02\xb0\x07\0".to_vec();
        index.extend((16 * kinds.len() as u32).to_le_bytes());
        index.extend([26_u32.to_le_bytes(), [0; 4]].concat());
        kinds.iter().for_each(|kind| index.extend([&kind.to_le_bytes()[..], &[0; 12]].concat()));
        let segment = |marker: u8, data: &[u8]| {
            [&[0xFF, marker], &(data.len() as u16 + 2).to_be_bytes()[..], data].concat()
        };
        [vec![0xFF, 0xD8], segment(0xE1, xmp), segment(0xE2, &index), segment(0xDA, &[0; 9])]
            .concat()
    }

    #[test]
    fn pictures_of_an_mpo_file_are_counted_without_previews_and_gain_maps() {
        let count = |kinds: &[u32], xmp: &[u8]| frames(&mpo(kinds, xmp), ImageFormat::Jpeg);
        // As Pillow writes them, and as cameras do: two views, or a picture and its preview.
        assert_eq!(count(&[0x03_0000, 0, 0], b"Exif"), 3);
        assert_eq!(count(&[0x2002_0002, 0x02_0002], b"Exif"), 2);
        assert_eq!(count(&[0x2003_0000, 0x4001_0002], b"Exif"), 1);
        assert_eq!(count(&[0x03_0000, 0], b"xmlns:hdrgm=..."), 1);
    }

    #[test]
    fn damaged_files_are_counted_without_a_panic() {
        let seed = mpo(&[0x03_0000, 0], b"Exif");
        for number in 0..fuzz::inputs(2000) {
            let bytes = fuzz::input("mpo", &seed, number);
            assert!(frames(&bytes, ImageFormat::Jpeg) >= 1);
        }
        let seed = tiff(&[PLAIN, SMALLER, PLAIN], false);
        for number in 0..fuzz::inputs(2000) {
            let bytes = fuzz::input("frames", &seed, number);
            for format in [ImageFormat::Tiff, ImageFormat::Png, ImageFormat::WebP] {
                assert!((1..=u32::MAX as usize).contains(&frames(&bytes, format)));
            }
        }
    }
}
