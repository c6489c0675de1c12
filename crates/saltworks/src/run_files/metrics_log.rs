//! metrics.jsonl: one JSON object a step, and now and then what probes found; the source of every
//! other line.

use super::{Alarm, OnlineProbe, StepLine, unix_seconds};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

/// The open log of a run.
pub struct MetricsLog {
    file: BufWriter<File>,
    flushed: Instant,
}

impl MetricsLog {
    /// Goes on with the log at `path`, or begins it, after its first `bytes` bytes: what follows is
    /// of steps that are made again.
    pub fn open(path: &Path, bytes: u64) -> io::Result<Self> {
        let mut file =
            File::options().create(true).read(true).write(true).truncate(false).open(path)?;
        let bytes = whole_lines(&mut file, bytes)?;
        file.set_len(bytes)?;
        file.seek(SeekFrom::Start(bytes))?;
        Ok(Self { file: BufWriter::new(file), flushed: Instant::now() })
    }

    /// Appends a step of a stage.
    pub fn step(&mut self, stage: &str, step: u64, line: &StepLine) -> io::Result<()> {
        let object = json!({
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
        });
        self.append(&object)
    }

    /// Appends what probes found after a step.
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
        // Often enough to look at, seldom enough to cost nothing.
        if self.flushed.elapsed().as_secs() >= 1 {
            self.flush()?;
        }
        Ok(())
    }

    /// Makes everything durable; the log's length.
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
