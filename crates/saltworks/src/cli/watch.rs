//! `saltworks watch`: a run's curves in a terminal.

use crate::console::{Plot, PlotCurve, printable, styled};
use crate::failure::{Failure, input_error, run_error};
use crate::report::{RunData, RunReader, StageData};
use crate::train::Stop;
use console::{Color, Style, Term};
use std::io::Write as _;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// Options of `watch`.
#[derive(clap::Args)]
pub(super) struct Arguments {
    /// A run's folder.
    run: PathBuf,
    /// Show it once, as if the output were not a terminal.
    #[arg(long)]
    once: bool,
    /// Seconds between updates.
    #[arg(long, default_value_t = 1.0)]
    every: f64,
    /// The stage to show (default: the last that has started).
    #[arg(long)]
    stage: Option<String>,
}

/// Rows and columns without a terminal.
const SIZE: (u16, u16) = (30, 100);
/// The fewest rows of a plot: title, three rows of dots, axis, legend.
const LEAST_ROWS: usize = 6;
/// The fewest columns for two plots side by side.
const WIDE: usize = 90;

/// Shows the run until it is stopped by Ctrl-C.
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if !(0.05..=3600.0).contains(&arguments.every) {
        let found = arguments.every;
        return Err(input_error(format!("--every is {found}, expected 0.05 to 3600 seconds")));
    }
    super::report::expect_run(&arguments.run)?;
    let mut reader = RunReader::without_pictures(&arguments.run);
    let mut read = || {
        let problem =
            |error| run_error(format!("cannot read {}: {error}", arguments.run.display()));
        reader.read().map_err(problem)
    };
    let term = Term::stdout();
    if arguments.once || !term.is_term() {
        let lines = frame(&read()?, arguments, SIZE, console::colors_enabled())?;
        styled(&lines.join("\n"));
        return Ok(());
    }
    let stop = Stop::listen().map_err(run_error)?;
    let screen = Screen::open(&term).map_err(run_error)?;
    while stop.signal().is_none() {
        let lines = frame(&read()?, arguments, term.size(), console::colors_enabled())?;
        screen.show(&lines).map_err(run_error)?;
        let begun = Instant::now();
        while stop.signal().is_none() && begun.elapsed().as_secs_f64() < arguments.every {
            thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// The terminal's alternate screen, until this value is dropped.
struct Screen<'a>(&'a Term);

impl<'a> Screen<'a> {
    fn open(term: &'a Term) -> std::io::Result<Self> {
        let mut out = term;
        out.write_all(b"\x1b[?1049h\x1b[?25l")?;
        Ok(Self(term))
    }

    /// Overwrites the old text, so that nothing flickers.
    fn show(&self, lines: &[String]) -> std::io::Result<()> {
        let mut text = "\x1b[H".to_owned();
        for (number, line) in lines.iter().enumerate() {
            text += if number > 0 { "\r\n" } else { "" };
            text += line;
            text += "\x1b[K";
        }
        let mut out = self.0;
        out.write_all((text + "\x1b[J").as_bytes())?;
        out.flush()
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        // Errors are ignored: the terminal may be closed.
        let mut out = self.0;
        let _ = out.write_all(b"\x1b[?25h\x1b[?1049l");
    }
}

/// The lines that show a run.
fn frame(
    run: &RunData,
    arguments: &Arguments,
    (rows, columns): (u16, u16),
    style: bool,
) -> Result<Vec<String>, Failure> {
    let (rows, columns) = (usize::from(rows).max(1), usize::from(columns).max(20));
    let stage = match &arguments.stage {
        Some(name) => {
            Some(run.stages.iter().find(|stage| stage.name == *name).ok_or_else(|| {
                let names: Vec<_> = run.stages.iter().map(|stage| stage.name.as_str()).collect();
                input_error(format!(
                    "the run has no stage {name:?}. Its stages are {}",
                    names.join(", ")
                ))
            })?)
        }
        None => run.stages.iter().rfind(|stage| stage.has_begun()),
    };
    let bold = |text: &str| match style {
        true => Style::new().bold().force_styling(true).apply_to(text).to_string(),
        false => text.to_owned(),
    };
    let mut lines = vec![format!("{}  {}", bold(&clip(&run.name, columns - 12)), run.status)];
    if let Some(ended) = &run.ended {
        lines.extend(wrap(&ended.why, columns));
    }
    lines.extend(run.problems.iter().map(|problem| clip(problem, columns)));
    lines.extend(run.doing.as_deref().map(|doing| clip(doing, columns)));
    let Some(stage) = stage else {
        if run.doing.is_none() {
            lines.push("no steps yet".to_owned());
        }
        return Ok(lines);
    };
    lines.push(progress(stage, run.left.as_deref(), columns));
    if let Some(point) = stage.probes.last() {
        lines.push(clip(&point.probe.line(point.step), columns));
    }
    for other in &run.stages {
        for alarm in other.alarms.iter().filter(|alarm| alarm.over.is_none()) {
            let when = format!("{}, step {}", other.name, alarm.step);
            lines.extend(wrap(&format!("ALARM ({}) {when}: {}", alarm.kind, alarm.text), columns));
        }
    }
    // If there is little room, text has priority over plots.
    let room = rows.saturating_sub(lines.len());
    let (loss, accuracy) = (losses(stage), accuracies(stage));
    if room >= LEAST_ROWS && columns >= WIDE {
        let half = columns / 2 - 1;
        let [left, right] = [loss.lines(half, room, style), accuracy.lines(half, room, style)];
        for (left, right) in left.iter().zip(&right) {
            let gap = half.saturating_sub(console::measure_text_width(left)) + 2;
            lines.push(format!("{left}{:gap$}{right}", ""));
        }
    } else if room >= 2 * LEAST_ROWS {
        lines.extend(loss.lines(columns, room / 2, style));
        lines.extend(accuracy.lines(columns, room - room / 2, style));
    } else if room >= LEAST_ROWS {
        lines.extend(loss.lines(columns, room, style));
    }
    lines.truncate(rows);
    Ok(lines)
}

fn losses(stage: &StageData) -> Plot<'_> {
    let steps = stage.series.step.iter().map(|step| *step as f64);
    let held_out = stage.probes.iter();
    let held_out = held_out.filter_map(|point| Some((point.step as f64, point.probe.loss?)));
    let curve = |name, color, points| PlotCurve { name, color, points };
    Plot {
        title: "loss",
        curves: vec![
            curve("training", Color::Blue, steps.zip(stage.series.loss.iter().copied()).collect()),
            curve("held-out images", Color::Yellow, held_out.collect()),
        ],
        format: |loss| match loss.abs() {
            0.0..1000.0 => format!("{loss:.4}"),
            _ => format!("{loss:.1e}"),
        },
    }
}

