//! Pixels to patches: a permutation of a 5-D array, and the normalisation of pixel targets.

use super::lanes::{LANES, combine, each, sum};
use crate::cpu::dispatch::multiversion;
use crate::cpu::parallel::{In, Out, for_rows, rows_per_task};
use crate::device::{PatchLayout, PatchNorm, PatchOrder, Pixels};
use crate::dtype::Element;

/// y[K, pt ph pw C]: the patches with the given indices b N + n. n = (t H' + h) W' + w in the grid
/// T' x H' x W' of patches.
pub(crate) fn patchify<T: Element>(
    y: &mut [T],
    pixels: Pixels<'_>,
    layout: PatchLayout,
    patches: &[u32],
) {
    let d = layout.patch.iter().product::<usize>() * layout.shape[1];
    assert_eq!(y.len(), patches.len() * d, "patchify: y is [K, pt ph pw C]");
    let operands = (Out(y, d), In(patches, 1));
    for_rows(patches.len(), rows_per_task(d), operands, |_, (y, patches)| match pixels {
        Pixels::U8 { data, mean, std } => cut_u8(y.0, data, mean, std, layout, patches.0),
        Pixels::F32(data) => cut_f32(y.0, data, layout, patches.0),
    });
}

/// y[R, p C] = x, with mean 0 and variance 1 in each row or in each channel of a row. x[R, p C] as
/// [`PatchOrder::ChannelsLast`], d = p C.
pub(crate) fn normalize_patches(y: &mut [f32], x: &[f32], d: usize, norm: PatchNorm) {
    assert_eq!(y.len(), x.len(), "normalize_patches: y and x");
    for_rows(x.len() / d, rows_per_task(d), (Out(y, d), In(x, d)), |_, (y, x)| {
        // For the most common layouts the number of channels is a constant.
        match (norm.per_channel, norm.channels) {
            (false, _) | (true, 1) => normalize_rows_whole(y.0, x.0, d, norm),
            (true, 3) => normalize_rows_rgb(y.0, x.0, d, norm),
            (true, channels) => normalize_rows_strided(y.0, x.0, d, channels, norm),
        }
    });
}

multiversion! {
    fn cut_u8<T: Element>(
        y: &mut [T], data: &[u8], mean: &[f32], std: &[f32],
        layout: PatchLayout, patches: &[u32],
    ) {
        cut(y, layout, patches, |line, c, from| {
            let (mean, std) = (mean[c], std[c]);
            for (y, &v) in line.iter_mut().zip(&data[from..]) {
                *y = T::round((f32::from(v) / 255.0 - mean) / std);
            }
        });
    }

    fn cut_f32<T: Element>(y: &mut [T], data: &[f32], layout: PatchLayout, patches: &[u32]) {
        cut(y, layout, patches, |line, _, from| {
            for (y, &v) in line.iter_mut().zip(&data[from..]) {
                *y = T::round(v);
            }
        });
    }
}

/// Writes each patch, one line of pw pixels at a time, with `read(line, channel, start of the
/// line)`.
#[inline(always)]
fn cut<T: Element>(
    y: &mut [T],
    layout: PatchLayout,
    patches: &[u32],
    read: impl Fn(&mut [T], usize, usize),
) {
    let ([_, c, t, h, w], [pt, ph, pw]) = (layout.shape, layout.patch);
    let grid = [t / pt, h / ph, w / pw];
    let per_sample = grid.iter().product::<usize>();
    for (y, &patch) in y.chunks_exact_mut(c * pt * ph * pw).zip(patches) {
        let (b, n) = (patch as usize / per_sample, patch as usize % per_sample);
        let (gt, gh, gw) = (n / (grid[1] * grid[2]), n / grid[2] % grid[1], n % grid[2]);
        for channel in 0..c {
            for i in 0..pt * ph {
                let (frame, row) = (gt * pt + i / ph, gh * ph + i % ph);
                let from = (((b * c + channel) * t + frame) * h + row) * w + gw * pw;
                match layout.order {
                    PatchOrder::ChannelsFirst => {
                        read(&mut y[(channel * pt * ph + i) * pw..][..pw], channel, from);
                    }
                    PatchOrder::ChannelsLast => {
                        let y = &mut y[i * pw * c..][..pw * c];
                        interleave(y, channel, c, from, &read);
                    }
                }
            }
        }
    }
}

