//! Event files of TensorBoard: a run's numbers, histograms, pictures and settings, one folder a stage.
//! Formats: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto,
//! tensorflow/core/framework/summary.proto and tensorboard/plugins/hparams/plugin_data.proto.

use super::protobuf::{Field, Message, fields};
use super::{final_scalars, flat, scalars, settings};
use crate::base64;
use crate::files::open_regular;
use crate::run_files::names::{METRICS, PICTURES, PROBES, STATE};
use crate::run_files::{Follow, Histogram, Line, ProbeRow, RunState, Told, What, reading};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// Marks the files that are ours to remove.
const MARK: &str = ".saltworks";

/// Keeps the event files of one run, which are made of `metrics.jsonl` and `pictures/`.
pub struct TensorBoard {
    run: PathBuf,
    out: PathBuf,
    begin: Begin,
    follow: Follow,
    stages: BTreeMap<String, Events>,
}

/// What becomes of event files that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// New ones take their place.
    Anew,
    /// They are gone on with: whoever reads them as they grow goes on, too. Steps that a run makes again after
    /// a crash are the same to the bit, so what stands there of them stays; from where the log tells another
    /// story (probes may fall on other steps) readers are asked to forget the rest.
    On,
}

impl TensorBoard {
    /// Of the run in a folder, with files in `out`/STAGE, of all that was logged so far once
    /// [`TensorBoard::update`] is called.
    pub fn new(run: &Path, out: &Path, begin: Begin) -> Self {
        let follow = Follow::new(&run.join(METRICS));
        Self { run: run.into(), out: out.into(), begin, follow, stages: BTreeMap::new() }
    }

    /// Adds what was logged since the last call.
    ///
    /// # Errors
    /// Files that cannot be read or written: the next call begins new ones.
    pub fn update(&mut self) -> io::Result<()> {
        let added = self.add();
        if added.is_err() {
            // A record may be half written.
            *self = Self::new(&self.run, &self.out, self.begin);
        }
        added
    }

    fn add(&mut self) -> io::Result<()> {
        let Self { run, out, begin, follow, stages } = self;
        let place = (run.as_path(), out.as_path(), *begin);
        let mut done = Ok(());
        follow.read(&mut |told| {
            if done.is_ok() {
                done = match told {
                    // Files of steps that are made again go when new ones are begun.
                    Told::Anew => {
                        stages.clear();
                        Ok(())
                    }
                    Told::Line(line) => add(place, stages, &line),
                };
            }
        })?;
        done?;
        for (stage, events) in stages {
            events.pictures(&run.join(PICTURES).join(format!("{stage}.json")))?;
            events.file.flush()?;
        }
        Ok(())
    }

    /// Adds the rest, and to each stage that was trained to its end that it was, and what probes after it found.
    ///
    /// # Errors
    /// As [`TensorBoard::update`].
    pub fn finish(&mut self) -> io::Result<()> {
        self.update()?;
        let table: Vec<ProbeRow> = reading::json(&self.run.join(PROBES));
        let state: RunState = reading::json(&self.run.join(STATE));
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

fn add(
    place: (&Path, &Path, Begin),
    stages: &mut BTreeMap<String, Events>,
    line: &Line,
) -> io::Result<()> {
    if !stages.contains_key(&line.stage) {
        let events = Events::begin(place, line)?;
        stages.insert(line.stage.clone(), events);
    }
    match stages.get_mut(&line.stage) {
        Some(events) => events.line(line),
        None => Ok(()),
    }
}

/// The event file of one stage.
struct Events {
    file: BufWriter<File>,
    /// Of the last line.
    time: f64,
    /// See `time`.
    step: u64,
    /// Lines of the log that are in the file already and still to come.
    written: VecDeque<Entry>,
    /// The last of them that came: of a step, with that step's number.
    passed: Option<Line>,
    /// Step of the pictures that are in the file.
    pictured: Option<u64>,
    /// Whether it was told that the stage ended.
    ended: bool,
}

/// What tells a line of the log from others, as far as it stands in an event file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    step: u64,
    is_probe: bool,
}

impl Entry {
    /// None of a line that has no numbers.
    fn of(line: &Line) -> Option<Self> {
        match line.what {
            What::Step(_) => Some(Self { step: line.step, is_probe: false }),
            What::Probe(_) => Some(Self { step: line.step, is_probe: true }),
            What::Alarm(_) => None,
        }
    }
}

/// What stands in an event file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kept {
    /// Bytes of its whole records.
    bytes: u64,
    /// Whether the stage's settings are in it.
    settings: bool,
    /// Lines of the log.
    lines: VecDeque<Entry>,
    /// Step of the last pictures.
    pictured: Option<u64>,
    /// Whether it says that the stage ended.
    ended: bool,
}

