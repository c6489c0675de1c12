//! environment.json: the program, the machine and the command of a run.

use super::unix_seconds;
use serde::{Deserialize, Serialize};

/// The contents of environment.json. A value that the file lacks is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Environment {
    /// Version of the program.
    pub saltworks: String,
    /// `linux`, ...
    pub os: String,
    /// `x86_64`, ...
    pub architecture: String,
    /// The processor's name, if the system reports it.
    pub cpu: Option<String>,
    /// The widest instruction set that may be used, such as `avx2`.
    pub instructions: String,
    /// The memory nodes (NUMA) whose processors this process may use, if Linux reports them.
    pub memory_nodes: Option<usize>,
    /// Threads that compute.
    pub threads: usize,
    /// When the run began.
    pub started_unix_seconds: u64,
    /// The words of the command.
    pub command: Vec<String>,
}

impl Environment {
    /// The environment of this process, which computes on `threads` threads.
    pub fn here(threads: usize) -> Self {
        Self {
            saltworks: env!("CARGO_PKG_VERSION").into(),
            os: std::env::consts::OS.into(),
            architecture: std::env::consts::ARCH.into(),
            cpu: cpu_name(),
            instructions: engine::cpu::instruction_set(engine::Dtype::Bf16).into(),
            memory_nodes: memory_nodes(),
            threads,
            started_unix_seconds: unix_seconds() as u64,
            // `args` panics if a word is not Unicode.
            command: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
        }
    }
}

/// The processor's name, if Linux reports it.
fn cpu_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The memory nodes (NUMA) whose processors this process may use, if Linux reports them.
pub fn memory_nodes() -> Option<usize> {
    let allowed = listed(&status_value("Cpus_allowed_list")?)?;
    let nodes = std::fs::read_dir("/sys/devices/system/node").ok()?.filter_map(|entry| {
        let cpus = std::fs::read_to_string(entry.ok()?.path().join("cpulist")).ok()?;
        listed(&cpus)
    });
    Some(nodes.filter(|cpus| cpus.iter().any(|cpu| allowed.contains(cpu))).count())
}

/// The numbers of a list such as `0-3,8`.
fn listed(text: &str) -> Option<Vec<usize>> {
    let ranges = text.trim().split(',').filter(|range| !range.is_empty()).map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    });
    Some(ranges.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
}

/// The peak memory of this process, if Linux reports it.
pub fn peak_memory_bytes() -> Option<u64> {
    status_bytes("VmHWM")
}

/// The memory of this process now, if Linux reports it.
pub fn resident_memory_bytes() -> Option<u64> {
    status_bytes("VmRSS")
}

/// The memory that this process can still get, if Linux reports it: what is free or cached, swap,
/// or a limit of its container or of `ulimit -v`, whichever is least.
pub fn free_memory_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let free = kib_of(&text, "MemAvailable")? + kib_of(&text, "SwapFree").unwrap_or(0);
    let container = std::fs::read_to_string("/sys/fs/cgroup/memory.max");
    let container = container.ok().and_then(|text| text.trim().parse().ok());
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let addresses = limits.lines().find_map(|line| line.strip_prefix("Max address space"));
    let addresses = addresses.and_then(|line| line.split_whitespace().next()?.parse().ok());
    [container, addresses].into_iter().flatten().chain([free * 1024]).min()
}

/// The number behind `key:` in a text of Linux.
fn kib_of(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.split_whitespace().next()?.parse().ok()
}

fn status_bytes(key: &str) -> Option<u64> {
    let kib: u64 = status_value(key)?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

/// What Linux says of this process under `key`.
fn status_value(key: &str) -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{free_memory_bytes, listed, memory_nodes, peak_memory_bytes};

    #[test]
    fn lists_of_processors_are_read_as_linux_writes_them() {
        assert_eq!(listed("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(listed("\n"), Some(vec![]));
        assert_eq!(listed("0-x"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_reports_memory_and_its_nodes() {
        assert!(peak_memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
        assert!(free_memory_bytes().is_some_and(|bytes| bytes > 1 << 20));
        // Some containers hide the nodes. Where they are shown, there is one.
        assert!(memory_nodes().is_none_or(|nodes| nodes > 0));
    }
}
