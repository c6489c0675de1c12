//! The members of a tar archive: POSIX ustar, pax and GNU headers, read without unpacking.
//!
//! A member is a block of 512 bytes (name, size, kind, checksum), then its bytes, padded to blocks.
//! Two blocks of zeros end the archive (POSIX.1-2017, pax, "ustar Interchange Format").

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::{Error, Result};

const BLOCK: usize = 512;

/// The most bytes of a long name or of a member's pax records. Linux has paths of 4 KiB.
const MOST_EXTRA_BYTES: u64 = 1 << 20;

/// A plain file in an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::data) struct Member {
    /// Its path in the archive.
    pub(in crate::data) name: String,
    /// Where its bytes begin.
    pub(in crate::data) offset: u64,
    /// How many bytes it has.
    pub(in crate::data) size: u64,
}

/// A name in an archive for the bytes of another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::data) struct Link {
    /// Its path in the archive.
    pub(in crate::data) name: String,
    /// The path in the archive that it stands for, as far as it can be told.
    pub(in crate::data) target: String,
}

/// What an archive holds at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::data) enum ArchiveEnd {
    /// An end marker, then nothing but zeros.
    Marked,
    /// No end marker. The last member is whole.
    Unmarked,
    /// An end marker, then further bytes from this offset on. GNU tar reads them with `-i` alone.
    Continued(u64),
}

/// The most bytes behind an end marker that are searched for further members. GNU tar pads archives
/// to 10 KiB.
const MOST_PADDING_BYTES: u64 = 1 << 20;

/// Something that can be read at any offset.
pub(in crate::data) trait ReadAt {
    /// Fills `buffer` with the bytes from `offset` on.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()>;
}

/// Walks the headers of an archive of `len` bytes.
pub(in crate::data) struct Members<'a, R> {
    file: &'a R,
    path: &'a Path,
    len: u64,
    /// Offset of the next header.
    at: u64,
    /// The links that were found so far.
    links: Vec<Link>,
    /// Known after the last member.
    end: ArchiveEnd,
}

/// What pax and GNU headers state about the member that follows.
#[derive(Default, PartialEq)]
struct Extra {
    name: Option<String>,
    target: Option<String>,
    size: Option<u64>,
}

impl<'a, R: ReadAt> Members<'a, R> {
    /// The members of the archive in `file`. `path` is for messages.
    pub(in crate::data) fn new(file: &'a R, path: &'a Path, len: u64) -> Self {
        Self { file, path, len, at: 0, links: Vec::new(), end: ArchiveEnd::Marked }
    }

    /// The links and the end of the archive, after its last member.
    pub(in crate::data) fn finish(self) -> (Vec<Link>, ArchiveEnd) {
        (self.links, self.end)
    }

    /// The next plain file. None after the end marker, or after the last member without one.
    pub(in crate::data) fn next_file(&mut self) -> Result<Option<Member>> {
        let mut extra = Extra::default();
        loop {
            if self.at == self.len && self.at > 0 && extra == Extra::default() {
                self.end = ArchiveEnd::Unmarked;
                return Ok(None);
            }
            let header = self.header()?;
            if header.iter().all(|&byte| byte == 0) {
                // A single block of zeros is also the end, as for GNU tar.
                self.end = self.after_the_end()?;
                return Ok(None);
            }
            let mut size = self.parse_header(&header)?;
            let kind = header[156];
            if !matches!(kind, b'x' | b'g' | b'L' | b'K') {
                size = extra.size.unwrap_or(size);
            }
            // Links, devices and folders have no bytes, even if their size is not 0.
            let size = if matches!(kind, b'1'..=b'6') { 0 } else { size };
            let offset = self.at;
            self.skip(size)?;
            match kind {
                b'x' => self.pax(offset, size, &mut extra)?,
                b'L' => extra.name = Some(text(&self.extra(offset, size)?)),
                b'K' => extra.target = Some(text(&self.extra(offset, size)?)),
                b'1' | b'2' => {
                    self.links.push(link(&header, std::mem::take(&mut extra)));
                }
                b'S' => return Err(self.fail(offset, "holds a sparse file. Pack without --sparse")),
                0 | b'0' | b'7' => {
                    let name = extra.name.take().unwrap_or_else(|| name_of(&header));
                    let old_folder = name.ends_with('/');
                    if !old_folder {
                        return Ok(Some(Member { name, offset, size }));
                    }
                    extra = Extra::default();
                }
                b'g' => {}
                _ => extra = Extra::default(),
            }
        }
    }