/// One channel of a line whose pixels are C values apart. Sixteen pixels are read at a time.
#[inline(always)]
fn interleave<T: Element>(
    y: &mut [T],
    channel: usize,
    c: usize,
    from: usize,
    read: &impl Fn(&mut [T], usize, usize),
) {
    for (block, y) in y.chunks_mut(LANES * c).enumerate() {
        let mut line = [T::zeroed(); LANES];
        let line = &mut line[..y.len() / c];
        read(line, channel, from + block * LANES);
        for (y, &v) in y.chunks_exact_mut(c).zip(&*line) {
            y[channel] = v;
        }
    }
}

multiversion! {
    fn normalize_rows_whole(y: &mut [f32], x: &[f32], d: usize, norm: PatchNorm) {
        for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
            let mean = sum(x, |v| v) / d as f32;
            let squares = sum(x, |v| (v - mean) * (v - mean));
            let factor = factor(squares, d as f32, norm);
            each(y, x, |v| (v - mean) * factor);
        }
    }

    fn normalize_rows_rgb(y: &mut [f32], x: &[f32], d: usize, norm: PatchNorm) {
        normalize_rows::<3>(y, x, d, norm);
    }
}

/// Normalises each of C channels in rows of pixels with C interleaved values.
#[inline(always)]
fn normalize_rows<const C: usize>(y: &mut [f32], x: &[f32], d: usize, norm: PatchNorm) {
    for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
        let n = (d / C) as f32;
        let mean = channel_sums::<C>(x, [0.0; C], |delta| delta).map(|sum| sum / n);
        let squares = channel_sums::<C>(x, mean, |delta| delta * delta);
        let factor = squares.map(|squares| factor(squares, n, norm));
        let (y, x) = (y.as_chunks_mut::<C>().0, x.as_chunks::<C>().0);
        for (y, x) in y.iter_mut().zip(x) {
            for c in 0..C {
                y[c] = (x[c] - mean[c]) * factor[c];
            }
        }
    }
}

/// Σ f(x - shift_c) over the pixels, for each of C interleaved channels, in sixteen lanes each.
#[inline(always)]
fn channel_sums<const C: usize>(x: &[f32], shift: [f32; C], f: impl Fn(f32) -> f32) -> [f32; C] {
    let mut lanes = [[0.0; C]; LANES];
    for block in x.as_chunks::<C>().0.chunks(LANES) {
        for (lane, pixel) in lanes.iter_mut().zip(block) {
            for c in 0..C {
                lane[c] += f(pixel[c] - shift[c]);
            }
        }
    }
    std::array::from_fn(|c| combine(lanes.map(|lane| lane[c])))
}

/// For any number of channels, one after another.
fn normalize_rows_strided(y: &mut [f32], x: &[f32], d: usize, channels: usize, norm: PatchNorm) {
    for (y, x) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
        let n = (d / channels) as f32;
        for c in 0..channels {
            let channel = || x.iter().skip(c).step_by(channels).copied();
            let mean = channel().sum::<f32>() / n;
            let factor = factor(channel().map(|v| (v - mean) * (v - mean)).sum(), n, norm);
            let y = y.iter_mut().skip(c).step_by(channels);
            y.zip(channel()).for_each(|(y, v)| *y = (v - mean) * factor);
        }
    }
}

