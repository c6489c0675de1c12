//! The work after a product, done for each tile of C while it is in L1.

use super::{Owned, Span, Target, TileHook, array, by_width, prefetch};
use crate::cpu::dispatch::multiversion;
use crate::cpu::math;
use crate::device::Epilogue;

/// An epilogue, with its bias, that tasks can share.
pub(super) struct Finish<'a> {
    bias: Option<&'a [f32]>,
    epilogue: Epilogue<&'a [f32], Target>,
    width: usize,
}

impl<'a> Finish<'a> {
    /// For a C with `rows` rows of `width` values.
    pub(super) fn new(
        bias: Option<&'a [f32]>,
        epilogue: Epilogue<&'a [f32], &'a mut [f32]>,
        rows: usize,
        width: usize,
    ) -> Self {
        assert!(bias.is_none_or(|bias| bias.len() == width), "the bias of a product");
        let epilogue = match epilogue {
            Epilogue::None => Epilogue::None,
            Epilogue::Gelu(pre) => Epilogue::Gelu(pre.map(|pre| {
                assert_eq!(pre.len(), rows * width, "GELU's saved input");
                Target::new(pre, width)
            })),
            Epilogue::Residual(residual) => {
                assert_eq!(residual.len(), rows * width, "the residual of a product");
                Epilogue::Residual(residual)
            }
        };
        Self { bias, epilogue, width }
    }
}

impl TileHook for Finish<'_> {
    fn before(&self, span: Span) {
        match self.epilogue {
            Epilogue::Gelu(Some(pre)) => pre.prefetch(span),
            Epilogue::Residual(residual) => prefetch(residual.as_ptr(), self.width, span),
            _ => {}
        }
    }

    /// Finishes the tile of C at `span`. It is called once per tile.
    fn after(&self, tile: &mut Owned, span: Span) {
        let columns = span.column..span.column + span.columns;
        if let Some(bias) = self.bias {
            add_rows(tile, &bias[columns], 0);
        }
        match self.epilogue {
            Epilogue::None => {}
            Epilogue::Gelu(pre) => {
                if let Some(pre) = pre {
                    // SAFETY: `pre` is split like C, and the caller owns this tile of C.
                    let mut pre =
                        unsafe { pre.at(span.row, span.column).own(span.rows, span.columns) };
                    copy_to(&mut pre, tile);
                }
                gelu(tile);
            }
            Epilogue::Residual(residual) => {
                let rows = &residual[span.row * self.width + span.column..];
                add_rows(tile, rows, self.width);
            }
        }
    }
}

/// C becomes C GELU'(s), and GELU(s) is stored in `h`.
pub(super) struct GeluSlope<'a> {
    h: Target,
    s: &'a [f32],
    width: usize,
}

impl<'a> GeluSlope<'a> {
    /// For a C with `rows` rows of `width` values.
    pub(super) fn new(h: &mut [f32], s: &'a [f32], rows: usize, width: usize) -> Self {
        assert_eq!([h.len(), s.len()], [rows * width; 2], "GELU's input and output");
        Self { h: Target::new(h, width), s, width }
    }
}

impl TileHook for GeluSlope<'_> {
    fn before(&self, span: Span) {
        self.h.prefetch(span);
        prefetch(self.s.as_ptr(), self.width, span);
    }

    fn after(&self, tile: &mut Owned, span: Span) {
        // SAFETY: `h` is split like C, and the caller owns this tile of C.
        let mut h = unsafe { self.h.at(span.row, span.column).own(span.rows, span.columns) };
        gelu_slope(tile, &mut h, &self.s[span.row * self.width + span.column..], self.width);
    }
}

/// y += x, row by row. Rows of x are `stride` apart.
#[inline(always)]
fn add<const WIDTH: usize>(tile: &mut Owned, x: &[f32], stride: usize) {
    for r in 0..tile.rows() {
        let x = &x[r * stride..];
        let (mut y, x_row) = (tile.array::<WIDTH>(r), array::<WIDTH>(x));
        for i in 0..WIDTH {
            y[i] += x_row[i];
        }
        tile.set(r, y);
        for (y, x) in tile.row(r)[WIDTH..].iter_mut().zip(&x[WIDTH..]) {
            *y += x;
        }
    }
}

#[inline(always)]
fn copy<const WIDTH: usize>(to: &mut Owned, from: &mut Owned) {
    for r in 0..from.rows() {
        to.set(r, from.array::<WIDTH>(r));
        to.row(r)[WIDTH..].copy_from_slice(&from.row(r)[WIDTH..]);
    }
}

#[inline(always)]
fn gelu_rows<const WIDTH: usize>(tile: &mut Owned, fused: bool) {
    for r in 0..tile.rows() {
        let mut y = tile.array::<WIDTH>(r);
        for y in &mut y {
            *y = math::gelu(*y, fused);
        }
        tile.set(r, y);
        for y in &mut tile.row(r)[WIDTH..] {
            *y = math::gelu(*y, fused);
        }
    }
}

/// y = y GELU'(s), h = GELU(s). Rows of s are `stride` apart.
#[inline(always)]
fn slope_rows<const WIDTH: usize>(
    y: &mut Owned,
    h: &mut Owned,
    s: &[f32],
    stride: usize,
    fused: bool,
) {
    for r in 0..y.rows() {
        let s = &s[r * stride..][..y.columns()];
        let (mut slopes, mut curved) = (y.array::<WIDTH>(r), array::<WIDTH>(s));
        for i in 0..WIDTH {
            let (value, slope) = math::gelu_and_grad(curved[i], fused);
            curved[i] = value;
            slopes[i] *= slope;
        }
        y.set(r, slopes);
        h.set(r, curved);
        let rest = y.row(r)[WIDTH..].iter_mut().zip(&mut h.row(r)[WIDTH..]).zip(&s[WIDTH..]);
        for ((y, h), &s) in rest {
            let (value, slope) = math::gelu_and_grad(s, fused);
            *h = value;
            *y *= slope;
        }
    }
}

multiversion! {
    fn gelu_slope(y: &mut Owned, h: &mut Owned, s: &[f32], stride: usize) {
        by_width!(y.columns(), slope_rows(y, h, s, stride, FUSED));
    }

    /// Adds the rows of `x`, which are `stride` apart.
    fn add_rows(tile: &mut Owned, x: &[f32], stride: usize) {
        by_width!(tile.columns(), add(tile, x, stride));
    }

    fn copy_to(to: &mut Owned, from: &mut Owned) {
        by_width!(from.columns(), copy(to, from));
    }

    fn gelu(tile: &mut Owned) {
        by_width!(tile.columns(), gelu_rows(tile, FUSED));
    }
}
