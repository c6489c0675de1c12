//! Data: from files to batches of bytes.
//!
//! A [`Source`] reads one image by its number; a [`Loader`] orders, decodes, augments and batches
//! on its own threads. What a batch holds is a function of the settings and its number: the number
//! of threads, a restart or the speed of the disk changes no bit of it.

mod augment;
mod braces;
pub mod builtin;
mod decode;
mod error;
mod fingerprint;
mod folder;
mod holdout;
mod idx;
mod image_file;
mod jpeg;
mod labels;
mod list;
mod loader;
mod mixed;
mod npy;
mod object;
mod parquet;
mod pixels;
#[cfg(feature = "remote")]
mod remote;
mod sampler;
mod shards;
mod source;
mod stored;
mod survey;
mod tar;

pub use augment::{Blur, Crop, Effects, Interpolation, Jitter, Solarize, Transform};
pub use decode::{Background, decode};
pub use error::{Error, Result};
pub use fingerprint::{Fingerprint, Stamp};
pub use holdout::{Holdout, Part, hold_out};
pub use idx::Idx;
pub use image_file::ImageFiles;
pub use loader::{Batch, Loaded, Loader, LoaderOptions, PartTimes, Unreadable, time_parts};
pub use mixed::{Mixed, unite};
pub use npy::Npy;
pub use parquet::Parquet;
pub use pixels::{Normalize, Pixels};
pub use sampler::{Order, Position, Sampler};
pub use shards::Shards;
pub use source::{Info, Sample, Source, open};
pub use stored::{Form, Stored};
pub use survey::{Look, Survey};
