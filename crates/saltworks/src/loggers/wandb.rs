//! An offline run of Weights & Biases, which `wandb sync` sends later: one file of records, in blocks as
//! LevelDB's log (github.com/google/leveldb, doc/log_format.md) with a head of its own.
//! Messages: wandb/proto/wandb_internal.proto.

use super::protobuf::{Field, MessageWriter, fields};
use super::{final_scalars, scalars, settings};
use crate::files::{open_regular, sha256};
use crate::run_files::names::{METRICS, PROBES};
use crate::run_files::{Line, LineKind, LogEvent, MetricsReader, ProbeRow, reading};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

/// Keeps the file of a run, made of its `metrics.jsonl`, in a folder of its own in `out`: the one that an earlier
/// process made there, if there is one. Steps are counted through all stages, whose names stand before those of
/// their numbers.
pub struct Wandb {
    run: PathBuf,
    out: PathBuf,
    follow: MetricsReader,
    open: Option<OfflineRun>,
}

/// A file that is being written.
struct OfflineRun {
    folder: PathBuf,
    log: RecordLog<BufWriter<File>>,
    rows: History,
}

impl Wandb {
    /// Of the run in a folder: a new file once [`Wandb::update`] is called.
    pub fn new(run: &Path, out: &Path) -> Self {
        let follow = MetricsReader::new(&run.join(METRICS));
        Self { run: run.into(), out: out.into(), follow, open: None }
    }

    /// Adds what was logged since the last call, but for the last step, of which more may come.
    ///
    /// # Errors
    /// Files that cannot be read or written: the next call begins anew.
    pub fn update(&mut self) -> io::Result<()> {
        let added = self.add();
        if added.is_err() {
            // A record may be half written.
            *self = Self::new(&self.run, &self.out);
        }
        added
    }

    fn add(&mut self) -> io::Result<()> {
        let (mut lines, mut anew) = (Vec::new(), false);
        self.follow.read(&mut |told| match told {
            LogEvent::Restart => {
                lines.clear();
                anew = true;
            }
            LogEvent::Line(line) => lines.push(line),
        })?;
        if anew {
            self.open = None;
        }
        if self.open.is_none() {
            let Some(began) = lines.iter().find_map(|line| line.unix_seconds) else {
                return Ok(());
            };
            self.open = Some(OfflineRun::begin(&self.run, &self.out, began)?);
        }
        let Some(OfflineRun { log, rows, .. }) = &mut self.open else { return Ok(()) };
        for line in &lines {
            if let Some(row) = rows.add(line) {
                log.record(history(&row))?;
            }
        }
        log.record(rows.summary())?;
        log.file.flush()
    }

    /// Adds the rest, what probes found after each stage, and that the run ended if it is `finished`. Returns the
    /// folder; none of a run that made no step.
    ///
    /// # Errors
    /// As [`Wandb::update`].
    pub fn finish(&mut self, finished: bool) -> io::Result<Option<PathBuf>> {
        self.update()?;
        let Some(OfflineRun { log, rows, folder }) = &mut self.open else { return Ok(None) };
        if let Some(row) = rows.row.take() {
            log.record(history(&row))?;
        }
        let table: Vec<ProbeRow> = reading::json(&self.run.join(PROBES));
        for row in &table {
            let scalars = final_scalars(row).into_iter();
            rows.last.extend(
                scalars.map(|(name, value)| (format!("{}/{name}", row.name), value.into())),
            );
        }
        log.record(rows.summary())?;
        if finished {
            log.record(MessageWriter::default().message(18, MessageWriter::default()))?;
        }
        log.file.flush()?;
        Ok(Some(folder.clone()))
    }
}

