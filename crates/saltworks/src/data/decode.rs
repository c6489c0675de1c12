//! From the bytes of a PNG or JPEG file to pixels.

use std::io::Cursor;

use image::{ColorType, DynamicImage, ImageDecoder, ImageReader, Limits};

use super::{Error, Pixels, Result};

/// Memory one image may take while it is decoded; 100 megapixels of 16-bit RGB need 600 MB.
const MOST_DECODE_BYTES: u64 = 1 << 30;

/// Decodes a PNG or JPEG, told apart by content, not name; `name` is for messages. Sixteen bits
/// become eight, transparency is dropped, and an EXIF orientation is carried out.
pub fn decode(bytes: &[u8], name: &str) -> Result<Pixels> {
    let fail = |problem: String| Error::Image { name: name.to_owned(), problem };
    if bytes.is_empty() {
        return Err(fail("is empty, expected a PNG or JPEG image".to_owned()));
    }
    if is_cut_jpeg(bytes) {
        let found = bytes.len();
        return Err(fail(format!("JPEG is cut off after {found} bytes, before its end marker")));
    }
    let image = decode_any(bytes).map_err(|error| fail(problem(&error)))?;
    if image.width() == 0 || image.height() == 0 {
        return Err(fail("holds no pixel".to_owned()));
    }
    Ok(pixels(&image))
}

fn decode_any(bytes: &[u8]) -> image::ImageResult<DynamicImage> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_DECODE_BYTES);
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let orientation = decoder.orientation()?;
    // The limit does not count the output itself.
    if decoder.total_bytes() > MOST_DECODE_BYTES {
        let kind = image::error::LimitErrorKind::InsufficientMemory;
        return Err(image::ImageError::Limits(image::error::LimitError::from_kind(kind)));
    }
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

fn problem(error: &image::ImageError) -> String {
    match error {
        image::ImageError::Unsupported(_) => "is neither PNG nor JPEG".to_owned(),
        image::ImageError::Limits(_) => {
            format!("needs more than {} MiB of memory to decode", MOST_DECODE_BYTES >> 20)
        }
        other => format!("cannot be decoded ({other})"),
    }
}

fn pixels(image: &DynamicImage) -> Pixels {
    let (height, width) = (image.height() as usize, image.width() as usize);
    let grey =
        matches!(image.color(), ColorType::L8 | ColorType::La8 | ColorType::L16 | ColorType::La16);
    let (data, channels) = match grey {
        true => (image.to_luma8().into_raw(), 1),
        false => (image.to_rgb8().into_raw(), 3),
    };
    Pixels { data, height, width, channels }
}

/// Whether a JPEG ends before its end-of-image marker (ITU T.81, B.1.1). The decoder itself fills
/// the missing part with grey and says nothing.
fn is_cut_jpeg(bytes: &[u8]) -> bool {
    const START: [u8; 2] = [0xFF, 0xD8];
    bytes.starts_with(&START) && !has_end_of_image(&bytes[2..])
}

/// Walks the markers after the first: a segment is skipped by its length, so that the end marker of
/// an embedded thumbnail does not count; coded data is scanned for the next marker, where 0xFF of
/// the data itself is followed by 0 and restart markers (D0 to D7) stand alone.
fn has_end_of_image(mut rest: &[u8]) -> bool {
    loop {
        let Some(at) = rest.windows(2).position(|pair| is_marker(pair[0], pair[1])) else {
            return false;
        };
        let marker = rest[at + 1];
        if marker == 0xD9 {
            return true;
        }
        let Some(&[high, low]) = rest.get(at + 2..at + 4) else { return false };
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some(after) = rest.get(at + 2 + length..) else { return false };
        rest = after;
    }
}

