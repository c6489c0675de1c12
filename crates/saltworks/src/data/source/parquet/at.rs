//! The bytes of a file for the parquet crate. Its own file reader shares one cursor between
//! threads.

use std::io::{BufReader, Read};
use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::data::store::object::Object;
use crate::data::store::tar::ReadAt as _;

/// The most bytes that are read ahead at once.
const MOST_AHEAD: u64 = 16 << 20;

/// A file read by position.
#[derive(Clone)]
pub(super) struct At {
    object: Arc<Object>,
    /// A part that has been read, and where it begins.
    ahead: (u64, Bytes),
}

impl At {
    pub(super) fn new(object: Object) -> Self {
        Self { object: Arc::new(object), ahead: (0, Bytes::new()) }
    }

    /// The same file, of which the part at `start` is read at once if it is small. Each request to
    /// a store takes long.
    pub(super) fn with_ahead(&self, start: u64, len: u64) -> parquet::errors::Result<Self> {
        if len > MOST_AHEAD {
            return Ok(self.clone());
        }
        let bytes = self.get_bytes(start, len as usize)?;
        Ok(Self { object: Arc::clone(&self.object), ahead: (start, bytes) })
    }

    /// A part of what has been read ahead.
    fn known(&self, start: u64, len: usize) -> Option<Bytes> {
        let (first, bytes) = &self.ahead;
        let start = usize::try_from(start.checked_sub(*first)?).ok()?;
        let end = start.checked_add(len)?;
        (end <= bytes.len()).then(|| bytes.slice(start..end))
    }
}

impl Length for At {
    fn len(&self) -> u64 {
        self.object.len()
    }
}

impl ChunkReader for At {
    type T = BufReader<ReadFrom>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let from = ReadFrom { file: self.clone(), at: start };
        // Page headers have about fifty bytes.
        Ok(BufReader::with_capacity(512, from))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        if let Some(known) = self.known(start, length) {
            return Ok(known);
        }
        let found = self.object.len();
        if start.checked_add(length as u64).is_none_or(|end| end > found) {
            let problem = format!("{length} bytes at {start} of a file of {found} bytes");
            return Err(ParquetError::EOF(problem));
        }
        let mut bytes = vec![0; length];
        self.object.read_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// The bytes of a file from an offset on.
pub(super) struct ReadFrom {
    file: At,
    at: u64,
}

impl Read for ReadFrom {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.file.object.len().saturating_sub(self.at);
        let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let buffer = &mut buffer[..count];
        // Near the end of the part that was read ahead, the buffer may reach beyond it.
        let (first, bytes) = &self.file.ahead;
        let known = self.at.checked_sub(*first).and_then(|start| bytes.get(start as usize..));
        let count = match known.filter(|known| !known.is_empty()) {
            Some(mut known) => known.read(buffer)?,
            None => {
                self.file.object.read_at(buffer, self.at)?;
                count
            }
        };
        self.at += count as u64;
        Ok(count)
    }
}
