//! Who may have made what a scan found, from records of logins and a log of packages by hand.

use std::os::unix::fs::PermissionsExt;

use trueline_drift::candidate::{Candidates, Match};

use super::*;
use crate::actor::login::Logins;
use crate::state::{InventoryComplete, Stored};

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).unwrap();
}

/// An observer that knew the file `hosts` an hour ago, and nothing of what came since.
fn observer(scene: &Scene, sessions: &Path) -> Observer<Recorder> {
    observer_of(scene, sessions, vec![ItemKind::Session, ItemKind::Package])
}

fn observer_of(scene: &Scene, sessions: &Path, kinds: Vec<ItemKind>) -> Observer<Recorder> {
    let hour_ago = clock::now().plus_seconds(-3600);
    let complete = InventoryComplete { at: hour_ago, items: 0, epoch: Epoch(1) };
    scene.state.set_inventory_complete(complete).unwrap();
    let fields = [(trueline_drift::FieldName::known("type"), trueline_drift::Value::text("file"))].into_iter().collect();
    scene.state.apply(&[(hosts(scene), Some(Stored::told(fields, hour_ago)))], None).unwrap();
    std::fs::write(scene.watched("hosts"), "new").unwrap();
    let sink = Recorder { records: Arc::default(), is_enough: Box::new(|_| false), stop: Arc::default() };
    let logins = Logins::of_records(sessions);
    assert!(logins.sessions().read_within(Duration::from_secs(60)).is_read);
    let completion = Completion::of(Some(logins), None);
    let mut observer =
        Observer::new(ObserverParts { completion, ..scene.parts(WatchPolicy { kinds, ..scene.policy() }, sink) }, Vec::new());
    // All was read last then.
    observer.complete_at = hour_ago;
    observer
}

fn hosts(scene: &Scene) -> ItemId {
    format!("file:{}", printable(&scene.watched("hosts"))).parse().unwrap()
}

/// In a host without a time zone of its own, local time is UTC.
fn local(seconds_ago: i64) -> String {
    clock::now().plus_seconds(-seconds_ago).to_string()[..19].replace('T', " ")
}

/// A login on the console that began this long ago and goes on.
fn login(folder: &Path, id: u32, seconds: i64) {
    let began = clock::now().plus_seconds(-seconds).micros();
    write(&folder.join(id.to_string()), &format!("UID=1000\nUSER=alice\nAUDIT={id}\nREALTIME={began}\nSERVICE=login\nTTY=tty1\n"));
}

/// What is handed on after the file was read for this actor.
fn told(scene: &Scene, observer: &mut Observer<Recorder>, cause: Cause, actor: &Actor) -> Change {
    observer.read_and_compare(&hosts(scene), None, cause, actor);
    assert!(observer.hand_on());
    let records = observer.parts.sink.records.lock().unwrap();
    let [RecordBody::Changed(change)] = &records[..] else { panic!("{records:?}") };
    (**change).clone()
}

fn lines(candidates: &Candidates) -> Vec<(String, Match)> {
    candidates.offered.iter().map(|candidate| (candidate.summary(), candidate.matched)).collect()
}

#[test]
fn what_a_scan_found_has_the_sessions_of_its_window_beside_an_actor_that_stays_unknown() {
    let scene = Scene::new();
    let sessions = scene.root("sessions");
    login(&sessions, 7, 60);
    let mut observer = observer(&scene, &sessions);
    let unknown = Why::Schedule.actor();
    let change = told(&scene, &mut observer, Cause::Rescan, &unknown);
    assert_eq!(change.actor, unknown);
    let [(summary, Match::Time)] = &lines(&change.candidates)[..] else { panic!("{:?}", change.candidates) };
    assert!(summary.starts_with("alice's console session ") && summary.ends_with("-7"), "{summary}");
}

#[test]
fn who_is_named_has_nobody_beside_him() {
    let scene = Scene::new();
    let sessions = scene.root("sessions");
    login(&sessions, 7, 60);
    let mut observer = observer(&scene, &sessions);
    let change = told(&scene, &mut observer, Cause::Event, &strong(812));
    assert_eq!((change.actor.certainty, change.candidates), (Certainty::Strong, Candidates::default()));
}