fn is_marker(first: u8, second: u8) -> bool {
    first == 0xFF && !matches!(second, 0x00 | 0x01 | 0xD0..=0xD7 | 0xFF)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::ImageFormat;

    fn encoded(format: ImageFormat) -> Vec<u8> {
        let image = image::RgbImage::from_fn(40, 30, |x, y| {
            image::Rgb([(x * 6) as u8, (y * 8) as u8, (x * y) as u8])
        });
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn png_is_exact_and_jpeg_is_near() {
        let png = decode(&encoded(ImageFormat::Png), "a.png").unwrap();
        let jpeg = decode(&encoded(ImageFormat::Jpeg), "a.jpg").unwrap();
        assert_eq!((png.height, png.width, png.channels), (30, 40, 3));
        assert_eq!(png.data[3 * (2 * 40 + 5)..][..3], [30, 16, 10]);
        let difference = png.data.iter().zip(&jpeg.data).map(|(a, b)| f64::from(a.abs_diff(*b)));
        assert!(difference.sum::<f64>() / (png.data.len() as f64) < 8.0);
    }

    #[test]
    fn a_jpeg_cut_anywhere_is_refused_by_name() {
        let whole = encoded(ImageFormat::Jpeg);
        for kept in [2, 3, 20, whole.len() / 2, whole.len() - 10, whole.len() - 1] {
            let message = decode(&whole[..kept], "cats/1.jpg").unwrap_err().to_string();
            assert!(message.starts_with("cats/1.jpg: JPEG is cut off after"), "{message}");
        }
        let mut padded = whole;
        padded.extend([0; 100]);
        decode(&padded, "padded.jpg").unwrap();
    }

    #[test]
    fn a_png_cut_anywhere_is_refused_by_name() {
        let whole = encoded(ImageFormat::Png);
        for kept in [0, 4, 30, whole.len() / 2] {
            let message = decode(&whole[..kept], "cats/1.png").unwrap_err().to_string();
            assert!(message.starts_with("cats/1.png: "), "{message}");
        }
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let message = decode(b"GIF89a and more", "a.png").unwrap_err().to_string();
        assert_eq!(message, "a.png: is neither PNG nor JPEG. Replace or remove the file");
    }

    #[test]
    fn an_image_that_claims_to_be_huge_takes_no_memory() {
        let mut png = encoded(ImageFormat::Png);
        // Width and height stand in bytes 16..24 of the header chunk, its checksum in 29..33.
        png[16..24].copy_from_slice(&[0x00, 0x01, 0, 0, 0x00, 0x01, 0, 0]);
        let checksum = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&checksum.to_be_bytes());
        let message = decode(&png, "huge.png").unwrap_err().to_string();
        assert!(message.contains("needs more than 1024 MiB"), "{message}");
    }

    #[test]
    fn grey_stays_grey_and_sixteen_bits_become_eight() {
        let wide = image::ImageBuffer::from_pixel(2, 1, image::Luma([0x8000_u16]));
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::ImageLuma16(wide).write_to(&mut bytes, ImageFormat::Png).unwrap();
        let pixels = decode(bytes.get_ref(), "grey.png").unwrap();
        assert_eq!((pixels.channels, pixels.data), (1, vec![128, 128]));
    }

    #[test]
    fn exif_orientation_is_carried_out() {
        let mut jpeg = encoded(ImageFormat::Jpeg);
        // APP1 with one entry: tag 0x0112 (orientation), type short, count 1, value 6 (turn right).
        let exif = [
            0xFF, 0xE1, 0, 34, b'E', b'x', b'i', b'f', 0, 0, b'M', b'M', 0, 42, 0, 0, 0, 8, 0, 1,
            0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0,
        ];
        jpeg.splice(2..2, exif);
        let pixels = decode(&jpeg, "turned.jpg").unwrap();
        assert_eq!((pixels.height, pixels.width), (40, 30));
    }

    /// CRC-32 of PNG (ISO 3309), bit by bit.
    fn crc32(bytes: &[u8]) -> u32 {
        let step = |crc: u32, _| if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 };
        !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
    }
}
