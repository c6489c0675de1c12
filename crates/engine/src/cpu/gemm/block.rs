//! One thread's part of a product: tiles over a block of C.

use super::tile::{Shape, Tile};
use crate::dtype::{Dtype, Element};

/// A matrix read by strides. Element (i, j) is at `start + i * row + j * column`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T = f32> {
    pub(super) data: &'a [T],
    pub(super) start: usize,
    pub(super) row: usize,
    pub(super) column: usize,
    /// Row i of a product's A begins at `i * tile` if i is the first row of a tile. It is `row`,
    /// unless A is packed.
    pub(super) tile: usize,
}

impl<'a, T: Element> Matrix<'a, T> {
    /// Row-major, starting at `start`, with `row` values from one row to the next.
    pub(crate) fn new(data: &'a [T], start: usize, row: usize) -> Self {
        Self { data, start, row, column: 1, tile: row }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self { row: self.column, column: self.row, tile: self.column, ..self }
    }

    /// The part that starts at (i, j).
    pub(crate) fn at(self, i: usize, j: usize) -> Self {
        Self { start: self.start + i * self.row + j * self.column, ..self }
    }

    /// The part that begins at row i, the first of a tile.
    pub(super) fn at_tile(self, i: usize) -> Self {
        Self { start: self.start + i * self.tile, ..self }
    }

    /// This matrix, if its values are f32.
    pub(super) fn floats(self) -> Option<Matrix<'a>> {
        let Self { data, start, row, column, tile } = self;
        (T::DTYPE == Dtype::F32).then(|| Matrix {
            data: bytemuck::cast_slice(data),
            start,
            row,
            column,
            tile,
        })
    }

    /// A matrix of bf16 whose rows are contiguous as one of pairs, each moved as an f32. None if a
    /// pair would not start at a multiple of four bytes.
    pub(super) fn pairs(self) -> Option<Matrix<'a>> {
        let Self { data, start, row, column, tile } = self;
        let even = T::DTYPE == Dtype::Bf16
            && column == 1
            && [start, row, tile].iter().all(|place| place.is_multiple_of(2));
        let data = bytemuck::try_cast_slice(&data[..data.len() / 2 * 2]).ok()?;
        even.then_some(Matrix { data, start: start / 2, row: row / 2, column: 1, tile: tile / 2 })
    }

    /// Whether element (rows - 1, columns - 1) is within the data.
    pub(super) fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || self.start + (rows - 1) * self.row + (columns - 1) * self.column < self.data.len()
    }
}

/// The block of C that a thread writes: a pointer to its start, with `row` values from one row to
/// the next.
#[derive(Clone, Copy)]
pub(crate) struct Target<T = f32> {
    c: *mut T,
    row: usize,
    len: usize,
}

impl<T: Element> Target<T> {
    /// C in `data`, with `row` values from one row to the next.
    pub(crate) fn new(data: &mut [T], row: usize) -> Self {
        Self { c: data.as_mut_ptr(), row, len: data.len() }
    }

    /// The part that starts at (i, j).
    ///
    /// # Safety
    /// Parts used at the same time by different threads must not overlap.
    pub(crate) unsafe fn at(self, i: usize, j: usize) -> Self {
        // A block without rows may start after the end, such as a head of an empty last sample.
        // Every use checks that its rows fit into what is left.
        let start = (i * self.row + j).min(self.len);
        // SAFETY: start is within the allocation, or its end, by the line above.
        Self { c: unsafe { self.c.add(start) }, row: self.row, len: self.len - start }
    }

    /// The first rows and columns of this part, to read and write.
    ///
    /// # Safety
    /// No other code may use these values while the result lives.
    pub(crate) unsafe fn own(self, rows: usize, columns: usize) -> Owned<T> {
        Owned { target: self, rows, columns }
    }

    /// This part, if its values are f32. Then a product can write them in place.
    pub(crate) fn floats(self) -> Option<Target> {
        let Self { c, row, len } = self;
        (T::DTYPE == Dtype::F32).then(|| Target { c: c.cast(), row, len })
    }

    /// Prefetches the lines of a tile.
    pub(super) fn prefetch(self, span: Span) {
        prefetch(self.c, self.row, span);
    }

    /// `count` values of row i, to write.
    ///
    /// # Safety
    /// No other code may use these values meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn row_mut<'a>(self, i: usize, count: usize) -> &'a mut [T] {
        assert!(i * self.row + count <= self.len, "a row outside C");
        // SAFETY: within the allocation by the line above; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.c.add(i * self.row), count) }
    }
}

/// Rows of a [`Target`] with one exclusive user.
pub(crate) struct Owned<T = f32> {
    target: Target<T>,
    rows: usize,
    columns: usize,
}

impl<T: Element> Owned<T> {
    /// Number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The first values of row i, in f32. They are returned by value, so that the compiler can rule
    /// out overlaps.
    #[inline(always)]
    pub(crate) fn array<const WIDTH: usize>(&mut self, i: usize) -> [f32; WIDTH] {
        array(self.row(i))
    }

