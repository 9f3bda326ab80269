//! The main job by one command, as a process: first run, live feed, stop, resume.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::running::{Quickstart, assert_private, ended, errors, output, places, text, trueline};

#[test]
fn a_change_to_a_watched_file_appears_with_its_drift_and_survives_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let (kept, watched) = places(home.path());
    let file = watched.join("settings");
    std::fs::write(&file, "a = 1\n").unwrap();

    let mut first = Quickstart::start(&kept, &watched);
    let baseline = first.wait_for_phase("baseline");
    assert_eq!(baseline["baseline"]["version"], 1);
    let watching = first.wait_for_phase("watching");
    assert!(watching["login"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{watching}");
    assert!(!watching["coverage"].as_array().unwrap().is_empty(), "{watching}");
    assert_private(&kept, &[]);

    std::fs::write(&file, "a = 2\n").unwrap();
    let item = format!("file:{}", file.canonicalize().unwrap().display());
    let drift = first.wait_for("the drift", |line| line["drift"]["item"] == item.as_str() && line["drift"]["field"] == "sha256");
    assert_eq!(drift["drift"]["event"], "opened");
    assert_ne!(drift["drift"]["expected"], drift["drift"]["actual"]);

    let second = output(trueline().args(["quickstart", "--dir"]).arg(&kept));
    assert_eq!(second.status.code(), Some(1));
    assert!(errors(&second).contains("another quickstart"), "{}", errors(&second));

    assert_eq!(first.stop("INT").code(), Some(0));
    let farewell = first.wait_for_phase("stopped");
    assert!(farewell["open_drift"].as_u64().unwrap() >= 1, "{farewell}");
    assert_private(&kept, &[]);
    drop(first);

    let late = watched.join("while_stopped");
    std::fs::write(&late, "x").unwrap();
    let mut again = Quickstart::start(&kept, &watched);
    let resuming = again.wait_for_phase("resuming");
    assert_eq!(resuming["open_drift"], farewell["open_drift"]);
    assert_eq!(resuming["changes"], farewell["changes"]);
    let caught_up = again.wait_for_phase("caught_up");
    assert!(caught_up["changes"].as_u64().unwrap() >= 1, "{caught_up}");
    let late = format!("file:{}", late.canonicalize().unwrap().display());
    again.wait_for("the change made while it was stopped", |line| line["change"]["item"] == late.as_str());
    assert!(!again.seen_phase("baseline"), "a restart must not make a second baseline");
    let baselines = again.ask_json(&["baseline", "list"]);
    assert_eq!(baselines["items"].as_array().unwrap().len(), 1);
    assert_eq!(again.stop("TERM").code(), Some(0));
    again.wait_for_phase("stopped");
}

/// As `trueline quickstart | head -n 1` leaves it.
#[test]
fn collector_and_agent_are_stopped_also_when_nobody_reads_on() {
    let home = tempfile::tempdir().unwrap();
    let (kept, watched) = places(home.path());
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = trueline();
    command.args(["quickstart", "--output", "json", "--dir"]).arg(&kept).arg("--watch").arg(&watched);
    let child = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    // It holds the writing end too.
    drop(command);
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).unwrap();
    assert!(line.contains("collector"), "{line}");
    let end = ended(child);
    assert!(end.status.success(), "{}", errors(&end));
    let log = std::fs::read_to_string(kept.join("quickstart.log")).unwrap();
    assert!(log.contains("the collector has stopped"), "{log}");
}

#[test]
fn what_the_quickstart_watches_is_fixed_by_its_first_run() {
    let home = tempfile::tempdir().unwrap();
    let (kept, watched) = places(home.path());
    let mut first = Quickstart::start(&kept, &watched);
    first.wait_for_phase("watching");
    assert!(first.stop("INT").success());
    let other = output(trueline().args(["quickstart", "--dir"]).arg(&kept).arg("--watch").arg(home.path()));
    assert_eq!(other.status.code(), Some(1));
    assert!(errors(&other).contains("--dir"), "{}", errors(&other));
}

