//! Decodes JPEG files only down to the last row that is needed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::data::Clip;

/// The header of a JPEG that can be decoded from the top down: sequential, all components in one
/// scan, grey or three colours, upright (ITU T.81, B.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::data) struct JpegHeader {
    /// H
    pub(in crate::data) height: usize,
    /// W
    pub(in crate::data) width: usize,
    /// C, 1 or 3.
    channels: usize,
    /// The rows of pixels in a row of minimum coded units.
    unit_rows: usize,
    /// Offset of the height in the file.
    height_at: usize,
}

/// The most components of a frame that is read here.
const MOST_COMPONENTS: usize = 3;

impl JpegHeader {
    /// Reads the header. None for files of another kind, which are decoded whole.
    pub(in crate::data) fn read(bytes: &[u8]) -> Option<Self> {
        let mut header = None;
        let mut at = 2;
        loop {
            let &[0xFF, marker, high, low] = bytes.get(at..at + 4)? else { return None };
            let length = usize::from(u16::from_be_bytes([high, low]));
            let segment = bytes.get(at + 4..at + 2 + length)?;
            match marker {
                // Baseline and extended sequential, Huffman coded.
                0xC0 | 0xC1 if header.is_none() => header = Some(Self::of(segment, at + 4)?),
                // Tables: Huffman, quantisation; restart interval; comments and applications' data.
                0xC4 | 0xDB | 0xDD | 0xE0 | 0xE2..=0xEF | 0xFE => {}
                0xE1 if is_upright(segment) => {}
                0xDA => {
                    let all_in_one =
                        |header: &Self| segment.first() == Some(&(header.channels as u8));
                    return header.filter(all_in_one);
                }
                _ => return None,
            }
            at += 2 + length;
        }
    }

    /// A frame header: precision, height, width, count, and for each component its name, sampling
    /// factors and table.
    fn of(segment: &[u8], at: usize) -> Option<Self> {
        let &[8, h1, h0, w1, w0, count, ..] = segment else { return None };
        let (height, width) = (u16::from_be_bytes([h1, h0]), u16::from_be_bytes([w1, w0]));
        let channels = usize::from(count);
        let components = segment.get(6..).filter(|rest| rest.len() == 3 * channels)?;
        let vertical = components.chunks_exact(3).map(|component| component[1] & 0x0F);
        let unit_rows = 8 * usize::from(vertical.max().filter(|most| (1..=4).contains(most))?);
        // A height of 0 comes after the first scan.
        let usable = height > 0 && width > 0 && (channels == 1 || channels == MOST_COMPONENTS);
        let (height, width) = (usize::from(height), usize::from(width));
        usable.then_some(Self { height, width, channels, unit_rows, height_at: at + 1 })
    }

    /// Bytes of the decoded image.
    pub(in crate::data) fn decoded_bytes(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// The first `rows` rows, and some below them, with the same bits as if all rows were decoded.
    /// None if the decoder refuses. `bytes` do not change.
    pub(in crate::data) fn decode(&self, bytes: &mut [u8], rows: usize) -> Option<Clip> {
        // The last row of a unit is mixed with the first chroma row of the next one.
        let units = rows.div_ceil(self.unit_rows) + 1;
        let kept = (units * self.unit_rows).min(self.height);
        self.write_height(bytes, kept);
        // After a panic the image is decoded whole, and is then refused by name.
        let pixels = catch_unwind(AssertUnwindSafe(|| self.decode_all(bytes, kept))).ok().flatten();
        self.write_height(bytes, self.height);
        pixels
    }

    /// A decoder stops after the rows that the header states.
    fn write_height(&self, bytes: &mut [u8], height: usize) {
        // At most the original height, which has two bytes.
        let height = (height as u16).to_be_bytes();
        bytes[self.height_at..self.height_at + 2].copy_from_slice(&height);
    }

    fn decode_all(&self, bytes: &[u8], height: usize) -> Option<Clip> {
        let (colour, known): (_, &[_]) = match self.channels {
            1 => (ColorSpace::Luma, &[ColorSpace::Luma]),
            _ => (ColorSpace::RGB, &[ColorSpace::YCbCr, ColorSpace::RGB]),
        };
        // As in the image crate: an error in the coded data is no reason to refuse the rest.
        let options = DecoderOptions::default()
            .set_strict_mode(false)
            .set_max_width(usize::MAX)
            .set_max_height(usize::MAX)
            .jpeg_set_out_colorspace(colour);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        decoder.decode_headers().ok()?;
        if decoder.dimensions() != Some((self.width, height))
            || !known.contains(&decoder.input_colorspace()?)
        {
            return None;
        }
        let mut data = vec![0; height * self.width * self.channels];
        decoder.decode_into(&mut data).ok()?;
        Some(Clip::image(height, self.width, self.channels, data))
    }
}

/// Whether application segment 1 requests no rotation.
fn is_upright(segment: &[u8]) -> bool {
    let Some(exif) = segment.strip_prefix(b"Exif\0\0") else { return true };
    matches!(Orientation::from_exif_chunk(exif), None | Some(Orientation::NoTransforms))
}

#[cfg(test)]
mod tests;
