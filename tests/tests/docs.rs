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
use trueline_tests::{needs, wait};

const LIMIT: Duration = Duration::from_secs(60);

const PROGRAMS: [&str; 3] = ["trueline-agent ", "trueline-collector ", "trueline "];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(name: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(repository().join(name)).with_context(|| format!("reading {name}"))
}

/// The texts between fences beneath a heading, or of the whole page.
fn blocks<'a>(page: &'a str, heading: Option<&str>) -> Vec<&'a str> {
    let part = match heading {
        Some(heading) => page.split_once(heading).unwrap().1.split("\n## ").next().unwrap(),
        None => page,
    };
    part.split("```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap().1).collect()
}

/// The lines that a person would type, those that go on after a backslash as one.
fn commands(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    for block in blocks(page, None) {
        for line in block.replace("\\\n", " ").lines() {
            let line = line.strip_prefix("$ ").unwrap_or(line);
            let command = line.split_once("=$(").map_or(line, |(_, inner)| inner.trim_end_matches(')'));
            if PROGRAMS.iter().any(|program| command.starts_with(program)) {
                found.push(command.split('#').next().unwrap().trim().trim_end_matches('&').to_owned());
            }
        }
    }
    let prose: String = page.split("```").step_by(2).collect();
    for span in prose.split('`').skip(1).step_by(2) {
        if PROGRAMS.iter().any(|program| span.starts_with(program)) {
            found.push(span.replace('\n', " ").replace(" ID", " 1"));
        }
    }
    found
}

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
    for port in ["29440", "29441", "29089"] {
        rest = free_port().await?;
        page = page.replace(port, &rest.to_string());
    }
    let [serve] = &blocks(&page, Some("## Terminal 1"))[..] else { anyhow::bail!("one block is expected for terminal 1") };
    let mut collector = shell(folder.path(), &format!("exec {serve}"))?.stderr(Stdio::null()).stdout(Stdio::null()).spawn()?;
    wait::until("the collector to listen", LIMIT, async || Ok(TcpStream::connect(("127.0.0.1", rest)).await.ok())).await?;

    let baselines = read("docs/baselines.md")?;
    let written = blocks(&baselines, Some("## Write"));
    let [document, apply] = &written[..] else { anyhow::bail!("two blocks are expected for writing a baseline") };
    std::fs::write(folder.path().join("web.yaml"), document)?;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned();
    let steps = [
        // Job control, for `kill %1`.
        "set -m".to_owned(),
        blocks(&page, Some("## Terminal 2")).concat(),
        apply.replace("HOST", &host),
        "trueline hosts show ".to_owned() + &host,
        "kill %1; wait".to_owned(),
    ];
    let output = shell(folder.path(), &steps.join("\n"))?.output();
    let output = tokio::time::timeout(LIMIT, output).await.context("the steps did not end")??;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    collector.kill().await?;
    ensure!(output.status.success(), "a step failed:\n{said}");
    for expected in ["enrolled as ", &host, "web v1"] {
        ensure!(said.contains(expected), "`{expected}` is missing from what the steps print:\n{said}");
    }
    Ok(())
}
