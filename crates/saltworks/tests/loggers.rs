//! Logs for other programs: whole, and of one run, however often it was cut short. What their own
//! packages read in them is held against metrics.jsonl in crates/python/tests/test_loggers.py.

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

/// Lengths of a TFRecord file's records, which reach to its end.
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

/// Runs until the log has `more` lines of steps beyond those it had, then asks it to end; steps of the student.
fn run_for(place: &Place, more: usize) -> usize {
    // The last line may be half written.
    let log = || std::fs::read_to_string(place.path("run/metrics.jsonl")).unwrap_or_default();
    let of_student = |line: &&str| line.contains("\"student\"") && line.contains("grad_norm");
    let steps = || log().lines().filter(of_student).count();
    let before = steps();
    let mut command = place.pretrain("run", &[&BOTH[..], &["student.steps=100000"]].concat());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    while steps() < before + more {
        assert!(child.try_wait().unwrap().is_none(), "it goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
    let ask = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(ask.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    steps()
}

const BOTH: [&str; 2] = ["log.tensorboard=true", "log.wandb=true"];

#[test]
fn a_run_that_was_cut_short_leaves_one_log_of_all_its_steps() {
    let place = Place::with_classes();
    run_for(&place, 20);
    let made = |name: &str| {
        let files = files(place.path("run/tensorboard").join(name));
        let [file] = files.as_slice() else { panic!("{files:?}") };
        records(&std::fs::read(file).unwrap()).len()
    };
    // Version, experiment, session; a probe before the first step and one after each stage, pictures.
    assert!(made("teacher") >= 3 + 3 + 2 && made("student") > 20, "{}", made("student"));
    let earlier = files(place.path("run"));
    let offline = |files: &[PathBuf]| {
        let of = |file: &&PathBuf| file.extension().is_some_and(|extension| extension == "wandb");
        files.iter().filter(of).cloned().collect::<Vec<_>>()
    };
    let before = offline(&earlier);
    assert_eq!(before.len(), 1);
    let length = before[0].metadata().unwrap().len();
    let steps = run_for(&place, 20);
    assert!(made("student") > steps, "all steps, made by both processes");
    let after = offline(&files(place.path("run")));
    assert_eq!(after, before);
    assert!(after[0].metadata().unwrap().len() > length);
}

#[test]
fn a_run_is_written_afterwards_and_gone_when_it_is_replaced() {
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
