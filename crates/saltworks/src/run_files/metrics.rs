//! metrics.jsonl: one JSON object per step, and the lines of probes and alarms. Every other report
//! is generated from it.

use super::{Alarm, OnlineProbe, unix_seconds};
use crate::files::{open_or_create, open_regular};
use crate::recipe;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The open log of a run.
pub struct MetricsLog {
    file: BufWriter<File>,
    flushed: Instant,
}

impl MetricsLog {
    /// Opens the log at `path`, or a new one, to append after its first `bytes` bytes. What follows
    /// them is cut off: the run repeats those steps.
    pub fn open(path: &Path, bytes: u64) -> io::Result<Self> {
        let mut file = open_or_create(path)?;
        let bytes = whole_lines(&mut file, bytes)?;
        file.set_len(bytes)?;
        file.seek(SeekFrom::Start(bytes))?;
        Ok(Self { file: BufWriter::new(file), flushed: Instant::now() })
    }

    /// Appends a step of a stage.
    pub fn step(&mut self, stage: &str, step: u64, line: &StepLine) -> io::Result<()> {
        self.append(&json!({
            "stage": stage,
            "step": step,
            "unix_seconds": unix_seconds(),
            "seconds": line.seconds,
            "loss": line.loss,
            "lr": line.lr,
            "weight_decay": line.weight_decay,
            "grad_norm": line.grad_norm,
            "images_per_second": line.images_per_second,
            "data_wait_share": line.data_wait_share,
            "context_tokens": line.context_tokens,
            "target_tokens": line.target_tokens,
        }))
    }

    /// Appends the results of probes after a step.
    pub fn probe(&mut self, stage: &str, step: u64, probe: &OnlineProbe) -> io::Result<()> {
        let now = unix_seconds();
        self.append(&json!({"stage": stage, "step": step, "unix_seconds": now, "probe": probe}))
    }

    /// Appends a sign that the stage goes wrong.
    pub fn alarm(&mut self, stage: &str, step: u64, alarm: &Alarm) -> io::Result<()> {
        let (now, Alarm { kind, text }) = (unix_seconds(), alarm);
        self.append(&json!({
            "stage": stage, "step": step, "unix_seconds": now, "alarm": kind, "text": text,
        }))
    }

    fn append(&mut self, line: &Value) -> io::Result<()> {
        writeln!(self.file, "{line}")?;
        // This is often enough for readers, and too rare to cost time.
        if self.flushed.elapsed().as_secs() >= 1 {
            self.flush()?;
        }
        Ok(())
    }

    /// Makes everything durable. Returns the length of the log.
    pub fn sync(&mut self) -> io::Result<u64> {
        self.flush()?;
        self.file.get_ref().sync_all()?;
        self.file.stream_position()
    }

    /// Hands everything to the system.
    pub fn flush(&mut self) -> io::Result<()> {
        self.flushed = Instant::now();
        self.file.flush()
    }
}

/// How many of the first `bytes` bytes are whole lines.
fn whole_lines(file: &mut File, bytes: u64) -> io::Result<u64> {
    let mut start = Vec::new();
    Read::by_ref(file).take(bytes).read_to_end(&mut start)?;
    let lines = start.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    Ok(lines as u64)
}

/// A line of metrics.jsonl, checked. Its stage is a name that a recipe allows, since it becomes
/// part of paths. Its time is one that calendars know.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The stage that it belongs to.
    pub stage: String,
    /// Steps made when it was written.
    pub step: u64,
    /// The time, if the line states it.
    pub unix_seconds: Option<f64>,
    /// Step, probe or alarm.
    pub kind: LineKind,
}

/// The kinds of lines.
#[derive(Clone, Debug, PartialEq)]
pub enum LineKind {
    /// A training step.
    Step(StepLine),
    /// Results of probes.
    Probe(Box<OnlineProbe>),
    /// A sign that the stage goes wrong.
    Alarm(Alarm),
}

