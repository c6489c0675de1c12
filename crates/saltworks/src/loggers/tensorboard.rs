//! Event files of TensorBoard: a run's numbers, histograms, pictures and settings, one folder per
//! stage. They are generated from `metrics.jsonl` and `pictures/`.

mod messages;
mod wire;

use super::{final_scalars, flat, scalars, settings};
use crate::files::{open_existing, open_regular};
use crate::run_files::names::{METRICS, PROBES, STATE, pictures_of};
use crate::run_files::{Line, LineKind, LogEvent, MetricsReader, ProbeRow, RunState, reading};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use messages::{Event, SummaryValue};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use wire::{FileContents, LineId};

/// The suffix of the files that saltworks may remove.
const MARK: &str = ".saltworks";

/// The numbers by which stages are compared.
const COMPARED: [&str; 6] = [
    "final/knn_mean",
    "final/linear_mean",
    "probe/knn_mean",
    "probe/linear_mean",
    "probe/loss",
    "loss",
];

/// Keeps the event files of one run up to date.
pub struct TensorBoard {
    folders: Folders,
    mode: FileMode,
    log: MetricsReader,
    stages: BTreeMap<String, EventFile>,
}

/// The folder of a run, and the folder of its event files.
#[derive(Clone)]
struct Folders {
    run: PathBuf,
    out: PathBuf,
}

/// What happens to event files that exist already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileMode {
    /// They are removed.
    Replace,
    /// They are appended to, so that a TensorBoard that is already open keeps working.
    ///
    /// Steps that a resumed run repeats have the same bits, so their events stay. Probes may fall
    /// on other steps. From the first line that differs, readers are asked to forget the rest.
    Append,
}

impl TensorBoard {
    /// Writes event files of the run in the folder `run` to `out`/STAGE. Nothing is written before
    /// the first [`TensorBoard::update`].
    pub fn new(run: &Path, out: &Path, mode: FileMode) -> Self {
        Self::of(Folders { run: run.into(), out: out.into() }, mode)
    }

    fn of(folders: Folders, mode: FileMode) -> Self {
        let log = MetricsReader::new(&folders.run.join(METRICS));
        Self { folders, mode, log, stages: BTreeMap::new() }
    }

    /// Adds what was logged since the last call.
    ///
    /// # Errors
    /// Files that cannot be read or written: the next call begins new ones.
    pub fn update(&mut self) -> io::Result<()> {
        let added = self.add_lines();
        if added.is_err() {
            // A record may be half written.
            *self = Self::of(self.folders.clone(), self.mode);
        }
        added
    }

    fn add_lines(&mut self) -> io::Result<()> {
        let Self { folders, mode, log, stages } = self;
        let mut result = Ok(());
        log.read(&mut |event| {
            if result.is_ok() {
                result = match event {
                    // The files of repeated steps are opened again with the first line.
                    LogEvent::Restart => {
                        stages.clear();
                        Ok(())
                    }
                    LogEvent::Line(line) => add_line(folders, *mode, stages, &line),
                };
            }
        })?;
        result?;
        for (stage, events) in stages {
            events.pictures(&folders.run, stage)?;
            events.file.flush()?;
        }
        Ok(())
    }

    /// Adds the rest. To each stage that ended, adds that it ended and the results of its probes.
    ///
    /// # Errors
    /// As [`TensorBoard::update`].
    pub fn finish(&mut self) -> io::Result<()> {
        self.update()?;
        let table: Vec<ProbeRow> = reading::json(&self.folders.run, PROBES);
        let state: RunState = reading::json(&self.folders.run, STATE);
        for (stage, events) in &mut self.stages {
            if state.done.iter().any(|done| done.stage == *stage) {
                events.end(table.iter().find(|row| row.name == *stage))?;
                events.file.flush()?;
            }
        }
        Ok(())
    }

    /// Whether nothing was logged so far.
    pub fn is_empty(&self) -> bool {
        self.stages.is_empty()
    }
}

fn add_line(
    folders: &Folders,
    mode: FileMode,
    stages: &mut BTreeMap<String, EventFile>,
    line: &Line,
) -> io::Result<()> {
    if !stages.contains_key(&line.stage) {
        let events = EventFile::open(folders, mode, line)?;
        stages.insert(line.stage.clone(), events);
    }
    match stages.get_mut(&line.stage) {
        Some(events) => events.line(line),
        None => Ok(()),
    }
}

