//! Transforms a decoded clip to the model's size. Each crop and its random numbers follow
//! torchvision 0.29 (transforms/transforms.py). Resizing uses Pillow's filters, which are widened
//! when shrinking (antialias).

mod blur;
mod color;
mod effects;

pub use effects::{Blur, Effects, Jitter, Solarize};

use std::ops::Range;

use engine::random::Random;
use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{InnerPixel, U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

use super::Clip;
use super::region::{Extent, Region};
use crate::data::{Error, Result};
use crate::range::Range as Interval;

/// How a clip becomes [T, H, W] pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transform {
    /// T of the result, 1 for images.
    pub frames: usize,
    /// [H, W] of the result.
    pub size: [usize; 2],
    /// Which part of the image is used.
    pub crop: Crop,
    /// The chance of a horizontal flip (`RandomHorizontalFlip`).
    pub flip: f64,
    /// How images are resized.
    pub interpolation: Interpolation,
    /// Changes of colours and sharpness.
    pub effects: Effects,
}

/// Which part of an image is used.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Crop {
    /// A random part, resized: `RandomResizedCrop`.
    RandomResized {
        /// Share of the image's area.
        scale: Interval,
        /// Width over height, drawn log-uniform.
        ratio: Interval,
    },
    /// For small images: a black border, then a random part, as `RandomCrop(size, padding)`. An
    /// image of another size is first resized to `size` as by `Center`.
    Random {
        /// Pixels on each side.
        padding: usize,
    },
    /// For evaluation: `Resize` of the shorter side, then `CenterCrop`. Draws no random number.
    Center {
        /// The shorter side after resizing, as a multiple of the crop's. 256/224 for ImageNet.
        zoom: f64,
    },
}

/// How images are resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Triangle filter.
    Bilinear,
    /// Catmull-Rom (a = -0.5), Pillow's and torchvision's bicubic.
    Bicubic,
}

impl Transform {
    /// A whole image at this size: the shorter side is resized, and the centre is kept.
    pub fn center(size: [usize; 2]) -> Self {
        let interpolation = Interpolation::Bicubic;
        let effects = Effects::default();
        let crop = Crop::Center { zoom: 1.0 };
        Self { frames: 1, size, crop, flip: 0.0, interpolation, effects }
    }

    /// Checks the settings.
    pub fn validate(&self) -> Result<()> {
        let [height, width] = self.size;
        if !(1..=65_536).contains(&self.frames) {
            return Err(Error::setting("frames", &self.frames, "1 to 65536"));
        }
        if !(1..=16_384).contains(&height) || !(1..=16_384).contains(&width) {
            return Err(Error::setting(
                "size",
                &format!("{height} x {width}"),
                "1 to 16384 pixels",
            ));
        }
        if !(0.0..=1.0).contains(&self.flip) {
            return Err(Error::setting("augment.flip", &self.flip, "a chance of 0 to 1"));
        }
        self.effects.validate(self.size)?;
        match self.crop {
            Crop::RandomResized { scale, .. } if !scale.lies_within(0.0, 1.0) => {
                let expected = "[min, max] with 0 < min <= max <= 1";
                Err(Error::setting("augment.crop_scale", &scale, expected))
            }
            Crop::RandomResized { ratio, .. } if !ratio.lies_within(0.0, 1000.0) => {
                let expected = "[min, max] with 0 < min <= max <= 1000";
                Err(Error::setting("augment.crop_aspect", &ratio, expected))
            }
            Crop::Random { padding } if padding > 16_384 => {
                Err(Error::setting("crop.padding", &padding, "0 to 16384 pixels"))
            }
            Crop::Center { zoom } if !(1.0..=16.0).contains(&zoom) => {
                Err(Error::setting("eval_zoom", &zoom, "1 to 16"))
            }
            _ => Ok(()),
        }
    }

    /// The clip at the wanted size. The same random numbers give the same bits.
    pub fn apply(&self, clip: &Clip, random: &mut Random, resizer: &mut Resizer) -> Clip {
        let region = self.region(clip.extent(), random);
        self.show(clip, &region, random, resizer)
    }

