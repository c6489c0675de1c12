//! The runs under a folder. They appear, grow and disappear.

use super::row::RunRow;
use super::search::runs_under;
use crate::files::open_regular_in;
use crate::loggers::run_settings;
use crate::report::{RunData, RunReader};
use crate::run_files::names::{METRICS, PICTURES, PLAN, PROBES, RECIPE, STATE, pictures_of};
use serde::Serialize;
use serde_json::{Number, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant, SystemTime};

/// Files that change while a run trains.
const FILES: [&str; 6] = [RECIPE, METRICS, STATE, PROBES, PLAN, PICTURES];
/// Time between two checks of the files of known runs, and between two searches for new runs.
const CHECK_EVERY: Duration = Duration::from_millis(900);
const SEARCH_EVERY: Duration = Duration::from_secs(5);
/// Time that a request waits for the first reading, so that a page of few runs is whole at once.
const WAIT_FOR_FIRST: Duration = Duration::from_secs(1);

/// Which links to folders are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Links to folders under the root.
    Inside,
    /// All links.
    All,
}

/// All runs under a folder.
///
/// [`read_all`](Self::read_all) reads them first; until it ends, the table is of those read so far.
/// Then each request refreshes the list unless another request is already doing so. No lock that
/// others need is held while files are read, so a disk that does not answer delays only its own
/// readers.
pub struct Library {
    root: PathBuf,
    links: Links,
    /// Distinguishes the versions of this process from those of earlier ones, which also began at
    /// 0. A page may outlive its server.
    epoch: String,
    state: Mutex<LibraryState>,
    refresh_times: Mutex<RefreshTimes>,
    /// How far the first reading is. `None` when it has ended.
    first: Mutex<Option<ReadProgress>>,
    first_ended: Condvar,
}

/// The runs found so far.
#[derive(Default)]
struct LibraryState {
    /// Runs by their path below the root.
    runs: BTreeMap<String, Arc<KnownRun>>,
    /// Grows with each change.
    version: u64,
    /// Whether there are more folders than are searched.
    limited: bool,
}

/// How far the first reading of the runs is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct ReadProgress {
    /// Folders that were searched for runs.
    folders: usize,
    /// Runs that were found.
    found: usize,
    /// Runs that were read.
    read: usize,
}

/// The table of runs, as pages receive it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RunTable {
    epoch: String,
    pub(super) version: u64,
    /// How far the first reading is, until it ends.
    reading: Option<ReadProgress>,
    /// Whether there are more folders than are searched.
    limited: bool,
    /// The runs that were read. Each has a row.
    ids: Vec<String>,
    pub(super) rows: Vec<RunRow>,
}

/// The settings in which recipes differ.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Settings {
    keys: Vec<String>,
    /// Values by run and key.
    values: BTreeMap<String, BTreeMap<String, String>>,
}

/// The times of the last check and the last search.
#[derive(Default)]
struct RefreshTimes {
    last_check: Option<Instant>,
    last_search: Option<Instant>,
}

/// A run that was found.
struct KnownRun {
    folder: PathBuf,
    reading: Mutex<ReadState>,
    latest: Mutex<VersionedRow>,
}

/// The reader of a run, and the stamp of the files that it has read.
struct ReadState {
    reader: RunReader,
    stamp: FilesStamp,
}

/// A row, and the version in which it last changed.
#[derive(Clone, Default)]
struct VersionedRow {
    row: RunRow,
    version: u64,
}

/// The sizes and times of a run's files. It changes when the run does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FilesStamp {
    files: Vec<Option<(u64, SystemTime)>>,
    training: bool,
}

impl Library {
    /// The runs under `root`.
    ///
    /// # Errors
    /// A root that is not a folder or cannot be read.
    pub fn new(root: &Path, links: Links) -> io::Result<Self> {
        fs::read_dir(root)?;
        Ok(Self {
            root: root.into(),
            links,
            epoch: epoch(),
            state: Mutex::default(),
            refresh_times: Mutex::default(),
            first: Mutex::new(Some(ReadProgress::default())),
            first_ended: Condvar::new(),
        })
    }

    /// Reads all runs for the first time, while requests are answered.
    pub(super) fn read_all(&self) {
        // Also if a thread panics, which must not leave pages waiting.
        let _end = FirstReading(self);
        self.read_what_is_old(&mut lock(&self.refresh_times));
    }

    /// How far the first reading is. `None` when it has ended.
    pub(super) fn reading(&self) -> Option<ReadProgress> {
        *lock(&self.first)
    }

