//! The innermost loop: a tile of C stays in registers during the loop over k.
//!
//! `C[m, n] (+)= A[m, k] B[k, n]` for up to [`Shape::rows`] rows and one panel of packed B. A is
//! read in place with any strides. Each of its values is broadcast, so it needs no
//! packing, unless its columns are contiguous: see `pack_tiles`.

use crate::cpu::dispatch::{Level, level};
use crate::dtype::Dtype;

/// The tile sizes of the widest instruction set of this CPU, and the form of operands.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// Rows of a tile.
    pub(super) rows: usize,
    /// Columns of a full panel of B. The last columns may be in panels of half this width or of
    /// `least`.
    pub(super) columns: usize,
    /// Columns of the narrowest panel.
    least: usize,
    /// Whether a value of A or B is a pair of bf16: two products are summed at once.
    pub(crate) pairs: bool,
    level: Level,
}

/// The largest numbers of rows and columns of any tile.
const MOST_ROWS: usize = 12;
const MOST_COLUMNS: usize = 32;

/// The operands: pointers, and strides in elements.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Number of products summed.
    pub(super) k: usize,
    /// A[0, 0]
    pub(super) a: *const f32,
    /// Distance from A[m, k] to A[m + 1, k].
    pub(super) a_row: usize,
    /// Distance from A[m, k] to A[m, k + 1].
    pub(super) a_column: usize,
    /// The packed panel: k rows of its width.
    pub(super) b: *const f32,
    /// C[0, 0]
    pub(super) c: *mut f32,
    /// Distance from C[m, n] to C[m + 1, n].
    pub(super) c_row: usize,
    /// Whether to add to C instead of overwriting it.
    pub(super) add: bool,
}

impl Shape {
    fn here() -> Self {
        let level = level();
        let (rows, columns, least) = match level {
            // NEON has 32 registers of four lanes: 24 sums, four of B, one of A.
            Level::Portable if cfg!(target_arch = "aarch64") => (6, 16, 4),
            // SSE has 16 of them.
            Level::Portable => (4, 8, 4),
            #[cfg(test)]
            Level::PortablePairs => (4, 8, 4),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => (6, 16, 8),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 | Level::Avx512Bf16 => (12, 32, 8),
        };
        Self { rows, columns, least, pairs: false, level }
    }

    /// The tile for products of two matrices of activations of this type. Those of bf16 are
    /// multiplied by pairs if the CPU does that, else as the same numbers in f32.
    pub(crate) fn of(dtype: Dtype) -> Self {
        let shape = Self::here();
        let pairs = match shape.level {
            _ if dtype == Dtype::F32 => false,
            #[cfg(test)]
            Level::PortablePairs => true,
            #[cfg(target_arch = "x86_64")]
            Level::Avx512Bf16 => true,
            _ => false,
        };
        Self { pairs, ..shape }
    }

    /// Values of A or B for `k` products.
    pub(crate) fn depth(self, k: usize) -> usize {
        if self.pairs { k.div_ceil(2) } else { k }
    }

    /// Width of the next panel if `left` columns remain. As few lanes as possible are wasted, so 24
    /// columns are a panel of 16 and one of 8.
    pub(super) fn panel(self, left: usize) -> usize {
        let half = self.columns / 2;
        if left > half + self.least || (left > half && half == self.least) {
            self.columns
        } else if left > self.least {
            half
        } else {
            self.least
        }
    }

    /// Number of values of `k` packed rows and `n` columns of B.
    pub(crate) fn packed_len(self, k: usize, n: usize) -> usize {
        self.depth(k) * self.padded(n)
    }

    /// Width of `n` packed columns.
    pub(crate) fn padded(self, n: usize) -> usize {
        let mut padded = n - n % self.columns;
        while padded < n {
            padded += self.panel(n - padded);
        }
        padded
    }

    /// Computes `rows` (at most a tile's) by `columns` of C with a panel of `width` columns.
    ///
    /// # Safety
    /// A, the panel and C must be readable, and C writable, at all places that the strides reach.
    /// This shape must come from [`Shape::of`] on this CPU.
    pub(super) unsafe fn run(self, tile: Tile, rows: usize, columns: usize, width: usize) {
        if columns == width {
            // SAFETY: the caller's promise.
            return unsafe { self.full(tile, rows, width) };
        }
        let mut edge = [0.0f32; MOST_ROWS * MOST_COLUMNS];
        let whole = Tile { c: edge.as_mut_ptr(), c_row: width, add: false, ..tile };
        // SAFETY: the caller's promise for A and B; the edge holds rows x width of every tile.
        unsafe { self.full(whole, rows, width) };
        for (row, values) in edge.chunks_exact(width).take(rows).enumerate() {
            for (column, value) in values[..columns].iter().enumerate() {
                // SAFETY: row < rows and column < columns, which the caller promised to be C's.
                let span = unsafe { &mut *tile.c.add(row * tile.c_row + column) };
                *span = if tile.add { *span + value } else { *value };
            }
        }
    }

