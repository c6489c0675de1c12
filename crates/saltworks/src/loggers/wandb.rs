//! An offline run of Weights & Biases, which `wandb sync` sends later: one file of records. The
//! records are in blocks as in LevelDB's log (github.com/google/leveldb, doc/log_format.md), after
//! a special head.

mod messages;

use super::{final_scalars, scalars, settings};
use crate::files::{open_regular, sha256};
use crate::run_files::names::{METRICS, PROBES};
use crate::run_files::{Line, LineKind, LogEvent, MetricsReader, ProbeRow, reading};
use messages::{
    ConfigRecord, HeaderRecord, HistoryItem, HistoryRecord, HistoryStep, RecordInfo, RecordType,
    RunExitRecord, RunRecord, SummaryRecord, Timestamp, ValueItem, VersionInfo, WandbRecord,
};
use prost::Message as _;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};

/// Keeps the file of a run up to date, in a folder of its own in `out`. It is generated from
/// `metrics.jsonl`. A resumed run uses the folder of the process before it.
///
/// Steps are counted through all stages. The name of a number begins with that of its stage.
pub struct Wandb {
    run: PathBuf,
    out: PathBuf,
    log: MetricsReader,
    open: Option<OfflineRun>,
}

/// The file and its folder, while it is open.
struct OfflineRun {
    folder: PathBuf,
    log: RecordLog<BufWriter<File>>,
    history: History,
}

impl Wandb {
    /// Writes the run in the folder `run` to a folder in `out`. The first [`Wandb::update`] begins
    /// a new file.
    pub fn new(run: &Path, out: &Path) -> Self {
        let log = MetricsReader::new(&run.join(METRICS));
        Self { run: run.into(), out: out.into(), log, open: None }
    }

    /// Adds what was logged since the last call, except the last step: it may still grow.
    ///
    /// # Errors
    /// Files that cannot be read or written: the next call begins a new one.
    pub fn update(&mut self) -> io::Result<()> {
        let added = self.add();
        if added.is_err() {
            // A record may be half written.
            *self = Self::new(&self.run, &self.out);
        }
        added
    }

    fn add(&mut self) -> io::Result<()> {
        let (mut lines, mut restart) = (Vec::new(), false);
        self.log.read(&mut |event| match event {
            LogEvent::Restart => {
                lines.clear();
                restart = true;
            }
            LogEvent::Line(line) => lines.push(line),
        })?;
        if restart {
            self.open = None;
        }
        if self.open.is_none() {
            let Some(began) = lines.iter().find_map(|line| line.unix_seconds) else {
                return Ok(());
            };
            self.open = Some(OfflineRun::begin(&self.run, &self.out, began)?);
        }
        let Some(OfflineRun { log, history, .. }) = &mut self.open else { return Ok(()) };
        for line in &lines {
            if let Some(row) = history.add(line) {
                log.record(row_record(row))?;
            }
        }
        log.record(history.summary())?;
        log.file.flush()
    }

    /// Adds the rest, the results of probes after each stage and, if the run is `finished`, that it
    /// ended. Returns the folder, or `None` for a run without steps.
    ///
    /// # Errors
    /// As [`Wandb::update`].
    pub fn finish(&mut self, finished: bool) -> io::Result<Option<PathBuf>> {
        self.update()?;
        let Some(OfflineRun { log, history, folder }) = &mut self.open else { return Ok(None) };
        if let Some(row) = history.row.take() {
            log.record(row_record(row))?;
        }
        let table: Vec<ProbeRow> = reading::json(&self.run, PROBES);
        for row in &table {
            let scalars = final_scalars(row).into_iter();
            history.last.extend(
                scalars.map(|(name, value)| (format!("{}/{name}", row.name), value.into())),
            );
        }
        log.record(history.summary())?;
        if finished {
            log.record(RecordType::Exit(RunExitRecord {}))?;
        }
        log.file.flush()?;
        Ok(Some(folder.clone()))
    }
}