    fn header(&mut self) -> Result<[u8; BLOCK]> {
        let mut header = [0; BLOCK];
        if self.len - self.at < BLOCK as u64 {
            let problem = match self.at {
                0 => "is shorter than a tar header. Set data.path to a tar archive",
                _ => "is cut off inside a header. Fetch or pack it again",
            };
            return Err(self.fail(self.at, problem));
        }
        let read = self.file.read_at(&mut header, self.at);
        read.map_err(|error| Error::read(self.path, error))?;
        self.at += BLOCK as u64;
        Ok(header)
    }

    /// Looks for bytes behind the end marker that are not zero.
    fn after_the_end(&self) -> Result<ArchiveEnd> {
        let mut at = self.at;
        let mut bytes = [0; 16 * BLOCK];
        while at < self.len.min(self.at + MOST_PADDING_BYTES) {
            let length = (self.len - at).min(bytes.len() as u64) as usize;
            let read = self.file.read_at(&mut bytes[..length], at);
            read.map_err(|error| Error::read(self.path, error))?;
            if let Some(found) = bytes[..length].iter().position(|&byte| byte != 0) {
                return Ok(ArchiveEnd::Continued(at + found as u64));
            }
            at += length as u64;
        }
        Ok(ArchiveEnd::Marked)
    }

    /// The size that a header states, if its checksum is right.
    fn parse_header(&self, header: &[u8; BLOCK]) -> Result<u64> {
        let at = self.at - BLOCK as u64;
        let stated = number(&header[148..156]);
        if stated != Some(checksum(header)) {
            let problem = match compression(header) {
                Some(kind) if at == 0 => {
                    return Err(self.fail(at, &format!(
                        "is compressed by {kind}, expected a plain tar: members of a compressed \
                         archive cannot be read one by one. Unpack it, e.g. with `{kind} -d`"
                    )));
                }
                _ if at == 0 => "is not a tar archive: its first header has a wrong checksum",
                _ => "has a damaged header (wrong checksum). Fetch or pack it again",
            };
            return Err(self.fail(at, problem));
        }
        number(&header[124..136])
            .ok_or_else(|| self.fail(at, "has a header without a size. Pack it again"))
    }

    /// Skips a member's bytes and their padding.
    fn skip(&mut self, size: u64) -> Result<()> {
        let padded = size.checked_next_multiple_of(BLOCK as u64);
        let end = padded.and_then(|padded| self.at.checked_add(padded));
        match end.filter(|&end| end <= self.len) {
            Some(end) => self.at = end,
            None => {
                let left = self.len - self.at;
                let problem = format!(
                    "is cut off: a member of {size} bytes begins there, and {left} are left. \
                     Fetch it again"
                );
                return Err(self.fail(self.at, &problem));
            }
        }
        Ok(())
    }

    fn extra(&self, offset: u64, size: u64) -> Result<Vec<u8>> {
        if size > MOST_EXTRA_BYTES {
            let problem = format!("has a long name of {size} bytes, expected {MOST_EXTRA_BYTES}");
            return Err(self.fail(offset, &problem));
        }
        let mut bytes = vec![0; size as usize];
        let read = self.file.read_at(&mut bytes, offset);
        read.map_err(|error| Error::read(self.path, error))?;
        Ok(bytes)
    }