    /// The number of runs.
    pub fn len(&self) -> usize {
        lock(&self.state).runs.len()
    }

    /// Whether there is no run.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The table of runs: all their ids, and the rows that changed since a version of an epoch. If
    /// that epoch is of another process, all rows.
    pub(super) fn rows(&self, since: Option<(&str, u64)>) -> RunTable {
        self.refresh();
        // Before the rows, so that a table without it has them all.
        let reading = self.reading();
        let (version, limited, runs) = {
            let state = lock(&self.state);
            (state.version, state.limited, state.runs.clone())
        };
        let known = since.filter(|(epoch, since)| *epoch == self.epoch && *since <= version);
        let since = known.map_or(0, |(_, since)| since);
        let (mut ids, mut rows) = (Vec::new(), Vec::new());
        for (id, run) in runs {
            let latest = lock(&run.latest);
            if latest.version > 0 {
                ids.push(id);
            }
            if latest.version > since {
                rows.push(latest.row.clone());
            }
        }
        RunTable { epoch: self.epoch.clone(), version, reading, limited, ids, rows }
    }

    /// The settings in which the recipes differ, as the texts that are shown. Values with the same
    /// text do not differ.
    pub(super) fn settings(&self) -> Settings {
        let runs = lock(&self.state).runs.clone();
        let of = |(id, run): (String, Arc<KnownRun>)| {
            let settings = run_settings(&run.folder)?.into_iter();
            Some((id, settings.map(|(key, text)| (key, printed(text))).collect()))
        };
        let mut values: BTreeMap<String, BTreeMap<String, String>> =
            runs.into_iter().filter_map(of).collect();
        let all: BTreeSet<&String> = values.values().flat_map(BTreeMap::keys).collect();
        let differs = |key: &&&String| {
            let mut found = values.values().map(|settings| settings.get(**key));
            let first = found.next();
            found.any(|other| Some(other) != first)
        };
        let keys: BTreeSet<String> = all.iter().filter(differs).map(|&key| key.clone()).collect();
        values.values_mut().for_each(|settings| settings.retain(|key, _| keys.contains(key)));
        Settings { keys: keys.into_iter().collect(), values }
    }

    /// Whether there is a run with this id.
    pub(super) fn holds(&self, id: &str) -> bool {
        self.refresh();
        self.known(id).is_some()
    }

    /// The data of a run's report, under its id. `None` if there is no such run. In place of
    /// pictures it holds their versions.
    pub(super) fn run(&self, id: &str) -> Option<io::Result<RunData>> {
        self.refresh();
        let run = self.known(id)?;
        let data = lock(&run.reading).reader.read();
        Some(data.map(|data| RunData { name: id.to_owned(), ..data }))
    }

    /// The open file of pictures of a run's stage, and its length.
    pub(super) fn pictures(&self, id: &str, stage: &str) -> Option<(File, u64)> {
        let run = self.known(id)?;
        // Only the names of the run's stages are accepted, so no other file can be requested.
        let data = lock(&run.reading).reader.read().ok()?;
        let stage = data.stages.iter().find(|known| known.name == stage)?;
        let file = open_regular_in(&run.folder, pictures_of(&stage.name).as_ref()).ok()?;
        let length = file.metadata().ok()?.len();
        Some((file, length))
    }

    /// A number that grows when one of these runs changes. If none is named, it grows with all
    /// runs, and when a run appears or disappears.
    pub(super) fn version(&self, ids: &[String]) -> u64 {
        self.refresh();
        let state = lock(&self.state);
        if ids.is_empty() {
            return state.version;
        }
        let known = ids.iter().filter_map(|id| state.runs.get(id));
        known.map(|run| lock(&run.latest).version).max().unwrap_or(0)
    }

    /// Whether one of these runs trains, or any run if none is named.
    pub(super) fn is_training(&self, ids: &[String]) -> bool {
        let trains = |run: &Arc<KnownRun>| lock(&run.latest).row.status == "training";
        let state = lock(&self.state);
        match ids {
            [] => state.runs.values().any(trains),
            ids => ids.iter().filter_map(|id| state.runs.get(id)).any(trains),
        }
    }

    fn known(&self, id: &str) -> Option<Arc<KnownRun>> {
        lock(&self.state).runs.get(id).cloned()
    }

    fn runs(&self) -> Vec<Arc<KnownRun>> {
        lock(&self.state).runs.values().cloned().collect()
    }

