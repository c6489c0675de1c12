//! B is copied into panels as wide as a tile, so that a tile reads it sequentially.

use super::Matrix;
use super::tile::Shape;
use crate::cpu::dispatch::{has_avx2, multiversion};
use crate::dtype::{Bf16, Element};

/// Packs B [k, n] into panels. Each panel has k rows of its width, with zeros after column n.
///
/// If the shape has pairs, value c of a panel's row p is the pair (B[2p, c], B[2p + 1, c]), rounded
/// to bf16. An odd last row has a zero beside it.
pub(crate) fn pack<T: Element>(
    shape: Shape,
    packed: &mut [f32],
    b: Matrix<'_, T>,
    [k, n]: [usize; 2],
) {
    assert!(b.holds(k, n), "B outside its data");
    let rows = shape.depth(k);
    let mut rest = &mut packed[..shape.packed_len(k, n)];
    let mut first = 0;
    while first < n {
        let width = shape.panel(n - first);
        let (panel, after) = rest.split_at_mut(rows * width);
        let columns = (n - first).min(width);
        if columns < width {
            panel.fill(0.0);
        }
        let b = b.at(0, first);
        match (shape.pairs, b.column == 1) {
            (false, true) => pack_rows(panel, b, width, columns),
            (false, false) => pack_columns(panel, b, k, width, columns),
            (true, true) => interleave_rows(panel, width, b, k, columns),
            (true, false) => match b.t().pairs().filter(|_| k.is_multiple_of(2)) {
                Some(pairs) => pack_columns(panel, pairs.t(), k / 2, width, columns),
                None => pack_columns_of_pairs(panel, b, k, width, columns),
            },
        }
        rest = after;
        first += width;
    }
}

/// For a B with contiguous rows.
fn pack_rows<T: Element>(panel: &mut [f32], b: Matrix<'_, T>, width: usize, columns: usize) {
    copy_rows(panel, width, &b.data[b.start.min(b.data.len())..], b.row, columns);
}

/// `WIDTH` is `columns` if that is a common number, else 0. A copy of known length is a few moves,
/// not a call.
#[inline(always)]
fn copy<const WIDTH: usize, T: Element>(
    to: &mut [f32],
    to_row: usize,
    from: &[T],
    from_row: usize,
    columns: usize,
) {
    let columns = if WIDTH > 0 { WIDTH } else { columns };
    for (r, to) in to.chunks_exact_mut(to_row).enumerate() {
        T::widen(&mut to[..columns], &from[r * from_row..][..columns]);
    }
}

multiversion! {
    /// Rounds values to bf16.
    pub(crate) fn round_to_bf16(values: &mut [f32]) {
        for value in values {
            *value = Bf16::round(*value).wide();
        }
    }

    /// Copies the first `columns` values of each row of `from` to the rows of `to`. The rows have
    /// `from_row` and `to_row` values.
    pub(crate) fn copy_rows<T: Element>(
        to: &mut [f32],
        to_row: usize,
        from: &[T],
        from_row: usize,
        columns: usize,
    ) {
        match columns {
            0 => {}
            8 => copy::<8, T>(to, to_row, from, from_row, columns),
            16 => copy::<16, T>(to, to_row, from, from_row, columns),
            24 => copy::<24, T>(to, to_row, from, from_row, columns),
            32 => copy::<32, T>(to, to_row, from, from_row, columns),
            64 => copy::<64, T>(to, to_row, from, from_row, columns),
            _ => copy::<0, T>(to, to_row, from, from_row, columns),
        }
    }
}

/// Packs A [m, k], whose columns are contiguous, into panels as high as a tile: then a tile reads
/// it sequentially, too. Each panel has k columns of its height, the last panel with fewer rows.
/// If the shape has pairs, they are pairs of columns, as in [`pack`].
pub(super) fn pack_tiles<'a, T: Element>(
    shape: Shape,
    packed: &'a mut [f32],
    a: Matrix<'_, T>,
    [m, k]: [usize; 2],
) -> Matrix<'a> {
    assert!(a.row == 1 && a.holds(m, k), "columns of A must be contiguous, within its data");
    let data = &a.data[a.start.min(a.data.len())..];
    match (shape.pairs, shape.rows) {
        (true, rows) => pairs_of_columns(packed, a, rows, m, k),
        (false, 4) => columns_by_4(packed, data, a.column, m, k),
        (false, 6) => columns_by_6(packed, data, a.column, m, k),
        _ => columns_by_12(packed, data, a.column, m, k),
    }
    Matrix { data: packed, start: 0, row: 1, column: shape.rows, tile: shape.depth(k) }
}