impl Kept {
    fn of(mut file: impl Read) -> Self {
        let mut kept = Self::default();
        while let Some(data) = next_record(&mut file) {
            kept.bytes += data.len() as u64 + 16;
            kept.count(&data);
        }
        kept
    }

    fn count(&mut self, data: &[u8]) {
        let Some(event) = fields(data) else { return };
        let step = event.iter().find_map(|field| match field {
            (2, Field::Integer(step)) => Some(*step),
            _ => None,
        });
        let step = step.unwrap_or_default();
        if event.iter().any(|(field, _)| *field == SESSION_LOG) {
            self.lines.retain(|line| line.step < step);
            self.pictured = self.pictured.filter(|pictured| *pictured < step);
            self.ended = false;
        }
        match first_tag(&event).unwrap_or_default() {
            b"loss" => self.lines.push_back(Entry { step, is_probe: false }),
            tag if tag.starts_with(b"probe/") => {
                self.lines.push_back(Entry { step, is_probe: true });
            }
            tag if tag.starts_with(b"original/") => self.pictured = Some(step),
            START => self.settings = true,
            END => self.ended = true,
            _ => {}
        }
    }
}

/// Event.session_log
const SESSION_LOG: u32 = 7;
/// Tags of hparams.
const START: &[u8] = b"_hparams_/session_start_info";
const END: &[u8] = b"_hparams_/session_end_info";

/// The tag of an event's first value: Event.summary, the first Summary.Value, its tag.
fn first_tag<'a>(event: &[(u32, Field<'a>)]) -> Option<&'a [u8]> {
    let within = |message: &[(u32, Field<'a>)], wanted: u32| {
        message.iter().find_map(|field| match field {
            (number, Field::Bytes(bytes)) if *number == wanted => Some(*bytes),
            _ => None,
        })
    };
    let summary = fields(within(event, 5)?)?;
    let value = fields(within(&summary, 1)?)?;
    within(&value, 1)
}

/// Largest record that is read: pictures are the largest of ours.
const MOST_RECORD_BYTES: u64 = 64 << 20;

/// The data of the next record, if all of it is there and whole.
fn next_record(file: &mut impl Read) -> Option<Vec<u8>> {
    let (mut length, mut sum) = ([0; 8], [0; 4]);
    file.read_exact(&mut length).ok()?;
    file.read_exact(&mut sum).ok()?;
    let size = u64::from_le_bytes(length);
    if masked(&length).to_le_bytes() != sum || size > MOST_RECORD_BYTES {
        return None;
    }
    let mut data = vec![0; size as usize];
    file.read_exact(&mut data).ok()?;
    file.read_exact(&mut sum).ok()?;
    (masked(&data).to_le_bytes() == sum).then_some(data)
}

impl Events {
    /// Begins a file in place of those that an earlier process left, or goes on with the last of them.
    fn begin((run, out, begin): (&Path, &Path, Begin), line: &Line) -> io::Result<Self> {
        let Line { stage, unix_seconds, .. } = line;
        let folder = out.join(stage);
        fs::create_dir_all(&folder)?;
        let time = unix_seconds.unwrap_or_default();
        if begin == Begin::On
            && let Some(path) = ours(&folder)?.pop()
        {
            let kept = Kept::of(BufReader::new(open_regular(&path)?));
            if kept.settings {
                let file = File::options().write(true).open(path)?;
                file.set_len(kept.bytes)?;
                let mut file = BufWriter::new(file);
                file.seek(SeekFrom::End(0))?;
                let Kept { lines: written, pictured, ended, .. } = kept;
                return Ok(Self { file, time, step: 0, written, passed: None, pictured, ended });
            }
        }
        remove(&folder)?;
        let (seconds, process) = (time as u64, std::process::id());
        let path = folder.join(format!("events.out.tfevents.{seconds:010}.{process}{MARK}"));
        let file = BufWriter::new(File::options().create_new(true).write(true).open(path)?);
        let (written, passed) = (VecDeque::new(), None);
        let mut events =
            Self { file, time, step: 0, written, passed, pictured: None, ended: false };
        events.record(Message::default().double(1, time).text(3, "brain.Event:2"))?;
        events.settings(run, stage)?;
        Ok(events)
    }

