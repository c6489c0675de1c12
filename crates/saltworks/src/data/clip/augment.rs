//! From a decoded image to one of the model's size. Each crop and its random numbers follow
//! torchvision 0.29 (transforms/transforms.py); sizes are resampled with Pillow's filters, widened
//! when shrinking (antialias).

mod blur;
mod color;
mod effects;

pub use effects::{Blur, Effects, Jitter, Solarize};

use engine::random::Random;
use fast_image_resize::images::{CroppedImage, Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

use crate::data::{Error, Pixels, Result};
use crate::range::Range;

/// How an image becomes [H, W] pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transform {
    /// [H, W] of the result.
    pub size: [usize; 2],
    /// Which part of the image is shown.
    pub crop: Crop,
    /// The chance of mirroring left and right (`RandomHorizontalFlip`).
    pub flip: f64,
    /// How sizes are changed.
    pub interpolation: Interpolation,
    /// What happens to colours and sharpness.
    pub effects: Effects,
}

/// Which part of an image is shown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Crop {
    /// A random part, resized: `RandomResizedCrop`.
    RandomResized {
        /// Share of the image's area.
        scale: Range,
        /// Width over height, drawn log-uniform.
        ratio: Range,
    },
    /// For small images: black border, then a random part: `RandomCrop(size, padding)`. An image
    /// of another size is first brought to `size` as by `Center`.
    Random {
        /// Pixels on each side.
        padding: usize,
    },
    /// For evaluation: `Resize` of the shorter side, then `CenterCrop`. Draws no random number.
    Center {
        /// Shorter side after resizing as a multiple of the crop's; 256/224 for ImageNet.
        zoom: f64,
    },
}

/// How sizes are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Triangle filter.
    Bilinear,
    /// Catmull-Rom (a = -0.5), Pillow's and torchvision's bicubic.
    Bicubic,
}

impl Transform {
    /// The whole image at this size: shorter side resized, centre kept.
    pub fn center(size: [usize; 2]) -> Self {
        let interpolation = Interpolation::Bicubic;
        let effects = Effects::default();
        Self { size, crop: Crop::Center { zoom: 1.0 }, flip: 0.0, interpolation, effects }
    }

