//! The first 20 losses of both stages of the quickstart, bit for bit as committed in
//! tests/quickstart. A change that is not meant to change numbers leaves them alone. One that is
//! meant to writes the file anew, and its commit says why:
//!
//!     SALTWORKS_WRITE_LOSSES=1 cargo test --release -p saltworks --test quickstart
//!
//! Instruction sets round differently, so each has a file of its own.

use saltworks::files::write_whole;
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const STEPS: usize = 20;

/// Losses of one instruction set lie this close to those of another: sums differ in their last
/// bits, and 20 steps of AdamW spread that. (guess)
const ROUNDING: f64 = 1e-3;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/quickstart")
}

/// A line for each step: stage, step, loss and gradient norm as metrics.jsonl writes them.
fn trained(out: &Path) -> Vec<String> {
    let steps = ["teacher", "student"].map(|stage| format!("{stage}.steps={STEPS}"));
    let done = Command::new(env!("CARGO_BIN_EXE_saltworks"))
        .args(["pretrain", "--set", &steps[0], "--set", &steps[1]])
        // Probes read the weights and change none.
        .args(["--set", "probe.online=false", "--set", "probe.linear=false", "--out"])
        .arg(out)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let log = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let steps = lines.filter(|line| line.get("loss").is_some());
    steps
        .map(|line| {
            let stage = line["stage"].as_str().unwrap();
            format!("{stage} {} {} {}", line["step"], line["loss"], line["grad_norm"])
        })
        .collect()
}

/// Whether two lists name the same steps with numbers that differ by rounding alone.
fn close(got: &[String], want: &[String]) -> bool {
    let parts = |line: &String| -> (String, Vec<f64>) {
        let parts: Vec<&str> = line.split(' ').collect();
        let numbers = parts[2..].iter().map(|number| number.parse().unwrap()).collect();
        (parts[..2].join(" "), numbers)
    };
    got.len() == want.len()
        && got.iter().zip(want).all(|(got, want)| {
            let ((got_step, got), (want_step, want)) = (parts(got), parts(want));
            got_step == want_step
                && got.iter().zip(want).all(|(a, b)| (a - b).abs() <= ROUNDING * b.abs())
        })
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_first_losses_are_the_committed_ones() {
    let out = tempfile::tempdir().unwrap();
    let got = trained(&out.path().join("run"));
    assert_eq!(got.len(), 2 * STEPS);
    let own = folder().join(format!("{}.txt", engine::cpu::instruction_set()));
    if std::env::var_os("SALTWORKS_WRITE_LOSSES").is_some() {
        write_whole(&own, (got.join("\n") + "\n").as_bytes()).unwrap();
    }
    if own.exists() {
        assert_eq!(got, lines(&own), "losses (left) and {} (right)", own.display());
        return;
    }
    // Written past the capture of passing tests: a log of CI is where the next file comes from.
    let mut log = std::io::stderr();
    writeln!(log, "{} is missing. Its lines:\n{}", own.display(), got.join("\n")).unwrap();
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|file| file.extension().is_some_and(|end| end == "txt")) {
        let want = lines(&file);
        assert!(close(&got, &want), "{got:#?}\nis not close to {}: {want:#?}", file.display());
    }
}

#[test]
fn a_loss_that_is_off_by_more_than_rounding_is_found() {
    let want = ["teacher 1 0.5 1.25".to_owned()];
    assert!(close(&["teacher 1 0.500001 1.25".to_owned()], &want));
    for other in ["teacher 1 0.51 1.25", "teacher 2 0.5 1.25", "student 1 0.5 1.25"] {
        assert!(!close(&[other.to_owned()], &want), "{other}");
    }
    assert!(!close(&[], &want));
}