/// The open event file of one stage.
struct EventFile {
    file: BufWriter<File>,
    /// Time of the last line.
    time: f64,
    /// Step of the last line.
    step: u64,
    /// Lines that the file holds already and that the log has not repeated yet.
    repeats: VecDeque<LineId>,
    /// The last line that the log repeated.
    last_repeat: Option<Line>,
    /// Step of the pictures in the file.
    picture_step: Option<u64>,
    /// Whether the file says that the stage ended.
    ended: bool,
}

impl EventFile {
    /// Opens the file to append to, or a new one. `line` is the first line of its stage.
    fn open(folders: &Folders, mode: FileMode, line: &Line) -> io::Result<Self> {
        let folder = folders.out.join(&line.stage);
        fs::create_dir_all(&folder)?;
        let time = line.unix_seconds.unwrap_or_default();
        if mode == FileMode::Append
            && let Some(events) = Self::reopen(&folder, time)?
        {
            return Ok(events);
        }
        remove(&folder)?;
        let (seconds, process) = (time as u64, std::process::id());
        let path = folder.join(format!("events.out.tfevents.{seconds:010}.{process}{MARK}"));
        let file = File::options().create_new(true).write(true).open(path)?;
        let mut events = Self::new(file, time, FileContents::default());
        events.record(&wire::file_version(time))?;
        events.settings(&folders.run, &line.stage)?;
        Ok(events)
    }

    /// Opens the newest file of a stage after its last whole record, if it holds the settings.
    fn reopen(folder: &Path, time: f64) -> io::Result<Option<Self>> {
        let Some(path) = event_files(folder)?.pop() else { return Ok(None) };
        let contents = FileContents::read(BufReader::new(open_regular(&path)?));
        if !contents.settings {
            return Ok(None);
        }
        let mut file = open_existing(&path)?;
        file.set_len(contents.bytes)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Some(Self::new(file, time, contents)))
    }

    fn new(file: File, time: f64, contents: FileContents) -> Self {
        let FileContents { lines: repeats, picture_step, ended, .. } = contents;
        let file = BufWriter::new(file);
        Self { file, time, step: 0, repeats, last_repeat: None, picture_step, ended }
    }

    fn record(&mut self, event: &Event) -> io::Result<()> {
        wire::write_record(&mut self.file, event)
    }

    /// Writes an event with these values.
    fn event(&mut self, step: u64, values: impl Iterator<Item = SummaryValue>) -> io::Result<()> {
        self.record(&wire::event(self.time, step, values))
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        let Some(id) = LineId::of(line) else { return Ok(()) };
        match self.repeats.front() {
            Some(repeat) if *repeat == id => {
                (self.time, self.step) = (line.unix_seconds.unwrap_or(self.time), line.step);
                self.repeats.pop_front();
                self.last_repeat = Some(line.clone());
                return Ok(());
            }
            Some(_) => self.forget_the_rest()?,
            None => {}
        }
        self.write(line)
    }

    /// Asks readers to forget the lines that the log did not repeat. A process that was killed
    /// wrote them, and no log has them any more.
    fn forget_the_rest(&mut self) -> io::Result<()> {
        let Some(first) = self.repeats.pop_front() else { return Ok(()) };
        self.repeats.clear();
        self.record(&wire::restart(self.time, first.step))?;
        self.picture_step = self.picture_step.filter(|step| *step < first.step);
        self.ended = false;
        match self.last_repeat.take() {
            // It has the same step, so readers forgot it, too.
            Some(repeat) if repeat.step >= first.step => self.write(&repeat),
            _ => Ok(()),
        }
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        (self.time, self.step) = (line.unix_seconds.unwrap_or(self.time), line.step);
        let mut values: Vec<_> = scalars(line).into_iter().map(wire::number).collect();
        if let LineKind::Probe(probe) = &line.kind {
            let histograms = probe.histograms.iter();
            values.extend(histograms.map(|(name, of)| wire::histogram(name, of)));
        }
        self.event(line.step, values.into_iter())
    }

    /// Writes that the stage ended, and the results of the probes after it.
    fn end(&mut self, row: Option<&ProbeRow>) -> io::Result<()> {
        self.forget_the_rest()?;
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        if let Some(row) = row {
            self.event(self.step, final_scalars(row).into_iter().map(wire::number))?;
        }
        self.event(0, [wire::session_end(self.time)].into_iter())
    }

    /// Adds pictures that are newer than those in the file.
    fn pictures(&mut self, run: &Path, stage: &str) -> io::Result<()> {
        let pictures = reading::json::<Value>(run, pictures_of(stage));
        let step = pictures["step"].as_u64();
        if step.is_none() || step == self.picture_step {
            return Ok(());
        }
        self.picture_step = step;
        let images = tagged_images(&pictures).into_iter();
        let values =
            images.filter_map(|(tag, png)| wire::image(tag, BASE64_STANDARD.decode(png?).ok()?));
        self.event(step.unwrap_or_default(), values)
    }

    /// Writes the stage's settings and the numbers by which it is compared.
    fn settings(&mut self, run: &Path, stage: &str) -> io::Result<()> {
        let settings = flat(&settings_of(run, stage)?);
        self.event(0, [wire::experiment(&settings, &COMPARED)].into_iter())?;
        self.event(0, [wire::session_start(&settings, stage, self.time)].into_iter())
    }
}

