//! The first 20 losses of both stages of the quickstart, bit for bit as committed in
//! tests/quickstart. A change that is not meant to change numbers leaves them alone. One that is
//! meant to writes the file anew, and its commit says why:
//!
//!     SALTWORKS_WRITE_LOSSES=1 cargo test --release -p saltworks --test quickstart
//!
//! Instruction sets round differently, so each has a file of its own. The CPU is limited to each
//! set that has one.

use saltworks::files::write_whole;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const STEPS: usize = 20;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/quickstart")
}

/// A line for each step: stage, step, loss and gradient norm as metrics.jsonl writes them.
fn trained(out: &Path, instructions: &str) -> Vec<String> {
    let steps = ["teacher", "student"].map(|stage| format!("{stage}.steps={STEPS}"));
    let done = Command::new(env!("CARGO_BIN_EXE_saltworks"))
        .env("SALTWORKS_INSTRUCTIONS", instructions)
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

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// The sets that this CPU has, the widest last.
fn instruction_sets() -> Vec<&'static str> {
    let all = ["portable", "avx2", "avx512"];
    let own = all
        .iter()
        .position(|set| *set == engine::cpu::instruction_set(engine::Dtype::F32))
        .unwrap();
    all[..=own].to_vec()
}

/// Other architectures have no committed losses, so nothing is compared there.
#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "none of this architecture are committed")]
fn the_first_losses_are_the_committed_ones() {
    let out = tempfile::tempdir().unwrap();
    let mut compared = 0;
    for set in instruction_sets() {
        let committed = folder().join(format!("{set}.txt"));
        let write = std::env::var_os("SALTWORKS_WRITE_LOSSES").is_some();
        if !write && !committed.exists() {
            continue;
        }
        let got = trained(&out.path().join(set), set);
        assert_eq!(got.len(), 2 * STEPS);
        if write {
            write_whole(&committed, (got.join("\n") + "\n").as_bytes()).unwrap();
        }
        assert_eq!(got, lines(&committed), "losses (left) and {} (right)", committed.display());
        compared += 1;
    }
    assert!(compared > 0, "no file of {:?} is committed", instruction_sets());
}

#[test]
fn an_unknown_instruction_set_is_refused_with_the_known_ones() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_saltworks"));
    let done = command.arg("plan").env("SALTWORKS_INSTRUCTIONS", "sse9").output().unwrap();
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(2), "{text}");
    assert!(text.contains("SALTWORKS_INSTRUCTIONS") && text.contains("portable"), "{text}");
}
