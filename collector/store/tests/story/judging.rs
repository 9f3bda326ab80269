//! Judgements, drift and baselines.

use std::collections::BTreeSet;

use trueline_drift::baseline::{BaselineDocument, ClosedScope};
use trueline_drift::pattern::Pattern;
use trueline_drift::{Epoch, Fields, HostId, ItemKind, Sequence, TenantId, Verdict};
use trueline_proto::ChainLink;
use trueline_store::{
    Baseline, BaselineOrigin, ChangeFilter, CompareRow, Compared, DriftFilter, DriftRow, DriftState, DriftWrite, NewCapture, Position,
    StoreError,
};

use crate::world::{Sender, World, actor, at, changed, facts, inventory_complete, item, judgement, main, observed, page, removed};

async fn capture(world: &World, host: HostId, scopes: Vec<ClosedScope>) -> Baseline {
    let capture = NewCapture { tenant: main(), host, name: "web".into(), scopes, by: "token:ops".into(), at: at(200), assign: true };
    world.store.capture_baseline(capture).await.unwrap()
}

async fn drifts(world: &World) -> Vec<DriftRow> {
    world.store.drifts(&main(), &DriftFilter::default(), page(1000)).await.unwrap().items
}

fn seen() -> Fields {
    Fields::new().with("size", "1").with("mode", "0644").with("mtime", "1")
}

pub async fn drift_opens_moves_and_resolves(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, vec![observed("file:/a", seen()), inventory_complete(1)]).await;
    capture(world, host.id, Vec::new()).await;

    world.send(&mut host, vec![changed("file:/a", "size", "1", "2")]).await;
    world.judge().await;
    let open = drifts(world).await;
    assert_eq!(open.len(), 1);
    let opened = &open[0];
    assert_eq!((opened.item.clone(), opened.field.as_str(), opened.state), (item("file:/a"), "size", DriftState::Open));
    assert_eq!((opened.expected.clone(), opened.actual.clone()), (Some("1".into()), Some("2".into())));
    assert_eq!(opened.change, Some((Position(1), actor())));
    assert_eq!(opened.host_name, "web");
    assert!(opened.reasons[0].contains("baseline web v1"), "{:?}", opened.reasons);

    world.send(&mut host, vec![changed("file:/a", "size", "2", "3")]).await;
    world.judge().await;
    let moved = drifts(world).await;
    assert_eq!((moved.len(), moved[0].id, moved[0].actual.clone()), (1, opened.id, Some("3".into())));
    assert_eq!(moved[0].change.as_ref().map(|(position, _)| *position), Some(Position(2)));

    world.send(&mut host, vec![changed("file:/a", "size", "3", "1")]).await;
    world.judge().await;
    let resolved = drifts(world).await;
    assert_eq!((resolved.len(), resolved[0].id, resolved[0].state), (1, opened.id, DriftState::Resolved));
    assert_eq!((resolved[0].resolved_by, resolved[0].resolved_at), (Some(Position(3)), Some(at(21))));
    let changes = world.store.changes(&main(), &ChangeFilter::default(), page(10)).await.unwrap().items;
    let verdicts: Vec<_> = changes.iter().map(|change| change.judgement.as_ref().unwrap().verdict).collect();
    assert_eq!(verdicts, [Verdict::Expected, Verdict::Notable, Verdict::Notable]);
}

pub async fn drift_that_opens_and_resolves_in_one_run_ends_resolved(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, vec![observed("file:/a", seen()), observed("file:/b", seen()), inventory_complete(2)]).await;
    capture(world, host.id, Vec::new()).await;
    let moves = [("1", "2"), ("2", "1"), ("1", "3"), ("3", "1"), ("1", "4"), ("4", "5")];
    let mut records: Vec<_> = moves.iter().map(|(before, after)| changed("file:/a", "size", before, after)).collect();
    records.push(removed("file:/b", "size", "1"));
    world.send(&mut host, records).await;
    assert_eq!(world.judge().await, 7);
    let all = drifts(world).await;
    let a: Vec<_> = all.iter().filter(|drift| drift.item == item("file:/a")).collect();
    let states: Vec<_> = a.iter().map(|drift| (drift.state, drift.actual.clone(), drift.change.as_ref().unwrap().0.0)).collect();
    assert_eq!(
        states,
        [(DriftState::Open, Some("5".into()), 6), (DriftState::Resolved, Some("3".into()), 3), (DriftState::Resolved, Some("2".into()), 1),]
    );
    let b: Vec<_> = all.iter().filter(|drift| drift.item == item("file:/b")).collect();
    assert_eq!((b.len(), b[0].field.as_str(), b[0].actual.clone()), (1, "exists", Some(false.into())));
    let shown = world.store.host(&main(), "web").await.unwrap().unwrap();
    assert_eq!(shown.open_drifts, 2);
}

