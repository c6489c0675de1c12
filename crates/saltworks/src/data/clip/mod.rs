//! A decoded clip, and how it is decoded, cropped and augmented.

pub(in crate::data) mod augment;
pub(in crate::data) mod decode;
mod decoding;
mod frames;
pub(in crate::data) mod jpeg;
mod normalize;
mod numbers;
pub(in crate::data) mod raw_sample;
pub(in crate::data) mod region;
pub(in crate::data) mod tiff_bands;

pub use augment::{Blur, Crop, Effects, Interpolation, Jitter, Solarize, Transform};
pub use decode::decode;
pub use decoding::{Background, Decoding};
pub use normalize::Normalize;
pub use numbers::{NumberKind, Numbers, StoredValues};
pub use raw_sample::{RawSample, StoredAs};

use super::{Error, Result};
use region::{Extent, Region};

/// The most bands of an image.
pub const MOST_CHANNELS: usize = 256;

/// Frames of bytes, [T, H, W, C]: grey (C = 1), red, green and blue (C = 3), or C bands. An image
/// is one frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clip {
    /// T, 1 for an image.
    pub frames: usize,
    /// H
    pub height: usize,
    /// W
    pub width: usize,
    /// C
    pub channels: usize,
    /// T·H·W·C bytes: frame by frame, row by row, the channels of a pixel side by side.
    pub data: Vec<u8>,
}

impl Clip {
    /// An image of H·W·C bytes.
    pub fn image(height: usize, width: usize, channels: usize, data: Vec<u8>) -> Self {
        Self { frames: 1, height, width, channels, data }
    }

    /// Bytes of a frame.
    pub(in crate::data) fn frame_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    pub(in crate::data) fn extent(&self) -> Extent {
        Extent { frames: self.frames, height: self.height, width: self.width }
    }

    /// The same clip, called `name`, with this number of channels. Grey becomes three equal
    /// channels. Colours become grey as in Pillow's `convert("L")` (ITU-R 601-2, 16-bit fixed
    /// point), which torchvision's `Grayscale` uses. Other numbers of bands are refused.
    pub fn with_channels(self, channels: usize, name: &str) -> Result<Self> {
        let data = match (self.channels, channels) {
            (from, to) if from == to => return Ok(self),
            (1, 3) => self.data.iter().flat_map(|&grey| [grey; 3]).collect(),
            (3, 1) => self.data.chunks_exact(3).map(luma).collect(),
            (found, wanted) => return Err(Error::Bands { name: name.to_owned(), found, wanted }),
        };
        Ok(Self { data, channels, ..self })
    }

    /// A part of the clip, which must lie inside.
    #[must_use]
    pub(in crate::data) fn crop(&self, Region { frames, rows, columns }: &Region) -> Self {
        let [height, width, channels] = [rows.len(), columns.len(), self.channels];
        let mut data = Vec::with_capacity(frames.len() * height * width * channels);
        for frame in frames.clone() {
            for row in rows.clone() {
                let start = ((frame * self.height + row) * self.width + columns.start) * channels;
                data.extend_from_slice(&self.data[start..start + width * channels]);
            }
        }
        Self { frames: frames.len(), height, width, channels, data }
    }

    /// The clip with `border` black pixels on each side of each frame.
    #[must_use]
    pub(in crate::data) fn pad(&self, border: usize) -> Self {
        let [height, width] = [self.height, self.width].map(|side| side + 2 * border);
        let data = vec![0; self.frames * height * width * self.channels];
        let mut padded = Self { height, width, data, ..*self };
        let row_len = self.width * self.channels;
        let frame_len = padded.frame_len();
        let frames = padded.data.chunks_exact_mut(frame_len);
        for (frame, source) in frames.zip(self.data.chunks_exact(self.frame_len())) {
            for (row, source) in source.chunks_exact(row_len).enumerate() {
                let start = ((row + border) * width + border) * self.channels;
                frame[start..start + row_len].copy_from_slice(source);
            }
        }
        padded
    }

    /// The image turned as its EXIF orientation says (1 to 8; TIFF 6.0 and EXIF call where the
    /// first row and the first column are shown). Others than 2 to 8 change nothing.
    #[must_use]
    pub(in crate::data) fn oriented(self, orientation: u16) -> Self {
        let (height, width, channels) = (self.height, self.width, self.channels);
        if !(2..=8).contains(&orientation) {
            return self;
        }
        let turned = orientation >= 5;
        let [rows, columns] = if turned { [width, height] } else { [height, width] };
        let mut data = Vec::with_capacity(self.data.len());
        for row in 0..rows {
            for column in 0..columns {
                let (below, right) = (height - 1, width - 1);
                let (y, x) = match orientation {
                    2 => (row, right - column),
                    3 => (below - row, right - column),
                    4 => (below - row, column),
                    5 => (column, row),
                    6 => (below - column, row),
                    7 => (below - column, right - row),
                    _ => (column, right - row),
                };
                let at = (y * width + x) * channels;
                data.extend_from_slice(&self.data[at..at + channels]);
            }
        }
        Self::image(rows, columns, channels, data)
    }

    /// Mirrors left and right in place.
    pub(in crate::data) fn flip(&mut self) {
        for row in self.data.chunks_exact_mut(self.width * self.channels) {
            match self.channels {
                1 => row.reverse(),
                3 => row.as_chunks_mut::<3>().0.reverse(),
                bands => {
                    row.reverse();
                    row.chunks_exact_mut(bands).for_each(<[u8]>::reverse);
                }
            }
        }
    }

