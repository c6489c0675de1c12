//! A model in several files, which an index joins: `model.safetensors.index.json` and
//! `pytorch_model.bin.index.json` of transformers.

use super::file_kind::FileKind;
use super::listing::Listing;
use super::{Error, File, IsWanted, load_some};
use crate::files::{open_file, read_most};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The most bytes of an index.
const MOST_BYTES: u64 = 16 << 20;

/// The content of an index.
#[derive(Deserialize)]
struct Index {
    /// The file of each tensor.
    weight_map: BTreeMap<String, String>,
}

/// The names of tensors in each file that an index names. Other files beside it are not opened.
fn read(path: &Path) -> Result<BTreeMap<PathBuf, BTreeSet<String>>, Error> {
    let bytes = open_file(path).and_then(|file| read_most(file, MOST_BYTES));
    let bytes = bytes.map_err(|source| Error::read(path, source))?;
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| {
        let problem = format!(
            "is JSON, but no index of a model in several files: {error}. Give a file of weights"
        );
        Error::model(path, problem)
    })?;
    let mut files: BTreeMap<PathBuf, BTreeSet<String>> = BTreeMap::new();
    for (tensor, file) in index.weight_map {
        // A name with folders could lead anywhere.
        if Path::new(&file).file_name().is_none_or(|name| name != &*file) {
            let problem = format!(
                "names the file {file:?} for {tensor}, expected a file beside the index. Save the \
                 model again"
            );
            return Err(Error::model(path, problem));
        }
        files.entry(path.with_file_name(file)).or_default().insert(tensor);
    }
    if files.is_empty() {
        return Err(Error::model(path, "names no tensors. Save the model again"));
    }
    Ok(files)
}

fn lacks(path: &Path, file: &Path, name: &str) -> Error {
    let file = file.display();
    let problem = format!("names {name} in {file}, which lacks it. Save or fetch the model again");
    Error::model(path, problem)
}

/// Refuses an index that an index names, which could name itself.
fn expect_weights(path: &Path, file: &Path) -> Result<(), Error> {
    if FileKind::of(file)? == FileKind::Index {
        let problem = format!("names {}, expected files of weights", file.display());
        return Err(Error::model(path, problem));
    }
    Ok(())
}

/// Lists the tensors of all files.
pub(super) fn list(path: &Path) -> Result<Listing, Error> {
    let mut all = Listing::default();
    for (file, names) in read(path)? {
        expect_weights(path, &file)?;
        let listing = Listing::read(&file)?;
        let found: BTreeSet<&str> =
            listing.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
        if let Some(name) = names.iter().find(|name| !found.contains(name.as_str())) {
            return Err(lacks(path, &file, name));
        }
        all.tensors.extend(listing.tensors.into_iter().filter(|t| names.contains(&t.name)));
        all.metadata.extend(listing.metadata);
    }
    Ok(all)
}

/// Reads the tensors whose names are wanted.
pub(super) fn load(path: &Path, is_wanted: IsWanted<'_>) -> Result<File, Error> {
    let mut all = File::default();
    for (file, names) in read(path)? {
        expect_weights(path, &file)?;
        let mut part = load_some(&file, &|name| names.contains(name) && is_wanted(name))?;
        let has = |name: &String| part.tensors.contains_key(name) || part.others.contains_key(name);
        if let Some(name) = names.iter().find(|name| is_wanted(name) && !has(name)) {
            return Err(lacks(path, &file, name));
        }
        all.tensors.append(&mut part.tensors);
        all.others.append(&mut part.others);
        all.metadata.extend(part.metadata);
    }
    Ok(all)
}
