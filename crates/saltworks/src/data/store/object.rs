//! A file on disk, or an object in a store, that any thread may read at any offset.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::data::store::tar::ReadAt;
use crate::data::{Error, Result};
use crate::files::open_file;

#[cfg(feature = "remote")]
use crate::data::{
    source::kind::{is_parquet, is_tar},
    store::remote::{self, Remote},
};

/// Requests to a store at once, for a batch or an index. If an answer takes 30 ms, a thread then
/// spends as long on reading as on decoding.
const REQUESTS: usize = 32;

/// How many images of this path to request at once.
pub(in crate::data) fn requests(path: &Path) -> usize {
    if url(path).is_some() { REQUESTS } else { 1 }
}

/// An open file or object.
pub(in crate::data) struct Object {
    file: ObjectFile,
    len: u64,
}

enum ObjectFile {
    Disk(File),
    #[cfg(feature = "remote")]
    Store(Remote),
}

impl Object {
    /// Opens a file, or requests an object from a store.
    pub(in crate::data) fn open(path: &Path) -> Result<Self> {
        #[cfg(feature = "remote")]
        if let Some(url) = url(path) {
            let (remote, len) = Remote::open(url).map_err(|error| Error::read(path, error))?;
            return Ok(Self { file: ObjectFile::Store(remote), len });
        }
        check_reachable(path)?;
        let read = |error| Error::read(path, error);
        let file = open_file(path).map_err(read)?;
        let len = file.metadata().map_err(read)?.len();
        Ok(Self { file: ObjectFile::Disk(file), len })
    }

    /// Its length in bytes.
    pub(in crate::data) fn len(&self) -> u64 {
        self.len
    }

    /// Whether it is an object in a store.
    pub(in crate::data) fn is_remote(&self) -> bool {
        !matches!(self.file, ObjectFile::Disk(_))
    }

    /// Distinguishes this object from an earlier one of the same name.
    pub(in crate::data) fn version(&self) -> Option<&str> {
        match &self.file {
            ObjectFile::Disk(_) => None,
            #[cfg(feature = "remote")]
            ObjectFile::Store(remote) => remote.version(),
        }
    }
}

impl ReadAt for Object {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.file {
            ObjectFile::Disk(file) => file.read_exact_at(buffer, offset),
            #[cfg(feature = "remote")]
            ObjectFile::Store(remote) => remote.read_at(buffer, offset),
        }
    }
}

/// The path as a URL of a store.
pub(in crate::data) fn url(path: &Path) -> Option<&str> {
    let text = path.to_str()?;
    let (scheme, _) = text.split_once("://")?;
    ["s3", "gs", "http", "https"].contains(&scheme).then_some(text)
}

/// Refuses a URL if stores are not built in.
pub(in crate::data) fn check_reachable(path: &Path) -> Result<()> {
    if url(path).is_none() || cfg!(feature = "remote") {
        return Ok(());
    }
    let problem = "is in an object store, but this program was built without stores. Build it with \
                   `cargo build --release --features remote`, or copy the data to a disk";
    Err(Error::file(path, problem))
}

/// The archives directly inside a store's folder, and the parquet files at any depth, each sorted.
pub(in crate::data) fn find(path: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    #[cfg(feature = "remote")]
    {
        let list = |url: &str| remote::list(url).map_err(|error| Error::read(path, error));
        let (files, mut folders) = list(path.to_str().unwrap_or_default())?;
        let files: Vec<_> = files.into_iter().map(PathBuf::from).collect();
        let archives = files.iter().filter(|file| is_tar(file)).cloned().collect();
        let mut tables: Vec<_> = files.into_iter().filter(|file| is_parquet(file)).collect();
        while let Some(folder) = folders.pop() {
            let (files, deeper) = list(&folder)?;
            tables.extend(files.into_iter().map(PathBuf::from).filter(|file| is_parquet(file)));
            folders.extend(deeper);
        }
        tables.sort();
        Ok((archives, tables))
    }
    #[cfg(not(feature = "remote"))]
    check_reachable(path).map(|()| Default::default())
}

/// Whether a store did not answer, or returned a different object than before. The image is not at
/// fault.
pub(in crate::data) fn is_of_store(error: &io::Error) -> bool {
    #[cfg(feature = "remote")]
    if error.get_ref().is_some_and(|inner| inner.is::<remote::StoreError>()) {
        return true;
    }
    let _ = error;
    false
}

/// Maps files in parallel. The number at once is that of the cores, or of requests to a store.
pub(in crate::data) fn in_parallel<P: AsRef<Path> + Sync, T: Send>(
    files: &[P],
    f: impl Fn(&Path) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let requests = files.iter().map(|file| requests(file.as_ref())).max().unwrap_or(1);
    at_once(requests, || files.par_iter().map(|file| f(file.as_ref())).collect())
}

/// Runs parallel work with a thread for each of `requests`. With one request it uses the usual
/// threads.
pub(in crate::data) fn at_once<T: Send>(requests: usize, f: impl FnOnce() -> T + Send) -> T {
    let pool = || rayon::ThreadPoolBuilder::new().num_threads(requests).build().ok();
    match (requests > 1).then(pool).flatten() {
        Some(pool) => pool.install(f),
        // If the system grants no threads, this is slower but gives the same result.
        None => f(),
    }
}
