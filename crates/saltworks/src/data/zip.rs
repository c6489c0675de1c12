//! Members of a small zip archive, as `numpy.savez` writes them: stored or deflated
//! (PKWARE, APPNOTE.TXT 6.3).

use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::{Crc, read::DeflateDecoder};

use super::image_file::read_at_most;
use super::{Error, Result};

/// Most bytes of an archive, and of a member unpacked: both are held in memory.
const MOST_BYTES: u64 = 4 << 30;

/// Length of the record that ends an archive, without its comment.
const END_BYTES: usize = 22;

/// An archive in memory.
pub(super) struct Zip {
    path: PathBuf,
    bytes: Vec<u8>,
    members: Vec<Member>,
}

#[derive(Clone, Debug)]
struct Member {
    name: String,
    method: u16,
    crc: u32,
    packed: usize,
    size: u64,
    /// Of its own header.
    header: usize,
}

impl Zip {
    /// Reads an archive.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let bytes = read_at_most(path, MOST_BYTES, "Save the images as .npy")?;
        Self::parse(bytes, path)
    }

    pub(super) fn parse(bytes: Vec<u8>, path: &Path) -> Result<Self> {
        let members = members(&bytes)
            .ok_or_else(|| Error::file(path, "is no whole zip archive. Save or fetch it again"))?;
        Ok(Self { path: path.into(), bytes, members })
    }

    /// The members' names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.name.as_str())
    }

    /// A member's bytes, unpacked.
    pub(super) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let fail = |problem: &str| {
            Error::file(&self.path, format!("{name}: {problem}. Save or fetch it again"))
        };
        let member = self.members.iter().find(|member| member.name == name);
        let member = member.ok_or_else(|| fail("is not in it"))?;
        let packed = packed(&self.bytes, member).ok_or_else(|| fail("lies outside the archive"))?;
        if member.size > MOST_BYTES {
            return Err(fail(&format!("has {} bytes, at most {MOST_BYTES} are read", member.size)));
        }
        let mut bytes = Vec::new();
        // One byte more than stated shows whether something follows.
        let read = match member.method {
            0 => packed.take(member.size + 1).read_to_end(&mut bytes),
            8 => DeflateDecoder::new(packed).take(member.size + 1).read_to_end(&mut bytes),
            other => return Err(fail(&format!("is packed by method {other}, expected 0 or 8"))),
        };
        let mut crc = Crc::new();
        crc.update(&bytes);
        let whole = read.is_ok() && bytes.len() as u64 == member.size && crc.sum() == member.crc;
        if whole { Ok(bytes) } else { Err(fail("is damaged")) }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn usize_at(bytes: &[u8], at: usize) -> Option<usize> {
    u32_at(bytes, at).map(|value| value as usize)
}

/// The members of the central directory. Archives of more than 4 GiB (zip64) state 2³² - 1 for what
/// does not fit, so their places lie outside.
fn members(bytes: &[u8]) -> Option<Vec<Member>> {
    // A comment of up to 65,535 bytes may follow the end record.
    let last = bytes.len().checked_sub(END_BYTES)?;
    let mut places = (last.saturating_sub(65_535)..=last).rev();
    let end = places.find(|&at| bytes[at..].starts_with(b"PK\x05\x06"))?;
    let count = usize::from(u16_at(bytes, end + 10)?);
    let mut at = usize_at(bytes, end + 16)?;
    let mut members = Vec::new();
    for _ in 0..count {
        let header = bytes.get(at..)?;
        if !header.starts_with(b"PK\x01\x02") {
            return None;
        }
        let name = usize::from(u16_at(header, 28)?);
        let extra = usize::from(u16_at(header, 30)?);
        let comment = usize::from(u16_at(header, 32)?);
        members.push(Member {
            name: String::from_utf8_lossy(header.get(46..46 + name)?).into_owned(),
            method: u16_at(header, 10)?,
            crc: u32_at(header, 16)?,
            packed: usize_at(header, 20)?,
            size: u64::from(u32_at(header, 24)?),
            header: usize_at(header, 42)?,
        });
        at = at.checked_add(46 + name + extra + comment)?;
    }
    Some(members)
}

/// A member's bytes as packed, behind its own header.
fn packed<'a>(bytes: &'a [u8], member: &Member) -> Option<&'a [u8]> {
    let header = bytes.get(member.header..)?;
    if !header.starts_with(b"PK\x03\x04") {
        return None;
    }
    let begin = 30 + usize::from(u16_at(header, 26)?) + usize::from(u16_at(header, 28)?);
    header.get(begin..begin.checked_add(member.packed)?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::data::fuzz;
    use std::io::Write as _;

    /// An archive of these members, deflated.
    pub(in crate::data) fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let (mut all, mut directory) = (Vec::new(), Vec::new());
        for (name, bytes) in members {
            let level = flate2::Compression::fast();
            let mut packer = flate2::write::DeflateEncoder::new(Vec::new(), level);
            packer.write_all(bytes).unwrap();
            let packed = packer.finish().unwrap();
            let mut crc = Crc::new();
            crc.update(bytes);
            let sizes = [crc.sum(), packed.len() as u32, bytes.len() as u32];
            let mut common = vec![20, 0, 0, 0, 8, 0, 0, 0, 0, 0];
            common.extend(sizes.iter().flat_map(|size| size.to_le_bytes()));
            common.extend((name.len() as u16).to_le_bytes());
            common.extend([0, 0]);
            let offset = all.len() as u32;
            all.extend([b"PK\x03\x04", common.as_slice(), name.as_bytes(), &packed].concat());
            let rest = [&[0; 10][..], &offset.to_le_bytes(), name.as_bytes()].concat();
            directory.extend([b"PK\x01\x02\x14\0", common.as_slice(), &rest].concat());
        }
        let (at, count) = (all.len() as u32, members.len() as u16);
        all.extend(&directory);
        all.extend(b"PK\x05\x06\0\0\0\0");
        all.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
        all.extend([(directory.len() as u32).to_le_bytes(), at.to_le_bytes()].concat());
        all.extend([0, 0]);
        all
    }

    fn open(bytes: &[u8]) -> Result<Zip> {
        Zip::parse(bytes.to_vec(), Path::new("a.npz"))
    }

    #[test]
    fn members_are_unpacked_and_checked() {
        let bytes = archive(&[("a.npy", b"one"), ("b.npy", &[7; 1000])]);
        let zip = open(&bytes).unwrap();
        assert_eq!(zip.names().collect::<Vec<_>>(), ["a.npy", "b.npy"]);
        assert_eq!(
            (zip.read("a.npy").unwrap(), zip.read("b.npy").unwrap()),
            (b"one".to_vec(), vec![7; 1000])
        );
        assert!(open(&bytes[..bytes.len() - 1]).is_err());
        let mut damaged = bytes;
        damaged[36] ^= 1;
        let message = open(&damaged).unwrap().read("a.npy").unwrap_err().to_string();
        assert!(message.contains("a.npz: a.npy: is damaged"), "{message}");
    }

    #[test]
    fn no_bytes_make_the_reader_panic_or_unpack_more_than_stated() {
        let seed = archive(&[("a.npy", b"one"), ("b.npy", &[7; 1000])]);
        fuzz::mutate("zip", &seed, |bytes| {
            if let Ok(zip) = open(bytes) {
                for name in zip.names() {
                    let _ = zip.read(name);
                }
            }
        });
    }
}
