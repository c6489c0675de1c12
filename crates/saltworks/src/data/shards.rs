//! WebDataset shards: tar archives whose members belong together by name
//! (github.com/webdataset/webdataset, "The WebDataset Format").

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::decode::info;
use super::image_file::{EXTENSIONS, MOST_BYTES};
use super::labels::Labels;
use super::tar::{Member, Members, ReadAt};
use super::{Background, Error, Form, Info, Result, Sample, Source, Stored};

/// Shards whose files stay open; of more, each is opened for each image. Systems allow a process
/// 1,024 open files by default.
const MOST_OPEN: usize = 256;

/// Most bytes of a member that holds a label.
const MOST_LABEL_BYTES: u64 = 1 << 20;

/// Images in tar archives, in the order of their names as a folder of the unpacked files would have
/// them, whatever their order in the archives.
///
/// A sample is the members with one key: their path up to the first dot of the file name. Its image
/// is its first member with an image's extension, its label the number in `KEY.cls`, or `label` or
/// `cls` in `KEY.json`. Where no sample has one, the first folder in which the names differ is the
/// class.
pub struct Shards {
    path: PathBuf,
    shards: Vec<Shard>,
    entries: Vec<Entry>,
    classes: Vec<String>,
    background: Background,
}

struct Shard {
    path: PathBuf,
    /// Open where there are few.
    file: Option<File>,
}

struct Entry {
    shard: u32,
    label: i32,
    image: Member,
}

/// What an archive holds under one key.
#[derive(Default)]
struct Group {
    image: Option<Member>,
    label: Option<String>,
}

impl Shards {
    /// Indexes the archives `files`; `path` is what the user named.
    pub fn open(path: &Path, files: Vec<PathBuf>, background: Background) -> Result<Self> {
        let keep_open = files.len() <= MOST_OPEN;
        let indexed: Result<Vec<_>> = files.into_par_iter().map(index).collect();
        let mut shards = Vec::new();
        let mut found = Vec::new();
        for (number, (shard, groups)) in indexed?.into_iter().enumerate() {
            let file = shard.file.filter(|_| keep_open);
            shards.push(Shard { path: shard.path, file });
            let images = groups.into_iter().filter_map(|group| Some((group.image?, group.label)));
            found.extend(images.map(|(image, label)| (number as u32, image, label)));
        }
        if found.is_empty() {
            let problem = format!(
                "0 images in {} archives: looked for members .{}. Set data.path to archives of \
                 images",
                shards.len(),
                EXTENSIONS.join(" .")
            );
            return Err(Error::file(path, problem));
        }
        // Stable: images of one name keep the order of their shards.
        found.sort_by(|(_, a, _), (_, b, _)| in_folder_order(&a.name, &b.name));
        let (entries, classes) = label(found);
        Ok(Self { path: path.into(), shards, entries, classes, background })
    }

    fn bytes(&self, index: usize) -> Result<(Vec<u8>, String)> {
        let Entry { shard, image, .. } = &self.entries[index];
        let shard = &self.shards[*shard as usize];
        let name = format!("{}: {}", shard.path.display(), image.name);
        if image.size > MOST_BYTES {
            let problem = format!("is longer than {MOST_BYTES} bytes");
            return Err(Error::Image { name, problem });
        }
        let mut bytes = vec![0; image.size as usize];
        let read = match &shard.file {
            Some(file) => file.read_at(&mut bytes, image.offset),
            None => File::open(&shard.path).and_then(|file| file.read_at(&mut bytes, image.offset)),
        };
        read.map_err(|error| Error::read(&shard.path, error))?;
        Ok((bytes, name))
    }
}

impl Source for Shards {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn read(&self, index: usize) -> Result<Sample> {
        self.stored(index)?.decode()
    }

    fn stored(&self, index: usize) -> Result<Stored> {
        let (bytes, name) = self.bytes(index)?;
        let form = Form::File { bytes, background: self.background };
        Ok(Stored { form, label: self.label(index), name })
    }

    fn info(&self, index: usize) -> Result<Info> {
        let (bytes, name) = self.bytes(index)?;
        info(&bytes, &name, self.background)
    }

