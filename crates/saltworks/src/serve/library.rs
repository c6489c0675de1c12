//! The runs under a folder as they come, go on and go.

use crate::report::{RunData, RunReader, StageData};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// What makes a folder a run's.
const RECIPE: &str = "recipe.toml";
/// Files that change as a run goes on.
const FILES: [&str; 6] =
    [RECIPE, "metrics.jsonl", "state.json", "probes.json", "plan.json", "pictures"];
/// Folders below the root that are looked into, and how many folders at most: the root may be a home.
const MOST_DEPTH: usize = 5;
const MOST_FOLDERS: usize = 20_000;
/// Time between two looks at the files of known runs, and between two searches for new ones.
const LOOK: Duration = Duration::from_millis(900);
const SEARCH: Duration = Duration::from_secs(5);
/// Largest file of pictures that is handed out.
const MOST_PICTURE_BYTES: u64 = 256 << 20;

/// All runs under a folder.
pub struct Library {
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By the path below the root.
    runs: BTreeMap<String, Entry>,
    looked: Option<Instant>,
    searched: Option<Instant>,
    /// Grows with each change.
    version: u64,
}

struct Entry {
    folder: PathBuf,
    reader: RunReader,
    stamp: Stamp,
    version: u64,
    row: Row,
}

/// What changes when a run does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stamp {
    files: Vec<Option<(u64, SystemTime)>>,
    training: bool,
}

/// A run in the table of runs.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Row {
    /// Its folder's path below the root.
    pub id: String,
    /// The recipe's.
    pub tags: Vec<String>,
    /// See [`RunData`]; `unreadable` where it is none.
    pub status: &'static str,
    /// Why it cannot be read.
    pub problem: Option<String>,
    /// The last stage that has begun.
    pub stage: Option<String>,
    /// Its steps made and to make.
    pub step: u64,
    /// See `step`.
    pub steps: Option<u64>,
    /// Share of all steps made, where all are known.
    pub share: Option<f64>,
    /// Its last training loss.
    pub loss: Option<f64>,
    /// What its last probe found.
    pub held_out_loss: Option<f64>,
    /// See above.
    pub knn: Option<f64>,
    /// See above.
    pub linear: Option<f64>,
    /// See above.
    pub rank_me: Option<f64>,
    /// Of its held-out loss and its accuracy by kNN.
    pub r_squared: Option<f64>,
    /// Accuracy by kNN, or where there is none the held-out loss, probe by probe.
    pub trace: Vec<f64>,
    /// Images per second of its last steps.
    pub images_per_second: Option<f64>,
    /// Signs that something goes wrong, in all stages.
    pub alarms: usize,
    /// When the first and the last line were written.
    pub began: Option<f64>,
    /// See `began`.
    pub updated: Option<f64>,
}

impl Library {
    /// The runs under `root`.
    ///
    /// # Errors
    /// A root that is no folder or cannot be read.
    pub fn new(root: &Path) -> io::Result<Self> {
        fs::read_dir(root)?;
        let library = Self { root: root.into(), state: Mutex::default() };
        drop(library.locked());
        Ok(library)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.locked().runs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The table of runs.
    pub(super) fn rows(&self) -> Vec<Row> {
        self.locked().runs.values().map(|entry| entry.row.clone()).collect()
    }

    /// What a report shows of a run, under its id; none if there is no such run. Pictures are left out:
    /// of them it tells only when they were made.
    pub(super) fn run(&self, id: &str) -> Option<io::Result<RunData>> {
        let mut state = self.locked();
        let entry = state.runs.get_mut(id)?;
        Some(entry.reader.read().map(|data| RunData { name: id.to_owned(), ..data }))
    }

    /// The pictures of a run's stage, JSON as it lies in its folder.
    pub(super) fn pictures(&self, id: &str, stage: &str) -> Option<Vec<u8>> {
        let mut state = self.locked();
        let entry = state.runs.get_mut(id)?;
        // A stage's name is one that the run tells: no other file can be asked for.
        let known = entry.reader.read().ok()?.stages.iter().any(|known| known.name == stage);
        let path = entry.folder.join("pictures").join(format!("{stage}.json"));
        drop(state);
        let small = fs::metadata(&path).is_ok_and(|file| file.len() <= MOST_PICTURE_BYTES);
        (known && small).then(|| fs::read(path).ok()).flatten()
    }

    /// A number that grows when one of these runs changes; of all runs, and with those that come and go,
    /// if none is named.
    pub(super) fn version(&self, ids: &[String]) -> u64 {
        let state = self.locked();
        if ids.is_empty() {
            return state.version;
        }
        let known = ids.iter().filter_map(|id| state.runs.get(id));
        known.map(|entry| entry.version).max().unwrap_or(0)
    }

    /// The state, no older than [`LOOK`].
    fn locked(&self) -> MutexGuard<'_, State> {
        // What a thread that failed left is at worst old.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |at: Option<Instant>, age: Duration| at.is_none_or(|at| at.elapsed() >= age);
        if is_old(state.searched, SEARCH) {
            state.search(&self.root);
            state.searched = Some(Instant::now());
        }
        if is_old(state.looked, LOOK) {
            state.look();
            state.looked = Some(Instant::now());
        }
        state
    }
}

