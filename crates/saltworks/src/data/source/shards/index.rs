//! The index of an archive: its headers and labels. The index of an object in a store is cached for
//! the next start.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::data::source::image_file::{EXTENSIONS, extension};
use crate::data::store::object::Object;
use crate::data::store::tar::{ArchiveEnd, Link, Member, Members, ReadAt, plain_path};
use crate::data::{Error, Result};
use crate::files;
use serde::{Deserialize, Serialize};

use super::SampleGroup;
use super::labels::SampleLabel;
use super::not_read::NotRead;

/// The most bytes of a member that holds a label.
const MOST_LABEL_BYTES: u64 = 1 << 20;

/// Bytes that are requested from a store at once. A header has 512. (guess) About as many arrive in
/// the time that an answer takes to begin.
const BLOCK_BYTES: u64 = 1 << 20;

/// The most links that lead from one member to another.
const MOST_LINKS: usize = 8;

/// The samples of an archive in the order of their first members, and what else it holds.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct TarIndex {
    pub(super) groups: Vec<SampleGroup>,
    pub(super) not_read: NotRead,
}

/// Opens an archive and finds its samples.
pub(super) fn index(path: &Path) -> Result<(Object, TarIndex)> {
    let object = Object::open(path)?;
    let len = object.len();
    let Some(kept) = kept_at(path, &object) else {
        let index = index_of(&object, path, len)?;
        return Ok((object, index));
    };
    // If the cached index cannot be used, the archive is read again.
    let earlier = std::fs::read(&kept).ok();
    if let Some(index) = earlier.and_then(|text| serde_json::from_slice(&text).ok()) {
        return Ok((object, index));
    }
    let index = index_of(&TarBlocks::of(&object), path, len)?;
    if let Ok(text) = serde_json::to_vec(&index)
        && let Some(folder) = kept.parent()
    {
        // If this fails, the next start is slower. Nothing else depends on it.
        let _ = std::fs::create_dir_all(folder).and_then(|()| files::write_whole(&kept, &text));
    }
    Ok((object, index))
}