/// The images of a pictures file as PNG in base64, with their tags.
fn tagged_images(pictures: &Value) -> Vec<(String, Option<String>)> {
    let list = |name: &str| pictures[name].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut images = Vec::new();
    for (index, image) in list("images").iter().enumerate() {
        images.push((format!("original/{index}"), text(&image["png"])));
    }
    for (index, reconstruction) in list("reconstructions").iter().enumerate() {
        for kind in ["masked", "predicted", "composite"] {
            images.push((format!("{kind}/{index}"), text(&reconstruction[kind])));
        }
    }
    for (index, drawing) in list("pca").iter().enumerate() {
        images.push((format!("patch_pca/{index}"), text(drawing)));
    }
    images
}

/// The recipe with only one stage, as `stage`.
fn settings_of(run: &Path, stage: &str) -> io::Result<Map<String, Value>> {
    let (mut settings, recipe) = settings(run)?;
    let own = recipe.stage.iter().find(|known| known.name == stage);
    let own = own.and_then(|own| serde_json::to_value(own).ok()).unwrap_or_default();
    settings.insert("stage".into(), own);
    Ok(settings)
}

/// Event files of saltworks in a stage's folder, the newest last.
fn event_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // A link is not followed: its target does not belong to saltworks.
        let is_file = entry.file_type()?.is_file();
        if is_file && name.starts_with("events.out.tfevents.") && name.ends_with(MARK) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Removes event files of saltworks from a stage's folder.
fn remove(folder: &Path) -> io::Result<()> {
    event_files(folder)?.iter().try_for_each(fs::remove_file)
}