    /// One record: length, data, and a checksum of each.
    fn record(&mut self, message: Message) -> io::Result<()> {
        let data = message.bytes();
        let length = (data.len() as u64).to_le_bytes();
        self.file.write_all(&length)?;
        self.file.write_all(&masked(&length).to_le_bytes())?;
        self.file.write_all(&data)?;
        self.file.write_all(&masked(&data).to_le_bytes())
    }

    /// An event with these values.
    fn event(&mut self, step: u64, values: impl Iterator<Item = Message>) -> io::Result<()> {
        let summary = values.fold(Message::default(), |summary, value| summary.message(1, value));
        let event = Message::default().double(1, self.time).integer(2, step).message(5, summary);
        self.record(event)
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        let Some(entry) = Entry::of(line) else { return Ok(()) };
        match self.written.front() {
            Some(written) if *written == entry => {
                (self.time, self.step) = (line.unix_seconds.unwrap_or(self.time), line.step);
                self.written.pop_front();
                self.passed = Some(line.clone());
                return Ok(());
            }
            Some(_) => self.forget_the_rest()?,
            None => {}
        }
        self.write(line)
    }

    /// Asks readers to forget what is in the file already and did not come: lines that a process wrote before it
    /// was killed, and that no log has.
    fn forget_the_rest(&mut self) -> io::Result<()> {
        let Some(first) = self.written.pop_front() else { return Ok(()) };
        self.written.clear();
        // SessionLog.status = START: events of this step and later ones are void.
        let start = Message::default().integer(1, 1);
        let event = Message::default().double(1, self.time).integer(2, first.step);
        self.record(event.message(SESSION_LOG, start))?;
        self.pictured = self.pictured.filter(|step| *step < first.step);
        self.ended = false;
        match self.passed.take() {
            // Of the same step, and so forgotten with it.
            Some(passed) if passed.step >= first.step => self.write(&passed),
            _ => Ok(()),
        }
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        (self.time, self.step) = (line.unix_seconds.unwrap_or(self.time), line.step);
        let mut values: Vec<_> = scalars(line)
            .into_iter()
            .map(|(name, value)| value_of(&name).float(2, value as f32))
            .collect();
        if let What::Probe(probe) = &line.what {
            let histograms = probe.histograms.iter();
            values.extend(histograms.map(|(name, of)| value_of(name).message(5, histogram(of))));
        }
        self.event(line.step, values.into_iter())
    }

    /// That the stage ended, and what probes after it found.
    fn end(&mut self, row: Option<&ProbeRow>) -> io::Result<()> {
        self.forget_the_rest()?;
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        if let Some(row) = row {
            let of = |(name, value): (String, f64)| value_of(&name).float(2, value as f32);
            self.event(self.step, final_scalars(row).into_iter().map(of))?;
        }
        let end = Message::default().integer(1, 1).double(2, self.time);
        self.hparams(END, 4, end)
    }

    /// Adds pictures that are newer than those in the file.
    fn pictures(&mut self, path: &Path) -> io::Result<()> {
        let found = reading::json::<Value>(path);
        let step = found["step"].as_u64();
        if step.is_none() || step == self.pictured {
            return Ok(());
        }
        self.pictured = step;
        let list = |name: &str| found[name].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let mut shown: Vec<(String, Option<String>)> = Vec::new();
        for (place, image) in list("images").iter().enumerate() {
            shown.push((format!("original/{place}"), text(&image["png"])));
        }
        for (place, made) in list("reconstructions").iter().enumerate() {
            for kind in ["masked", "predicted", "composite"] {
                shown.push((format!("{kind}/{place}"), text(&made[kind])));
            }
        }
        for (place, drawn) in list("pca").iter().enumerate() {
            shown.push((format!("patch_pca/{place}"), text(drawn)));
        }
        let values = shown.into_iter().filter_map(|(name, png)| {
            image(&base64::decode(&png?)).map(|image| value_of(&name).message(4, image))
        });
        self.event(step.unwrap_or_default(), values)
    }

