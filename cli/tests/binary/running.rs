//! A quickstart as a process of its own, told apart from others by its folder.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Nothing here takes so long; a test that waits for it has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than any `--wait` of a test.
const END: Duration = Duration::from_secs(320);

pub struct Quickstart {
    child: Child,
    lines: Receiver<Value>,
    seen: Vec<Value>,
    pub folder: PathBuf,
}

/// A folder for a quickstart and another for it to watch.
pub fn places(home: &Path) -> (PathBuf, PathBuf) {
    let watched = home.join("watched");
    std::fs::create_dir_all(&watched).unwrap();
    (home.join("kept"), watched)
}

pub fn trueline() -> Command {
    with_environment(Command::new(env!("CARGO_BIN_EXE_trueline")))
}

fn with_environment(mut command: Command) -> Command {
    command.env_remove("TRUELINE_CONTEXT").env_remove("NO_COLOR").env_remove("TRUELINE_LOG").stdin(Stdio::null());
    command
}

/// All that a program says until it ends.
pub fn output(command: &mut Command) -> Output {
    ended(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

/// The same of one that was started with pipes; nothing of a stream that has none.
pub fn ended(mut child: Child) -> Output {
    let (stdout, stderr) = (child.stdout.take().map(reading), child.stderr.take().map(reading));
    let status = wait(&mut child, END);
    let all = |reading: Option<JoinHandle<_>>| reading.map_or_else(Vec::new, |reading| reading.join().unwrap());
    Output { status, stdout: all(stdout), stderr: all(stderr) }
}

fn reading(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        from.read_to_end(&mut all).unwrap();
        all
    })
}

/// How it ends by itself; one that does not is killed, and the test fails.
fn wait(child: &mut Child, patience: Duration) -> ExitStatus {
    let until = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() >= until {
            let _ = child.kill();
            let _ = child.wait();
            panic!("it did not end within {} s", patience.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Quickstart {
    pub fn start(folder: &Path, watched: &Path) -> Self {
        // What it makes is private even to a user whose files are not.
        let mut child = with_environment(Command::new("sh"))
            .args(["-c", "umask 000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_trueline")])
            .args(["quickstart", "--output", "json", "--dir"])
            .arg(folder)
            .arg("--watch")
            .arg(watched)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("not a JSON line ({error}): {line}"));
                if sender.send(value).is_err() {
                    break;
                }
            }
        });
        Self { child, lines, seen: Vec::new(), folder: folder.to_owned() }
    }

    /// The first line, of those to come, that fits.
    pub fn wait_for(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if fits(&line) {
                        return line;
                    }
                }
                Err(error) => {
                    let _ = self.child.kill();
                    let mut errors = String::new();
                    if let Some(mut stderr) = self.child.stderr.take() {
                        let _ = stderr.read_to_string(&mut errors);
                    }
                    let log = std::fs::read_to_string(self.folder.join("quickstart.log")).unwrap_or_default();
                    panic!("no line for {what} ({error}); seen: {:#?}\nstderr: {errors}\nlog: {log}", self.seen);
                }
            }
        }
    }

    pub fn wait_for_phase(&mut self, phase: &str) -> Value {
        self.wait_for(phase, |line| line["quickstart"]["phase"] == phase)["quickstart"].clone()
    }

    pub fn seen_phase(&self, phase: &str) -> bool {
        self.seen.iter().any(|line| line["quickstart"]["phase"] == phase)
    }

    pub fn stop(&mut self, signal: &str) -> ExitStatus {
        let sent = Command::new("kill").args([format!("-{signal}"), self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        wait(&mut self.child, PATIENCE)
    }

    /// `trueline` beside this quickstart.
    pub fn ask(&self, words: &[&str]) -> Output {
        output(trueline().env("TRUELINE_CONTEXT", self.folder.join("context.toml")).args(words))
    }

    pub fn ask_json(&self, words: &[&str]) -> Value {
        let output = self.ask(&[words, &["--output", "json"]].concat());
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asserts that nobody but their owner may even look at a folder and all beneath it, but for what is named.
pub fn assert_private(folder: &Path, but: &[&str]) {
    let mut paths = vec![folder.to_owned()];
    while let Some(path) = paths.pop() {
        if but.iter().any(|but| path == folder.join(but)) {
            continue;
        }
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let wanted = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.permissions().mode() & 0o777, wanted, "{}", path.display());
        if metadata.is_dir() {
            paths.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

/// Standard output as text.
pub fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Standard error as text.
pub fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
