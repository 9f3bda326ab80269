//! Files that are made and gone before they are read.

use super::*;
use crate::observer::settle::Settled;
use crate::sensor::{Deed, Entry};

const REMOVED: Entry = Entry { last: Deed::Removed, was_made: true, was_renamed_away: false };

/// What is told of a file that is not there and was never known, after this was done to its name, and how many were counted.
fn told(name: &str, entry: Option<Entry>) -> (Vec<String>, u64) {
    let scene = Scene::new();
    let sink = Recorder { records: Arc::default(), is_enough: Box::new(|_| false), stop: Arc::default() };
    let mut observer = Observer::new(scene.parts(scene.policy(), sink), Vec::new());
    let settled = Settled {
        target: Target::Path(scene.watched(name).as_os_str().as_bytes().to_vec()),
        depth: Depth::Item,
        actor: Some(strong(7)),
        shared: false,
        wrote: true,
        entry,
        before: None,
        touched_at: clock::now(),
        missed_at: None,
        held: None,
        generation: None,
        limit: std::time::Instant::now(),
    };
    observer.examine(vec![settled]);
    let told = observer.offer.records.iter().map(|record| match record {
        RecordBody::Changed(change) => {
            let field = change.fields.iter().find(|field| field.name.as_str() == "sha256").unwrap();
            let value = field.before.as_ref().or(field.after.as_ref()).unwrap();
            format!("{} {:?} by {}: {value}", change.kind.name(), change.cause, change.actor.process.as_ref().unwrap().pid)
        }
        other => panic!("{other:?}"),
    });
    (told.collect(), scene.status.transients.load(Ordering::Relaxed))
}

#[test]
fn a_file_that_came_and_went_is_counted_and_told_where_it_lets_people_in() {
    assert_eq!(told("notes", Some(REMOVED)), (Vec::new(), 1));
    let (told, count) = told(".ssh/authorized_keys", Some(REMOVED));
    let gone = "unreadable: it was gone before it could be read";
    assert_eq!(told, [format!("created Event by 7: {gone}"), format!("removed Event by 7: {gone}")]);
    assert_eq!(count, 1);
}

#[test]
fn the_order_of_one_event_for_both_is_not_told_and_does_not_matter() {
    assert_eq!(told("notes", Some(Entry { last: Deed::Made, ..REMOVED })).1, 1);
}

#[test]
fn what_has_another_name_now_or_was_never_seen_to_be_made_did_not_come_and_go() {
    assert_eq!(told(".ssh/new", Some(Entry { was_renamed_away: true, ..REMOVED })), (Vec::new(), 0));
    assert_eq!(told(".ssh/old", Some(Entry { was_made: false, ..REMOVED })), (Vec::new(), 0));
    assert_eq!(told(".ssh/touched", None), (Vec::new(), 0));
}
