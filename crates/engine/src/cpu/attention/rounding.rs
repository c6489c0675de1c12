//! Weights and gradients of scores in the forms that products of bf16 pairs read.

use crate::cpu::dispatch::multiversion;
use crate::cpu::gemm::{Owned, Span, Target, by_width};
use crate::dtype::{Bf16, Element};

/// P and dS rounded to bf16.
pub(super) struct RoundedScores<F, B> {
    pub(super) weights: B,
    pub(super) d_scores: B,
    /// Row p has the pairs of rows 2p and 2p + 1 of dS.
    pub(super) pairs: F,
}

/// A tile's part of them.
type RoundedTile = RoundedScores<Owned, Owned<Bf16>>;

impl RoundedScores<Target, Target<Bf16>> {
    /// The part of a tile. It starts at an even row, as each tile does.
    ///
    /// # Safety
    /// No other code may use these values meanwhile.
    pub(super) unsafe fn tile(&self, at: Span) -> RoundedTile {
        let Span { row, column, rows, columns } = at;
        // SAFETY: the caller's promise.
        unsafe {
            RoundedScores {
                weights: self.weights.at(row, column).own(rows, columns),
                d_scores: self.d_scores.at(row, column).own(rows, columns),
                pairs: self.pairs.at(row / 2, column).own(rows.div_ceil(2), columns),
            }
        }
    }
}

/// Row p becomes the pairs of rows 2p and 2p + 1, rounded to bf16. An odd last row has zeros beside
/// it. The rows after the pairs are unused.
pub(super) fn pair_rows(rows: &mut [f32], stride: usize) {
    #[cfg(target_arch = "x86_64")]
    if native::is_here() {
        // SAFETY: the CPU has the features, by the line above.
        return unsafe { native::pair_rows(rows, stride) };
    }
    plain::pair_rows(rows, stride);
}

/// Writes a tile of P and dS to its parts of the rounded ones.
pub(super) fn round_tile(p: &mut Owned, ds: &mut Owned, to: RoundedTile) {
    #[cfg(target_arch = "x86_64")]
    if native::is_here() {
        // SAFETY: the CPU has the features, by the line above.
        return unsafe { native::round_tile(p, ds, to) };
    }
    plain::round_tile(p, ds, to);
}

/// Plain code runs only in tests: every CPU that multiplies pairs has its own conversion.
mod plain {
    use super::{Owned, RoundedTile};
    use crate::dtype::{Bf16, Element};

    pub(super) fn pair_rows(rows: &mut [f32], stride: usize) {
        let count = rows.len() / stride;
        for pair in 0..count.div_ceil(2) {
            for i in 0..stride {
                let second =
                    if 2 * pair + 1 < count { rows[(2 * pair + 1) * stride + i] } else { 0.0 };
                rows[pair * stride + i] = Bf16::pair(rows[2 * pair * stride + i], second);
            }
        }
    }

    pub(super) fn round_tile(p: &mut Owned, ds: &mut Owned, mut to: RoundedTile) {
        let rows = p.rows();
        for r in 0..rows {
            for i in 0..p.columns() {
                to.weights.row(r)[i] = Bf16::round(p.row(r)[i]);
                to.d_scores.row(r)[i] = Bf16::round(ds.row(r)[i]);
                if r % 2 == 0 {
                    let second = if r + 1 < rows { ds.row(r + 1)[i] } else { 0.0 };
                    to.pairs.row(r / 2)[i] = Bf16::pair(ds.row(r)[i], second);
                }
            }
        }
    }
}

#[inline(always)]
fn round<const WIDTH: usize>(tile: &mut Owned) {
    for r in 0..tile.rows() {
        let values = tile.array::<WIDTH>(r).map(|value| Bf16::round(value).wide());
        tile.set(r, values);
        for value in &mut tile.row(r)[WIDTH..] {
            *value = Bf16::round(*value).wide();
        }
    }
}

multiversion! {
    /// Rounds values to bf16, where products do not read pairs.
    pub(super) fn round_rows(tile: &mut Owned) {
        by_width!(tile.columns(), round(tile));
    }
}

