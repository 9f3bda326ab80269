//! Removes all of a run by its number alone: processes, mounts, loop devices, network, control groups, images.
//!
//! Invariant: what is there is found by its name, not by what a run remembers, and what is not there is no
//! error: it may be called at any moment of a run's life, and again.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::cgroup::Cgroup;
use crate::claim::{Claim, RunNumber};
use crate::network;

/// For killed processes to be gone, and the kernel to give back what they held.
const LIMIT: Duration = Duration::from_secs(20);

/// Every run whose process is gone. What could not be removed is an error, after all else was.
pub fn remove_abandoned() -> anyhow::Result<usize> {
    let mut removed = 0;
    let mut failed = None;
    for claim in Claim::abandoned()? {
        match remove(claim.number, claim.folder()?.as_deref()) {
            Ok(()) => {
                claim.forget()?;
                removed += 1;
            }
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(removed), Err)
}

/// Folders of runs whose numbers nobody knows any more, as after a restart of the machine, and what an earlier run left under the
/// number of `own`, which has made nothing yet.
pub fn remove_unclaimed(runs: &Path, own: RunNumber) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(runs).into_iter().flatten().flatten() {
        let Some(number) = entry.file_name().to_str().and_then(|name| RunNumber::parse(name).ok()) else { continue };
        if number == own || !number.is_known() {
            std::fs::remove_dir_all(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// `folder`: where the run keeps its images, if it came so far.
pub fn remove(run: RunNumber, folder: Option<&Path>) -> anyhow::Result<()> {
    let group = Cgroup::of_run(run)?;
    if group.exists() {
        group.kill()?;
        until("the run's processes to end", || !group.is_populated())?;
        // Mounts and loop devices were in the mount namespaces of these processes and go with them.
        until("the run's control groups to be empty", || group.remove().is_ok())?;
    }
    let prefix = network::prefix(run);
    let links = links()?;
    for link in links.iter().filter(|link| link.starts_with(&prefix) || **link == network::bridge(run)) {
        ip(&["link", "del", link])?;
    }
    for entry in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        if let Some(name) = entry.file_name().to_str().filter(|name| name.starts_with(&prefix)) {
            ip(&["netns", "del", name])?;
        }
    }
    let Some(folder) = folder.filter(|folder| folder.exists()) else { return Ok(()) };
    until("the run's loop devices to be free", || loop_devices(folder).is_empty())?;
    std::fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))
}

/// What of a run is on this machine, in words.
pub fn left_of(run: RunNumber, folder: &Path) -> anyhow::Result<Vec<String>> {
    let (prefix, bridge) = (network::prefix(run), network::bridge(run));
    let mut left: Vec<String> = links()?.into_iter().filter(|link| link.starts_with(&prefix) || *link == bridge).collect();
    let namespaces = std::fs::read_dir("/run/netns").into_iter().flatten().flatten().map(|entry| entry.path());
    left.extend(namespaces.map(|path| path.display().to_string()).filter(|path| path.contains(&prefix)));
    left.extend(loop_devices(folder));
    if Cgroup::of_run(run)?.exists() {
        left.push("its control group".to_owned());
    }
    if folder.exists() {
        left.push(folder.display().to_string());
    }
    Ok(left)
}

/// The backing files beneath this folder that are attached to a loop device.
pub fn loop_devices(folder: &Path) -> Vec<String> {
    let devices = std::fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let backing = devices.filter_map(|device| std::fs::read_to_string(device.path().join("loop/backing_file")).ok());
    backing.map(|file| file.trim_end().to_owned()).filter(|file| Path::new(file).starts_with(folder)).collect()
}

fn links() -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir("/sys/class/net").context("listing network links")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(words).stdin(Stdio::null()).output().context("starting ip")?;
    if output.status.success() {
        return Ok(());
    }
    bail!("`ip {}`: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim())
}

fn until(what: &str, mut answer: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !answer() {
        if Instant::now() >= deadline {
            bail!("waited {} s in vain for {what}", LIMIT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
