//! What the host says of itself: name, system, kernel, size. Read at each connection.

use sysinfo::System;
use trueline_drift::{BootId, Facts, text};

/// Longest fact, in bytes; the collector refuses a host that tells a much longer one.
const LIMIT: usize = 200;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Which life of the host this is; `None` without procfs.
pub fn boot_id() -> Option<BootId> {
    std::fs::read_to_string(BOOT_ID).ok()?.trim().parse().ok()
}

/// Reads the facts; what cannot be read is absent.
pub fn read() -> Facts {
    let line = |path: &str| {
        let bytes = std::fs::read(path).ok()?;
        told(bytes.trim_ascii())
    };
    let known = |fact: Option<String>| fact.and_then(|fact| told(fact.as_bytes()));
    let mut system = System::new();
    system.refresh_memory();
    Facts {
        hostname: line("/proc/sys/kernel/hostname").unwrap_or_else(|| "localhost".to_owned()),
        os: known(System::long_os_version()),
        kernel: known(System::kernel_version()),
        architecture: Some(std::env::consts::ARCH.to_owned()),
        machine_id: line("/etc/machine-id"),
        boot_id: line(BOOT_ID),
        cpus: std::thread::available_parallelism().ok().and_then(|cpus| u32::try_from(cpus.get()).ok()),
        memory_bytes: Some(system.total_memory()),
        labels: std::collections::BTreeMap::new(),
    }
}

fn told(bytes: &[u8]) -> Option<String> {
    let text = text::printable(bytes);
    (!text.is_empty()).then(|| text::bounded(&text, LIMIT).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than 256 bytes of a fact and the collector would refuse the host.
    #[test]
    fn no_fact_is_longer_than_the_collector_takes() {
        let long = told(&[0xff; 100_000]).unwrap();
        assert!(long.starts_with("\\xff") && long.len() <= 256, "{}", long.len());
        assert_eq!((told(b"Debian\n"), told(b"")), (Some("Debian\\x0a".to_owned()), None));
        let facts = read();
        assert!([facts.os, facts.kernel].iter().flatten().all(|fact| fact.len() <= 256));
    }
}
