//! Position tables: fixed sines and cosines, and learned tables resampled to another grid.

use crate::mask::Grid;
use engine::Tensor;

/// The fixed table [N, D] of predictor and decoder: 2-D for images, 3-D for clips.
///
/// 2-D: stable-pretraining backbone/pos_embed.py, get_2d_sincos_pos_embed. A quarter of the width
/// each for sin and cos of the row, sin and cos of the column. ω_k = 10000^(-k/(D/4)).
///
/// 3-D: V-JEPA src/models/utils/pos_embs.py with uniform power. Time, row and column each get a
/// third of the width, rounded up to even. The result is cut to D.
pub fn sincos(width: usize, grid: Grid) -> Tensor {
    let mut table = Vec::with_capacity(grid.len() * width);
    for n in 0..grid.len() {
        let (t, h, w) = (n / (grid.h * grid.w), n / grid.w % grid.h, n % grid.w);
        let mut row = Vec::with_capacity(width + 6);
        if grid.t == 1 {
            // A width that is not a multiple of four is rounded up and cut. The reference refuses
            // it.
            let part = 2 * width.div_ceil(4);
            axis(&mut row, h, part);
            axis(&mut row, w, part);
        } else {
            let part = 2 * width.div_ceil(6);
            for index in [t, h, w] {
                axis(&mut row, index, part);
            }
        }
        table.extend_from_slice(&row[..width]);
    }
    Tensor::from_vec(table, &[grid.len(), width])
}

/// The fixed table [N, D] of places in a sequence: stable-pretraining backbone/pos_embed.py,
/// get_1d_sincos_pos_embed. Columns 2k and 2k + 1 are sin and cos of p ω_k, ω_k = 10000^(-2k/D).
pub fn sincos_of_index(width: usize, count: usize) -> Tensor {
    let value = |place: usize| {
        let (index, column) = (place / width, place % width);
        let frequency = 10_000f64.powf(-((column - column % 2) as f64) / width as f64);
        let angle = index as f64 * frequency;
        (if column % 2 == 0 { angle.sin() } else { angle.cos() }) as f32
    };
    Tensor::from_vec((0..count * width).map(value).collect::<Vec<_>>(), &[count, width])
}

/// Appends sin(p ω_k), then cos(p ω_k), k in 0..part/2, ω_k = 10000^(-2k/part).
fn axis(row: &mut Vec<f32>, index: usize, part: usize) {
    let half = part / 2;
    let angle = |k: usize| index as f64 * 10_000f64.powf(-(k as f64) / half as f64);
    row.extend((0..half).map(|k| angle(k).sin() as f32));
    row.extend((0..half).map(|k| angle(k).cos() as f32));
}

/// Resamples a learned table [P + N, D] from one grid to another. The first `prefix` rows are kept.
///
/// As in timm layers/pos_embed.py, resample_abs_pos_embed: bicubic with antialias. Each axis is
/// resampled in turn, also time: an image's table is repeated in time.
pub fn resample(table: &[f32], width: usize, prefix: usize, from: Grid, to: Grid) -> Vec<f32> {
    resample_by(antialiased_cubic, table, width, prefix, [from, to])
}

/// [`resample`] as in stable-pretraining backbone/pos_embed.py, interpolate_pos_embed: bicubic
/// without antialias, so a smaller grid skips rows of the table.
pub fn resample_plain(
    table: &[f32],
    width: usize,
    prefix: usize,
    from: Grid,
    to: Grid,
) -> Vec<f32> {
    resample_by(plain_cubic, table, width, prefix, [from, to])
}

/// For each new index along an axis: the old indices that contribute to it, and their weights.
type Weights = Vec<Vec<(usize, f32)>>;

fn resample_by(
    weights: fn(usize, usize) -> Weights,
    table: &[f32],
    width: usize,
    prefix: usize,
    [from, to]: [Grid; 2],
) -> Vec<f32> {
    assert_eq!(table.len(), (prefix + from.len()) * width, "a table of its grid's size");
    let (kept, patches) = table.split_at(prefix * width);
    let along = |values: &[f32], [outer, length, inner]: [usize; 3], new: usize| {
        if length == new {
            return values.to_vec();
        }
        combine(values, [outer, length, inner], &weights(length, new))
    };
    // [T,H,W,D] -> [T,H,W',D] -> [T,H',W',D] -> [T',H',W',D]
    let patches = along(patches, [from.t * from.h, from.w, width], to.w);
    let patches = along(&patches, [from.t, from.h, to.w * width], to.h);
    let patches = along(&patches, [1, from.t, to.plane() * width], to.t);
    [kept, &patches].concat()
}

/// Sums the middle axis of [outer, length, inner] by `weights`: [outer, new, inner].
fn combine(values: &[f32], [outer, length, inner]: [usize; 3], weights: &Weights) -> Vec<f32> {
    let mut result = vec![0.0; outer * weights.len() * inner];
    for (row, sum) in result.chunks_exact_mut(inner).enumerate() {
        let (o, index) = (row / weights.len(), row % weights.len());
        for &(old, weight) in &weights[index] {
            let from = &values[(o * length + old) * inner..][..inner];
            sum.iter_mut().zip(from).for_each(|(sum, value)| *sum += weight * value);
        }
    }
    result
}

