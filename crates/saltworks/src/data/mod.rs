//! Data: from files to batches of bytes.
//!
//! A [`Source`] reads one image by its number. A [`Loader`] orders, decodes, augments and batches
//! images on its own threads. The content of a batch depends only on the settings and the batch's
//! number. The number of threads, a restart or the speed of the disk does not change a bit of it.

mod clip;
mod error;
mod loader;
mod source;
mod store;

pub use clip::{
    Background, Blur, Clip, Crop, Effects, Interpolation, Jitter, Normalize, RawSample, Solarize,
    StoredAs, Transform, decode,
};
pub use error::{Error, Result};
pub use loader::{
    Batch, Fingerprint, Loader, LoaderOptions, Order, PartTimes, Position, Sampler, Stamp, Survey,
    SurveyDepth, TimedBatch, Unreadable, time_parts,
};
pub use source::{
    Holdout, Idx, ImageFiles, Info, Mixed, Npy, Parquet, Part, Sample, Shards, Source, builtin,
    hold_out, open, unite, validation_folder,
};
