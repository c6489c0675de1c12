//! The runs under a folder. They appear, grow and disappear.

use crate::files::read_regular_in;
use crate::loggers::run_settings;
use crate::report::{RunData, RunReader, StageData};
use crate::run_files::names::{METRICS, PICTURES, PLAN, PROBES, RECIPE, STATE, pictures_of};
use serde::Serialize;
use serde_json::{Number, Value};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant, SystemTime};

/// Files that change while a run trains.
const FILES: [&str; 6] = [RECIPE, METRICS, STATE, PROBES, PLAN, PICTURES];
/// The depth and the number of folders that are searched: the root may be a home folder.
const MOST_DEPTH: usize = 5;
const MOST_FOLDERS: usize = 20_000;
/// Time between two checks of the files of known runs, and between two searches for new runs.
const CHECK_EVERY: Duration = Duration::from_millis(900);
const SEARCH_EVERY: Duration = Duration::from_secs(5);
/// The largest file of pictures that is sent.
const MOST_PICTURE_BYTES: u64 = 256 << 20;

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
/// Each request refreshes the list unless another request is already doing so. No lock that others
/// need is held while files are read, so a disk that does not answer delays only its own readers.
pub struct Library {
    root: PathBuf,
    links: Links,
    /// Distinguishes the versions of this process from those of earlier ones, which also began at
    /// 0. A page may outlive its server.
    epoch: String,
    state: Mutex<LibraryState>,
    refresh_times: Mutex<RefreshTimes>,
}

/// The runs found so far.
#[derive(Default)]
struct LibraryState {
    /// Runs by their path below the root.
    runs: BTreeMap<String, Arc<KnownRun>>,
    /// Grows with each change.
    version: u64,
}

/// The table of runs, as pages receive it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RunTable {
    epoch: String,
    pub(super) version: u64,
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

/// A run in the table of runs.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct RunRow {
    /// The path of its folder below the root.
    pub id: String,
    /// The tags of its recipe.
    pub tags: Vec<String>,
    /// The status of [`RunData`], or `unreadable`.
    pub status: &'static str,
    /// Why it cannot be read, or why its last process ended.
    pub problem: Option<String>,
    /// What its process does between stages.
    pub doing: Option<String>,
    /// The last stage that has begun.
    pub stage: Option<String>,
    /// Steps made of that stage.
    pub step: u64,
    /// All steps of that stage.
    pub steps: Option<u64>,
    /// The share of steps made, if the number of all steps is known.
    pub share: Option<f64>,
    /// Its last training loss.
    pub loss: Option<f64>,
    /// Accuracy by kNN after the stage's training, with all images.
    pub final_knn: Option<f64>,
    /// The same by a linear probe.
    pub final_linear: Option<f64>,
    /// The loss of the last online probe, if it is of held-out images.
    pub held_out_loss: Option<f64>,
    /// Accuracy by kNN of the last online probe.
    pub knn: Option<f64>,
    /// The same by a linear probe.
    pub linear: Option<f64>,
    /// RankMe of the last online probe.
    pub rank_me: Option<f64>,
    /// Accuracy by kNN of each online probe. It is empty if no accuracy is known.
    pub trace: Vec<f64>,
    /// Mean images per second of the stage's steps.
    pub images_per_second: Option<f64>,
    /// Alarms of all stages that are not over.
    pub alarms: usize,
    /// When the last line was written.
    pub updated: Option<f64>,
}

