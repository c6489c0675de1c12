//! Decodes image files to pixels: PNG, JPEG, WebP, BMP and TIFF.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::data::{Clip, Error, Info, Result};

/// The most memory that one image may take while it is decoded. 100 megapixels of 16-bit RGB need
/// 600 MB.
const MOST_DECODE_BYTES: u64 = 1 << 30;

/// What transparent pixels show: red, green, blue.
pub type Background = [u8; 3];

/// Decodes an image. Its content decides the format; `name` is for messages. Sixteen bits become
/// eight, and an EXIF orientation is applied. Transparent pixels are laid over `background`.
/// torchvision's `convert("RGB")` shows the colour that they hide instead.
pub fn decode(bytes: &[u8], name: &str, background: Background) -> Result<Clip> {
    guarded(name, || match format(bytes, name)? {
        ImageFormat::Jpeg => decode_jpeg(bytes, name),
        format => decode_other(bytes, format, name, background),
    })
}

/// Runs a library's decoder. A damaged file may make it panic. Then the image `name` is unreadable,
/// and the run continues.
pub(in crate::data) fn guarded<T>(name: &str, decode: impl FnOnce() -> Result<T>) -> Result<T> {
    // Nothing that the decoder changed is used after its panic.
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(fail(name, format!("made its decoder panic ({text})")))
    })
}

/// The size in the header, after the orientation is applied. The pixels are not decoded. A JPEG
/// that is cut off is still refused, and so is an image that needs too much memory.
pub(in crate::data) fn info(bytes: &[u8], name: &str, background: Background) -> Result<Info> {
    guarded(name, || info_of(bytes, name, background))
}

fn info_of(bytes: &[u8], name: &str, background: Background) -> Result<Info> {
    let format = format(bytes, name)?;
    if format == ImageFormat::Jpeg {
        check_jpeg(bytes, name)?;
    }
    let mut decoder = decoder(bytes, format).map_err(|error| refused(name, &error))?;
    if !fits_memory(decoder.total_bytes() as usize) {
        return Err(too_large(name));
    }
    let (width, height) = decoder.dimensions();
    let turned = decoder.orientation().is_ok_and(turns);
    let (width, height) = if turned { (height, width) } else { (width, height) };
    let colour = decoder.color_type();
    let grey = is_grey(colour) && (!colour.has_alpha() || is_grey_background(background));
    let channels = if grey { 1 } else { 3 };
    let (height, width) = (height as usize, width as usize);
    Ok(Info { height, width, channels, bytes: bytes.len() as u64, alpha: colour.has_alpha() })
}

fn turns(orientation: image::metadata::Orientation) -> bool {
    use image::metadata::Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

fn fail(name: &str, problem: String) -> Error {
    Error::Image { name: name.to_owned(), problem }
}

/// The format of an image, if it is supported. Other formats are refused by name.
fn format(bytes: &[u8], name: &str) -> Result<ImageFormat> {
    use ImageFormat::{Bmp, Jpeg, Png, Tiff, WebP};
    const EXPECTED: &str = "expected PNG, JPEG, WebP, BMP or TIFF";
    if bytes.is_empty() {
        return Err(fail(name, format!("is empty, {EXPECTED}")));
    }
    if bytes.starts_with(&[0xFF, 0xD8]) {
        // Also if the third byte is cut off, which `guess_format` needs.
        return Ok(Jpeg);
    }
    match image::guess_format(bytes) {
        Ok(format @ (Png | WebP | Bmp | Tiff)) => Ok(format),
        Ok(format) => {
            let found = format!("{format:?}").to_uppercase();
            Err(fail(name, format!("holds a {found} image, {EXPECTED}")))
        }
        Err(_) => Err(fail(name, format!("is not an image of a known format, {EXPECTED}"))),
    }
}

fn decode_jpeg(bytes: &[u8], name: &str) -> Result<Clip> {
    check_jpeg(bytes, name)?;
    // A JPEG has no transparency.
    decode_other(bytes, ImageFormat::Jpeg, name, Background::default())
}

/// Refuses a JPEG that is cut off.
pub(in crate::data) fn check_jpeg(bytes: &[u8], name: &str) -> Result<()> {
    if !has_end_of_image(bytes.get(2..).unwrap_or_default()) {
        let found = bytes.len();
        let problem = format!("JPEG is cut off after {found} bytes, before its end marker");
        return Err(fail(name, problem));
    }
    Ok(())
}

fn decode_other(
    bytes: &[u8],
    format: ImageFormat,
    name: &str,
    background: Background,
) -> Result<Clip> {
    let image = decode_image(bytes, format).map_err(|error| refused(name, &error))?;
    if image.width() == 0 || image.height() == 0 {
        return Err(fail(name, "holds no pixels".to_owned()));
    }
    Ok(pixels(image, background))
}

fn decoder(bytes: &[u8], format: ImageFormat) -> image::ImageResult<impl ImageDecoder> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_DECODE_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    reader.into_decoder()
}