/// A logged step. Values that an earlier version did not write are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepLine {
    /// Time of the whole step.
    pub seconds: f64,
    /// Mean over the batch.
    pub loss: f64,
    /// Learning rate applied.
    pub lr: f64,
    /// Weight decay applied.
    pub weight_decay: f64,
    /// L2 norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Images of the step over its time.
    pub images_per_second: f64,
    /// Share of the time spent waiting for data.
    pub data_wait_share: f64,
    /// Context tokens of the step.
    pub context_tokens: u64,
    /// Tokens predicted in the step.
    pub target_tokens: u64,
}

/// All that a line may hold. Listed in full, because `flatten` is slower by half.
#[derive(Deserialize)]
struct RawLine {
    stage: String,
    step: u64,
    unix_seconds: Option<f64>,
    probe: Option<Box<OnlineProbe>>,
    alarm: Option<String>,
    text: Option<String>,
    seconds: Option<f64>,
    loss: Option<f64>,
    lr: Option<f64>,
    weight_decay: Option<f64>,
    grad_norm: Option<f64>,
    images_per_second: Option<f64>,
    data_wait_share: Option<f64>,
    context_tokens: Option<u64>,
    target_tokens: Option<u64>,
}

/// Seconds since 1970 that count as times: up to the year 5138.
const TIMES: std::ops::Range<f64> = 0.0..1e11;

fn parse(text: &[u8]) -> Option<Line> {
    let raw: RawLine = serde_json::from_slice(text).ok()?;
    if !recipe::is_stage_name(&raw.stage) {
        return None;
    }
    let unix_seconds = raw.unix_seconds.filter(|seconds| TIMES.contains(seconds));
    let kind = match (raw.probe, raw.alarm, raw.loss) {
        (Some(probe), ..) => LineKind::Probe(probe),
        (None, Some(kind), _) => {
            LineKind::Alarm(Alarm { kind, text: raw.text.unwrap_or_default() })
        }
        (None, None, Some(loss)) => LineKind::Step(StepLine {
            seconds: raw.seconds.unwrap_or_default(),
            loss,
            lr: raw.lr.unwrap_or_default(),
            weight_decay: raw.weight_decay.unwrap_or_default(),
            grad_norm: raw.grad_norm.unwrap_or_default(),
            images_per_second: raw.images_per_second.unwrap_or_default(),
            data_wait_share: raw.data_wait_share.unwrap_or_default(),
            context_tokens: raw.context_tokens.unwrap_or_default(),
            target_tokens: raw.target_tokens.unwrap_or_default(),
        }),
        (None, None, None) => return None,
    };
    Some(Line { stage: raw.stage, step: raw.step, unix_seconds, kind })
}

/// The most bytes of a line. saltworks writes no longer lines.
const MOST_LINE_BYTES: u64 = 1 << 20;

/// What [`MetricsReader::read`] reports.
#[derive(Clone, Debug, PartialEq)]
pub enum LogEvent {
    /// The log was cut, as when a run resumes from a checkpoint: all lines so far are void.
    Restart,
    /// The next line.
    Line(Line),
}

/// Reads a log from its beginning, and later the lines that were added.
#[derive(Debug)]
pub struct MetricsReader {
    path: PathBuf,
    /// Bytes read, all of them whole lines.
    read: u64,
    /// The last line read. If it is no longer in its place, the log was cut and has grown again.
    last: Vec<u8>,
    /// Lines read that saltworks did not write.
    foreign_lines: u64,
}

