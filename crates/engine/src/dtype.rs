//! The types of values that tensors store. Arithmetic is in f32 whatever the type.

use std::ops::Range;

/// How a tensor stores its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floating point: parameters, their gradients and moments, losses, statistics.
    F32,
    /// bfloat16, the upper half of an f32: activations and their gradients, if the user wants it.
    Bf16,
}

impl Dtype {
    /// Its name in recipes and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of a value.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
        }
    }
}

/// A bfloat16 number: sign, eight bits of exponent, seven of fraction.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bf16(u16);

// SAFETY: a transparent u16, for which zero and every other bit pattern are valid.
unsafe impl bytemuck::Zeroable for Bf16 {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for Bf16 {}

/// Values in host memory, to read.
#[derive(Clone, Copy)]
pub enum Slice<'a> {
    /// Values of type f32.
    F32(&'a [f32]),
    /// Values of type bf16.
    Bf16(&'a [Bf16]),
}

/// Values in host memory, to write.
pub enum SliceMut<'a> {
    /// Values of type f32.
    F32(&'a mut [f32]),
    /// Values of type bf16.
    Bf16(&'a mut [Bf16]),
}

impl Slice<'_> {
    pub(crate) fn range(self, range: Range<usize>) -> Self {
        match self {
            Self::F32(values) => Self::F32(&values[range]),
            Self::Bf16(values) => Self::Bf16(&values[range]),
        }
    }

    pub(crate) fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::Bf16(_) => Dtype::Bf16,
        }
    }
}

impl SliceMut<'_> {
    pub(crate) fn range(self, range: Range<usize>) -> Self {
        match self {
            Self::F32(values) => Self::F32(&mut values[range]),
            Self::Bf16(values) => Self::Bf16(&mut values[range]),
        }
    }

    pub(crate) fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::Bf16(_) => Dtype::Bf16,
        }
    }
}

/// A type of stored values. Kernels widen what they read and round what they write.
pub(crate) trait Element: bytemuck::Pod + Send + Sync {
    const DTYPE: Dtype;
    /// The same number.
    fn wide(self) -> f32;
    /// Copies values as f32.
    fn widen(to: &mut [f32], from: &[Self]);
    /// The nearest number of this type, of two equally near ones the even.
    fn round(value: f32) -> Self;
    /// The nearest bf16, which a bf16 is itself.
    fn narrow(self) -> Bf16;
    /// The values, if they have this type.
    fn of(slice: Slice<'_>) -> Option<&[Self]>;
    /// As [`Element::of`], to write.
    fn of_mut(slice: SliceMut<'_>) -> Option<&mut [Self]>;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;

    #[inline(always)]
    fn wide(self) -> f32 {
        self
    }

    #[inline(always)]
    fn widen(to: &mut [f32], from: &[Self]) {
        to.copy_from_slice(from);
    }

    #[inline(always)]
    fn round(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn narrow(self) -> Bf16 {
        Bf16::round(self)
    }

    fn of(slice: Slice<'_>) -> Option<&[Self]> {
        match slice {
            Slice::F32(values) => Some(values),
            Slice::Bf16(_) => None,
        }
    }

    fn of_mut(slice: SliceMut<'_>) -> Option<&mut [Self]> {
        match slice {
            SliceMut::F32(values) => Some(values),
            SliceMut::Bf16(_) => None,
        }
    }
}

impl Element for Bf16 {
    const DTYPE: Dtype = Dtype::Bf16;

    #[inline(always)]
    fn wide(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    #[inline(always)]
    fn widen(to: &mut [f32], from: &[Self]) {
        assert_eq!(to.len(), from.len(), "values to widen");
        for (to, from) in to.iter_mut().zip(from) {
            *to = from.wide();
        }
    }

    #[inline(always)]
    fn round(value: f32) -> Self {
        let bits = value.to_bits();
        // Half of the last bit that stays, less one where that bit is even. A carry into the
        // exponent is the right result, and beyond the largest number it is infinity.
        let nearest = bits.wrapping_add(0x7FFF + (bits >> 16 & 1));
        // NaN must not become infinity by the cut, nor a number by the carry.
        let bits = if value.is_nan() { bits | 0x40_0000 } else { nearest };
        Self((bits >> 16) as u16)
    }

    #[inline(always)]
    fn narrow(self) -> Bf16 {
        self
    }

    fn of(slice: Slice<'_>) -> Option<&[Self]> {
        match slice {
            Slice::F32(_) => None,
            Slice::Bf16(values) => Some(values),
        }
    }

    fn of_mut(slice: SliceMut<'_>) -> Option<&mut [Self]> {
        match slice {
            SliceMut::F32(_) => None,
            SliceMut::Bf16(values) => Some(values),
        }
    }
}

impl Bf16 {
    /// Both numbers, rounded, in the bits of an f32: the first in the lower half.
    #[inline(always)]
    pub(crate) fn pair(first: f32, second: f32) -> f32 {
        let [first, second] = [first, second].map(|value| u32::from(Self::round(value).0));
        f32::from_bits(first | second << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::{Bf16, Element};

    /// The nearest bf16 by search among both neighbours, the even one if both are as near.
    fn nearest(value: f32) -> f32 {
        let below = f32::from_bits(value.to_bits() & 0xFFFF_0000);
        let above = f32::from_bits((value.to_bits() & 0xFFFF_0000).wrapping_add(0x1_0000));
        let distance = |x: f32| (f64::from(x) - f64::from(value)).abs();
        match distance(below).total_cmp(&distance(above)) {
            std::cmp::Ordering::Less => below,
            std::cmp::Ordering::Greater => above,
            std::cmp::Ordering::Equal if below.to_bits() >> 16 & 1 == 0 => below,
            std::cmp::Ordering::Equal => above,
        }
    }

    #[test]
    fn rounding_gives_the_nearest_number_and_keeps_what_is_exact() {
        for high in (0..0x7F7F_u32).step_by(7) {
            for low in [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF] {
                for sign in [0, 0x8000_0000] {
                    let value = f32::from_bits(sign | high << 16 | low);
                    let got = Bf16::round(value).wide();
                    assert_eq!(got.to_bits(), nearest(value).to_bits(), "{value:e}");
                }
            }
        }
        for value in [0.0, -0.0, 1.0, -2.5, f32::INFINITY, f32::NEG_INFINITY, 1e-40_f32] {
            let exact = f32::from_bits(value.to_bits() & 0xFFFF_0000);
            assert_eq!(Bf16::round(exact).wide().to_bits(), exact.to_bits());
        }
        assert_eq!(Bf16::round(f32::MAX).wide(), f32::INFINITY);
        for bits in [0x7F80_0001, 0x7FFF_FFFF, 0xFF80_0001_u32, 0xFFFF_FFFF] {
            assert!(Bf16::round(f32::from_bits(bits)).wide().is_nan(), "{bits:x}");
        }
    }
}