pub async fn two_judges_have_the_effect_of_one(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, vec![observed("file:/a", seen()), inventory_complete(1)]).await;
    capture(world, host.id, Vec::new()).await;
    world.send(&mut host, vec![changed("file:/a", "size", "1", "2"), changed("file:/a", "mode", "0644", "0777")]).await;
    let other = world.another().await;
    let mut outputs = Vec::new();
    for number in 0..6 {
        let store = if number % 2 == 0 { world.store.clone() } else { other.clone() };
        outputs.push((judgement(&*store, 1000).await.unwrap(), store));
    }
    let tasks: Vec<_> =
        outputs.into_iter().map(|(output, store)| tokio::spawn(async move { store.record_judgements(output).await.unwrap() })).collect();
    let mut effective = 0;
    for task in tasks {
        effective += usize::from(task.await.unwrap());
    }
    assert_eq!(effective, 1);
    assert_eq!(world.judge().await, 0, "nothing is left to judge");
    assert_eq!(drifts(world).await.len(), 2);
    // Two opened, and the second change, whose item has no size any more, updated the first: each once.
    let end = world.store.event_position().await.unwrap();
    assert_eq!((end.changes, end.drift), (2, 3));
}

pub async fn a_captured_baseline_speaks_of_everything_the_host_reports(world: &World) {
    let mut host = world.host("web").await;
    world
        .send(
            &mut host,
            vec![
                observed("file:/a", Fields::new().with("mode", "0644").with("mtime", "1")),
                observed("sysctl:net.ipv4.ip_forward", Fields::new().with("value", "0")),
            ],
        )
        .await;
    world.send(&mut host, vec![inventory_complete(2)]).await;
    let baseline = capture(world, host.id, Vec::new()).await;
    assert_eq!((baseline.items, baseline.hosts, baseline.origin, baseline.name.version), (2, 1, BaselineOrigin::Captured, 1));
    world.compare(10).await;
    assert!(drifts(world).await.is_empty(), "a host agrees with what was captured from it");
    // A field that moves by itself is not part of it; an item that it did not have is not welcome.
    world.send(&mut host, vec![changed("file:/a", "mtime", "1", "2"), changed("file:/new", "size", "0", "1")]).await;
    world.judge().await;
    let open = drifts(world).await;
    assert_eq!(
        open.iter().map(|drift| (drift.item.to_string(), drift.field.to_string())).collect::<Vec<_>>(),
        [("file:/new".to_owned(), "exists".to_owned())]
    );
    let stranger = NewCapture {
        tenant: TenantId("other".into()),
        host: host.id,
        name: "web".into(),
        scopes: Vec::new(),
        by: "x".into(),
        at: at(200),
        assign: true,
    };
    assert!(world.store.capture_baseline(stranger).await.is_err());
}

pub async fn a_scoped_capture_holds_what_its_patterns_match(world: &World) {
    let mut host = world.host("web").await;
    let names = ["file:/etc/a.conf", "file:/etc/x/b.conf", "file:/etc/c.txt", "file:/usr/d", "user:root"];
    world.send(&mut host, names.iter().map(|name| observed(name, seen())).chain([inventory_complete(5)]).collect()).await;
    let scopes = vec![
        ClosedScope { kind: ItemKind::File, keys: Pattern::new("/etc/*.conf") },
        ClosedScope { kind: ItemKind::User, keys: Pattern::new("**") },
    ];
    assert_eq!(capture(world, host.id, scopes.clone()).await.items, 2);
    let listed = world.store.baselines(&main(), page(10)).await.unwrap().items;
    assert_eq!(listed[0].closed, scopes);
    world.send(&mut host, vec![changed("file:/etc/c.txt", "size", "1", "2"), changed("file:/etc/z.conf", "size", "1", "2")]).await;
    world.judge().await;
    assert_eq!(drifts(world).await.iter().map(|drift| drift.item.to_string()).collect::<Vec<_>>(), ["file:/etc/z.conf"]);
}