    /// Checks the settings.
    pub fn validate(&self) -> Result<()> {
        let [height, width] = self.size;
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

    /// The image at the wanted size. The same random numbers give the same bits.
    pub fn apply(&self, image: &Pixels, random: &mut Random, resizer: &mut Resizer) -> Pixels {
        let area = self.area([image.height, image.width], random);
        self.show(image, area, random, resizer)
    }

    /// The part of an image of [H, W] that is shown, as far as its size alone decides. It takes the
    /// first random numbers, so that it is known before the image is decoded.
    pub(in crate::data) fn area(&self, size: [usize; 2], random: &mut Random) -> Area {
        match self.crop {
            Crop::RandomResized { scale, ratio } => random_area(size, scale, ratio, random),
            Crop::Random { .. } | Crop::Center { .. } => Area::whole(size),
        }
    }

    /// This area of an image at the wanted size; no pixel outside is read.
    pub(in crate::data) fn show(
        &self,
        image: &Pixels,
        area: Area,
        random: &mut Random,
        resizer: &mut Resizer,
    ) -> Pixels {
        let [height, width] = self.size;
        let mut result = match self.crop {
            Crop::RandomResized { .. } => self.resize(image, area, self.size, resizer),
            Crop::Random { padding } => {
                let padded = self.center_crop(image, 1.0, resizer).pad(padding);
                // Top before left, as torchvision's get_params.
                let top = random.below(2 * padding + 1);
                let left = random.below(2 * padding + 1);
                padded.crop(top, left, height, width)
            }
            Crop::Center { zoom } => self.center_crop(image, zoom, resizer),
        };
        if self.flip > 0.0 && random.uniform_f64() < self.flip {
            result.flip();
        }
        self.effects.apply(&mut result, random);
        result
    }

    /// Resizes so that the image just covers zoom x size, and keeps the centre.
    fn center_crop(&self, image: &Pixels, zoom: f64, resizer: &mut Resizer) -> Pixels {
        let [height, width] = self.size;
        let factor = |side: usize, found: usize| zoom * side as f64 / found as f64;
        let factor = factor(height, image.height).max(factor(width, image.width));
        // Truncated as torchvision's `_compute_resized_output_size`; 1e-9 undoes rounding errors.
        let side =
            |found: usize, least: usize| ((found as f64 * factor + 1e-9) as usize).max(least);
        let size = [side(image.height, height), side(image.width, width)];
        let whole = Area::whole([image.height, image.width]);
        let image = self.resize(image, whole, size, resizer);
        // Python's round(): half to even, as torchvision's center_crop.
        let start = |from: usize, to: usize| ((from - to) as f64 / 2.0).round_ties_even() as usize;
        image.crop(start(image.height, height), start(image.width, width), height, width)
    }

    /// An area of the image at another size, as if it had been cut out first.
    fn resize(
        &self,
        image: &Pixels,
        area: Area,
        [height, width]: [usize; 2],
        resizer: &mut Resizer,
    ) -> Pixels {
        let [top, left, part_height, part_width] = [area.top, area.left, area.height, area.width];
        if [part_height, part_width] == [height, width] {
            return image.crop(top, left, height, width);
        }
        let filter = match self.interpolation {
            Interpolation::Bilinear => FilterType::Bilinear,
            Interpolation::Bicubic => FilterType::CatmullRom,
        };
        let kind = if image.channels == 1 { PixelType::U8 } else { PixelType::U8x3 };
        let source = ImageRef::new(image.width as u32, image.height as u32, &image.data, kind);
        let mut target = Image::new(width as u32, height as u32, kind);
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
        // Both images have the length their size and kind ask for, and neither is empty.
        let source = source.expect("bytes for all pixels");
        let [top, left, part_height, part_width] =
            [top, left, part_height, part_width].map(|side| side as u32);
        // An area lies inside its image.
        let part = CroppedImage::new(&source, left, top, part_width, part_height);
        let resized = part.map(|part| resizer.resize(&part, &mut target, &options));
        assert!(matches!(resized, Ok(Ok(()))), "{area:?} to {height} x {width}: {resized:?}");
        Pixels { data: target.into_vec(), height, width, channels: image.channels }
    }
}

/// A rectangle of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::data) struct Area {
    pub(in crate::data) top: usize,
    pub(in crate::data) left: usize,
    pub(in crate::data) height: usize,
    pub(in crate::data) width: usize,
}

impl Area {
    fn whole([height, width]: [usize; 2]) -> Self {
        Self { top: 0, left: 0, height, width }
    }
}

/// torchvision's `RandomResizedCrop.get_params`: ten tries at area and ratio, then the centre.
fn random_area(
    [height, width]: [usize; 2],
    scale: Range,
    ratio: Range,
    random: &mut Random,
) -> Area {
    let log_ratio = Range::new(ratio.min.ln(), ratio.max.ln());
    for _ in 0..10 {
        let area = (height * width) as f64 * scale.at(random.uniform_f64());
        let ratio = log_ratio.at(random.uniform_f64()).exp();
        // Python's round(): half to even.
        let part_width = (area * ratio).sqrt().round_ties_even() as usize;
        let part_height = (area / ratio).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&part_width) && (1..=height).contains(&part_height) {
            let top = random.below(height - part_height + 1);
            let left = random.below(width - part_width + 1);
            return Area { top, left, height: part_height, width: part_width };
        }
    }
    central_area([height, width], ratio)
}

/// The largest centred part whose ratio lies in the range; at least one pixel.
fn central_area([height, width]: [usize; 2], ratio: Range) -> Area {
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
    Area { top, left, height: part_height, width: part_width }
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
