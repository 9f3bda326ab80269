//! Judgements, drift and what they are held against.

use trueline_drift::baseline::{BaselineDocument, ClosedScope};
use trueline_drift::pattern::Pattern;
use trueline_drift::{Fields, HostId, ItemKind, RecordBody, TenantId, Verdict};
use trueline_store::{Baseline, BaselineOrigin, ChangeFilter, DriftFilter, DriftRow, DriftState, Explanation, Position};

use crate::world::{World, actor, at, changed, inventory_complete, item, judgement, main, observed, page, removed};

pub async fn capture(world: &World, host: HostId, scopes: Vec<ClosedScope>) -> Baseline {
    world.capture(&main(), host, scopes).await.unwrap()
}

pub async fn drifts(world: &World) -> Vec<DriftRow> {
    world.store.drifts(&main(), &DriftFilter::default(), page(1000)).await.unwrap().items
}

pub fn seen() -> Fields {
    Fields::new().with("owner", "1").with("mode", "0644").with("mtime", "1")
}

pub async fn drift_opens_moves_and_resolves(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, vec![observed("file:/a", seen()), inventory_complete(1)]).await;
    capture(world, host.id, Vec::new()).await;

    world.send(&mut host, vec![changed("file:/a", "owner", "1", "2")]).await;
    world.judge().await;
    let open = drifts(world).await;
    assert_eq!(open.len(), 1);
    let opened = &open[0];
    assert_eq!((opened.item.clone(), opened.field.as_str(), opened.state), (item("file:/a"), "owner", DriftState::Open));
    assert_eq!((opened.expected.clone(), opened.actual.clone()), (Some("1".into()), Some("2".into())));
    assert_eq!(opened.change, Some(Explanation { position: Position(1), actor: actor(), transaction: None }));
    assert_eq!(opened.host_name, "web");
    assert!(opened.reasons[0].contains("baseline web v1"), "{:?}", opened.reasons);

    world.send(&mut host, vec![changed("file:/a", "owner", "2", "3")]).await;
    world.judge().await;
    let moved = drifts(world).await;
    assert_eq!((moved.len(), moved[0].id, moved[0].actual.clone()), (1, opened.id, Some("3".into())));
    assert_eq!(moved[0].change.as_ref().map(|change| change.position), Some(Position(2)));

    world.send(&mut host, vec![changed("file:/a", "owner", "3", "1")]).await;
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
    let mut records: Vec<_> = moves.iter().map(|(before, after)| changed("file:/a", "owner", before, after)).collect();
    records.push(removed("file:/b", "owner", "1"));
    world.send(&mut host, records).await;
    assert_eq!(world.judge().await, 7);
    let all = drifts(world).await;
    let a: Vec<_> = all.iter().filter(|drift| drift.item == item("file:/a")).collect();
    let states: Vec<_> = a.iter().map(|drift| (drift.state, drift.actual.clone(), drift.change.as_ref().unwrap().position.0)).collect();
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
    world.send(&mut host, vec![changed("file:/a", "owner", "1", "2"), changed("file:/a", "mode", "0644", "0777")]).await;
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
    world.send(&mut host, vec![changed("file:/a", "mtime", "1", "2"), changed("file:/new", "owner", "0", "1")]).await;
    world.judge().await;
    let open = drifts(world).await;
    assert_eq!(
        open.iter().map(|drift| (drift.item.to_string(), drift.field.to_string())).collect::<Vec<_>>(),
        [("file:/new".to_owned(), "exists".to_owned())]
    );
    // Nor is a field that it did not have, found by judging and by comparing alike.
    world.send(&mut host, vec![changed("file:/a", "acl", "", "user:x:rw-")]).await;
    world.judge().await;
    let acl = async || {
        let open = drifts(world).await.into_iter().filter(|drift| drift.field.as_str() == "acl");
        open.map(|drift| (drift.expected, drift.actual, drift.state)).collect::<Vec<_>>()
    };
    let came = || (None, Some("user:x:rw-".into()), DriftState::Open);
    assert_eq!(acl().await, [came()]);
    world.send(&mut host, vec![inventory_complete(3)]).await;
    world.compare(10).await;
    assert_eq!(acl().await, [came()]);
    assert!(world.capture(&TenantId("other".into()), host.id, Vec::new()).await.is_err());
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
    world.send(&mut host, vec![changed("file:/etc/c.txt", "owner", "1", "2"), changed("file:/etc/z.conf", "owner", "1", "2")]).await;
    world.judge().await;
    assert_eq!(drifts(world).await.iter().map(|drift| drift.item.to_string()).collect::<Vec<_>>(), ["file:/etc/z.conf"]);
}

pub const WEB: &str = r#"
name: web
items:
  "file:/a": { owner: "1" }
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

pub async fn what_was_read_under_another_baseline_is_read_again(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, vec![observed("file:/a", seen()), inventory_complete(1)]).await;
    world.send(&mut host, vec![changed("file:/b", "owner", "1", "2")]).await;
    let read_before = judgement(&*world.store, 1000).await.unwrap();
    capture(world, host.id, Vec::new()).await;
    assert!(!world.store.record_judgements(read_before).await.unwrap());
    assert_eq!(world.judge().await, 1);
}

pub async fn an_acknowledgement_holds_until_the_drift_moves(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, vec![observed("file:/a", seen()), inventory_complete(1)]).await;
    capture(world, host.id, Vec::new()).await;
    world.send(&mut host, vec![changed("file:/a", "owner", "1", "2")]).await;
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
    world.send(&mut host, vec![changed("file:/a", "owner", "2", "3")]).await;
    world.judge().await;
    assert_eq!(world.store.drift(&main(), id).await.unwrap().unwrap().state, DriftState::Open, "nobody has seen the new value");
    world.send(&mut host, vec![changed("file:/a", "owner", "3", "1")]).await;
    world.judge().await;
    assert!(!acknowledge(&main(), id).await, "what is resolved needs nobody");
}

pub async fn drift_of_a_host_whose_clock_is_ahead_opens_when_it_was_received(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, vec![observed("file:/a", seen()), inventory_complete(1)]).await;
    capture(world, host.id, Vec::new()).await;
    let mut ahead = changed("file:/a", "owner", "1", "2");
    let RecordBody::Changed(change) = &mut ahead else { unreachable!("a change") };
    change.observed_at = at(86_400);
    world.send(&mut host, vec![ahead]).await;
    world.judge().await;
    assert_eq!(drifts(world).await[0].opened_at, at(100));
}
