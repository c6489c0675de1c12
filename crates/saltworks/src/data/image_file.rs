//! An image in a file of its own.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::decode::{decode, info as info_of};
use super::{Background, Error, Info, Result, Sample};

/// Extensions that are read, in any case.
pub(super) const EXTENSIONS: [&str; 7] = ["png", "jpg", "jpeg", "webp", "bmp", "tif", "tiff"];

/// Most bytes of one image.
pub(super) const MOST_BYTES: u64 = 1 << 30;

/// Whether a file is named as images are.
pub(super) fn is_image(path: &Path) -> bool {
    EXTENSIONS.contains(&extension(path).as_str())
}

/// The extension in lower case, without the dot; empty without one.
pub(super) fn extension(path: &Path) -> String {
    path.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// The image of a file, decoded.
pub(super) fn read(path: &Path, label: i32, background: Background) -> Result<Sample> {
    let name = path.display().to_string();
    Ok(Sample { image: decode(&bytes(path)?, &name, background)?, label, name })
}

/// Size and storage of a file's image.
pub(super) fn info(path: &Path, background: Background) -> Result<Info> {
    info_of(&bytes(path)?, &path.display().to_string(), background)
}

fn bytes(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).map_err(|error| Error::read(path, error))?;
    let mut bytes = Vec::new();
    // Not by the size it states: a device states none and has no end.
    let read = file.take(MOST_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| Error::read(path, error))?;
    if bytes.len() as u64 > MOST_BYTES {
        let problem = format!("is longer than {MOST_BYTES} bytes");
        return Err(Error::Image { name: path.display().to_string(), problem });
    }
    Ok(bytes)
}
