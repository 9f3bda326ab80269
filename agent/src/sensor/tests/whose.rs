//! Processes that end at once, pids that are used again, and processes that look like others: whom the sensor names with each
//! feed of processes.

use std::collections::HashMap;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use trueline_drift::Certainty;

use super::super::*;
use super::{FeedChoice, Watched, skip, target, watch_fed};

/// No user of the host has it.
const USER: u32 = 54_321;

/// One at a time: pids that one of them chooses would meet the others' processes.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn feeds(test: &str) -> Vec<(FeedChoice, Watched)> {
    let mut watched = Vec::new();
    for (feed, name) in [(FeedChoice::Probe, "ebpf"), (FeedChoice::Connector, "connector")] {
        let Some(one) = watch_fed(test, Preference::Best, feed, 16_384, |_| {}) else { continue };
        let row = one.sensors.coverage().into_iter().find(|row| row.scope == "process:*").expect("a row of the processes");
        if row.name == name {
            watched.push((feed, one));
        } else {
            skip(test, &row.reason.unwrap_or_default());
        }
    }
    watched
}

fn shell() -> String {
    fs::canonicalize("/bin/sh").unwrap().to_str().unwrap().to_owned()
}

fn exe(actor: &Actor) -> Option<&str> {
    actor.process.as_ref()?.exe.as_deref()
}

#[test]
fn writers_that_end_at_once_are_named_with_their_user() {
    if !nix::unistd::geteuid().is_root() {
        return skip("writers_that_end_at_once_are_named_with_their_user", "needs root, to run others' processes");
    }
    let _turn = turn();
    for (feed, watched) in feeds("writers_that_end_at_once_are_named_with_their_user") {
        std::os::unix::fs::chown(&watched.base, Some(USER), None).unwrap();
        let mut pids = HashMap::new();
        for number in 0..200 {
            let script = format!("echo x >> f{number}");
            let mut child = Command::new("/bin/sh").args(["-c", &script]).uid(USER).current_dir(&watched.base).spawn().unwrap();
            pids.insert(target(&watched.path(format!("f{number}"))), (child.id(), script));
            child.wait().unwrap();
        }
        let (mut seen, mut named, mut told) = (std::collections::HashSet::new(), 0, 0);
        for touch in watched.touches() {
            let Some((pid, script)) = pids.get(&touch.target) else { continue };
            let actor = touch.actor.expect("fanotify names the process");
            told += 1;
            let process = actor.process.as_ref().expect("a process");
            assert_eq!(process.pid, *pid);
            match actor.user.as_ref() {
                Some(user) => assert_eq!(user.uid, USER, "{actor:?}"),
                None => assert!(actor.reason.is_some(), "{actor:?}"),
            }
            match (exe(&actor), process.argv.get(2)) {
                (Some(exe), Some(told)) => assert_eq!((exe, told), (shell().as_str(), script)),
                _ => assert!(actor.reason.is_some(), "{actor:?}"),
            }
            named += usize::from(actor.user.is_some() && exe(&actor).is_some());
            assert_eq!(actor.parents.first().map(|parent| parent.pid), Some(std::process::id()), "{actor:?}");
            seen.insert(touch.target.clone());
        }
        assert_eq!(seen.len(), pids.len(), "every file that was written was told of");
        // A reading that went on during an exec leaves its order in doubt: few, whatever the machine is busy with.
        assert!(feed != FeedChoice::Probe || named * 2 > told, "{named} of {told}");
    }
}

#[test]
fn a_pid_that_is_used_again_is_never_taken_for_its_former_owner() {
    let _turn = turn();
    let test = "a_pid_that_is_used_again_is_never_taken_for_its_former_owner";
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    let script = |name: &str| format!("exec -a {name} /bin/sh -c 'echo x >> {name}'");
    for (_, watched) in feeds(test) {
        let mut owners = HashMap::new();
        let mut again = 0;
        for round in 0..200 {
            let mut first =
                Command::new("/bin/bash").args(["-c", &script(&format!("first{round}"))]).current_dir(&watched.base).spawn().unwrap();
            first.wait().unwrap();
            if fs::write(LAST, (first.id() - 1).to_string()).is_err() {
                return skip(test, "not permitted to choose pids");
            }
            let mut second =
                Command::new("/bin/bash").args(["-c", &script(&format!("second{round}"))]).current_dir(&watched.base).spawn().unwrap();
            second.wait().unwrap();
            // Others start processes too.
            again += usize::from(first.id() == second.id());
            owners.insert(target(&watched.path(format!("first{round}"))), format!("first{round}"));
            owners.insert(target(&watched.path(format!("second{round}"))), format!("second{round}"));
        }
        let mut named = 0;
        for touch in watched.touches() {
            let Some(owner) = owners.get(&touch.target) else { continue };
            let actor = touch.actor.expect("fanotify names the process");
            let argv = actor.process.as_ref().map(|process| process.argv.clone()).unwrap_or_default();
            match argv.first() {
                // bash before it became the writer of that name.
                Some(first) if first == "/bin/bash" => assert!(argv[2].contains(owner), "{actor:?} for {owner}"),
                Some(first) => assert_eq!(first, owner, "{actor:?}"),
                None => assert!(actor.reason.is_some(), "{actor:?}"),
            }
            named += usize::from(argv.first() == Some(owner));
        }
        if again == 0 {
            return skip(test, "no pid was used again");
        }
        assert!(named > 0, "somebody was named");
    }
}

