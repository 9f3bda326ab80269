//! Comparing a host's whole state with its baseline: when it is due, and what it covers.

use std::collections::{BTreeMap, BTreeSet};

use trueline_drift::baseline::{self, BaselineDocument, ExpectedItem};
use trueline_drift::{Epoch, Fields, HostId, TenantId};
use trueline_store::{CompareRow, Compared, Comparison, DriftState, DriftWrite, Page, Position, StoreError};

use crate::judging::{WEB, capture, drifts, seen};
use crate::world::{PAGES, Sender, World, at, changed, facts, inventory_complete, item, main, observed, page, turn};

pub async fn an_item_that_only_the_baseline_knows_gets_drift(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, vec![inventory_complete(0)]).await;
    let document = BaselineDocument::parse("web.yaml", WEB).unwrap();
    let baseline = world.store.write_baseline(&main(), &document, "token:ops", at(200)).await.unwrap();
    world.store.assign_baseline(&main(), host.id, baseline.id).await.unwrap();
    world.compare(10).await;
    assert_eq!(drifts(world).await.len(), 2, "two items that should be there are not");
    let shown = world.store.host_items(&main(), host.id, &Default::default(), page(10)).await.unwrap();
    assert!(shown.items.is_empty(), "what is not on the host is not listed as on it");
    world.send(&mut host, vec![changed("file:/a", "owner", "0", "1")]).await;
    world.judge().await;
    let a: Vec<_> = drifts(world).await.into_iter().filter(|drift| drift.item == item("file:/a")).collect();
    assert_eq!((a.len(), a[0].state, a[0].resolved_by), (1, DriftState::Resolved, Some(Position(1))));
}

pub async fn a_baseline_is_read_back_as_it_was_written_or_captured(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, vec![observed("file:/a", seen()), observed("file:/b", seen()), inventory_complete(2)]).await;
    let document = BaselineDocument::parse("web.yaml", WEB).unwrap();
    let written = world.store.write_baseline(&main(), &document, "token:ops", at(200)).await.unwrap();
    let read = async |id: i64, limit: u32| {
        let (mut items, mut after, mut pages) = (BTreeMap::new(), None, PAGES);
        loop {
            turn(&mut pages);
            let listed = world.store.baseline_items(&main(), id, Page { limit, after }).await.unwrap();
            items.extend(listed.items.into_iter().map(|listed| (listed.item, listed.expected)));
            after = listed.next;
            if after.is_none() {
                return items;
            }
        }
    };
    for limit in [1, 100] {
        assert_eq!(read(written.id, limit).await, document.items);
    }
    let captured = capture(world, host.id, Vec::new()).await;
    let of_a = captured_fields(&seen());
    assert_eq!(read(captured.id, 1).await, BTreeMap::from([(item("file:/a"), of_a.clone()), (item("file:/b"), of_a)]));
    let stranger = world.store.baseline_items(&TenantId("stranger".to_owned()), written.id, page(10)).await.unwrap();
    assert!(stranger.items.is_empty(), "nothing crosses a tenant");
    let asked = [item("file:/a"), item("file:/c"), item("user:a")];
    assert_eq!(world.store.present_items(&main(), host.id, &asked).await.unwrap(), [item("file:/a")]);
    assert!(world.store.present_items(&main(), host.id, &[]).await.unwrap().is_empty());
}

pub async fn sessions_and_runs_come_and_go_without_drift_from_what_was_captured(world: &World) {
    let mut host = world.host("web").await;
    let session = |key: &str| observed(&format!("session:{key}"), Fields::new().with("user", "alice"));
    let run = |key: &str| observed(&format!("run:{key}"), Fields::new().with("tool", "apt"));
    let before = vec![observed("file:/a", seen()), session("aaa-1"), run("apt-1"), inventory_complete(3)];
    world.send(&mut host, before).await;
    let captured = capture(world, host.id, Vec::new()).await;
    let held = world.store.baseline_items(&main(), captured.id, page(10)).await.unwrap().items;
    assert_eq!(held.into_iter().map(|held| held.item).collect::<Vec<_>>(), [item("file:/a")]);
    let after =
        vec![session("aaa-2"), changed("session:aaa-1", "ended_at", "1", "2"), run("apt-2"), changed("run:apt-1", "ended_at", "1", "2")];
    world.send(&mut host, after).await;
    world.judge().await;
    world.compare(10).await;
    assert_eq!(drifts(world).await, []);
}

fn captured_fields(fields: &Fields) -> ExpectedItem {
    ExpectedItem::Fields(baseline::captured(fields))
}