    /// Repeats the last frame until there are `frames`.
    pub(in crate::data) fn extend(&mut self, frames: usize) {
        let last = self.data.len() - self.frame_len();
        for _ in self.frames..frames {
            self.data.extend_from_within(last..last + self.frame_len());
        }
        self.frames = self.frames.max(frames);
    }

    /// [T, H, W, C] -> [C, T, H, W]
    pub(in crate::data) fn write_planes(&self, planes: &mut [u8]) {
        if self.channels == 1 {
            planes.copy_from_slice(&self.data);
            return;
        }
        let plane = self.frames * self.height * self.width;
        if self.channels != 3 {
            for (band, plane) in planes.chunks_exact_mut(plane).enumerate() {
                let pixels = self.data.chunks_exact(self.channels);
                plane.iter_mut().zip(pixels).for_each(|(value, pixel)| *value = pixel[band]);
            }
            return;
        }
        // All three planes at once: each pixel is read once, and each plane is written in order.
        let (red, rest) = planes.split_at_mut(plane);
        let (green, blue) = rest.split_at_mut(plane);
        let planes = red.iter_mut().zip(green).zip(blue);
        for (pixel, ((red, green), blue)) in self.data.chunks_exact(3).zip(planes) {
            (*red, *green, *blue) = (pixel[0], pixel[1], pixel[2]);
        }
    }
}

/// Grey of a pixel of red, green and blue.
fn luma(rgb: &[u8]) -> u8 {
    let [r, g, b] = [0, 1, 2].map(|channel| u32::from(rgb[channel]));
    ((r * 19_595 + g * 38_470 + b * 7_471 + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_by_three() -> Clip {
        Clip::image(2, 3, 3, (1..=18).collect())
    }

    /// Two frames of 2 x 3 grey pixels.
    fn two_frames() -> Clip {
        Clip { frames: 2, ..Clip::image(2, 3, 1, (1..=12).collect()) }
    }

    #[test]
    fn colours_turn_grey_as_in_pillow() {
        // Image.fromarray([[[250, 10, 30], [0, 200, 90], [12, 13, 14]]]).convert("L"), Pillow 13.0
        let data = vec![250, 10, 30, 0, 200, 90, 12, 13, 14];
        let grey = Clip::image(1, 3, 3, data).with_channels(1, "a").unwrap();
        assert_eq!(grey.data, [84, 128, 13]);
        let colour = grey.with_channels(3, "a").unwrap();
        assert_eq!(colour.data, [84, 84, 84, 128, 128, 128, 13, 13, 13]);
    }

    #[test]
    fn crop_pad_and_flip_move_whole_pixels() {
        let image = two_by_three();
        let part = Region { frames: 0..1, rows: 1..2, columns: 1..3 };
        assert_eq!(image.crop(&part).data, [13, 14, 15, 16, 17, 18]);
        let inner = Region { frames: 0..1, rows: 2..4, columns: 2..5 };
        assert_eq!(image.pad(2).crop(&inner), image);
        assert_eq!(image.pad(1).data.iter().filter(|&&byte| byte == 0).count(), (20 - 6) * 3);
        let mut flipped = image.clone();
        flipped.flip();
        assert_eq!(flipped.data[..9], [7, 8, 9, 4, 5, 6, 1, 2, 3]);
        let mut planes = [0; 18];
        image.write_planes(&mut planes);
        assert_eq!(planes[..7], [1, 4, 7, 10, 13, 16, 2]);
    }

    #[test]
    fn orientations_turn_as_the_image_crate_does() {
        use image::metadata::Orientation;
        for exif in 1..=8_u8 {
            let mut image = image::RgbImage::from_raw(3, 2, (1..=18).collect()).unwrap();
            let orientation = Orientation::from_exif(exif).unwrap();
            let mut dynamic = image::DynamicImage::ImageRgb8(image.clone());
            dynamic.apply_orientation(orientation);
            image = dynamic.into_rgb8();
            let turned = two_by_three().oriented(exif.into());
            assert_eq!((turned.width as u32, turned.height as u32), image.dimensions(), "{exif}");
            assert_eq!(turned.data, image.into_raw(), "{exif}");
        }
    }

    #[test]
    fn all_bands_are_moved_together_and_no_others_are_made_of_them() {
        let mut bands = Clip::image(1, 2, 5, (1..=10).collect());
        let mut planes = [0; 10];
        bands.write_planes(&mut planes);
        assert_eq!(planes, [1, 6, 2, 7, 3, 8, 4, 9, 5, 10]);
        bands.flip();
        assert_eq!(bands.data, [6, 7, 8, 9, 10, 1, 2, 3, 4, 5]);
        let message = bands.with_channels(3, "a.tif").unwrap_err().to_string();
        assert!(message.starts_with("a.tif: has 5 bands, and data.channels is 3"), "{message}");
    }

    #[test]
    fn frames_are_changed_alike() {
        let clip = two_frames();
        let part = Region { frames: 0..2, rows: 0..1, columns: 1..3 };
        assert_eq!(clip.crop(&part).data, [2, 3, 8, 9]);
        let inner = Region { frames: 0..2, rows: 1..3, columns: 1..4 };
        assert_eq!(clip.pad(1).crop(&inner), clip);
        let mut flipped = clip.clone();
        flipped.flip();
        assert_eq!(flipped.data, [3, 2, 1, 6, 5, 4, 9, 8, 7, 12, 11, 10]);
        let mut longer = clip.crop(&Region { rows: 0..1, columns: 0..1, frames: 0..2 });
        longer.extend(4);
        assert_eq!((longer.frames, &longer.data[..]), (4, &[1, 7, 7, 7][..]));
        let mut planes = [0; 36];
        clip.with_channels(3, "a").unwrap().write_planes(&mut planes);
        assert_eq!(planes[..13], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 1]);
    }
}
