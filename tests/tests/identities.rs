//! What an agent is to its collector, and keeps for itself: enrolled anew it drops nothing in silence, and nobody
//! else can read what it holds.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;
use trueline_tests::agent::{Agent, Watch};
use trueline_tests::binaries::Program;
use trueline_tests::collector::{Collector, Setting};
use trueline_tests::daemon::write;
use trueline_tests::database::{Database, Engine};
use trueline_tests::state::{equals_disk, gaps};
use trueline_tests::{needs, wait};

const LIMIT: Duration = Duration::from_secs(120);

/// Every file and folder beneath `folder`, itself included, with its permissions.
fn modes(folder: &Path, found: &mut Vec<(String, bool, u32)>) -> anyhow::Result<()> {
    let metadata = folder.symlink_metadata()?;
    found.push((folder.display().to_string(), metadata.is_dir(), metadata.permissions().mode() & 0o7777));
    if metadata.is_dir() {
        for entry in std::fs::read_dir(folder)? {
            modes(&entry?.path(), found)?;
        }
    }
    Ok(())
}

fn bytes_beneath(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_beneath(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[tokio::test]
async fn a_host_enrolled_anew_drops_its_records_only_when_told_to_and_counts_them() -> anyhow::Result<()> {
    if !needs::daemons() || !needs::fanotify() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let place = folder.path().canonicalize()?;
    let (watched, data_dir) = (place.join("watched"), place.join("agent"));
    std::fs::create_dir(&watched)?;
    let database = Database::start(Engine::Sqlite, &place).await?;
    let mut collector = Collector::start(&database, Setting::default()).await?;
    let watch = Watch { data_dir: Some(data_dir.clone()), ..Watch::paths([&watched]) };
    let mut agent = Agent::start(&collector, &watch).await?;
    let first = agent.inventoried(&collector, LIMIT).await?;
    collector.stop().await?;
    let before = bytes_beneath(&data_dir.join("spool"));
    write(&watched.join("file.conf"), "nobody was told\n")?;
    let is_spooled = async || Ok((bytes_beneath(&data_dir.join("spool")) > before).then_some(()));
    wait::until("the change to be spooled", LIMIT, is_spooled).await?;
    agent.stop().await?;
    collector.restart().await?;

    let refused = agent.enrol_again(&collector, &[]).await.err().context("the unsent change was dropped without a word")?;
    let said = refused.to_string();
    ensure!(said.contains("have not reached the collector") && said.contains(&first) && said.contains("--force"), "it says: {said}");

    agent.enrol_again(&collector, &["--force"]).await?;
    ensure!(agent.host() != first, "the host is still {first}");
    agent.restart()?;
    agent.inventoried(&collector, LIMIT).await?;
    let gap = wait::until("a gap that counts what was dropped", LIMIT, async || {
        let gaps = gaps(&collector, agent.host(), "agent_down").await?;
        Ok(gaps.into_iter().find(|gap| gap["lost"].as_u64().is_some_and(|lost| lost > 0)))
    });
    let gap = gap.await.with_context(|| format!("the agent's log:\n{}", agent.log_tail()))?;
    ensure!(gap["scope"] == "*", "not all of the host is told to be in doubt: {gap}");
    equals_disk(&collector, &agent, &watched, LIMIT).await
}

/// Two real agents on one kernel, as in two containers made from one disk.
#[tokio::test]
async fn a_copied_disk_is_noticed_and_its_host_can_be_enrolled_anew() -> anyhow::Result<()> {
    const SAID: &str = "another machine speaks as this host";
    if !needs::daemons() || !needs::fanotify() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let place = folder.path().canonicalize()?;
    let (watched, data_dir, copy) = (place.join("watched"), place.join("agent"), place.join("copy"));
    std::fs::create_dir(&watched)?;
    let database = Database::start(Engine::Sqlite, &place).await?;
    let collector = Collector::start(&database, Setting::default()).await?;
    let watch = Watch { data_dir: Some(data_dir.clone()), ..Watch::paths([&watched]) };
    let mut original = Agent::start(&collector, &watch).await?;
    let host = original.inventoried(&collector, LIMIT).await?;
    original.stop().await?;
    let copied = Command::new("cp").arg("-a").args([&data_dir, &copy]).status().await?;
    ensure!(copied.success(), "the data could not be copied");
    original.restart()?;
    let connected = async || Ok((original.shown(&collector).await?["state"] == "connected").then_some(()));
    wait::until("the original to be connected", LIMIT, connected).await?;
    let twin = original.of_copied_disk(&Watch { data_dir: Some(copy), ..watch })?;

    let is_twin = wait::until("one of the two to be told that there is another", LIMIT, async || {
        let told = [&original, &twin].map(|agent| agent.log().contains(SAID));
        Ok((told != [false, false]).then_some(told[1]))
    })
    .await?;
    let (stays, mut refused) = if is_twin { (original, twin) } else { (twin, original) };
    wait::until("the host to be shown in trouble", LIMIT, async || {
        let shown = stays.shown(&collector).await?;
        let troubles = shown["status"]["troubles"].as_array().into_iter().flatten().filter_map(|trouble| trouble.as_str());
        Ok(troubles.into_iter().any(|trouble| trouble.contains("another machine has this host's identity")).then_some(()))
    })
    .await?;
    write(&watched.join("file.conf"), "seen by the one that stays\n")?;
    equals_disk(&collector, &stays, &watched, LIMIT).await?;
    ensure!(!stays.log().contains(SAID), "both were turned away");
    let actions = collector.rest().all("/actions", &[]).await?;
    let noted =
        actions.iter().filter(|action| action["action"] == "host.duplicated" && action["subject"] == format!("host:{host}")).count();
    ensure!(noted == 1, "it was noted {noted} times");

    refused.stop().await?;
    refused.enrol_again(&collector, &["--force"]).await?;
    ensure!(refused.host() != host, "the host is still {host}");
    refused.restart()?;
    refused.inventoried(&collector, LIMIT).await?;
    write(&watched.join("file.conf"), "seen by both\n")?;
    for agent in [&stays, &refused] {
        equals_disk(&collector, agent, &watched, LIMIT).await?;
        ensure!(agent.shown(&collector).await?["state"] == "connected", "a host is not connected");
    }
    Ok(())
}

#[tokio::test]
async fn nobody_else_can_read_what_an_agent_keeps_whatever_its_umask() -> anyhow::Result<()> {
    if !needs::daemons() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let place = folder.path().canonicalize()?;
    let (watched, data_dir) = (place.join("watched"), place.join("agent"));
    std::fs::create_dir(&watched)?;
    let database = Database::start(Engine::Sqlite, &place).await?;
    let collector = Collector::start(&database, Setting::default()).await?;
    let config = place.join("agent.toml");
    write(&config, format!("data_dir = {data_dir:?}\nsensor = \"inotify\"\n[watch]\npaths = [{watched:?}]\nkinds = [\"file\"]\n"))?;
    // A umask that keeps nothing back.
    let agent = |arguments: &[&str]| -> anyhow::Result<Command> {
        let mut command = Command::new("sh");
        command.args(["-c", "umask 000; exec \"$@\"", "sh"]).arg(Program::Agent.path()?).args(arguments).arg("--config").arg(&config);
        command.stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    };
    let (enrolment, token) = (collector.enrolment().to_string(), collector.join_token(1).await?);
    let enrol = ["enroll", "--collector", &enrolment, "--token", &token, "--ca-sha256", collector.ca_sha256_hex()];
    let enrolled = agent(&enrol)?.output().await?;
    ensure!(enrolled.status.success(), "{}", String::from_utf8_lossy(&enrolled.stderr));
    let mut running = agent(&["run"])?.stderr(Stdio::null()).spawn()?;
    wait::until("the first inventory at the collector", LIMIT, async || {
        let hosts = collector.rest().all("/hosts", &[]).await?;
        Ok(hosts.iter().any(|host| host["inventory_completed_at"].is_string()).then_some(()))
    })
    .await?;
    let mut found = Vec::new();
    modes(&data_dir, &mut found)?;
    running.kill().await?;
    for name in ["spool", "state.redb", "identity", "alive", "belongs_to", "redaction.key"] {
        ensure!(found.iter().any(|(path, ..)| Path::new(path) == data_dir.join(name)), "{name} is missing: {found:?}");
    }
    for (path, is_folder, mode) in found {
        let expected = if is_folder { 0o700 } else { 0o600 };
        ensure!(mode == expected, "{path} has mode {mode:o} where {expected:o} is enough");
    }
    Ok(())
}