/// 1/σ with its ε, from Σ (x - μ)² of n values.
#[inline(always)]
fn factor(squares: f32, n: f32, norm: PatchNorm) -> f32 {
    let variance = squares / if norm.unbiased { n - 1.0 } else { n };
    if norm.eps_outside_sqrt {
        1.0 / (variance.sqrt() + norm.eps)
    } else {
        1.0 / (variance + norm.eps).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use crate::cpu::row::testing::same_bits;
    use crate::device::{PatchLayout, PatchNorm, PatchOrder, Pixels};
    use crate::naive::testing::{assert_close, indices, numbers};
    use crate::{cpu::row, naive};

    fn layouts() -> Vec<PatchLayout> {
        let shapes = [
            ([2, 3, 1, 8, 12], [1, 4, 4]),
            ([1, 1, 1, 7, 7], [1, 7, 7]),
            ([3, 3, 4, 32, 48], [2, 16, 16]),
            ([2, 5, 2, 3, 2], [2, 1, 2]),
        ];
        let orders = [PatchOrder::ChannelsFirst, PatchOrder::ChannelsLast];
        let layout = |(shape, patch)| orders.map(|order| PatchLayout { shape, patch, order });
        shapes.into_iter().flat_map(layout).collect()
    }

    #[test]
    fn patchify_equals_its_naive_twin() {
        for layout in layouts() {
            let [b, c, t, h, w] = layout.shape;
            let [pt, ph, pw] = layout.patch;
            let pixels: usize = layout.shape.iter().product();
            let patches = indices(1, 70, b * (t / pt) * (h / ph) * (w / pw));
            let bytes: Vec<u8> = indices(2, pixels, 256).into_iter().map(|v| v as u8).collect();
            let (values, mean, std) = (numbers(3, pixels), vec![0.4; c], vec![0.3; c]);
            let sources =
                [Pixels::F32(&values), Pixels::U8 { data: &bytes, mean: &mean, std: &std }];
            for source in sources {
                let [got, want] = [row::patchify, naive::patchify].map(|patchify| {
                    let mut y = vec![9.0; 70 * c * pt * ph * pw];
                    patchify(&mut y, source, layout, &patches);
                    y
                });
                assert_close("y", &got, &want, 1e-7); // the three roundings of torchvision
            }
        }
    }

    #[test]
    fn a_byte_is_normalised_as_in_torchvision() {
        let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        let shape = [1, 3, 1, 1, 1];
        let layout = PatchLayout { shape, patch: [1; 3], order: PatchOrder::ChannelsLast };
        let mut y = [0.0; 3];
        let pixels = Pixels::U8 { data: &[255, 0, 128], mean: &mean, std: &std };
        row::patchify(&mut y, pixels, layout, &[0]);
        let want = [
            (1.0 - mean[0]) / std[0],
            (0.0 - mean[1]) / std[1],
            (128.0 / 255.0 - mean[2]) / std[2],
        ];
        assert_eq!(y, want);
    }

    #[test]
    fn normalize_patches_equals_its_naive_twin() {
        for (rows, pixels, channels) in
            [(1, 2, 1), (2, 5, 3), (7, 16, 3), (130, 49, 1), (130, 256, 3), (7, 33, 4)]
        {
            let d = pixels * channels;
            let x: Vec<f32> = numbers(1, rows * d).iter().map(|v| v + 3.0).collect();
            for flags in 0..8 {
                let norm = PatchNorm {
                    channels,
                    per_channel: flags & 1 > 0,
                    unbiased: flags & 2 > 0,
                    eps: 1e-6,
                    eps_outside_sqrt: flags & 4 > 0,
                };
                let twins = [row::normalize_patches, naive::normalize_patches::<f32>];
                let [got, want] = twins.map(|normalize| {
                    let mut y = vec![9.0; rows * d];
                    normalize(&mut y, &x, d, norm);
                    y
                });
                assert_close("y", &got, &want, 5e-6); // two pixels may be near their mean of 3
            }
        }
    }

    #[test]
    fn patches_have_the_same_bits_on_any_threads_and_instructions() {
        let shape = [4, 3, 1, 96, 96];
        let layout = PatchLayout { shape, patch: [1, 16, 16], order: PatchOrder::ChannelsLast };
        let bytes: Vec<u8> =
            indices(2, 4 * 3 * 96 * 96, 256).into_iter().map(|v| v as u8).collect();
        let patches: Vec<u32> = (0..144).collect();
        same_bits(|| {
            let (mut y, mut z) = (vec![0.0; bytes.len()], vec![0.0; bytes.len()]);
            let pixels = Pixels::U8 { data: &bytes, mean: &[0.5; 3], std: &[0.2; 3] };
            row::patchify(&mut y, pixels, layout, &patches);
            for per_channel in [true, false] {
                let (unbiased, eps_outside_sqrt) = (true, false);
                let norm =
                    PatchNorm { channels: 3, per_channel, unbiased, eps: 1e-6, eps_outside_sqrt };
                row::normalize_patches(&mut z, &y, 768, norm);
                y.copy_from_slice(&z);
            }
            y
        });
    }
}