pub async fn the_comparison_pages_cover_everything_once(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, (0..50).map(|n| observed(&format!("file:/host/{n}"), seen())).chain([inventory_complete(50)]).collect()).await;
    let items: String =
        (0..50).map(|n| format!("  \"file:/{}/{n}\": {{ owner: \"1\" }}\n", if n % 2 == 0 { "host" } else { "base" })).collect();
    let document = BaselineDocument::parse("web.yaml", &format!("name: web\nitems:\n{items}")).unwrap();
    let baseline = world.store.write_baseline(&main(), &document, "token:ops", at(200)).await.unwrap();
    world.store.assign_baseline(&main(), host.id, baseline.id).await.unwrap();
    let due = world.store.hosts_to_compare(None, 10).await.unwrap().remove(0);
    for limit in [1, 7, 75, 100] {
        let (mut after, mut seen, mut rows, mut pages) = (None, BTreeSet::new(), 0, PAGES);
        loop {
            turn(&mut pages);
            let page = world.store.compare_page(&due, after, limit).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(last.fingerprint);
            rows += page.len();
            seen.extend(page.into_iter().map(|row| row.item));
        }
        assert_eq!((rows, seen.len()), (75, 75), "in pages of {limit}");
    }
    // Asked for again while it was under way: it stays due.
    world.store.assign_baseline(&main(), host.id, baseline.id).await.unwrap();
    world.store.comparison_done(&due).await.unwrap();
    assert_eq!(world.store.hosts_to_compare(None, 10).await.unwrap().len(), 1);
}

pub async fn a_comparison_with_what_no_longer_counts_writes_nothing(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, vec![observed("file:/a", seen()), inventory_complete(1)]).await;
    let without_baseline = world.store.hosts_to_compare(None, 10).await.unwrap().remove(0);
    capture(world, host.id, Vec::new()).await;
    world.send(&mut host, vec![changed("file:/a", "owner", "1", "2")]).await;
    world.judge().await;
    let never = |_: Vec<CompareRow>| -> Vec<DriftWrite> { panic!("nothing is to be decided") };
    assert_eq!(world.store.compare(&without_baseline, None, 10, &never).await.unwrap(), Compared::Superseded);
    world.compare(10).await;
    assert_eq!(drifts(world).await[0].state, DriftState::Open);
}

/// Hosts that are due, in the order in which they are listed.
async fn due(world: &World) -> Vec<HostId> {
    world.store.hosts_to_compare(None, 10).await.unwrap().into_iter().map(|due| due.host).collect()
}

pub async fn a_host_with_unjudged_changes_is_not_compared(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, vec![observed("file:/a", seen()), inventory_complete(1)]).await;
    let baseline = capture(world, host.id, Vec::new()).await;
    world.send(&mut host, vec![changed("file:/a", "owner", "1", "2")]).await;
    world.judge().await;
    world.store.assign_baseline(&main(), host.id, baseline.id).await.unwrap();
    let was_due = world.store.hosts_to_compare(None, 10).await.unwrap().remove(0);
    world.send(&mut host, vec![changed("file:/a", "owner", "2", "1")]).await;
    assert_eq!(due(world).await, []);
    // Nor by who read before that it was due.
    let never = |_: Vec<CompareRow>| -> Vec<DriftWrite> { panic!("nothing is to be decided") };
    assert_eq!(world.store.compare(&was_due, None, 10, &never).await.unwrap(), Compared::Unjudged);
    world.judge().await;
    assert_eq!(due(world).await, [host.id]);
    world.compare(10).await;
    let resolved = drifts(world).await;
    assert_eq!((resolved.len(), resolved[0].state, resolved[0].resolved_by), (1, DriftState::Resolved, Some(Position(2))));
}

