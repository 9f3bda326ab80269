//! What people and streams read: complete, without repeats, and of their tenant only.

use std::collections::BTreeSet;

use trueline_drift::{Fields, ItemKind, TenantId, Transaction, Verdict};
use trueline_store::{
    ChangeFilter, DriftEvent, DriftFilter, DriftState, EventPosition, GapFilter, ItemFilter, Measures, NewToken, Page, Position, Role,
    StoreError, Summary, TokenDigest, TokenKind,
};

use crate::world::{PAGES, Sender, World, at, changed, gap, inventory_complete, item, made_in, main, observed, page, turn};

fn seen() -> Fields {
    Fields::new().with("size", "1").with("mode", "0644")
}

fn other() -> TenantId {
    TenantId("other".into())
}

/// A host with a baseline and some drift: `/a` twice departed, `/b` once and back.
async fn drifted(world: &World, tenant: &TenantId, name: &str) -> Sender {
    let mut host = world.host_of(tenant, name).await;
    world.send(&mut host, vec![observed("file:/a", seen()), observed("file:/b", seen()), inventory_complete(2), gap()]).await;
    world.capture(tenant, host.id, Vec::new()).await.unwrap();
    let records = vec![
        changed("file:/a", "size", "1", "2"),
        changed("file:/a", "owner", "root", "www"),
        changed("file:/b", "size", "1", "2"),
        changed("file:/b", "size", "2", "1"),
    ];
    world.send(&mut host, records).await;
    world.judge().await;
    host
}

pub async fn pages_are_complete_and_without_repeats_while_rows_are_added(world: &World) {
    let mut host = world.host("web").await;
    world.send(&mut host, (0..23).map(|n| changed(&format!("file:/{n}"), "size", "0", "1")).collect()).await;
    let mut names: BTreeSet<String> = ["web".to_owned()].into();
    for number in 0..6 {
        world.host(&format!("host-{number}")).await;
        names.insert(format!("host-{number}"));
    }
    let (mut found, mut after, mut pages) = (Vec::new(), None, PAGES);
    loop {
        turn(&mut pages);
        let listed = world.store.changes(&main(), &ChangeFilter::default(), Page { limit: 5, after }).await.unwrap();
        assert!(listed.items.len() <= 5);
        found.extend(listed.items.iter().map(|change| change.position.0));
        after = listed.next;
        if after.is_none() {
            break;
        }
        world.send(&mut host, vec![changed("file:/late", "size", "0", "1")]).await;
    }
    assert_eq!(found, (1..=23).rev().collect::<Vec<_>>());

    let (mut found, mut after, mut pages) = (Vec::new(), None, PAGES);
    loop {
        turn(&mut pages);
        let listed = world.store.hosts(&main(), Page { limit: 2, after }).await.unwrap();
        found.extend(listed.items.into_iter().map(|host| host.facts.hostname));
        after = listed.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, names.into_iter().collect::<Vec<_>>());

    let (mut found, mut after, mut pages) = (BTreeSet::new(), None, PAGES);
    loop {
        turn(&mut pages);
        let listed = world.store.host_items(&main(), host.id, &ItemFilter::default(), Page { limit: 4, after }).await.unwrap();
        for item in listed.items {
            assert!(found.insert(item.item));
        }
        after = listed.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), 24);
}

