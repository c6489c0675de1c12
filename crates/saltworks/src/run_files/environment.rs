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
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = |path: String| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = limit_files(&groups).into_iter().filter_map(limit).min();
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let addresses = limits.lines().find_map(|line| line.strip_prefix("Max address space"));
    let addresses = addresses.and_then(|line| line.split_whitespace().next()?.parse().ok());
    [group, addresses].into_iter().flatten().chain([free * 1024]).min()
}

/// The files that may state the memory limits of a process, by its `/proc/self/cgroup`: those of
/// its groups, and of the groups around them (Linux, admin-guide/cgroup-v2 and cgroup-v1/memory).
fn limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let Some((controllers, path)) =
            line.split_once(':').and_then(|(_, rest)| rest.split_once(':'))
        else {
            continue;
        };
        let (folder, name) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|controller| controller == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let around = std::path::Path::new(path).ancestors();
        let around = around.map(|group| group.display().to_string());
        files.extend(around.map(|group| format!("{folder}{}/{name}", group.trim_end_matches('/'))));
    }
    files
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
    use super::{free_memory_bytes, limit_files, listed, memory_nodes, peak_memory_bytes};

    #[test]
    fn lists_of_processors_are_read_as_linux_writes_them() {
        assert_eq!(listed("0-2,5\n"), Some(vec![0, 1, 2, 5]));
        assert_eq!(listed("\n"), Some(vec![]));
        assert_eq!(listed("0-x"), None);
    }

    #[test]
    fn the_limits_of_all_groups_around_a_process_count() {
        let files = limit_files("0::/system.slice/a.service\n");
        let group = |path: &str| format!("/sys/fs/cgroup{path}/memory.max");
        assert_eq!(files, ["/system.slice/a.service", "/system.slice", ""].map(group));
        let files = limit_files("8:pids:/x\n7:cpu,memory:/job\n");
        let group = |path: &str| format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes");
        assert_eq!(files, ["/job", ""].map(group));
        assert!(limit_files("nonsense\n").is_empty());
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
