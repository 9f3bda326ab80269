//! What a real agent tells, folded together change by change.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::picture::{self, COMPARED, Picture};

const AGENT: &str = env!("CARGO_BIN_EXE_trueline-agent");
const PATIENCE: Duration = Duration::from_secs(60);
/// For the agent to have told of what is quiet; far beyond what it waits by itself.
const QUIET: Duration = Duration::from_secs(20);
const RECENT: usize = 40;

pub struct Told {
    agent: Child,
    lines: Receiver<String>,
    items: Picture,
    changes: usize,
    recent: VecDeque<String>,
    /// What was told that cannot be.
    wrong: Vec<String>,
}

impl Told {
    /// By an agent that watches this folder, in which it finds what is there now.
    pub fn of(folder: &Path) -> Self {
        let mut command = Command::new(AGENT);
        command.args(["watch", "--json"]).arg(folder);
        let mut agent = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(agent.stdout.take().unwrap()).lines();
        std::thread::spawn(move || output.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let (ready, watching) = channel();
        let errors = BufReader::new(agent.stderr.take().unwrap()).lines();
        std::thread::spawn(move || errors.map_while(Result::ok).for_each(|line| drop(ready.send(line))));
        let mut items = Picture::new();
        picture::read(folder, &mut items);
        loop {
            let line = watching.recv_timeout(PATIENCE).expect("it says that it watches");
            if line.contains("\"watching\"") {
                break;
            }
        }
        Self { agent, lines, items, changes: 0, recent: VecDeque::new(), wrong: Vec::new() }
    }

    pub fn changes(&self) -> usize {
        self.changes
    }

    /// Waits until what was told equals the disk, and says what differs where it never does.
    pub fn agrees(&mut self, folder: &Path) -> Result<(), String> {
        let mut disk = Picture::new();
        picture::read(folder, &mut disk);
        let until = Instant::now() + QUIET;
        while self.items != disk {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.take(&line),
                Err(RecvTimeoutError::Disconnected) => return Err("the agent has ended".to_owned()),
                Err(RecvTimeoutError::Timeout) => {
                    let differs = self.differences(&disk);
                    let recent = self.recent.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
                    // What it believes is no matter any more to the next sequence.
                    self.items = disk;
                    return Err(format!("{differs}\ntold last:\n{recent}"));
                }
            }
        }
        match std::mem::take(&mut self.wrong) {
            wrong if wrong.is_empty() => Ok(()),
            wrong => {
                Err(format!("{}\ntold last:\n{}", wrong.join("\n"), self.recent.iter().map(String::as_str).collect::<Vec<_>>().join("\n")))
            }
        }
    }

    fn take(&mut self, line: &str) {
        let told: Value = serde_json::from_str(line).unwrap();
        if told["gap"].is_object() {
            return;
        }
        self.changes += 1;
        let item = told["item"].as_str().unwrap().to_owned();
        let shown = |side: &str| -> BTreeMap<String, String> {
            let fields = told["fields"].as_array().into_iter().flatten();
            let named = fields.filter_map(|field| Some((field["name"].as_str()?.to_owned(), text(&field[side])?)));
            named.filter(|(name, _)| COMPARED.contains(&name.as_str())).collect()
        };
        let (before, after) = (shown("before"), shown("after"));
        let short = item.rsplit('/').take(4).collect::<Vec<_>>();
        let short = short.into_iter().rev().collect::<Vec<_>>().join("/");
        self.recent.push_back(format!("  {short} {} {before:?} -> {after:?}", told["kind"]));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        let is_nothing = told["fields"].as_array().is_none_or(Vec::is_empty);
        let known = self.items.get(&item);
        let fits = match told["kind"].as_str() {
            Some("created") => known.is_none(),
            Some("removed" | "modified") => known
                .is_some_and(|known| before.iter().all(|(name, value)| known.get(name) == Some(value) || value.starts_with("unreadable"))),
            _ => false,
        };
        if is_nothing || !fits {
            self.wrong.push(format!("{short} was told as {} with {before:?}, and was known as {known:?}", told["kind"]));
        }
        if told["kind"] == "removed" {
            self.items.remove(&item);
            return;
        }
        let known = self.items.entry(item).or_default();
        before.keys().for_each(|name| drop(known.remove(name)));
        known.extend(after);
    }

    fn differences(&self, disk: &Picture) -> String {
        let mut differs = Vec::new();
        for item in self.items.keys().chain(disk.keys().filter(|item| !self.items.contains_key(*item))) {
            let (told, is) = (self.items.get(item), disk.get(item));
            if told != is {
                differs.push(format!("{item}\n  told    {told:?}\n  on disk {is:?}"));
            }
        }
        differs.truncate(6);
        differs.join("\n")
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Object(object) => Some(format!("unreadable: {}", object.get("unreadable")?)),
        other => Some(other.to_string()),
    }
}