    /// Settings of the stage and the numbers to compare it by.
    fn settings(&mut self, run: &Path, stage: &str) -> io::Result<()> {
        let settings = flat(&settings_of(run, stage)?);
        let metrics = [
            "final/knn_mean",
            "final/linear_mean",
            "probe/knn_mean",
            "probe/linear_mean",
            "probe/loss",
            "loss",
        ];
        let metrics =
            metrics.map(|tag| Message::default().message(1, Message::default().text(2, tag)));
        let (mut experiment, mut session) = (Message::default(), Message::default());
        for (name, value) in &settings {
            // STRING, BOOL, FLOAT64
            let kind = if value.is_string() { 1 } else { 3 - u64::from(value.is_boolean()) };
            experiment = experiment.message(4, Message::default().text(1, name).integer(3, kind));
            let entry = Message::default().text(1, name).message(2, json_value(value));
            session = session.message(1, entry);
        }
        let experiment = metrics.into_iter().fold(experiment, |all, metric| all.message(5, metric));
        let session = session.text(4, stage).double(5, self.time);
        self.hparams(b"_hparams_/experiment", 2, experiment)?;
        self.hparams(START, 3, session)
    }

    fn hparams(&mut self, tag: &[u8], field: u32, content: Message) -> io::Result<()> {
        let content = Message::default().message(field, content);
        let plugin = Message::default().text(1, "hparams").text(2, content.bytes());
        let metadata = Message::default().message(1, plugin);
        self.event(0, [value_of(tag).message(9, metadata)].into_iter())
    }
}

/// The recipe with one stage, as `stage`.
fn settings_of(run: &Path, stage: &str) -> io::Result<Map<String, Value>> {
    let (mut settings, recipe) = settings(run)?;
    let own = recipe.stage.iter().find(|known| known.name == stage);
    let own = own.and_then(|own| serde_json::to_value(own).ok()).unwrap_or_default();
    settings.insert("stage".into(), own);
    Ok(settings)
}

