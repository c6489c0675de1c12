//! Reads bytes at any position: files on disk, objects in stores, members of archives.

pub(in crate::data) mod braces;
pub(in crate::data) mod object;
#[cfg(feature = "remote")]
pub(in crate::data) mod remote;
pub(in crate::data) mod tar;