const WEB: &str = r#"
name: web
items:
  "file:/a": { size: "1" }
  "file:/gone": { mode: "0600" }
  "package:telnetd": absent
"#;

pub async fn a_written_baseline_is_versioned_and_compared(world: &World) {
    let mut host = world.host("web").await;
    world
        .send(
            &mut host,
            vec![observed("file:/a", seen()), observed("package:telnetd", Fields::new().with("version", "1")), inventory_complete(2)],
        )
        .await;
    let document = BaselineDocument::parse("web.yaml", WEB).unwrap();
    let first = world.store.write_baseline(&main(), &document, "token:ops", at(200)).await.unwrap();
    let second = world.store.write_baseline(&main(), &document, "token:ops", at(201)).await.unwrap();
    assert_eq!((first.name.version, second.name.version, second.items, second.origin), (1, 2, 3, BaselineOrigin::Written));
    assert!(!world.store.assign_baseline(&TenantId("other".into()), host.id, second.id).await.unwrap());
    assert!(!world.store.assign_baseline(&main(), host.id, 999).await.unwrap());
    assert!(world.store.assign_baseline(&main(), host.id, second.id).await.unwrap());
    world.compare(2).await;
    let mut found: Vec<_> = drifts(world).await.iter().map(|drift| format!("{} {}", drift.item, drift.field)).collect();
    found.sort();
    assert_eq!(found, ["file:/gone exists", "package:telnetd exists"]);
    assert!(world.store.hosts_to_compare(None, 10).await.unwrap().is_empty());
    // Compared again, nothing changes; held against an empty baseline, everything resolves.
    world.store.assign_baseline(&main(), host.id, second.id).await.unwrap();
    world.compare(1).await;
    assert_eq!(drifts(world).await.len(), 2);
    let empty = BaselineDocument::parse("empty.yaml", "name: empty\n").unwrap();
    let empty = world.store.write_baseline(&main(), &empty, "token:ops", at(202)).await.unwrap();
    world.store.assign_baseline(&main(), host.id, empty.id).await.unwrap();
    world.compare(1).await;
    assert!(drifts(world).await.iter().all(|drift| drift.state == DriftState::Resolved));
    let shown = world.store.host(&main(), "web").await.unwrap().unwrap();
    assert_eq!(shown.baseline, Some(empty.name));
}

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
    world.send(&mut host, vec![changed("file:/a", "size", "0", "1")]).await;
    world.judge().await;
    let a: Vec<_> = drifts(world).await.into_iter().filter(|drift| drift.item == item("file:/a")).collect();
    assert_eq!((a.len(), a[0].state, a[0].resolved_by), (1, DriftState::Resolved, Some(Position(1))));
}