/// Event files of ours in a stage's folder, the newest last.
fn ours(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Where a link leads is not ours.
        let is_file = entry.file_type()?.is_file();
        if is_file && name.starts_with("events.out.tfevents.") && name.ends_with(MARK) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Removes event files of ours from a stage's folder.
///
/// # Errors
/// A file that cannot be removed.
fn remove(folder: &Path) -> io::Result<()> {
    ours(folder)?.iter().try_for_each(fs::remove_file)
}

/// Removes what this made in `out`: files of ours, and folders that are empty then.
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

/// A Summary.Value of this tag.
fn value_of(tag: impl AsRef<[u8]>) -> Message {
    Message::default().text(1, tag)
}

/// google.protobuf.Value
fn json_value(value: &Value) -> Message {
    match value {
        Value::Bool(yes) => Message::default().integer(4, u64::from(*yes)),
        Value::Number(number) => Message::default().double(2, number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => Message::default().text(3, text),
        other => Message::default().text(3, other.to_string()),
    }
}

/// HistogramProto. Sums are those of the bins' centres: the values are not kept.
fn histogram(of: &Histogram) -> Message {
    let bounds = |place: usize| f64::from(of.edges.get(place).copied().unwrap_or_default());
    let count = |place: usize| of.counts[place] as f64;
    let bins = 0..of.counts.len();
    let sum = |power: i32| -> f64 {
        let centre = |bin: usize| 0.5 * (bounds(bin) + bounds(bin + 1));
        bins.clone().map(|bin| count(bin) * centre(bin).powi(power)).sum()
    };
    Message::default()
        .double(1, bounds(0))
        .double(2, bounds(of.counts.len()))
        .double(3, bins.clone().map(count).sum())
        .double(4, sum(1))
        .double(5, sum(2))
        .doubles(6, bins.clone().map(|bin| bounds(bin + 1)))
        .doubles(7, bins.clone().map(count))
}

/// Summary.Image of a PNG file, whose first chunk tells its size (PNG, 11.2.1).
fn image(png: &[u8]) -> Option<Message> {
    let number = |at: usize| {
        let bytes = png.get(at..at + 4)?;
        Some(u64::from(u32::from_be_bytes(bytes.try_into().ok()?)))
    };
    let (width, height) = (number(16)?, number(20)?);
    let grey = png.get(25)? & 2 == 0;
    let channels = if grey { 1 } else { 3 };
    Some(Message::default().integer(1, height).integer(2, width).integer(3, channels).text(4, png))
}

/// The checksum as TFRecord has it: rotated, and moved by a number, so that checksums of data that
/// holds checksums do not go wrong.
fn masked(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32C (Castagnoli; RFC 3720, appendix B.4).
fn crc32c(data: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut sum = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                sum = if sum & 1 == 1 { sum >> 1 ^ 0x82F6_3B78 } else { sum >> 1 };
                bit += 1;
            }
            table[byte] = sum;
            byte += 1;
        }
        table
    };
    !data.iter().fold(!0, |sum: u32, &byte| sum >> 8 ^ TABLE[usize::from(sum as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_whole;
    use crate::run_files::names::RECIPE;
    use serde_json::json;

    #[test]
    fn checksums_are_those_of_the_rfc() {
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46DD_794E);
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn a_file_is_gone_on_with_after_its_last_whole_record() {
        let place = tempfile::tempdir().unwrap();
        let run = place.path();
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
        TensorBoard::new(run, &out, Begin::On).update().unwrap();
        let path = ours(&out.join("teacher")).unwrap().remove(0);
        let whole = fs::read(&path).unwrap();
        let kept = Kept::of(whole.as_slice());
        assert_eq!((kept.bytes, kept.lines.len()), (whole.len() as u64, 3));
        assert!(kept.settings && kept.pictured.is_none() && !kept.ended);
        // Killed in the middle of a record, with steps on disk that will be made again.
        for cut in [0, 1, 30] {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(whole.len() as u64 - cut).unwrap();
            log(&lines);
            TensorBoard::new(run, &out, Begin::On).update().unwrap();
            let files = ours(&out.join("teacher")).unwrap();
            assert_eq!(files, std::slice::from_ref(&path), "the same file, cut {cut}");
            let again = fs::read(&path).unwrap();
            assert_eq!(Kept::of(again.as_slice()).lines.len(), 5, "cut {cut}");
            assert_eq!(Kept::of(again.as_slice()).bytes, again.len() as u64);
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
        let path = ours(&run.join("board/teacher")).unwrap().remove(0);
        let lines = Kept::of(File::open(path).unwrap()).lines;
        let of = |probes: bool| lines.iter().filter(move |line| line.is_probe == probes);
        [of(false).map(|line| line.step).collect(), of(true).map(|line| line.step).collect()]
    }

    #[test]
    fn a_reader_has_what_the_log_has_also_where_probes_fell_on_other_steps_after_a_crash() {
        let all: [&[u64]; 6] = [&[2, 5], &[2, 4], &[2, 6], &[5], &[], &[8]];
        for before in all {
            for after in all {
                let place = tempfile::tempdir().unwrap();
                let run = place.path();
                let board = || TensorBoard::new(run, &run.join("board"), Begin::On);
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
        let place = tempfile::tempdir().unwrap();
        let run = place.path();
        log(run, 4, &[2, 4]);
        TensorBoard::new(run, &run.join("board"), Begin::On).update().unwrap();
        log(run, 4, &[2]);
        let record = json!({"file": "teacher.safetensors", "bytes": 1, "sha256": ""});
        let done = json!({"stage": "teacher", "metrics_bytes": 1, "encoder": record});
        let state = json!({"data": "", "images": null, "done": [done], "finished": false});
        write_whole(&run.join(STATE), state.to_string().as_bytes()).unwrap();
        let ended = |times: usize| {
            for _ in 0..times {
                TensorBoard::new(run, &run.join("board"), Begin::On).finish().unwrap();
            }
            fs::metadata(&ours(&run.join("board/teacher")).unwrap()[0]).unwrap().len()
        };
        let once = ended(1);
        assert_eq!(read(run), [vec![1, 2, 3, 4], vec![2]]);
        assert_eq!(ended(2), once, "told once");
    }

    #[test]
    fn a_file_without_settings_is_begun_anew_and_a_link_is_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let run = place.path();
        log(run, 3, &[]);
        let board = || TensorBoard::new(run, &run.join("board"), Begin::On).update().unwrap();
        board();
        let folder = run.join("board/teacher");
        let path = ours(&folder).unwrap().remove(0);
        File::options().write(true).open(&path).unwrap().set_len(60).unwrap();
        board();
        let path = ours(&folder).unwrap().remove(0);
        assert!(Kept::of(File::open(&path).unwrap()).settings);
        #[cfg(unix)]
        {
            let other = run.join("other");
            let held = fs::read(&path).unwrap();
            write_whole(&other, &held).unwrap();
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(&other, &path).unwrap();
            log(run, 5, &[]);
            // A file of this process has the link's name.
            let _ = TensorBoard::new(run, &run.join("board"), Begin::On).update();
            assert_eq!(fs::read(&other).unwrap(), held);
        }
    }

    #[test]
    fn nothing_that_is_no_png_is_an_image() {
        assert!(image(b"").is_none() && image(&[0; 25]).is_none());
    }
}
