//! What the kernel holds besides files and settings, and who changes it.

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

/// Why what is asked of the kernel cannot be had.
fn refusal(sensors: &Sensors, scope: &str) -> Option<String> {
    let rows = sensors.coverage();
    match rows.iter().find(|row| row.scope == scope) {
        Some(row) if row.watching => None,
        _ => Some(format!("{rows:?}")),
    }
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
    if let Some(reason) = refusal(&sensors, "actor:mount") {
        return skip(test, &reason);
    }
    assert_eq!(refusal(&sensors, "mount:*"), None);
    let point = tempfile::tempdir().unwrap();
    for command in ["mount -t tmpfs none", "umount"] {
        let child = shell(&format!("{command} {}", point.path().display()));
        // Other tests mount too.
        let actor = loop {
            let (actor, _) = author(&signals, ItemKind::Mount);
            if actor.parents.first().is_some_and(|parent| parent.pid == child.id()) {
                break actor;
            }
        };
        assert!(actor.certainty <= Certainty::Strong, "{actor:?}");
        let program = command.split(' ').next().unwrap();
        assert!(actor.process.as_ref().unwrap().exe.as_deref().is_some_and(|exe| exe.ends_with(program)), "{actor:?}");
        end(child);
    }
}

#[test]
fn who_changes_the_packet_filter_is_named_with_the_version_that_came_of_it() {
    let test = "who_changes_the_packet_filter_is_named_with_the_version_that_came_of_it";
    // A network of this test's own. Its thread ends with the test.
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        return skip(test, &error.to_string());
    }
    let (sensors, signals) = watch_kind(ItemKind::Firewall);
    if let Some(reason) = refusal(&sensors, "firewall:*") {
        return skip(test, &reason);
    }
    let mut last = None;
    for command in ["nft add table inet t", "nft add chain inet t c", "nft delete table inet t"] {
        let child = shell(command);
        let (actor, generation) = author(&signals, ItemKind::Firewall);
        assert_eq!(actor.parents.first().map(|parent| parent.pid), Some(child.id()), "{actor:?}");
        assert!(actor.process.as_ref().unwrap().exe.as_deref().is_some_and(|exe| exe.ends_with("/nft")), "{actor:?}");
        assert!(generation > last, "{generation:?} after {last:?}");
        last = generation;
        end(child);
    }
}
