//! Progress of a stage: a bar on a terminal, plain lines elsewhere.

use super::advice::slow_data;
use super::{RunPace, StagePace, note, time_text};
use crate::train::StepReport;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of the running stage.
pub struct Progress {
    stage: String,
    steps: u64,
    /// The pace of the run. It knows this stage, too.
    pace: RunPace,
    /// Steps made before the run was resumed.
    first_step: u64,
    bar: Option<ProgressBar>,
    begun: Instant,
    line: Instant,
    loss: Option<f64>,
    images: usize,
    waited: Duration,
    /// Time of probes between steps.
    probing: Duration,
    /// Whether the advice about waiting for data was given.
    advised: bool,
}

/// Time after which advice about waiting for data is possible.
const ADVISE_AFTER: Duration = Duration::from_secs(30);

impl Progress {
    /// Begins a stage of `steps` steps, in a run of this pace so far. An earlier process made the
    /// first `first_step` of them.
    pub fn new(stage: &str, steps: u64, first_step: u64, pace: RunPace) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(steps).with_position(first_step);
            let style = "{prefix:>10} {bar:30} {pos}/{len}  {msg}";
            // A fixed template of known keys.
            bar.set_style(ProgressStyle::with_template(style).expect("a valid template"));
            bar.set_prefix(stage.to_owned());
            bar
        });
        let now = Instant::now();
        Self {
            stage: stage.to_owned(),
            steps,
            pace,
            first_step,
            bar,
            begun: now,
            line: now,
            loss: None,
            images: 0,
            waited: Duration::ZERO,
            probing: Duration::ZERO,
            advised: false,
        }
    }

    /// Shows a step.
    pub fn step(&mut self, report: &StepReport) {
        let loss = f64::from(report.loss);
        // A running mean over about twenty steps: single losses jump with the masks.
        self.loss = Some(self.loss.map_or(loss, |mean| mean + 0.05 * (loss - mean)));
        self.images += report.images;
        self.waited += report.waited;
        self.change_pace(|pace| {
            pace.step = report.step;
            pace.step_seconds += report.time.as_secs_f64();
        });
        self.advise();
        let left = || self.pace.left().map_or_else(String::new, |left| format!("  {left}"));
        if let Some(bar) = &self.bar {
            bar.set_position(report.step);
            bar.set_message(self.message() + &left());
        } else if self.line.elapsed() >= LINE_EVERY {
            self.line = Instant::now();
            let (step, steps) = (report.step, self.steps);
            self.print(&format!("step {step}/{steps}  {}{}", self.message(), left()));
        }
    }

    fn change_pace(&mut self, change: impl FnOnce(&mut StagePace)) {
        if let Some(pace) = self.pace.stages.iter_mut().find(|stage| stage.name == self.stage) {
            change(pace);
        }
    }

    /// Shows the result of a probe between two steps. The probe took the time `took`.
    pub fn probed(&mut self, text: &str, took: Duration) {
        self.probing += took;
        self.change_pace(|pace| {
            pace.probes += 1;
            pace.probe_seconds += took.as_secs_f64();
        });
        self.say(text);
    }

    /// Shows a line above the bar.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.print(text)),
            None => self.print(text),
        }
    }

    /// Shows advice once if steps wait for data.
    fn advise(&mut self) {
        let elapsed = self.begun.elapsed();
        if self.advised || elapsed < ADVISE_AFTER {
            return;
        }
        if let Some(text) = slow_data(self.waited.as_secs_f64() / elapsed.as_secs_f64()) {
            self.advised = true;
            self.say(&text);
        }
    }

    /// Ends the stage.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let time = self.begun.elapsed();
        let time = match time.as_secs() {
            0..60 => format!("{:.1} s", time.as_secs_f64()),
            _ => time_text(time),
        };
        let earlier = match self.first_step {
            0 => String::new(),
            first => format!(" (since the run was resumed; {first} were made before)"),
        };
        let steps = self.steps - self.first_step;
        self.print(&format!("{steps} steps in {time}{earlier}  {}", self.message()));
    }

    fn message(&self) -> String {
        let seconds = (self.begun.elapsed().saturating_sub(self.probing)).as_secs_f64();
        let wait = 100.0 * self.waited.as_secs_f64() / seconds;
        let rate = self.images as f64 / seconds;
        format!("loss {:.4}  {rate:.0} images/s  data wait {wait:.1} %", self.loss.unwrap_or(0.0))
    }

    fn print(&self, text: &str) {
        note(&format!("{:>10}  {text}", self.stage));
    }
}