/// Removes event files of saltworks from the folders in `out`, and folders that are then empty.
///
/// # Errors
/// A file that cannot be removed.
pub fn remove_events(out: &Path) -> io::Result<()> {
    for entry in fs::read_dir(out).into_iter().flatten() {
        let entry = entry?;
        let folder = entry.path();
        if entry.file_type()?.is_dir() {
            remove(&folder)?;
            let _ = fs::remove_dir(folder);
        }
    }
    let _ = fs::remove_dir(out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_whole;
    use crate::run_files::names::RECIPE;
    use serde_json::json;

    #[test]
    fn a_file_is_appended_to_after_its_last_whole_record() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path();
        let recipe = "[[stage]]\nname = \"teacher\"\nmethod = \"mae\"\nsteps = 4\n";
        write_whole(&run.join(RECIPE), recipe.as_bytes()).unwrap();
        let step = |step: u64| format!("{{\"stage\":\"teacher\",\"step\":{step},\"loss\":0.5}}\n");
        let probe = "{\"stage\":\"teacher\",\"step\":2,\"probe\":{\"knn_mean\":0.25}}\n";
        let log = |lines: &[&str]| {
            write_whole(&run.join(METRICS), lines.concat().as_bytes()).unwrap();
        };
        let out = run.join("board");
        let lines = [&step(1), &step(2), probe, &step(3), &step(4)];
        log(&lines[..3]);
        TensorBoard::new(run, &out, FileMode::Append).update().unwrap();
        let path = event_files(&out.join("teacher")).unwrap().remove(0);
        let whole = fs::read(&path).unwrap();
        let contents = FileContents::read(whole.as_slice());
        assert_eq!((contents.bytes, contents.lines.len()), (whole.len() as u64, 3));
        assert!(contents.settings && contents.picture_step.is_none() && !contents.ended);
        // Killed in the middle of a record, with steps on disk that the run repeats.
        for cut in [0, 1, 30] {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(whole.len() as u64 - cut).unwrap();
            log(&lines);
            TensorBoard::new(run, &out, FileMode::Append).update().unwrap();
            let files = event_files(&out.join("teacher")).unwrap();
            assert_eq!(files, std::slice::from_ref(&path), "the same file, cut {cut}");
            let again = fs::read(&path).unwrap();
            assert_eq!(FileContents::read(again.as_slice()).lines.len(), 5, "cut {cut}");
            assert_eq!(FileContents::read(again.as_slice()).bytes, again.len() as u64);
        }
    }

    /// A log of a stage with steps 1 to `steps` and probes after some of them.
    fn log(run: &Path, steps: u64, probes: &[u64]) {
        let of = |step: u64| {
            let line = format!("{{\"stage\":\"teacher\",\"step\":{step},\"loss\":{step}.5}}\n");
            let probe = format!(
                "{{\"stage\":\"teacher\",\"step\":{step},\"probe\":{{\"knn_mean\":0.25}}}}\n"
            );
            line + if probes.contains(&step) { &probe } else { "" }
        };
        let text: String = (1..=steps).map(of).collect();
        write_whole(&run.join(METRICS), text.as_bytes()).unwrap();
        let recipe = "[[stage]]\nname = \"teacher\"\nmethod = \"mae\"\nsteps = 4\n";
        write_whole(&run.join(RECIPE), recipe.as_bytes()).unwrap();
    }

    /// Steps, and steps of probes, that a reader has in the end.
    fn read(run: &Path) -> [Vec<u64>; 2] {
        let path = event_files(&run.join("board/teacher")).unwrap().remove(0);
        let lines = FileContents::read(File::open(path).unwrap()).lines;
        let of = |probes: bool| lines.iter().filter(move |line| line.is_probe == probes);
        [of(false).map(|line| line.step).collect(), of(true).map(|line| line.step).collect()]
    }

    #[test]
    fn a_reader_has_what_the_log_has_even_if_probes_fell_on_other_steps_after_a_crash() {
        let all: [&[u64]; 6] = [&[2, 5], &[2, 4], &[2, 6], &[5], &[], &[8]];
        for before in all {
            for after in all {
                let folder = tempfile::tempdir().unwrap();
                let run = folder.path();
                let board = || TensorBoard::new(run, &run.join("board"), FileMode::Append);
                log(run, 6, before);
                board().update().unwrap();
                // The log is cut and grows again while one process writes.
                let mut again = board();
                for steps in [3, 4, 5, 8] {
                    log(run, steps, after);
                    again.update().unwrap();
                }
                let steps: Vec<u64> = (1..=8).collect();
                assert_eq!(read(run), [steps, after.to_vec()], "{before:?}, {after:?}");
            }
        }
    }

    #[test]
    fn what_no_log_has_is_forgotten_at_the_end_of_a_stage() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path();
        log(run, 4, &[2, 4]);
        TensorBoard::new(run, &run.join("board"), FileMode::Append).update().unwrap();
        log(run, 4, &[2]);
        let record = json!({"file": "teacher.safetensors", "bytes": 1, "sha256": ""});
        let done = json!({"stage": "teacher", "metrics_bytes": 1, "encoder": record});
        let state = json!({"data": "", "images": null, "done": [done], "finished": false});
        write_whole(&run.join(STATE), state.to_string().as_bytes()).unwrap();
        let ended = |times: usize| {
            for _ in 0..times {
                TensorBoard::new(run, &run.join("board"), FileMode::Append).finish().unwrap();
            }
            fs::metadata(&event_files(&run.join("board/teacher")).unwrap()[0]).unwrap().len()
        };
        let once = ended(1);
        assert_eq!(read(run), [vec![1, 2, 3, 4], vec![2]]);
        assert_eq!(ended(2), once, "reported once");
    }

    #[test]
    fn a_file_without_settings_is_replaced_and_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let run = folder.path();
        log(run, 3, &[]);
        let board =
            || TensorBoard::new(run, &run.join("board"), FileMode::Append).update().unwrap();
        board();
        let stage = run.join("board/teacher");
        let path = event_files(&stage).unwrap().remove(0);
        File::options().write(true).open(&path).unwrap().set_len(60).unwrap();
        board();
        let path = event_files(&stage).unwrap().remove(0);
        assert!(FileContents::read(File::open(&path).unwrap()).settings);
        #[cfg(unix)]
        {
            let other = run.join("other");
            let before = fs::read(&path).unwrap();
            write_whole(&other, &before).unwrap();
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(&other, &path).unwrap();
            log(run, 5, &[]);
            // A file of this process has the link's name.
            let _ = TensorBoard::new(run, &run.join("board"), FileMode::Append).update();
            assert_eq!(fs::read(&other).unwrap(), before);
        }
    }
}
