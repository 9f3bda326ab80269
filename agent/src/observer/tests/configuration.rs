//! The host's own configuration, read again while the observer runs.

use super::*;
use crate::link::{Configuration, Configured};

#[test]
fn the_hosts_own_watch_list_counts_once_the_collectors_is_gone() {
    let mut scene = Scene::new();
    for folder in ["one", "two", "three"] {
        std::fs::create_dir(scene.watched(folder)).unwrap();
    }
    let only = |name: &str| WatchPolicy::only_paths(vec![printable(&scene.watched(name))]);
    let (sent, two, three) = (WatchPolicy { version: 7, ..only("one") }, only("two"), only("three"));
    let third = format!("file:{}", three.paths[0]);
    let wanted = third.clone();
    let is_seen = move |records: &[RecordBody], item: &str| {
        records.iter().any(|record| matches!(record, RecordBody::Observed(observation) if observation.item.to_string() == item))
    };
    let records = scene.run(sent.clone(), inventory(), Box::new(move |records| is_seen(records, &wanted)), move |scene, errands| {
        let configure = |watch: &WatchPolicy| {
            let (outcome, answer) = sync_channel(1);
            let configuration = Configuration { watch: watch.clone(), scan_threads: 2, outcome };
            errands.blocking_send(Errand::Configure(Box::new(configuration))).unwrap();
            answer.recv_timeout(Duration::from_secs(60)).unwrap()
        };
        errands.blocking_send(Errand::Policy(Box::new(sent))).unwrap();
        until("the policy is kept", || scene.state.policy().unwrap().is_some_and(|stored| stored.version == 7));
        assert_eq!(configure(&two), Configured::Overruled { version: 7 });
        errands.blocking_send(Errand::OwnPolicy).unwrap();
        until("the policy is forgotten", || scene.state.policy().unwrap().is_none());
        assert_eq!(configure(&three), Configured::InForce);
    });
    assert!(is_seen(&records, &third), "{records:?}");
}