/// The CPU's own conversion takes a few instructions, where plain code takes about ten. It takes
/// subnormal numbers for zero, as the products do.
#[cfg(target_arch = "x86_64")]
mod native {
    use super::{Owned, RoundedTile};
    use crate::cpu::dispatch::{Level, level};
    use crate::dtype::Bf16;
    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, __mmask16, _mm256_mask_storeu_epi16, _mm512_castsi512_si256,
        _mm512_cvtne2ps_pbh, _mm512_extracti64x4_epi64, _mm512_loadu_si512,
        _mm512_mask_storeu_epi32, _mm512_maskz_loadu_ps, _mm512_permutexvar_epi16,
        _mm512_setzero_ps,
    };

    /// Whether the CPU has all features below.
    pub(super) fn is_here() -> bool {
        level() == Level::Avx512Bf16
    }

    /// Columns that are handled at a time.
    const LANES: usize = 16;

    /// Words 0, 16, 1, 17, ...
    const INTERLEAVE: [u16; 32] = {
        let mut words = [0; 32];
        let mut i = 0;
        while i < 32 {
            words[i] = (i / 2 + i % 2 * 16) as u16;
            i += 1;
        }
        words
    };

    /// Rounds both: `first` to words 0 to 15, `second` to the others.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn narrow(first: __m512, second: __m512) -> __m512i {
        let both = _mm512_cvtne2ps_pbh(second, first);
        // SAFETY: both types are 64 bytes of plain data.
        unsafe { std::mem::transmute::<__m512bh, __m512i>(both) }
    }

    /// Pairs of what [`narrow`] gave.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn paired(both: __m512i) -> __m512i {
        // SAFETY: the table has 64 bytes.
        let order = unsafe { _mm512_loadu_si512(INTERLEAVE.as_ptr().cast()) };
        _mm512_permutexvar_epi16(order, both)
    }

    /// The lanes of `left` columns that are handled at a time.
    fn mask(left: usize) -> __mmask16 {
        if left >= LANES { !0 } else { (1 << left) - 1 }
    }

    /// The masked lanes from column `i` of a row.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn load(row: &[f32], i: usize) -> __m512 {
        let row = &row[i..];
        // SAFETY: the mask has no lane beyond the row.
        unsafe { _mm512_maskz_loadu_ps(mask(row.len()), row.as_ptr()) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) fn pair_rows(rows: &mut [f32], stride: usize) {
        let count = rows.len() / stride;
        for pair in 0..count.div_ceil(2) {
            for i in (0..stride).step_by(LANES) {
                let first = load(&rows[2 * pair * stride..][..stride], i);
                let second = match rows[(2 * pair + 1) * stride..].get(..stride) {
                    Some(row) => load(row, i),
                    None => _mm512_setzero_ps(),
                };
                let to = &mut rows[pair * stride + i..(pair + 1) * stride];
                let values = paired(narrow(first, second));
                // SAFETY: the mask has no lane beyond the row.
                unsafe { _mm512_mask_storeu_epi32(to.as_mut_ptr().cast(), mask(to.len()), values) };
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) fn round_tile(p: &mut Owned, ds: &mut Owned, mut to: RoundedTile) {
        for r in (0..p.rows()).step_by(2) {
            for i in (0..p.columns()).step_by(LANES) {
                round_part(p, &mut to.weights, r, i);
                let both = round_part(ds, &mut to.d_scores, r, i);
                let to = &mut to.pairs.row(r / 2)[i..];
                let values = paired(both);
                // SAFETY: the mask has no lane beyond the row.
                unsafe { _mm512_mask_storeu_epi32(to.as_mut_ptr().cast(), mask(to.len()), values) };
            }
        }
    }

    /// Rounds the lanes from column `i` of rows r and r + 1, if there is one.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    fn round_part(from: &mut Owned, to: &mut Owned<Bf16>, r: usize, i: usize) -> __m512i {
        let two = r + 1 < from.rows();
        let first = load(from.row(r), i);
        let second = if two { load(from.row(r + 1), i) } else { _mm512_setzero_ps() };
        let both = narrow(first, second);
        let halves = [_mm512_castsi512_si256(both), _mm512_extracti64x4_epi64::<1>(both)];
        for (r, half) in (r..from.rows()).zip(halves) {
            let to = &mut to.row(r)[i..];
            // SAFETY: the mask has no lane beyond the row.
            unsafe { _mm256_mask_storeu_epi16(to.as_mut_ptr().cast(), mask(to.len()), half) };
        }
        both
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::{RoundedScores, Target, native, plain};
    use crate::dtype::{Bf16, Element};

    /// Ties, ends of the range and what is no number, then ordinary numbers. None is subnormal.
    fn values(count: usize) -> Vec<f32> {
        let odd = [0x3F80_8000, 0x3F81_8000, 0xBF80_8001, 0x7F7F_FFFF, 0xFF80_0000, 0x7FC0_0000];
        let mut values: Vec<f32> = odd.into_iter().map(f32::from_bits).collect();
        values.extend([0.0, -0.0, f32::MIN_POSITIVE]);
        values.extend(
            (0..count as u32).map(|i| f32::from_bits(0x3A00_0000 + i * 0x13_579B % 0x0600_0000)),
        );
        values.truncate(count);
        values.rotate_right(count / 2);
        values
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn the_cpus_pairs_of_rows_are_those_of_plain_code() {
        for (rows, stride) in [(0, 16), (1, 16), (2, 32), (17, 32), (12, 16)] {
            let mut want = values(rows * stride);
            let first = want.clone();
            plain::pair_rows(&mut want, stride);
            if let [x, ..] = first[..] {
                let second = if rows > 1 { first[stride] } else { 0.0 };
                assert_eq!(want[0].to_bits(), Bf16::pair(x, second).to_bits());
            }
            if native::is_here() {
                let mut got = first;
                // SAFETY: the CPU has the features, by the line above.
                unsafe { native::pair_rows(&mut got, stride) };
                assert_eq!(bits(&got), bits(&want), "{rows} rows of {stride}");
            }
        }
    }

    /// The three results for a tile of P and dS. They have more rows and columns than the tile.
    fn rounded(
        [rows, columns]: [usize; 2],
        round: impl Fn(&mut super::Owned, &mut super::Owned, super::RoundedTile),
    ) -> [Vec<u32>; 3] {
        const STRIDE: usize = 40;
        let all = values(2 * rows * STRIDE);
        let (p, ds) = all.split_at(rows * STRIDE);
        let (mut p, mut ds) = (p.to_vec(), ds.to_vec());
        let mut narrow = [(); 2].map(|()| vec![Bf16::round(7.0); (rows + 1) * STRIDE]);
        let mut pairs = vec![7.0; (rows + 1) * STRIDE];
        let [weights, d_scores] = &mut narrow;
        // SAFETY: this thread alone uses all of them.
        unsafe {
            let to = RoundedScores {
                weights: Target::new(weights, STRIDE).own(rows, columns),
                d_scores: Target::new(d_scores, STRIDE).own(rows, columns),
                pairs: Target::new(&mut pairs, STRIDE).own(rows.div_ceil(2), columns),
            };
            let [p, ds] = [&mut p, &mut ds].map(|x| Target::new(x, STRIDE));
            round(&mut p.own(rows, columns), &mut ds.own(rows, columns), to);
        }
        let [weights, d_scores] =
            narrow.map(|x| x.iter().map(|value| value.wide().to_bits()).collect());
        [weights, d_scores, bits(&pairs)]
    }

    #[test]
    fn the_cpus_rounded_tiles_are_those_of_plain_code() {
        for size in [1, 2, 5, 11, 12].into_iter().flat_map(|rows| [8, 16, 32].map(|c| [rows, c])) {
            let want = rounded(size, plain::round_tile);
            let seven = Bf16::round(7.0).wide().to_bits();
            let [rows, columns] = size;
            assert!(want[0][columns..40].iter().all(|bits| *bits == seven), "beside the tile");
            assert!(want[0][rows * 40..].iter().all(|bits| *bits == seven), "below the tile");
            if native::is_here() {
                // SAFETY: the CPU has the features, by the line above.
                let got = rounded(size, |p, ds, to| unsafe { native::round_tile(p, ds, to) });
                assert_eq!(got, want, "{size:?}");
            }
        }
    }
}
