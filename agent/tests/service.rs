//! `trueline-agent run` as a service, as a process: what it tells the service manager and operators, how it takes
//! signals, and what it says where it cannot run.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "service/enrolling.rs"]
mod enrolling;
#[path = "service/site.rs"]
mod site;
#[path = "service/standing_still.rs"]
mod standing_still;

use std::fs::Permissions;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use site::{AGENT, HOST, Site, is_root, names, need};

#[test]
fn the_service_manager_and_operators_are_told_how_it_is_until_it_stops() {
    let site = Site::enrolled();
    let mut agent = site.run(&[("WATCHDOG_USEC", "2000000")]);
    site.notified("READY=1");
    site.notified_where("what it does and that nobody is reached", |text| {
        text.starts_with("STATUS=watching 2 files, not connected since ") && text.contains(" wait (cannot reach 127.0.0.1:1")
    });
    for _ in 0..3 {
        site.notified("WATCHDOG=1");
    }

    let (report, is_healthy) = site.status();
    assert!(!is_healthy && report["health"] == "troubled", "{report:#}");
    assert_eq!(report["host"], HOST);
    assert_eq!((&report["work"]["phase"], &report["work"]["files"]), (&Value::from("watching"), &Value::from(2)));
    assert_eq!((&report["link"]["state"], &report["link"]["collector"]), (&Value::from("down"), &Value::from("127.0.0.1:1")));
    assert_eq!(report["coverage"][0]["sensor"], "inotify");
    assert!(report["spool"]["waiting"].as_u64() > Some(0) && report["spool"]["oldest_at"].is_string(), "{report:#}");
    assert!(report["certificate"]["valid_until"].is_string());
    assert!(names(&report).contains("the link to 127.0.0.1:1 is down"), "{report:#}");
    let text = site.command("status").output().unwrap();
    assert_eq!(text.status.code(), Some(1));
    assert!(String::from_utf8(text.stdout).unwrap().contains("is in trouble (pid "));

    // A change is there for whoever asks.
    let newest = report["spool"]["newest"].as_u64();
    std::fs::write(site.path("watched/file.conf"), "another").unwrap();
    site.status_where("the change to be spooled", |report| report["spool"]["newest"].as_u64() > newest);

    agent.signal(Signal::SIGTERM);
    site.notified("STOPPING=1");
    assert!(agent.end().success(), "{}", agent.log());
    assert!(!site.path("run/status.sock").exists());
    let (report, is_healthy) = site.status();
    assert!(!is_healthy && report["health"] == "not_running" && report["host"] == HOST, "{report:#}");
    assert!(report["advice"].as_str().unwrap().contains("systemctl start trueline-agent"));
}

/// Landlock shows from outside by the privileges that a thread gives up for it. All others are named.
#[test]
fn every_thread_is_confined_but_those_that_are_named() {
    let site = Site::enrolled();
    let agent = site.run(&[]);
    site.notified("READY=1");
    let (report, _) = site.status();
    let confinement = report["confinement"].as_str().unwrap();
    if !need(confinement.starts_with("landlock"), confinement) {
        return;
    }
    let threads = agent.threads("NoNewPrivs");
    let of = |value: &str| {
        let mut names: Vec<&str> = threads.iter().filter(|(_, found)| found == value).map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    };
    // The first is the main thread, which made the folder and the socket before; the sensor's need two, and who holds a socket is seen by one.
    assert_eq!(of("0"), ["holders", "inotify", "notify-rs inoti", "signals", "trueline-agent"], "{threads:?}");
    for name in ["observer", "link", "status"] {
        assert!(of("1").contains(&name), "{name} of {threads:?}");
    }
}

