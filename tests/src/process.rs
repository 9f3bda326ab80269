//! What the kernel says of a process: processor time and memory, from /proc (proc(5)).

use std::path::Path;

use anyhow::{Context, ensure};

/// Kernel clock ticks a second; 100 on every architecture Linux shows to user space.
const TICKS: f64 = 100.0;

/// Resident memory in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub resident: u64,
    /// Of it not backed by files.
    pub anonymous: u64,
    pub peak: u64,
    pub threads: u64,
}

pub fn memory(pid: u32) -> anyhow::Result<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("reading the status of process {pid}"))?;
    let number = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    Ok(Memory { resident: number("VmRSS:"), anonymous: number("RssAnon:"), peak: number("VmHWM:"), threads: number("Threads:") })
}

/// Seconds of processor time used by the process and the children it has waited for.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let fields = stat(pid)?;
    ensure!(fields.len() > 14, "/proc/{pid}/stat is short");
    // utime, stime, cutime, cstime: fields 14 to 17, counted from the state, which is the third.
    let ticks: u64 = fields[11..15].iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / TICKS)
}

/// Seconds used by the process alone, with the kernel's nanosecond account where it keeps one.
pub fn cpu_seconds_precise(pid: u32) -> anyhow::Result<f64> {
    let mut total = 0.0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("listing the threads of process {pid}"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        total += text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1e9;
    }
    Ok(total)
}

/// The same, for a process and all that descend from it now.
pub fn tree_cpu_seconds(root: u32) -> anyhow::Result<f64> {
    let mut total = cpu_seconds(root)?;
    for child in children(root) {
        // A child may end between the listing and the reading.
        total += tree_cpu_seconds(child).unwrap_or(0.0);
    }
    Ok(total)
}

/// Bytes that the process has asked the kernel for, from a disk or a cache.
pub fn bytes_read(pid: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).with_context(|| format!("reading the account of process {pid}"))?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse().ok());
    bytes.with_context(|| format!("/proc/{pid}/io tells of no bytes"))
}

pub fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// The fields of /proc/PID/stat from the state on: the name before them may hold spaces and brackets.
fn stat(pid: u32) -> anyhow::Result<Vec<String>> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(Path::new(&path)).with_context(|| format!("reading {path}"))?;
    let (_, rest) = text.rsplit_once(") ").with_context(|| format!("{path} has no command"))?;
    Ok(rest.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        let me = std::process::id();
        assert!(memory(me).unwrap().resident > 0);
        assert!(cpu_seconds(me).unwrap() >= 0.0 && tree_cpu_seconds(me).unwrap() >= 0.0);
    }
}
