//! Taking batches: exactly once, in order, none harming another.

use trueline_drift::{Epoch, Fields, HostId, RecordBody, Sequence};
use trueline_proto::ChainLink;
use trueline_store::{AppendOutcome, ChangeFilter, HostItem, ItemFilter};
use uuid::Uuid;

use crate::world::{Sender, World, at, changed, facts, gap, inventory_complete, item, main, observed, page, removed};

fn accepted(acknowledged: u64, changes: u64) -> AppendOutcome {
    AppendOutcome::Accepted { acknowledged: Sequence(acknowledged), changes }
}

async fn items(world: &World, sender: &Sender) -> Vec<HostItem> {
    world.store.host_items(&main(), sender.id, &ItemFilter::default(), page(1000)).await.unwrap().items
}

async fn sequences(world: &World, host: HostId) -> Vec<u64> {
    let filter = ChangeFilter { host: Some(host), ..ChangeFilter::default() };
    let mut changes = world.store.changes(&main(), &filter, page(5000)).await.unwrap().items;
    changes.reverse();
    changes.iter().map(|change| change.sequence.0).collect()
}

pub async fn a_refused_batch_does_not_harm_the_others(world: &World) {
    let mut hosts = Vec::new();
    for name in ["good", "gap", "chain", "stale", "revoked"] {
        hosts.push(world.host(name).await);
    }
    let stranger = Sender { id: HostId(Uuid::now_v7()), ..hosts[0].clone() };
    let record = || vec![changed("file:/etc/a", "sha256", "a", "b")];
    hosts[1].next = Sequence(3);
    hosts[2].link = ChainLink([7; 32]);
    hosts[3].epoch = Epoch(0);
    world.store.revoke_host(&main(), hosts[4].id, at(2)).await.unwrap();
    let mut batches: Vec<_> = hosts.iter().cloned().map(|mut host| host.batch(record())).collect();
    batches.insert(0, stranger.clone().batch(record()));
    let outcomes = world.store.append(batches, at(100)).await.unwrap();
    assert_eq!(
        outcomes,
        [
            AppendOutcome::UnknownHost,
            accepted(1, 1),
            AppendOutcome::SequenceGap { expected: Sequence(1), got: Sequence(3) },
            AppendOutcome::BrokenChain { at: Sequence(1) },
            AppendOutcome::StaleEpoch { current: Epoch(1) },
            AppendOutcome::Revoked,
        ]
    );
    let all = world.store.changes(&main(), &ChangeFilter::default(), page(10)).await.unwrap().items;
    assert_eq!(all.iter().map(|change| change.host).collect::<Vec<_>>(), [hosts[0].id]);
}

pub async fn what_was_taken_before_is_dropped(world: &World) {
    let mut host = world.host("web").await;
    let first = host.batch(vec![changed("file:/a", "owner", "1", "2"), gap(), changed("file:/a", "owner", "2", "3")]);
    let second = host.batch(vec![changed("file:/a", "owner", "3", "4")]);
    let outcomes = world.store.append(vec![first.clone(), first.clone(), second.clone()], at(100)).await.unwrap();
    assert_eq!(outcomes, [accepted(3, 2), accepted(3, 0), accepted(4, 1)]);
    // Both again as one, with one more record: as an agent does that never saw the acknowledgement.
    let mut whole = first.clone();
    whole.records.extend(second.records.clone());
    whole.records.push(changed("file:/a", "owner", "4", "5"));
    let outcomes = world.store.append(vec![second, whole], at(101)).await.unwrap();
    assert_eq!(outcomes, [accepted(4, 0), accepted(5, 1)]);
    assert_eq!(sequences(world, host.id).await, [1, 3, 4, 5]);
    assert_eq!(world.store.gaps(&main(), &Default::default(), page(10)).await.unwrap().items.len(), 1);
    let shown = world.store.host(&main(), "web").await.unwrap().unwrap();
    assert_eq!((shown.epoch, shown.acknowledged, shown.last_seen_at), (Epoch(1), Sequence(5), Some(at(101))));
}

pub async fn a_new_epoch_begins_anew(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, vec![changed("file:/a", "owner", "1", "2")]).await;
    let stands = world.store.host_connected(host.id, &facts("web"), "0.1.0", Epoch(1), at(3)).await.unwrap();
    assert_eq!((stands.acknowledged, stands.link), (Sequence(1), host.link));
    let stands = world.store.host_connected(host.id, &facts("web"), "0.1.0", Epoch(2), at(4)).await.unwrap();
    assert_eq!((stands.acknowledged, stands.link), (Sequence(0), ChainLink::START));
    let stale = host.batch(vec![changed("file:/a", "owner", "2", "3")]);
    let mut anew = Sender::new(host.id, Epoch(2));
    let anew = anew.batch(vec![changed("file:/a", "owner", "3", "4")]);
    let outcomes = world.store.append(vec![stale, anew], at(100)).await.unwrap();
    assert_eq!(outcomes, [AppendOutcome::StaleEpoch { current: Epoch(2) }, accepted(1, 1)]);
    assert!(world.store.host_connected(host.id, &facts("web"), "0.1.0", Epoch(u64::MAX), at(4)).await.is_err());
}