fn decode_image(bytes: &[u8], format: ImageFormat) -> image::ImageResult<DynamicImage> {
    let mut decoder = decoder(bytes, format)?;
    let orientation = decoder.orientation()?;
    // The limit does not count the output itself.
    if !fits_memory(decoder.total_bytes() as usize) {
        let kind = image::error::LimitErrorKind::InsufficientMemory;
        return Err(image::ImageError::Limits(image::error::LimitError::from_kind(kind)));
    }
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Whether an image of `bytes` bytes may be decoded.
pub(in crate::data) fn fits_memory(bytes: usize) -> bool {
    bytes as u64 <= MOST_DECODE_BYTES
}

fn refused(name: &str, error: &image::ImageError) -> Error {
    match error {
        image::ImageError::Limits(_) => too_large(name),
        other => fail(name, format!("cannot be decoded ({other})")),
    }
}

fn too_large(name: &str) -> Error {
    Error::TooLarge { name: name.to_owned(), most_mib: MOST_DECODE_BYTES >> 20 }
}

fn is_grey(colour: ColorType) -> bool {
    matches!(colour, ColorType::L8 | ColorType::La8 | ColorType::L16 | ColorType::La16)
}

fn is_grey_background([red, green, blue]: Background) -> bool {
    red == green && green == blue
}

fn pixels(image: DynamicImage, background: Background) -> Clip {
    let (height, width) = (image.height() as usize, image.width() as usize);
    let colour = image.color();
    let (data, channels) = match (is_grey(colour), colour.has_alpha()) {
        (true, true) if is_grey_background(background) => {
            let [behind, ..] = background;
            let pixels = image.to_luma_alpha8();
            (pixels.pixels().map(|pixel| over(pixel[0], pixel[1], behind)).collect(), 1)
        }
        (_, true) => {
            let pixels = image.to_rgba8();
            let mix = |pixel: &image::Rgba<u8>| {
                [0, 1, 2].map(|channel| over(pixel[channel], pixel[3], background[channel]))
            };
            (pixels.pixels().flat_map(mix).collect(), 3)
        }
        (true, false) => (image.into_luma8().into_raw(), 1),
        (false, false) => (image.into_rgb8().into_raw(), 3),
    };
    Clip::image(height, width, channels, data)
}

/// front α + behind (1 - α), rounded.
fn over(front: u8, alpha: u8, behind: u8) -> u8 {
    let [front, alpha, behind] = [front, alpha, behind].map(u32::from);
    ((front * alpha + behind * (255 - alpha) + 127) / 255) as u8
}

/// Whether a JPEG reaches its end-of-image marker (ITU T.81, B.1.1). If it does not, the decoder
/// fills the missing part with grey and reports nothing. `rest` follows the first marker. A segment
/// is skipped by its length, so that the end marker of an embedded thumbnail does not count. Coded
/// data is scanned for the next marker: 0xFF of the data itself is followed by 0, and restart
/// markers (D0 to D7) have no segment.
fn has_end_of_image(mut rest: &[u8]) -> bool {
    loop {
        let mut marks = memchr::memchr_iter(0xFF, rest);
        let is_mark = |&at: &usize| rest.get(at + 1).is_some_and(|&second| is_marker(second));
        let Some(at) = marks.find(is_mark) else { return false };
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

/// Whether 0xFF and this byte are a marker.
fn is_marker(second: u8) -> bool {
    !matches!(second, 0x00 | 0x01 | 0xD0..=0xD7 | 0xFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8], name: &str) -> Result<Clip> {
        crate::data::decode(bytes, name, [0; 3])
    }

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
        let message = |bytes: &[u8]| decode(bytes, "a.png").unwrap_err().to_string();
        let expected = "expected PNG, JPEG, WebP, BMP or TIFF. Replace or remove the file";
        assert_eq!(message(b"GIF89a and more"), format!("a.png: holds a GIF image, {expected}"));
        assert_eq!(
            message(b"hello"),
            format!("a.png: is not an image of a known format, {expected}")
        );
        assert_eq!(message(b""), format!("a.png: is empty, {expected}"));
    }

    #[test]
    fn formats_without_loss_give_the_same_pixels_and_all_state_their_sizes() {
        let png = decode(&encoded(ImageFormat::Png), "a.png").unwrap();
        for format in [ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff] {
            assert_eq!(decode(&encoded(format), "a").unwrap(), png, "{format:?}");
        }
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Tiff] {
            let info = info(&encoded(format), "a", [0; 3]).unwrap();
            assert_eq!((info.height, info.width, info.channels), (30, 40, 3), "{format:?}");
        }
    }

    #[test]
    fn transparent_pixels_show_the_background() {
        let png = |image: DynamicImage| {
            let mut bytes = Cursor::new(Vec::new());
            image.write_to(&mut bytes, ImageFormat::Png).unwrap();
            bytes.into_inner()
        };
        let colour = image::RgbaImage::from_vec(2, 1, vec![200, 100, 50, 128, 9, 9, 9, 0]);
        let colour = png(DynamicImage::ImageRgba8(colour.unwrap()));
        let data = |bytes: &[u8], behind| crate::data::decode(bytes, "a", behind).unwrap().data;
        // 200 * 128/255 = 100.4, 100 -> 50.2, 50 -> 25.1.
        assert_eq!(data(&colour, [0; 3]), [100, 50, 25, 0, 0, 0]);
        assert_eq!(data(&colour, [255, 0, 10]), [227, 50, 30, 255, 0, 10]);
        let grey = image::GrayAlphaImage::from_vec(1, 1, vec![80, 0]).unwrap();
        let grey = png(DynamicImage::ImageLumaA8(grey));
        assert_eq!(data(&grey, [7; 3]), [7]);
        assert_eq!(data(&grey, [7, 8, 9]), [7, 8, 9]);
        assert_eq!(info(&grey, "a", [7, 8, 9]).unwrap().channels, 3);
    }

    #[test]
    fn an_image_that_claims_to_be_huge_takes_no_memory() {
        let mut png = encoded(ImageFormat::Png);
        // Width and height are bytes 16..24 of the header chunk, its checksum in 29..33.
        png[16..24].copy_from_slice(&[0x00, 0x01, 0, 0, 0x00, 0x01, 0, 0]);
        let checksum = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&checksum.to_be_bytes());
        let message = decode(&png, "huge.png").unwrap_err().to_string();
        assert!(message.contains("needs more than 1024 MiB"), "{message}");
        // Its header is enough to know.
        assert_eq!(info(&png, "huge.png", [0; 3]).unwrap_err().to_string(), message);
    }

    #[test]
    fn a_panic_of_a_decoder_makes_its_image_unreadable() {
        for panic in [|| panic!("told"), || panic!("to{}", "ld")] {
            let message = guarded::<()>("cats/1.png", panic).unwrap_err().to_string();
            assert!(message.starts_with("cats/1.png: made its decoder panic (told)"), "{message}");
        }
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
    fn exif_orientation_is_applied() {
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
