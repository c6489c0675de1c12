//! The kind of a file, by its first bytes.

use super::{Error, torch_file};
use crate::files::open_file;
use std::io::Read as _;
use std::path::Path;

/// Bytes needed to identify a file. tar's mark is at byte 257.
const START_BYTES: u64 = 512;

/// The most bytes of a safetensors header, enough for about a hundred thousand tensors. Parsing
/// needs many times its length in memory. The safetensors crate allows 100 MB.
pub(super) const MOST_HEADER_BYTES: u64 = 16 << 20;

/// The first bytes of pickles before torch 1.6: `MAGIC_NUMBER` of torch/serialization.py.
const LEGACY: &[u8] = b"\x80\x02\x8A\x0A\x6C\xFC\x9C\x46\xF9\x20\x6A\xA8\x50\x19\x2E";

/// Extensions of files of weights.
const EXTENSIONS: [&str; 5] = ["safetensors", "pt", "pth", "ckpt", "bin"];

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A safetensors file.
    Safetensors,
    /// A zip archive, as torch writes it.
    Zip,
    /// JSON, perhaps the index of a model in several files.
    Index,
    /// A kind that is not supported: what it is, and what to do.
    Refused(&'static str),
    /// None of these.
    Unknown,
}

impl FileKind {
    /// Reads the first bytes of a file.
    pub(super) fn of(path: &Path) -> Result<Self, Error> {
        let file = open_file(path).map_err(|source| Error::read(path, source))?;
        let mut start = Vec::new();
        let read = file.take(START_BYTES).read_to_end(&mut start);
        read.map_err(|source| Error::read(path, source))?;
        Ok(Self::of_bytes(&start))
    }

    fn of_bytes(start: &[u8]) -> Self {
        let header = start.first_chunk().map(|&length| u64::from_le_bytes(length));
        let is_tar = start.get(257..262) == Some(b"ustar");
        match start {
            [b'P', b'K', 3, 4, ..] => Self::Zip,
            _ if start.starts_with(LEGACY) || is_tar => Self::Refused(
                "is in torch's format from before 1.6. In Python: torch.save(torch.load(OLD, \
                 map_location=\"cpu\", weights_only=True), NEW)",
            ),
            // The length of its header may begin with the bytes of a pickle.
            [.., _]
                if header.is_some_and(|header| header <= MOST_HEADER_BYTES)
                    && start.get(8) == Some(&b'{') =>
            {
                Self::Safetensors
            }
            [0x80, 2..=5, ..] => Self::Refused(
                "is a bare pickle, not a file of torch.save, and reading it would run its code. In \
                 Python, if you trust it: torch.save(pickle.load(open(OLD, \"rb\")), NEW)",
            ),
            [b'{', b' ' | b'\n' | b'\r' | b'\t' | b'"', ..] => Self::Index,
            _ if is_page(start) => Self::Refused(
                "is a page of HTML, not a file of weights: its download was refused, or its \
                 address is that of a page. Fetch the file itself",
            ),
            _ if start.starts_with(b"version https://git-lfs") => Self::Refused(
                "is a pointer of Git LFS, not the file itself. In its repository: git lfs pull",
            ),
            _ => Self::Unknown,
        }
    }
}

fn is_page(start: &[u8]) -> bool {
    let text = start.trim_ascii_start();
    let begins = |word: &[u8]| text.get(..word.len()).is_some_and(|t| t.eq_ignore_ascii_case(word));
    begins(b"<!doctype html") || begins(b"<html")
}

/// The error for a file of unknown kind.
pub(super) fn unknown(path: &Path) -> Error {
    if path.extension().is_some_and(|extension| extension == "onnx") {
        let problem = "is named as an ONNX graph, which cannot be read. Give the weights that it \
                       was exported from";
        return Error::torch(path, problem);
    }
    let problem = format!(
        "it begins neither with a safetensors header, expected at most {MOST_HEADER_BYTES} bytes \
         of JSON, nor like a file of torch.save"
    );
    Error::format(path, problem)
}

/// Whether a file holds weights, by its content or its name.
pub fn is_weights(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let named = EXTENSIONS.iter().any(|extension| name.ends_with(&format!(".{extension}")));
    if named || name.ends_with(".index.json") {
        return path.is_file();
    }
    path.is_file()
        && match FileKind::of(path) {
            Ok(FileKind::Safetensors) => true,
            Ok(FileKind::Zip) => torch_file::is_torch(path),
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell_what_a_file_is() {
        let mut tar = [0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let legacy = [LEGACY, b"M\xE9\x03."].concat();
        let cases: [(&[u8], &str); 9] = [
            (b"PK\x03\x04", "Zip"),
            // A header of 0x10280 bytes.
            (b"\x80\x02\x01\0\0\0\0\0{", "Safetensors"),
            (b"\x02\0\0\0\0\0\0\0{}", "Safetensors"),
            (&legacy, "format from before 1.6. In Python: torch.save(torch.load(OLD"),
            (&tar, "format from before 1.6"),
            (b"\x80\x04\x95", "bare pickle"),
            (b"{\n  \"weight_map\": {", "Index"),
            (b"\n<!DOCTYPE html><html>404", "is a page of HTML"),
            (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ];
        for (start, words) in cases {
            let form = format!("{:?}", FileKind::of_bytes(start));
            assert!(form.contains(words), "{form}");
        }
        for start in [&b""[..], b"PK", b"\x80", b"{", b"\0\0\x08\x03\0\0\0\0\0", &[0xFF; 600]] {
            assert_eq!(FileKind::of_bytes(start), FileKind::Unknown);
        }
    }
}
