//! Data: from files to batches of bytes.
//!
//! A [`Source`] reads one image by its number. A [`Loader`] orders, decodes, augments and batches
//! images on its own threads. The content of a batch depends only on the settings and the batch's
//! number. The number of threads, a restart or the speed of the disk does not change a bit of it.

mod clip;
mod error;
mod guard;
mod loader;
mod source;
mod store;

pub use clip::{
    Background, Blur, Clip, Crop, Decoding, Effects, Interpolation, Jitter, MOST_CHANNELS,
    Normalize, NumberKind, Numbers, RawSample, Solarize, StoredAs, StoredValues, Transform, decode,
};
pub use error::{Error, Result};
pub use loader::{
    Batch, Fingerprint, Loader, LoaderOptions, Order, PartTimes, Position, Sampler, Stamp, Survey,
    SurveyDepth, TimedBatch, Unreadable, time_parts,
};
pub use source::{
    Copies, Holdout, Idx, ImageFiles, Info, Mixed, Notes, Npy, OpenOptions, Parquet, Part, Sample,
    Shards, Source, Split, TestsBeside, builtin, copies_among, copies_between, hold_out,
    hold_out_of, open, tests_beside, unite,
};