    /// Searches for runs and checks them if it is time, unless another thread does so. During the
    /// first reading, it waits for a moment.
    fn refresh(&self) {
        let first = lock(&self.first);
        if first.is_some() {
            let wait =
                self.first_ended.wait_timeout_while(first, WAIT_FOR_FIRST, |first| first.is_some());
            drop(wait.unwrap_or_else(PoisonError::into_inner));
            return;
        }
        drop(first);
        match self.refresh_times.try_lock() {
            Ok(mut times) => self.read_what_is_old(&mut times),
            Err(TryLockError::Poisoned(times)) => self.read_what_is_old(&mut times.into_inner()),
            Err(TryLockError::WouldBlock) => {}
        }
    }

    fn read_what_is_old(&self, times: &mut RefreshTimes) {
        let is_old = |at: Option<Instant>, age: Duration| at.is_none_or(|at| at.elapsed() >= age);
        if is_old(times.last_search, SEARCH_EVERY) {
            self.search();
            times.last_search = Some(Instant::now());
        }
        if is_old(times.last_check, CHECK_EVERY) {
            self.check();
            times.last_check = Some(Instant::now());
        }
    }

    /// Notes how far the first reading is, while it lasts.
    fn note_progress(&self, note: impl FnOnce(&mut ReadProgress)) {
        if let Some(progress) = lock(&self.first).as_mut() {
            note(progress);
        }
    }

    /// Finds new runs, and forgets those that disappeared.
    fn search(&self) {
        let found = runs_under(&self.root, self.links, |folders, found| {
            self.note_progress(|first| (first.folders, first.found) = (folders, found));
        });
        self.note_progress(|first| first.found = found.runs.len());
        let mut state = lock(&self.state);
        let before = (state.runs.len(), state.limited);
        state.runs.retain(|id, _| found.runs.contains_key(id));
        state.limited = found.limited;
        let mut changed = (state.runs.len(), state.limited) != before;
        for (id, folder) in found.runs {
            state.runs.entry(id).or_insert_with_key(|id| {
                changed = true;
                Arc::new(KnownRun::new(id, folder))
            });
        }
        state.version += u64::from(changed);
    }

    /// Reads the known runs that changed.
    fn check(&self) {
        for run in self.runs() {
            // If another thread reads this run, the next check finds the change.
            let Ok(mut reading) = run.reading.try_lock() else { continue };
            if let Some(row) = run.changed(&mut reading) {
                let mut state = lock(&self.state);
                state.version += 1;
                *lock(&run.latest) = VersionedRow { row, version: state.version };
            }
            self.note_progress(|first| first.read += 1);
        }
    }
}

/// Ends the first reading when it is dropped.
struct FirstReading<'a>(&'a Library);

impl Drop for FirstReading<'_> {
    fn drop(&mut self) {
        // Pages that show how far it is learn that it has ended.
        lock(&self.0.state).version += 1;
        *lock(&self.0.first) = None;
        self.0.first_ended.notify_all();
    }
}

/// The start and the number of this process. No other process on this machine has the same.
fn epoch() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}-{:x}", since.as_nanos(), std::process::id())
}

/// A setting with numbers of at most six digits, as people write them: 30 for 30.0, 1.33333 for
/// 4/3.
fn printed(text: String) -> String {
    let number = |number: &Number| match number.as_f64() {
        // An integer may be a seed, in which every digit counts.
        Some(value) if number.is_f64() => format!("{value:.5e}")
            .parse()
            .map_or_else(|_| number.to_string(), |short: f64| short.to_string()),
        _ => number.to_string(),
    };
    match serde_json::from_str(&text) {
        Ok(Value::Number(found)) => number(&found),
        Ok(Value::Array(list)) if list.iter().all(Value::is_number) => {
            let all: Vec<String> = list.iter().filter_map(Value::as_number).map(number).collect();
            format!("[{}]", all.join(", "))
        }
        _ => text,
    }
}

