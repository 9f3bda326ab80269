//! Whom the sensor names.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::mpsc::sync_channel;

use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Certainty, ItemKind};

use super::super::*;
use super::{PATIENCE, skip, target, watch};

#[test]
fn the_process_that_wrote_a_file_is_named() {
    let Some(watched) = watch("the_process_that_wrote_a_file_is_named", Preference::Best, 1024, |_| {}) else { return };
    // It waits until the file's signal was taken, so that it is alive to be read.
    let mut child =
        Command::new("/bin/sh").args(["-c", "echo x >> f; read end"]).current_dir(&watched.base).stdin(Stdio::piped()).spawn().unwrap();
    let wanted = target(&watched.path("f"));
    let actor = loop {
        if let Signal::Touched(touch) = watched.signals.recv_timeout(PATIENCE).expect("a signal of the write")
            && touch.target == wanted
        {
            break touch.actor.expect("fanotify names the process");
        }
    };
    drop(child.stdin.take());
    child.wait().unwrap();
    let process = actor.process.as_ref().unwrap();
    assert_eq!(process.pid, child.id());
    assert!(actor.certainty <= Certainty::Strong, "{actor:?}");
    assert_eq!(process.argv, ["/bin/sh", "-c", "echo x >> f; read end"]);
    assert_eq!(process.cwd.as_deref(), watched.base.to_str());
    assert_eq!(actor.parents.first().map(|parent| parent.pid), Some(std::process::id()));
    assert_eq!(actor.user.as_ref().unwrap().uid, nix::unistd::getuid().as_raw());
}

#[test]
fn a_process_that_ends_at_once_is_never_taken_for_another() {
    let test = "a_process_that_ends_at_once_is_never_taken_for_another";
    let Some(watched) = watch(test, Preference::Best, 4096, |_| {}) else { return };
    let mut pids = std::collections::HashMap::new();
    for number in 0..200 {
        let script = format!("echo x >> f{number}");
        let mut child = Command::new("/bin/sh").args(["-c", &script]).current_dir(&watched.base).spawn().unwrap();
        pids.insert(target(&watched.path(format!("f{number}"))), (child.id(), script));
        child.wait().unwrap();
    }
    let mut seen = std::collections::HashSet::new();
    for touch in watched.touches() {
        let Some((pid, script)) = pids.get(&touch.target) else { continue };
        seen.insert(touch.target.clone());
        let actor = touch.actor.expect("fanotify names the process");
        let process = actor.process.as_ref().unwrap();
        assert_eq!(process.pid, *pid);
        if let Some(told) = process.argv.get(2) {
            assert_eq!(told, script);
        } else {
            assert!(actor.reason.is_some(), "{actor:?}");
        }
    }
    assert_eq!(seen.len(), pids.len(), "every file that was written was told of");
}

#[test]
fn a_write_to_a_kernel_setting_names_its_process() {
    let test = "a_write_to_a_kernel_setting_names_its_process";
    let setting = "/proc/sys/net/ipv4/ip_default_ttl";
    let Ok(value) = fs::read_to_string(setting) else { return skip(test, "no such setting") };
    if fs::OpenOptions::new().write(true).open(setting).is_err() {
        return skip(test, "not permitted to write it");
    }
    let policy = WatchPolicy { paths: Vec::new(), kinds: vec![ItemKind::Sysctl], ..WatchPolicy::default() };
    let (sender, signals) = sync_channel(1024);
    let sensors = Sensors::start(&policy, sender, Arc::default()).unwrap();
    if !sensors.coverage().iter().any(|row| row.scope == "sysctl:*" && row.watching) {
        return skip(test, &format!("{:?}", sensors.coverage()));
    }
    let script = format!("echo {} > {setting}; read end", value.trim());
    let mut child = Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
    loop {
        if let Signal::Touched(touch) = signals.recv_timeout(PATIENCE).expect("a signal of the write")
            && touch.target == Target::Sysctl("net.ipv4.ip_default_ttl".to_owned())
        {
            assert_eq!(touch.actor.unwrap().process.as_ref().unwrap().pid, child.id());
            break;
        }
    }
    drop(child.stdin.take());
    child.wait().unwrap();
}
