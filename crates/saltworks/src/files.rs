//! Files that appear whole or not at all.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::path::Path;

/// Identifies the content of a file as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The file's name in its folder.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its content, in hexadecimal digits.
    pub sha256: String,
}

impl Record {
    /// What is wrong with `content` as that of the file, if anything.
    pub fn problem(&self, content: &[u8]) -> Option<String> {
        let (found, expected) = (content.len() as u64, self.bytes);
        if found != expected {
            return Some(format!("holds {found} bytes, expected {expected}"));
        }
        let changed = sha256(content) != self.sha256;
        changed.then(|| "its SHA-256 is not the one recorded: some of its bytes changed".to_owned())
    }
}

/// Opens a regular file. Links are not followed, since they could lead anywhere. Pipes and devices
/// are refused, since they might never answer.
///
/// # Errors
/// The path is not a regular file, or the system refuses it.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let refused = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC,
    );
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(refused());
    }
    let file = options.open(path)?;
    // It may have been replaced in between.
    if file.metadata()?.is_file() { Ok(file) } else { Err(refused()) }
}

/// Reads a regular file of at most `most` bytes.
///
/// # Errors
/// As [`open_regular`], and a file that is larger.
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is larger than {most} bytes"),
        )),
        false => Ok(bytes),
    }
}

/// Writes `bytes` to a temporary file beside `path`, makes it durable, and renames it into place.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole_with(path, |file| file.write_all(bytes)).map(drop)
}

/// [`write_whole`] for content that `write` produces piece by piece.
pub fn write_whole_with(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<Record> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let temporary = path.with_file_name(format!("{name}.{}{TEMPORARY}", std::process::id()));
    let record = write_durable(&temporary, name, write)
        .and_then(|record| rename(&temporary, path).map(|()| record));
    if record.is_err() {
        // The first error matters. A leftover file is harmless.
        let _ = fs::remove_file(&temporary);
    }
    record
}

/// The suffix of a file that is not complete yet.
const TEMPORARY: &str = ".tmp";

/// Removes the unfinished files that killed processes left in `folder`. No other process may be
/// writing there.
pub fn remove_temporaries(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_suffix(TEMPORARY).and_then(|name| name.rsplit('.').next());
        if process.is_some_and(|process| process.parse::<u32>().is_ok()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn write_durable(
    path: &Path,
    name: String,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<Record> {
    let file = Hashed { file: File::create(path)?, bytes: 0, hash: Sha256::new() };
    let mut file = BufWriter::with_capacity(1 << 16, file);
    write(&mut file)?;
    let Hashed { file, bytes, hash } = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    Ok(Record { file: name, bytes, sha256: hex(&hash.finalize()) })
}

/// A file that counts and hashes what is written.
struct Hashed {
    file: File,
    bytes: u64,
    hash: Sha256,
}

impl Write for Hashed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.hash.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The SHA-256 of some bytes in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

// The one place that may rename: both files are in one folder.
#[allow(clippy::disallowed_methods)]
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    match to.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write_whole(&path, b"one").unwrap();
        write_whole(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("folder");
        fs::create_dir_all(inside.join("full")).unwrap();
        assert!(write_whole(&inside, b"x").is_err());
        assert!(inside.join("full").is_dir());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_record_knows_its_file_from_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        let content: Vec<u8> = (0..200_000).map(|index| (index % 251) as u8).collect();
        let halves = content.split_at(70_000);
        let record = write_whole_with(&path, |file| {
            file.write_all(halves.0)?;
            file.write_all(halves.1)
        });
        let record = record.unwrap();
        assert_eq!((record.file.as_str(), record.bytes), ("a.bin", 200_000));
        let mut found = fs::read(&path).unwrap();
        assert_eq!(record.problem(&found), None);
        found[123_456] ^= 4;
        assert!(record.problem(&found).unwrap().contains("SHA-256"));
        assert!(record.problem(&content[1..]).unwrap().contains("199999 bytes, expected 200000"));
    }

    #[cfg(unix)]
    #[test]
    fn links_pipes_and_folders_are_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write_whole(&path("file"), b"12345").unwrap();
        assert_eq!(read_regular(&path("file"), 5).unwrap(), b"12345");
        assert!(read_regular(&path("file"), 4).unwrap_err().to_string().contains("4 bytes"));
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status();
        assert!(made.unwrap().success());
        for name in ["link", "pipe", ".", "/dev/zero"] {
            let error = read_regular(&path(name), 5).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}: {error}");
        }
        let missing = read_regular(&path("missing"), 5).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_leftovers_of_our_own_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.json.123.tmp", "mine.tmp", "a.json", "b.x.tmp"] {
            File::create(folder.path().join(name)).unwrap();
        }
        remove_temporaries(folder.path()).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["a.json", "b.x.tmp", "mine.tmp"]);
    }
}
