//! Progress of a stage: a bar on a terminal, plain lines elsewhere.

use super::{StepReport, note};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The running stage.
pub struct Progress {
    stage: String,
    steps: u64,
    /// Made by a run that goes on here.
    first_step: u64,
    bar: Option<ProgressBar>,
    begun: Instant,
    line: Instant,
    loss: Option<f64>,
    images: usize,
    waited: Duration,
}

impl Progress {
    /// Begins a stage of `steps` steps, the first `first_step` of them made before.
    pub fn new(stage: &str, steps: u64, first_step: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(steps).with_position(first_step);
            bar.reset_eta();
            let style = "{prefix:>10} {bar:30} {pos}/{len}  {msg}  {eta} left";
            // A fixed template of known keys.
            bar.set_style(ProgressStyle::with_template(style).expect("a valid template"));
            bar.set_prefix(stage.to_owned());
            bar
        });
        let now = Instant::now();
        Self {
            stage: stage.to_owned(),
            steps,
            first_step,
            bar,
            begun: now,
            line: now,
            loss: None,
            images: 0,
            waited: Duration::ZERO,
        }
    }

    /// Shows a step.
    pub fn step(&mut self, report: &StepReport) {
        let loss = f64::from(report.loss);
        // A running mean over some twenty steps: single losses jump with the masks.
        self.loss = Some(self.loss.map_or(loss, |mean| mean + 0.05 * (loss - mean)));
        self.images += report.images;
        self.waited += report.waited;
        if let Some(bar) = &self.bar {
            bar.set_position(report.step);
            bar.set_message(self.message());
        } else if self.line.elapsed() >= LINE_EVERY {
            self.line = Instant::now();
            let (step, steps) = (report.step, self.steps);
            let elapsed = self.begun.elapsed().as_secs_f64();
            let left = elapsed / (step - self.first_step) as f64 * (steps - step) as f64;
            self.print(&format!("step {step}/{steps}  {}  {left:.0} s left", self.message()));
        }
    }

    /// Ends the stage.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        self.print(&format!(
            "{} steps in {seconds:.1} s  {}",
            self.steps - self.first_step,
            self.message()
        ));
    }

    fn message(&self) -> String {
        let seconds = self.begun.elapsed().as_secs_f64();
        let wait = 100.0 * self.waited.as_secs_f64() / seconds;
        let rate = self.images as f64 / seconds;
        format!("loss {:.4}  {rate:.0} images/s  data wait {wait:.1} %", self.loss.unwrap_or(0.0))
    }

    fn print(&self, text: &str) {
        note(&format!("{:>10}  {text}", self.stage));
    }
}