impl MetricsReader {
    /// A reader of the log at `path`, which need not exist yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.into(), read: 0, last: Vec::new(), foreign_lines: 0 }
    }

    /// Reports each whole line since the last call, but none that saltworks did not write. Returns
    /// whether it reported anything.
    pub fn read(&mut self, on: &mut dyn FnMut(LogEvent)) -> io::Result<bool> {
        let mut file = match open_regular(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        let mut reported = false;
        if !self.is_unchanged(&mut file)? {
            (self.read, self.last, self.foreign_lines, reported) = (0, Vec::new(), 0, true);
            on(LogEvent::Restart);
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let mut text = Vec::new();
        loop {
            text.clear();
            let bytes = (&mut reader).take(MOST_LINE_BYTES).read_until(b'\n', &mut text)? as u64;
            // A line that is half written is read once it is whole.
            if bytes == 0 || (bytes < MOST_LINE_BYTES && text.last() != Some(&b'\n')) {
                return Ok(reported);
            }
            self.read += bytes;
            match parse(&text) {
                Some(line) => {
                    on(LogEvent::Line(line));
                    reported = true;
                }
                None => self.foreign_lines += 1,
            }
            std::mem::swap(&mut self.last, &mut text);
        }
    }

    /// Lines read so far that saltworks did not write.
    pub fn foreign_lines(&self) -> u64 {
        self.foreign_lines
    }

    /// Whether the part that was read is still what it was.
    fn is_unchanged(&self, file: &mut File) -> io::Result<bool> {
        if file.metadata()?.len() < self.read {
            return Ok(false);
        }
        let mut found = vec![0; self.last.len()];
        file.seek(SeekFrom::Start(self.read - self.last.len() as u64))?;
        file.read_exact(&mut found)?;
        Ok(found == self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_files::names::METRICS;

    fn step(step: u64, loss: f64) -> String {
        format!("{{\"stage\":\"teacher\",\"step\":{step},\"loss\":{loss}}}\n")
    }

    fn write(path: &Path, text: &str) {
        let mut file = File::create(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// What is reported, in short: steps by their numbers, P, A, and - for a restart.
    fn reported(log_reader: &mut MetricsReader) -> String {
        let mut all = Vec::new();
        log_reader
            .read(&mut |event| {
                all.push(match event {
                    LogEvent::Restart => "-".to_owned(),
                    LogEvent::Line(Line { step, kind: LineKind::Step(_), .. }) => step.to_string(),
                    LogEvent::Line(Line { kind: LineKind::Probe(_), .. }) => "P".to_owned(),
                    LogEvent::Line(Line { kind: LineKind::Alarm(_), .. }) => "A".to_owned(),
                });
            })
            .unwrap();
        all.join(" ")
    }

    #[test]
    fn lines_come_once_each_when_they_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(METRICS);
        let mut log_reader = MetricsReader::new(&path);
        assert_eq!(reported(&mut log_reader), "");
        let (one, two) = (step(1, 0.5), step(2, 0.4));
        let probe = "{\"stage\":\"teacher\",\"step\":2,\"probe\":{\"rank_me\":3.0,\"new\":1}}\n";
        let alarm = "{\"stage\":\"teacher\",\"step\":2,\"alarm\":\"rank\",\"text\":\"low\"}\n";
        let mut log = format!("{one}not JSON\n{{\"other\":1}}\n{}", &two[..9]);
        write(&path, &log);
        assert_eq!(reported(&mut log_reader), "1");
        log.push_str(&format!("{}{probe}{alarm}", &two[9..]));
        write(&path, &log);
        assert_eq!(reported(&mut log_reader), "2 P A");
        assert_eq!(reported(&mut log_reader), "");
    }

    #[test]
    fn lines_with_stages_that_are_no_names_are_skipped_and_impossible_times_dropped() {
        for stage in ["../../secret", "/etc/passwd", "", "a b", &"x".repeat(101)] {
            let line = json!({"stage": stage, "step": 1, "loss": 0.5}).to_string();
            assert_eq!(parse(line.as_bytes()), None, "{stage}");
        }
        for (seconds, is_time) in [(1.8e9, true), (-1.0, false), (1e300, false)] {
            let line = json!({"stage": "a", "step": 1, "loss": 0.5, "unix_seconds": seconds});
            let line = parse(line.to_string().as_bytes()).unwrap();
            assert_eq!(line.unix_seconds.is_some(), is_time, "{seconds}");
        }
    }

    #[test]
    fn a_log_that_was_cut_is_reported_again_even_if_it_has_grown_since() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(METRICS);
        write(&path, &[step(1, 0.5), step(2, 0.4)].concat());
        let mut log_reader = MetricsReader::new(&path);
        assert_eq!(reported(&mut log_reader), "1 2");
        write(&path, &step(1, 0.5));
        assert_eq!(reported(&mut log_reader), "- 1");
        write(&path, &[step(1, 0.7), step(2, 0.6), step(3, 0.5)].concat());
        assert_eq!(reported(&mut log_reader), "- 1 2 3");
    }
}
