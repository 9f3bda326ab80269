//! What README and docs/ tell people to type: every command is one that the programs know, and the
//! steps of enrolling a host, done as they are written, end with a host that is enrolled.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use trueline_tests::binaries::Program;
use trueline_tests::docs::{blocks, commands, read, repository};
use trueline_tests::{needs, wait};

const LIMIT: Duration = Duration::from_secs(60);

fn programs() -> anyhow::Result<PathBuf> {
    Ok(Program::Agent.path()?.parent().unwrap().to_owned())
}

/// A shell in this folder, with the programs on its path.
fn shell(folder: &Path, script: &str) -> anyhow::Result<Command> {
    let path = format!("{}:{}", programs()?.display(), std::env::var("PATH")?);
    let mut command = Command::new("bash");
    command.args(["-euc", script]).current_dir(folder).env("PATH", path).stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

#[tokio::test]
async fn every_command_in_the_docs_is_known_to_the_programs() -> anyhow::Result<()> {
    if !needs::daemons() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut pages = vec![PathBuf::from("README.md")];
    for page in std::fs::read_dir(repository().join("docs"))? {
        pages.push(Path::new("docs").join(page?.file_name()));
    }
    let mut count = 0;
    for page in pages {
        let name = page.display().to_string();
        for command in commands(&read(&name)?) {
            count += 1;
            // Everything before `--help` is parsed; nothing is done.
            let (command, rest) = command.split_at(command.find(['>', '|', ';']).unwrap_or(command.len()));
            let output = shell(folder.path(), &format!("JOIN=x CA=x; {command} --help"))?.output().await?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{name}: `{command}{rest}` is not a command: {said}");
        }
    }
    ensure!(count > 30, "only {count} commands were found in the docs: are they still written as they were?");
    Ok(())
}

async fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port())
}

#[tokio::test]
async fn a_host_is_enrolled_and_held_against_a_baseline_as_the_docs_say() -> anyhow::Result<()> {
    if !needs::daemons() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut page = read("docs/enrol-a-host.md")?;
    let mut rest = 0;
    for port in ["29440", "29441", "28089"] {
        rest = free_port().await?;
        page = page.replace(port, &rest.to_string());
    }
    let [serve] = &blocks(&page, "## Terminal 1")?[..] else { anyhow::bail!("one block is expected for terminal 1") };
    let mut collector = shell(folder.path(), &format!("exec {}", serve.text))?.stderr(Stdio::null()).stdout(Stdio::null()).spawn()?;
    wait::until("the collector to listen", LIMIT, async || Ok(TcpStream::connect(("127.0.0.1", rest)).await.ok())).await?;

    let baselines = read("docs/baselines.md")?;
    let written = blocks(&baselines, "## Write")?;
    let [document, apply] = &written[..] else { anyhow::bail!("two blocks are expected for writing a baseline") };
    std::fs::write(folder.path().join("web.yaml"), document.text)?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned();
    let steps = [
        // Whatever step fails, no agent stays, which would also hold the outputs open. Without job control all are one group,
        // which `timeout` ends as a whole.
        "trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT".to_owned(),
        blocks(&page, "## Terminal 2")?.iter().map(|block| block.text).collect(),
        apply.text.replace("HOST", &host),
        "trueline hosts show ".to_owned() + &host,
        "kill %1; wait".to_owned(),
    ];
    std::fs::write(folder.path().join("steps"), steps.join("\n"))?;
    // It is told to end before the deadline below, so that the failing step's own words are had.
    let output = shell(folder.path(), "exec timeout --kill-after=5 50 bash -eu steps")?.output();
    let output = tokio::time::timeout(LIMIT, output).await.context("the steps did not end")??;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    collector.kill().await?;
    ensure!(output.status.success(), "a step failed:\n{said}");
    for expected in ["enrolled as ", &host, "web v1"] {
        ensure!(said.contains(expected), "`{expected}` is missing from what the steps print:\n{said}");
    }
    Ok(())
}
