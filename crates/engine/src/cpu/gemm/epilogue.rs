//! The work after a product, done for each tile of C while it is in L1: one pass over its sums.

use super::{Owned, Span, Target, array, by_width, prefetch};
use crate::cpu::dispatch::multiversion;
use crate::cpu::math;
use crate::device::Epilogue;
use crate::dtype::{Bf16, Dtype, Element};

/// Where the values of a tile go.
pub(super) enum Place<C> {
    /// They stay where their sums are.
    Here,
    /// They overwrite these.
    Over(Owned<C>),
    /// They are added to these.
    Onto(Owned<C>),
}

impl<C: Element> Place<C> {
    /// Stores the first values of row r.
    #[inline(always)]
    fn put<const WIDTH: usize>(&mut self, sums: &mut Owned, r: usize, mut values: [f32; WIDTH]) {
        match self {
            Self::Here => sums.set(r, values),
            Self::Over(c) => c.set(r, values),
            Self::Onto(c) => {
                let old = c.array::<WIDTH>(r);
                for i in 0..WIDTH {
                    values[i] += old[i];
                }
                c.set(r, values);
            }
        }
    }

    /// Stores value i of row r.
    #[inline(always)]
    fn put_one(&mut self, sums: &mut Owned, r: usize, i: usize, value: f32) {
        match self {
            Self::Here => sums.row(r)[i] = value,
            Self::Over(c) => c.row(r)[i] = C::round(value),
            Self::Onto(c) => c.row(r)[i] = C::round(c.row(r)[i].wide() + value),
        }
    }
}

/// Work on the sums of a product whose C has values of type `C`.
pub(super) trait TileWork<C>: Sync {
    /// Called before the tile of C at `span` is computed, to prefetch what it reads.
    fn before(&self, _span: Span) {}
    /// Finishes the tile and stores it. It is called once per tile.
    fn finish(&self, sums: &mut Owned, place: Place<C>, span: Span);
}

/// No work.
pub(super) struct Plain;

impl<C: Element> TileWork<C> for Plain {
    fn finish(&self, sums: &mut Owned, place: Place<C>, _: Span) {
        if !matches!(place, Place::Here) {
            store(sums, place);
        }
    }
}

/// An epilogue, with its bias, that tasks can share.
pub(super) struct Finish<'a, T> {
    bias: Option<&'a [f32]>,
    epilogue: Epilogue<&'a [T], Target<T>>,
    width: usize,
}

impl<'a, T: Element> Finish<'a, T> {
    /// For a C with `rows` rows of `width` values.
    pub(super) fn new(
        bias: Option<&'a [f32]>,
        epilogue: Epilogue<&'a [T], &'a mut [T]>,
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

impl<T: Element> TileWork<T> for Finish<'_, T> {
    fn before(&self, span: Span) {
        match self.epilogue {
            Epilogue::Gelu(Some(pre)) => pre.prefetch(span),
            Epilogue::Residual(residual) => prefetch(residual.as_ptr(), self.width, span),
            _ => {}
        }
    }

    fn finish(&self, sums: &mut Owned, place: Place<T>, span: Span) {
        let bias = self.bias.map(|bias| &bias[span.column..][..span.columns]);
        match self.epilogue {
            Epilogue::None => add_rows(sums, place, bias, (&[], 0)),
            Epilogue::Residual(residual) => {
                let rows = &residual[span.row * self.width + span.column..];
                add_rows(sums, place, bias, (rows, self.width));
            }
            Epilogue::Gelu(pre) => {
                // SAFETY: `pre` is split like C, and the caller owns this tile of C.
                let pre = pre.map(|pre| unsafe {
                    pre.at(span.row, span.column).own(span.rows, span.columns)
                });
                gelu(sums, place, bias, pre);
            }
        }
    }
}

/// C becomes C GELU'(s), and GELU(s) is stored in `h`.
pub(super) struct GeluSlope<'a, T> {
    h: Target<T>,
    s: &'a [T],
    width: usize,
}

impl<'a, T: Element> GeluSlope<'a, T> {
    /// For a C with `rows` rows of `width` values.
    pub(super) fn new(h: &mut [T], s: &'a [T], rows: usize, width: usize) -> Self {
        assert_eq!([h.len(), s.len()], [rows * width; 2], "GELU's input and output");
        Self { h: Target::new(h, width), s, width }
    }
}

impl<T: Element> TileWork<T> for GeluSlope<'_, T> {
    fn before(&self, span: Span) {
        self.h.prefetch(span);
        prefetch(self.s.as_ptr(), self.width, span);
    }

    fn finish(&self, sums: &mut Owned, place: Place<T>, span: Span) {
        // SAFETY: `h` is split like C, and the caller owns this tile of C.
        let h = unsafe { self.h.at(span.row, span.column).own(span.rows, span.columns) };
        gelu_slope(sums, place, h, (&self.s[span.row * self.width + span.column..], self.width));
    }
}