impl OfflineRun {
    fn begin(run: &Path, out: &Path, began: f64) -> io::Result<Self> {
        let real = fs::canonicalize(run)?;
        // In a run's own folder there is one, also if the run was moved since.
        let own = out.parent() == Some(run);
        let known = if own { offline_runs(out)?.into_iter().next() } else { None };
        let (folder, id) = known.unwrap_or_else(|| {
            let id = sha256(format!("{} {began}", real.display()).as_bytes())[..8].to_owned();
            (out.join(format!("offline-run-{}-{id}", date(began))), id)
        });
        fs::create_dir_all(folder.join("files"))?;
        let path = folder.join(format!("run-{id}.wandb"));
        // Ours, which is written anew: what anyone else put there, a link too, is in the way.
        if is_ours(&path) {
            fs::remove_file(&path)?;
        }
        let file = File::create_new(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        let mut log = RecordLog::begin(BufWriter::new(file))?;
        log.record(MessageWriter::default().message(21, version(&id)))?;
        log.record(MessageWriter::default().message(17, head(run, &real, &id, began)?))?;
        Ok(Self { folder, log, rows: History { began, ..History::default() } })
    }
}

/// Begins the name of who wrote a file.
const PRODUCER: &str = "saltworks ";

/// Whether a file is a log that we wrote, by its first record.
fn is_ours(path: &Path) -> bool {
    let mut begin = Vec::new();
    let read = open_regular(path).and_then(|file| file.take(512).read_to_end(&mut begin));
    read.is_ok() && producer(&begin).is_some_and(|name| name.starts_with(PRODUCER.as_bytes()))
}

/// Who wrote a file that begins so: Record.header, its VersionInfo.producer.
fn producer(begin: &[u8]) -> Option<&[u8]> {
    let piece = begin.strip_prefix(MAGIC)?;
    let length = u16::from_le_bytes([*piece.get(4)?, *piece.get(5)?]);
    let record = piece.get(HEAD..HEAD + usize::from(length))?;
    let within = |message, wanted| {
        fields(message)?.into_iter().find_map(|field| match field {
            (number, Field::Bytes(bytes)) if number == wanted => Some(bytes),
            _ => None,
        })
    };
    within(within(within(record, 21)?, 1)?, 1)
}

/// HeaderRecord: the oldest program that may read it is that of wandb's own files.
fn version(id: &str) -> MessageWriter {
    let producer = format!("{PRODUCER}{}", env!("CARGO_PKG_VERSION"));
    let version = MessageWriter::default().text(1, producer).text(2, "0.70.0");
    let info = MessageWriter::default().text(1, id);
    MessageWriter::default().message(1, version).message(200, info)
}

/// RunRecord
fn head(run: &Path, real: &Path, id: &str, began: f64) -> io::Result<MessageWriter> {
    let (settings, recipe) = settings(run)?;
    let config = items(&Value::Object(settings), 1);
    let name = real.file_name().unwrap_or_default().to_string_lossy();
    let start =
        MessageWriter::default().integer(1, began as u64).integer(2, (began.fract() * 1e9) as u64);
    let head = MessageWriter::default().text(1, id).text(3, "saltworks").message(4, config);
    let head = head.text(8, name.as_bytes()).message(17, start);
    Ok(recipe.tags.iter().fold(head, |head, tag| head.text(10, tag)))
}

/// Members of an object as items, each with its name and its value as JSON.
fn items(object: &Value, name_field: u32) -> MessageWriter {
    let members = object.as_object().into_iter().flatten();
    members.fold(MessageWriter::default(), |all, (name, value)| {
        all.message(1, MessageWriter::default().text(name_field, name).text(16, value.to_string()))
    })
}

/// A row of the history: its step, and its numbers by name.
type HistoryRow = (u64, BTreeMap<String, Value>);

/// Record of a row. Names may hold dots and slashes, so they are paths of one part.
fn history((step, row): &HistoryRow) -> MessageWriter {
    let (items, step) = (items(&json!(row), 2), MessageWriter::default().integer(1, *step));
    MessageWriter::default().message(2, items.message(2, step))
}

/// History as they become whole: all lines of one step are one.
#[derive(Default)]
struct History {
    /// When the run began.
    began: f64,
    /// Steps of the stages before this one, and those made of it.
    before: u64,
    made: u64,
    stage: String,
    /// The step that is not whole yet.
    row: Option<HistoryRow>,
    /// The last of each number.
    last: HashMap<String, Value>,
}

impl History {
    /// The row that a line's step ends, if it does.
    fn add(&mut self, line: &Line) -> Option<HistoryRow> {
        if line.stage != self.stage {
            self.before += self.made;
            self.stage.clone_from(&line.stage);
        }
        self.made = line.step;
        let at = self.before + line.step;
        let whole = self.row.take_if(|(step, _)| *step != at);
        let (_, row) = self.row.get_or_insert_with(|| (at, BTreeMap::new()));
        let time = line.unix_seconds.unwrap_or(self.began);
        let (last, stage) = (&mut self.last, &line.stage);
        let mut add = |name: String, value: Value| {
            last.insert(name.clone(), value.clone());
            row.insert(name, value);
        };
        add("_step".into(), at.into());
        add("_timestamp".into(), time.into());
        add("_runtime".into(), (time - self.began).into());
        for (name, value) in scalars(line) {
            add(format!("{stage}/{name}"), value.into());
        }
        match &line.kind {
            LineKind::Alarm(alarm) => add(format!("{stage}/alarm"), alarm.text.clone().into()),
            LineKind::Probe(probe) => {
                for (name, of) in &probe.histograms {
                    let bins = json!({"_type": "histogram", "bins": of.edges, "values": of.counts});
                    add(format!("{stage}/{name}"), bins);
                }
            }
            LineKind::Step(_) => {}
        }
        whole
    }