pub async fn a_host_is_compared_and_captured_only_when_its_inventory_is_whole(world: &World) {
    let host = world.host("web").await;
    let document = BaselineDocument::parse("web.yaml", WEB).unwrap();
    let written = world.store.write_baseline(&main(), &document, "token:ops", at(200)).await.unwrap();
    let refusal = async || match world.capture(&main(), host.id, Vec::new()).await {
        Err(StoreError::Invalid { subject: "capture", reason }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(refusal().await.contains("wait for it"));
    world.store.assign_baseline(&main(), host.id, written.id).await.unwrap();
    let mut sender = host.clone();
    world.send(&mut sender, vec![observed("file:/a", seen())]).await;
    assert_eq!(due(world).await, []);
    world.send(&mut sender, vec![inventory_complete(1)]).await;
    assert_eq!(due(world).await, [host.id]);
    let was_due = world.store.hosts_to_compare(None, 10).await.unwrap().remove(0);

    // The agent begins anew: what the old epoch listed says nothing of the new one.
    world.store.host_connected(host.id, &facts("web"), "0.1.0", Epoch(2), at(2)).await.unwrap();
    let mut anew = Sender::new(host.id, Epoch(2));
    world.send(&mut anew, vec![observed("file:/a", seen())]).await;
    assert_eq!(due(world).await, []);
    assert!(refusal().await.contains("wait for it"));
    let never = |_: Vec<CompareRow>| -> Vec<DriftWrite> { panic!("nothing is to be decided") };
    assert_eq!(world.store.compare(&was_due, None, 10, &never).await.unwrap(), Compared::Superseded);
    // The end of the one and the beginning of another in one append: only the first is whole.
    let ended = anew.batch(vec![inventory_complete(1)]);
    let mut third = Sender::new(host.id, Epoch(3));
    let begun = third.batch(vec![observed("file:/b", seen())]);
    world.store.append(vec![ended, begun], at(100)).await.unwrap();
    assert_eq!(due(world).await, []);
    world.send(&mut third, vec![inventory_complete(1)]).await;
    assert_eq!(due(world).await, [host.id]);
    let capture = capture(world, host.id, Vec::new()).await;
    assert_eq!(capture.items, 1);
}

pub async fn hosts_to_compare_are_listed_beyond_those_that_stay_due(world: &World) {
    let mut all = BTreeSet::new();
    for number in 0..5 {
        let mut host = world.host(&format!("web{number}")).await;
        world.send(&mut host, vec![inventory_complete(0)]).await;
        all.insert(host.id);
    }
    let (mut after, mut listed, mut pages) = (None, Vec::new(), PAGES);
    loop {
        turn(&mut pages);
        let hosts = world.store.hosts_to_compare(after, 2).await.unwrap();
        let Some(last) = hosts.last() else { break };
        after = Some(last.host);
        listed.extend(hosts.iter().map(|due| due.host));
    }
    assert_eq!(listed.len(), 5, "none is compared, and none is listed twice");
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), all);
}

pub async fn a_comparison_is_pending_until_all_that_is_known_is_judged_and_compared(world: &World) {
    use Comparison::{Current, Pending};
    let shown = async || {
        let one = world.store.host(&main(), "web").await.unwrap().unwrap();
        let listed = world.store.hosts(&main(), page(10)).await.unwrap().items.remove(0);
        assert_eq!(one, listed);
        (one.comparison, one.open_drifts)
    };
    let mut host = world.host("web").await;
    world.send(&mut host, vec![observed("file:/a", seen()), inventory_complete(1)]).await;
    assert_eq!(shown().await, (None, 0), "without a baseline there is nothing to compare with");
    capture(world, host.id, Vec::new()).await;
    assert_eq!(shown().await, (Some(Pending), 0));
    world.compare(10).await;
    assert_eq!(shown().await, (Some(Current), 0));

    world.send(&mut host, vec![changed("file:/a", "owner", "1", "2")]).await;
    assert_eq!(shown().await, (Some(Pending), 0), "a change that is not judged may be drift");
    world.judge().await;
    assert_eq!(shown().await, (Some(Current), 1));
    // What another host has waiting is no concern of this one.
    let mut other = world.host("x").await;
    world.send(&mut other, vec![changed("file:/a", "owner", "1", "2")]).await;
    assert_eq!(shown().await, (Some(Current), 1));

    let document = BaselineDocument::parse("web.yaml", WEB).unwrap();
    let written = world.store.write_baseline(&main(), &document, "token:ops", at(200)).await.unwrap();
    world.judge().await;
    world.store.assign_baseline(&main(), host.id, written.id).await.unwrap();
    assert_eq!(shown().await, (Some(Pending), 1), "the drift is that of the baseline before");
    world.compare(10).await;
    assert_eq!(shown().await, (Some(Current), 2));

    world.store.host_connected(host.id, &facts("web"), "0.1.0", Epoch(2), at(2)).await.unwrap();
    assert_eq!(shown().await.0, Some(Pending), "the host tells what it has anew");
    let mut anew = Sender::new(host.id, Epoch(2));
    world.send(&mut anew, vec![observed("file:/a", seen()), inventory_complete(1)]).await;
    assert_eq!(shown().await.0, Some(Pending));
    world.compare(10).await;
    assert_eq!(shown().await, (Some(Current), 1));
}
