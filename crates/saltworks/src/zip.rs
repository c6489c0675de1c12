//! Members of a zip archive: NumPy's `.npz`, and the files of `torch.save`. They are stored or
//! deflated, with the fields of zip64 (PKWARE, APPNOTE.TXT 6.3). Members are read one by one.
//! Errors do not name the archive's path: the caller adds it.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom, Take};

use flate2::{Crc, read::DeflateDecoder};

/// Length of the record that ends an archive, without its comment.
const END_BYTES: usize = 22;

/// Length of the locator of zip64's record. It comes right before the end record.
const LOCATOR_BYTES: usize = 20;

/// The most bytes of a comment at the end.
const MOST_COMMENT_BYTES: u64 = 65_535;

/// The most bytes of the directory, which is held in memory: about 700,000 members.
const MOST_DIRECTORY_BYTES: u64 = 64 << 20;

/// An open archive.
pub(crate) struct Zip<R> {
    file: R,
    members: Vec<ZipMember>,
    /// Indices of `members`.
    by_name: HashMap<String, usize>,
}

#[derive(Clone, Debug)]
struct ZipMember {
    name: String,
    method: u16,
    crc: u32,
    packed: u64,
    size: u64,
    /// Offset of its own header.
    header: u64,
    /// Offset of the next member's header, or of the directory.
    end: u64,
}

impl<R: Read + Seek> Zip<R> {
    /// Reads the directory of an archive. Two members that share a header or a name are refused:
    /// their content would depend on the reader.
    pub(crate) fn open(mut file: R) -> Result<Self, String> {
        let (directory, begin) = directory(&mut file)
            .ok_or("is not a whole zip archive. Save or fetch it again".to_owned())?;
        let mut members = members(&directory)
            .ok_or("has a damaged directory. Save or fetch it again".to_owned())?;
        set_ends(&mut members, begin)?;
        let mut by_name = HashMap::new();
        for (index, member) in members.iter().enumerate() {
            if by_name.insert(member.name.clone(), index).is_some() {
                return Err(format!("has two members {}. Save or fetch it again", member.name));
            }
        }
        Ok(Self { file, members, by_name })
    }

    /// The members' names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.name.as_str())
    }

    fn member(&self, name: &str) -> Option<&ZipMember> {
        Some(&self.members[*self.by_name.get(name)?])
    }

    /// How many bytes a member has, unpacked.
    pub(crate) fn size(&self, name: &str) -> Option<u64> {
        self.member(name).map(|member| member.size)
    }

    /// The name of a compressed member, if there is one.
    pub(crate) fn compressed(&self) -> Option<&str> {
        self.members.iter().find(|member| member.method != 0).map(|member| member.name.as_str())
    }

    /// A member's bytes, unpacked. A member of more than `most` bytes is refused.
    pub(crate) fn read(&mut self, name: &str, most: u64) -> Result<Vec<u8>, String> {
        let fail = |problem: &str| format!("{name}: {problem}. Save or fetch it again");
        let member = self.member(name).ok_or_else(|| fail("is not in it"))?.clone();
        if member.size > most {
            return Err(fail(&format!("has {} bytes, at most {most} are read", member.size)));
        }
        let packed = packed(&mut self.file, &member)
            .ok_or_else(|| fail("lies outside the archive or overlaps another member"))?;
        // A stored member lies in the file, so its size can be trusted.
        let stored = if member.method == 0 { member.size.min(member.packed) } else { 0 };
        let mut bytes = Vec::with_capacity(stored as usize);
        // One byte more than stated shows whether something follows.
        let read = match member.method {
            0 => packed.take(member.size + 1).read_to_end(&mut bytes),
            8 => DeflateDecoder::new(packed).take(member.size + 1).read_to_end(&mut bytes),
            other => return Err(fail(&format!("is packed by method {other}, expected 0 or 8"))),
        };
        let whole = read.is_ok() && bytes.len() as u64 == member.size;
        // torch can leave checksums out. It then writes 0.
        let intact = || member.crc == 0 || crc(&bytes) == member.crc;
        if whole && intact() { Ok(bytes) } else { Err(fail("is damaged")) }
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

fn bytes_at(file: &mut (impl Read + Seek), at: u64, len: u64) -> Option<Vec<u8>> {
    file.seek(SeekFrom::Start(at)).ok()?;
    let mut bytes = Vec::new();
    file.take(len).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 == len).then_some(bytes)
}