impl State {
    /// Finds runs that have come, and forgets those that are gone.
    fn search(&mut self, root: &Path) {
        let found = runs_under(root);
        let before = self.runs.len();
        self.runs.retain(|id, _| found.contains_key(id));
        let mut changed = self.runs.len() != before;
        for (id, folder) in found {
            self.runs.entry(id).or_insert_with_key(|id| {
                changed = true;
                Entry {
                    reader: RunReader::without_pictures(&folder),
                    folder,
                    stamp: Stamp::default(),
                    version: 0,
                    row: Row { id: id.clone(), ..Row::default() },
                }
            });
        }
        self.version += u64::from(changed);
    }

    /// Reads what changed of the known runs.
    fn look(&mut self) {
        for entry in self.runs.values_mut() {
            let stamp = Stamp::of(entry);
            if stamp == entry.stamp {
                continue;
            }
            self.version += 1;
            let id = std::mem::take(&mut entry.row.id);
            entry.row = match entry.reader.read() {
                Ok(data) => Row::new(id, &data),
                Err(error) => Row {
                    id,
                    status: "unreadable",
                    problem: Some(error.to_string()),
                    ..Row::default()
                },
            };
            (entry.stamp, entry.version) = (stamp, self.version);
        }
    }
}

impl Stamp {
    fn of(entry: &Entry) -> Self {
        let stamp = |name: &str| {
            let file = fs::metadata(entry.folder.join(name)).ok()?;
            Some((file.len(), file.modified().ok()?))
        };
        let training = entry.row.status != "finished" && entry.reader.is_training();
        Self { files: FILES.iter().map(|name| stamp(name)).collect(), training }
    }
}

impl Row {
    fn new(id: String, data: &RunData) -> Self {
        let stages = &data.stages;
        let all: Option<u64> = stages.iter().map(|stage| stage.steps).sum();
        let made: u64 = stages.iter().map(|stage| stage.step).sum();
        let row = Self {
            id,
            tags: data.tags.clone(),
            status: data.status,
            share: all.filter(|all| *all > 0).map(|all| made as f64 / all as f64),
            alarms: stages.iter().map(|stage| stage.alarms.len()).sum(),
            began: stages.iter().find_map(|stage| stage.began),
            updated: data.updated,
            ..Self::default()
        };
        let last = stages.iter().rfind(|stage| stage.step > 0 || !stage.probes.is_empty());
        last.map_or(row.clone(), |stage| row.of_stage(stage))
    }

    fn of_stage(self, stage: &StageData) -> Self {
        let probe = stage.probes.last().map(|point| &point.probe);
        let knn: Vec<f64> = stage.probes.iter().filter_map(|point| point.probe.knn_mean).collect();
        let losses = || stage.probes.iter().filter_map(|point| point.probe.loss).collect();
        let fit =
            stage.fits.iter().find(|f| (f.x, f.y, f.from_start) == ("loss", "knn_mean", false));
        Self {
            stage: Some(stage.name.clone()),
            step: stage.step,
            steps: stage.steps,
            loss: stage.series.loss.last().copied(),
            held_out_loss: probe.and_then(|probe| probe.loss),
            knn: probe.and_then(|probe| probe.knn_mean),
            linear: probe.and_then(|probe| probe.linear_mean),
            rank_me: probe.and_then(|probe| probe.rank_me),
            r_squared: fit.map(|fit| fit.fit.r_squared),
            trace: if knn.is_empty() { losses() } else { knn },
            images_per_second: stage.series.images_per_second.last().copied(),
            ..self
        }
    }
}