/// The value behind a lock. If a thread panicked, the value is at worst out of date.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl KnownRun {
    fn new(id: &str, folder: PathBuf) -> Self {
        let reader = RunReader::without_pictures(&folder);
        let row = RunRow { id: id.to_owned(), ..RunRow::default() };
        Self {
            folder,
            reading: Mutex::new(ReadState { reader, stamp: FilesStamp::default() }),
            latest: Mutex::new(VersionedRow { row, version: 0 }),
        }
    }

    /// Its new row, if one of its files changed.
    fn changed(&self, reading: &mut ReadState) -> Option<RunRow> {
        let (id, status) = {
            let latest = lock(&self.latest);
            (latest.row.id.clone(), latest.row.status)
        };
        let stamp =
            FilesStamp::of(&self.folder, status != "finished" && reading.reader.is_training());
        if stamp == reading.stamp {
            return None;
        }
        reading.stamp = stamp;
        Some(match reading.reader.read() {
            Ok(data) => RunRow::new(id, &data),
            Err(error) => {
                let problem = Some(error.to_string());
                RunRow { id, status: "unreadable", problem, ..RunRow::default() }
            }
        })
    }
}

impl FilesStamp {
    fn of(folder: &Path, training: bool) -> Self {
        let stamp = |name: &str| {
            let file = fs::metadata(folder.join(name)).ok()?;
            Some((file.len(), file.modified().ok()?))
        };
        Self { files: FILES.iter().map(|name| stamp(name)).collect(), training }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::row::why_ended;
    use super::*;
    use crate::run_files::names::ENVIRONMENT;

    fn library_of(root: &Path) -> Library {
        let library = Library::new(root, Links::Inside).unwrap();
        library.read_all();
        library
    }

    fn pictures_in(library: &Library, id: &str, stage: &str) -> Option<String> {
        let (file, length) = library.pictures(id, stage)?;
        let text = io::read_to_string(file).unwrap();
        assert_eq!(text.len() as u64, length);
        Some(text)
    }

    pub(in super::super) fn run(root: &Path, id: &str, log: &str) {
        let folder = root.join(id);
        fs::create_dir_all(&folder).unwrap();
        let recipe = "tags = [\"a\"]\n[[stage]]\nname = \"teacher\"\nmethod = \"mae\"\nsteps = 4\n";
        crate::files::write_whole(&folder.join(RECIPE), recipe.as_bytes()).unwrap();
        crate::files::write_whole(&folder.join(METRICS), log.as_bytes()).unwrap();
    }

    #[test]
    fn the_version_of_a_run_grows_only_when_it_changes() {
        let root = tempfile::tempdir().unwrap();
        run(root.path(), "one", "");
        let library = library_of(root.path());
        let check = || {
            library.search();
            library.check();
            let state = lock(&library.state);
            (state.version, state.runs.get("one").map_or(0, |run| lock(&run.latest).version))
        };
        let before = check();
        assert_eq!(check(), before);
        let line = "{\"stage\":\"teacher\",\"step\":1,\"loss\":0.5}\n";
        let probe = "{\"stage\":\"teacher\",\"step\":1,\"probe\":{\"knn_mean\":0.25}}\n";
        run(root.path(), "one", &[line, probe].concat());
        run(root.path(), "two", "");
        assert!(check().1 > before.1);
        let row = &library.rows(None).rows[0];
        assert_eq!((row.status, row.tags[0].as_str(), row.step), ("stopped", "a", 1));
        assert_eq!((row.loss, row.knn, row.share), (Some(0.5), Some(0.25), Some(0.25)));
        fs::remove_dir_all(root.path().join("one")).unwrap();
        check();
        let left: Vec<String> = library.rows(None).rows.into_iter().map(|row| row.id).collect();
        assert_eq!(left, ["two"]);
    }

    #[test]
    fn a_page_with_the_version_of_another_process_gets_all_rows() {
        let root = tempfile::tempdir().unwrap();
        run(root.path(), "one", "");
        let library = library_of(root.path());
        let RunTable { epoch, version, .. } = library.rows(None);
        let count = |epoch: &str, since| library.rows(Some((epoch, since))).rows.len();
        assert_eq!(count(&epoch, version), 0, "nothing changed");
        assert_eq!(count("before", version), 1);
        assert_eq!(count(&epoch, version + 16), 1, "not a version of this process");
        let again = library_of(root.path());
        assert_ne!(again.epoch, epoch);
    }

    #[test]
    fn settings_that_print_alike_are_alike() {
        for (text, wanted) in [
            ("30.0", "30"),
            ("1.3333333333333333", "1.33333"),
            ("[0.75,1.3333333333333333]", "[0.75, 1.33333]"),
            ("1e-8", "0.00000001"),
            ("12345678901", "12345678901"),
            ("data/2024.12345678", "data/2024.12345678"),
            ("true", "true"),
        ] {
            assert_eq!(printed(text.to_owned()), wanted);
        }
    }

    #[test]
    fn a_run_that_stopped_without_a_reason_says_how_to_resume_it() {
        let root = tempfile::tempdir().unwrap();
        run(root.path(), "one", "");
        let library = library_of(root.path());
        let problem = library.run("one").unwrap().map(|data| why_ended(&data)).unwrap().unwrap();
        let folder = root.path().join("one");
        let remedy = format!("`saltworks pretrain --resume --out {}` resumes it", folder.display());
        assert!(problem.contains("no reason") && problem.ends_with(&remedy), "{problem}");
    }

    #[test]
    fn an_unreadable_run_delays_no_other() {
        let root = tempfile::tempdir().unwrap();
        run(root.path(), "one", "");
        run(root.path(), "two", "");
        let pipe = root.path().join("two").join(METRICS);
        fs::remove_file(&pipe).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let library = library_of(root.path());
        let states: Vec<_> = library.rows(None).rows.iter().map(|row| row.status).collect();
        assert_eq!(states, ["stopped", "unreadable"]);
        // As if a disk did not answer a reader.
        let two = library.known("two").unwrap();
        let stuck = lock(&two.reading);
        assert_eq!(library.rows(None).rows.len(), 2);
        library.check();
        assert!(library.run("one").unwrap().is_ok());
        drop(stuck);
    }

    #[test]
    fn pictures_of_unknown_stages_are_none() {
        let root = tempfile::tempdir().unwrap();
        run(root.path(), "one", "");
        let pictures = root.path().join("one").join(PICTURES);
        fs::create_dir(&pictures).unwrap();
        for (name, text) in [("teacher", "{}"), ("secret", "x")] {
            let path = pictures.join(format!("{name}.json"));
            crate::files::write_whole(&path, text.as_bytes()).unwrap();
        }
        crate::files::write_whole(&root.path().join("one/secret.json"), b"x").unwrap();
        let library = library_of(root.path());
        assert_eq!(pictures_in(&library, "one", "teacher").as_deref(), Some("{}"));
        for (id, stage) in [("one", "secret"), ("one", "../secret"), ("../one", "teacher")] {
            assert_eq!(pictures_in(&library, id, stage), None, "{id} {stage}");
        }
    }

    /// Who may write a run must not make the server's user show other files.
    #[test]
    fn no_file_of_a_run_is_read_through_a_link() {
        let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let step = |stage: &str| format!("{{\"stage\":\"{stage}\",\"step\":1,\"loss\":0.5}}\n");
        let log = [step("teacher"), step("../../../secret")].concat();
        let secret = |name: &str, text: &str| {
            let path = elsewhere.path().join(name);
            crate::files::write_whole(&path, text.as_bytes()).unwrap();
            path
        };
        let table = "[{\"features\":\"s3cret\",\"knn_mean\":0.5}]";
        let state = "{\"ended\":{\"why\":\"s3cret\"},\"version\":\"s3cret\"}";
        let files = [
            (RECIPE, "tags = [\"s3cret\"]"),
            (METRICS, &step("s3cret")),
            (PROBES, table),
            (STATE, state),
            (PLAN, "{\"flops\":\"s3cret\"}"),
            (ENVIRONMENT, "{\"cpu\":\"s3cret\",\"command\":[\"s3cret\"]}"),
            (PICTURES, "{\"step\":1,\"note\":\"s3cret\"}"),
        ];
        secret("secret.json", "s3cret");
        for (id, (name, text)) in ["a", "b", "c", "d", "e", "f", "g"].into_iter().zip(files) {
            run(root.path(), id, &log);
            let (folder, link) = (root.path().join(id), root.path().join(id).join(name));
            let _ = fs::remove_file(&link);
            let target = match name {
                PICTURES => {
                    secret("teacher.json", text);
                    elsewhere.path().to_owned()
                }
                name => secret(name, text),
            };
            std::os::unix::fs::symlink(target, &link).unwrap();
            let shown =
                RunReader::new(&folder).read().map(|run| serde_json::to_string(&run).unwrap());
            let shown = shown.unwrap_or_else(|error| error.to_string());
            assert!(!shown.contains("s3cret"), "{name}: {shown}");
            let library = library_of(root.path());
            let shown = serde_json::to_string(&library.rows(None)).unwrap();
            assert!(!shown.contains("s3cret"), "{name}: {shown}");
            for stage in ["teacher", "../../../secret"] {
                assert_eq!(pictures_in(&library, id, stage), None, "{name} {stage}");
            }
        }
    }

    #[test]
    fn a_table_of_many_runs_is_there_before_they_are_read() {
        let root = tempfile::tempdir().unwrap();
        run(root.path(), "one", "");
        let library = Library::new(root.path(), Links::Inside).unwrap();
        let begun = Instant::now();
        let table = library.rows(None);
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(table.ids.is_empty() && table.rows.is_empty());
        assert_eq!(table.reading, Some(ReadProgress::default()));
        library.search();
        let found = ReadProgress { folders: 2, found: 1, read: 0 };
        assert_eq!(library.rows(None).reading, Some(found));
        assert!(library.known("one").is_some() && library.rows(None).ids.is_empty());
        library.read_all();
        let table = library.rows(Some((&table.epoch, table.version)));
        assert_eq!((table.ids, table.rows.len(), table.reading), (vec!["one".into()], 1, None));
    }

    /// How many times as long eight times the stages take. Linear work takes 8 times as long,
    /// quadratic work up to 64. The least of three times counts, because others compute beside.
    fn growth(stages: usize, time: impl Fn(usize) -> Duration) -> f64 {
        let least = |stages: usize| (0..3).map(|_| time(stages)).min().unwrap_or_default();
        least(8 * stages).as_secs_f64() / least(stages).as_secs_f64()
    }

    /// More than this is no linear work.
    const MOST_GROWTH: f64 = 24.0;

    /// Each key of one recipe was compared with each of the other.
    #[test]
    fn settings_of_recipes_take_time_that_grows_with_their_stages() {
        let time = |stages: usize| {
            let root = tempfile::tempdir().unwrap();
            for (id, count) in [("one", 1), ("two", stages)] {
                run(root.path(), id, "");
                let stage =
                    |n| format!("[[stage]]\nname = \"s{n}\"\nmethod = \"mae\"\nsteps = 4\n");
                let recipe: String = (0..count).map(stage).collect();
                let path = root.path().join(id).join(RECIPE);
                crate::files::write_whole(&path, recipe.as_bytes()).unwrap();
            }
            let library = library_of(root.path());
            let begun = Instant::now();
            let keys = library.settings().keys;
            assert!(keys.contains(&format!("s{}.steps", stages - 1)), "{:?}", keys.last());
            begun.elapsed()
        };
        assert!(growth(500, time) < MOST_GROWTH);
    }

    /// Writes a run of so many stages, in the opposite order, with a line, a plan and a row each.
    fn many_stages(root: &Path, stages: usize) {
        let line = |n| format!("{{\"stage\":\"s{n}\",\"step\":1,\"loss\":0.5}}\n");
        run(root, "one", &(0..stages).map(line).collect::<String>());
        let write = |name: &str, text: String| {
            crate::files::write_whole(&root.join("one").join(name), text.as_bytes()).unwrap();
        };
        let stage = |n| format!("[[stage]]\nname=\"s{n}\"\nmethod=\"mae\"\nsteps=2\n");
        write(RECIPE, (0..stages).rev().map(stage).collect());
        let planned = |n| format!("{{\"name\":\"s{n}\",\"steps\":3}}");
        let planned: Vec<String> = (0..stages).map(planned).collect();
        write(PLAN, format!("{{\"stages\":[{}]}}", planned.join(",")));
        let row = |n| format!("{{\"features\":\"s{n}\",\"images\":100,\"knn_mean\":0.5}}");
        let rows: Vec<String> = (0..stages).map(row).collect();
        write(PROBES, format!("[{}]", rows.join(",")));
    }

    /// Each line of the log, and each stage of the recipe, was compared with all stages.
    #[test]
    fn a_run_with_many_stages_is_read_in_time_that_grows_with_their_number() {
        let time = |stages: usize| {
            let root = tempfile::tempdir().unwrap();
            many_stages(root.path(), stages);
            let begun = Instant::now();
            let data = library_of(root.path()).run("one").unwrap().unwrap();
            let elapsed = begun.elapsed();
            assert_eq!(data.problems, Vec::<String>::new());
            // In the order of the recipe, each with its line and its plan.
            let last = format!("s{}", stages - 1);
            assert_eq!((data.stages.len(), data.stages[0].name.as_str()), (stages, &*last));
            assert!(data.stages.iter().all(|stage| (stage.step, stage.steps) == (1, Some(3))));
            assert_eq!((data.table.len(), data.verdicts.len()), (stages, stages));
            elapsed
        };
        assert!(growth(7_500, time) < MOST_GROWTH);
    }
}