/// Copies `columns` values of each of `rows` rows of A to rows that are `row` values apart: pairs
/// if the shape has them.
pub(crate) fn copy_a<'a, T: Element>(
    shape: Shape,
    to: &'a mut [f32],
    row: usize,
    a: Matrix<'_, T>,
    [rows, columns]: [usize; 2],
) -> Matrix<'a> {
    assert!(a.column == 1 && a.holds(rows, columns), "rows must be contiguous, within A's data");
    if shape.pairs {
        copy_pairs(to, row, a, rows, columns);
    } else {
        let to = &mut to[..rows * row];
        copy_rows(to, row, &a.data[a.start.min(a.data.len())..], a.row, columns);
    }
    Matrix::new(to, 0, row)
}

multiversion! {
    fn columns_by_4<T: Element>(packed: &mut [f32], from: &[T], column: usize, m: usize, k: usize) {
        pack_columns_of_a::<4, T>(packed, from, column, m, k);
    }

    fn columns_by_6<T: Element>(packed: &mut [f32], from: &[T], column: usize, m: usize, k: usize) {
        pack_columns_of_a::<6, T>(packed, from, column, m, k);
    }

    fn columns_by_12<T: Element>(
        packed: &mut [f32], from: &[T], column: usize, m: usize, k: usize,
    ) {
        pack_columns_of_a::<12, T>(packed, from, column, m, k);
    }
}

#[inline(always)]
fn pack_columns_of_a<const ROWS: usize, T: Element>(
    packed: &mut [f32],
    from: &[T],
    column: usize,
    m: usize,
    k: usize,
) {
    // Some columns at a time, so that their lines stay in L1 for all tiles.
    const COLUMNS: usize = 16;
    for first in (0..k).step_by(COLUMNS) {
        let count = COLUMNS.min(k - first);
        for row in (0..m).step_by(ROWS) {
            let to = &mut packed[row * k + first * ROWS..];
            let columns = to.chunks_exact_mut(ROWS).take(count).enumerate();
            let from = |c: usize| &from[(first + c) * column + row..];
            // A copy of known length is a few moves.
            if m - row >= ROWS {
                for (c, to) in columns {
                    T::widen(&mut to[..ROWS], &from(c)[..ROWS]);
                }
            } else {
                columns.for_each(|(c, to)| T::widen(&mut to[..m - row], &from(c)[..m - row]));
            }
        }
    }
}

/// Where squares of eight start that cover `count` values. The last one may overlap the one before.
fn squares(count: usize) -> impl Iterator<Item = usize> {
    (0..count).step_by(8).map(move |start| start.min(count - 8))
}

/// For a transposed B, whose columns are contiguous. It is packed in squares of eight, unless it is
/// narrower than one.
fn pack_columns<T: Element>(
    panel: &mut [f32],
    b: Matrix<'_, T>,
    k_count: usize,
    width: usize,
    columns: usize,
) {
    assert_eq!(b.row, 1, "one of B's strides must be one");
    #[cfg(target_arch = "x86_64")]
    if has_avx2() && k_count >= 8 && columns >= 8 {
        for (k, column) in squares(k_count).flat_map(|k| squares(columns).map(move |c| (k, c))) {
            let from = &b.data[b.start + column * b.column + k..][..7 * b.column + 8];
            let to = &mut panel[k * width + column..][..7 * width + 8];
            // SAFETY: AVX2 is there, by the line above; both slices hold eight rows of eight.
            unsafe { transpose_square(from.as_ptr(), b.column, to.as_mut_ptr(), width) };
        }
        return;
    }
    // Sixteen values of a column at a time, so that the panel's lines stay in cache for all
    // columns.
    for first in (0..k_count).step_by(16) {
        let count = (k_count - first).min(16);
        for column in 0..columns {
            let from = b.start + column * b.column + first;
            for (k, value) in b.data[from..from + count].iter().enumerate() {
                panel[(first + k) * width + column] = value.wide();
            }
        }
    }
}

