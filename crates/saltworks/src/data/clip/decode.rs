//! Decodes image files to pixels: PNG, JPEG, WebP, BMP, TIFF and PNM.

use std::io::Cursor;

use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::decoding::{Background, Decoding};
use super::frames::frames;
use super::numbers::{self, Numbers, StoredValues};
use super::tiff_bands::TiffBands;
use crate::data::{Clip, Error, Info, Result, guard};

/// The most memory that one image may take while it is decoded. 100 megapixels of 16-bit RGB need
/// 600 MB.
const MOST_DECODE_BYTES: u64 = 1 << 30;

/// Decodes an image. Its content decides the format; `name` is for messages. More than eight bits
/// become eight, and an EXIF orientation is applied. Transparent pixels are laid over the
/// background. torchvision's `convert("RGB")` shows the colour that they hide instead.
pub fn decode(bytes: &[u8], name: &str, decoding: impl Into<Decoding>) -> Result<Clip> {
    let decoding = decoding.into();
    guarded(name, || match format(bytes, name)? {
        ImageFormat::Jpeg => {
            check_jpeg(bytes, name, decoding)?;
            decode_other(bytes, ImageFormat::Jpeg, name, decoding)
        }
        ImageFormat::Tiff => match TiffBands::read(bytes) {
            Some(tiff) => decode_bands(&tiff, bytes, name, decoding),
            None => decode_other(bytes, ImageFormat::Tiff, name, decoding),
        },
        format => decode_other(bytes, format, name, decoding),
    })
}

/// The numbers of an image of more than eight bits. None for other images.
pub(super) fn stored_values(bytes: &[u8], name: &str) -> Result<Option<StoredValues>> {
    guarded(name, || match format(bytes, name)? {
        format @ (ImageFormat::Png | ImageFormat::Tiff) => {
            let tiff = (format == ImageFormat::Tiff).then(|| TiffBands::read(bytes)).flatten();
            if let Some(tiff) = tiff {
                return Ok(numbers_of(&tiff, bytes, name)?.stored_values());
            }
            Ok(numbers::values_of(&decode_image(bytes, format, name, Decoding::default())?))
        }
        _ => Ok(None),
    })
}

fn numbers_of(tiff: &TiffBands, bytes: &[u8], name: &str) -> Result<Numbers> {
    if !fits_memory(tiff.decoded_bytes()) {
        return Err(too_large(name));
    }
    tiff.decode(bytes, name, MOST_DECODE_BYTES as usize)
}

fn decode_bands(tiff: &TiffBands, bytes: &[u8], name: &str, decoding: Decoding) -> Result<Clip> {
    let TiffBands { height, width, bands, is_grey_alpha, orientation, .. } = *tiff;
    let numbers = numbers_of(tiff, bytes, name)?;
    let data = numbers.to_bytes(decoding.depth, name)?;
    if data.is_empty() {
        return Err(fail(name, "holds no pixels".to_owned()));
    }
    let clip = match is_grey_alpha {
        true => {
            // Transparency has its own range.
            let alpha = numbers.to_bytes(None, name)?;
            let background = decoding.background;
            let shown = if is_grey_background(background) { 1 } else { 3 };
            let pixels = data.chunks_exact(2).zip(alpha.chunks_exact(2));
            let mix = |(pixel, alpha): (&[u8], &[u8])| {
                background.map(|behind| over(pixel[0], alpha[1], behind)).into_iter().take(shown)
            };
            Clip::image(height, width, shown, pixels.flat_map(mix).collect())
        }
        false => Clip::image(height, width, bands, data),
    };
    Ok(clip.oriented(orientation))
}

/// Runs a library's decoder. A damaged file may make it panic. Then the image `name` is unreadable,
/// and the run continues.
fn guarded<T>(name: &str, decode: impl FnOnce() -> Result<T>) -> Result<T> {
    guard::guarded(|panic| fail(name, format!("made its decoder panic ({panic})")), decode)
}

