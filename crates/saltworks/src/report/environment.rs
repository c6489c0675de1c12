//! Where a run ran.

use serde_json::{Value, json};

/// What environment.json holds.
pub fn environment(threads: usize) -> Value {
    json!({
        "saltworks": env!("CARGO_PKG_VERSION"),
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "cpu": cpu_name(),
        "threads": threads,
        "started_unix_seconds": unix_seconds(),
        "command": std::env::args().collect::<Vec<_>>(),
    })
}

fn unix_seconds() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |time| time.as_secs())
}

/// The processor's name as Linux tells it, if it does.
fn cpu_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The most memory this process held, as Linux tells it.
pub fn peak_memory_bytes() -> Option<u64> {
    status_bytes("VmHWM")
}

/// The memory this process holds, as Linux tells it.
pub fn resident_memory_bytes() -> Option<u64> {
    status_bytes("VmRSS")
}

fn status_bytes(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
