//! The size of a clip, and a part of it.

use std::ops::Range;

/// How large a clip is before it is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::data) struct Extent {
    /// T, 1 for an image.
    pub(in crate::data) frames: usize,
    /// H
    pub(in crate::data) height: usize,
    /// W
    pub(in crate::data) width: usize,
}

/// A box of a clip: some of its frames, and the same rectangle of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::data) struct Region {
    pub(in crate::data) frames: Range<usize>,
    pub(in crate::data) rows: Range<usize>,
    pub(in crate::data) columns: Range<usize>,
}

impl Region {
    /// All of a clip.
    pub(in crate::data) fn whole(extent: Extent) -> Self {
        Self { frames: 0..extent.frames, rows: 0..extent.height, columns: 0..extent.width }
    }
}
