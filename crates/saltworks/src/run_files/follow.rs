//! metrics.jsonl as it grows: its lines, each once.

use super::{Alarm, OnlineProbe};
use crate::files::open_regular;
use crate::recipe;
use serde::Deserialize;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// A line of metrics.jsonl, checked: its stage is a name that a recipe may give one, since it becomes part
/// of paths, and its time one that calendars know.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The stage it is of.
    pub stage: String,
    /// Steps made when it was written.
    pub step: u64,
    /// When, if it says so.
    pub unix_seconds: Option<f64>,
    /// What it tells.
    pub what: What,
}

/// What a line tells.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A training step.
    Step(StepLine),
    /// What probes found.
    Probe(Box<OnlineProbe>),
    /// A sign that the stage goes wrong.
    Alarm(Alarm),
}

/// What is logged of a step; what an earlier version did not write is 0.
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

/// What a line may hold. Listed in full: `flatten` would be slower by half.
#[derive(Deserialize)]
struct Raw {
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

/// Seconds of 1970 that are taken for times: up to the year 5138.
const TIMES: std::ops::Range<f64> = 0.0..1e11;

fn parse(text: &[u8]) -> Option<Line> {
    let raw: Raw = serde_json::from_slice(text).ok()?;
    if !recipe::is_stage_name(&raw.stage) {
        return None;
    }
    let unix_seconds = raw.unix_seconds.filter(|seconds| TIMES.contains(seconds));
    let what = match (raw.probe, raw.alarm, raw.loss) {
        (Some(probe), ..) => What::Probe(probe),
        (None, Some(kind), _) => What::Alarm(Alarm { kind, text: raw.text.unwrap_or_default() }),
        (None, None, Some(loss)) => What::Step(StepLine {
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
    Some(Line { stage: raw.stage, step: raw.step, unix_seconds, what })
}

/// Bytes of a line, at most: what is longer is none of ours.
const MOST_LINE_BYTES: u64 = 1 << 20;

/// What [`Follow::read`] tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// Forget the lines told so far: the log was cut, as when a run goes on from a checkpoint.
    Anew,
    /// The next line.
    Line(Line),
}

/// Reads a log from its beginning, and then what was added.
#[derive(Debug)]
pub struct Follow {
    path: PathBuf,
    /// Bytes read, all of whole lines.
    read: u64,
    /// The last of them: where it stands no more, the log was cut and has grown again.
    last: Vec<u8>,
    /// Lines among them that were none of ours.
    passed_over: u64,
}

impl Follow {
    /// Of the log at `path`, which need not be there yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.into(), read: 0, last: Vec::new(), passed_over: 0 }
    }

    /// Tells each whole line since the last call; lines that are none of ours are passed over. Whether
    /// anything was told.
    pub fn read(&mut self, on: &mut dyn FnMut(Told)) -> io::Result<bool> {
        let mut file = match open_regular(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file?,
        };
        let mut told = false;
        if !self.is_where_it_was(&mut file)? {
            (self.read, self.last, self.passed_over, told) = (0, Vec::new(), 0, true);
            on(Told::Anew);
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let mut text = Vec::new();
        loop {
            text.clear();
            let bytes = (&mut reader).take(MOST_LINE_BYTES).read_until(b'\n', &mut text)? as u64;
            // A line in the making is read when it is whole.
            if bytes == 0 || (bytes < MOST_LINE_BYTES && text.last() != Some(&b'\n')) {
                return Ok(told);
            }
            self.read += bytes;
            match parse(&text) {
                Some(line) => {
                    on(Told::Line(line));
                    told = true;
                }
                None => self.passed_over += 1,
            }
            std::mem::swap(&mut self.last, &mut text);
        }
    }

    /// Lines read so far that were none of ours.
    pub fn passed_over(&self) -> u64 {
        self.passed_over
    }

    fn is_where_it_was(&self, file: &mut File) -> io::Result<bool> {
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
    use serde_json::json;
    use std::io::Write as _;

    fn step(step: u64, loss: f64) -> String {
        format!("{{\"stage\":\"teacher\",\"step\":{step},\"loss\":{loss}}}\n")
    }

    fn write(path: &Path, text: &str) {
        let mut file = File::create(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// What is told, in short: steps by their numbers, P, A, and - where all begins anew.
    fn told(follow: &mut Follow) -> String {
        let mut all = Vec::new();
        follow
            .read(&mut |told| {
                all.push(match told {
                    Told::Anew => "-".to_owned(),
                    Told::Line(Line { step, what: What::Step(_), .. }) => step.to_string(),
                    Told::Line(Line { what: What::Probe(_), .. }) => "P".to_owned(),
                    Told::Line(Line { what: What::Alarm(_), .. }) => "A".to_owned(),
                });
            })
            .unwrap();
        all.join(" ")
    }

    #[test]
    fn lines_come_once_each_when_they_are_whole() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(METRICS);
        let mut follow = Follow::new(&path);
        assert_eq!(told(&mut follow), "");
        let (one, two) = (step(1, 0.5), step(2, 0.4));
        let probe = "{\"stage\":\"teacher\",\"step\":2,\"probe\":{\"rank_me\":3.0,\"new\":1}}\n";
        let alarm = "{\"stage\":\"teacher\",\"step\":2,\"alarm\":\"rank\",\"text\":\"low\"}\n";
        let mut log = format!("{one}not JSON\n{{\"other\":1}}\n{}", &two[..9]);
        write(&path, &log);
        assert_eq!(told(&mut follow), "1");
        log.push_str(&format!("{}{probe}{alarm}", &two[9..]));
        write(&path, &log);
        assert_eq!(told(&mut follow), "2 P A");
        assert_eq!(told(&mut follow), "");
    }

    #[test]
    fn stages_that_are_no_names_and_times_that_are_none_are_not_told() {
        for stage in ["../../secret", "/etc/passwd", "", "a b", &"x".repeat(101)] {
            let line = json!({"stage": stage, "step": 1, "loss": 0.5}).to_string();
            assert_eq!(parse(line.as_bytes()), None, "{stage}");
        }
        for (seconds, kept) in [(1.8e9, true), (-1.0, false), (1e300, false)] {
            let line = json!({"stage": "a", "step": 1, "loss": 0.5, "unix_seconds": seconds});
            let line = parse(line.to_string().as_bytes()).unwrap();
            assert_eq!(line.unix_seconds.is_some(), kept, "{seconds}");
        }
    }

    #[test]
    fn a_log_that_was_cut_is_told_anew_also_if_it_has_grown_again() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join(METRICS);
        write(&path, &[step(1, 0.5), step(2, 0.4)].concat());
        let mut follow = Follow::new(&path);
        assert_eq!(told(&mut follow), "1 2");
        write(&path, &step(1, 0.5));
        assert_eq!(told(&mut follow), "- 1");
        write(&path, &[step(1, 0.7), step(2, 0.6), step(3, 0.5)].concat());
        assert_eq!(told(&mut follow), "- 1 2 3");
    }
}