/// torch aten/src/ATen/native/cpu/UpSampleKernel.cpp, the antialiased branch. The kernel's support
/// grows if the axis shrinks. Its weights sum to one.
fn antialiased_cubic(length: usize, new: usize) -> Weights {
    let scale = length as f64 / new as f64;
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    let weights = |index| {
        let center = scale * (index as f64 + 0.5);
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(length);
        let weight = |old: usize| cubic((old as f64 - center + 0.5) / stretch, -0.5);
        let sum: f64 = (first..end).map(weight).sum();
        (first..end).map(|old| (old, (weight(old) / sum) as f32)).collect()
    };
    (0..new).map(weights).collect()
}

/// The same file, the branch without antialias: four indices, clamped to the edge.
fn plain_cubic(length: usize, new: usize) -> Weights {
    let scale = length as f64 / new as f64;
    let weights = |index| {
        let center = scale * (index as f64 + 0.5) - 0.5;
        let old = |k: f64| (center.floor() + k).clamp(0.0, (length - 1) as f64) as usize;
        let weight = |k: f64| cubic(center.floor() + k - center, -0.75) as f32;
        [-1.0, 0.0, 1.0, 2.0].map(|k| (old(k), weight(k))).to_vec()
    };
    (0..new).map(weights).collect()
}

/// Keys' cubic convolution kernel (1981).
fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::check::{assert_close, max_abs};

    #[test]
    fn the_first_patch_has_sines_zero_and_cosines_one() {
        let table = sincos(8, Grid { t: 1, h: 2, w: 3 });
        assert_eq!(table.shape(), [6, 8]);
        assert_eq!(&table.to_host()[..8], &[0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
        // Patch (1, 2): row 1, column 2. ω = 1, 10000^-½.
        let last = &table.to_host()[5 * 8..];
        let want = [1f32.sin(), 0.01f32.sin(), 1f32.cos(), 0.01f32.cos()];
        assert!(last[..4].iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6));
        assert!((last[4] - 2f32.sin()).abs() < 1e-6);
    }

    #[test]
    fn a_clip_has_a_third_of_the_width_for_each_axis() {
        let table = sincos(12, Grid { t: 2, h: 2, w: 2 });
        let last = &table.to_host()[7 * 12..];
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

    /// Compares both filters with torch 2.15's interpolate of v(i) = sin(0.7 i + 0.3 cos i). Here i
    /// counts [H,W] times two channels, and the first channel is used.
    fn assert_as_torch(from: Grid, to: Grid, antialiased: &[f32], plain: &[f32]) {
        let value = |i: usize| (0.7 * i as f64 + 0.3 * (i as f64).cos()).sin() as f32;
        // A first row stands for the class token, which is kept.
        let table: Vec<f32> =
            [9.0].into_iter().chain((0..from.len()).map(|n| value(2 * n))).collect();
        for (got, want) in [
            (resample(&table, 1, 1, from, to), antialiased),
            (resample_plain(&table, 1, 1, from, to), plain),
        ] {
            assert_eq!(got[0], 9.0);
            // f32 sums of at most 25 products, printed with seven digits.
            assert_close("resampled", &got[1..], want, max_abs(2e-6), "rounding");
        }
    }

    #[test]
    fn another_grid_gives_what_torch_gives() {
        assert_as_torch(
            Grid::image(3, 3),
            Grid::image(5, 4),
            &[
                0.3554867, 0.8617656, 0.9174346, 0.4875941, -0.2563787, 0.139419, 0.4850523,
                0.5638391, -0.9911583, -0.8584641, -0.2273002, 0.5066487, 0.0863758, -0.3412982,
                -0.5835942, -0.4886138, 0.88662, 0.1168438, -0.7385446, -1.1432912,
            ],
            &[
                0.3676166, 0.9271432, 0.974529, 0.4756249, -0.3628036, 0.0520026, 0.4795789,
                0.6117863, -0.9972237, -0.8986527, -0.2293264, 0.5283954, -0.0014448, -0.4333007,
                -0.6201913, -0.4274315, 0.9466355, 0.1495217, -0.7876772, -1.189555,
            ],
        );
        assert_as_torch(
            Grid::image(5, 4),
            Grid::image(2, 3),
            &[-0.1775109, 0.729674, -0.098719, -0.8297442, -0.0270295, 0.7892701],
            &[-0.2692875, 0.8168169, -0.4550323, -0.8431761, -0.2062252, 0.8074052],
        );
    }

    #[test]
    fn a_clips_table_begins_as_the_images_repeated_in_time() {
        let table: Vec<f32> = (0..8).map(|x| x as f32).collect();
        let clip = resample(&table, 2, 0, Grid::image(2, 2), Grid { t: 3, h: 2, w: 2 });
        assert_eq!(clip, [&table[..], &table, &table].concat());
    }

    #[test]
    fn fixed_tables_are_those_of_stable_pretraining() {
        // get_2d_sincos_pos_embed(8, (2, 3)), last row; get_3d_sincos_pos_embed(12, (2, 1, 2)).
        let [s1, s2, c1, c2] = [0.841_471, 0.909_297_4, 0.540_302_3, -0.416_146_8];
        let [s, c] = [0.009_999_8, 0.999_95];
        let table = sincos(8, Grid::image(2, 3)).to_vec();
        let last = [s1, s, c1, c, s2, 0.019_998_7, c2, 0.999_8];
        assert_close("2-D", &table[40..], &last, max_abs(1e-6), "printed with seven digits");
        let table = sincos(12, Grid { t: 2, h: 1, w: 2 }).to_vec();
        let last = [s1, s, c1, c, 0.0, 0.0, 1.0, 1.0, s1, s, c1, c];
        assert_close("3-D", &table[36..], &last, max_abs(1e-6), "printed with seven digits");
    }
}