    /// SummaryRecord: the last of each number.
    fn summary(&self) -> MessageWriter {
        let last = Value::Object(self.last.clone().into_iter().collect());
        MessageWriter::default().message(3, items(&last, 1))
    }
}

/// Seconds of 1970 as `20261124_093000`, in UTC (Howard Hinnant, chrono-compatible low-level date
/// algorithms, civil_from_days).
fn date(unix_seconds: f64) -> String {
    let seconds = unix_seconds.max(0.0) as u64;
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let part = (5 * of_year + 2) / 153;
    let day = of_year - (153 * part + 2) / 5 + 1;
    let month = if part < 10 { part + 3 } else { part - 9 };
    let year = year + 400 * era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}_{hour:02}{minute:02}{second:02}")
}

/// Begins a file.
const MAGIC: &[u8] = b":W&B\xE1\xBE\0";
/// Bytes of a block, and of the head of a piece in it.
const BLOCK: usize = 32_768;
const HEAD: usize = 7;

/// Records in blocks; one that does not fit goes on in the next.
struct RecordLog<W> {
    file: W,
    /// Bytes written of the block.
    filled: usize,
    records: u64,
}

impl<W: Write> RecordLog<W> {
    fn begin(mut file: W) -> io::Result<Self> {
        file.write_all(MAGIC)?;
        Ok(Self { file, filled: MAGIC.len(), records: 0 })
    }

    /// Appends a record, giving it its number.
    fn record(&mut self, message: MessageWriter) -> io::Result<()> {
        self.records += 1;
        let data = MessageWriter::default().integer(1, self.records).bytes();
        let data = [data, message.bytes()].concat();
        let mut rest = data.as_slice();
        let mut first = true;
        while first || !rest.is_empty() {
            if BLOCK - self.filled < HEAD {
                self.file.write_all(&[0; HEAD][..BLOCK - self.filled])?;
                self.filled = 0;
            }
            let room = (BLOCK - self.filled - HEAD).min(rest.len());
            let (piece, after) = rest.split_at(room);
            // Whole, the first of several, one between, the last.
            let kind = match (first, after.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            self.piece(kind, piece)?;
            (rest, first) = (after, false);
        }
        Ok(())
    }

    fn piece(&mut self, kind: u8, piece: &[u8]) -> io::Result<()> {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&[kind]);
        sum.update(piece);
        self.file.write_all(&sum.finalize().to_le_bytes())?;
        // A piece is shorter than a block.
        self.file.write_all(&(piece.len() as u16).to_le_bytes())?;
        self.file.write_all(&[kind])?;
        self.file.write_all(piece)?;
        self.filled += HEAD + piece.len();
        Ok(())
    }
}