impl Library {
    /// The runs under `root`.
    ///
    /// # Errors
    /// A root that is not a folder or cannot be read.
    pub fn new(root: &Path, links: Links) -> io::Result<Self> {
        fs::read_dir(root)?;
        let (state, refresh_times) = (Mutex::default(), Mutex::default());
        let library = Self { root: root.into(), links, epoch: epoch(), state, refresh_times };
        library.refresh();
        Ok(library)
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
        let (version, runs) = {
            let state = lock(&self.state);
            (state.version, state.runs.clone())
        };
        let known = since.filter(|(epoch, since)| *epoch == self.epoch && *since <= version);
        let since = known.map_or(0, |(_, since)| since);
        let changed = |run: &Arc<KnownRun>| {
            let latest = lock(&run.latest);
            (latest.version > since || since == 0).then(|| latest.row.clone())
        };
        let rows = runs.values().filter_map(changed).collect();
        RunTable { epoch: self.epoch.clone(), version, ids: runs.into_keys().collect(), rows }
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
        let keys: Vec<String> = all.iter().filter(differs).map(|key| (*key).clone()).collect();
        values.values_mut().for_each(|settings| settings.retain(|key, _| keys.contains(key)));
        Settings { keys, values }
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

    /// The file of pictures of a run's stage.
    pub(super) fn pictures(&self, id: &str, stage: &str) -> Option<Vec<u8>> {
        let run = self.known(id)?;
        // Only the names of the run's stages are accepted, so no other file can be requested.
        let data = lock(&run.reading).reader.read().ok()?;
        let stage = data.stages.iter().find(|known| known.name == stage)?;
        read_regular_in(&run.folder, &pictures_of(&stage.name), MOST_PICTURE_BYTES).ok()
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
        let runs = lock(&self.state).runs.clone();
        let meant = runs.iter().filter(|(id, _)| ids.is_empty() || ids.contains(id));
        meant.map(|(_, run)| lock(&run.latest)).any(|latest| latest.row.status == "training")
    }

    fn known(&self, id: &str) -> Option<Arc<KnownRun>> {
        lock(&self.state).runs.get(id).cloned()
    }

    fn runs(&self) -> Vec<Arc<KnownRun>> {
        lock(&self.state).runs.values().cloned().collect()
    }

    /// Searches for runs and checks them if it is time, unless another thread does so.
    fn refresh(&self) {
        let mut times = match self.refresh_times.try_lock() {
            Ok(times) => times,
            Err(TryLockError::Poisoned(times)) => times.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
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

    /// Finds new runs, and forgets those that disappeared.
    fn search(&self) {
        let found = runs_under(&self.root, self.links);
        let mut state = lock(&self.state);
        let before = state.runs.len();
        state.runs.retain(|id, _| found.contains_key(id));
        let mut changed = state.runs.len() != before;
        for (id, folder) in found {
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
        }
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

impl RunRow {
    fn new(id: String, data: &RunData) -> Self {
        let stages = &data.stages;
        let all: Option<u64> = stages.iter().map(|stage| stage.steps).sum();
        let made: u64 = stages.iter().map(|stage| stage.step).sum();
        let row = Self {
            id,
            tags: data.tags.clone(),
            status: data.status,
            doing: data.doing.clone(),
            problem: data.problems.first().cloned().or_else(|| why_ended(data)),
            share: all.filter(|all| *all > 0).map(|all| made as f64 / all as f64),
            alarms: stages
                .iter()
                .flat_map(|stage| &stage.alarms)
                .filter(|a| a.over.is_none())
                .count(),
            updated: data.updated,
            ..Self::default()
        };
        let last = stages.iter().rfind(|stage| stage.has_begun());
        let Some(stage) = last else { return row };
        let table = data.table.iter().find(|found| found.name == stage.name);
        let (knn, linear) = (table.map(|row| row.knn_mean), table.and_then(|row| row.linear_mean));
        Self { final_knn: knn, final_linear: linear, ..row.of_stage(stage) }
    }

    fn of_stage(self, stage: &StageData) -> Self {
        // The probe before the first step is of an untrained encoder.
        let last = stage.probes.last().filter(|point| point.step > 0);
        let probe = last.map(|point| &point.probe);
        Self {
            stage: Some(stage.name.clone()),
            step: stage.step,
            steps: stage.steps,
            loss: stage.series.loss.last().copied(),
            held_out_loss: probe.filter(|probe| probe.held_out).and_then(|probe| probe.loss),
            knn: probe.and_then(|probe| probe.knn_mean),
            linear: probe.and_then(|probe| probe.linear_mean),
            rank_me: probe.and_then(|probe| probe.rank_me),
            trace: stage.probes.iter().filter_map(|point| point.probe.knn_mean).collect(),
            images_per_second: stage.images_per_second,
            ..self
        }
    }
}

/// Why a run stopped. A process that was killed wrote no reason.
fn why_ended(data: &RunData) -> Option<String> {
    let folder = &data.folder;
    let killed = || {
        format!(
            "no reason was written (killed?); \
             `saltworks pretrain --resume --out {folder}` resumes it"
        )
    };
    let written = data.ended.as_ref().map(|ended| ended.why.clone());
    written.or_else(|| (data.status == "stopped").then(killed))
}

/// Folders of runs under a root, by their paths below it. The folders of a run are not searched.
fn runs_under(root: &Path, links: Links) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let real_root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let inside = |real: &PathBuf| links == Links::All || real.starts_with(&real_root);
    let mut searched = HashSet::new();
    let mut next = vec![(root.to_path_buf(), 0)];
    while let Some((folder, depth)) = next.pop() {
        // A link may lead to a folder above it.
        let real = fs::canonicalize(&folder).ok().filter(inside);
        let fresh = real.is_some_and(|real| searched.insert(real));
        if !fresh || searched.len() > MOST_FOLDERS {
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
    use crate::run_files::names::ENVIRONMENT;

    fn run(root: &Path, id: &str, log: &str) {
        let folder = root.join(id);
        fs::create_dir_all(&folder).unwrap();
        let recipe = "tags = [\"a\"]\n[[stage]]\nname = \"teacher\"\nmethod = \"mae\"\nsteps = 4\n";
        crate::files::write_whole(&folder.join(RECIPE), recipe.as_bytes()).unwrap();
        crate::files::write_whole(&folder.join(METRICS), log.as_bytes()).unwrap();
    }

    #[test]
    fn runs_are_found_at_any_depth_and_their_own_folders_are_not_searched() {
        let root = tempfile::tempdir().unwrap();
        for id in ["one", "sweep/two", "sweep/two/inner", ".hidden/three", "a/b/c/d/e/f/deep"] {
            run(root.path(), id, "");
        }
        std::os::unix::fs::symlink(root.path(), root.path().join("sweep/up")).unwrap();
        let under = |links| runs_under(root.path(), links).into_keys().collect::<Vec<_>>();
        assert_eq!(under(Links::Inside), ["one", "sweep/two"]);
        let elsewhere = tempfile::tempdir().unwrap();
        run(elsewhere.path(), "far", "");
        let link = root.path().join("linked");
        std::os::unix::fs::symlink(elsewhere.path(), link).unwrap();
        assert_eq!(under(Links::Inside), ["one", "sweep/two"]);
        assert_eq!(under(Links::All), ["linked/far", "one", "sweep/two"]);
        let found = runs_under(&root.path().join("one"), Links::Inside);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["."]);
    }

    #[test]
    fn the_version_of_a_run_grows_only_when_it_changes() {
        let root = tempfile::tempdir().unwrap();
        run(root.path(), "one", "");
        let library = Library::new(root.path(), Links::Inside).unwrap();
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
        let library = Library::new(root.path(), Links::Inside).unwrap();
        let RunTable { epoch, version, .. } = library.rows(None);
        let count = |epoch: &str, since| library.rows(Some((epoch, since))).rows.len();
        assert_eq!(count(&epoch, version), 0, "nothing changed");
        assert_eq!(count("before", version), 1);
        assert_eq!(count(&epoch, version + 16), 1, "not a version of this process");
        let again = Library::new(root.path(), Links::Inside).unwrap();
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
        let library = Library::new(root.path(), Links::Inside).unwrap();
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
        let library = Library::new(root.path(), Links::Inside).unwrap();
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
        let library = Library::new(root.path(), Links::Inside).unwrap();
        assert_eq!(library.pictures("one", "teacher"), Some(b"{}".to_vec()));
        for (id, stage) in [("one", "secret"), ("one", "../secret"), ("../one", "teacher")] {
            assert_eq!(library.pictures(id, stage), None, "{id} {stage}");
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
            let library = Library::new(root.path(), Links::Inside).unwrap();
            let shown = serde_json::to_string(&library.rows(None)).unwrap();
            assert!(!shown.contains("s3cret"), "{name}: {shown}");
            for stage in ["teacher", "../../../secret"] {
                assert_eq!(library.pictures(id, stage), None, "{name} {stage}");
            }
        }
    }
}
