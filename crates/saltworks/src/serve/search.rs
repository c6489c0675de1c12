//! The search for runs below a folder.

use super::Links;
use crate::run_files::names::RECIPE;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The depth and the number of folders that are searched: the root may be a home folder.
const MOST_DEPTH: usize = 5;
const MOST_FOLDERS: usize = 20_000;

/// What a search found.
#[derive(Debug, Default)]
pub(super) struct FoundRuns {
    /// Folders of runs by their paths below the root.
    pub(super) runs: BTreeMap<String, PathBuf>,
    /// Whether there are more folders than are searched.
    pub(super) limited: bool,
}

/// The runs under a root. The folders of a run are not searched. `progress` is called with the
/// numbers of folders and of runs so far.
pub(super) fn runs_under(
    root: &Path,
    links: Links,
    mut progress: impl FnMut(usize, usize),
) -> FoundRuns {
    let mut found = FoundRuns::default();
    let real_root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let inside = |real: &PathBuf| links == Links::All || real.starts_with(&real_root);
    let mut searched = HashSet::new();
    let mut next = vec![(root.to_path_buf(), 0)];
    while let Some((folder, depth)) = next.pop() {
        // A link may lead to a folder above it.
        let real = fs::canonicalize(&folder).ok().filter(inside);
        let fresh = real.is_some_and(|real| searched.insert(real));
        if !fresh {
            continue;
        }
        if searched.len() > MOST_FOLDERS {
            found.limited = true;
            break;
        }
        progress(searched.len(), found.runs.len());
        if folder.join(RECIPE).is_file() {
            let below = folder.strip_prefix(root).unwrap_or(&folder).to_string_lossy();
            let id = if below.is_empty() { ".".to_owned() } else { below.into_owned() };
            found.runs.insert(id, folder);
            continue;
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        let visible =
            entries.filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
        let folders = visible.map(|entry| entry.path()).filter(|path| path.is_dir());
        if depth < MOST_DEPTH {
            next.extend(folders.map(|path| (path, depth + 1)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::library::tests::run;
    use super::*;

    #[test]
    fn runs_are_found_at_any_depth_and_their_own_folders_are_not_searched() {
        let root = tempfile::tempdir().unwrap();
        for id in ["one", "sweep/two", "sweep/two/inner", ".hidden/three", "a/b/c/d/e/f/deep"] {
            run(root.path(), id, "");
        }
        std::os::unix::fs::symlink(root.path(), root.path().join("sweep/up")).unwrap();
        let found = |root: &Path, links| runs_under(root, links, |_, _| ()).runs;
        let under = |links| found(root.path(), links).into_keys().collect::<Vec<_>>();
        assert_eq!(under(Links::Inside), ["one", "sweep/two"]);
        let elsewhere = tempfile::tempdir().unwrap();
        run(elsewhere.path(), "far", "");
        let link = root.path().join("linked");
        std::os::unix::fs::symlink(elsewhere.path(), link).unwrap();
        assert_eq!(under(Links::Inside), ["one", "sweep/two"]);
        assert_eq!(under(Links::All), ["linked/far", "one", "sweep/two"]);
        let found = found(&root.path().join("one"), Links::Inside);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["."]);
    }
}