    /// # Safety
    /// As in [`Shape::run`]. C must have the panel's full width.
    unsafe fn full(self, tile: Tile, rows: usize, width: usize) {
        macro_rules! by_rows {
            ($kernel:ident, $vectors:literal, $($rows:literal)+) => {
                match rows {
                    $($rows => {
                        // SAFETY: the caller's promise about the memory; the level was detected,
                        // so the CPU has the kernel's features.
                        unsafe { $kernel::<$rows, $vectors>(tile) }
                    })+
                    _ => unreachable!("a tile of {rows} rows"),
                }
            };
        }
        match (self.level, self.pairs, width) {
            (Level::Portable, false, 4) => by_rows!(portable, 1, 1 2 3 4 5 6),
            (Level::Portable, false, 8) => by_rows!(portable, 2, 1 2 3 4 5 6),
            (Level::Portable, false, _) => by_rows!(portable, 4, 1 2 3 4 5 6),
            #[cfg(test)]
            (Level::PortablePairs, false, 4) => by_rows!(portable, 1, 1 2 3 4),
            #[cfg(test)]
            (Level::PortablePairs, false, _) => by_rows!(portable, 2, 1 2 3 4),
            #[cfg(test)]
            (Level::PortablePairs, true, 4) => by_rows!(portable_pairs, 1, 1 2 3 4),
            #[cfg(test)]
            (Level::PortablePairs, true, _) => by_rows!(portable_pairs, 2, 1 2 3 4),
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2, false, 8) => by_rows!(avx2, 1, 1 2 3 4 5 6),
            #[cfg(target_arch = "x86_64")]
            (Level::Avx2, false, _) => by_rows!(avx2, 2, 1 2 3 4 5 6),
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512 | Level::Avx512Bf16, false, 8) => {
                by_rows!(avx512_half, 1, 1 2 3 4 5 6 7 8 9 10 11 12);
            }
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512 | Level::Avx512Bf16, false, 16) => {
                by_rows!(avx512, 1, 1 2 3 4 5 6 7 8 9 10 11 12);
            }
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512 | Level::Avx512Bf16, false, _) => {
                by_rows!(avx512, 2, 1 2 3 4 5 6 7 8 9 10 11 12);
            }
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512Bf16, true, 8) => {
                by_rows!(avx512_half_bf16, 1, 1 2 3 4 5 6 7 8 9 10 11 12);
            }
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512Bf16, true, 16) => by_rows!(avx512_bf16, 1, 1 2 3 4 5 6 7 8 9 10 11 12),
            #[cfg(target_arch = "x86_64")]
            (Level::Avx512Bf16, true, _) => by_rows!(avx512_bf16, 2, 1 2 3 4 5 6 7 8 9 10 11 12),
            (level, true, _) => unreachable!("{level:?} multiplies no pairs"),
        }
    }
}

macro_rules! kernel {
    ($name:ident, $($feature:literal)?, $lanes:literal, $zero:expr, $load:expr, $store:expr,
     $splat:expr, $fma:expr, $add:expr) => {
        /// # Safety
        /// A [ROWS, k], the panel [k, VECTORS lanes] and C [ROWS, VECTORS lanes] must be valid at
        /// all places that the strides reach. The CPU must have the features.
        $(#[target_feature(enable = $feature)])?
        #[allow(clippy::needless_range_loop)] // indices into registers, unrolled
        unsafe fn $name<const ROWS: usize, const VECTORS: usize>(tile: Tile) {
            let Tile { k, a, a_row, a_column, b, c, c_row, add } = tile;
            // SAFETY: every pointer below stays within what the caller promised.
            unsafe {
                let mut sums = [[$zero; VECTORS]; ROWS];
                // Four base pointers three rows apart. The addressing modes reach the other rows.
                let mut bases = [a, a.wrapping_add(3 * a_row), a.wrapping_add(6 * a_row),
                    a.wrapping_add(9 * a_row)];
                let mut b = b;
                for _ in 0..k {
                    let mut panel = [$zero; VECTORS];
                    for v in 0..VECTORS {
                        panel[v] = $load(b.add(v * $lanes));
                    }
                    for row in 0..ROWS {
                        let value = $splat(*bases[row / 3].add(row % 3 * a_row));
                        for v in 0..VECTORS {
                            sums[row][v] = $fma(value, panel[v], sums[row][v]);
                        }
                    }
                    for base in &mut bases {
                        *base = base.wrapping_add(a_column);
                    }
                    b = b.add(VECTORS * $lanes);
                }
                for row in 0..ROWS {
                    for v in 0..VECTORS {
                        let span = c.add(row * c_row + v * $lanes);
                        let sum = sums[row][v];
                        $store(span, if add { $add($load(span), sum) } else { sum });
                    }
                }
            }
        }
    };
}

/// Four lanes, which the compiler puts into one register on every target.
type Four = [f32; 4];

fn four(f: impl Fn(usize) -> f32) -> Four {
    std::array::from_fn(f)
}

/// x y + z, with one rounding if the target has an instruction for it.
fn multiply_add(x: f32, y: f32, z: f32) -> f32 {
    if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
        x.mul_add(y, z)
    } else {
        x * y + z
    }
}