impl OfflineRun {
    fn begin(run: &Path, out: &Path, began: f64) -> io::Result<Self> {
        let real = fs::canonicalize(run)?;
        // A run's own folder holds its offline run, even if the run was moved since.
        let own = out.parent() == Some(run);
        let known = if own { offline_runs(out)?.into_iter().next() } else { None };
        let (folder, id) = known.unwrap_or_else(|| {
            let id = sha256(format!("{} {began}", real.display()).as_bytes())[..8].to_owned();
            (out.join(format!("offline-run-{}-{id}", date(began))), id)
        });
        fs::create_dir_all(folder.join("files"))?;
        let path = folder.join(format!("run-{id}.wandb"));
        // Only a file of saltworks is replaced. Any other file or link there is an error.
        if is_ours(&path) {
            fs::remove_file(&path)?;
        }
        let file = File::create_new(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        let mut log = RecordLog::begin(BufWriter::new(file))?;
        log.record(header(&id))?;
        log.record(RecordType::Run(run_record(run, &real, &id, began)?))?;
        Ok(Self { folder, log, history: History { began, ..History::default() } })
    }
}

/// The start of the producer's name in files of saltworks.
const PRODUCER: &str = "saltworks ";

/// Whether saltworks wrote a file, by its first record.
fn is_ours(path: &Path) -> bool {
    let mut begin = Vec::new();
    let read = open_regular(path).and_then(|file| file.take(512).read_to_end(&mut begin));
    read.is_ok() && producer(&begin).is_some_and(|name| name.starts_with(PRODUCER))
}

/// The program that wrote a file, from its first bytes.
fn producer(begin: &[u8]) -> Option<String> {
    let piece = begin.strip_prefix(MAGIC)?;
    let length = u16::from_le_bytes([*piece.get(4)?, *piece.get(5)?]);
    let record = piece.get(HEAD..HEAD + usize::from(length))?;
    match WandbRecord::decode(record).ok()?.record_type? {
        RecordType::Header(header) => Some(header.version_info?.producer),
        _ => None,
    }
}

/// The first record. The oldest program that may read it is the same as in wandb's own files.
fn header(id: &str) -> RecordType {
    let producer = format!("{PRODUCER}{}", env!("CARGO_PKG_VERSION"));
    let version = VersionInfo { producer, min_consumer: "0.70.0".to_owned() };
    let info = Some(RecordInfo { stream_id: id.to_owned() });
    RecordType::Header(HeaderRecord { version_info: Some(version), info })
}

fn run_record(run: &Path, real: &Path, id: &str, began: f64) -> io::Result<RunRecord> {
    let (settings, recipe) = settings(run)?;
    let name = real.file_name().unwrap_or_default().to_string_lossy();
    let start = Timestamp { seconds: began as u64, nanos: (began.fract() * 1e9) as u32 };
    Ok(RunRecord {
        run_id: id.to_owned(),
        project: "saltworks".to_owned(),
        config: Some(ConfigRecord { update: settings.into_iter().map(item).collect() }),
        display_name: name.into_owned(),
        tags: recipe.tags,
        start_time: Some(start),
    })
}

/// A name with its value as JSON.
fn item((key, value): (String, Value)) -> ValueItem {
    ValueItem { key, value_json: value.to_string() }
}

/// A row of the history: its step and its numbers by name.
type HistoryRow = (u64, BTreeMap<String, Value>);

/// The record of a row. Names may hold dots and slashes, so each is a path of one part.
fn row_record((step, row): HistoryRow) -> RecordType {
    let item = |(name, value): (String, Value)| HistoryItem {
        nested_key: vec![name],
        value_json: value.to_string(),
    };
    let item = row.into_iter().map(item).collect();
    RecordType::History(HistoryRecord { item, step: Some(HistoryStep { num: step }) })
}

/// Collects all lines of a step into one row.
#[derive(Default)]
struct History {
    /// When the run began.
    began: f64,
    /// Steps of the stages before this one.
    earlier_steps: u64,
    /// Steps of this stage so far.
    stage_steps: u64,
    stage: String,
    /// The row that may still grow.
    row: Option<HistoryRow>,
    /// The last value of each number.
    last: HashMap<String, Value>,
}

impl History {
    /// Adds a line. Returns the row before it if the line begins a new one.
    fn add(&mut self, line: &Line) -> Option<HistoryRow> {
        if line.stage != self.stage {
            self.earlier_steps += self.stage_steps;
            self.stage.clone_from(&line.stage);
        }
        self.stage_steps = line.step;
        let at = self.earlier_steps + line.step;
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

    /// The record of the last value of each number.
    fn summary(&self) -> RecordType {
        let last: BTreeMap<String, Value> = self.last.clone().into_iter().collect();
        RecordType::Summary(SummaryRecord { update: last.into_iter().map(item).collect() })
    }
}

/// Seconds since 1970 as `20261124_093000`, in UTC (Howard Hinnant, chrono-compatible low-level
/// date algorithms, civil_from_days).
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

/// The first bytes of a file.
const MAGIC: &[u8] = b":W&B\xE1\xBE\0";
/// Bytes of a block, and of the head of a piece in it.
const BLOCK: usize = 32_768;
const HEAD: usize = 7;

/// Records in blocks. A record that does not fit continues in the next block.
struct RecordLog<W> {
    file: W,
    /// Bytes written to the current block.
    filled: usize,
    records: u64,
}

impl<W: Write> RecordLog<W> {
    fn begin(mut file: W) -> io::Result<Self> {
        file.write_all(MAGIC)?;
        Ok(Self { file, filled: MAGIC.len(), records: 0 })
    }