#[inline(always)]
fn store_rows<const WIDTH: usize, C: Element>(sums: &mut Owned, mut place: Place<C>) {
    for r in 0..sums.rows() {
        let values = sums.array::<WIDTH>(r);
        place.put(sums, r, values);
        for i in WIDTH..sums.columns() {
            let value = sums.row(r)[i];
            place.put_one(sums, r, i, value);
        }
    }
}

/// Adds the bias and rows of `x`, which are `stride` apart, unless there are none.
#[inline(always)]
fn sum_rows<const WIDTH: usize, T: Element>(
    sums: &mut Owned,
    mut place: Place<T>,
    bias: Option<&[f32]>,
    (x, stride): (&[T], usize),
) {
    let first = bias.map(array::<WIDTH>);
    for r in 0..sums.rows() {
        let mut values = sums.array::<WIDTH>(r);
        if let Some(bias) = first {
            for i in 0..WIDTH {
                values[i] += bias[i];
            }
        }
        if stride > 0 {
            let x = array::<WIDTH>(&x[r * stride..]);
            for i in 0..WIDTH {
                values[i] += x[i];
            }
        }
        place.put(sums, r, values);
        for i in WIDTH..sums.columns() {
            let mut value = sums.row(r)[i];
            if let Some(bias) = bias {
                value += bias[i];
            }
            if stride > 0 {
                value += x[r * stride + i].wide();
            }
            place.put_one(sums, r, i, value);
        }
    }
}

/// What the backward pass knows of GELU's input: a value of type T.
#[inline(always)]
fn known<T: Element>(value: f32) -> f32 {
    match T::DTYPE {
        Dtype::F32 => value,
        Dtype::Bf16 => Bf16::round(value).wide(),
    }
}

#[inline(always)]
fn gelu_rows<const WIDTH: usize, T: Element>(
    sums: &mut Owned,
    mut place: Place<T>,
    bias: Option<&[f32]>,
    mut pre: Option<Owned<T>>,
    fused: bool,
) {
    let first = bias.map(array::<WIDTH>);
    for r in 0..sums.rows() {
        let mut values = sums.array::<WIDTH>(r);
        if let Some(bias) = first {
            for i in 0..WIDTH {
                values[i] += bias[i];
            }
        }
        if let Some(pre) = &mut pre {
            pre.set(r, values);
        }
        for value in &mut values {
            *value = math::gelu(known::<T>(*value), fused);
        }
        place.put(sums, r, values);
        for i in WIDTH..sums.columns() {
            let mut value = sums.row(r)[i];
            if let Some(bias) = bias {
                value += bias[i];
            }
            if let Some(pre) = &mut pre {
                pre.row(r)[i] = T::round(value);
            }
            place.put_one(sums, r, i, math::gelu(known::<T>(value), fused));
        }
    }
}

/// y = y GELU'(s), h = GELU(s). Rows of s are `stride` apart.
#[inline(always)]
fn slope_rows<const WIDTH: usize, T: Element>(
    sums: &mut Owned,
    mut place: Place<T>,
    mut h: Owned<T>,
    (s, stride): (&[T], usize),
    fused: bool,
) {
    for r in 0..sums.rows() {
        let s = &s[r * stride..][..sums.columns()];
        let (mut slopes, mut curved) = (sums.array::<WIDTH>(r), array::<WIDTH>(s));
        for i in 0..WIDTH {
            let (value, slope) = math::gelu_and_grad(curved[i], fused);
            curved[i] = value;
            slopes[i] *= slope;
        }
        h.set(r, curved);
        place.put(sums, r, slopes);
        for (i, s) in s.iter().enumerate().skip(WIDTH) {
            let (value, slope) = math::gelu_and_grad(s.wide(), fused);
            h.row(r)[i] = T::round(value);
            let value = sums.row(r)[i] * slope;
            place.put_one(sums, r, i, value);
        }
    }
}

multiversion! {
    fn store<C: Element>(sums: &mut Owned, place: Place<C>) {
        by_width!(sums.columns(), store_rows<C>(sums, place));
    }

    fn add_rows<T: Element>(
        sums: &mut Owned, place: Place<T>, bias: Option<&[f32]>, x: (&[T], usize),
    ) {
        by_width!(sums.columns(), sum_rows<T>(sums, place, bias, x));
    }

    fn gelu<T: Element>(
        sums: &mut Owned, place: Place<T>, bias: Option<&[f32]>, pre: Option<Owned<T>>,
    ) {
        by_width!(sums.columns(), gelu_rows<T>(sums, place, bias, pre, FUSED));
    }

    fn gelu_slope<T: Element>(
        sums: &mut Owned, place: Place<T>, h: Owned<T>, s: (&[T], usize),
    ) {
        by_width!(sums.columns(), slope_rows<T>(sums, place, h, s, FUSED));
    }
}
