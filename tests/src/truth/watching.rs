//! `trueline-agent watch --json` as a process, and its changes folded over what was there when it began.
//!
//! Invariant: each change is taken only if it leads from what was told last to something else.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::disk::{self, Fields, Picture};
use crate::binaries::Program;
use crate::state::item;

/// For the first reading of a small folder.
const START: Duration = Duration::from_secs(60);
/// The one item that only [`Watching::settled`] writes.
const CANARY: &str = "canary";

#[derive(Debug)]
pub struct Watching {
    child: Child,
    lines: Receiver<String>,
    scope: PathBuf,
    held: Picture,
    /// Since they were last asked for, by item.
    told: BTreeMap<String, Vec<Value>>,
    changes: u64,
    gaps: u64,
    canaries: u64,
}

impl Watching {
    /// The folder must be at rest.
    pub fn start(scope: &Path) -> anyhow::Result<Self> {
        std::fs::write(scope.join(CANARY), "")?;
        let held = disk::read(scope)?;
        let mut command = Command::new(Program::Agent.path()?);
        command.args(["watch", "--json"]).arg(scope).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("starting the agent")?;
        let stdout = BufReader::new(child.stdout.take().context("standard output is piped")?);
        let stderr = BufReader::new(child.stderr.take().context("standard error is piped")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let (sender, said) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let watching = Self { child, lines, scope: scope.to_owned(), held, told: BTreeMap::new(), changes: 0, gaps: 0, canaries: 0 };
        let until = Instant::now() + START;
        loop {
            let line = said.recv_timeout(until.saturating_duration_since(Instant::now())).context("the agent does not watch")?;
            if line.contains("\"watching\"") {
                return Ok(watching);
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All changes told so far.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// All gaps told so far.
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    /// The changes of each item since this was last asked, but for those of the canary.
    pub fn take_told(&mut self) -> BTreeMap<String, Vec<Value>> {
        let mut told = std::mem::take(&mut self.told);
        told.remove(&item(&self.scope.join(CANARY)));
        told
    }

    /// Waits until what the agent told equals the disk, and still does once it has told of a write that came after all else.
    pub fn settled(&mut self, limit: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + limit;
        self.equal(until)?;
        self.canaries += 1;
        std::fs::write(self.scope.join(CANARY), self.canaries.to_string())?;
        self.equal(until)
    }

    fn equal(&mut self, until: Instant) -> anyhow::Result<()> {
        loop {
            while let Ok(line) = self.lines.try_recv() {
                self.fold(&line)?;
            }
            let disk = disk::read(&self.scope)?;
            if disk == self.held {
                return Ok(());
            }
            if Instant::now() > until {
                let differences = disk::differences(&self.held, &disk, 8);
                let told: Vec<&Value> = self.told.values().flatten().collect();
                let told: Vec<String> = told.iter().rev().take(6).map(|change| brief(change)).collect();
                bail!("the agent does not come to know:\n  {}\n  told last: {}", differences.join("\n  "), told.join("\n    "));
            }
            match self.lines.recv_timeout(Duration::from_millis(20)) {
                Ok(line) => self.fold(&line)?,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
                Err(error) => return Err(error).context("the agent has ended"),
            }
        }
    }

    fn fold(&mut self, line: &str) -> anyhow::Result<()> {
        let change: Value = serde_json::from_str(line).with_context(|| format!("the agent said: {line}"))?;
        if !change["gap"].is_null() {
            self.gaps += 1;
            return Ok(());
        }
        let item = change["item"].as_str().with_context(|| format!("no item: {line}"))?.to_owned();
        let kind = change["kind"].as_str().unwrap_or_default();
        let known = self.held.get(&item);
        ensure!((kind == "created") == known.is_none(), "`{kind}` does not follow from what was told of {item} before: {known:?}");
        let mut fields = known.cloned().unwrap_or_default();
        for field in change["fields"].as_array().into_iter().flatten() {
            let (name, before, after) = (field["name"].as_str().unwrap_or_default(), &field["before"], &field["after"]);
            ensure!(before != after, "{item}: {name} is told as a change and is none: {before}");
            let last = fields.get(name).unwrap_or(&Value::Null);
            ensure!(last == before, "{item}: {name} is told to have been {before}, and was told to be {last}");
            set(&mut fields, name, after);
        }
        if kind == "removed" {
            self.held.remove(&item);
        } else {
            ensure!(known != Some(&fields), "{item} is told once more, and nothing of it differs");
            self.held.insert(item.clone(), fields);
        }
        self.changes += 1;
        self.told.entry(item).or_default().push(change);
        Ok(())
    }
}

fn set(fields: &mut Fields, name: &str, value: &Value) {
    if value.is_null() {
        fields.remove(name);
    } else {
        fields.insert(name.to_owned(), value.clone());
    }
}

/// One change in one line.
pub fn brief(change: &Value) -> String {
    let fields = change["fields"].as_array().into_iter().flatten();
    let fields: Vec<String> = fields.map(|field| format!("{} {} -> {}", field["name"], field["before"], field["after"])).collect();
    format!("{} {} [{}] at {}", change["item"], change["kind"], fields.join(", "), change["observed_at"])
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.child.id() as i32), nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