/// Folders of runs under a root, by their paths below it. A run's own folders are not searched.
fn runs_under(root: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut seen = HashSet::new();
    let mut next = vec![(root.to_path_buf(), 0)];
    while let Some((folder, depth)) = next.pop() {
        // A link may lead back up.
        let fresh = fs::canonicalize(&folder).is_ok_and(|real| seen.insert(real));
        if !fresh || seen.len() > MOST_FOLDERS {
            continue;
        }
        if folder.join(RECIPE).is_file() {
            let below = folder.strip_prefix(root).unwrap_or(&folder).to_string_lossy();
            let id = if below.is_empty() { ".".to_owned() } else { below.into_owned() };
            found.insert(id, folder);
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
    use super::*;

    fn run(root: &Path, id: &str, log: &str) {
        let folder = root.join(id);
        fs::create_dir_all(&folder).unwrap();
        let recipe = "tags = [\"a\"]\n[[stage]]\nname = \"teacher\"\nmethod = \"mae\"\nsteps = 4\n";
        crate::files::write_whole(&folder.join(RECIPE), recipe.as_bytes()).unwrap();
        crate::files::write_whole(&folder.join("metrics.jsonl"), log.as_bytes()).unwrap();
    }

    #[test]
    fn runs_are_found_wherever_they_lie_and_their_own_folders_are_not_searched() {
        let place = tempfile::tempdir().unwrap();
        for id in ["one", "sweep/two", "sweep/two/inner", ".hidden/three", "a/b/c/d/e/f/deep"] {
            run(place.path(), id, "");
        }
        std::os::unix::fs::symlink(place.path(), place.path().join("sweep/up")).unwrap();
        let found = runs_under(place.path());
        assert_eq!(found.keys().collect::<Vec<_>>(), ["one", "sweep/two"]);
        let found = runs_under(&place.path().join("one"));
        assert_eq!(found.keys().collect::<Vec<_>>(), ["."]);
    }

    #[test]
    fn a_change_of_a_run_is_seen_and_only_then_its_number_grows() {
        let place = tempfile::tempdir().unwrap();
        run(place.path(), "one", "");
        let mut state = State::default();
        state.search(place.path());
        state.look();
        let before = (state.version, state.runs["one"].version);
        state.search(place.path());
        state.look();
        assert_eq!((state.version, state.runs["one"].version), before);
        let line = "{\"stage\":\"teacher\",\"step\":1,\"loss\":0.5}\n";
        let probe = "{\"stage\":\"teacher\",\"step\":1,\"probe\":{\"knn_mean\":0.25}}\n";
        run(place.path(), "one", &[line, probe].concat());
        run(place.path(), "two", "");
        state.search(place.path());
        state.look();
        assert!(state.runs["one"].version > before.1);
        let row = &state.runs["one"].row;
        assert_eq!((row.status, row.tags[0].as_str(), row.step), ("stopped", "a", 1));
        assert_eq!((row.loss, row.knn, row.share), (Some(0.5), Some(0.25), Some(0.25)));
        fs::remove_dir_all(place.path().join("one")).unwrap();
        state.search(place.path());
        assert_eq!(state.runs.keys().collect::<Vec<_>>(), ["two"]);
    }

    #[test]
    fn pictures_of_unknown_stages_are_none() {
        let place = tempfile::tempdir().unwrap();
        run(place.path(), "one", "");
        let pictures = place.path().join("one/pictures");
        fs::create_dir(&pictures).unwrap();
        for (name, text) in [("teacher", "{}"), ("secret", "x")] {
            let path = pictures.join(format!("{name}.json"));
            crate::files::write_whole(&path, text.as_bytes()).unwrap();
        }
        crate::files::write_whole(&place.path().join("one/secret.json"), b"x").unwrap();
        let library = Library::new(place.path()).unwrap();
        assert_eq!(library.pictures("one", "teacher"), Some(b"{}".to_vec()));
        for (id, stage) in [("one", "secret"), ("one", "../secret"), ("../one", "teacher")] {
            assert_eq!(library.pictures(id, stage), None, "{id} {stage}");
        }
    }
}