#[test]
fn a_package_that_came_in_the_window_and_has_the_file_comes_before_what_agrees_in_time_alone() {
    let scene = Scene::new();
    let sessions = scene.root("sessions");
    login(&sessions, 7, 60);
    let line = |seconds: i64, package: &str| format!("{} install {package}:amd64 <none> 1.0\n", local(seconds));
    let log = scene.folder.path().canonicalize().unwrap().join("root/var/log/dpkg.log");
    write(&log, &[line(7200, "before"), line(120, "netbase"), line(100, "other")].concat());
    write(&scene.root("var/lib/dpkg/info/netbase.list"), &format!("/.\n{}\n", scene.watched("hosts").display()));
    let mut observer = observer(&scene, &sessions);
    let change = told(&scene, &mut observer, Cause::Rescan, &Why::Schedule.actor());
    let offered = lines(&change.candidates);
    assert_eq!(offered[0], ("install of netbase 1.0".to_owned(), Match::ObjectAndTime));
    assert_eq!((offered.len(), offered[2].clone()), (3, ("install of other 1.0".to_owned(), Match::Time)));
    assert_eq!(change.actor.certainty, Certainty::Unknown);
}

/// One that ended while no agent ran is known to the state alone.
#[test]
fn a_session_that_only_the_state_still_knows_is_a_candidate() {
    let scene = Scene::new();
    let sessions = scene.root("sessions");
    std::fs::create_dir_all(&sessions).unwrap();
    let text = |name: &'static str, text: String| (trueline_drift::FieldName::known(name), trueline_drift::Value::text(&text));
    let ago = |seconds: i64| clock::now().plus_seconds(-seconds).to_string();
    let fields = [
        text("type", "ssh".to_owned()),
        text("certainty", "strong".to_owned()),
        text("user", "bob".to_owned()),
        text("origin", "10.0.0.9 port 22022".to_owned()),
        text("began_at", ago(1800)),
        text("ended_at", ago(900)),
    ];
    let item: ItemId = "session:aaaabbbbcccc-3".parse().unwrap();
    let stored = Stored::told(fields.into_iter().collect(), clock::now());
    scene.state.apply(&[(item, Some(stored))], None).unwrap();
    let mut observer = observer(&scene, &sessions);
    let change = told(&scene, &mut observer, Cause::Rescan, &Why::Schedule.actor());
    assert_eq!(lines(&change.candidates), [("bob's ssh session aaaabbbbcccc-3 from 10.0.0.9 port 22022".to_owned(), Match::Time)]);
}

#[test]
fn what_is_not_to_be_told_is_no_candidate_either() {
    for (kinds, expected) in [(vec![ItemKind::Session], 1), (vec![ItemKind::Package], 1), (vec![], 0)] {
        let scene = Scene::new();
        let sessions = scene.root("sessions");
        login(&sessions, 7, 60);
        write(&scene.root("var/log/dpkg.log"), &format!("{} install jq:amd64 <none> 1.6\n", local(900)));
        let mut observer = observer_of(&scene, &sessions, kinds.clone());
        let change = told(&scene, &mut observer, Cause::Rescan, &Why::Schedule.actor());
        assert_eq!(change.candidates.offered.len(), expected, "{kinds:?}: {change:?}");
    }
}

#[test]
fn what_ended_before_all_was_read_unchanged_is_no_candidate() {
    let scene = Scene::new();
    let sessions = scene.root("sessions");
    std::fs::create_dir_all(&sessions).unwrap();
    write(&scene.root("var/log/dpkg.log"), &format!("{} install jq:amd64 <none> 1.6\n", local(900)));
    for (read_ago, expected) in [(1800, 1), (300, 0)] {
        let mut observer = observer(&scene, &sessions);
        observer.complete_at = clock::now().plus_seconds(-read_ago);
        let change = told(&scene, &mut observer, Cause::Rescan, &Why::Schedule.actor());
        assert_eq!(change.candidates.offered.len(), expected, "{change:?}");
    }
}
