//! Event files of TensorBoard: a run's numbers, histograms, pictures and settings, one folder a stage.
//! Formats: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto,
//! tensorflow/core/framework/summary.proto and tensorboard/plugins/hparams/plugin_data.proto.

use super::loggers::{final_scalars, flat, scalars, settings};
use super::protobuf::{Field, Message, fields};
use super::{Follow, Histogram, Line, ProbeRow, Told, What, run_files};
use crate::base64;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
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
    /// a crash are the same to the bit, so what stands there of them stays.
    On,
}

impl TensorBoard {
    /// Of the run in a folder, with files in `out`/STAGE, of all that was logged so far once
    /// [`TensorBoard::update`] is called.
    pub fn new(run: &Path, out: &Path, begin: Begin) -> Self {
        let follow = Follow::new(&run.join("metrics.jsonl"));
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
            events.pictures(&run.join("pictures").join(format!("{stage}.json")))?;
            events.file.flush()?;
        }
        Ok(())
    }

    /// Adds the rest, and to each stage that it ended and what probes after it found.
    ///
    /// # Errors
    /// As [`TensorBoard::update`].
    pub fn finish(&mut self) -> io::Result<()> {
        self.update()?;
        let table: Vec<ProbeRow> = run_files::json(&self.run.join("probes.json"));
        for (stage, events) in &mut self.stages {
            if let Some(row) = table.iter().find(|row| row.name == *stage) {
                let of = |(name, value): (String, f64)| value_of(&name).float(2, value as f32);
                events.event(events.step, final_scalars(row).into_iter().map(of))?;
            }
            let end = Message::default().integer(1, 1).double(2, events.time);
            events.hparams("_hparams_/session_end_info", 4, end)?;
            events.file.flush()?;
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
    written: usize,
    /// Step of the pictures that are in the file.
    pictured: Option<u64>,
}

/// What stands in an event file.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kept {
    /// Bytes of its whole records.
    bytes: u64,
    /// Lines of the log.
    lines: usize,
    /// Step of the last pictures.
    pictured: Option<u64>,
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
        match first_tag(&event).unwrap_or_default() {
            b"loss" => self.lines += 1,
            tag if tag.starts_with(b"probe/") => self.lines += 1,
            tag if tag.starts_with(b"original/") => self.pictured = step,
            _ => {}
        }
    }
}

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
            let kept = Kept::of(BufReader::new(File::open(&path)?));
            if kept.bytes > 0 {
                let file = File::options().write(true).open(path)?;
                file.set_len(kept.bytes)?;
                let mut file = BufWriter::new(file);
                file.seek(SeekFrom::End(0))?;
                let (written, pictured) = (kept.lines, kept.pictured);
                return Ok(Self { file, time, step: 0, written, pictured });
            }
        }
        remove(&folder)?;
        let (seconds, process) = (time as u64, std::process::id());
        let path = folder.join(format!("events.out.tfevents.{seconds:010}.{process}{MARK}"));
        let file = BufWriter::new(File::options().create_new(true).write(true).open(path)?);
        let mut events = Self { file, time, step: 0, written: 0, pictured: None };
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
        (self.time, self.step) = (line.unix_seconds.unwrap_or(self.time), line.step);
        let mut values: Vec<_> = scalars(line)
            .into_iter()
            .map(|(name, value)| value_of(&name).float(2, value as f32))
            .collect();
        if let What::Probe(probe) = &line.what {
            let histograms = probe.histograms.iter();
            values.extend(histograms.map(|(name, of)| value_of(name).message(5, histogram(of))));
        }
        if values.is_empty() {
            return Ok(());
        }
        if self.written > 0 {
            self.written -= 1;
            return Ok(());
        }
        self.event(line.step, values.into_iter())
    }

    /// Adds pictures that are newer than those in the file.
    fn pictures(&mut self, path: &Path) -> io::Result<()> {
        let found = run_files::json::<Value>(path);
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
        self.hparams("_hparams_/experiment", 2, experiment)?;
        self.hparams("_hparams_/session_start_info", 3, session)
    }

    fn hparams(&mut self, tag: &str, field: u32, content: Message) -> io::Result<()> {
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
        if name.starts_with("events.out.tfevents.") && name.ends_with(MARK) {
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
        let folder = entry?.path();
        if folder.is_dir() {
            remove(&folder)?;
            let _ = fs::remove_dir(folder);
        }
    }
    let _ = fs::remove_dir(out);
    Ok(())
}

/// A Summary.Value of this tag.
fn value_of(tag: &str) -> Message {
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
        write_whole(&run.join("recipe.toml"), recipe.as_bytes()).unwrap();
        let step = |step: u64| format!("{{\"stage\":\"teacher\",\"step\":{step},\"loss\":0.5}}\n");
        let probe = "{\"stage\":\"teacher\",\"step\":2,\"probe\":{\"knn_mean\":0.25}}\n";
        let log = |lines: &[&str]| {
            write_whole(&run.join("metrics.jsonl"), lines.concat().as_bytes()).unwrap();
        };
        let out = run.join("board");
        let lines = [&step(1), &step(2), probe, &step(3), &step(4)];
        log(&lines[..3]);
        TensorBoard::new(run, &out, Begin::On).update().unwrap();
        let path = ours(&out.join("teacher")).unwrap().remove(0);
        let whole = fs::read(&path).unwrap();
        assert_eq!(
            Kept::of(whole.as_slice()),
            Kept { bytes: whole.len() as u64, lines: 3, pictured: None }
        );
        // Killed in the middle of a record, with steps on disk that will be made again.
        for cut in [0, 1, 30] {
            let file = File::options().write(true).open(&path).unwrap();
            file.set_len(whole.len() as u64 - cut).unwrap();
            log(&lines);
            TensorBoard::new(run, &out, Begin::On).update().unwrap();
            let files = ours(&out.join("teacher")).unwrap();
            assert_eq!(files, std::slice::from_ref(&path), "the same file, cut {cut}");
            let again = fs::read(&path).unwrap();
            assert_eq!(Kept::of(again.as_slice()).lines, 5, "cut {cut}");
            assert_eq!(Kept::of(again.as_slice()).bytes, again.len() as u64);
        }
    }

    #[test]
    fn nothing_that_is_no_png_is_an_image() {
        assert!(image(b"").is_none() && image(&[0; 25]).is_none());
    }
}