    fn label(&self, index: usize) -> i32 {
        self.entries[index].label
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn describe(&self) -> String {
        let (path, len) = (self.path.display(), self.len());
        let archives = match self.shards.len() {
            1 => "a tar archive".to_owned(),
            n => format!("{n} tar archives"),
        };
        format!("{path}: {len} images in {archives}, {}", super::source::classes(&self.classes))
    }
}

/// Reads the headers of an archive, and its labels.
fn index(path: PathBuf) -> Result<(Shard, Vec<Group>)> {
    let read = |error| Error::read(&path, error);
    let file = File::open(&path).map_err(read)?;
    let len = file.metadata().map_err(read)?.len();
    let groups = groups(&file, &path, len)?;
    Ok((Shard { path, file: Some(file) }, groups))
}

/// The samples of an archive in the order of their first members.
fn groups(file: &impl ReadAt, path: &Path, len: u64) -> Result<Vec<Group>> {
    let mut members = Members::new(file, path, len);
    let mut groups: Vec<Group> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    while let Some(mut member) = members.next_file()? {
        if let Some(plain) = member.name.strip_prefix("./") {
            member.name = plain.to_owned();
        }
        let Some((key, extension)) = split(&member.name) else { continue };
        let is_image = EXTENSIONS.contains(&extension.as_str());
        if !is_image && !["cls", "json"].contains(&extension.as_str()) {
            continue;
        }
        let place = *places.entry(key.to_owned()).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Group::default());
        }
        let group = &mut groups[place];
        if is_image {
            group.image.get_or_insert(member);
        } else if let Some(label) = read_label(file, path, &member, &extension)? {
            group.label = Some(label);
        }
    }
    Ok(groups)
}

/// Key and lower-case extension of a member; none for what is hidden or has no dot.
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
        .map_err(|error| fail(format!("is no JSON ({error}). Mend or remove it")))?;
    let label = ["label", "cls"].iter().find_map(|key| json.get(key));
    Ok(match label {
        Some(serde_json::Value::String(name)) => Some(name.clone()),
        Some(serde_json::Value::Number(number)) => Some(number.to_string()),
        _ => None,
    })
}

/// As a folder lists them: files right inside before those of its folders, then part by part.
fn in_folder_order(a: &str, b: &str) -> std::cmp::Ordering {
    let is_deep = |name: &str| name.contains('/');
    is_deep(a).cmp(&is_deep(b)).then_with(|| Path::new(a).cmp(Path::new(b)))
}

/// Labels as written, or the folders the images lie in.
fn label(found: Vec<(u32, Member, Option<String>)>) -> (Vec<Entry>, Vec<String>) {
    let written = found.iter().any(|(_, _, label)| label.is_some());
    let (labels, classes) = if written {
        let mut labels = Labels::default();
        found.iter().for_each(|(_, _, label)| labels.push(label.as_deref()));
        labels.finish()
    } else {
        let names: Vec<&str> = found.iter().map(|(_, image, _)| image.name.as_str()).collect();
        folders(&names)
    };
    let entry = |((shard, image, _), label)| Entry { shard, label, image };
    (found.into_iter().zip(labels).map(entry).collect(), classes)
}

/// The first folder in which the names differ as class; none for a file beside such folders.
fn folders(names: &[&str]) -> (Vec<i32>, Vec<String>) {
    let common = common_folder(names);
    let folder = |name: &&str| name[common..].split_once('/').map(|(folder, _)| folder.to_owned());
    let of: Vec<Option<String>> = names.iter().map(folder).collect();
    let mut classes: BTreeMap<&str, i32> = of.iter().flatten().map(|f| (f.as_str(), 0)).collect();
    classes.values_mut().enumerate().for_each(|(number, class)| *class = number as i32);
    let label = |folder: &Option<String>| folder.as_ref().map_or(-1, |f| classes[f.as_str()]);
    (of.iter().map(label).collect(), classes.keys().map(ToString::to_string).collect())
}

/// Bytes of the folders that all names begin with.
fn common_folder(names: &[&str]) -> usize {
    let mut common =
        names.first().map_or("", |name| &name[..name.rfind('/').map_or(0, |at| at + 1)]);
    for name in names {
        while !name.starts_with(common) {
            let shorter = common.trim_end_matches('/').rfind('/').map_or(0, |at| at + 1);
            common = &common[..shorter];
        }
    }
    common.len()
}

#[cfg(test)]
pub(super) mod tests;
