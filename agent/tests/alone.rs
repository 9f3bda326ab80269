//! The agent without a collector, as a process: `scan`, `watch`, and what a mistake says.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const AGENT: &str = env!("CARGO_BIN_EXE_trueline-agent");
/// Ends a test that would hang; nothing is measured.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running agent, killed when dropped.
struct Agent(Child);

impl Agent {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// How it ends by itself.
    fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the agent did not end by itself");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until it watches; what it said of that.
    fn watching(&mut self) -> String {
        let lines = BufReader::new(self.0.stderr.take().unwrap()).lines();
        let (sender, said) = channel();
        // It reads to the end: the agent must not find its standard error closed.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let until = Instant::now() + PATIENCE;
        loop {
            let line = said.recv_timeout(until.saturating_duration_since(Instant::now())).expect("it says that it watches");
            if line.contains("\"watching\"") {
                return line;
            }
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn agent<const N: usize>(words: [&str; N], path: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(AGENT);
    command.args(words).arg(path);
    command
}

/// All that it says until it ends by itself.
fn run(mut command: Command) -> Output {
    let mut agent = Agent::start(&mut command);
    let (stdout, stderr) = (reading(agent.0.stdout.take().unwrap()), reading(agent.0.stderr.take().unwrap()));
    let status = agent.ended();
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

fn reading(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        from.read_to_end(&mut all).unwrap();
        all
    })
}

/// The first line, and with it the rest of the standard output.
fn first_line(stdout: ChildStdout) -> Receiver<(String, BufReader<ChildStdout>)> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let (mut line, mut stdout) = (String::new(), BufReader::new(stdout));
        if stdout.read_line(&mut line).is_ok() {
            let _ = sender.send((line, stdout));
        }
    });
    receiver
}

#[test]
fn scan_prints_one_line_of_json_for_each_item_and_a_summary() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "hello").unwrap();
    std::os::unix::fs::symlink("a", folder.path().join("b")).unwrap();
    let output = run(agent(["scan", "--json"], folder.path()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<serde_json::Value> = output.stdout.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    let field = |name: &str, field: &str| {
        let found = lines.iter().find(|line| line["item"].as_str().is_some_and(|item| item.ends_with(name)));
        found.unwrap_or_else(|| panic!("{name} is missing"))["fields"][field].clone()
    };
    // sha256 of "hello"
    assert_eq!(field("/a", "sha256"), "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    assert_eq!(field("/b", "link_target"), "a");
    assert_eq!(lines.last().unwrap()["summary"]["items"]["file"], 3);
}

#[test]
fn scan_and_watch_heed_the_configured_watch_list() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().canonicalize().unwrap();
    for name in ["watched", "other"] {
        std::fs::create_dir(place.join(name)).unwrap();
        std::fs::write(place.join(name).join("file.conf"), "one").unwrap();
    }
    std::fs::write(place.join("watched/left.out"), "").unwrap();
    let config = place.join("agent.toml");
    let watched = place.join("watched");
    std::fs::write(&config, format!("[watch]\npaths = [{watched:?}]\nexclude = ['/**/*.out']\nkinds = ['file']\n")).unwrap();
    let output = run(agent(["scan", "--config"], &config));
    let (text, summary) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let items: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    let expected = [watched.clone(), watched.join("file.conf")].map(|path| format!("file:{}", path.display()));
    assert_eq!(items, expected);
    assert!(summary.starts_with("2 files in "), "{summary}");

    let watching = Agent::start(&mut agent(["watch", "--json", "--config"], &config)).watching();
    assert!(watching.contains("\"items\":2"), "{watching}");
}

#[test]
fn watch_reports_a_change_as_json_and_ends_when_nobody_reads() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("watched.conf");
    std::fs::write(&file, "one").unwrap();
    let mut agent = Agent::start(&mut agent(["watch", "--json"], folder.path()));
    agent.watching();
    std::fs::write(&file, "two!").unwrap();
    let (change, stdout) = first_line(agent.0.stdout.take().unwrap()).recv_timeout(PATIENCE).expect("a change");
    let change: serde_json::Value = serde_json::from_str(&change).unwrap();
    assert!(change["item"].as_str().unwrap().ends_with("/watched.conf"), "{change}");
    let size = change["fields"].as_array().unwrap().iter().find(|field| field["name"] == "size").unwrap();
    assert_eq!((size["before"].as_i64(), size["after"].as_i64()), (Some(3), Some(4)));
    drop(stdout);
    // Its next report finds nobody.
    std::fs::write(&file, "three").unwrap();
    agent.ended();
}