fn accuracies(stage: &StageData) -> Plot<'_> {
    type Get = fn(&crate::run_files::OnlineProbe) -> Option<f64>;
    let kinds: [(&str, Color, Get); 4] = [
        ("kNN mean", Color::Blue, |probe| probe.knn_mean),
        ("kNN CLS", Color::Cyan, |probe| probe.knn_cls),
        ("linear mean", Color::Yellow, |probe| probe.linear_mean),
        ("linear CLS", Color::Magenta, |probe| probe.linear_cls),
    ];
    let curves = kinds.map(|(name, color, get)| {
        let points = stage.probes.iter();
        let points = points.filter_map(|point| Some((point.step as f64, get(&point.probe)?)));
        PlotCurve { name, color, points: points.collect() }
    });
    Plot {
        title: "accuracy of frozen features",
        curves: curves.into(),
        format: |share| format!("{:.1} %", 100.0 * share),
    }
}

/// A stage's name, a bar, steps, rate and time left.
fn progress(stage: &StageData, left: Option<&str>, columns: usize) -> String {
    let mut parts = vec![match stage.steps {
        Some(all) => format!("step {} of {all}", stage.step),
        None => format!("step {}", stage.step),
    }];
    parts.extend(stage.series.loss.last().map(|loss| format!("loss {loss:.4}")));
    parts.extend(stage.images_per_second.map(|rate| format!("{rate:.0} images/s")));
    let (all, made) = (stage.steps.unwrap_or(0) as f64, stage.step as f64);
    parts.extend(left.map(str::to_owned));
    let filled = if all > 0.0 { (20.0 * made / all).round().min(20.0) as usize } else { 0 };
    let bar = format!("{}{}", "━".repeat(filled), "─".repeat(20 - filled));
    clip(&format!("{}  {bar}  {}", stage.name, parts.join("  ")), columns)
}

/// Text from a run, in lines that are broken between words.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in printable(text).split(' ') {
        // `lines` is never empty.
        let line = lines.last_mut().expect("a line");
        let width = console::measure_text_width(line) + 1 + console::measure_text_width(word);
        match (line.is_empty(), width <= columns) {
            (true, _) => *line = word.to_owned(),
            (false, true) => *line = format!("{line} {word}"),
            (false, false) => lines.push(word.to_owned()),
        }
    }
    lines.iter().map(|line| clip(line, columns)).collect()
}

/// Text from a run, cut to one line.
fn clip(text: &str, columns: usize) -> String {
    console::truncate_str(&printable(text), columns, "…").into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_shown_whole_in_lines_that_fit() {
        let text = "no probe is more accurate than before the first step: lower lr";
        for columns in [20, 33, 500] {
            let lines = wrap(text, columns);
            assert!(lines.iter().all(|line| console::measure_text_width(line) <= columns));
            assert_eq!(lines.join(" "), text);
        }
        assert_eq!(wrap(&"x".repeat(30), 20), [format!("{}…", "x".repeat(19))]);
        assert_eq!(wrap("", 20), [""]);
    }
}
