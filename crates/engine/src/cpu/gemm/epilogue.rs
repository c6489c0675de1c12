//! What follows a product, done to each tile of C while it is in L1.

use super::{Around, Owned, Place, Target, array, by_width, prefetch};
use crate::cpu::dispatch::multiversion;
use crate::cpu::math;

/// What happens to x wᵀ before it is stored.
pub(crate) enum Epilogue<'a> {
    /// Nothing.
    None,
    /// + b
    Bias(&'a [f32]),
    /// GELU(s), s = x wᵀ + b; s goes to `pre` unless that is empty.
    Gelu { bias: Option<&'a [f32]>, pre: &'a mut [f32] },
    /// + b + residual
    Residual { bias: Option<&'a [f32]>, residual: &'a [f32] },
}

/// An epilogue that tasks can share.
pub(super) enum Finish<'a> {
    None,
    Bias(&'a [f32]),
    Gelu { bias: Option<&'a [f32]>, pre: Option<Target> },
    Residual { bias: Option<&'a [f32]>, residual: &'a [f32], width: usize },
}

impl<'a> Finish<'a> {
    /// For C of `rows` rows of `width` values.
    pub(super) fn new(epilogue: Epilogue<'a>, rows: usize, width: usize) -> Self {
        let right = |bias: Option<&[f32]>| bias.is_none_or(|bias| bias.len() == width);
        match epilogue {
            Epilogue::None => Self::None,
            Epilogue::Bias(bias) => {
                assert!(right(Some(bias)), "the bias of a product");
                Self::Bias(bias)
            }
            Epilogue::Gelu { bias, pre } => {
                assert!(right(bias), "the bias of a product");
                assert!(pre.is_empty() || pre.len() == rows * width, "GELU's saved input");
                let pre = (!pre.is_empty()).then(|| Target::new(pre, width));
                Self::Gelu { bias, pre }
            }
            Epilogue::Residual { bias, residual } => {
                assert!(right(bias), "the bias of a product");
                assert_eq!(residual.len(), rows * width, "the residual of a product");
                Self::Residual { bias, residual, width }
            }
        }
    }
}

impl<'a> Around for Finish<'a> {
    fn before(&self, place: Place) {
        match *self {
            Self::Gelu { pre: Some(pre), .. } => pre.prefetch(place),
            Self::Residual { residual, width, .. } => prefetch(residual.as_ptr(), width, place),
            _ => {}
        }
    }

    /// Finishes the tile of C that lies at `place`. Each tile comes once.
    fn after(&self, tile: &mut Owned, place: Place) {
        let columns = place.column..place.column + place.columns;
        let part = |bias: &'a [f32]| &bias[columns];
        match *self {
            Self::None => {}
            Self::Bias(bias) => add_bias(tile, Some(part(bias))),
            Self::Gelu { bias, pre } => {
                add_bias(tile, bias.map(part));
                if let Some(pre) = pre {
                    // SAFETY: `pre` is cut as C is, and the caller owns this tile of C.
                    let mut pre =
                        unsafe { pre.at(place.row, place.column).own(place.rows, place.columns) };
                    copy_to(&mut pre, tile);
                }
                gelu(tile);
            }
            Self::Residual { bias, residual, width } => {
                add_bias(tile, bias.map(part));
                add_residual(tile, &residual[place.row * width + place.column..], width);
            }
        }
    }
}

/// C becomes C GELU'(s), and GELU(s) is stored beside it.
pub(super) struct GeluSlope<'a> {
    h: Target,
    s: &'a [f32],
    width: usize,
}

impl<'a> GeluSlope<'a> {
    /// For C of `rows` rows of `width` values.
    pub(super) fn new(h: &mut [f32], s: &'a [f32], rows: usize, width: usize) -> Self {
        assert_eq!([h.len(), s.len()], [rows * width; 2], "GELU's input and output");
        Self { h: Target::new(h, width), s, width }
    }
}

impl Around for GeluSlope<'_> {
    fn before(&self, place: Place) {
        self.h.prefetch(place);
        prefetch(self.s.as_ptr(), self.width, place);
    }

    fn after(&self, tile: &mut Owned, place: Place) {
        // SAFETY: `h` is cut as C is, and the caller owns this tile of C.
        let mut h = unsafe { self.h.at(place.row, place.column).own(place.rows, place.columns) };
        gelu_slope(tile, &mut h, &self.s[place.row * self.width + place.column..], self.width);
    }
}

/// y += x, row by row; rows of x lie `stride` apart.
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

/// y = y GELU'(s), h = GELU(s); rows of s lie `stride` apart.
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

    fn add_bias(tile: &mut Owned, bias: Option<&[f32]>) {
        if let Some(bias) = bias {
            by_width!(tile.columns(), add(tile, bias, 0));
        }
    }

    fn add_residual(tile: &mut Owned, residual: &[f32], stride: usize) {
        by_width!(tile.columns(), add(tile, residual, stride));
    }

    fn copy_to(to: &mut Owned, from: &mut Owned) {
        by_width!(from.columns(), copy(to, from));
    }

    fn gelu(tile: &mut Owned) {
        by_width!(tile.columns(), gelu_rows(tile, FUSED));
    }
}