/// For a transposed B, whose columns are contiguous: eight of them are rounded, then transposed.
fn pack_columns_of_pairs<T: Element>(
    panel: &mut [f32],
    b: Matrix<'_, T>,
    k: usize,
    width: usize,
    columns: usize,
) {
    const PAIRS: usize = 256;
    let mut rounded = [0.0f32; 8 * PAIRS];
    for first in (0..k).step_by(2 * PAIRS) {
        let count = (k - first).min(2 * PAIRS);
        let pairs = count.div_ceil(2);
        for column in (0..columns).step_by(8) {
            let some = (columns - column).min(8);
            for (c, to) in rounded.chunks_exact_mut(PAIRS).take(some).enumerate() {
                let from = &b.data[b.start + (column + c) * b.column + first..][..count];
                let to = &mut bytemuck::cast_slice_mut::<f32, Bf16>(to)[..2 * pairs];
                to[2 * pairs - 1] = Bf16::round(0.0);
                convert(&mut to[..count], from);
            }
            let to = &mut panel[first / 2 * width + column..];
            pack_columns(to, Matrix::new(&rounded, 0, PAIRS).t(), pairs, width, some);
        }
    }
}

/// [`copy_a`] for pairs. An odd last column has a zero beside it.
fn copy_pairs<T: Element>(
    to: &mut [f32],
    row: usize,
    a: Matrix<'_, T>,
    rows: usize,
    columns: usize,
) {
    let pairs = columns.div_ceil(2);
    for (r, to) in to.chunks_exact_mut(row).take(rows).enumerate() {
        let to = &mut bytemuck::cast_slice_mut::<f32, Bf16>(to)[..2 * pairs];
        to[2 * pairs - usize::from(pairs > 0)..].fill(Bf16::round(0.0));
        convert(&mut to[..columns], &a.data[a.start + r * a.row..][..columns]);
    }
}

/// [`pack_tiles`] for pairs and tiles of `rows` rows.
fn pairs_of_columns<T: Element>(
    packed: &mut [f32],
    a: Matrix<'_, T>,
    rows: usize,
    m: usize,
    k: usize,
) {
    let pairs = k.div_ceil(2);
    // Some columns at a time, so that their lines stay in L1 for all tiles.
    const PAIRS: usize = 8;
    for first in (0..pairs).step_by(PAIRS) {
        let columns = (2 * PAIRS).min(k - 2 * first);
        for row in (0..m).step_by(rows) {
            let to = &mut packed[row * pairs + first * rows..];
            interleave_rows(to, rows, a.at(row, 2 * first).t(), columns, rows.min(m - row));
        }
    }
}

/// Pairs the first `count` rows of `from`: value c of row p of `to` is (from[2p, c], from[2p + 1,
/// c]), rounded to bf16. An odd last row has zeros beside it. Rows of `to` have `to_row` pairs, of
/// which `columns` are written.
fn interleave_rows<T: Element>(
    to: &mut [f32],
    to_row: usize,
    from: Matrix<'_, T>,
    count: usize,
    columns: usize,
) {
    let to: &mut [[Bf16; 2]] = bytemuck::cast_slice_mut(to);
    let data = &from.data[from.start.min(from.data.len())..];
    interleave(to, to_row, data, from.row, [count, columns]);
}

/// `WIDTH` is `columns` if that is a common number, else 0.
#[inline(always)]
fn pairs_of_rows<const WIDTH: usize, T: Element>(
    to: &mut [[Bf16; 2]],
    to_row: usize,
    from: &[T],
    from_row: usize,
    [count, columns]: [usize; 2],
) {
    let columns = if WIDTH > 0 { WIDTH } else { columns };
    let mut rows = to.chunks_exact_mut(to_row);
    for (pair, to) in rows.by_ref().take(count / 2).enumerate() {
        let from = &from[2 * pair * from_row..][..from_row + columns];
        let (x, y) = (&from[..columns], &from[from_row..][..columns]);
        for (i, to) in to[..columns].iter_mut().enumerate() {
            *to = [x[i].narrow(), y[i].narrow()];
        }
    }
    if count % 2 > 0
        && let Some(to) = rows.next()
    {
        let x = &from[(count - 1) * from_row..][..columns];
        for (to, x) in to.iter_mut().zip(x) {
            *to = [x.narrow(), Bf16::round(0.0)];
        }
    }
}

