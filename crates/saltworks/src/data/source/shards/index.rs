//! The index of an archive: its headers and labels. The index of an object in a store is cached for
//! the next start.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::data::source::image_file::EXTENSIONS;
use crate::data::store::object::Object;
use crate::data::store::tar::{Member, Members, ReadAt};
use crate::data::{Error, Result};
use crate::files;

use super::SampleGroup;

/// The most bytes of a member that holds a label.
const MOST_LABEL_BYTES: u64 = 1 << 20;

/// Bytes that are requested from a store at once. A header has 512. (guess) About as many arrive in
/// the time that an answer takes to begin.
const BLOCK_BYTES: u64 = 1 << 20;

/// Opens an archive and finds its samples.
pub(super) fn index(path: &Path) -> Result<(Object, Vec<SampleGroup>)> {
    let object = Object::open(path)?;
    let len = object.len();
    let Some(kept) = kept_at(path, &object) else {
        let groups = groups(&object, path, len)?;
        return Ok((object, groups));
    };
    // If the cached index cannot be used, the archive is read again.
    let earlier = std::fs::read(&kept).ok();
    if let Some(groups) = earlier.and_then(|text| serde_json::from_slice(&text).ok()) {
        return Ok((object, groups));
    }
    let groups = groups(&TarBlocks::of(&object), path, len)?;
    if let Ok(text) = serde_json::to_vec(&groups)
        && let Some(folder) = kept.parent()
    {
        // If this fails, the next start is slower. Nothing else depends on it.
        let _ = std::fs::create_dir_all(folder).and_then(|()| files::write_whole(&kept, &text));
    }
    Ok((object, groups))
}

/// Where the index of an object in a store is cached: in the user's cache folder, by URL, length
/// and version.
fn kept_at(path: &Path, object: &Object) -> Option<PathBuf> {
    let version = object.version()?;
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = folder("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(folder("HOME")?).join(".cache")))?;
    let key = format!("2\n{}\n{}\n{version}", path.display(), object.len());
    let name = format!("{}.json", files::sha256(key.as_bytes()));
    Some(cache.join("saltworks").join("tar-index").join(name))
}

/// An object read in blocks. The last block is kept.
struct TarBlocks<'a> {
    object: &'a Object,
    /// Where the block begins, and its bytes.
    block: RefCell<(u64, Vec<u8>)>,
}

impl<'a> TarBlocks<'a> {
    fn of(object: &'a Object) -> Self {
        Self { object, block: RefCell::default() }
    }
}

impl ReadAt for TarBlocks<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut block = self.block.borrow_mut();
        let (begin, bytes) = &mut *block;
        let end = offset.saturating_add(buffer.len() as u64);
        if offset < *begin || end > *begin + bytes.len() as u64 {
            if buffer.len() as u64 > BLOCK_BYTES || end > self.object.len() {
                return self.object.read_at(buffer, offset);
            }
            bytes.resize(BLOCK_BYTES.min(self.object.len() - offset) as usize, 0);
            *begin = offset;
            if let Err(error) = self.object.read_at(bytes, offset) {
                bytes.clear();
                return Err(error);
            }
        }
        let start = (offset - *begin) as usize;
        buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
        Ok(())
    }
}

/// The samples of an archive in the order of their first members.
pub(super) fn groups(file: &impl ReadAt, path: &Path, len: u64) -> Result<Vec<SampleGroup>> {
    let mut members = Members::new(file, path, len);
    let mut groups: Vec<SampleGroup> = Vec::new();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    while let Some(mut member) = members.next_file()? {
        if let Some(plain) = member.name.strip_prefix("./") {
            member.name = plain.to_owned();
        }
        let Some((key, extension)) = split(&member.name) else { continue };
        let (more, last) = extension.rsplit_once('.').unwrap_or(("", &extension));
        let is_image = EXTENSIONS.contains(&last);
        if !is_image && !["cls", "json"].contains(&extension.as_str()) {
            continue;
        }
        let number = *numbers.entry(key.to_owned()).or_insert(groups.len());
        if number == groups.len() {
            groups.push(SampleGroup::default());
        }
        let group = &mut groups[number];
        if is_image && more.is_empty() {
            group.image.get_or_insert(member);
        } else if is_image {
            group.others.push(member);
        } else if let Some(label) = read_label(file, path, &member, &extension)? {
            group.label = Some(label);
        }
    }
    Ok(groups)
}

/// Key and lower-case extension of a member. None if the member is hidden or has no dot.
fn split(name: &str) -> Option<(&str, String)> {
    if name.split('/').any(|part| part.starts_with('.')) {
        return None;
    }
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.')?;
    Some((&name[..dot], name[dot + 1..].to_lowercase()))
}

fn read_label(
    file: &impl ReadAt,
    path: &Path,
    member: &Member,
    extension: &str,
) -> Result<Option<String>> {
    let fail = |problem: String| Error::file(path, format!("{}: {problem}", member.name));
    if member.size > MOST_LABEL_BYTES {
        let (found, most) = (member.size, MOST_LABEL_BYTES);
        return Err(fail(format!("holds a label in {found} bytes, expected at most {most}")));
    }
    let mut bytes = vec![0; member.size as usize];
    file.read_at(&mut bytes, member.offset).map_err(|error| Error::read(path, error))?;
    if extension == "cls" {
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        return match text.parse::<i32>() {
            Ok(_) => Ok(Some(text)),
            Err(_) => {
                let start: String = text.chars().take(20).collect();
                Err(fail(format!("holds {start:?}, expected the number of a class")))
            }
        };
    }
    let json: serde_json::Value = serde_json::from_slice(&bytes)
        .map_err(|error| fail(format!("is not JSON ({error}). Fix or remove it")))?;
    let label = ["label", "cls"].iter().find_map(|key| json.get(key));
    Ok(match label {
        Some(serde_json::Value::String(name)) => Some(name.clone()),
        Some(serde_json::Value::Number(number)) => Some(number.to_string()),
        _ => None,
    })
}