    /// The part of a clip that is used, which depends only on the clip's size and random numbers.
    /// It draws the first random numbers, so that the part is known before the clip is decoded.
    pub(in crate::data) fn region(&self, extent: Extent, random: &mut Random) -> Region {
        let frames = self.frames(extent.frames, random);
        match self.crop {
            Crop::RandomResized { scale, ratio } => {
                let (rows, columns) =
                    random_area([extent.height, extent.width], scale, ratio, random);
                Region { frames, rows, columns }
            }
            Crop::Random { .. } | Crop::Center { .. } => Region { frames, ..Region::whole(extent) },
        }
    }

    /// Consecutive frames out of `found`: the middle ones for evaluation, otherwise random ones.
    /// Nothing is drawn if there is no choice, as for an image.
    fn frames(&self, found: usize, random: &mut Random) -> Range<usize> {
        let spare = found.saturating_sub(self.frames);
        let start = match self.crop {
            _ if spare == 0 => 0,
            Crop::Center { .. } => spare / 2,
            Crop::RandomResized { .. } | Crop::Random { .. } => random.below(spare + 1),
        };
        start..start + found.min(self.frames)
    }

    /// This part of a clip at the wanted size. No pixel outside the part is read. Crop, flip and
    /// effects are drawn once and are the same for all frames. A clip with too few frames repeats
    /// its last one.
    pub(in crate::data) fn show(
        &self,
        clip: &Clip,
        region: &Region,
        random: &mut Random,
        resizer: &mut Resizer,
    ) -> Clip {
        let [height, width] = self.size;
        let mut result = match self.crop {
            Crop::RandomResized { .. } => self.resize(clip, region, self.size, resizer),
            Crop::Random { padding } => {
                let padded = self.center_crop(clip, region, 1.0, resizer).pad(padding);
                // Top before left, as in torchvision's get_params.
                let top = random.below(2 * padding + 1);
                let left = random.below(2 * padding + 1);
                let (rows, columns) = (top..top + height, left..left + width);
                padded.crop(&Region { frames: 0..padded.frames, rows, columns })
            }
            Crop::Center { zoom } => self.center_crop(clip, region, zoom, resizer),
        };
        if self.flip > 0.0 && random.uniform_f64() < self.flip {
            result.flip();
        }
        self.effects.apply(&mut result, random);
        result.extend(self.frames);
        result
    }

    /// Resizes so that the region just covers zoom x size, and keeps the centre.
    fn center_crop(&self, clip: &Clip, region: &Region, zoom: f64, resizer: &mut Resizer) -> Clip {
        let [height, width] = self.size;
        let [found_height, found_width] = [region.rows.len(), region.columns.len()];
        let factor = |side: usize, found: usize| zoom * side as f64 / found as f64;
        let factor = factor(height, found_height).max(factor(width, found_width));
        // Truncated as in torchvision's `_compute_resized_output_size`. 1e-9 undoes rounding
        // errors.
        let side =
            |found: usize, least: usize| ((found as f64 * factor + 1e-9) as usize).max(least);
        let size = [side(found_height, height), side(found_width, width)];
        let clip = self.resize(clip, region, size, resizer);
        // Python's round(): half to even, as in torchvision's center_crop.
        let middle = |from: usize, to: usize| {
            let start = ((from - to) as f64 / 2.0).round_ties_even() as usize;
            start..start + to
        };
        let (rows, columns) = (middle(clip.height, height), middle(clip.width, width));
        clip.crop(&Region { frames: 0..clip.frames, rows, columns })
    }

    /// Resizes a region of a clip, as if it had been cut out first.
    fn resize(
        &self,
        clip: &Clip,
        region: &Region,
        [height, width]: [usize; 2],
        resizer: &mut Resizer,
    ) -> Clip {
        let Region { frames, rows, columns } = region;
        if [rows.len(), columns.len()] == [height, width] {
            return clip.crop(region);
        }
        let filter = match self.interpolation {
            Interpolation::Bilinear => FilterType::Bilinear,
            Interpolation::Bicubic => FilterType::CatmullRom,
        };
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
        let (frame_len, shown_len) = (clip.frame_len(), height * width * clip.channels);
        let mut data = vec![0; frames.len() * shown_len];
        for (frame, shown) in frames.clone().zip(data.chunks_exact_mut(shown_len)) {
            let frame = &clip.data[frame * frame_len..][..frame_len];
            let (from, to) = ([clip.height, clip.width], [height, width]);
            match clip.channels {
                1 => resize_frame::<U8>((frame, from), (shown, to), region, resizer, &options),
                3 => resize_frame::<U8x3>((frame, from), (shown, to), region, resizer, &options),
                bands => {
                    resize_bands(bands, (frame, from), (shown, to), region, resizer, &options);
                }
            }
        }
        Clip { frames: frames.len(), height, width, channels: clip.channels, data }
    }
}

