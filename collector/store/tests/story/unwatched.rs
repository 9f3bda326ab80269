//! Items that are in view no longer: what was last known of them stays, and is not taken for how they are.

use trueline_drift::baseline::BaselineDocument;
use trueline_drift::{Epoch, Fields, RecordBody};
use trueline_store::{DriftState, KnownState};

use crate::judging::{capture, drifts, seen};
use crate::world::{Sender, World, at, changed, facts, inventory_complete, item, main, observed, page};

fn unwatched(name: &str) -> RecordBody {
    RecordBody::Unwatched { item: item(name), observed_at: at(30) }
}

/// How many items the host is said to have, and which are listed.
async fn items(world: &World, host: &Sender) -> (u64, Vec<String>) {
    let shown = world.store.host(&main(), &host.id.to_string()).await.unwrap().unwrap();
    let listed = world.store.host_items(&main(), host.id, &Default::default(), page(100)).await.unwrap().items;
    let mut names: Vec<String> = listed.into_iter().map(|listed| listed.item.to_string()).collect();
    names.sort();
    (shown.items, names)
}

/// What is to be compared of an item.
async fn state(world: &World, name: &str) -> Option<KnownState> {
    let due = world.store.hosts_to_compare(None, 10).await.unwrap().remove(0);
    let rows = world.store.compare_page(&due, None, 100).await.unwrap();
    rows.into_iter().find(|row| row.item == item(name)).map(|row| row.state)
}

pub async fn what_is_in_view_no_longer_is_not_listed_counted_or_captured(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, vec![observed("file:/a", seen()), observed("file:/b", seen()), inventory_complete(2)]).await;
    world.send(&mut host, vec![unwatched("file:/a"), unwatched("file:/never"), inventory_complete(1)]).await;
    let only_b = (1, vec!["file:/b".to_owned()]);
    assert_eq!(items(world, &host).await, only_b);
    assert_eq!(capture(world, host.id, Vec::new()).await.items, 1);

    // Said in the append in which it was seen, with what follows upon it.
    world.send(&mut host, vec![observed("file:/c", seen()), changed("file:/c", "owner", "1", "2"), unwatched("file:/c")]).await;
    assert_eq!(items(world, &host).await, only_b);
    world.send(&mut host, vec![observed("file:/a", seen())]).await;
    assert_eq!(items(world, &host).await, (2, vec!["file:/a".to_owned(), "file:/b".to_owned()]), "it is watched again");
}

pub async fn drift_of_what_is_in_view_no_longer_keeps_its_last_value(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, vec![observed("file:/a", seen()), observed("file:/b", seen()), inventory_complete(2)]).await;
    capture(world, host.id, Vec::new()).await;
    world.compare(10).await;
    world.send(&mut host, vec![changed("file:/a", "owner", "1", "2")]).await;
    world.judge().await;
    world.send(&mut host, vec![unwatched("file:/a"), unwatched("file:/b"), inventory_complete(0)]).await;
    assert_eq!(state(world, "file:/a").await, Some(KnownState::Unwatched));
    world.compare(1).await;
    let open = drifts(world).await;
    assert_eq!((open.len(), open[0].state, open[0].actual.clone()), (1, DriftState::Open, Some("2".into())));

    // The end of a later inventory says nothing of it either.
    world.store.host_connected(host.id, &facts("web"), "0.1.0", Epoch(2), at(2)).await.unwrap();
    let mut anew = Sender::new(host.id, Epoch(2));
    world.send(&mut anew, vec![inventory_complete(0)]).await;
    assert_eq!(state(world, "file:/a").await, Some(KnownState::Unwatched));
    world.compare(10).await;
    assert_eq!(drifts(world).await, open);

    // Watched again it is as any other.
    world.send(&mut anew, vec![observed("file:/a", seen()), inventory_complete(1)]).await;
    assert_eq!(state(world, "file:/a").await, Some(KnownState::There(seen())));
    world.compare(10).await;
    assert_eq!(drifts(world).await[0].state, DriftState::Resolved);
}

pub async fn an_item_that_was_never_reported_is_missing_and_one_out_of_view_is_not(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, vec![observed("file:/a", seen()), unwatched("file:/a"), inventory_complete(0)]).await;
    let text = "name: web\nitems:\n  \"file:/a\": { mode: \"0600\" }\n  \"file:/missing\": { mode: \"0600\" }\n";
    let document = BaselineDocument::parse("web.yaml", text).unwrap();
    let baseline = world.store.write_baseline(&main(), &document, "token:ops", at(200)).await.unwrap();
    world.store.assign_baseline(&main(), host.id, baseline.id).await.unwrap();
    assert_eq!(state(world, "file:/a").await, Some(KnownState::Unwatched));
    assert_eq!(state(world, "file:/missing").await, Some(KnownState::Missing));
    world.compare(10).await;
    let open = drifts(world).await;
    assert_eq!((open.len(), open[0].item.clone()), (1, item("file:/missing")));
}

pub async fn items_are_counted_once_while_a_later_inventory_is_under_way(world: &World) {
    let count = async |host: &Sender| items(world, host).await.0;
    let mut host = world.host("web").await;
    let seen_all = || (0..40).map(|n| observed(&format!("file:/{n}"), seen())).collect::<Vec<_>>();
    world.send(&mut host, seen_all()).await;
    assert_eq!(count(&host).await, 40, "an inventory is counted while it is under way");
    world.send(&mut host, vec![inventory_complete(40)]).await;
    world.store.host_connected(host.id, &facts("web"), "0.1.0", Epoch(2), at(2)).await.unwrap();
    let mut anew = Sender::new(host.id, Epoch(2));
    for records in seen_all().chunks(15) {
        world.send(&mut anew, records.to_vec()).await;
        assert_eq!(count(&anew).await, 40);
    }
    let new = vec![observed("file:/new", Fields::new()), observed("file:/new", Fields::new()), observed("file:/0", seen())];
    world.send(&mut anew, new).await;
    assert_eq!(count(&anew).await, 41);
    world.send(&mut anew, vec![inventory_complete(41)]).await;
    assert_eq!(count(&anew).await, 41);
}