pub async fn changes_are_found_by_what_they_are(world: &World) {
    let web = drifted(world, &main(), "web").await;
    let mut db = world.host("db").await;
    world.send(&mut db, vec![changed("file:/a", "size", "1", "2"), changed("user:root", "uid", "0", "1")]).await;
    world.judge().await;
    world.send(&mut db, vec![changed("file:/a", "size", "2", "3")]).await;
    let find = async |filter: ChangeFilter| -> Vec<i64> {
        let (mut found, mut after, mut pages) = (Vec::new(), None, PAGES);
        loop {
            turn(&mut pages);
            let listed = world.store.changes(&main(), &filter, Page { limit: 1, after }).await.unwrap();
            found.extend(listed.items.iter().map(|change| change.position.0));
            after = listed.next;
            if after.is_none() {
                return found;
            }
        }
    };
    let any = ChangeFilter::default;
    assert_eq!(find(any()).await, [7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(find(ChangeFilter { host: Some(web.id), ..any() }).await, [4, 3, 2, 1]);
    assert_eq!(find(ChangeFilter { item: Some(item("file:/a")), ..any() }).await, [7, 5, 2, 1]);
    assert_eq!(find(ChangeFilter { item: Some(item("file:/a")), host: Some(db.id), ..any() }).await, [7, 5]);
    assert_eq!(find(ChangeFilter { kind: Some(ItemKind::User), ..any() }).await, [6]);
    assert_eq!(find(ChangeFilter { verdict: Some(Verdict::Notable), ..any() }).await, [3, 1]);
    assert_eq!(find(ChangeFilter { verdict: Some(Verdict::Notable), item: Some(item("file:/a")), ..any() }).await, [1]);
    assert_eq!(find(ChangeFilter { verdict: Some(Verdict::OutOfScope), ..any() }).await, [6, 5]);
    assert_eq!(find(ChangeFilter { verdict: Some(Verdict::Critical), ..any() }).await.len(), 0);
    assert_eq!(find(ChangeFilter { since: Some(at(101)), ..any() }).await.len(), 0);
    assert_eq!(find(ChangeFilter { since: Some(at(100)), until: Some(at(101)), ..any() }).await.len(), 7);
    let one = world.store.change(&main(), Position(3)).await.unwrap().unwrap();
    assert_eq!((one.host, one.change.item, one.judgement.unwrap().verdict), (web.id, item("file:/b"), Verdict::Notable));
    assert_eq!(world.store.change(&main(), Position(7)).await.unwrap().unwrap().judgement, None, "not judged yet");
}

pub async fn all_that_a_session_or_a_run_changed_is_found(world: &World) {
    let (mut web, mut db) = (world.host("web").await, world.host("db").await);
    let at = |name: &str, session, runs: &[&str]| made_in(changed(name, "size", "0", "1"), session, runs);
    let records = vec![
        at("file:/1", Some("b1-42"), &[]),
        at("file:/2", Some("b1-42"), &["apt-1"]),
        at("file:/3", Some("b1-43"), &["apt-2", "ansible-1"]),
        // A host may say a thing twice.
        at("file:/4", Some("b1-42"), &["apt-3", "apt-3", "ansible-1"]),
        at("file:/5", None, &[]),
    ];
    world.send(&mut web, records).await;
    world.send(&mut db, vec![at("file:/6", Some("b1-42"), &["ansible-1"])]).await;
    world.judge().await;
    let mut stranger = world.host_of(&other(), "web").await;
    world.send(&mut stranger, vec![at("file:/7", Some("b1-42"), &["apt-1"])]).await;
    let find = async |limit: u32, session: Option<&str>, run: Option<&str>, rest: ChangeFilter| -> Vec<i64> {
        let filter =
            ChangeFilter { session: session.map(|id| id.parse().unwrap()), transaction: run.map(|id| id.parse().unwrap()), ..rest };
        let (mut found, mut after, mut pages) = (Vec::new(), None, PAGES);
        loop {
            turn(&mut pages);
            let listed = world.store.changes(&main(), &filter, Page { limit, after }).await.unwrap();
            found.extend(listed.items.iter().map(|change| change.position.0));
            after = listed.next;
            if after.is_none() {
                return found;
            }
        }
    };
    let any = ChangeFilter::default;
    for limit in [1, 2, 100] {
        let find = async |session, run, rest| find(limit, session, run, rest).await;
        assert_eq!(find(Some("b1-42"), None, any()).await, [6, 4, 2, 1]);
        assert_eq!(find(Some("b1-4"), None, any()).await, [0; 0]);
        assert_eq!(find(None, Some("apt-1"), any()).await, [2]);
        assert_eq!(find(None, Some("ansible-1"), any()).await, [6, 4, 3], "with what ran within it");
        assert_eq!(find(Some("b1-42"), Some("ansible-1"), any()).await, [6, 4]);
        assert_eq!(find(Some("b1-42"), None, ChangeFilter { host: Some(web.id), ..any() }).await, [4, 2, 1]);
        assert_eq!(find(Some("b1-42"), None, ChangeFilter { item: Some(item("file:/2")), ..any() }).await, [2]);
        let since = ChangeFilter { since: Some(crate::world::at(100)), until: Some(crate::world::at(101)), ..any() };
        assert_eq!(find(Some("b1-42"), None, since).await.len(), 4);
        let judged = ChangeFilter { verdict: Some(Verdict::OutOfScope), ..any() };
        assert_eq!(find(Some("b1-42"), None, judged).await, [6, 4, 2, 1]);
    }
    let one = world.store.change(&main(), Position(4)).await.unwrap().unwrap().change;
    let runs: Vec<_> = one.transaction.iter().flat_map(Transaction::outwards).map(|run| run.id.to_string()).collect();
    assert_eq!(runs, ["apt-3", "apt-3", "ansible-1"]);
}

pub async fn changes_are_found_by_when_they_were_received_whatever_the_hosts_clock_says(world: &World) {
    let mut host = world.host("web").await;
    // Received two at a time every ten minutes; one clock is a year ahead, and another collector's half a minute behind.
    for turn in 0..50i64 {
        let received_at = if turn % 10 == 9 { turn * 600 - 30 } else { turn * 600 };
        let records = [turn * 600, 31_536_000].map(|observed_at| {
            let mut record = changed("file:/a", "size", "1", "2");
            let trueline_drift::RecordBody::Changed(change) = &mut record else { unreachable!("a change") };
            change.observed_at = at(observed_at);
            record
        });
        let batch = host.batch(records.into());
        world.store.append(vec![batch], at(received_at)).await.unwrap();
    }
    world.judge().await;
    let all = world.store.changes(&main(), &ChangeFilter::default(), page(500)).await.unwrap().items;
    assert_eq!(all.len(), 100);
    for (since, until) in [
        (None, None),
        (Some(0), Some(1)),
        (Some(5_370), None),
        (Some(5_371), Some(6_000)),
        (None, Some(600)),
        (Some(29_999), None),
        (Some(7_000), Some(7_000)),
    ] {
        for verdict in [None, Some(Verdict::OutOfScope)] {
            let filter = ChangeFilter { since: since.map(at), until: until.map(at), verdict, ..ChangeFilter::default() };
            let found = world.store.changes(&main(), &filter, page(500)).await.unwrap().items;
            let is_within = |received| since.is_none_or(|since| received >= at(since)) && until.is_none_or(|until| received < at(until));
            let expected: Vec<_> = all.iter().filter(|change| is_within(change.received_at)).cloned().collect();
            assert_eq!(found, expected, "{since:?} to {until:?}");
        }
    }
}

pub async fn drift_is_found_by_what_it_is(world: &World) {
    let web = drifted(world, &main(), "web").await;
    drifted(world, &main(), "db").await;
    let find = async |filter: DriftFilter| world.store.drifts(&main(), &filter, page(100)).await.unwrap().items.len();
    let any = DriftFilter::default;
    let all = find(any()).await;
    let resolved = find(DriftFilter { state: Some(DriftState::Resolved), ..any() }).await;
    assert_eq!((all, resolved), (4, 2));
    assert_eq!(find(DriftFilter { unresolved: true, ..any() }).await, 2);
    assert_eq!(find(DriftFilter { host: Some(web.id), ..any() }).await, 2);
    assert_eq!(find(DriftFilter { host: Some(web.id), unresolved: true, item: Some(item("file:/a")), ..any() }).await, 1);
    assert_eq!(find(DriftFilter { item: Some(item("file:/b")), ..any() }).await, 2);
    assert_eq!(find(DriftFilter { kind: Some(ItemKind::User), ..any() }).await, 0);
    assert_eq!(find(DriftFilter { verdict: Some(Verdict::Notable), ..any() }).await, 4);
    assert_eq!(find(DriftFilter { state: Some(DriftState::Acknowledged), ..any() }).await, 0);
}

pub async fn nothing_crosses_a_tenant(world: &World) {
    let host = drifted(world, &main(), "web").await;
    let token = NewToken {
        tenant: main(),
        kind: TokenKind::Api,
        role: Role::Admin,
        name: "ops".into(),
        digest: TokenDigest([1; 32]),
        created_at: at(0),
        expires_at: None,
        uses: None,
    };
    world.store.add_token(token).await.unwrap();
    let store = &world.store;
    let (any, id) = (other(), host.id);
    assert!(store.tokens(&any, page(10)).await.unwrap().items.is_empty());
    assert!(store.host(&any, "web").await.unwrap().is_none());
    assert!(store.host(&any, &id.to_string()).await.unwrap().is_none());
    assert!(store.hosts(&any, page(10)).await.unwrap().items.is_empty());
    assert!(store.host_items(&any, id, &ItemFilter::default(), page(10)).await.unwrap().items.is_empty());
    assert!(store.baselines(&any, page(10)).await.unwrap().items.is_empty());
    let by_host = ChangeFilter { host: Some(id), ..ChangeFilter::default() };
    let by_item = ChangeFilter { item: Some(item("file:/a")), ..ChangeFilter::default() };
    let by_verdict = ChangeFilter { verdict: Some(Verdict::Notable), ..ChangeFilter::default() };
    for filter in [ChangeFilter::default(), by_host, by_item, by_verdict] {
        assert!(store.changes(&any, &filter, page(10)).await.unwrap().items.is_empty(), "{filter:?}");
    }
    assert!(store.change(&any, Position(1)).await.unwrap().is_none());
    let by_host = DriftFilter { host: Some(id), ..DriftFilter::default() };
    for filter in [DriftFilter::default(), by_host] {
        assert!(store.drifts(&any, &filter, page(10)).await.unwrap().items.is_empty(), "{filter:?}");
    }
    assert!(store.drift(&any, 1).await.unwrap().is_none());
    for host in [None, Some(id)] {
        assert!(store.gaps(&any, &GapFilter { host }, page(10)).await.unwrap().items.is_empty());
    }
    assert_eq!(store.summary(&any, at(0)).await.unwrap(), Summary::default());
    let events = store.events_after(&any, EventPosition::default(), 100).await.unwrap();
    assert!(events.changes.is_empty() && events.drift.is_empty() && events.gaps.is_empty());
    let mine = store.events_after(&main(), EventPosition::default(), 100).await.unwrap();
    assert!(!mine.changes.is_empty() && !mine.drift.is_empty() && !mine.gaps.is_empty());
}

pub async fn events_resume_without_loss_or_repeats(world: &World) {
    let mut host = drifted(world, &main(), "web").await;
    drifted(world, &other(), "elsewhere").await;
    let (mut changes, mut drift, mut gaps, mut after) = (Vec::new(), Vec::new(), Vec::new(), EventPosition::default());
    for round in 0..20 {
        if round == 3 {
            world.send(&mut host, vec![changed("file:/a", "size", "2", "1"), gap()]).await;
            world.judge().await;
        }
        let events = world.store.events_after(&main(), after, 2).await.unwrap();
        for change in events.changes {
            after.changes = change.position.0;
            changes.push(change.position.0);
        }
        for (place, event, row) in events.drift {
            after.drift = place;
            drift.push((event, row.item.to_string()));
        }
        for gap in events.gaps {
            after.gaps = gap.id;
            gaps.push(gap.id);
        }
    }
    assert_eq!(changes, [1, 2, 3, 4, 9]);
    assert_eq!(gaps, [1, 3]);
    let told: Vec<_> = drift.iter().map(|(event, item)| (*event, item.as_str())).collect();
    assert_eq!(
        told,
        [
            (DriftEvent::Opened, "file:/a"),
            (DriftEvent::Updated, "file:/a"),
            (DriftEvent::Opened, "file:/b"),
            (DriftEvent::Resolved, "file:/b"),
            (DriftEvent::Resolved, "file:/a"),
        ]
    );
    let end = world.store.event_position().await.unwrap();
    let nothing = world.store.events_after(&main(), end, 100).await.unwrap();
    assert!(nothing.changes.is_empty() && nothing.drift.is_empty() && nothing.gaps.is_empty());
    world.send(&mut host, vec![changed("file:/a", "size", "1", "9")]).await;
    let unjudged = world.store.events_after(&main(), end, 100).await.unwrap();
    assert!(unjudged.changes.is_empty(), "a change is news once it is judged");
}

pub async fn the_summary_counts_what_was_judged(world: &World) {
    drifted(world, &main(), "web").await;
    let summary = world.store.summary(&main(), at(0)).await.unwrap();
    let expected = Summary {
        hosts: 1,
        items: 2,
        expected: 2,
        out_of_scope: 0,
        notable: 2,
        critical: 0,
        open_drifts: 1,
        open_critical: 0,
        folded_drifts: 0,
        gaps: 1,
    };
    assert_eq!(summary, expected);
    let later = world.store.summary(&main(), at(100_000)).await.unwrap();
    assert_eq!((later.expected, later.notable, later.gaps, later.open_drifts), (0, 0, 0, 1));
}

pub async fn a_strangers_cursor_is_refused(world: &World) {
    let page = || Page { limit: 10, after: Some("'; DROP TABLE changes; --".into()) };
    let changes = world.store.changes(&main(), &ChangeFilter::default(), page()).await;
    assert!(matches!(changes, Err(StoreError::Invalid { .. })), "{changes:?}");
    let hosts = world.store.hosts(&main(), page()).await;
    assert!(matches!(hosts, Err(StoreError::Invalid { .. })), "{hosts:?}");
}

pub async fn the_measures_say_what_there_is_and_what_waits(world: &World) {
    let measured = async |heard_since| world.store.measure(&main(), heard_since).await.unwrap();
    assert_eq!(measured(at(0)).await, Measures::default());
    let mut host = world.host("web").await;
    let other = world.host("silent").await;
    let revoked = world.host("gone").await;
    world.store.revoke_host(&main(), revoked.id, at(3)).await.unwrap();
    world.host_of(&TenantId("other".into()), "strange").await;
    world.send(&mut host, vec![observed("file:/a", Fields::new().with("mode", "0644")), inventory_complete(1)]).await;
    world.capture(&main(), host.id, Vec::new()).await.unwrap();
    let changes = vec![changed("file:/a", "mode", "0644", "0666"), changed("file:/new", "size", "1", "2")];
    world.send(&mut host, changes).await;
    let waiting = measured(at(50)).await;
    assert_eq!((waiting.hosts, waiting.revoked_hosts, waiting.items), (2, 1, 1));
    assert_eq!(waiting.unheard_hosts, [other.id]);
    assert_eq!((waiting.unjudged, waiting.unjudged_since, waiting.uncompared_hosts), (2, Some(at(100)), 1));
    assert!(waiting.open_drifts.is_empty());
    world.judge().await;
    world.compare(10).await;
    let done = measured(at(50)).await;
    assert_eq!((done.unjudged, done.unjudged_since, done.uncompared_hosts), (0, None, 0));
    let open = world.store.drifts(&main(), &DriftFilter::default(), page(10)).await.unwrap().items;
    let counted: u64 = done.open_drifts.values().sum();
    assert_eq!((counted, open.len()), (2, 2));
    for drift in open {
        assert!(done.open_drifts[&drift.verdict] > 0);
    }
}
