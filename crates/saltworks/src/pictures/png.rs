//! Pixels as text for a page.

use base64::prelude::{BASE64_STANDARD, Engine as _};
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
    // Writing to memory cannot fail, and the size is that of the image.
    let written = encoder.write_image(pixels, width as u32, height as u32, kind);
    debug_assert!(written.is_ok(), "{written:?}");
    BASE64_STANDARD.encode(&file)
}