/// Resizes the region of a frame of any number of bands, one after the other.
fn resize_bands(
    bands: usize,
    (frame, from): (&[u8], [usize; 2]),
    (shown, to): (&mut [u8], [usize; 2]),
    region: &Region,
    resizer: &mut Resizer,
    options: &ResizeOptions,
) {
    let (mut plane, mut resized) = (Vec::new(), vec![0; shown.len() / bands]);
    for band in 0..bands {
        plane.clear();
        plane.extend(frame.chunks_exact(bands).map(|pixel| pixel[band]));
        resize_frame::<U8>((&plane, from), (&mut resized, to), region, resizer, options);
        let pixels = shown.chunks_exact_mut(bands).zip(&resized);
        pixels.for_each(|(pixel, value)| pixel[band] = *value);
    }
}

/// Resizes the region of a frame. Each image is given with its height and width.
///
/// The pixel type is a parameter, because `Resizer::resize` compiles the code of all twelve.
fn resize_frame<P: PixelTrait + InnerPixel>(
    (frame, from): (&[u8], [usize; 2]),
    (shown, to): (&mut [u8], [usize; 2]),
    Region { rows, columns, .. }: &Region,
    resizer: &mut Resizer,
    options: &ResizeOptions,
) {
    let ([from_height, from_width], [height, width]) =
        (from.map(|side| side as u32), to.map(|side| side as u32));
    let [left, top, part_width, part_height] =
        [columns.start, rows.start, columns.len(), rows.len()].map(|side| side as u32);
    // Both have the length that their size and pixel type require, and neither is empty.
    let source =
        TypedImageRef::<P>::from_buffer(from_width, from_height, frame).expect("bytes of a frame");
    let mut target = TypedImage::<P>::from_buffer(width, height, shown).expect("bytes of a result");
    // A region lies inside its clip.
    let part = TypedCroppedImage::from_ref(&source, left, top, part_width, part_height);
    let resized = part.map(|part| resizer.resize_typed(&part, &mut target, options));
    assert!(matches!(resized, Ok(Ok(()))), "{rows:?} {columns:?} to {to:?}: {resized:?}");
}

/// Rows and columns of a rectangle.
type PixelRectangle = (Range<usize>, Range<usize>);

/// torchvision's `RandomResizedCrop.get_params`: ten tries at area and ratio, then the centre.
fn random_area(
    [height, width]: [usize; 2],
    scale: Interval,
    ratio: Interval,
    random: &mut Random,
) -> PixelRectangle {
    let log_ratio = Interval::new(ratio.min.ln(), ratio.max.ln());
    for _ in 0..10 {
        let area = (height * width) as f64 * scale.at(random.uniform_f64());
        let ratio = log_ratio.at(random.uniform_f64()).exp();
        // Python's round(): half to even.
        let part_width = (area * ratio).sqrt().round_ties_even() as usize;
        let part_height = (area / ratio).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&part_width) && (1..=height).contains(&part_height) {
            let top = random.below(height - part_height + 1);
            let left = random.below(width - part_width + 1);
            return (top..top + part_height, left..left + part_width);
        }
    }
    central_area([height, width], ratio)
}

/// The largest centred part whose ratio is in the range. It has at least one pixel.
fn central_area([height, width]: [usize; 2], ratio: Interval) -> PixelRectangle {
    let found = width as f64 / height as f64;
    let round = |side: f64, most: usize| (side.round_ties_even() as usize).clamp(1, most);
    let (part_height, part_width) = if found < ratio.min {
        (round(width as f64 / ratio.min, height), width)
    } else if found > ratio.max {
        (height, round(height as f64 * ratio.max, width))
    } else {
        (height, width)
    };
    let (top, left) = ((height - part_height) / 2, (width - part_width) / 2);
    (top..top + part_height, left..left + part_width)
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
