//! Pixels as features: the baseline that an encoder should beat.

use super::FeatureBatch;
use crate::recipe::ImageSize;
use engine::Tape;
use engine::ops::{Images, PatchOrder, patchify};

/// The most values of an image whose pixels are probed: 32 x 32 in grey, 18 x 18 in colour. A
/// linear probe of 3,072 values took four minutes on 1,200 rows, longer than many training runs.
/// Above 2,048 values its fit has no preconditioner.
const MOST_VALUES: usize = 1024;

/// The normalised pixels of a batch, [B, C h w]. Images of more than [`MOST_VALUES`] are shrunk.
pub(super) fn of(images: &Images) -> engine::Result<FeatureBatch> {
    let [b, c, t, h, w] = images.shape();
    let whole: Vec<u32> = (0..b as u32).collect();
    let order = PatchOrder::ChannelsFirst;
    let pixels = patchify(&Tape::inference(), images, [t, h, w], order, &whole)?; // [B, C T H W]
    let size = ImageSize { height: h, width: w }.at_most((MOST_VALUES / (c * t)).max(1));
    let values = pixels.to_vec();
    if size.sides() == [h, w] {
        return Ok((values, pixels.dim(1)));
    }
    let shrunk = values.chunks_exact(h * w).flat_map(|plane| shrink(plane, [h, w], size.sides()));
    Ok((shrunk.collect(), c * t * size.height * size.width))
}

/// The differences of successive frames, shrunk in the same way: [B, C (T - 1) h w].
pub(super) fn differences_of(images: &Images) -> engine::Result<FeatureBatch> {
    let [_, c, t, ..] = images.shape();
    let (values, dim) = of(images)?;
    let plane = dim / (c * t);
    let of_channel = |clip: &[f32]| {
        let pairs = clip.iter().zip(&clip[plane..]);
        pairs.map(|(first, next)| next - first).collect::<Vec<_>>()
    };
    Ok((values.chunks_exact(t * plane).flat_map(of_channel).collect(), c * (t - 1) * plane))
}

/// Means over boxes of equal size, whose edges may cut pixels: [H, W] -> [h, w].
fn shrink(plane: &[f32], [h, w]: [usize; 2], [to_h, to_w]: [usize; 2]) -> Vec<f32> {
    let (rows, columns) = (overlaps(h, to_h), overlaps(w, to_w));
    let mean = |row: &[(usize, f32)], column: &[(usize, f32)]| {
        let of_row = |&(y, share): &(usize, f32)| {
            let row = &plane[y * w..];
            share * column.iter().map(|&(x, share)| share * row[x]).sum::<f32>()
        };
        row.iter().map(of_row).sum::<f32>()
    };
    rows.iter().flat_map(|row| columns.iter().map(|column| mean(row, column))).collect()
}

/// For each of `to` boxes that cover `from` pixels: the pixels in it, and the share of each.
fn overlaps(from: usize, to: usize) -> Vec<Vec<(usize, f32)>> {
    let length = from as f32 / to as f32;
    let share = |pixel: usize, start: f32, end: f32| {
        (end.min(pixel as f32 + 1.0) - start.max(pixel as f32)).max(0.0) / length
    };
    (0..to)
        .map(|index| {
            let (start, end) = (index as f32 * length, (index + 1) as f32 * length);
            let pixels = start as usize..(end.ceil() as usize).min(from);
            pixels.map(|pixel| (pixel, share(pixel, start, end))).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_image_is_shrunk_to_means() {
        let plane: Vec<f32> = (0..16).map(|value| value as f32).collect();
        assert_eq!(shrink(&plane, [4, 4], [2, 2]), [2.5, 4.5, 10.5, 12.5]);
        let third = shrink(&[0.0, 3.0, 9.0], [1, 3], [1, 2]);
        assert!((third[0] - 1.0).abs() < 1e-6 && (third[1] - 7.0).abs() < 1e-6, "{third:?}");
    }

    #[test]
    fn differences_are_those_of_successive_frames_of_a_channel() {
        // Two clips of two channels and three frames of one pixel.
        let pixels = vec![0.0, 1.0, 3.0, 10.0, 20.0, 40.0, 5.0, 5.0, 5.0, 9.0, 8.0, 6.0];
        let clips = Images::f32(pixels, [2, 2, 3, 1, 1]).unwrap();
        let wanted = vec![1.0, 2.0, 10.0, 20.0, 0.0, 0.0, -1.0, -2.0];
        assert_eq!(differences_of(&clips).unwrap(), (wanted, 4));
    }

    #[test]
    fn only_large_images_are_shrunk() {
        let images = |side: usize| {
            let shape = [2, 3, 1, side, side];
            let bytes = vec![255; shape.iter().product()];
            Images::u8(bytes, shape, vec![0.5; 3], vec![0.5; 3]).unwrap()
        };
        let (values, dim) = of(&images(18)).unwrap();
        assert_eq!((values.len(), dim), (2 * dim, 3 * 18 * 18));
        let (values, dim) = of(&images(64)).unwrap();
        assert_eq!((values.len(), dim), (2 * dim, 3 * 18 * 18));
        assert!(values.iter().all(|value| (value - 1.0).abs() < 1e-5));
    }
}
