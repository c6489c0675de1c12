//! Torch files: the zip archives that `torch.save` writes since torch 1.6 (torch/serialization.py,
//! `_save` and `_load`). A pickle describes the tensors, and a record holds the values of each
//! storage. Nothing in a file is executed.
//!
//! The length of a file bounds the memory that this program uses to read it. [`pickle`] limits the
//! pickle, each tensor is limited by its storage, and [`MOST_SHARING`] limits tensors that share
//! storages. Records are read one by one.

mod archive;
mod contents;
mod pickle;
mod rebuild;
#[cfg(test)]
mod tests;
mod value;
mod write;

pub use write::save_torch;

use super::listing::{Listing, TensorEntry};
use super::{Error, File, IsWanted};
use crate::files::open_file;
use crate::zip::Zip;
use contents::Contents;
use engine::Tensor;
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Seek};
use std::path::Path;
use value::View;

/// Tensors that share storages may together take this many times the bytes of the file.
const MOST_SHARING: u64 = 4;

/// The prefix of the keys of our metadata, which are texts beside a container.
const METADATA: &str = "saltworks.";

/// The end of the pickle's name. Its folder holds all other records.
const PICKLE: &str = "/data.pkl";

/// Reads the tensors of a file whose names are wanted.
pub(super) fn load(path: &Path, is_wanted: IsWanted<'_>) -> Result<File, Error> {
    open(path)?.load(is_wanted).map_err(|problem| Error::torch(path, problem))
}

/// Lists the tensors of a file without reading their values.
pub(super) fn list(path: &Path) -> Result<Listing, Error> {
    open(path)?.list().map_err(|problem| Error::torch(path, problem))
}

/// Whether a file is a zip archive of torch.
pub(super) fn is_torch(path: &Path) -> bool {
    let file = open_file(path).ok().and_then(|file| Zip::open(file).ok());
    file.is_some_and(|zip| zip.names().any(|name| name.ends_with(PICKLE)))
}

fn open(path: &Path) -> Result<Archive<std::fs::File>, Error> {
    let file = open_file(path).map_err(|source| Error::read(path, source))?;
    let bytes = file.metadata().map_err(|source| Error::read(path, source))?.len();
    Archive::open(file, bytes).map_err(|problem| Error::torch(path, problem))
}

/// An open file.
struct Archive<R> {
    zip: Zip<R>,
    /// The length of the whole file.
    bytes: u64,
    /// The folder of all records.
    folder: String,
}

impl<R: Read + Seek> Archive<R> {
    fn open(file: R, bytes: u64) -> Result<Self, String> {
        let zip = Zip::open(file)?;
        let mut pickles = zip.names().filter_map(|name| name.strip_suffix(PICKLE));
        let Some(folder) = pickles.next().map(str::to_owned) else {
            return Err(
                "is a zip archive without data.pkl, so it is not a file of torch.save. Write \
                        the weights with torch.save or as safetensors"
                    .to_owned(),
            );
        };
        if pickles.next().is_some() {
            return Err("holds several files data.pkl, expected one. Save it again".to_owned());
        }
        drop(pickles);
        let mut archive = Self { zip, bytes, folder };
        archive.check()?;
        Ok(archive)
    }

    /// Refuses kinds of archive that are not supported.
    fn check(&mut self) -> Result<(), String> {
        if self.zip.size(&self.record("constants.pkl")).is_some() {
            return Err("is a TorchScript archive, which holds code. In Python: \
                        torch.save(torch.jit.load(FILE, map_location=\"cpu\").state_dict(), NEW)"
                .to_owned());
        }
        if let Some(name) = self.zip.compressed() {
            return Err(format!(
                "{name} is compressed, which torch.save never does. Unpack the archive and pack it \
                 with zip -0, or save it again"
            ));
        }
        let order = self.record("byteorder");
        if self.zip.size(&order).is_some() && self.zip.read(&order, 16)? != b"little" {
            return Err("was not written on a little-endian machine. In Python: \
                        torch.save(torch.load(OLD, map_location=\"cpu\"), NEW), on a \
                        little-endian one"
                .to_owned());
        }
        Ok(())
    }