/// The folders of offline runs of saltworks in `out`, with the runs' ids.
fn offline_runs(out: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(out).into_iter().flatten() {
        let entry = entry?;
        let folder = entry.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let id = name.strip_prefix("offline-run-").and_then(|rest| rest.rsplit_once('-'));
        if let Some((_, id)) = id
            && entry.file_type()?.is_dir()
            && is_ours(&folder.join(format!("run-{id}.wandb")))
        {
            found.push((folder, id.to_owned()));
        }
    }
    found.sort();
    Ok(found)
}

/// Removes the folders of offline runs of saltworks in `out`.
///
/// # Errors
/// A file that cannot be removed.
pub fn remove_wandb(out: &Path) -> io::Result<()> {
    for (folder, id) in offline_runs(out)? {
        fs::remove_file(folder.join(format!("run-{id}.wandb")))?;
        // Folders that hold anything else stay.
        let _ = fs::remove_dir(folder.join("files"));
        let _ = fs::remove_dir(folder);
    }
    let _ = fs::remove_dir(out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::write_whole;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let dates = [0.0, 951_782_400.0, 1_795_478_330.3, 4_107_542_399.0].map(date);
        let wanted = ["19700101_000000", "20000229_000000", "20261123_235850", "21000228_235959"];
        assert_eq!(dates, wanted);
    }

    #[test]
    fn only_files_of_ours_are_written_anew_or_removed() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path();
        let file = |name: &str| {
            let folder = out.join(format!("offline-run-20260101_000000-{name}"));
            fs::create_dir(&folder).unwrap();
            folder.join(format!("run-{name}.wandb"))
        };
        let mut log = RecordLog::begin(File::create(file("ours")).unwrap()).unwrap();
        log.record(MessageWriter::default().message(21, version("ours"))).unwrap();
        let theirs =
            MessageWriter::default().message(1, MessageWriter::default().text(1, "0.31.0"));
        let mut log = RecordLog::begin(File::create(file("theirs")).unwrap()).unwrap();
        log.record(MessageWriter::default().message(21, theirs)).unwrap();
        write_whole(&file("none"), b"precious").unwrap();
        #[cfg(unix)]
        {
            let ours = out.join("offline-run-20260101_000000-ours/run-ours.wandb");
            std::os::unix::fs::symlink(ours, file("link")).unwrap();
        }
        let found = offline_runs(out).unwrap();
        let ids: Vec<_> = found.iter().map(|(_, id)| id.as_str()).collect();
        assert_eq!(ids, ["ours"]);
        for length in 0..40 {
            assert_eq!(producer(&[MAGIC, &[0xFF; 40]].concat()[..length]), None);
        }
    }

    #[test]
    fn records_of_any_length_lie_in_whole_blocks() {
        let mut file = Vec::new();
        let mut log = RecordLog::begin(&mut file).unwrap();
        let lengths = [0, 1, BLOCK - 40, 2 * BLOCK, 3 * BLOCK + 5, 20, BLOCK];
        for length in lengths {
            log.record(MessageWriter::default().text(19, vec![b'x'; length])).unwrap();
        }
        // A reader of its own: joins pieces until a last one.
        let (mut at, mut found, mut joined) = (HEAD, Vec::new(), 0);
        while at + HEAD <= file.len() {
            if BLOCK - at % BLOCK < HEAD {
                at += BLOCK - at % BLOCK;
            }
            let length = usize::from(u16::from_le_bytes([file[at + 4], file[at + 5]]));
            assert!(at % BLOCK + HEAD + length <= BLOCK);
            let kind = file[at + 6];
            joined += length;
            if kind == 1 || kind == 4 {
                found.push(joined);
                joined = 0;
            }
            at += HEAD + length;
        }
        assert_eq!(found.len(), lengths.len());
        assert!(
            found.iter().zip(lengths).all(|(found, length)| (length..length + 10).contains(found))
        );
    }
}
