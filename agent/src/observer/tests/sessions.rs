//! Sessions as they begin, end and are let go of, from records by hand.

use std::os::unix::fs::PermissionsExt;

use trueline_drift::change::ChangeKind;
use trueline_drift::{FieldName, Fields, Value};

use super::*;
use crate::actor::login::Logins;
use crate::state::{InventoryComplete, Stored};

const PATIENCE: Duration = Duration::from_secs(60);

/// As logind does it: the whole record at once.
fn record(scene: &Scene, id: u32, terminal: &str) -> PathBuf {
    let text = format!("UID=1000\nUSER=alice\nAUDIT={id}\nREALTIME=5000000\nSERVICE=login\nTTY={terminal}\n");
    let (new, path) = (scene.watched("record"), scene.root(&id.to_string()));
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::rename(new, &path).unwrap();
    path
}

/// With the first inventory taken before the session began.
fn observer(scene: &Scene) -> Observer<Recorder> {
    let complete = InventoryComplete { at: Time::from_seconds(1), items: 0, epoch: Epoch(1) };
    scene.state.set_inventory_complete(complete).unwrap();
    let sink = Recorder { records: Arc::default(), is_enough: Box::new(|_| false), stop: Arc::default() };
    let policy = WatchPolicy { kinds: vec![ItemKind::Session], ..scene.policy() };
    let completion = Completion::of(Some(Logins::of_records(&scene.root(""))), None);
    Observer::new(ObserverParts { completion, ..scene.parts(policy, sink) }, Vec::new())
}

/// What a reading brings, and hands on.
fn told(observer: &mut Observer<Recorder>) -> Vec<RecordBody> {
    observer.compare_sessions(Cause::Event, PATIENCE).unwrap();
    let records = observer.offer.records.clone();
    assert!(observer.hand_on());
    records
}

#[test]
fn a_session_is_created_as_it_begins_and_changes_as_it_ends() {
    let scene = Scene::new();
    let path = record(&scene, 7, "tty1");
    let mut observer = observer(&scene);
    let [RecordBody::Changed(began)] = &told(&mut observer)[..] else { panic!("no beginning") };
    assert_eq!((began.kind, began.actor.certainty), (ChangeKind::Created, Certainty::Strong));
    let session = began.actor.session.as_ref().unwrap();
    assert_eq!((session.id.as_str(), began.actor.summary().as_str()), (began.item.key.as_str(), "alice"));
    assert_eq!(told(&mut observer), []);
    // What is learnt of it later is no change.
    record(&scene, 7, "tty2");
    let version = |observer: &Observer<Recorder>| observer.parts.completion.logins().unwrap().sessions().version();
    let before = version(&observer);
    std::fs::remove_file(&path).unwrap();
    until("the end", || version(&observer) > before);
    let [RecordBody::Changed(ended)] = &told(&mut observer)[..] else { panic!("no end") };
    let fields: Vec<&str> = ended.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!((ended.kind, fields, ended.actor.certainty), (ChangeKind::Modified, vec!["ended_at"], Certainty::Correlated));
    assert_eq!(ended.actor.session.as_ref().unwrap().id, session.id);
    assert_eq!(told(&mut observer), []);
}

#[test]
fn what_ended_unseen_ends_as_it_is_noticed_and_what_ended_long_ago_is_let_go_of_without_a_change() {
    let scene = Scene::new();
    let now = clock::now();
    let of = |key: &str, ended_at: Option<Time>| {
        let mut fields = Fields::new();
        fields.set(FieldName::known("type"), Value::text("ssh"));
        if let Some(at) = ended_at {
            fields.set(FieldName::known("ended_at"), Value::text(&at.to_string()));
        }
        let item: ItemId = format!("session:{key}").parse().unwrap();
        (item, Some(Stored::told(fields, now)))
    };
    let day = 24 * 3600;
    let known = [of("aaa-1", None), of("aaa-2", Some(now.plus_seconds(-60))), of("aaa-3", Some(now.plus_seconds(-day - 60)))];
    scene.state.apply(&known, None).unwrap();
    let mut observer = observer(&scene);
    let records = told(&mut observer);
    let [RecordBody::Changed(ended), RecordBody::Unwatched { item, .. }] = &records[..] else { panic!("{records:?}") };
    assert_eq!((ended.item.key.as_str(), ended.cause, ended.actor.certainty), ("aaa-1", Cause::Rescan, Certainty::Unknown));
    assert_eq!(item.key.as_str(), "aaa-3");
    assert_eq!(told(&mut observer), []);
    assert_eq!(scene.state.count(ItemKind::Session).unwrap(), 2);
}

#[test]
fn one_that_is_older_than_the_inventory_is_no_change() {
    let scene = Scene::new();
    record(&scene, 7, "tty1");
    let mut observer = observer(&scene);
    let complete = InventoryComplete { at: Time::from_seconds(6), items: 0, epoch: Epoch(1) };
    scene.state.set_inventory_complete(complete).unwrap();
    let records = told(&mut observer);
    assert!(matches!(&records[..], [RecordBody::Observed(seen)] if seen.item.kind == ItemKind::Session), "{records:?}");
}
