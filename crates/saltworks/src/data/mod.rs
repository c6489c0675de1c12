//! Data: from files to batches of bytes.
//!
//! A [`Source`] reads one image by its number; a [`Loader`] orders, decodes, augments and batches
//! on its own threads. What a batch holds is a function of the settings and its number: the number
//! of threads, a restart or the speed of the disk changes no bit of it.

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
    hold_out, open, unite,
};