#[test]
fn a_drift_that_goes_back_to_its_baseline_is_resolved_and_check_follows_it() {
    let home = tempfile::tempdir().unwrap();
    let (kept, watched) = places(home.path());
    let file = watched.join("settings");
    std::fs::write(&file, "a = 1\n").unwrap();
    let mut running = Quickstart::start(&kept, &watched);
    running.wait_for_phase("watching");
    let host = running.ask_json(&["hosts", "list"])["items"][0]["name"].as_str().unwrap().to_owned();
    let before = running.ask(&["check", &host]);
    assert_eq!(before.status.code(), Some(0), "{}", errors(&before));

    std::fs::write(&file, "a = 2\n").unwrap();
    let opened = running.wait_for("the drift", |line| line["drift"]["field"] == "sha256" && line["drift"]["event"] == "opened");
    let id = opened["drift"]["id"].to_string();
    let departed = running.ask(&["check", &host]);
    assert_eq!(departed.status.code(), Some(1));
    assert!(text(&departed).contains("sha256"), "{}", text(&departed));
    let seen = running.ask_json(&["drift", "ack", &id, "--note", "planned"]);
    assert_eq!((seen["state"].as_str(), seen["acknowledged"]["note"].as_str()), (Some("acknowledged"), Some("planned")));

    std::fs::write(&file, "a = 1\n").unwrap();
    running.wait_for("the resolution", |line| line["drift"]["id"] == opened["drift"]["id"] && line["drift"]["event"] == "resolved");
    let after = running.ask(&["check", &host]);
    assert_eq!(after.status.code(), Some(0), "{}", errors(&after));
    assert!(running.stop("INT").success());
}

