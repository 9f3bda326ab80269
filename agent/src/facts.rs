//! What the host says of itself: name, system, kernel, size. Read at each connection.

use sysinfo::System;
use trueline_drift::{Facts, text};

/// Reads the facts; what cannot be read is absent.
pub fn read() -> Facts {
    let line = |path: &str| {
        let bytes = std::fs::read(path).ok()?;
        let line = text::printable(bytes.trim_ascii()).into_owned();
        (!line.is_empty()).then(|| text::bounded(&line, 200).into_owned())
    };
    let mut system = System::new();
    system.refresh_memory();
    Facts {
        hostname: line("/proc/sys/kernel/hostname").unwrap_or_else(|| "localhost".to_owned()),
        os: System::long_os_version(),
        kernel: System::kernel_version(),
        architecture: Some(std::env::consts::ARCH.to_owned()),
        machine_id: line("/etc/machine-id"),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        cpus: std::thread::available_parallelism().ok().and_then(|cpus| u32::try_from(cpus.get()).ok()),
        memory_bytes: Some(system.total_memory()),
        labels: std::collections::BTreeMap::new(),
    }
}
