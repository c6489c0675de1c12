//! Gaussian blur.

use crate::data::Clip;

/// torchvision 0.29's `gaussian_blur` (transforms/_functional_tensor.py): a window of `kernel` by
/// `kernel` weights exp(-x²/2σ²) that sum to 1. The border is mirrored without repeating its edge.
/// The window is a product of two, so rows are summed first, then columns.
pub(super) fn blur(clip: &mut Clip, kernel: usize, sigma: f64) {
    let weights = weights(kernel, sigma);
    let (frame_len, row, channels) = (clip.frame_len(), clip.width * clip.channels, clip.channels);
    let (mut across, mut sums) = (vec![0.0; frame_len], vec![0.0; row]);
    for frame in clip.data.chunks_exact_mut(frame_len) {
        for (from, to) in frame.chunks_exact(row).zip(across.chunks_exact_mut(row)) {
            blur_row(from, to, channels, &weights);
        }
        for (y, to) in frame.chunks_exact_mut(row).enumerate() {
            sums.fill(0.0);
            for (index, weight) in weights.iter().enumerate() {
                let source = mirrored(y + index, kernel / 2, clip.height) * row;
                let from = &across[source..source + row];
                sums.iter_mut().zip(from).for_each(|(sum, value)| *sum += weight * value);
            }
            // Half to even, as in torch.round.
            to.iter_mut().zip(&sums).for_each(|(to, sum)| *to = sum.round_ties_even() as u8);
        }
    }
}

/// Sums along a row of pixels.
fn blur_row(from: &[u8], to: &mut [f32], channels: usize, weights: &[f32]) {
    let width = from.len() / channels;
    to.fill(0.0);
    for (index, weight) in weights.iter().enumerate() {
        for x in 0..width {
            let source = mirrored(x + index, weights.len() / 2, width);
            for channel in 0..channels {
                let value = f32::from(from[source * channels + channel]);
                to[x * channels + channel] += weight * value;
            }
        }
    }
}

/// The pixel shown at `at` of a line that begins `border` pixels before its first pixel.
fn mirrored(at: usize, border: usize, len: usize) -> usize {
    let at = at.abs_diff(border);
    if at < len { at } else { 2 * (len - 1) - at }
}

fn weights(kernel: usize, sigma: f64) -> Vec<f32> {
    let half = (kernel as f64 - 1.0) / 2.0;
    let weight = |index: usize| (-0.5 * ((index as f64 - half) / sigma).powi(2)).exp();
    let sum: f64 = (0..kernel).map(weight).sum();
    (0..kernel).map(|index| (weight(index) / sum) as f32).collect()
}