/// The central directory up to its last member, and its offset.
fn directory(file: &mut (impl Read + Seek)) -> Option<(Vec<u8>, u64)> {
    let len = file.seek(SeekFrom::End(0)).ok()?;
    let start = len.saturating_sub(MOST_COMMENT_BYTES + (END_BYTES + LOCATOR_BYTES) as u64);
    let tail = bytes_at(file, start, len - start)?;
    // The end record is the last whose comment fills the file.
    let is_end = |at: &usize| {
        let comment = u16_at(&tail, at + 20).map(usize::from);
        tail[*at..].starts_with(b"PK\x05\x06") && comment == Some(tail.len() - at - END_BYTES)
    };
    let end = (0..=tail.len().checked_sub(END_BYTES)?).rev().find(is_end)?;
    let locator = end.checked_sub(LOCATOR_BYTES).map(|at| &tail[at..end]);
    let (size, begin) = match locator.filter(|locator| locator.starts_with(b"PK\x06\x07")) {
        None => (u32_at(&tail, end + 12)?.into(), u32_at(&tail, end + 16)?.into()),
        Some(locator) => {
            let record = bytes_at(file, u64_at(locator, 8)?, 56)?;
            let is_record = record.starts_with(b"PK\x06\x06");
            is_record.then_some((u64_at(&record, 40)?, u64_at(&record, 48)?))?
        }
    };
    let fits = size <= MOST_DIRECTORY_BYTES && begin.checked_add(size)? <= start + end as u64;
    fits.then(|| bytes_at(file, begin, size)).flatten().map(|bytes| (bytes, begin))
}

/// The members of a central directory.
fn members(mut directory: &[u8]) -> Option<Vec<ZipMember>> {
    let mut members = Vec::new();
    while !directory.is_empty() {
        if !directory.starts_with(b"PK\x01\x02") {
            return None;
        }
        let [name, extra, comment] = [28, 30, 32].map(|at| u16_at(directory, at).map(usize::from));
        let (name_end, extra_end) = (46 + name?, 46 + name? + extra?);
        let mut large = zip64(directory.get(name_end..extra_end)?);
        // zip64 holds the fields that are 2^32 - 1 here, in this order.
        let mut number = |at: usize| match u32_at(directory, at)? {
            u32::MAX => large.next().or(Some(u32::MAX.into())),
            number => Some(number.into()),
        };
        let (size, packed, header) = (number(24)?, number(20)?, number(42)?);
        members.push(ZipMember {
            name: String::from_utf8_lossy(directory.get(46..name_end)?).into_owned(),
            method: u16_at(directory, 10)?,
            crc: u32_at(directory, 16)?,
            packed,
            size,
            header,
            end: 0,
        });
        directory = directory.get(extra_end + comment?..)?;
    }
    Some(members)
}

/// The numbers of the extra field of zip64, if there is one.
fn zip64(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut found: &[u8] = &[];
    while let (Some(id), Some(len)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let end = extra.len().min(4 + usize::from(len));
        if id == 1 {
            found = &extra[4..end];
        }
        extra = &extra[end..];
    }
    found.chunks_exact(8).filter_map(|number| u64_at(number, 0))
}

/// Sets the offset at which each member must have ended.
fn set_ends(members: &mut [ZipMember], directory: u64) -> Result<(), String> {
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_by_key(|&index| members[index].header);
    let mut end = directory;
    for &index in order.iter().rev() {
        let member = &mut members[index];
        if member.header >= end {
            return Err(format!(
                "{}: lies outside the archive or overlaps another member. Save or fetch it again",
                member.name
            ));
        }
        member.end = end;
        end = member.header;
    }
    Ok(())
}

