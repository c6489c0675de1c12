//! Images, patches and components as bytes.

use crate::model::VitSpec;
use engine::ops::{Images, PatchOrder, patchify};
use engine::{Result, Tape};

/// Mean and deviation by which pixels were normalised.
#[derive(Clone, Debug)]
pub struct PixelScale {
    /// [C]
    pub mean: Vec<f32>,
    /// [C]
    pub std: Vec<f32>,
}

/// The channels of pictures: those of grey and colour, and the first three of more bands.
pub(super) fn shown_channels(channels: usize) -> usize {
    if channels < 3 { 1 } else { 3 }
}

impl PixelScale {
    /// Clips [B, C, T, H, W] as bytes [H, T W, S] each: frames from left to right, S being the
    /// shown channels.
    pub(super) fn images(&self, images: &Images) -> Result<Vec<Vec<u8>>> {
        let [count, channels, frames, height, width] = images.shape();
        let whole: Vec<u32> = (0..count as u32).collect();
        let order = PatchOrder::ChannelsFirst;
        let rows = patchify(&Tape::inference(), images, [frames, height, width], order, &whole)?;
        let each = rows.to_vec();
        let each = each.chunks_exact(channels * frames * height * width);
        let row = width * shown_channels(channels);
        Ok(each.map(|image| side_by_side(&self.patch(image), [frames, height, row])).collect())
    }

    /// Normalised values [C, p] as bytes [p, S].
    pub(super) fn patch(&self, values: &[f32]) -> Vec<u8> {
        let shown = shown_channels(self.mean.len());
        let area = values.len() / self.mean.len();
        let byte = |at: usize| {
            let channel = at % shown;
            let value = values[channel * area + at / shown];
            let share = value * self.std[channel] + self.mean[channel];
            (255.0 * share.clamp(0.0, 1.0)).round() as u8
        };
        (0..area * shown).map(byte).collect()
    }
}

/// [T, H, R] -> [H, T, R]
fn side_by_side(bytes: &[u8], [frames, height, row]: [usize; 3]) -> Vec<u8> {
    let rows = (0..height).flat_map(|y| (0..frames).map(move |frame| frame * height + y));
    rows.flat_map(|at| bytes[at * row..][..row].to_vec()).collect()
}

/// An image [H, W, S] in which some patches, [ph, pw, S] each, are replaced.
pub(super) fn patched<'a>(
    image: &[u8],
    spec: &VitSpec,
    patch: impl Fn(u32) -> Option<&'a [u8]>,
) -> Vec<u8> {
    let ([_, _, width], [_, ph, pw]) = (spec.image, spec.patch);
    let channels = shown_channels(spec.channels);
    let mut out = image.to_vec();
    let grid = spec.grid();
    for number in 0..grid.len() {
        let Some(given) = patch(number as u32) else { continue };
        let (top, left) = (number / grid.w * ph, number % grid.w * pw);
        for (y, row) in given.chunks_exact(pw * channels).enumerate() {
            let start = ((top + y) * width + left) * channels;
            out[start..start + row.len()].copy_from_slice(row);
        }
    }
    out
}

/// Values along up to three components as red, green and blue. Each component is scaled from its
/// 2nd to its 98th percentile, so that no single token darkens the rest.
pub(super) fn components(rows: &[Vec<f64>]) -> Vec<u8> {
    let count = rows.first().map_or(0, Vec::len);
    let range = |axis: usize| {
        let mut values: Vec<f64> = rows.iter().map(|row| row[axis]).collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
        (at(0.02), at(0.98))
    };
    let ranges: Vec<(f64, f64)> = (0..count).map(range).collect();
    let colour = |row: &Vec<f64>| {
        [0, 1, 2].map(|axis| {
            let Some(&(low, high)) = ranges.get(axis) else { return 128 };
            let share = (row[axis] - low) / (high - low).max(f64::MIN_POSITIVE);
            (255.0 * share.clamp(0.0, 1.0)).round() as u8
        })
    };
    rows.iter().flat_map(colour).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_come_back_as_they_were() {
        let bytes: Vec<u8> = (0..2 * 3 * 4 * 6).map(|i| (i * 7 % 256) as u8).collect();
        let pixels = PixelScale { mean: vec![0.485, 0.456, 0.406], std: vec![0.229, 0.224, 0.225] };
        let (mean, std) = (pixels.mean.clone(), pixels.std.clone());
        let images = Images::u8(bytes.clone(), [2, 3, 1, 4, 6], mean, std).unwrap();
        let shown = pixels.images(&images).unwrap();
        for (image, planes) in shown.iter().zip(bytes.chunks_exact(72)) {
            for (at, byte) in image.iter().enumerate() {
                assert_eq!(
                    *byte,
                    planes[at % 3 * 24 + at / 3],
                    "pixel {}, channel {}",
                    at / 3,
                    at % 3
                );
            }
        }
    }

    #[test]
    fn frames_stand_side_by_side() {
        // Two frames of two rows of three bytes.
        let bytes: Vec<u8> = (0..12).collect();
        assert_eq!(side_by_side(&bytes, [2, 2, 3]), [0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11]);
    }

    #[test]
    fn patches_lie_where_the_grid_has_them() {
        let spec = VitSpec {
            image: [1, 4, 6],
            patch: [1, 2, 2],
            channels: 1,
            ..VitSpec::from_name("vit_tiny_patch16_224").unwrap()
        };
        let marks = [1, 2, 3, 4];
        // Patch 4 is the second of the second row.
        let out = patched(&[0; 24], &spec, |patch| (patch == 4).then_some(&marks[..]));
        let rows: Vec<&[u8]> = out.chunks_exact(6).collect();
        assert_eq!(rows[1], [0; 6]);
        assert_eq!((rows[2], rows[3]), (&[0, 0, 1, 2, 0, 0][..], &[0, 0, 3, 4, 0, 0][..]));
    }
}
