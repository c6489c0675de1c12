//! Writes a zip archive as torch's writer does. Records are not compressed, and each begins at a
//! multiple of 64 bytes (caffe2/serialize/inline_container.cc; PKWARE, APPNOTE.TXT 6.3).

use flate2::Crc;
use std::io::{self, Write};

/// A record begins at a multiple of this, so that it can be mapped into memory.
const ALIGNMENT: u64 = 64;

/// Sizes and offsets from this number on are written to the fields of zip64.
const ZIP64_FROM: u64 = u32::MAX as u64;

/// An archive that is being written, starting at its first byte.
pub(super) struct ArchiveWriter<'a> {
    file: &'a mut dyn Write,
    at: u64,
    directory: Vec<u8>,
    records: u64,
}

impl<'a> ArchiveWriter<'a> {
    /// An archive without records.
    pub(super) fn new(file: &'a mut dyn Write) -> Self {
        Self { file, at: 0, directory: Vec::new(), records: 0 }
    }

    /// Adds a record.
    pub(super) fn record(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let (offset, size) = (self.at, bytes.len() as u64);
        let sizes = if size < ZIP64_FROM { vec![] } else { vec![size, size] };
        let far = if offset < ZIP64_FROM { vec![] } else { vec![offset] };
        let mut crc = Crc::new();
        crc.update(bytes);
        let fields = |extra: &[u8]| fields(name, crc.sum(), size, extra.len());

        let mut extra = zip64(&sizes);
        extra.extend(padding(offset + (30 + name.len() + extra.len()) as u64));
        self.write(&[b"PK\x03\x04", &fields(&extra)[..], name.as_bytes(), &extra].concat())?;
        self.write(bytes)?;

        // The directory repeats the header without padding, and adds the header's offset.
        let extra = zip64(&[sizes, far].concat());
        self.directory.extend([b"PK\x01\x02\x2D\0", &fields(&extra)[..], &[0; 10]].concat());
        self.directory.extend([&short(offset), name.as_bytes(), &extra].concat());
        self.records += 1;
        Ok(())
    }

    /// Writes the directory. As in torch, the end always has a zip64 record, too.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let (begin, records) = (self.at, self.records);
        let directory = std::mem::take(&mut self.directory);
        let size = directory.len() as u64;
        self.write(&directory)?;
        let numbers = |numbers: &[u64]| -> Vec<u8> {
            numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
        };
        let end = self.at;
        self.write(b"PK\x06\x06")?;
        self.write(&numbers(&[44]))?;
        self.write(b"\x2D\0\x2D\0\0\0\0\0\0\0\0\0")?;
        self.write(&numbers(&[records, records, size, begin]))?;
        self.write(b"PK\x06\x07\0\0\0\0")?;
        self.write(&numbers(&[end]))?;
        self.write(b"\x01\0\0\0PK\x05\x06\0\0\0\0")?;
        let records = (records.min(u64::from(u16::MAX)) as u16).to_le_bytes();
        self.write(&[records, records].concat())?;
        self.write(&[&short(size)[..], &short(begin), &[0, 0]].concat())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

/// The fields that both headers of a record share. Version 4.5 supports zip64. The name is UTF-8.
/// The record is not compressed. The time is the first of 1980.
fn fields(name: &str, crc: u32, size: u64, extra_len: usize) -> Vec<u8> {
    let mut fields = b"\x2D\0\0\x08\0\0\0\0\x21\0".to_vec();
    fields.extend(crc.to_le_bytes());
    fields.extend([short(size), short(size)].concat());
    fields.extend((name.len() as u16).to_le_bytes());
    fields.extend((extra_len as u16).to_le_bytes());
    fields
}

/// A number of a header, or its placeholder if the number is in zip64.
fn short(number: u64) -> [u8; 4] {
    (number.min(ZIP64_FROM) as u32).to_le_bytes()
}

/// The extra field of zip64, if it has any numbers.
fn zip64(numbers: &[u64]) -> Vec<u8> {
    if numbers.is_empty() {
        return Vec::new();
    }
    let size = (8 * numbers.len() as u16).to_le_bytes();
    let numbers = numbers.iter().flat_map(|number| number.to_le_bytes());
    [1, 0].into_iter().chain(size).chain(numbers).collect()
}

/// torch's extra field `FB`. It moves a record that would begin at `begin` to a multiple of
/// [`ALIGNMENT`].
fn padding(begin: u64) -> Vec<u8> {
    let begin = begin + 4;
    let len = (begin.next_multiple_of(ALIGNMENT) - begin) as usize;
    [b"FB", &(len as u16).to_le_bytes()[..], &vec![b'Z'; len]].concat()
}
