//! The share of the processor that systemd would give a daemon: what its unit says, as a control group of this machine, of version
//! 1 or 2. A figure of what a daemon costs its host is one of the daemon as it runs there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// Of `cpu.shares` where `cpu.weight` is 100 (systemd.resource-control(5)).
const SHARES: u64 = 1024;
const PERIOD_US: u64 = 100_000;

/// A control group with what a unit says of the processor; gone when it is dropped, once it is empty.
#[derive(Debug)]
pub struct ProcessorShare {
    group: PathBuf,
    /// As it stands in the unit.
    pub weight: u64,
    pub quota_percent: u64,
}

impl ProcessorShare {
    /// `unit` is the text of a unit with `CPUWeight=` and `CPUQuota=`.
    pub fn of_unit(unit: &str, name: &str) -> anyhow::Result<Self> {
        let setting = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("the unit has no {key}"));
        let weight: u64 = setting("CPUWeight=")?.parse()?;
        let quota_percent: u64 = setting("CPUQuota=")?.trim_end_matches('%').parse()?;
        let quota_us = quota_percent * PERIOD_US / 100;
        let first = Path::new("/sys/fs/cgroup/cpu");
        if first.join("cpu.shares").exists() {
            let share = Self { group: first.join(name), weight, quota_percent };
            share.make()?;
            share.set("cpu.shares", weight * SHARES / 100)?;
            share.set("cpu.cfs_period_us", PERIOD_US)?;
            share.set("cpu.cfs_quota_us", quota_us)?;
            // Version 2, which is what systemd uses, leaves real-time threads alone.
            if share.group.join("cpu.rt_runtime_us").exists() {
                share.set("cpu.rt_runtime_us", 900_000)?;
            }
            return Ok(share);
        }
        let second = Path::new("/sys/fs/cgroup");
        ensure!(second.join("cgroup.controllers").exists(), "no control group of the processor is mounted under {}", second.display());
        fs::write(second.join("cgroup.subtree_control"), "+cpu").context("handing the processor to control groups")?;
        let share = Self { group: second.join(name), weight, quota_percent };
        share.make()?;
        share.set("cpu.weight", weight)?;
        share.set("cpu.max", format!("{quota_us} {PERIOD_US}"))?;
        Ok(share)
    }

    /// Moves a process into it, with all its threads.
    pub fn take(&self, pid: u32) -> anyhow::Result<()> {
        self.set("cgroup.procs", pid)
    }

    fn make(&self) -> anyhow::Result<()> {
        match fs::create_dir(&self.group) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(error).with_context(|| format!("making {}", self.group.display()))
            }
            _ => Ok(()),
        }
    }

    fn set(&self, file: &str, value: impl std::fmt::Display) -> anyhow::Result<()> {
        let path = self.group.join(file);
        fs::write(&path, value.to_string()).with_context(|| format!("writing {value} to {}", path.display()))
    }
}

impl Drop for ProcessorShare {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.group);
    }
}