#[test]
fn tables_are_plain_in_a_pipe_and_json_is_what_the_collector_sent() {
    let home = tempfile::tempdir().unwrap();
    let (kept, watched) = places(home.path());
    let mut running = Quickstart::start(&kept, &watched);
    running.wait_for_phase("watching");
    for name in ["one", "two", "three"] {
        std::fs::write(watched.join(name), name).unwrap();
        let item = format!("file:{}", watched.join(name).canonicalize().unwrap().display());
        running.wait_for(name, |line| line["drift"]["item"] == item.as_str());
    }

    let plain = running.ask(&["drift", "list"]);
    assert!(text(&plain).contains("EXPECTED → ACTUAL") && text(&plain).contains("absent → present"), "{}", text(&plain));
    assert!(!text(&plain).contains('\u{1b}'), "{}", text(&plain));
    assert!(text(&running.ask(&["drift", "list", "--color", "always"])).contains('\u{1b}'));
    assert!(!text(&running.ask(&["changes", "list"])).contains('\u{1b}'));

    let page = running.ask(&["changes", "list", "--kind", "file", "--limit", "2"]);
    assert_eq!(text(&page).lines().count(), 3, "{}", text(&page));
    assert!(errors(&page).contains("--all"), "{}", errors(&page));
    let first = running.ask_json(&["changes", "list", "--kind", "file", "--limit", "2"]);
    assert!(first["next"].is_string());
    let all = running.ask_json(&["changes", "list", "--kind", "file", "--all"]);
    let all = all["items"].as_array().unwrap();
    assert!(all.len() >= 3, "{all:?}");
    assert_eq!(all[..2], first["items"].as_array().unwrap()[..]);
    let shown = running.ask_json(&["changes", "show", &all[0]["id"].to_string()]);
    assert_eq!(shown, all[0]);

    let missing = running.ask(&["drift", "show", "99999"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(errors(&missing).contains("404"), "{}", errors(&missing));

    let made = running.ask(&["tokens", "create", "--kind", "join", "--uses", "2", "--expires", "1h"]);
    assert!(made.status.success() && text(&made).starts_with("tl_join_") && text(&made).lines().count() == 1, "{}", text(&made));
    let tokens = running.ask_json(&["tokens", "list"]);
    let join = tokens["items"].as_array().unwrap().iter().find(|token| token["kind"] == "join" && token["uses_left"] == 2).unwrap();
    assert!(running.ask(&["tokens", "revoke", &join["id"].to_string()]).status.success());

    let desired = home.path().join("desired.yaml");
    std::fs::write(&desired, format!("name: desired\nitems:\n  \"file:{}/four\": absent\n", watched.display())).unwrap();
    let applied = running.ask_json(&["baseline", "apply", desired.to_str().unwrap()]);
    assert_eq!((applied["name"].as_str(), applied["origin"].as_str()), (Some("desired"), Some("written")));
    let host = running.ask_json(&["hosts", "list"])["items"][0]["name"].as_str().unwrap().to_owned();
    // A host that is not there leaves no version behind.
    let nowhere = running.ask(&["baseline", "apply", desired.to_str().unwrap(), "--host", "nope"]);
    assert!(nowhere.status.code() == Some(1) && errors(&nowhere).contains("trueline hosts list"), "{}", errors(&nowhere));
    assert_eq!(running.ask_json(&["baseline", "show", "desired"])["version"], 1);
    std::fs::write(&desired, format!("name: desired\nitems:\n  \"file:{}/four\": absent\n  file:/opt/x: absent\n", watched.display()))
        .unwrap();
    let second = running.ask(&["baseline", "apply", desired.to_str().unwrap(), "--host", &host]);
    assert!(text(&second).contains("desired v2 has 2 items") && text(&second).contains(&host), "{}", text(&second));
    assert_eq!(errors(&second).lines().collect::<Vec<_>>(), [format!("warning: file:/opt/x is not watched on {host}")]);
    assert!(text(&running.ask(&["baseline", "list"])).lines().any(|line| line.contains("desired v2") && line.contains(&host)));
    // What is shown is what may be applied again.
    let shown = running.ask(&["baseline", "show", "desired@1"]);
    assert!(text(&shown).contains("desired v1, written by") && text(&shown).contains("absent"), "{}", text(&shown));
    let captured = home.path().join("captured.yaml");
    std::fs::write(&captured, running.ask(&["baseline", "show", baseline_of(&running).as_str()]).stdout).unwrap();
    let again = running.ask(&["baseline", "lint", captured.to_str().unwrap()]);
    assert!(again.status.success(), "{}{}", errors(&again), std::fs::read_to_string(&captured).unwrap());
    let back = running.ask(&["baseline", "rollback", &host]);
    assert!(text(&back).contains("is held against desired v1; it was desired v2"), "{}{}", text(&back), errors(&back));
    let first = running.ask(&["baseline", "rollback", &host]);
    assert!(first.status.code() == Some(1) && errors(&first).contains("the first version"), "{}", errors(&first));
    assert!(running.ask(&["baseline", "rollback", &host, "--to", "2"]).status.success());
    assert_eq!(running.ask_json(&["hosts", "show", &host])["baseline"]["version"], 2);

    let login = running.ask(&["tokens", "create", "--kind", "login"]);
    assert!(text(&login).starts_with("http://127.0.0.1:") && text(&login).contains("/login?token=tl_login_"), "{}", text(&login));
    assert!(errors(&login).contains("once") && errors(&login).contains("until 2"), "{}", errors(&login));
    assert!(running.ask(&["coverage", "list"]).status.success());
    // What it says comes with a heartbeat, and the agent's own table is what is shown.
    let until = Instant::now() + Duration::from_secs(60);
    let told = loop {
        let told = running.ask_json(&["coverage", "show", &host])["operations"].as_array().unwrap().clone();
        assert!(Instant::now() < until, "no heartbeat told of operations");
        if !told.is_empty() {
            break told;
        }
    };
    assert_eq!(told.len(), trueline_drift::Operation::ALL.len(), "{told:?}");
    let shown = running.ask(&["coverage", "show", &host]);
    for (row, line) in told.iter().zip(text(&shown).lines().skip(1)) {
        let words = format!("{:<14}{}", row["operation"].as_str().unwrap(), row["actor"].as_str().unwrap_or("no event"));
        assert!(line.starts_with(&words), "{line}: {row}");
    }
    assert!(running.stop("INT").success());
}

/// The baseline that the quickstart captured.
fn baseline_of(running: &Quickstart) -> String {
    let baselines = running.ask_json(&["baseline", "list"]);
    let captured = baselines["items"].as_array().unwrap().iter().find(|baseline| baseline["origin"] == "captured").unwrap();
    format!("{}@{}", captured["name"].as_str().unwrap(), captured["version"])
}