    /// Overwrites the first values of row i, rounded.
    #[inline(always)]
    pub(crate) fn set<const WIDTH: usize>(&mut self, i: usize, values: [f32; WIDTH]) {
        for (to, value) in self.row(i)[..WIDTH].iter_mut().zip(values) {
            *to = T::round(value);
        }
    }

    /// Row i.
    #[inline(always)]
    pub(crate) fn row(&mut self, i: usize) -> &mut [T] {
        // SAFETY: `Target::own`'s caller promised these rows, and &mut self lends one at a time.
        unsafe { self.target.row_mut(i, self.columns) }
    }
}

/// The first values of a slice, in f32.
#[inline(always)]
pub(crate) fn array<const WIDTH: usize>(values: &[impl Element]) -> [f32; WIDTH] {
    let mut array = [0.0; WIDTH];
    Element::widen(&mut array, &values[..WIDTH]);
    array
}

/// Calls `f::<WIDTH>(args)` with the number of columns if it is the width of a panel, else with 0.
/// Loops of known length become whole registers.
macro_rules! by_width {
    ($columns:expr, $f:ident $(<$($T:ident),+>)?($($arg:expr),*)) => {
        match $columns {
            32 => $f::<32 $($(, $T)+)?>($($arg),*),
            16 => $f::<16 $($(, $T)+)?>($($arg),*),
            8 => $f::<8 $($(, $T)+)?>($($arg),*),
            _ => $f::<0 $($(, $T)+)?>($($arg),*),
        }
    };
}
pub(crate) use by_width;

// SAFETY: a Target is an address; the callers of `at` promise disjoint parts.
unsafe impl<T> Send for Target<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Target<T> {}

/// Part of C: its first row and column, and the numbers of rows and columns.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) row: usize,
    pub(crate) column: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// Work done for each tile of a product.
pub(crate) trait TileHook {
    /// Called before the tile is computed, to prefetch what [`TileHook::after`] reads.
    fn before(&self, _span: Span) {}
    /// Called once the tile is written.
    fn after(&self, tile: &mut Owned, span: Span);
}

impl<F: Fn(&mut Owned, Span)> TileHook for F {
    fn after(&self, tile: &mut Owned, span: Span) {
        self(tile, span);
    }
}

/// No work for any tile.
pub(crate) struct NoHook;

impl TileHook for NoHook {
    fn after(&self, _: &mut Owned, _: Span) {}
}

/// Prefetches the lines of a tile of `data`, which has `row` values from one row to the next.
/// Otherwise the work after the sums would wait for them.
#[inline(always)]
pub(crate) fn prefetch<T>(data: *const T, row: usize, span: Span) {
    let first = data.wrapping_add(span.row * row + span.column);
    #[cfg(target_arch = "x86_64")]
    for r in 0..span.rows {
        for line in (0..span.columns).step_by(64 / size_of::<T>()) {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            // SAFETY: a prefetch is a hint, and any address is allowed.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(first.wrapping_add(r * row + line).cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (first, span.rows);
}

/// C[m, n] (+)= A[m, k] B[k, n], with B packed by [`pack`](super::pack), and A in pairs where the
/// shape has them. `hook` is called before each tile is computed, and again once the tile is
/// written and still in L1.
///
/// # Safety
/// No other thread may use these m x n values of C meanwhile. The shape is this CPU's.
pub(crate) unsafe fn multiply(
    shape: Shape,
    [m, n, k]: [usize; 3],
    a: Matrix<'_>,
    packed: &[f32],
    c: Target,
    add: bool,
    hook: &impl TileHook,
) {
    let k = shape.depth(k);
    let last = m.saturating_sub(1) / shape.rows * shape.rows;
    assert!(a.at_tile(last).holds(m - last, k), "A outside its data");
    assert!(packed.len() >= k * shape.padded(n), "B is not packed for this product");
    assert!(m == 0 || n == 0 || (m - 1) * c.row + n <= c.len, "C outside its data");
    let mut start = 0;
    let mut column = 0;
    while column < n {
        let width = shape.panel(n - column);
        for row in (0..m).step_by(shape.rows) {
            let span = Span {
                row,
                column,
                rows: (m - row).min(shape.rows),
                columns: (n - column).min(width),
            };
            let tile = Tile {
                k,
                // With k = 0 this may be outside A, and nothing is read.
                a: a.data.as_ptr().wrapping_add(a.at_tile(row).start),
                a_row: a.row,
                a_column: a.column,
                // SAFETY: the panels before this one are packed[..start].
                b: unsafe { packed.as_ptr().add(start) },
                // SAFETY: row < m and column < n; C holds [m, n] by the assertion above.
                c: unsafe { c.c.add(row * c.row + column) },
                c_row: c.row,
                add,
            };
            hook.before(span);
            // SAFETY: A, the panels and C hold [m, k], [k, n] and [m, n] by the assertions above;
            // C is exclusive by the caller's promise; the shape is this CPU's.
            unsafe { shape.run(tile, span.rows, span.columns, width) };
            // SAFETY: exclusive by the caller's promise.
            let mut part = unsafe { c.at(row, column).own(span.rows, span.columns) };
            hook.after(&mut part, span);
        }
        start += k * width;
        column += width;
    }
}