    /// The full name of a record.
    fn record(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    fn pickle(&mut self) -> Result<Vec<u8>, String> {
        self.zip.read(&format!("{}{PICKLE}", self.folder), pickle::MOST_BYTES)
    }

    fn list(mut self) -> Result<Listing, String> {
        let pickle = self.pickle()?;
        let contents = Contents::of(&pickle)?;
        contents.tensors().try_for_each(|(_, view)| self.check_record(view))?;
        let listed = |(name, view): (&str, Result<&View<'_>, &str>)| TensorEntry {
            name: name.to_owned(),
            dtype: view.map_or("unreadable".to_owned(), |view| view.kind.name.to_owned()),
            shape: view.map_or(Vec::new(), |view| view.shape.clone()),
            problem: view.err().map(str::to_owned),
        };
        let tensors = contents.all().map(listed).collect();
        Ok(Listing { tensors, metadata: contents.metadata })
    }

    fn load(mut self, is_wanted: IsWanted<'_>) -> Result<File, String> {
        let pickle = self.pickle()?;
        let contents = Contents::of(&pickle)?;
        let ours = |(key, value): (&String, &serde_json::Value)| {
            Some((key.strip_prefix(METADATA)?.to_owned(), value.as_str()?.to_owned()))
        };
        let metadata = contents.metadata.iter().filter_map(ours).collect();
        let mut file = File { metadata, ..File::default() };
        let mut by_record: BTreeMap<&str, Vec<(&str, &View<'_>)>> = BTreeMap::new();
        for (name, view) in contents.all().filter(|(name, _)| is_wanted(name)) {
            let view = view?;
            self.check_record(view)?;
            match view.kind.decoder() {
                Some(_) => by_record.entry(view.key).or_default().push((name, view)),
                None => drop(file.others.insert(name.to_owned(), view.kind.name.to_owned())),
            }
        }
        self.check_sharing(&by_record)?;
        for (key, named) in by_record {
            let stored = self.zip.read(&self.record(&format!("data/{key}")), self.bytes)?;
            let mut read: HashMap<&View<'_>, Tensor> = HashMap::new();
            for (name, view) in named {
                let tensor = read.entry(view).or_insert_with(|| tensor(view, &stored));
                file.tensors.insert(name.to_owned(), tensor.clone());
            }
        }
        Ok(file)
    }

    /// Checks that a storage is as long as the pickle states.
    fn check_record(&self, view: &View<'_>) -> Result<(), String> {
        let name = self.record(&format!("data/{}", view.key));
        match self.zip.size(&name) {
            Some(found) if found == view.bytes => Ok(()),
            Some(found) => Err(format!(
                "{name} has {found} bytes, expected {}. Save or fetch it again",
                view.bytes
            )),
            None => Err(format!(
                "lacks {name}. Save it again. If the checkpoint is sharded, join the shards first"
            )),
        }
    }

    /// Different tensors may not together be many times larger than the file.
    fn check_sharing(
        &self,
        by_record: &BTreeMap<&str, Vec<(&str, &View<'_>)>>,
    ) -> Result<(), String> {
        let mut all = 0_u64;
        for named in by_record.values() {
            let views: std::collections::HashSet<_> = named.iter().map(|(_, view)| view).collect();
            // Each is no larger than its record, by View::check.
            let bytes =
                |view: &&&View<'_>| view.shape.iter().product::<u64>() * view.kind.size as u64;
            all = views.iter().map(bytes).fold(all, u64::saturating_add);
        }
        if all > MOST_SHARING * self.bytes {
            return Err(format!(
                "holds tensors of {all} bytes that share storages in a file of {}, expected at \
                 most {MOST_SHARING} times as many. Save them with .clone()",
                self.bytes
            ));
        }
        Ok(())
    }
}

/// A tensor from a storage's bytes, row-major. The view was checked and has a weight's type.
fn tensor(view: &View<'_>, stored: &[u8]) -> Tensor {
    let size = view.kind.size;
    let decode = view.kind.decoder().expect("a weight's type, by the caller");
    let shape: Vec<usize> = view.shape.iter().map(|&side| side as usize).collect();
    let mut values = Vec::with_capacity(shape.iter().product());
    // Reads row by row of the last axis. A tensor without axes is one value.
    let (outer, inner) = shape.split_at(shape.len().saturating_sub(1));
    let (row_len, stride) = match inner {
        [] => (1, 1),
        _ => (inner[0], view.strides[outer.len()] as usize),
    };
    let mut index = vec![0_usize; outer.len()];
    let rows = if shape.contains(&0) { 0 } else { outer.iter().product() };
    for _ in 0..rows {
        let steps =
            index.iter().zip(&view.strides).map(|(&index, &stride)| index * stride as usize);
        let begin = view.offset as usize + steps.sum::<usize>();
        values.extend((0..row_len).map(|at| decode(&stored[(begin + at * stride) * size..])));
        // The index of the next row, counted like an odometer.
        for (index, &side) in index.iter_mut().zip(outer).rev() {
            *index += 1;
            if *index < side {
                break;
            }
            *index = 0;
        }
    }
    Tensor::from_vec(values, &shape)
}
