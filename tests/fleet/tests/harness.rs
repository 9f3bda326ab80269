//! The test bed itself: hosts boot, take orders, break as they should, and nothing of them stays.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use trueline_fleet::claim::RunNumber;
use trueline_fleet::fleet::Fleet;
use trueline_fleet::host::Login;
use trueline_fleet::room::Shortage;
use trueline_fleet::root::{self, Root};
use trueline_fleet::story::story;
use trueline_fleet::{needs, teardown};
use trueline_tests::{process, wait};

const LIMIT: Duration = Duration::from_secs(300);

#[tokio::test]
async fn hosts_have_users_a_network_and_a_disk_of_their_own() -> anyhow::Result<()> {
    if !needs::hosts() {
        return Ok(());
    }
    story(&[Root::Plain, Root::Plain], async |fleet| {
        let (first, second) = tokio::try_join!(fleet.running("first", Root::Plain), fleet.running("second", Root::Plain))?;
        let said = first.ssh(Login::Alice, "hostname; sudo cat /proc/self/loginuid /proc/self/cgroup").await?;
        ensure!(said.starts_with("first\n1000") && said.contains("user-1000.slice"), "{said}");
        let identities = [first.read("/etc/machine-id").await?, second.read("/etc/machine-id").await?];
        ensure!(identities[0].len() == 33 && identities[0] != identities[1], "one machine-id for two hosts");
        first.write("/etc/only-here", "0600", "x").await?;
        ensure!(second.read("/etc/only-here").await.is_err(), "two hosts share a disk");
        // sshd of the one, from the other.
        let banner = format!("exec 3<>/dev/tcp/{}/22; head -1 <&3", first.address());
        let said = second.ssh(Login::Bob, &banner).await?;
        ensure!(said.starts_with("SSH-2.0"), "{said}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_host_can_be_cut_off_frozen_switched_off_and_set_back() -> anyhow::Result<()> {
    if !needs::hosts() {
        return Ok(());
    }
    story(&[Root::Plain, Root::Plain], async |fleet| {
        let mut host = fleet.running("victim", Root::Plain).await?;
        let reached =
            async || tokio::time::timeout(Duration::from_secs(2), host.ssh(Login::Alice, "true")).await.is_ok_and(|said| said.is_ok());
        host.cut_network().await?;
        ensure!(!reached().await, "reached without a network");
        host.root("true").await?;
        host.restore_network().await?;
        wait::until("the host to be reached again", LIMIT, async || Ok(reached().await.then_some(()))).await?;

        host.freeze().await?;
        ensure!(!reached().await, "reached while it stands still");
        host.thaw()?;
        wait::until("the host to be reached again", LIMIT, async || Ok(reached().await.then_some(()))).await?;

        // The journal's own commits must not come between: it writes every five seconds at most.
        host.root("echo synced > /root/synced; sync").await?;
        host.root("echo written > /root/not-synced").await?;
        host.cut_power().await?;
        host.boot().await?;
        ensure!(host.read("/root/synced").await? == b"synced\n", "what was synced did not outlive the power");
        ensure!(host.read("/root/not-synced").await.is_err(), "what was not synced outlived the power: nothing was cut");

        host.snapshot("before").await?;
        host.write("/root/after", "0600", "x").await?;
        host.reboot().await?;
        ensure!(host.read("/root/after").await? == b"x", "a reboot lost a file");
        host.set_back("before").await?;
        ensure!(host.read("/root/after").await.is_err(), "the older disk has the newer file");
        host.destroy().await
    })
    .await
}

#[tokio::test]
async fn a_run_that_the_disk_has_no_room_for_is_refused_before_anything_is_made() -> anyhow::Result<()> {
    if !needs::hosts() {
        return Ok(());
    }
    let refused = Fleet::create(&[Root::Plain; 200_000]).await.err().context("no disk has that much room")?;
    let shortage = refused.downcast_ref::<Shortage>().with_context(|| format!("refused for another reason: {refused:#}"))?;
    ensure!(shortage.needed > shortage.free && shortage.free > 0, "{shortage:?}");
    let said = shortage.to_string();
    for named in [shortage.folder.display().to_string(), shortage.needed.to_string(), shortage.free.to_string()] {
        ensure!(said.contains(&named), "`{named}` is not named: {said}");
    }
    Ok(())
}

/// `fleet up 1`, which has said that its host runs.
struct Up {
    child: Child,
    run: RunNumber,
    folder: PathBuf,
}

impl Up {
    async fn start() -> anyhow::Result<Self> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleet"));
        let mut child = command.args(["up", "1"]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let number = tokio::time::timeout(Duration::from_secs(900), async {
            while let Some(line) = lines.next_line().await? {
                if let Some(rest) = line.strip_prefix("run ") {
                    return RunNumber::parse(rest.split(':').next().unwrap_or_default());
                }
            }
            anyhow::bail!("`fleet up` ended")
        });
        let run = number.await.context("`fleet up` says nothing")??;
        let folder = root::folder()?.join("runs").join(run.to_string());
        let up = Self { child, run, folder };
        let left = up.left()?;
        // Bridge, the host's link and namespace, its disk, its processes, its folder.
        ensure!(left.len() >= 6, "a running host shows too little of itself: {left:?}");
        Ok(up)
    }

    fn left(&self) -> anyhow::Result<Vec<String>> {
        teardown::left_of(self.run, &self.folder)
    }

    async fn gone(&self) -> anyhow::Result<()> {
        let is_gone = async || Ok((!self.run.is_known() && self.left()?.is_empty()).then_some(()));
        wait::until("nothing of the run to be left", LIMIT, is_gone).await.with_context(|| format!("left: {:?}", self.left()))
    }

    fn keeper(&self) -> anyhow::Result<i32> {
        let of = process::children(self.child.id().context("it has ended")?);
        let is_keeper = |pid: &u32| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"keep"))
        };
        Ok(i32::try_from(of.into_iter().find(is_keeper).context("the run has no keeper")?)?)
    }
}

#[tokio::test]
async fn nothing_stays_of_a_run_that_was_killed() -> anyhow::Result<()> {
    if !needs::hosts() {
        return Ok(());
    }
    let mut up = Up::start().await?;
    up.child.kill().await?;
    up.gone().await?;

    // Its keeper with it: the next to come finds what is left.
    let mut up = Up::start().await?;
    kill(Pid::from_raw(up.keeper()?), Signal::SIGKILL)?;
    up.child.kill().await?;
    ensure!(!up.left()?.is_empty(), "who removed it?");
    story(&[], async |_| Ok(())).await?;
    up.gone().await
}

#[tokio::test]
async fn a_run_for_people_ends_when_told() -> anyhow::Result<()> {
    if !needs::hosts() {
        return Ok(());
    }
    let up = Up::start().await?;
    let fleet = |words: &[&str]| Command::new(env!("CARGO_BIN_EXE_fleet")).args(words).stdin(Stdio::null()).kill_on_drop(true).output();
    let run = up.run.to_string();
    let said = tokio::time::timeout(LIMIT, fleet(&["ssh", "--run", &run, "alice@host-1", "id -un"])).await??;
    ensure!(said.stdout == b"alice\n", "{}", String::from_utf8_lossy(&said.stderr));
    let said = tokio::time::timeout(LIMIT, fleet(&["down", &run])).await??;
    ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    up.gone().await
}