/// As an ordinary user, who may look into nothing of root's.
#[test]
fn what_cannot_be_watched_is_a_trouble() {
    if !is_root() {
        return;
    }
    const USER: u32 = 64_243;
    let site = Site::enrolled();
    let (hidden, open) = (site.path("other"), site.path("watched"));
    std::fs::create_dir(hidden.join("inner")).unwrap();
    std::fs::set_permissions(&hidden, Permissions::from_mode(0o700)).unwrap();
    for (name, mode) in [("", 0o755), ("notify", 0o666), ("agent.toml", 0o644), ("watched", 0o755)] {
        std::fs::set_permissions(site.path(name), Permissions::from_mode(mode)).unwrap();
    }
    for name in ["data", "run", "data/identity", "data/identity/ca.pem", "data/identity/host.pem", "data/identity/membership.json"] {
        std::os::unix::fs::chown(site.path(name), Some(USER), Some(USER)).unwrap();
    }
    let data = site.path("data");
    let paths = format!("[watch]\npaths = [{open:?}, {:?}]\nkinds = ['file']\n", hidden.join("inner"));
    site.write_config(&format!("data_dir = {data:?}\nsensor = 'inotify'\n{paths}"));
    // Past a folder to which others have no way.
    let program = std::fs::File::open(AGENT).unwrap();
    nix::fcntl::fcntl(&program, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    command.uid(USER).gid(USER);
    let mut agent = site.spawn(site.prepared(command, "run"));
    let expected = format!("not watched, and read again on schedule alone: file:{}", hidden.join("inner").display());
    site.notified_where("the line to begin with it", |text| text.starts_with(&format!("STATUS={expected} (")));
    let (report, is_healthy) = site.status();
    assert!(!is_healthy && names(&report).contains(&expected), "{report:#}");
    agent.signal(Signal::SIGTERM);
    assert!(agent.end().success(), "{}", agent.log());
}

#[test]
fn a_second_agent_ends_and_leaves_the_first_to_be_asked() {
    let site = Site::enrolled();
    let first = site.run(&[]);
    site.notified("READY=1");
    let mut second = site.run(&[]);
    assert_eq!(second.end().code(), Some(1), "{}", second.log());
    assert!(second.log().contains("another agent answers there"), "{}", second.log());
    let (report, _) = site.status();
    assert_eq!(report["pid"], first.pid(), "{report:#}");
}

#[test]
fn a_reload_takes_up_what_it_can_and_refuses_what_is_wrong() {
    let site = Site::enrolled();
    let mut agent = site.run(&[]);
    site.notified("READY=1");
    site.notified_where("the inventory to be over", |text| text.starts_with("STATUS=watching 2 files"));

    // Written before the reload, and in nobody's view until then.
    std::fs::write(site.path("other/file.conf"), "one").unwrap();
    let [data, watched, other] = ["data", "watched", "other"].map(|name| site.path(name));
    let text = |spool: u32| {
        let lists = format!("[watch]\npaths = [{watched:?}, {other:?}]\nkinds = ['file']\n");
        format!("data_dir = {data:?}\nsensor = 'inotify'\nspool_mib = {spool}\nscan_threads = 1\n{lists}")
    };
    site.write_config(&text(256));
    agent.signal(Signal::SIGHUP);
    assert!(site.notified("RELOADING=1").contains("\nMONOTONIC_USEC="));
    site.notified("READY=1");
    let wider = site.status_where("the wider watch list", |report| report["work"]["files"] == 4 && report["work"]["phase"] == "watching");
    std::fs::write(site.path("other/file.conf"), "two").unwrap();
    let newest = wider["spool"]["newest"].as_u64();
    site.status_where("a change in the wider view", |report| report["spool"]["newest"].as_u64() > newest);

    // With a fault it changes nothing, and that is a trouble.
    site.write_config("spool_mib = 0\n");
    agent.signal(Signal::SIGHUP);
    site.notified("RELOADING=1");
    site.notified("READY=1");
    let (report, _) = site.status();
    assert!(
        names(&report).contains("refused, the present one stays: ") && names(&report).contains("spool_mib: 0 is not between"),
        "{report:#}"
    );
    assert_eq!(report["work"]["files"], 4);

    // What only a start takes up is said.
    site.write_config(&text(128));
    agent.signal(Signal::SIGHUP);
    site.notified("RELOADING=1");
    site.notified("READY=1");
    let (report, _) = site.status();
    assert!(names(&report).contains("spool_mib: what the configuration says now counts from the next start on"), "{report:#}");
    assert_eq!(report["spool"]["limit_bytes"], 256 * 1024 * 1024);

    site.write_config(&text(256));
    agent.signal(Signal::SIGHUP);
    site.notified("RELOADING=1");
    site.notified("READY=1");
    assert!(!names(&site.status().0).contains("spool_mib"));
    agent.signal(Signal::SIGTERM);
    assert!(agent.end().success(), "{}", agent.log());
}

#[test]
fn a_configuration_with_faults_and_a_folder_of_another_user_end_it_for_good() {
    let site = Site::enrolled();
    site.write_config("spool_mb = 4\n");
    let mut agent = site.run(&[]);
    assert_eq!(agent.end().code(), Some(78));
    assert!(agent.log().contains("did you mean `spool_mib`?"), "{}", agent.log());
    if !is_root() {
        return;
    }
    site.configure("");
    std::os::unix::fs::chown(site.path("data"), Some(4242), Some(4242)).unwrap();
    let mut agent = site.run(&[]);
    assert_eq!(agent.end().code(), Some(78));
    assert!(agent.log().contains("belongs to user 4242"), "{}", agent.log());
}

/// The journal's end is a socket of its own in the tests of `trueline-systemd`; here the log goes to a file.
#[test]
fn without_a_journal_the_log_is_text() {
    let site = Site::new();
    let mut child = site.command("run").env("JOURNAL_STREAM", "1:2").stderr(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    assert!(text.lines().last().unwrap().starts_with("trueline-agent: this host is not enrolled"), "{text}");
}
