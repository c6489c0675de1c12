//! Position tables: fixed sines and cosines, and learned tables brought to another grid.

use crate::mask::Grid;
use engine::Tensor;

/// The fixed table [N, D] of predictor and decoder: 2-D for images, 3-D for clips.
///
/// 2-D: stable-pretraining backbone/pos_embed.py, get_2d_sincos_pos_embed: a quarter of the width
/// each for sin and cos of the row, sin and cos of the column; ω_k = 10000^(-k/(D/4)).
/// 3-D: V-JEPA src/models/utils/pos_embs.py with uniform power: a third of the width, rounded up to
/// even, for each of time, row and column, cut to D.
pub fn sincos(width: usize, grid: Grid) -> Tensor {
    let mut table = Vec::with_capacity(grid.len() * width);
    for n in 0..grid.len() {
        let (t, h, w) = (n / (grid.h * grid.w), n / grid.w % grid.h, n % grid.w);
        let mut row = Vec::with_capacity(width + 6);
        if grid.t == 1 {
            // A width that is no multiple of four is rounded up and cut; the reference refuses it.
            let part = 2 * width.div_ceil(4);
            axis(&mut row, h, part);
            axis(&mut row, w, part);
        } else {
            let part = 2 * width.div_ceil(6);
            for place in [t, h, w] {
                axis(&mut row, place, part);
            }
        }
        table.extend_from_slice(&row[..width]);
    }
    Tensor::from_vec(table, &[grid.len(), width])
}

/// Appends sin(p ω_k), then cos(p ω_k), k in 0..part/2, ω_k = 10000^(-2k/part).
fn axis(row: &mut Vec<f32>, place: usize, part: usize) {
    let half = part / 2;
    let angle = |k: usize| place as f64 * 10_000f64.powf(-(k as f64) / half as f64);
    row.extend((0..half).map(|k| angle(k).sin() as f32));
    row.extend((0..half).map(|k| angle(k).cos() as f32));
}

/// Brings a learned table [P + N, D] from one grid to another; the first `prefix` rows are kept.
///
/// As timm layers/pos_embed.py, resample_abs_pos_embed: bicubic with antialias, torch's kernel
/// with a = -0.5 whose support grows when shrinking. Along each axis in turn; time likewise.
pub fn resample(table: &[f32], width: usize, prefix: usize, from: Grid, to: Grid) -> Vec<f32> {
    assert_eq!(table.len(), (prefix + from.len()) * width, "a table of its grid's size");
    let (kept, patches) = table.split_at(prefix * width);
    let mut patches = patches.to_vec();
    if from != to {
        // (outer, length, inner) of each axis, innermost first: inner counts values.
        let t = from.t;
        patches = along(&patches, [t * from.h, from.w, width], to.w);
        patches = along(&patches, [t, from.h, to.w * width], to.h);
        patches = along(&patches, [1, t, to.h * to.w * width], to.t);
    }
    let mut result = kept.to_vec();
    result.extend(patches);
    result
}

/// Resamples the middle axis of [outer, length, inner] to `new` places.
fn along(values: &[f32], [outer, length, inner]: [usize; 3], new: usize) -> Vec<f32> {
    if length == new {
        return values.to_vec();
    }
    let weights = antialiased_cubic(length, new);
    let mut result = vec![0.0f32; outer * new * inner];
    for o in 0..outer {
        for (place, (first, weights)) in weights.iter().enumerate() {
            let to = (o * new + place) * inner;
            for (k, weight) in weights.iter().enumerate() {
                let from = (o * length + first + k) * inner;
                for i in 0..inner {
                    result[to + i] += weight * values[from + i];
                }
            }
        }
    }
    result
}

/// For each new place the first old place and the weights from there on. torch
/// aten/src/ATen/native/cpu/UpSampleKernel.cpp, the antialiased branch.
fn antialiased_cubic(length: usize, new: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = length as f64 / new as f64;
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    (0..new)
        .map(|place| {
            let center = scale * (place as f64 + 0.5);
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(length);
            let raw: Vec<f64> =
                (first..end).map(|old| cubic((old as f64 - center + 0.5) / stretch)).collect();
            let sum: f64 = raw.iter().sum();
            (first, raw.iter().map(|weight| (weight / sum) as f32).collect())
        })
        .collect()
}

/// Keys' cubic convolution kernel with a = -0.5.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_has_sines_zero_and_cosines_one() {
        let table = sincos(8, Grid { t: 1, h: 2, w: 3 });
        assert_eq!(table.shape(), [6, 8]);
        assert_eq!(&table.as_slice()[..8], &[0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
        // Place (1, 2): row 1, column 2; ω = 1, 10000^-½.
        let last = &table.as_slice()[5 * 8..];
        let want = [1f32.sin(), 0.01f32.sin(), 1f32.cos(), 0.01f32.cos()];
        assert!(last[..4].iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6));
        assert!((last[4] - 2f32.sin()).abs() < 1e-6);
    }

    #[test]
    fn a_clip_has_a_third_of_the_width_for_each_axis() {
        let table = sincos(12, Grid { t: 2, h: 2, w: 2 });
        let last = &table.as_slice()[7 * 12..];
        for part in last.chunks(4) {
            assert!((part[0] - 1f32.sin()).abs() < 1e-6 && (part[2] - 1f32.cos()).abs() < 1e-6);
        }
    }

    #[test]
    fn a_constant_table_stays_constant_and_its_own_grid_changes_nothing() {
        let grid = |side| Grid { t: 1, h: side, w: side };
        let ones = vec![1.0; (1 + 16) * 3];
        assert!(resample(&ones, 3, 1, grid(4), grid(7)).iter().all(|x| (x - 1.0).abs() < 1e-6));
        let ramp: Vec<f32> = (0..16).map(|x| x as f32).collect();
        assert_eq!(resample(&ramp, 1, 0, grid(4), grid(4)), ramp);
    }
}
