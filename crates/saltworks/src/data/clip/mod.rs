//! Pixels: decoding, cropping, augmentation.

pub(in crate::data) mod augment;
pub(in crate::data) mod decode;
pub(in crate::data) mod jpeg;
pub(in crate::data) mod pixels;
pub(in crate::data) mod stored;

pub use augment::{Blur, Crop, Effects, Interpolation, Jitter, Solarize, Transform};
pub use decode::{Background, decode};
pub use pixels::{Normalize, Pixels};
pub use stored::{Form, Stored};
