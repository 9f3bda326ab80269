//! What the kernel holds besides files and settings, and who changes it.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};

use nix::sched::{CloneFlags, unshare};
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Certainty, ItemKind};

use super::super::*;
use super::{PATIENCE, skip};

fn watch_kind(kind: ItemKind) -> (Sensors, Receiver<Signal>) {
    let policy = WatchPolicy { paths: Vec::new(), kinds: vec![kind], ..WatchPolicy::default() };
    let (sender, signals) = sync_channel(1024);
    (Sensors::start(&policy, sender, Arc::default()).unwrap(), signals)
}

/// Why what is asked of the kernel cannot be had: nothing of these is watched.
fn refusal(sensors: &Sensors, scopes: &[&str]) -> Option<String> {
    let rows = sensors.coverage();
    let is_watched = rows.iter().any(|row| row.watching && scopes.contains(&row.scope.as_str()));
    (!is_watched).then(|| format!("{rows:?}"))
}

/// The next touch of the kind that names somebody.
fn author(signals: &Receiver<Signal>, kind: ItemKind) -> (Arc<Actor>, Option<Generation>) {
    loop {
        if let Signal::Touched(touch) = signals.recv_timeout(PATIENCE).expect("a signal of the change")
            && touch.target == Target::Kind(kind)
            && let Some(actor) = touch.actor
        {
            return (actor, touch.generation);
        }
    }
}

/// Of a program that did its work right after it started, on a machine that is busy, it may not be known that it did it: then no other is
/// named, and it is asked to do it again.
const TURNS: usize = 20;

/// Whether the program is known, and then it is this one.
fn is_by(actor: &Actor, program: &str) -> bool {
    let process = actor.process.as_ref().expect("a process is named");
    match &process.exe {
        Some(exe) => assert!(exe.ends_with(program), "{actor:?}"),
        None => assert!(actor.reason.is_some(), "{actor:?}"),
    }
    process.exe.is_some()
}

/// It does what is to be done itself, and then lives until it is told to end.
fn shell(script: &str) -> Child {
    Command::new("/bin/sh").args(["-c", &format!("{script}; read end")]).stdin(Stdio::piped()).spawn().unwrap()
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn who_mounts_and_unmounts_is_named() {
    let test = "who_mounts_and_unmounts_is_named";
    let (sensors, signals) = watch_kind(ItemKind::Mount);
    if let Some(reason) = refusal(&sensors, &["actor:mount", "operation:mount"]) {
        return skip(test, &reason);
    }
    assert_eq!(refusal(&sensors, &["mount:*"]), None);
    let point = tempfile::tempdir().unwrap();
    let mut known = [0; 2];
    for _ in 0..TURNS {
        for (known, (program, command)) in known.iter_mut().zip([("/mount", "mount -t tmpfs none"), ("/umount", "umount")]) {
            let child = shell(&format!("{command} {}", point.path().display()));
            // Other tests mount too.
            let actor = loop {
                let (actor, _) = author(&signals, ItemKind::Mount);
                if actor.parents.first().is_some_and(|parent| parent.pid == child.id()) {
                    break actor;
                }
            };
            assert!(actor.certainty <= Certainty::Strong, "{actor:?}");
            *known += usize::from(is_by(&actor, program));
            end(child);
        }
        if !known.contains(&0) {
            return;
        }
    }
    panic!("in {TURNS} turns the programs were known {known:?} times");
}

#[test]
fn who_changes_the_packet_filter_is_named_with_the_version_that_came_of_it() {
    let test = "who_changes_the_packet_filter_is_named_with_the_version_that_came_of_it";
    // A network of this test's own. Its thread ends with the test.
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        return skip(test, &error.to_string());
    }
    let (sensors, signals) = watch_kind(ItemKind::Firewall);
    if let Some(reason) = refusal(&sensors, &["firewall:*"]) {
        return skip(test, &reason);
    }
    let (mut last, mut known) = (None, 0);
    for _ in 0..TURNS {
        for command in ["nft add table inet t", "nft add chain inet t c", "nft delete table inet t"] {
            let child = shell(command);
            let (actor, generation) = author(&signals, ItemKind::Firewall);
            assert_eq!(actor.parents.first().map(|parent| parent.pid), Some(child.id()), "{actor:?}");
            assert!(actor.certainty <= Certainty::Strong, "{actor:?}");
            known += usize::from(is_by(&actor, "/nft"));
            assert!(generation > last, "{generation:?} after {last:?}");
            last = generation;
            end(child);
        }
        if known > 0 {
            return;
        }
    }
    panic!("nft was never known");
}

/// Of whom no claim is made: the kernel does not say it.
#[test]
fn a_route_and_an_interface_are_told_of_at_once() {
    let test = "a_route_and_an_interface_are_told_of_at_once";
    // A network of this test's own. Its thread ends with the test.
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        return skip(test, &error.to_string());
    }
    for (kind, scope, commands) in [
        (ItemKind::Interface, "interface:*", ["link set lo up", "link set lo down"]),
        (ItemKind::Route, "route:*", ["route add blackhole 203.0.113.0/24", "route del blackhole 203.0.113.0/24"]),
    ] {
        let (sensors, signals) = watch_kind(kind);
        if let Some(reason) = refusal(&sensors, &[scope]) {
            return skip(test, &reason);
        }
        for command in commands {
            assert!(Command::new("ip").args(command.split(' ')).status().unwrap().success(), "{command}");
            loop {
                if let Signal::Touched(touch) = signals.recv_timeout(PATIENCE).expect("a signal of the change")
                    && touch.target == Target::Kind(kind)
                {
                    assert!(touch.actor.is_none(), "{command}");
                    break;
                }
            }
        }
    }
}

/// Of the virtual machine of tests/stock-kernel: where the project's machines run, kernels have no modules.
#[test]
fn who_loads_and_unloads_a_module_is_named() {
    let test = "who_loads_and_unloads_a_module_is_named";
    if !std::path::Path::new("/proc/modules").exists() {
        assert!(std::env::var_os("TRUELINE_TEST_HOOKS").is_none(), "a stock kernel has modules");
        let _ = writeln!(std::io::stderr(), "skipped: {test}: this kernel has no modules");
        return;
    }
    let (sensors, signals) = watch_kind(ItemKind::KernelModule);
    assert_eq!(refusal(&sensors, &["kernel_module:*"]), None);
    if let Some(reason) = refusal(&sensors, &["actor:kernel_module"]) {
        return skip(test, &reason);
    }
    let mut known = 0;
    for _ in 0..TURNS {
        for command in ["modprobe dummy", "modprobe -r dummy"] {
            let child = shell(command);
            let (actor, _) = author(&signals, ItemKind::KernelModule);
            assert_eq!(actor.parents.first().map(|parent| parent.pid), Some(child.id()), "{command}: {actor:?}");
            assert!(actor.certainty <= Certainty::Strong, "{actor:?}");
            // Which modprobe is a link to.
            known += usize::from(is_by(&actor, "/kmod"));
            end(child);
        }
        if known > 0 {
            return;
        }
    }
    panic!("modprobe was never known");
}
