//! Gaussian blur.

use crate::data::Pixels;

/// torchvision 0.29's `gaussian_blur` (transforms/_functional_tensor.py): a window of `kernel` by
/// `kernel` weights exp(-x²/2σ²) that sum to 1, the border mirrored without repeating its edge. The
/// window is a product of two, so rows are summed first, then columns.
pub(super) fn blur(image: &mut Pixels, kernel: usize, sigma: f64) {
    let weights = weights(kernel, sigma);
    let (height, width, channels) = (image.height, image.width, image.channels);
    let row = width * channels;
    let mut across = vec![0.0; image.data.len()];
    for (from, to) in image.data.chunks_exact(row).zip(across.chunks_exact_mut(row)) {
        for (place, weight) in weights.iter().enumerate() {
            for x in 0..width {
                let source = mirrored(x + place, kernel / 2, width);
                for channel in 0..channels {
                    let value = f32::from(from[source * channels + channel]);
                    to[x * channels + channel] += weight * value;
                }
            }
        }
    }
    let mut sums = vec![0.0; row];
    for (y, to) in image.data.chunks_exact_mut(row).enumerate() {
        sums.fill(0.0);
        for (place, weight) in weights.iter().enumerate() {
            let source = mirrored(y + place, kernel / 2, height) * row;
            let from = &across[source..source + row];
            sums.iter_mut().zip(from).for_each(|(sum, value)| *sum += weight * value);
        }
        // Half to even, as torch.round.
        to.iter_mut().zip(&sums).for_each(|(to, sum)| *to = sum.round_ties_even() as u8);
    }
}

/// The pixel that place `at` of a line stands for which begins `border` pixels before its first.
fn mirrored(at: usize, border: usize, len: usize) -> usize {
    let at = at.abs_diff(border);
    if at < len { at } else { 2 * (len - 1) - at }
}

fn weights(kernel: usize, sigma: f64) -> Vec<f32> {
    let half = (kernel as f64 - 1.0) / 2.0;
    let weight = |place: usize| (-0.5 * ((place as f64 - half) / sigma).powi(2)).exp();
    let sum: f64 = (0..kernel).map(weight).sum();
    (0..kernel).map(|place| (weight(place) / sum) as f32).collect()
}