#[test]
fn a_host_that_is_not_enrolled_is_told_how_to() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(agent(["run", "--data-dir"], folder.path()));
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("trueline-agent enroll --collector"));
}

#[test]
fn watch_refuses_a_path_that_is_not_there() {
    let output = run(agent(["watch"], "/nope/really"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("cannot watch `/nope/really`") && said.contains("No such file"), "{said}");
}

/// On whatever this machine has: each operation is tried under the sensor in use, and what came of it is what the agent tells of itself
/// (`told`): neither more nor less.
#[test]
fn check_coverage_tries_every_operation_and_finds_what_is_told_of_it_true() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(agent(["check-coverage", "--json", "--dir"], folder.path()));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the canary was left behind");
    let tiers: Vec<&str> = lines.iter().filter_map(|line| line["tier"].as_str()).collect();
    for tier in ["fanotify", "ebpf", "connector", "procfs", "audit", "inotify"] {
        assert_eq!(tiers.iter().filter(|told| **told == tier).count(), 1, "{tier} in {tiers:?}");
    }
    for tier in lines.iter().filter(|line| line["available"] == false) {
        assert!(tier["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{tier}");
    }
    let tried: Vec<&serde_json::Value> = lines.iter().filter(|line| line["case"].is_string()).collect();
    let best = (&tried[0]["sensor"], &tried[0]["feed"]);
    let of_best: Vec<_> = tried.iter().filter(|row| (&row["sensor"], &row["feed"]) == best).collect();
    let told: Vec<&serde_json::Value> = lines.iter().map(|line| &line["told"]).filter(|told| told.is_object()).collect();
    assert_eq!(told.len(), 14, "{text}");
    let mut seen = 0;
    for told in told {
        let rows: Vec<_> = of_best.iter().filter(|row| row["operation"] == told["operation"]).collect();
        assert!(!rows.is_empty(), "{told} was not tried");
        for row in rows {
            // A process that ends at once is known to eBPF alone.
            let may_be_less = row["case"] == "write, and end at once" && best.1 != "ebpf";
            match row["outcome"].as_str().unwrap() {
                "seen" => {
                    assert!(row["certainty"] == told["actor"] || may_be_less, "{row} is not what is told: {told}");
                    let right = if told["actor"] == "unknown" { "none" } else { "right" };
                    assert!(row["actor"] == right || may_be_less && row["actor"] == "none", "{row}");
                    seen += 1;
                }
                "untold" => assert!(told["actor"].is_null() && told["reason"].is_string(), "{row} is not what is told: {told}"),
                "not_tried" => {
                    let reason = row["reason"].as_str().unwrap();
                    assert!(std::env::var_os("TRUELINE_TEST_REQUIRE").is_none(), "it may not be skipped here: {row}");
                    // Straight to the descriptor, because the harness captures what is printed.
                    let _ = writeln!(std::io::stderr(), "skipped: check-coverage, {}: {reason}", row["case"]);
                }
                other => panic!("{other}: {row}"),
            }
        }
    }
    assert!(seen > of_best.len() / 2, "{text}");
    // Whatever feed told of the process, and however little it told: nobody else was named.
    assert!(tried.iter().all(|row| row["actor"] != "wrong"), "{text}");
    let text = String::from_utf8(run(agent(["check-coverage", "--dir"], folder.path())).stdout).unwrap();
    for part in [
        " create        create a file                   seen after ",
        "tier      procfs        available\n",
        "told      flags         no event (",
    ] {
        assert!(text.contains(part), "{text}");
    }
}
