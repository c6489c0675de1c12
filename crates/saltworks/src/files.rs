//! Files that appear whole or not at all.

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

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

/// Opens the regular file at `name` below `folder`. No link is followed on the way from `folder` to
/// the file, since it could lead anywhere. Pipes and devices are refused, since they might never
/// answer.
///
/// # Errors
/// A name that leaves the folder, a part of it that is a link, or a file that is not regular, as
/// [`InvalidInput`](io::ErrorKind::InvalidInput). What the system refuses.
pub fn open_regular_in(folder: &Path, name: &Path) -> io::Result<File> {
    let refused = |problem| io::Error::new(io::ErrorKind::InvalidInput, problem);
    let part = |part| match part {
        Component::Normal(part) => Ok(part),
        _ => Err(refused("its name leads out of its folder")),
    };
    let parts = name.components().map(part).collect::<io::Result<Vec<_>>>()?;
    let Some((file, folders)) = parts.split_last() else {
        return Err(refused("it is not a regular file"));
    };
    let mut at = open_at(CWD, folder, FOLDER)?;
    for part in folders {
        at = open_at(&at, *part, FOLDER | OFlags::NOFOLLOW).map_err(|error| match error {
            // A link is no folder, if it is not followed.
            Errno::LOOP | Errno::NOTDIR => refused("a part of its path is not a folder"),
            error => error.into(),
        })?;
    }
    let stat = rustix::fs::statat(&at, *file, AtFlags::SYMLINK_NOFOLLOW)?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(refused("it is not a regular file"));
    }
    let plain = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(open_at(&at, *file, plain)?);
    // It may have been replaced in between.
    if file.metadata()?.is_file() { Ok(file) } else { Err(refused("it is not a regular file")) }
}

/// How a folder is opened on the way to a file. It need not be readable.
#[cfg(target_os = "linux")]
const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::PATH);
#[cfg(not(target_os = "linux"))]
const FOLDER: OFlags = OFlags::DIRECTORY;

/// Opens a file below an open folder. Some file systems answer with an interruption by a signal.
fn open_at(at: impl AsFd, name: impl AsRef<OsStr>, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let (name, mode) = (name.as_ref(), Mode::from_raw_mode(0o666));
    retry_on_intr(|| rustix::fs::openat(&at, name, flags | OFlags::CLOEXEC, mode))
}

/// Opens a file to read it. Links are followed: its user named it. Pipes, devices and sockets are
/// refused, since they might never answer.
///
/// # Errors
/// A path that is neither a file nor a folder, and what the system refuses.
pub fn open_file(path: &Path) -> io::Result<File> {
    // Opening a pipe waits for a writer otherwise.
    let file = File::from(open_at(CWD, path, OFlags::RDONLY | OFlags::NONBLOCK)?);
    let kind = file.metadata()?.file_type();
    // Reading a folder fails by itself.
    match kind.is_file() || kind.is_dir() {
        true => Ok(file),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a pipe, a device or a socket, expected a file",
        )),
    }
}

/// Reads a file as [`open_file`].
///
/// # Errors
/// As [`open_file`].
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// [`open_regular_in`] for the file's own folder, to which links are followed.
///
/// # Errors
/// As [`open_regular_in`].
pub fn open_regular(path: &Path) -> io::Result<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let name = path.file_name().map(Path::new).unwrap_or(Path::new(""));
    open_regular_in(folder.unwrap_or(Path::new(".")), name)
}

/// Reads the file at `name` below `folder` as [`open_regular_in`], of at most `most` bytes.
///
/// # Errors
/// As [`open_regular_in`], and a file that is larger.
pub fn read_regular_in(folder: &Path, name: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_most(open_regular_in(folder, name)?, most)
}

/// Reads a file as [`open_regular`], of at most `most` bytes.
///
/// # Errors
/// As [`open_regular`], and a file that is larger.
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_most(open_regular(path)?, most)
}

/// Reads an open file of at most `most` bytes.
///
/// # Errors
/// A file that is larger, and what the system refuses.
pub fn read_most(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it is larger than {most} bytes"),
        )),
        false => Ok(bytes),
    }
}

/// Opens a regular file to read and write it, or creates it. Its content stays. Like
/// [`open_regular`], it follows no link: somebody else may have put it there to have another file
/// overwritten.
///
/// # Errors
/// As [`open_regular`].
pub fn open_or_create(path: &Path) -> io::Result<File> {
    open_to_write(path, OFlags::CREATE)
}

/// [`open_or_create`] for a file that exists.
///
/// # Errors
/// As [`open_regular`].
pub fn open_existing(path: &Path) -> io::Result<File> {
    open_to_write(path, OFlags::empty())
}