/// The size in the header, after the orientation is applied. The pixels are not decoded. A JPEG
/// that is cut off is still refused, and so is an image that needs too much memory.
pub(in crate::data) fn info(bytes: &[u8], name: &str, decoding: Decoding) -> Result<Info> {
    guarded(name, || info_of(bytes, name, decoding))
}

fn info_of(bytes: &[u8], name: &str, decoding: Decoding) -> Result<Info> {
    let format = format(bytes, name)?;
    let is_cut = format == ImageFormat::Jpeg && is_cut_jpeg(bytes);
    if is_cut {
        check_jpeg(bytes, name, decoding)?;
    }
    let tiff = (format == ImageFormat::Tiff).then(|| TiffBands::read(bytes)).flatten();
    if let Some(tiff) = tiff {
        if !fits_memory(tiff.decoded_bytes()) {
            return Err(too_large(name));
        }
        let TiffBands { height, width, bands, is_grey_alpha: alpha, is_deep, .. } = tiff;
        let channels = match alpha {
            true if is_grey_background(decoding.background) => 1,
            true => 3,
            false => bands,
        };
        let sides = [height, width];
        let [height, width] = if tiff.orientation >= 5 { [width, height] } else { sides };
        let (frames, bytes) = (frames(bytes, format), bytes.len() as u64);
        return Ok(Info { height, width, channels, bytes, alpha, is_deep, frames, ..Info::ONE });
    }
    check_claims(bytes, format, name)?;
    let mut decoder = decoder(bytes, format).map_err(|error| refused(name, &error))?;
    if !fits_memory(decoder.total_bytes() as usize) {
        return Err(too_large(name));
    }
    let (width, height) = decoder.dimensions();
    if format == ImageFormat::Jpeg {
        check_blocks(bytes.len(), [height as usize, width as usize], name, decoding)?;
    }
    let turned = decoder.orientation().is_ok_and(turns);
    let (width, height) = if turned { (height, width) } else { (width, height) };
    let colour = decoder.color_type();
    let grey = is_grey(colour) && (!colour.has_alpha() || is_grey_background(decoding.background));
    Ok(Info {
        height: height as usize,
        width: width as usize,
        channels: if grey { 1 } else { 3 },
        bytes: bytes.len() as u64,
        alpha: colour.has_alpha(),
        is_deep: format != ImageFormat::Pnm && colour.bytes_per_pixel() > colour.channel_count(),
        is_cut,
        frames: frames(bytes, format),
    })
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
    use ImageFormat::{Bmp, Jpeg, Png, Pnm, Tiff, WebP};
    const EXPECTED: &str = "expected PNG, JPEG, WebP, BMP, TIFF or PNM";
    if bytes.is_empty() {
        return Err(fail(name, format!("is empty, {EXPECTED}")));
    }
    if bytes.starts_with(&[0xFF, 0xD8]) {
        // Also if the third byte is cut off, which `guess_format` needs.
        return Ok(Jpeg);
    }
    if bytes.starts_with(b"II+\0") || bytes.starts_with(b"MM\0+") {
        return Err(fail(name, format!("holds a BigTIFF image, {EXPECTED}")));
    }
    match image::guess_format(bytes) {
        Ok(format @ (Png | WebP | Bmp | Tiff | Pnm)) => Ok(format),
        Ok(format) => {
            let found = format!("{format:?}").to_uppercase();
            Err(fail(name, format!("holds a {found} image, {EXPECTED}")))
        }
        Err(_) => Err(fail(name, format!("is not an image of a known format, {EXPECTED}"))),
    }
}

/// Refuses a JPEG that is cut off, unless such are kept.
pub(in crate::data) fn check_jpeg(bytes: &[u8], name: &str, decoding: Decoding) -> Result<()> {
    if !decoding.keep_cut && is_cut_jpeg(bytes) {
        return Err(Error::CutJpeg { name: name.to_owned(), bytes: bytes.len() });
    }
    if is_cut_jpeg(bytes) && !has_scan(bytes) {
        let problem = format!("JPEG is cut off after {} bytes, before its pixels", bytes.len());
        return Err(fail(name, problem));
    }
    Ok(())
}