pub async fn the_state_of_an_item_is_its_last_change(world: &World) {
    let mut host = world.host("web").await;
    let seen = || Fields::new().with("owner", "1").with("mode", "0644");
    world.send(&mut host, vec![observed("file:/a", seen()), observed("file:/b", seen()), observed("file:/c", seen())]).await;
    world
        .send(
            &mut host,
            vec![changed("file:/a", "owner", "1", "2"), changed("file:/a", "owner", "2", "3"), removed("file:/b", "owner", "1")],
        )
        .await;
    let items = items(world, &host).await;
    assert_eq!(items.len(), 2);
    let a = items.iter().find(|found| found.item == item("file:/a")).unwrap();
    assert_eq!(a.fields, Fields::new().with("owner", "3").with("mode", "0644"));
    assert_eq!(a.observed_at, at(21));
    world.send(&mut host, vec![inventory_complete(2)]).await;
    assert_eq!(world.store.host(&main(), "web").await.unwrap().unwrap().items, 2);
}

pub async fn what_an_inventory_does_not_see_is_gone(world: &World) {
    let mut host = world.host("web").await;
    let seen = || Fields::new().with("owner", "1");
    world.send(&mut host, vec![observed("file:/a", seen()), observed("file:/b", seen()), inventory_complete(2)]).await;
    assert_eq!(items(world, &host).await.len(), 2);
    let mut anew = Sender::new(host.id, Epoch(2));
    world.send(&mut anew, vec![observed("file:/b", seen())]).await;
    assert_eq!(items(world, &host).await.len(), 2, "an inventory that is under way says nothing of what is missing");
    world.send(&mut anew, vec![inventory_complete(1)]).await;
    let left = items(world, &host).await;
    assert_eq!(left.iter().map(|found| found.item.to_string()).collect::<Vec<_>>(), ["file:/b"]);
    let shown = world.store.host(&main(), "web").await.unwrap().unwrap();
    assert_eq!((shown.items, shown.inventory_completed_at), (1, Some(at(11))));
}

pub async fn long_and_hostile_keys_come_back_whole(world: &World) {
    let mut host = world.host("web").await;
    let keys = [
        format!("file:/{}", "x".repeat(65_000)),
        format!("file:/{}y", "x".repeat(64_999)),
        "file:/tmp/'; DROP TABLE items; --".to_owned(),
        "file:/tmp/\"quoted\" $1 {rows} % _".to_owned(),
        "file:/tmp/nul\u{0}and\u{1b}[2Jescape".to_owned(),
        "file:/tmp/\u{1f980}".to_owned(),
    ];
    let value = || Fields::new().with("link_target", "'\"\u{1f980}\\x00");
    world.send(&mut host, keys.iter().map(|key| observed(key, value())).collect()).await;
    world.send(&mut host, keys.iter().map(|key| changed(key, "link_target", "a'", "b\"")).collect()).await;
    let mut found: Vec<_> = items(world, &host).await.into_iter().map(|found| found.item).collect();
    let mut expected: Vec<_> = keys.iter().map(|key| item(key)).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    for key in &keys {
        let filter = ChangeFilter { item: Some(item(key)), ..ChangeFilter::default() };
        let changes = world.store.changes(&main(), &filter, page(10)).await.unwrap().items;
        assert_eq!(changes.len(), 1, "{}", &key[..20.min(key.len())]);
        assert_eq!(changes[0].change.item, item(key));
    }
    let prefix = ItemFilter { kind: None, prefix: Some("/tmp/\"".into()) };
    let found = world.store.host_items(&main(), host.id, &prefix, page(10)).await.unwrap().items;
    assert_eq!(found.len(), 1, "a prefix is text, not a pattern");
}

pub async fn a_group_of_many_rows_is_taken_whole(world: &World) {
    let mut batches = Vec::new();
    let mut senders = Vec::new();
    for number in 0..3 {
        senders.push(world.host(&format!("host-{number}")).await);
    }
    for sender in &mut senders {
        for part in 0..2 {
            let records: Vec<RecordBody> =
                (0..1234).map(|n| changed(&format!("file:/{}", n % 700), "owner", &part.to_string(), &n.to_string())).collect();
            batches.push(sender.batch(records));
        }
    }
    let outcomes = world.store.append(batches, at(100)).await.unwrap();
    assert!(outcomes.iter().all(|outcome| matches!(outcome, AppendOutcome::Accepted { changes: 1234, .. })), "{outcomes:?}");
    for sender in &senders {
        assert_eq!(items(world, sender).await.len(), 700);
        assert_eq!(sequences(world, sender.id).await, (1..=2468).collect::<Vec<_>>());
    }
}

pub async fn concurrent_appends_take_each_record_once(world: &World) {
    let mut host = world.host("web").await;
    let batches: Vec<_> = (0..20).map(|n| host.batch(vec![changed("file:/a", "owner", &n.to_string(), &(n + 1).to_string())])).collect();
    let other = world.another().await;
    let mut tasks = Vec::new();
    for store in [world.store.clone(), other] {
        let batches = batches.clone();
        tasks.push(tokio::spawn(async move {
            let mut taken = 0;
            for batch in batches {
                // Whoever is behind is told where the stream stands, and what it offers is dropped.
                match &store.append(vec![batch], at(100)).await.unwrap()[..] {
                    [AppendOutcome::Accepted { changes, .. }] => taken += changes,
                    refused => panic!("{refused:?}"),
                }
            }
            taken
        }));
    }
    let mut taken = 0;
    for task in tasks {
        taken += task.await.unwrap();
    }
    assert_eq!(taken, 20);
    assert_eq!(sequences(world, host.id).await, (1..=20).collect::<Vec<_>>());
}

pub async fn migrating_twice_at_once_is_migrating_once(world: &World) {
    let (one, two) = (world.another().await, world.another().await);
    let (one, two) = tokio::join!(one.migrate(&|_| {}), two.migrate(&|_| {}));
    one.unwrap();
    two.unwrap();
    world.store.probe(at(1)).await.unwrap();
}
