//! Types of stored values: those that are written, those that are read, and the names of all
//! others.

use engine::Tensor;
use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use std::hash::{Hash, Hasher};

/// A type that weights are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE 754 binary32, the engine's own type.
    #[default]
    F32,
    /// IEEE 754 binary16: 10 bits of fraction, up to 65,504.
    F16,
    /// The upper half of binary32: 7 bits of fraction, the same range.
    Bf16,
}

impl Dtype {
    /// Its description: names, and bytes of a value.
    pub(super) fn kind(self) -> &'static Kind {
        let name = match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
        };
        // The table below has all three.
        KINDS.iter().find(|kind| kind.name == name).expect("a kind of the table")
    }

    /// Values as little-endian bytes, rounded to nearest, ties to even.
    pub(super) fn encode(self, values: &[f32], bytes: &mut Vec<u8>) {
        match self {
            Self::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::F16 => {
                bytes.extend(values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()));
            }
            Self::Bf16 => {
                bytes.extend(values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()));
            }
        }
    }

    /// A finite value that this type can hold only as infinity.
    pub(super) fn too_large(self, tensor: &Tensor) -> Option<f32> {
        let infinite = |value: f32| match self {
            Self::F32 => false,
            Self::F16 => f16::from_f32(value).is_infinite(),
            Self::Bf16 => bf16::from_f32(value).is_infinite(),
        };
        let values = tensor.to_host();
        let mut values = values.iter().copied();
        values.find(|&value| value.is_finite() && infinite(value))
    }
}

/// A type that a file may hold, identified by its name.
#[derive(Debug)]
pub(super) struct Kind {
    /// Its name in safetensors, and in our messages.
    pub(super) name: &'static str,
    /// The attribute of `torch`, e.g. float32.
    pub(super) torch: &'static str,
    /// torch's storage class. Types that torch added later have none.
    pub(super) storage: &'static str,
    /// Bytes of a value.
    pub(super) size: usize,
    /// Decodes a value from its little-endian bytes. None if no weight can have this type.
    decode: Option<fn(&[u8]) -> f32>,
}

impl PartialEq for Kind {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Kind {}

impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Kind {
    const fn new(
        name: &'static str,
        torch: &'static str,
        storage: &'static str,
        size: usize,
    ) -> Self {
        Self { name, torch, storage, size, decode: None }
    }

    const fn float(mut self, decode: fn(&[u8]) -> f32) -> Self {
        self.decode = Some(decode);
        self
    }

    /// Decodes a value as f32. None if no weight can have this type.
    pub(super) fn decoder(&self) -> Option<fn(&[u8]) -> f32> {
        self.decode
    }
}

/// The first bytes of a value.
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    // Values are cut by the size of their kind.
    *bytes.first_chunk().expect("a whole value")
}

/// All types that are known by name. Sources: torch/storage.py, `_dtype_to_storage_type_map` and
/// `_new_dtypes`; safetensors' `Dtype`.
pub(super) const KINDS: &[Kind] = &[
    Kind::new("F32", "float32", "FloatStorage", 4).float(|bytes| f32::from_le_bytes(first(bytes))),
    Kind::new("F16", "float16", "HalfStorage", 2)
        .float(|bytes| f16::from_le_bytes(first(bytes)).to_f32()),
    Kind::new("BF16", "bfloat16", "BFloat16Storage", 2)
        .float(|bytes| bf16::from_le_bytes(first(bytes)).to_f32()),
    // Rounds to nearest even.
    Kind::new("F64", "float64", "DoubleStorage", 8)
        .float(|bytes| f64::from_le_bytes(first(bytes)) as f32),
    Kind::new("I64", "int64", "LongStorage", 8),
    Kind::new("I32", "int32", "IntStorage", 4),
    Kind::new("I16", "int16", "ShortStorage", 2),
    Kind::new("I8", "int8", "CharStorage", 1),
    Kind::new("U8", "uint8", "ByteStorage", 1),
    Kind::new("BOOL", "bool", "BoolStorage", 1),
    Kind::new("C64", "complex64", "ComplexFloatStorage", 8),
    Kind::new("C128", "complex128", "ComplexDoubleStorage", 16),
    Kind::new("U16", "uint16", "", 2),
    Kind::new("U32", "uint32", "", 4),
    Kind::new("U64", "uint64", "", 8),
    Kind::new("F8_E4M3", "float8_e4m3fn", "", 1),
    Kind::new("F8_E5M2", "float8_e5m2", "", 1),
    Kind::new("F8_E4M3FNUZ", "float8_e4m3fnuz", "", 1),
    Kind::new("F8_E5M2FNUZ", "float8_e5m2fnuz", "", 1),
    Kind::new("F8_E8M0", "float8_e8m0fnu", "", 1),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(dtype: Dtype, value: f32) -> f32 {
        let mut bytes = Vec::new();
        dtype.encode(&[value], &mut bytes);
        assert_eq!(bytes.len(), dtype.kind().size);
        dtype.kind().decoder().unwrap()(&bytes)
    }

    #[test]
    fn values_are_rounded_to_nearest_even() {
        // Steps between neighbours above 1: 2⁻¹⁰ for f16, 2⁻⁷ for bf16.
        for (dtype, step) in [(Dtype::F16, 2_f32.powi(-10)), (Dtype::Bf16, 2_f32.powi(-7))] {
            for (value, rounded) in [(0.5, 0.0), (0.75, 1.0), (1.5, 2.0), (2.5, 2.0), (-0.5, 0.0)] {
                let found = there_and_back(dtype, 1.0 + value * step);
                let wanted = if value < 0.0 { 1.0 - step / 2.0 } else { 1.0 + rounded * step };
                assert_eq!(found, wanted, "1 + {value} steps of {dtype:?}");
            }
        }
        for value in [0.1, -3.0e38, f32::MIN_POSITIVE / 8.0, f32::INFINITY] {
            assert_eq!(there_and_back(Dtype::F32, value), value);
        }
        assert!(there_and_back(Dtype::F16, f32::NAN).is_nan());
        // Subnormal: the least f16 is 2⁻²⁴.
        assert_eq!(there_and_back(Dtype::F16, 1.4 * 2_f32.powi(-24)), 2_f32.powi(-24));
    }

    #[test]
    fn a_value_beyond_the_type_is_found() {
        let tensor = Tensor::from_vec([1.0, f32::INFINITY, -65_520.0], &[3]);
        assert_eq!(Dtype::F16.too_large(&tensor), Some(-65_520.0));
        assert_eq!(Dtype::Bf16.too_large(&tensor), None);
        assert_eq!(Dtype::F16.too_large(&Tensor::from_vec([65_519.0], &[1])), None);
        assert_eq!(Dtype::Bf16.too_large(&Tensor::from_vec([f32::MAX], &[1])), Some(f32::MAX));
    }

    #[test]
    fn a_double_becomes_the_nearest_float() {
        let double = KINDS.iter().find(|kind| kind.name == "F64").unwrap();
        assert_eq!(double.decoder().unwrap()(&0.1_f64.to_le_bytes()), 0.1_f32);
    }
}