/// Whether any byte of pixels follows the headers of a JPEG. True if the headers are damaged, which
/// the decoder reports.
fn has_scan(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xDA;
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let [0xFF, marker, high, low, ..] = *rest {
        let length = usize::from(u16::from_be_bytes([high, low]));
        rest = rest.get(2 + length..).unwrap_or_default();
        if marker == START_OF_SCAN {
            return !rest.is_empty();
        }
    }
    rest.len() >= 4
}

fn is_cut_jpeg(bytes: &[u8]) -> bool {
    !has_end_of_image(bytes.get(2..).unwrap_or_default())
}

fn decode_other(bytes: &[u8], format: ImageFormat, name: &str, decoding: Decoding) -> Result<Clip> {
    let image = decode_image(bytes, format, name, decoding)?;
    if image.width() == 0 || image.height() == 0 {
        return Err(fail(name, "holds no pixels".to_owned()));
    }
    // PNM states its greatest value, and is read by it.
    let depth = decoding.depth.filter(|_| format != ImageFormat::Pnm);
    Ok(pixels(numbers::with_depth(image, depth), decoding.background))
}

fn decoder(bytes: &[u8], format: ImageFormat) -> image::ImageResult<impl ImageDecoder> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_DECODE_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    reader.into_decoder()
}

