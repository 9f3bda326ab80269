//! Files with several names.

use super::*;
use crate::observer::settle::Settled;

fn item(scene: &Scene, name: &str) -> ItemId {
    format!("file:{}", printable(&scene.watched(name))).parse().unwrap()
}

fn settled(scene: &Scene, name: &str, process: u32) -> Settled {
    Settled {
        target: Target::Path(scene.watched(name).as_os_str().as_bytes().to_vec()),
        depth: Depth::Item,
        actor: Some(strong(process)),
        shared: false,
        wrote: true,
        entry: None,
        before: None,
        touched_at: clock::now(),
        missed_at: None,
        held: None,
        generation: None,
        limit: std::time::Instant::now(),
    }
}

fn observer(scene: &Scene) -> Observer<Recorder> {
    let sink = Recorder { records: Arc::default(), is_enough: Box::new(|_| false), stop: Arc::default() };
    Observer::new(scene.parts(scene.policy(), sink), Vec::new())
}

/// Each change as `name kind certainty process`, in order of names.
fn told(records: &[RecordBody]) -> Vec<String> {
    let brief = |record: &RecordBody| match record {
        RecordBody::Changed(change) => {
            let name = change.item.key.as_str().rsplit('/').next().unwrap().to_owned();
            let process = change.actor.process.as_ref().map_or(0, |process| process.pid);
            Some(format!("{name} {} {} {process}", change.kind.name(), change.actor.certainty.name()))
        }
        _ => None,
    };
    let mut told: Vec<String> = records.iter().filter_map(brief).collect();
    told.sort_unstable();
    told
}

#[test]
fn what_is_written_by_one_name_is_told_of_both() {
    let mut scene = Scene::new();
    std::fs::write(scene.watched("a"), "old").unwrap();
    std::fs::hard_link(scene.watched("a"), scene.watched("b")).unwrap();
    let records = scene.run(scene.policy(), inventory(), Box::new(|records| changed(records).len() == 2), |scene, _| {
        until("both are known", || ["a", "b"].iter().all(|name| scene.state.lookup(&item(scene, name)).unwrap().is_some()));
        std::fs::write(scene.watched("b"), "new").unwrap();
        scene.touch_as(&scene.watched("b"), Some(7), Depth::Item);
    });
    assert_eq!(told(&records), ["a modified strong 7", "b modified strong 7"]);
}

#[test]
fn a_file_that_gets_a_second_name_is_found_by_its_first() {
    let mut scene = Scene::new();
    std::fs::write(scene.watched("a"), "old").unwrap();
    let records = scene.run(scene.policy(), inventory(), Box::new(|records| changed(records).len() == 2), |scene, _| {
        until("it is known", || scene.state.lookup(&item(scene, "a")).unwrap().is_some());
        std::fs::hard_link(scene.watched("a"), scene.watched("b")).unwrap();
        scene.touch_as(&scene.watched("b"), Some(7), Depth::Item);
    });
    assert_eq!(told(&records), ["a modified strong 7", "b created strong 7"]);
}

#[test]
fn which_of_two_who_touched_it_by_either_name_is_not_known() {
    let scene = Scene::new();
    std::fs::write(scene.watched("a"), "old").unwrap();
    std::fs::hard_link(scene.watched("a"), scene.watched("b")).unwrap();
    let mut observer = observer(&scene);
    for name in ["a", "b"] {
        observer.read_and_compare(&item(&scene, name), None, Cause::Rescan, &Actor::unknown("test"));
    }
    observer.offer.records.clear();
    std::fs::write(scene.watched("a"), "new").unwrap();
    observer.examine(vec![settled(&scene, "a", 7), settled(&scene, "b", 9)]);
    assert_eq!(told(&observer.offer.records), ["a modified correlated 7", "b modified correlated 9"]);
}

#[test]
fn nobody_is_sure_who_wrote_a_file_that_has_a_name_out_of_view() {
    let scene = Scene::new();
    std::fs::write(scene.watched("a"), "old").unwrap();
    std::fs::hard_link(scene.watched("a"), scene.root("b")).unwrap();
    let mut observer = observer(&scene);
    observer.read_and_compare(&item(&scene, "a"), None, Cause::Rescan, &Actor::unknown("test"));
    observer.offer.records.clear();
    std::fs::write(scene.watched("a"), "new").unwrap();
    observer.examine(vec![settled(&scene, "a", 7)]);
    assert_eq!(told(&observer.offer.records), ["a modified correlated 7"]);
}