fn open_to_write(path: &Path, more: OFlags) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | more;
    let refused = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
    let file = open_at(CWD, path, flags);
    let file = File::from(file.map_err(|error| match error {
        Errno::LOOP | Errno::NXIO | Errno::ISDIR => refused(),
        error => error.into(),
    })?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(refused()) }
}

/// Refuses a pipe, a device or a socket, or a link to one: a file would take its place.
///
/// # Errors
/// One of these, as [`InvalidInput`](io::ErrorKind::InvalidInput).
pub fn expect_replaceable(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() && !found.is_dir() => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is a pipe, a device or a socket, which a file cannot replace",
        )),
        _ => Ok(()),
    }
}

/// Writes `bytes` to a temporary file beside `path`, makes it durable, and renames it into place.
///
/// # Errors
/// As [`expect_replaceable`], and what the system refuses.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_whole_with(path, |file| file.write_all(bytes)).map(drop)
}

/// [`write_whole`] for content that `write` produces piece by piece.
pub fn write_whole_with(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<Record> {
    expect_replaceable(path)?;
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

/// Creates a file. What has its name is removed first: a leftover of a killed process, or a link,
/// which would be followed otherwise.
fn new_file(path: &Path) -> io::Result<File> {
    match File::create_new(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            File::create_new(path)
        }
        made => made,
    }
}

fn write_durable(
    path: &Path,
    name: String,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<Record> {
    let file = Hashed { file: new_file(path)?, bytes: 0, hash: Sha256::new() };
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

    /// As root, `--out /dev/null` would make /dev/null a file.
    #[test]
    fn a_device_or_pipe_is_not_replaced_by_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status();
        assert!(made.unwrap().success());
        std::os::unix::fs::symlink("/dev/null", path("null")).unwrap();
        for name in ["pipe", "null"] {
            let message = write_whole(&path(name), b"x").unwrap_err().to_string();
            assert!(message.contains("a pipe, a device or a socket"), "{message}");
            let kind = fs::metadata(path(name)).unwrap().file_type();
            assert!(!kind.is_file(), "{name} became a file");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
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
    fn a_pipe_that_nobody_writes_to_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write_whole(&path("file"), b"12345").unwrap();
        std::os::unix::fs::symlink(path("file"), path("link")).unwrap();
        assert_eq!(read_file(&path("link")).unwrap(), b"12345");
        let made = std::process::Command::new("mkfifo").arg(path("pipe")).status();
        assert!(made.unwrap().success());
        std::os::unix::fs::symlink(path("pipe"), path("to a pipe")).unwrap();
        for name in ["pipe", "to a pipe", "/dev/zero"] {
            let error = read_file(&path(name)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}: {error}");
        }
        assert!(read_file(folder.path()).is_err());
    }

    #[test]
    fn links_that_are_planted_are_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write_whole(&path("mine"), b"mine").unwrap();
        let temporary = format!("a.json.{}{TEMPORARY}", std::process::id());
        for link in [temporary.as_str(), "a.json", "log"] {
            std::os::unix::fs::symlink(path("mine"), path(link)).unwrap();
        }
        write_whole(&path("a.json"), b"new").unwrap();
        assert!(!fs::symlink_metadata(path("a.json")).unwrap().is_symlink());
        assert_eq!(fs::read(path("a.json")).unwrap(), b"new");
        for refused in ["log", "."] {
            let error = open_or_create(&path(refused)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{refused}: {error}");
        }
        open_or_create(&path("other")).unwrap().write_all(b"12").unwrap();
        open_or_create(&path("other")).unwrap().write_all(b"3").unwrap();
        assert_eq!(fs::read(path("other")).unwrap(), b"32");
        assert_eq!(fs::read(path("mine")).unwrap(), b"mine");
    }

    #[test]
    fn no_part_of_a_path_below_a_folder_may_be_a_link() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("a/b")).unwrap();
        write_whole(&path("a/b/file"), b"12345").unwrap();
        write_whole(&elsewhere.path().join("file"), b"secret").unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), path("out")).unwrap();
        std::os::unix::fs::symlink(path("a/b"), path("a/in")).unwrap();
        let read = |name: &str| read_regular_in(folder.path(), Path::new(name), 9);
        assert_eq!(read("a/b/file").unwrap(), b"12345");
        let up = format!("../{}/file", elsewhere.path().file_name().unwrap().to_string_lossy());
        let absolute = elsewhere.path().join("file").display().to_string();
        for name in ["out/file", "a/in/file", "a/b", "a/../a/b/file", &up, &absolute, ""] {
            let error = read(name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{name}: {error}");
        }
        for missing in ["c/file", "a/b/c"] {
            assert_eq!(read(missing).unwrap_err().kind(), io::ErrorKind::NotFound, "{missing}");
        }
        // The folder itself may be reached by a link: its user named it.
        assert_eq!(read_regular_in(&path("out"), Path::new("file"), 9).unwrap(), b"secret");
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