fn decode_image(
    bytes: &[u8],
    format: ImageFormat,
    name: &str,
    decoding: Decoding,
) -> Result<DynamicImage> {
    check_claims(bytes, format, name)?;
    let refused = |error| refused(name, &error);
    let mut decoder = decoder(bytes, format).map_err(refused)?;
    if format == ImageFormat::Jpeg {
        let (width, height) = decoder.dimensions();
        check_blocks(bytes.len(), [height as usize, width as usize], name, decoding)?;
    }
    let orientation = decoder.orientation().map_err(refused)?;
    // The limit does not count the output itself.
    if !fits_memory(decoder.total_bytes() as usize) {
        return Err(too_large(name));
    }
    let mut image = DynamicImage::from_decoder(decoder).map_err(refused)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Refuses a WebP with a part that ends behind the file. The decoder would ask for as much memory
/// as the part claims to have, up to 4 GiB (RFC 9649, section 2.3: a name and a length of four
/// bytes each, then the part, padded to an even length).
fn check_claims(bytes: &[u8], format: ImageFormat, name: &str) -> Result<()> {
    let mut rest = match (format, bytes) {
        // "RIFF", the length of what follows, then "WEBP". Bytes behind that are no part of it.
        (ImageFormat::WebP, [_, _, _, _, n0, n1, n2, n3, ..]) => {
            let whole = 8 + u32::from_le_bytes([*n0, *n1, *n2, *n3]) as usize;
            bytes.get(12..bytes.len().min(whole)).unwrap_or_default()
        }
        _ => return Ok(()),
    };
    while let [a, b, c, d, n0, n1, n2, n3, after @ ..] = rest {
        let part = String::from_utf8_lossy(&[*a, *b, *c, *d]).trim_end().to_owned();
        let claimed = u32::from_le_bytes([*n0, *n1, *n2, *n3]) as usize;
        let Some(next) = after.get(claimed..) else {
            let left = after.len();
            let problem = format!(
                "is cut off or damaged: its part {part:?} claims {claimed} bytes, and {left} are \
                 left"
            );
            return Err(fail(name, problem));
        };
        rest = next.get(claimed % 2..).unwrap_or_default();
    }
    Ok(())
}

/// Refuses a JPEG with fewer bytes than its blocks of 8 x 8 pixels need, one bit each: every code
/// has at least one bit, and a block has at least one code (ITU T.81, F.1.2 and G.1.2). What is
/// missing would be grey, and would take long.
pub(in crate::data) fn check_blocks(
    bytes: usize,
    [height, width]: [usize; 2],
    name: &str,
    decoding: Decoding,
) -> Result<()> {
    let blocks = height.div_ceil(8) * width.div_ceil(8);
    if !decoding.keep_cut && blocks.div_ceil(8) > bytes {
        let problem = format!(
            "claims to be {height} x {width} pixels, which need more than its {bytes} bytes"
        );
        return Err(fail(name, problem));
    }
    Ok(())
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
    fn restart_markers_belong_to_the_coded_data() {
        for marker in 0xD0..=0xD7 {
            // The start of a scan of no length, coded data, and the end.
            let jpeg = [0xFF, 0xDA, 0, 2, 7, 0xFF, marker, 0x40, 7, 0xFF, 0xD9];
            assert!(has_end_of_image(&jpeg), "{marker:x}");
            assert!(!has_end_of_image(&jpeg[..9]), "{marker:x}");
        }
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
        let expected = "expected PNG, JPEG, WebP, BMP, TIFF or PNM. Replace or remove the file";
        assert_eq!(message(b"II+\0 and more"), format!("a.png: holds a BigTIFF image, {expected}"));
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
        for format in [ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::Pnm] {
            assert_eq!(decode(&encoded(format), "a").unwrap(), png, "{format:?}");
        }
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Tiff] {
            let info = info(&encoded(format), "a", Decoding::default()).unwrap();
            assert_eq!((info.height, info.width, info.channels), (30, 40, 3), "{format:?}");
        }
    }

    #[test]
    fn pnm_is_read_in_all_its_depths() {
        let data = |bytes: &[u8]| {
            let clip = decode(bytes, "a.pnm").unwrap();
            (clip.channels, clip.data)
        };
        assert_eq!(data(b"P1 2 1 1 0"), (1, vec![0, 255]));
        assert_eq!(data(b"P2 2 1 100 50 100"), (1, vec![128, 255]));
        assert_eq!(data(b"P5 2 1 255 \x07\xff"), (1, vec![7, 255]));
        assert_eq!(data(b"P5 1 1 4095 \x08\x00"), (1, vec![128]), "12 bits");
        let depth = Decoding { depth: Some([0.0, 4095.0].into()), ..Decoding::default() };
        let stated = crate::data::decode(b"P5 1 1 4095 \x08\x00", "a.pgm", depth).unwrap();
        assert_eq!(stated.data, [128], "a PNM states its own depth");
        assert_eq!(data(b"P6 1 1 255 \x01\x02\x03"), (3, vec![1, 2, 3]));
        let message = decode(b"P6 2 1 255 \x01\x02\x03", "a.ppm").unwrap_err().to_string();
        assert!(message.starts_with("a.ppm: cannot be decoded"), "{message}");
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
        assert_eq!(info(&grey, "a", [7, 8, 9].into()).unwrap().channels, 3);
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
        assert_eq!(info(&png, "huge.png", Decoding::default()).unwrap_err().to_string(), message);
    }

    #[test]
    fn a_webp_whose_exif_claims_more_than_the_file_takes_no_memory() {
        let mut webp = encoded(ImageFormat::WebP);
        let part = |name: &[u8; 4], length: u32| [&name[..], &length.to_le_bytes()].concat();
        // An extended file: flags (EXIF is 8), three reserved bytes, width and height less one.
        let extended = [part(b"VP8X", 10), vec![8, 0, 0, 0, 39, 0, 0, 29, 0, 0]].concat();
        webp.splice(12..12, extended);
        webp.extend(part(b"EXIF", 4));
        webp.extend([0; 4]);
        let riff = (webp.len() as u32 - 8).to_le_bytes();
        webp[4..8].copy_from_slice(&riff);
        decode(&webp, "whole.webp").unwrap();
        let behind = [&webp[..], b"a comment behind the file"].concat();
        assert_eq!(decode(&behind, "a.webp").unwrap(), decode(&webp, "a.webp").unwrap());
        let claim = webp.len() - 8;
        webp[claim..claim + 4].copy_from_slice(&0xFFFF_FF00_u32.to_le_bytes());
        webp[4..8].copy_from_slice(&0xFFFF_FFFE_u32.to_le_bytes());
        let message = decode(&webp, "a.webp").unwrap_err().to_string();
        assert!(message.contains("\"EXIF\" claims 4294967040 bytes, and 4 are left"), "{message}");
        assert_eq!(info(&webp, "a.webp", Decoding::default()).unwrap_err().to_string(), message);
    }

    #[test]
    fn a_jpeg_that_claims_more_pixels_than_its_bytes_can_hold_is_refused_at_once() {
        let mut jpeg = encoded(ImageFormat::Jpeg);
        let frame = jpeg.windows(2).position(|mark| mark == [0xFF, 0xC0]).unwrap();
        // Marker, length, precision, then height and width.
        jpeg[frame + 5..frame + 9].copy_from_slice(&[0x46, 0x50, 0x46, 0x50]);
        let message = decode(&jpeg, "a.jpg").unwrap_err().to_string();
        assert!(message.contains("claims to be 18000 x 18000 pixels"), "{message}");
        assert_eq!(info(&jpeg, "a.jpg", Decoding::default()).unwrap_err().to_string(), message);
    }

    #[test]
    fn a_cut_jpeg_is_kept_where_asked_and_said_to_be_cut() {
        let whole = encoded(ImageFormat::Jpeg);
        let keep = Decoding { keep_cut: true, ..Decoding::default() };
        let unended = &whole[..whole.len() - 2];
        let kept = crate::data::decode(unended, "a.jpg", keep).unwrap();
        assert_eq!(kept, decode(&whole, "a.jpg").unwrap());
        assert!(info(unended, "a.jpg", keep).unwrap().is_cut);
        assert!(!info(&whole, "a.jpg", keep).unwrap().is_cut);
        assert!(crate::data::decode(&whole[..whole.len() - 40], "a.jpg", keep).is_ok());
        let scan = whole.windows(2).position(|mark| mark == [0xFF, 0xDA]).unwrap();
        let after = scan + 2 + usize::from(whole[scan + 3]);
        for end in [scan, scan + 7, after] {
            let refused = crate::data::decode(&whole[..end], "a.jpg", keep).unwrap_err();
            assert!(refused.to_string().contains("before its pixels"), "{end}: {refused}");
            assert!(info(&whole[..end], "a.jpg", keep).is_err());
        }
        assert!(crate::data::decode(&whole[..after + 9], "a.jpg", keep).is_ok());
        let message = decode(unended, "a.jpg").unwrap_err().to_string();
        assert!(message.contains("data.cut_images = \"keep\""), "{message}");
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
        for value in 1..=8 {
            let mut jpeg = encoded(ImageFormat::Jpeg);
            // APP1 with one entry: tag 0x0112 (orientation), type short, count 1.
            let exif = [
                0xFF, 0xE1, 0, 34, b'E', b'x', b'i', b'f', 0, 0, b'M', b'M', 0, 42, 0, 0, 0, 8, 0,
                1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, value, 0, 0, 0, 0, 0, 0,
            ];
            jpeg.splice(2..2, exif);
            let pixels = decode(&jpeg, "turned.jpg").unwrap();
            let info = info(&jpeg, "turned.jpg", Decoding::default()).unwrap();
            // From 5 on, rows are shown as columns (EXIF 2.3, 4.6.4 A).
            let sides = if value < 5 { (30, 40) } else { (40, 30) };
            assert_eq!((pixels.height, pixels.width), sides, "{value}");
            assert_eq!((info.height, info.width), sides, "{value}");
        }
    }

    /// CRC-32 of PNG (ISO 3309), bit by bit.
    fn crc32(bytes: &[u8]) -> u32 {
        let step = |crc: u32, _| if crc & 1 == 1 { 0xEDB8_8320 ^ (crc >> 1) } else { crc >> 1 };
        !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
    }
}