/// Where the index of an object in a store is cached: in the user's cache folder, by URL, length
/// and version.
fn kept_at(path: &Path, object: &Object) -> Option<PathBuf> {
    let version = object.version()?;
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = folder("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(folder("HOME")?).join(".cache")))?;
    let key = format!("5\n{}\n{}\n{version}", path.display(), object.len());
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

/// Reads the headers and the labels of an archive.
pub(super) fn index_of(file: &impl ReadAt, path: &Path, len: u64) -> Result<TarIndex> {
    let mut members = Members::new(file, path, len);
    let mut index = IndexBuilder {
        file,
        path,
        numbers: HashMap::new(),
        places: HashMap::new(),
        made: TarIndex::default(),
    };
    while let Some(member) = members.next_file()? {
        index.add(member)?;
    }
    let (links, end) = members.finish();
    let targets = targets(file, path, len, &links)?;
    for Link { name, target } in links {
        match followed(&targets, target) {
            Ok(Member { offset, size, .. }) => index.add(Member { name, offset, size })?,
            // A link to a folder, out of the archive, or to a member that is not there.
            Err(target) if is_image(&name) => {
                index.made.not_read.links.add(&format!("{name} -> {target}"));
            }
            Err(_) => {}
        }
    }
    match end {
        ArchiveEnd::Marked => {}
        ArchiveEnd::Unmarked => index.made.not_read.unmarked.add(&path.display().to_string()),
        ArchiveEnd::Continued(at) => {
            index.made.not_read.continued.add(&format!("{} at byte {at}", path.display()));
        }
    }
    Ok(index.made)
}

/// What a path in an archive stands for.
enum LinkTarget {
    File(Member),
    /// Another path.
    Link(String),
}

/// The members and links that the links lead to, by their paths. The archive is read once more if
/// it has links.
fn targets(
    file: &impl ReadAt,
    path: &Path,
    len: u64,
    links: &[Link],
) -> Result<HashMap<String, LinkTarget>> {
    let wanted: HashSet<&str> = links.iter().map(|link| link.target.as_str()).collect();
    let mut targets = HashMap::new();
    if wanted.is_empty() {
        return Ok(targets);
    }
    for Link { name, target } in links {
        targets.insert(plain_path(name), LinkTarget::Link(target.clone()));
    }
    let mut members = Members::new(file, path, len);
    while let Some(member) = members.next_file()? {
        let name = plain_path(&member.name);
        if wanted.contains(name.as_str()) {
            targets.insert(name, LinkTarget::File(member));
        }
    }
    Ok(targets)
}

/// The member to which links lead from `target`, or the path at which they end.
fn followed(
    targets: &HashMap<String, LinkTarget>,
    mut target: String,
) -> std::result::Result<Member, String> {
    for _ in 0..MOST_LINKS {
        match targets.get(&target) {
            Some(LinkTarget::File(member)) => return Ok(member.clone()),
            Some(LinkTarget::Link(next)) => target.clone_from(next),
            None => break,
        }
    }
    Err(target)
}

/// An index that is being made.
struct IndexBuilder<'a, R> {
    file: &'a R,
    path: &'a Path,
    /// The number of each key's group.
    numbers: HashMap<String, usize>,
    /// The places of images `KEY.MORE.EXTENSION` in their groups, by their names.
    places: HashMap<String, usize>,
    made: TarIndex,
}

impl<R: ReadAt> IndexBuilder<'_, R> {
    /// Adds a member to its sample, or counts it as not read.
    fn add(&mut self, mut member: Member) -> Result<()> {
        if let Some(plain) = member.name.strip_prefix("./") {
            member.name = plain.to_owned();
        }
        let TarIndex { groups, not_read } = &mut self.made;
        if is_hidden(&member.name) {
            not_read.hidden.add(&member.name);
            return Ok(());
        }
        let Some((key, extension)) = split(&member.name) else {
            not_read.kinds.add_file(&member.name);
            return Ok(());
        };
        let (more, last) = extension.rsplit_once('.').unwrap_or(("", &extension));
        let is_image = EXTENSIONS.contains(&last);
        if !is_image && !["cls", "json"].contains(&last) {
            not_read.kinds.add_file(&member.name);
            return Ok(());
        }
        let number = *self.numbers.entry(key.to_owned()).or_insert(groups.len());
        if number == groups.len() {
            groups.push(SampleGroup::default());
        }
        let group = &mut groups[number];
        if is_image {
            // As when the archive is unpacked, the last member of a name counts.
            let place = self.places.get(&member.name).copied();
            let earlier = match place {
                Some(place) => Some(&mut group.others[place].1),
                None => group.image.as_mut().filter(|image| image.name == member.name),
            };
            if let Some(image) = earlier {
                not_read.doubled.add(&member.name);
                *image = member;
            } else if !more.is_empty() {
                self.places.insert(member.name.clone(), group.others.len());
                group.others.push((more.to_owned(), member));
            } else if group.image.is_none() {
                group.image = Some(member);
            } else {
                not_read.beside.add(&member.name);
            }
        } else if let Some(label) = read_label(self.file, self.path, &member, last)? {
            // Another damaged one is told with its sample, which is left out.
            let unused = group.add_label(more, label);
            if let Some(SampleLabel::Damaged(problem)) = unused
                && !matches!(group.labels.get(more), Some(SampleLabel::Damaged(_)))
            {
                not_read.labels.add(&problem);
            }
        }
        Ok(())
    }
}

fn is_image(name: &str) -> bool {
    EXTENSIONS.contains(&extension(Path::new(name)).as_str())
}

fn is_hidden(name: &str) -> bool {
    name.split('/').any(|part| part.starts_with('.') && ![".", ".."].contains(&part))
}

/// Key and lower-case extension of a member. None if its name has no dot.
fn split(name: &str) -> Option<(&str, String)> {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let dot = file + name[file..].find('.')?;
    Some((&name[..dot], name[dot + 1..].to_lowercase()))
}

/// The label that a member holds. Only an archive that cannot be read is an error.
fn read_label(
    file: &impl ReadAt,
    path: &Path,
    member: &Member,
    extension: &str,
) -> Result<Option<SampleLabel>> {
    if member.size > MOST_LABEL_BYTES {
        let (found, most) = (member.size, MOST_LABEL_BYTES);
        let problem = format!("holds a label in {found} bytes, expected at most {most}");
        return Ok(Some(SampleLabel::damaged(&member.name, &problem)));
    }
    let mut bytes = vec![0; member.size as usize];
    file.read_at(&mut bytes, member.offset).map_err(|error| Error::read(path, error))?;
    Ok(match extension {
        "cls" => Some(SampleLabel::of_cls(&member.name, &bytes)),
        _ => SampleLabel::of_json(&member.name, &bytes),
    })
}
