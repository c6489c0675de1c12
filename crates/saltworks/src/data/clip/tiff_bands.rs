//! TIFF files that are not grey or coloured images of bytes: any number of bands, of any numbers.
//! (TIFF 6.0; satellites, microscopes and GDAL write them.)

use std::io::Cursor;

use tiff::TiffResult;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;

use super::numbers::{NumberKind, Numbers};
use crate::data::{Error, Result};

/// Values of the tags that are compared here (TIFF 6.0, section 8 and 18).
const BLACK_IS_ZERO: u16 = 1;
const RGB: u16 = 2;
const UNSIGNED: u16 = 1;
const ASSOCIATED_ALPHA: u16 = 1;
const UNASSOCIATED_ALPHA: u16 = 2;

/// The first image of a file.
pub(super) struct TiffBands {
    /// H
    pub(super) height: usize,
    /// W
    pub(super) width: usize,
    /// C
    pub(super) bands: usize,
    /// Whether its numbers are no unsigned bytes.
    pub(super) is_deep: bool,
    /// As in EXIF, 1 to 8.
    pub(super) orientation: u16,
    /// Bits of a number.
    bits: u16,
    /// Whether the second of two bands is transparency.
    pub(super) is_grey_alpha: bool,
    /// Where the file states how its bands are interpreted, and in which byte order.
    photometric_at: usize,
    big_endian: bool,
    photometric: u16,
}

impl TiffBands {
    /// Reads the header. None if the file is an image that the image crate decodes whole: grey or
    /// three colours of unsigned numbers, perhaps with transparency, or a kind that it refuses.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        // What cannot be read here is refused by the image crate.
        Self::try_read(bytes).ok().flatten()
    }

    fn try_read(bytes: &[u8]) -> TiffResult<Option<Self>> {
        let mut decoder = Decoder::new(Cursor::new(bytes))?;
        let (width, height) = decoder.dimensions()?;
        let mut first = |tag, usual: u16| -> TiffResult<u16> {
            let found = decoder.find_tag_unsigned_vec::<u16>(tag)?;
            Ok(found.and_then(|found| found.first().copied()).unwrap_or(usual))
        };
        let bands = first(Tag::SamplesPerPixel, 1)?;
        let bits = first(Tag::BitsPerSample, 1)?;
        let format = first(Tag::SampleFormat, UNSIGNED)?;
        let extra = first(Tag::ExtraSamples, 0)?;
        let photometric = first(Tag::PhotometricInterpretation, BLACK_IS_ZERO)?;
        let orientation = first(Tag::Orientation, 1)?;
        let has_alpha = [ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA].contains(&extra);
        let is_known = match (photometric, bands) {
            (0 | BLACK_IS_ZERO, 1) | (RGB, 3) => true,
            (RGB, 4) => has_alpha,
            (0 | BLACK_IS_ZERO | RGB, _) => false,
            // Palettes, CMYK, YCbCr and others.
            _ => return Ok(None),
        };
        if is_known && format == UNSIGNED && bits <= 16 {
            return Ok(None);
        }
        let found = photometric_at(bytes, decoder.ifd_pointer().map_or(0, |at| at.0));
        let Some((photometric_at, big_endian)) = found else { return Ok(None) };
        Ok(Some(Self {
            height: height as usize,
            width: width as usize,
            bands: bands.into(),
            is_deep: bits > 8 || format != UNSIGNED,
            orientation,
            bits,
            is_grey_alpha: bands == 2 && has_alpha && format == UNSIGNED && bits <= 16,
            photometric_at,
            big_endian,
            photometric,
        }))
    }

    /// Bytes of all numbers.
    pub(super) fn decoded_bytes(&self) -> usize {
        let size = usize::from(self.bits).div_ceil(8);
        [self.width, self.bands, size].iter().fold(self.height, |all, &n| all.saturating_mul(n))
    }

    /// The numbers [H, W, C]. `most` is the most bytes of them.
    pub(super) fn decode(&self, bytes: &[u8], name: &str, most: usize) -> Result<Numbers> {
        let fail = |problem: String| Error::Image { name: name.to_owned(), problem };
        let mut bytes = bytes.to_vec();
        if self.photometric == RGB {
            // The decoder drops bands beyond red, green and blue. As grey with further bands it
            // reads all of them.
            let value = if self.big_endian { [0, 1] } else { [1, 0] };
            bytes[self.photometric_at..self.photometric_at + 2].copy_from_slice(&value);
        }
        let mut limits = Limits::default();
        (limits.decoding_buffer_size, limits.intermediate_buffer_size) = (most, most);
        let mut decoded = DecodingResult::U8(Vec::new());
        let layout = Decoder::new(Cursor::new(bytes))
            .and_then(|decoder| decoder.with_limits(limits).read_image_to_buffer(&mut decoded));
        let layout = layout.map_err(|error| fail(format!("cannot be decoded ({error})")))?;
        let kind = kind_of(&decoded);
        let bytes = decoded.as_buffer(0).as_bytes().to_vec();
        drop(decoded);
        let wanted = self.height * self.width * self.bands * kind.size();
        if bytes.len() != wanted {
            let found = bytes.len();
            let problem = format!("holds {found} bytes of numbers, expected {wanted}");
            return Err(fail(problem));
        }
        let bytes = match layout.planes {
            0 | 1 => bytes,
            planes => interleaved(&bytes, planes, kind.size()),
        };
        Ok(Numbers { kind, big_endian: cfg!(target_endian = "big"), bytes })
    }
}