multiversion! {
    /// [`interleave_rows`] for rows of `from` that are `from_row` values apart.
    fn interleave<T: Element>(
        to: &mut [[Bf16; 2]],
        to_row: usize,
        from: &[T],
        from_row: usize,
        size: [usize; 2],
    ) {
        match size[1] {
            8 => pairs_of_rows::<8, T>(to, to_row, from, from_row, size),
            12 => pairs_of_rows::<12, T>(to, to_row, from, from_row, size),
            16 => pairs_of_rows::<16, T>(to, to_row, from, from_row, size),
            32 => pairs_of_rows::<32, T>(to, to_row, from, from_row, size),
            _ => pairs_of_rows::<0, T>(to, to_row, from, from_row, size),
        }
    }

    fn convert<T: Element>(to: &mut [Bf16], from: &[T]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to = from.narrow();
        }
    }
}

/// Writes eight rows of eight as columns.
///
/// # Safety
/// The CPU has AVX2. Eight values in each of eight rows are valid: rows to read are `row` apart,
/// rows to write `to_row` apart.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn transpose_square<T: Element>(from: *const T, row: usize, to: *mut f32, to_row: usize) {
    use crate::dtype::Dtype;
    use std::arch::x86_64::{
        _mm_loadu_si128, _mm256_castsi256_ps, _mm256_cvtepu16_epi32, _mm256_loadu_ps,
        _mm256_permute2f128_ps, _mm256_shuffle_ps, _mm256_slli_epi32, _mm256_storeu_ps,
        _mm256_unpackhi_ps, _mm256_unpacklo_ps,
    };
    // SAFETY: rows 0 to 7 are valid by the caller's promise, and T is the type it says.
    let r: [_; 8] = std::array::from_fn(|i| unsafe {
        let from = from.add(i * row);
        match T::DTYPE {
            Dtype::F32 => _mm256_loadu_ps(from.cast()),
            Dtype::Bf16 => {
                let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low))
            }
        }
    });
    // First pairs of rows, then groups of four, each within halves of a register. Then the halves.
    let mut fours = [r[0]; 8];
    for i in 0..2 {
        let [a, b, c, d] = [r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]];
        let low = [_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d)];
        let high = [_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d)];
        fours[4 * i] = _mm256_shuffle_ps::<0b01_00_01_00>(low[0], low[1]);
        fours[4 * i + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(low[0], low[1]);
        fours[4 * i + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(high[0], high[1]);
        fours[4 * i + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(high[0], high[1]);
    }
    for i in 0..4 {
        let first = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
        let second = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
        // SAFETY: rows i and i + 4 are valid by the caller's promise.
        unsafe {
            _mm256_storeu_ps(to.add(i * to_row), first);
            _mm256_storeu_ps(to.add((i + 4) * to_row), second);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::pack_columns_of_a;

    /// The heights of all instruction sets, and numbers of rows and columns with rests.
    #[test]
    fn packed_tiles_hold_each_value_once_at_its_place() {
        fn check<const ROWS: usize>(m: usize, k: usize) {
            let column = m + 3;
            let from: Vec<f32> = (0..k * column).map(|i| i as f32).collect();
            let mut packed = vec![-1.0; m.next_multiple_of(ROWS) * k];
            pack_columns_of_a::<ROWS, f32>(&mut packed, &from, column, m, k);
            for (row, c) in (0..m).flat_map(|row| (0..k).map(move |c| (row, c))) {
                let tile = row / ROWS * ROWS;
                let got = packed[tile * k + c * ROWS + row - tile];
                assert_eq!(got, from[c * column + row], "row {row}, column {c} of {m} x {k}");
            }
        }
        for (m, k) in [(1, 1), (12, 16), (13, 17), (96, 40), (95, 33), (5, 3)] {
            check::<4>(m, k);
            check::<6>(m, k);
            check::<12>(m, k);
        }
    }
}
