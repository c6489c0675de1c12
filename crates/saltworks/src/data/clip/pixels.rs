//! A decoded image.

/// An image of bytes, [H, W, C] with C = 1 (grey) or 3 (red, green, blue).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// H·W·C bytes, row by row, the channels of a pixel side by side.
    pub data: Vec<u8>,
    /// H
    pub height: usize,
    /// W
    pub width: usize,
    /// C, 1 or 3.
    pub channels: usize,
}

/// Channel means and standard deviations, for values of 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalize {
    /// [C]
    pub mean: Vec<f32>,
    /// [C]
    pub std: Vec<f32>,
}

impl Normalize {
    /// ImageNet's, as torchvision and timm (`IMAGENET_DEFAULT_MEAN`, `IMAGENET_DEFAULT_STD`).
    pub fn imagenet() -> Self {
        Self { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] }
    }
}

impl Pixels {
    /// All bytes zero.
    pub fn black(height: usize, width: usize, channels: usize) -> Self {
        Self { data: vec![0; height * width * channels], height, width, channels }
    }

    /// The same image with 1 or 3 channels. Grey is repeated; colours are weighed as Pillow's
    /// `convert("L")` does (ITU-R 601-2, 16-bit fixed point), hence torchvision's `Grayscale`.
    #[must_use]
    pub fn with_channels(self, channels: usize) -> Self {
        let data = match (self.channels, channels) {
            (from, to) if from == to => return self,
            (1, 3) => self.data.iter().flat_map(|&grey| [grey; 3]).collect(),
            (3, 1) => self.data.chunks_exact(3).map(luma).collect(),
            (from, to) => unreachable!("{from} to {to} channels: images have 1 or 3"),
        };
        Self { data, channels, ..self }
    }

    /// The rectangle of `height` x `width` pixels at (top, left), which must lie inside.
    #[must_use]
    pub fn crop(&self, top: usize, left: usize, height: usize, width: usize) -> Self {
        let mut data = Vec::with_capacity(height * width * self.channels);
        for row in top..top + height {
            let start = (row * self.width + left) * self.channels;
            data.extend_from_slice(&self.data[start..start + width * self.channels]);
        }
        Self { data, height, width, channels: self.channels }
    }

    /// The image with `border` black pixels on each side.
    #[must_use]
    pub fn pad(&self, border: usize) -> Self {
        let (height, width) = (self.height + 2 * border, self.width + 2 * border);
        let mut padded = Self::black(height, width, self.channels);
        let row_bytes = self.width * self.channels;
        for (row, source) in self.data.chunks_exact(row_bytes).enumerate() {
            let start = ((row + border) * width + border) * self.channels;
            padded.data[start..start + row_bytes].copy_from_slice(source);
        }
        padded
    }

    /// Mirrors left and right in place.
    pub fn flip(&mut self) {
        for row in self.data.chunks_exact_mut(self.width * self.channels) {
            match self.channels {
                1 => row.reverse(),
                _ => row.as_chunks_mut::<3>().0.reverse(),
            }
        }
    }

    /// [H, W, C] -> [C, H, W]
    pub(in crate::data) fn write_planes(&self, planes: &mut [u8]) {
        if self.channels == 1 {
            planes.copy_from_slice(&self.data);
            return;
        }
        // All three at once: each pixel is read once, each plane written in order.
        let (red, rest) = planes.split_at_mut(self.height * self.width);
        let (green, blue) = rest.split_at_mut(self.height * self.width);
        let planes = red.iter_mut().zip(green).zip(blue);
        for (pixel, ((red, green), blue)) in self.data.chunks_exact(3).zip(planes) {
            (*red, *green, *blue) = (pixel[0], pixel[1], pixel[2]);
        }
    }
}

/// Grey of a pixel of red, green and blue.
pub(in crate::data) fn luma(rgb: &[u8]) -> u8 {
    let [r, g, b] = [0, 1, 2].map(|channel| u32::from(rgb[channel]));
    ((r * 19_595 + g * 38_470 + b * 7_471 + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_by_three() -> Pixels {
        Pixels { data: (1..=18).collect(), height: 2, width: 3, channels: 3 }
    }

    #[test]
    fn colours_turn_grey_as_in_pillow() {
        // Image.fromarray([[[250, 10, 30], [0, 200, 90], [12, 13, 14]]]).convert("L"), Pillow 13.0
        let data = vec![250, 10, 30, 0, 200, 90, 12, 13, 14];
        let grey = Pixels { data, height: 1, width: 3, channels: 3 }.with_channels(1);
        assert_eq!(grey.data, [84, 128, 13]);
        assert_eq!(grey.with_channels(3).data, [84, 84, 84, 128, 128, 128, 13, 13, 13]);
    }

    #[test]
    fn crop_pad_and_flip_move_whole_pixels() {
        let image = two_by_three();
        assert_eq!(image.crop(1, 1, 1, 2).data, [13, 14, 15, 16, 17, 18]);
        assert_eq!(image.pad(2).crop(2, 2, 2, 3), image);
        assert_eq!(image.pad(1).data.iter().filter(|&&byte| byte == 0).count(), (20 - 6) * 3);
        let mut flipped = image.clone();
        flipped.flip();
        assert_eq!(flipped.data[..9], [7, 8, 9, 4, 5, 6, 1, 2, 3]);
        let mut planes = [0; 18];
        image.write_planes(&mut planes);
        assert_eq!(planes[..7], [1, 4, 7, 10, 13, 16, 2]);
    }
}