/// A member's packed bytes. They follow its own header.
fn packed<'f, R: Read + Seek>(file: &'f mut R, member: &ZipMember) -> Option<Take<&'f mut R>> {
    let header = bytes_at(file, member.header, 30)?;
    let [name, extra] = [26, 28].map(|at| u16_at(&header, at).map(u64::from));
    let begin = member.header + 30 + name? + extra?;
    let fits = begin.checked_add(member.packed)? <= member.end;
    if !fits || !header.starts_with(b"PK\x03\x04") {
        return None;
    }
    file.seek(SeekFrom::Start(begin)).ok()?;
    Some(file.take(member.packed))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::fuzz;
    use std::io::{Cursor, Write as _};

    /// An archive of these members, deflated.
    pub(crate) fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
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

    fn open(bytes: &[u8]) -> Result<Zip<Cursor<&[u8]>>, String> {
        Zip::open(Cursor::new(bytes))
    }

    const MOST: u64 = 10_000;

    #[test]
    fn members_are_unpacked_and_checked() {
        let bytes = archive(&[("a.npy", b"one"), ("b.npy", &[7; 1000])]);
        let mut zip = open(&bytes).unwrap();
        assert_eq!(zip.names().collect::<Vec<_>>(), ["a.npy", "b.npy"]);
        assert_eq!(
            (zip.read("a.npy", MOST).unwrap(), zip.read("b.npy", MOST).unwrap()),
            (b"one".to_vec(), vec![7; 1000])
        );
        assert!(open(&bytes[..bytes.len() - 1]).is_err());
        let mut damaged = bytes;
        damaged[36] ^= 1;
        let message = open(&damaged).unwrap().read("a.npy", MOST).unwrap_err();
        assert!(message.contains("a.npy: is damaged"), "{message}");
    }

    #[test]
    fn a_member_is_unpacked_up_to_a_limit() {
        // A thousand times smaller than what it unpacks to.
        let bytes = archive(&[("zeros.npy", &vec![0; 1 << 20])]);
        assert!(bytes.len() < 10_000);
        let message = open(&bytes).unwrap().read("zeros.npy", MOST).unwrap_err();
        assert!(message.contains("has 1048576 bytes, at most 10000 are read"), "{message}");
        // What it states is less than it holds.
        let mut lies = bytes.clone();
        let directory = lies.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
        lies[directory + 24..][..4].copy_from_slice(&9_999_u32.to_le_bytes());
        let message = open(&lies).unwrap().read("zeros.npy", MOST).unwrap_err();
        assert!(message.contains("zeros.npy: is damaged"), "{message}");
    }

    #[test]
    fn members_that_overlap_or_lie_outside_are_refused() {
        let bytes = archive(&[("a.npy", b"one"), ("b.npy", b"two")]);
        let directories: Vec<usize> =
            (0..bytes.len()).filter(|&at| bytes[at..].starts_with(b"PK\x01\x02")).collect();
        let with = |member: usize, field: usize, number: u32| {
            let mut bytes = bytes.clone();
            bytes[directories[member] + field..][..4].copy_from_slice(&number.to_le_bytes());
            let read = open(&bytes).and_then(|mut zip| {
                zip.read("a.npy", MOST)?;
                zip.read("b.npy", MOST)
            });
            read.unwrap_err()
        };
        for (member, header) in [(1, 0), (0, u32::MAX), (1, 1 << 20)] {
            let message = with(member, 42, header);
            assert!(message.contains("lies outside the archive or overlaps"), "{message}");
        }
        // Its packed bytes would reach into the next member, or into the directory.
        for member in [0, 1] {
            assert!(with(member, 20, 60).contains("overlaps"));
        }
        let twice = archive(&[("a.npy", b"one"), ("a.npy", b"two")]);
        assert!(open(&twice).err().unwrap().contains("has two members a.npy"));
    }

    #[test]
    fn no_bytes_make_the_reader_panic_or_unpack_more_than_stated() {
        let seed = archive(&[("a.npy", b"one"), ("b.npy", &[7; 1000])]);
        fuzz::mutate("zip", &seed, |bytes| {
            if let Ok(mut zip) = open(bytes) {
                let names: Vec<String> = zip.names().map(str::to_owned).collect();
                for name in names {
                    let read = zip.read(&name, MOST);
                    assert!(read.is_err() || read.is_ok_and(|bytes| bytes.len() as u64 <= MOST));
                }
            }
        });
    }
}