kernel!(
    portable,
    ,
    4,
    [0.0f32; 4],
    |p: *const f32| p.cast::<Four>().read_unaligned(),
    |p: *mut f32, v: Four| p.cast::<Four>().write_unaligned(v),
    |x: f32| [x; 4],
    |x: Four, y: Four, z: Four| four(|i| multiply_add(x[i], y[i], z[i])),
    |x: Four, y: Four| four(|i| x[i] + y[i])
);

/// Both bf16 numbers of a pair, the first in the lower half.
#[cfg(test)]
fn halves(pair: f32) -> [f32; 2] {
    [pair.to_bits() << 16, pair.to_bits() & 0xFFFF_0000].map(f32::from_bits)
}

#[cfg(test)]
kernel!(
    portable_pairs,
    ,
    4,
    [0.0f32; 4],
    |p: *const f32| p.cast::<Four>().read_unaligned(),
    |p: *mut f32, v: Four| p.cast::<Four>().write_unaligned(v),
    |x: f32| [x; 4],
    |x: Four, y: Four, z: Four| four(|i| {
        let (x, y) = (halves(x[i]), halves(y[i]));
        z[i] + (x[0] * y[0] + x[1] * y[1])
    }),
    |x: Four, y: Four| four(|i| x[i] + y[i])
);

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256, __m256bh, __m512, __m512bh, _mm256_add_ps, _mm256_dpbf16_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps, _mm512_add_ps,
    _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

#[cfg(target_arch = "x86_64")]
kernel!(
    avx2,
    "avx2,fma",
    8,
    _mm256_setzero_ps(),
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps
);

// Half of AVX-512's width with its 32 registers.
#[cfg(target_arch = "x86_64")]
kernel!(
    avx512_half,
    "avx512f,avx512vl,fma",
    8,
    _mm256_setzero_ps(),
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_add_ps
);

#[cfg(target_arch = "x86_64")]
kernel!(
    avx512,
    "avx512f",
    16,
    _mm512_setzero_ps(),
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_add_ps
);

// A pair of bf16 is moved as one f32: loads, stores and broadcasts keep its bits.
#[cfg(target_arch = "x86_64")]
kernel!(
    avx512_bf16,
    "avx512f,avx512bf16",
    16,
    _mm512_setzero_ps(),
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    |a: __m512, b: __m512, sum: __m512| _mm512_dpbf16_ps(
        sum,
        std::mem::transmute::<__m512, __m512bh>(a),
        std::mem::transmute::<__m512, __m512bh>(b),
    ),
    _mm512_add_ps
);

#[cfg(target_arch = "x86_64")]
kernel!(
    avx512_half_bf16,
    "avx512f,avx512vl,avx512bf16",
    8,
    _mm256_setzero_ps(),
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    |a: __m256, b: __m256, sum: __m256| _mm256_dpbf16_ps(
        sum,
        std::mem::transmute::<__m256, __m256bh>(a),
        std::mem::transmute::<__m256, __m256bh>(b),
    ),
    _mm256_add_ps
);

/// Computes a tile `rounds` times with operands that stay in L1. Returns the number of
/// floating-point operations.
pub(crate) fn peak_tile(rounds: usize, dtype: Dtype) -> f64 {
    const K: usize = 64;
    let shape = Shape::of(dtype);
    let (a, b) = ([1.0f32; K * MOST_ROWS], [1.0f32; K * MOST_COLUMNS]);
    let mut c = [0.0f32; MOST_ROWS * MOST_COLUMNS];
    for _ in 0..rounds {
        let tile = Tile {
            k: K,
            a: std::hint::black_box(a.as_ptr()),
            a_row: 1,
            a_column: MOST_ROWS,
            b: b.as_ptr(),
            c: c.as_mut_ptr(),
            c_row: shape.columns,
            add: false,
        };
        // SAFETY: a, b and c hold a tile with the largest numbers of rows and columns.
        unsafe { shape.run(tile, shape.rows, shape.columns, shape.columns) };
    }
    std::hint::black_box(c);
    let products = if shape.pairs { 2 * K } else { K };
    2.0 * (products * shape.rows * shape.columns * rounds) as f64
}