/// [C, H·W] -> [H·W, C], for numbers of `size` bytes.
pub(in crate::data) fn interleaved(bytes: &[u8], planes: usize, size: usize) -> Vec<u8> {
    let plane = bytes.len() / planes;
    let mut whole = Vec::with_capacity(bytes.len());
    for at in (0..plane).step_by(size) {
        for plane in bytes.chunks_exact(plane) {
            whole.extend_from_slice(&plane[at..at + size]);
        }
    }
    whole
}

fn kind_of(decoded: &DecodingResult) -> NumberKind {
    match decoded {
        DecodingResult::U8(_) => NumberKind::U8,
        DecodingResult::U16(_) => NumberKind::U16,
        DecodingResult::U32(_) => NumberKind::U32,
        DecodingResult::U64(_) => NumberKind::U64,
        DecodingResult::F16(_) => NumberKind::F16,
        DecodingResult::F32(_) => NumberKind::F32,
        DecodingResult::F64(_) => NumberKind::F64,
        DecodingResult::I8(_) => NumberKind::I8,
        DecodingResult::I16(_) => NumberKind::I16,
        DecodingResult::I32(_) => NumberKind::I32,
        DecodingResult::I64(_) => NumberKind::I64,
    }
}

/// Where the first directory of a file holds the value of PhotometricInterpretation, and whether
/// the file is big-endian (TIFF 6.0, section 2; BigTIFF has longer entries).
fn photometric_at(bytes: &[u8], directory: u64) -> Option<(usize, bool)> {
    const PHOTOMETRIC: u64 = 262;
    const BIG_TIFF: u64 = 43;
    let big_endian = bytes.starts_with(b"MM");
    let number = |at: usize, length: usize| -> Option<u64> {
        let digits = bytes.get(at..at.checked_add(length)?)?;
        let join = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
        Some(match big_endian {
            true => digits.iter().fold(0, join),
            false => digits.iter().rev().fold(0, join),
        })
    };
    let at = usize::try_from(directory).ok()?;
    let (count_len, entry_len, value) =
        if number(2, 2)? == BIG_TIFF { (8, 20, 12) } else { (2, 12, 8) };
    let first = at.checked_add(count_len)?;
    // An entry has a tag of two bytes, so there are at most 65,536.
    let entries = number(at, count_len)?.min(1 << 16) as usize;
    let mut places = (0..entries).map(|entry| first + entry * entry_len);
    let place = places.find(|&place| number(place, 2) == Some(PHOTOMETRIC))?;
    bytes.get(place + value..place + value + 2).map(|_| (place + value, big_endian))
}

#[cfg(test)]
mod tests;
