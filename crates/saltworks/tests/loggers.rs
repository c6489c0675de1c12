//! Logs for other programs: complete, and one for each run, however often it was interrupted.
//! crates/python/tests/test_loggers.py compares what their packages read with metrics.jsonl.

mod place;

use place::{Place, assert_refused, saltworks, stderr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Files below a folder, their paths sorted.
fn files(folder: PathBuf) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Lengths of the records of a TFRecord file. They reach to its end.
fn records(bytes: &[u8]) -> Vec<usize> {
    let (mut at, mut lengths) = (0, Vec::new());
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        lengths.push(length);
        at += 8 + 4 + length + 4;
    }
    assert_eq!(at, bytes.len(), "the last record is whole");
    lengths
}

/// Runs until the log has `more` more lines of steps, then ends the run by a signal. Returns the
/// steps of the student.
fn run_for(place: &Place, more: usize, signal: &str) -> usize {
    // The last line may be half written.
    let log = || std::fs::read_to_string(place.path("run/metrics.jsonl")).unwrap_or_default();
    let of_student = |line: &&str| line.contains("\"student\"") && line.contains("grad_norm");
    let steps = || log().lines().filter(of_student).count();
    let before = steps();
    let often = ["student.steps=100000", "checkpoint.every_steps=50"];
    let mut command = place.pretrain("run", &[&BOTH[..], &often].concat());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    while steps() < before + more {
        assert!(child.try_wait().unwrap().is_none(), "the run trains");
        std::thread::sleep(Duration::from_millis(50));
    }
    let ask = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(ask.success());
    let code = child.wait().unwrap().code();
    assert_eq!(code, if signal == "-INT" { Some(130) } else { None });
    steps()
}

/// Steps of the events with training's numbers, in the order of the file.
fn steps_in(file: &std::path::Path) -> Vec<u64> {
    let bytes = std::fs::read(file).unwrap();
    let (mut at, mut steps) = (0, Vec::new());
    for length in records(&bytes) {
        let data = &bytes[at + 12..at + 12 + length];
        at += 16 + length;
        // Event: wall time (9 bytes), step (a key and a varint), and a summary that begins with the
        // tag "loss".
        let (mut step, mut place) = (0, 10);
        if data.get(9) == Some(&0x10) {
            for shift in (0..).step_by(7) {
                step |= u64::from(data[place] & 0x7F) << shift;
                place += 1;
                if data[place - 1] & 0x80 == 0 {
                    break;
                }
            }
            let tag = data.windows(6).position(|window| window == b"\x0A\x04loss");
            if tag.is_some_and(|tag| tag < place + 8) {
                steps.push(step);
            }
        }
    }
    steps
}

const BOTH: [&str; 2] = ["log.tensorboard=true", "log.wandb=true"];

#[test]
fn an_interrupted_run_leaves_one_log_of_all_its_steps() {
    let place = Place::with_classes();
    run_for(&place, 20, "-INT");
    let board = |stage: &str| {
        let files = files(place.path("run/tensorboard").join(stage));
        let [file] = files.as_slice() else { panic!("{files:?}") };
        file.clone()
    };
    let offline = || {
        let all = files(place.path("run")).into_iter();
        let of = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "wandb");
        all.filter(of).collect::<Vec<_>>()
    };
    let (file, before) = (board("student"), offline());
    assert_eq!((before.len(), steps_in(&board("teacher"))), (1, vec![1, 2, 3]));
    // A killed run leaves steps that the next process repeats. Then the run ends.
    for signal in ["-KILL", "-KILL", "-INT"] {
        run_for(&place, 120, signal);
        assert_eq!((board("student"), offline()), (file.clone(), before.clone()));
    }
    let steps = steps_in(&file);
    let last = place.metrics("run").last().unwrap()["step"].as_u64().unwrap();
    assert_eq!(steps, (1..=last).collect::<Vec<_>>(), "each step once");
}

#[test]
fn a_log_that_cannot_be_written_stops_no_other() {
    let place = Place::with_classes();
    let long = [&BOTH[..], &["student.steps=100000"]].concat();
    let child = place.pretrain("run", &long).stderr(Stdio::piped()).spawn().unwrap();
    let page = place.path("run/report.html");
    while !place.path("run/teacher/encoder.safetensors").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    // Before the first report, and with an existing one.
    let _ = std::fs::remove_file(&page);
    std::fs::create_dir(&page).unwrap();
    let ask = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(ask.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let notes = stderr(&output);
    assert!(notes.contains("report.html: ") && !notes.contains("report: "), "{notes}");
    assert!(!files(place.path("run/tensorboard")).is_empty());
    assert!(!files(place.path("run/wandb")).is_empty());
}

#[test]
fn a_log_is_written_later_and_removed_with_its_run() {
    let place = Place::with_classes();
    place.trained("run", &[]);
    assert!(!place.path("run/tensorboard").exists() && !place.path("run/wandb").exists());
    for program in ["tensorboard", "wandb"] {
        let mut log = saltworks();
        let output =
            log.arg("log").arg(place.path("run")).args(["--to", program]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(place.path("run").join(program).is_dir());
    }
    place.text("run/wandb/mine.txt", "not the run's");
    let mut other = place.pretrain("run", &[]);
    assert!(other.arg("--overwrite").output().unwrap().status.success());
    assert!(!place.path("run/tensorboard").exists());
    assert_eq!(files(place.path("run/wandb")), [place.path("run/wandb/mine.txt")]);
    let mut none = saltworks();
    let none = none.arg("log").arg(place.path("photos")).args(["--to", "wandb"]);
    assert_refused(none, &["photos", "holds no run"]);
    let mut two = saltworks();
    let two = two.arg("log").args([place.path("run"), place.path("run")]);
    assert_refused(two.args(["--to", "wandb", "--out", "x"]), &["two runs", "run"]);
}
