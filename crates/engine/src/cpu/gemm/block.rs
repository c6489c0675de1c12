//! One thread's part of a product: packing B, and running tiles over a block of C.

use super::tile::{Shape, Tile};

/// A matrix read by strides: element (i, j) lies at `start + i * row + j * column`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: &'a [f32],
    start: usize,
    row: usize,
    column: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major, `row` values from one row to the next, beginning at `start`.
    pub(crate) fn new(data: &'a [f32], start: usize, row: usize) -> Self {
        Self { data, start, row, column: 1 }
    }

    /// The transpose.
    pub(crate) fn t(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }

    /// The part that begins at (i, j).
    pub(crate) fn at(self, i: usize, j: usize) -> Self {
        Self { start: self.start + i * self.row + j * self.column, ..self }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || self.start + (rows - 1) * self.row + (columns - 1) * self.column < self.data.len()
    }
}

/// The block of C that a thread writes: rows of `row` values, beginning at a pointer.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    c: *mut f32,
    row: usize,
    len: usize,
}

impl Target {
    /// C in `data`, `row` values from one row to the next.
    pub(crate) fn new(data: &mut [f32], row: usize) -> Self {
        Self { c: data.as_mut_ptr(), row, len: data.len() }
    }

    /// The part that begins at (i, j).
    ///
    /// # Safety
    /// Parts used at the same time by different threads must not overlap.
    pub(crate) unsafe fn at(self, i: usize, j: usize) -> Self {
        // A block without rows may begin past the end, such as a head of an empty last sample;
        // every use checks that its rows fit what is left.
        let start = (i * self.row + j).min(self.len);
        // SAFETY: start is within the allocation, or its end, by the line above.
        Self { c: unsafe { self.c.add(start) }, row: self.row, len: self.len - start }
    }

    /// `count` values of row i, to write.
    ///
    /// # Safety
    /// Nobody else may use these values meanwhile.
    pub(crate) unsafe fn row_mut<'a>(self, i: usize, count: usize) -> &'a mut [f32] {
        assert!(i * self.row + count <= self.len, "a row outside C");
        // SAFETY: within the allocation by the line above; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.c.add(i * self.row), count) }
    }
}

// SAFETY: a Target is an address; `at` makes its users promise disjoint parts.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// Values that packing `k` rows of `n` columns of B takes.
pub(crate) fn packed_len(k: usize, n: usize) -> usize {
    k * Shape::here().padded(n)
}

/// Packs B [k, n] into panels: for each panel, k rows of its width, zero past column n.
pub(crate) fn pack(packed: &mut [f32], b: Matrix<'_>, k: usize, n: usize) {
    assert!(b.holds(k, n), "B outside its data");
    let shape = Shape::here();
    let mut rest = &mut packed[..k * shape.padded(n)];
    let mut first = 0;
    while first < n {
        let width = shape.panel(n - first);
        let (panel, after) = rest.split_at_mut(k * width);
        pack_panel(panel, b.at(0, first), width, (n - first).min(width));
        rest = after;
        first += width;
    }
}

fn pack_panel(panel: &mut [f32], b: Matrix<'_>, width: usize, columns: usize) {
    if columns < width {
        panel.fill(0.0);
    }
    if b.column == 1 {
        for (k, row) in panel.chunks_exact_mut(width).enumerate() {
            let from = b.start + k * b.row;
            row[..columns].copy_from_slice(&b.data[from..from + columns]);
        }
        return;
    }
    // B is a transpose: its columns are contiguous. Sixteen of a column at a time, so that the
    // panel's lines stay in cache while the columns pass.
    let k_count = panel.len() / width;
    for k0 in (0..k_count).step_by(16) {
        let ks = (k_count - k0).min(16);
        for column in 0..columns {
            let from = b.start + column * b.column + k0 * b.row;
            if b.row == 1 {
                for (k, value) in b.data[from..from + ks].iter().enumerate() {
                    panel[(k0 + k) * width + column] = *value;
                }
            } else {
                for k in 0..ks {
                    panel[(k0 + k) * width + column] = b.data[from + k * b.row];
                }
            }
        }
    }
}

/// C[m, n] (+)= A[m, k] B[k, n], B packed by [`pack`].
///
/// # Safety
/// No other thread may use these m x n values of C meanwhile.
pub(crate) unsafe fn multiply(
    [m, n, k]: [usize; 3],
    a: Matrix<'_>,
    packed: &[f32],
    c: Target,
    add: bool,
) {
    let shape = Shape::here();
    assert!(a.holds(m, k), "A outside its data");
    assert!(packed.len() >= k * shape.padded(n), "B is not packed for this product");
    assert!(m == 0 || n == 0 || (m - 1) * c.row + n <= c.len, "C outside its data");
    let mut start = 0;
    let mut column = 0;
    while column < n {
        let width = shape.panel(n - column);
        for row in (0..m).step_by(shape.rows) {
            let tile = Tile {
                k,
                // SAFETY (this and the next two): row < m and column < n, and A, the packed
                // panels and C hold [m, k], [k, n] and [m, n] by the assertions above.
                a: unsafe { a.data.as_ptr().add(a.start + row * a.row) },
                a_row: a.row,
                a_column: a.column,
                b: unsafe { packed.as_ptr().add(start) },
                c: unsafe { c.c.add(row * c.row + column) },
                c_row: c.row,
                add,
            };
            // SAFETY: as above; exclusive by the caller's promise.
            unsafe { shape.run(tile, (m - row).min(shape.rows), (n - column).min(width)) };
        }
        start += k * width;
        column += width;
    }
}