pub async fn the_comparison_pages_cover_everything_once(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, (0..50).map(|n| observed(&format!("file:/host/{n}"), seen())).chain([inventory_complete(50)]).collect()).await;
    let items: String =
        (0..50).map(|n| format!("  \"file:/{}/{n}\": {{ size: \"1\" }}\n", if n % 2 == 0 { "host" } else { "base" })).collect();
    let document = BaselineDocument::parse("web.yaml", &format!("name: web\nitems:\n{items}")).unwrap();
    let baseline = world.store.write_baseline(&main(), &document, "token:ops", at(200)).await.unwrap();
    world.store.assign_baseline(&main(), host.id, baseline.id).await.unwrap();
    let due = world.store.hosts_to_compare(None, 10).await.unwrap().remove(0);
    for limit in [1, 7, 75, 100] {
        let (mut after, mut seen, mut rows) = (None, BTreeSet::new(), 0);
        loop {
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
    world.send(&mut host, vec![changed("file:/a", "size", "1", "2")]).await;
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
    world.send(&mut host, vec![changed("file:/a", "size", "1", "2")]).await;
    world.judge().await;
    world.store.assign_baseline(&main(), host.id, baseline.id).await.unwrap();
    let was_due = world.store.hosts_to_compare(None, 10).await.unwrap().remove(0);
    world.send(&mut host, vec![changed("file:/a", "size", "2", "1")]).await;
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
    let refusal = async || {
        let (tenant, name, by) = (main(), "web".into(), "token:ops".into());
        let capture = NewCapture { tenant, host: host.id, name, scopes: Vec::new(), by, at: at(200), assign: true };
        match world.store.capture_baseline(capture).await {
            Err(StoreError::Invalid { subject: "capture", reason }) => reason,
            other => panic!("{other:?}"),
        }
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
    let mut anew = Sender { epoch: Epoch(2), next: Sequence(1), link: ChainLink::START, id: host.id };
    world.send(&mut anew, vec![observed("file:/a", seen())]).await;
    assert_eq!(due(world).await, []);
    assert!(refusal().await.contains("wait for it"));
    let never = |_: Vec<CompareRow>| -> Vec<DriftWrite> { panic!("nothing is to be decided") };
    assert_eq!(world.store.compare(&was_due, None, 10, &never).await.unwrap(), Compared::Superseded);
    // The end of the one and the beginning of another in one append: only the first is whole.
    let ended = anew.batch(vec![inventory_complete(1)]);
    let mut third = Sender { epoch: Epoch(3), next: Sequence(1), link: ChainLink::START, id: host.id };
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
    let (mut after, mut listed) = (None, Vec::new());
    loop {
        let hosts = world.store.hosts_to_compare(after, 2).await.unwrap();
        let Some(last) = hosts.last() else { break };
        after = Some(last.host);
        listed.extend(hosts.iter().map(|due| due.host));
    }
    assert_eq!(listed.len(), 5, "none is compared, and none is listed twice");
    assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), all);
}

pub async fn what_was_read_under_another_baseline_is_read_again(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, vec![observed("file:/a", seen()), inventory_complete(1)]).await;
    world.send(&mut host, vec![changed("file:/b", "size", "1", "2")]).await;
    let read_before = judgement(&*world.store, 1000).await.unwrap();
    capture(world, host.id, Vec::new()).await;
    assert!(!world.store.record_judgements(read_before).await.unwrap());
    assert_eq!(world.judge().await, 1);
}

pub async fn an_acknowledgement_holds_until_the_drift_moves(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, vec![observed("file:/a", seen()), inventory_complete(1)]).await;
    capture(world, host.id, Vec::new()).await;
    world.send(&mut host, vec![changed("file:/a", "size", "1", "2")]).await;
    world.judge().await;
    let id = drifts(world).await[0].id;
    let acknowledge =
        async |tenant: &TenantId, id| world.store.acknowledge_drift(tenant, id, "token:ops", Some("known"), at(400)).await.unwrap();
    assert!(!acknowledge(&TenantId("other".into()), id).await);
    assert!(!acknowledge(&main(), 999).await);
    assert!(acknowledge(&main(), id).await);
    let shown = world.store.drift(&main(), id).await.unwrap().unwrap();
    assert_eq!(shown.state, DriftState::Acknowledged);
    let acknowledged = shown.acknowledged.unwrap();
    assert_eq!((acknowledged.by.as_str(), acknowledged.note.as_deref(), acknowledged.at), ("token:ops", Some("known"), at(400)));
    world.send(&mut host, vec![changed("file:/a", "size", "2", "3")]).await;
    world.judge().await;
    assert_eq!(world.store.drift(&main(), id).await.unwrap().unwrap().state, DriftState::Open, "nobody has seen the new value");
    world.send(&mut host, vec![changed("file:/a", "size", "3", "1")]).await;
    world.judge().await;
    assert!(!acknowledge(&main(), id).await, "what is resolved needs nobody");
}