#[test]
fn a_process_that_makes_itself_look_like_another_is_named_by_its_executable() {
    let _turn = turn();
    let test = "a_process_that_makes_itself_look_like_another_is_named_by_its_executable";
    for (_, watched) in feeds(test) {
        let elsewhere = tempfile::tempdir().unwrap();
        let copy = elsewhere.path().canonicalize().unwrap().join("apt");
        // By another process: one that this one starts meanwhile would hold the copy open for writing.
        assert!(Command::new("cp").arg("/bin/sh").arg(&copy).status().unwrap().success());
        // Its own name is another, and so is the first of its arguments; it waits to be looked at.
        let script = "printf apt > /proc/self/comm; echo x >> f; read end";
        let mut child = Command::new(&copy)
            .arg0("/usr/bin/apt")
            .args(["-c", script])
            .current_dir(&watched.base)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let wanted = target(&watched.path("f"));
        let actor = loop {
            if let Signal::Touched(touch) = watched.signals.recv_timeout(super::PATIENCE).expect("a signal of the write")
                && touch.target == wanted
            {
                break touch.actor.expect("fanotify names the process");
            }
        };
        drop(child.stdin.take());
        child.wait().unwrap();
        if let Some(told) = exe(&actor) {
            assert_eq!(told, copy.to_str().unwrap());
        } else {
            assert!(actor.reason.is_some(), "{actor:?}");
        }
    }
}

#[test]
fn who_writes_and_at_once_becomes_apt_is_never_exactly_apt() {
    let _turn = turn();
    let test = "who_writes_and_at_once_becomes_apt_is_never_exactly_apt";
    for (_, watched) in feeds(test) {
        let mut pids = HashMap::new();
        for number in 0..100 {
            let script = format!("echo x >> f{number}; exec /bin/true");
            let mut child = Command::new("/bin/sh").args(["-c", &script]).current_dir(&watched.base).spawn().unwrap();
            pids.insert(target(&watched.path(format!("f{number}"))), child.id());
            child.wait().unwrap();
        }
        for touch in watched.touches() {
            let Some(pid) = pids.get(&touch.target) else { continue };
            let actor = touch.actor.expect("fanotify names the process");
            assert_eq!(actor.process.as_ref().map(|process| process.pid), Some(*pid));
            match exe(&actor) {
                Some(told) => assert_eq!(told, shell(), "{actor:?}"),
                None => assert!(actor.certainty > Certainty::Exact && actor.reason.is_some(), "{actor:?}"),
            }
        }
    }
}

/// Whoever was started by nobody's login may write any user to its own.
#[test]
fn a_login_that_an_unprivileged_process_gave_itself_is_nobodys() {
    let test = "a_login_that_an_unprivileged_process_gave_itself_is_nobodys";
    if !nix::unistd::geteuid().is_root() {
        return skip(test, "needs root, to run others' processes");
    }
    if fs::read_to_string("/proc/self/loginuid").is_ok_and(|login| login.trim() != u32::MAX.to_string()) {
        return skip(test, "this test was itself started by a login, which its processes cannot change");
    }
    let _turn = turn();
    const LOGIN: u32 = 4321;
    for (feed, watched) in feeds(test) {
        std::os::unix::fs::chown(&watched.base, Some(USER), None).unwrap();
        let mut touches = Vec::new();
        // Root's own is believed, and what it starts has it.
        for (name, uid) in [("own", USER), ("roots", 0)] {
            // It waits, so that what a feed does not tell of a login can be read of it.
            let script = format!(
                "echo {LOGIN} > /proc/self/loginuid || exit 1; echo x >> {name}; read go; /bin/sh -c 'echo x >> {name}.child'; exec /bin/sh -c 'echo x >> {name}.then'"
            );
            let mut shell = Command::new("/bin/sh");
            let shell = shell.args(["-c", &script]).uid(uid).current_dir(&watched.base).stdin(Stdio::piped());
            let mut child = shell.spawn().unwrap();
            let wanted = target(&watched.path(name));
            while !touches.iter().any(|touch: &Touch| touch.target == wanted) {
                match watched.signals.recv_timeout(Duration::from_millis(100)) {
                    Ok(Signal::Touched(touch)) => touches.push(touch),
                    Ok(_) => {}
                    Err(_) if child.try_wait().unwrap().is_some_and(|status| !status.success()) => {
                        return skip(test, "the kernel keeps no logins");
                    }
                    Err(_) => {}
                }
            }
            drop(child.stdin.take());
            assert!(child.wait().unwrap().success());
        }
        touches.extend(watched.touches());
        let (mut told, mut believed) = (0, 0);
        for touch in touches {
            let is_of =
                |name: &str| ["", ".child", ".then"].iter().any(|end| touch.target == target(&watched.path(format!("{name}{end}"))));
            let actor = touch.actor.clone().expect("fanotify names the process");
            let login = actor.user.as_ref().and_then(|user| user.login_uid);
            if is_of("own") {
                told += 1;
                assert!(login.is_none() && actor.session.is_none(), "{feed:?}: {actor:?}");
                assert!(actor.certainty > Certainty::Exact && actor.reason.is_some(), "{feed:?}: {actor:?}");
            } else if is_of("roots") {
                assert!(login.is_none_or(|login| login == LOGIN), "{feed:?}: {actor:?}");
                believed += usize::from(login == Some(LOGIN) && actor.session.is_some());
            }
        }
        assert!(told > 0 && believed > 0, "{feed:?}: {told} of its own, {believed} of root's");
    }
}
