//! The agent without a collector, as a process: `scan`, `watch`, and what a mistake says.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

const AGENT: &str = env!("CARGO_BIN_EXE_trueline-agent");

#[test]
fn scan_prints_one_line_of_json_for_each_item_and_a_summary() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), "hello").unwrap();
    std::os::unix::fs::symlink("a", folder.path().join("b")).unwrap();
    let output = Command::new(AGENT).args(["scan", "--json"]).arg(folder.path()).output().unwrap();
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
    let output = Command::new(AGENT).args(["scan", "--config"]).arg(&config).output().unwrap();
    let (text, summary) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let items: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    let expected = [watched.clone(), watched.join("file.conf")].map(|path| format!("file:{}", path.display()));
    assert_eq!(items, expected);
    assert!(summary.starts_with("2 files in "), "{summary}");

    let watch = ["watch", "--json", "--config"];
    let mut agent = Command::new(AGENT).args(watch).arg(&config).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let watching = BufReader::new(agent.stderr.take().unwrap()).lines().map_while(Result::ok).find(|line| line.contains("\"watching\""));
    assert!(watching.unwrap().contains("\"items\":2"));
    agent.kill().unwrap();
    agent.wait().unwrap();
}

#[test]
fn watch_reports_a_change_as_json_and_ends_when_nobody_reads() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("watched.conf");
    std::fs::write(&file, "one").unwrap();
    let mut agent =
        Command::new(AGENT).args(["watch", "--json"]).arg(folder.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let watching = BufReader::new(agent.stderr.take().unwrap()).lines().map_while(Result::ok).find(|line| line.contains("\"watching\""));
    assert!(watching.is_some(), "it never said that it watches");
    std::fs::write(&file, "two!").unwrap();
    let mut changes = BufReader::new(agent.stdout.take().unwrap()).lines();
    let change: serde_json::Value = serde_json::from_str(&changes.next().unwrap().unwrap()).unwrap();
    assert!(change["item"].as_str().unwrap().ends_with("/watched.conf"), "{change}");
    let size = change["fields"].as_array().unwrap().iter().find(|field| field["name"] == "size").unwrap();
    assert_eq!((size["before"].as_i64(), size["after"].as_i64()), (Some(3), Some(4)));
    drop(changes);
    // Its next report finds nobody.
    std::fs::write(&file, "three").unwrap();
    agent.wait().unwrap();
}

#[test]
fn a_host_that_is_not_enrolled_is_told_how_to() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(AGENT).args(["run", "--data-dir"]).arg(folder.path()).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("trueline-agent enroll --collector"));
}

#[test]
fn watch_refuses_a_path_that_is_not_there() {
    let output = Command::new(AGENT).args(["watch", "/nope/really"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("cannot watch `/nope/really`") && said.contains("No such file"), "{said}");
}

/// On whatever this machine has: the sensor in use sees every kind of change that the kernel tells of, and
/// fanotify names this process for each.
#[test]
fn check_coverage_sees_every_operation_and_says_which_no_event_tells_of() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(AGENT).args(["check-coverage", "--json", "--dir"]).arg(folder.path()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let best = &rows[0]["sensor"];
    let of_best: Vec<_> = rows.iter().filter(|row| row["sensor"] == *best).collect();
    assert!(of_best.len() > 20, "{text}");
    for row in of_best {
        match row["outcome"].as_str().unwrap() {
            "seen" => assert!(best != "fanotify" || row["actor"] == "right", "{row}"),
            "untold" => assert_eq!(row["operation"], "set a flag (chattr)"),
            "not_tried" => assert!(row["reason"].is_string(), "{row}"),
            other => panic!("{other}: {row}"),
        }
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the canary was left behind");
    let text = Command::new(AGENT).args(["check-coverage", "--dir"]).arg(folder.path()).output().unwrap();
    assert!(String::from_utf8(text.stdout).unwrap().contains("create a file                    seen after "));
}