    /// Appends a record and gives it its number.
    fn record(&mut self, content: RecordType) -> io::Result<()> {
        self.records += 1;
        let record = WandbRecord { num: self.records, record_type: Some(content) };
        let data = record.encode_to_vec();
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

/// The folders of offline runs of saltworks in `out`, with the ids of the runs.
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
        // A folder that holds anything else stays.
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
    fn only_files_of_saltworks_are_replaced_or_removed() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path();
        let file = |name: &str| {
            let folder = out.join(format!("offline-run-20260101_000000-{name}"));
            fs::create_dir(&folder).unwrap();
            folder.join(format!("run-{name}.wandb"))
        };
        let mut log = RecordLog::begin(File::create(file("ours")).unwrap()).unwrap();
        log.record(header("ours")).unwrap();
        let version = VersionInfo { producer: "0.31.0".to_owned(), min_consumer: String::new() };
        let theirs = HeaderRecord { version_info: Some(version), info: None };
        let mut log = RecordLog::begin(File::create(file("theirs")).unwrap()).unwrap();
        log.record(RecordType::Header(theirs)).unwrap();
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
        let key = |length: usize| "x".repeat(length);
        // Some end so near the end of a block that no head fits behind them.
        let near = BLOCK - 60..BLOCK;
        let lengths: Vec<_> =
            [0, 1, 2 * BLOCK, 3 * BLOCK + 5, 20].into_iter().chain(near).collect();
        for &length in &lengths {
            let last = HashMap::from([(key(length), Value::Null)]);
            log.record(History { last, ..History::default() }.summary()).unwrap();
        }
        // A reader written for this test: it joins pieces until the last one.
        let (mut at, mut found, mut joined) = (HEAD, Vec::new(), Vec::new());
        while at + HEAD <= file.len() {
            if BLOCK - at % BLOCK < HEAD {
                at += BLOCK - at % BLOCK;
            }
            let length = usize::from(u16::from_le_bytes([file[at + 4], file[at + 5]]));
            assert!(at % BLOCK + HEAD + length <= BLOCK);
            joined.extend(&file[at + HEAD..at + HEAD + length]);
            let kind = file[at + 6];
            if kind == 1 || kind == 4 {
                found.push(WandbRecord::decode(joined.as_slice()).unwrap());
                joined.clear();
            }
            at += HEAD + length;
        }
        assert_eq!(found.len(), lengths.len());
        for ((record, length), num) in found.into_iter().zip(lengths).zip(1..) {
            let Some(RecordType::Summary(summary)) = record.record_type else { panic!("{length}") };
            assert_eq!((record.num, &summary.update[0].key), (num, &key(length)));
        }
    }

    /// Field by field, from wandb_internal.proto. Zeros are written.
    #[test]
    fn records_have_the_bytes_of_earlier_versions() {
        let record = |content| WandbRecord { num: 1, record_type: Some(content) }.encode_to_vec();
        let row = (0, BTreeMap::from([("a/b".to_owned(), json!(1))]));
        let item = b"\x12\x03a/b\x82\x01\x011";
        assert_eq!(
            record(row_record(row)),
            [&[8, 1, 0x12, 15, 0x0A, 9][..], item, &[0x12, 2, 8, 0]].concat()
        );
        let ended = record(RecordType::Exit(RunExitRecord {}));
        assert_eq!(ended, [8, 1, 0x92, 1, 0]);
        let header = record(header("id"));
        assert!(header.starts_with(b"\x08\x01\xAA\x01"));
        assert!(header.ends_with(b"\x12\x060.70.0\xC2\x0C\x04\x0A\x02id"));
    }
}
