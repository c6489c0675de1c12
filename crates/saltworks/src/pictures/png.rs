//! Pixels as text that a page shows.

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder as _};

/// Pixels [H, W, 1 or 3] as a PNG file in base64.
pub(super) fn png(pixels: &[u8], width: usize, height: usize) -> String {
    let kind = match pixels.len() == width * height {
        true => ExtendedColorType::L8,
        false => ExtendedColorType::Rgb8,
    };
    let mut file = Vec::new();
    let encoder =
        PngEncoder::new_with_quality(&mut file, CompressionType::Default, FilterType::Adaptive);
    // Memory takes all there is to write, and the size is that of an image.
    let written = encoder.write_image(pixels, width as u32, height as u32, kind);
    debug_assert!(written.is_ok(), "{written:?}");
    base64(&file)
}

/// RFC 4648, section 4.
pub(super) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let known = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (length, wanted) in known.iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..length]), *wanted);
        }
    }
}
