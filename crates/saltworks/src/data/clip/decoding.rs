//! How the files of images become pixels.

use crate::range::Range;

/// What transparent pixels show: red, green, blue.
pub type Background = [u8; 3];

/// How the files of images become pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Decoding {
    /// What transparent pixels show.
    pub background: Background,
    /// The values that become 0 and 255, for images of more than eight bits. If none are given,
    /// they are 0 and 65,535 for images of sixteen unsigned bits, and others are refused.
    pub depth: Option<Range>,
    /// Whether a JPEG that is cut off is decoded as far as it goes. Its missing part is grey.
    pub keep_cut: bool,
}

impl From<Background> for Decoding {
    fn from(background: Background) -> Self {
        Self { background, ..Self::default() }
    }
}
