//! metrics.jsonl: one JSON object a step, the source of every other report.

use super::StepReport;
use serde_json::json;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Instant;

/// The open log of a run.
pub struct MetricsLog {
    file: BufWriter<File>,
    flushed: Instant,
}

impl MetricsLog {
    /// Begins a new log.
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(File::create(path)?), flushed: Instant::now() })
    }

    /// Appends a step of a stage.
    pub fn step(&mut self, stage: &str, report: &StepReport) -> io::Result<()> {
        let seconds = report.time.as_secs_f64();
        let line = json!({
            "stage": stage,
            "step": report.step,
            "loss": report.loss,
            "lr": report.lr,
            "weight_decay": report.weight_decay,
            "grad_norm": report.grad_norm,
            "images_per_second": report.images as f64 / seconds,
            "data_wait_share": report.waited.as_secs_f64() / seconds,
            "context_tokens": report.context_tokens,
            "target_tokens": report.target_tokens,
        });
        writeln!(self.file, "{line}")?;
        // Often enough to look at, seldom enough to cost nothing.
        if self.flushed.elapsed().as_secs() >= 1 {
            self.flush()?;
        }
        Ok(())
    }

    /// Hands everything to the system.
    pub fn flush(&mut self) -> io::Result<()> {
        self.flushed = Instant::now();
        self.file.flush()
    }
}