    /// Reads records "LENGTH KEY=VALUE\n". LENGTH counts the whole record.
    fn pax(&self, offset: u64, size: u64, extra: &mut Extra) -> Result<()> {
        let bytes = self.extra(offset, size)?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let record = pax_record(rest)
                .ok_or_else(|| self.fail(offset, "has damaged pax records. Pack it again"))?;
            match record.key {
                b"path" => extra.name = Some(text(record.value)),
                b"linkpath" => extra.target = Some(text(record.value)),
                b"size" => {
                    let size = std::str::from_utf8(record.value).ok().and_then(|v| v.parse().ok());
                    let fail = || self.fail(offset, "has a pax size that is not a number");
                    extra.size = Some(size.ok_or_else(fail)?);
                }
                b"GNU.sparse.major" | b"GNU.sparse.map" => {
                    return Err(self.fail(offset, "holds a sparse file. Pack without --sparse"));
                }
                _ => {}
            }
            rest = &rest[record.length..];
        }
        Ok(())
    }

    fn fail(&self, at: u64, problem: &str) -> Error {
        Error::file(self.path, format!("at byte {at}: {problem}"))
    }
}

struct PaxRecord<'a> {
    key: &'a [u8],
    value: &'a [u8],
    length: usize,
}

fn pax_record(bytes: &[u8]) -> Option<PaxRecord<'_>> {
    let space = bytes.iter().take(20).position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some(PaxRecord { key: &record[..equals], value: &record[equals + 1..], length })
}

/// A number in octal digits, or in base 256 if the first bit is set (GNU).
fn number(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let start = u64::from(field[0] & 0x7F);
        let step =
            |value: u64, &byte: &u8| (value >> 56 == 0).then_some(value << 8 | u64::from(byte));
        return field[1..].iter().try_fold(start, step);
    }
    let digits = field.split(|&byte| byte == 0).next()?.trim_ascii();
    if digits.is_empty() {
        return Some(0);
    }
    let digits = digits.iter().map(|&byte| matches!(byte, b'0'..=b'7').then(|| byte - b'0'));
    digits
        .into_iter()
        .try_fold(0_u64, |value, digit| value.checked_mul(8)?.checked_add(u64::from(digit?)))
}

/// The sum of a header's bytes. Its checksum field counts as spaces.
fn checksum(header: &[u8; BLOCK]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    sum(&header[..148]) + 8 * u64::from(b' ') + sum(&header[156..])
}

/// The name of a header, after ustar's prefix. GNU headers ("ustar  ") have other data there.
fn name_of(header: &[u8; BLOCK]) -> String {
    let (name, prefix) = (text(&header[..100]), text(&header[345..500]));
    if &header[257..263] == b"ustar\0" && !prefix.is_empty() {
        format!("{prefix}/{name}")
    } else {
        name
    }
}

/// A hard link names its target from the archive's root, a symbolic link from its own folder.
fn link(header: &[u8; BLOCK], extra: Extra) -> Link {
    let name = extra.name.unwrap_or_else(|| name_of(header));
    let target = extra.target.unwrap_or_else(|| text(&header[157..257]));
    let is_symbolic = header[156] == b'2';
    let target = match name.rsplit_once('/') {
        Some((folder, _)) if is_symbolic && !target.starts_with('/') => {
            plain_path(&format!("{folder}/{target}"))
        }
        _ => plain_path(&target),
    };
    Link { name, target }
}

/// The path without `.` and `..`, as far as these stay in the archive.
pub(in crate::data) fn plain_path(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "." | "" if !(part.is_empty() && parts.is_empty()) => {}
            ".." if parts.last().is_some_and(|&last| last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The text up to the first zero byte. A byte that is not UTF-8 is written as `\xNN`, so that
/// different names stay different.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let mut text = String::new();
    for chunk in bytes[..end].utf8_chunks() {
        text.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02X}")));
    }
    text
}

/// The program that compressed a file, by its first bytes.
fn compression(start: &[u8]) -> Option<&'static str> {
    let kinds: [(&[u8], _); 4] = [
        (&[0x1F, 0x8B], "gzip"),
        (b"BZh", "bzip2"),
        (&[0xFD, b'7', b'z', b'X', b'Z'], "xz"),
        (&[0x28, 0xB5, 0x2F, 0xFD], "zstd"),
    ];
    kinds.into_iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, kind)| kind)
}

#[cfg(test)]
pub(in crate::data) mod tests;
