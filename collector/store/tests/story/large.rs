//! Rows as large as hosts may send: read in short pages, complete and in order.

use std::collections::BTreeSet;

use trueline_drift::{FieldChange, FieldName, Fields, RecordBody, Value};
use trueline_store::{ChangeFilter, DriftFilter, EventPosition, Page};

use crate::world::{PAGES, Sender, World, changed, inventory_complete, judgement, main, observed, page, turn};

const COUNT: usize = 80;
const FIELDS: usize = 28;

/// As large as one value may be, which is more than a small one.
fn large() -> Value {
    Value::text(&"x".repeat(5_000))
}

fn field(number: usize) -> FieldName {
    FieldName::new(&format!("xattr.user.{number}"))
}

fn name(number: usize) -> String {
    // The key is large as well.
    format!("file:/{}/{number}", "d".repeat(60_000))
}

/// Every large field moved.
fn moved(number: usize, before: &Value, after: &str) -> RecordBody {
    let RecordBody::Changed(mut change) = changed(&name(number), "owner", "1", "2") else { unreachable!("a change") };
    let moved = |number| FieldChange { name: field(number), before: Some(before.clone()), after: Some(after.into()) };
    change.fields = (0..FIELDS).map(moved).collect();
    RecordBody::Changed(change)
}

/// Changes of large items among those of a small one, held against a baseline that is as large.
async fn grown(world: &World) -> Sender {
    let mut host = world.host("web").await;
    let seen = || {
        let mut fields = Fields::new().with("mode", "0644");
        (0..FIELDS).for_each(|number| fields.set(field(number), large()));
        fields
    };
    let mut records: Vec<RecordBody> = (0..COUNT).map(|number| observed(&name(number), seen())).collect();
    records.push(observed("file:/small", Fields::new().with("mode", "0644")));
    records.push(inventory_complete(COUNT as u64 + 1));
    world.send(&mut host, records).await;
    world.capture(&main(), host.id, Vec::new()).await.unwrap();
    world.compare(1_000).await;
    for number in 0..COUNT {
        let records = vec![changed("file:/small", "owner", "1", "2"), moved(number, &large(), "away")];
        world.send(&mut host, records).await;
    }
    host
}

async fn open(world: &World) -> u64 {
    world.store.host(&main(), "web").await.unwrap().unwrap().open_drifts
}

pub async fn large_changes_are_judged_in_short_runs(world: &World) {
    grown(world).await;
    let (mut runs, mut pages) = (Vec::new(), PAGES);
    while let Some(output) = judgement(&*world.store, 5_000).await {
        turn(&mut pages);
        runs.push(output.judgements.len());
        assert!(world.store.record_judgements(output).await.unwrap());
    }
    assert_eq!(runs.iter().sum::<usize>(), 2 * COUNT);
    // A change, its key and what its baseline says are more than a quarter of a megabyte.
    assert!(runs.len() > 2 && runs.iter().all(|run| *run <= 64), "{runs:?}");
    assert_eq!(open(world).await, (COUNT * FIELDS) as u64, "each large item departs, the small one is free");
}

pub async fn items_whose_open_drift_is_large_are_judged_in_short_runs(world: &World) {
    let mut host = grown(world).await;
    world.judge().await;
    // What is open holds the large values that are expected; the changes are small.
    world.send(&mut host, (0..COUNT).map(|number| moved(number, &"away".into(), "further")).collect()).await;
    let (mut runs, mut pages) = (Vec::new(), PAGES);
    while let Some(output) = judgement(&*world.store, 5_000).await {
        turn(&mut pages);
        runs.push(output.judgements.len());
        assert!(world.store.record_judgements(output).await.unwrap());
    }
    assert!(runs.len() > 1 && runs.iter().sum::<usize>() == COUNT, "{runs:?}");
    assert_eq!(open(world).await, (COUNT * FIELDS) as u64);
    for drift in world.store.drifts(&main(), &DriftFilter::default(), page(1_000)).await.unwrap().items {
        assert_eq!((drift.expected, drift.actual), (Some(large()), Some("further".into())));
    }
}

pub async fn pages_of_large_changes_are_short_and_complete(world: &World) {
    grown(world).await;
    world.judge().await;
    for verdict in [None, Some(trueline_drift::Verdict::Notable)] {
        let expected = if verdict.is_some() { COUNT } else { 2 * COUNT };
        let (mut found, mut after, mut pages) = (Vec::new(), None, PAGES);
        loop {
            turn(&mut pages);
            let filter = ChangeFilter { verdict, ..ChangeFilter::default() };
            let listed = world.store.changes(&main(), &filter, Page { limit: 500, after }).await.unwrap();
            assert!(!listed.items.is_empty() && listed.items.len() < expected);
            assert!(listed.items.iter().all(|row| row.judgement.is_some()));
            found.extend(listed.items.iter().map(|row| row.position));
            after = listed.next;
            if after.is_none() {
                break;
            }
        }
        assert!(pages.start > 2 && found.is_sorted_by(|one, next| one > next), "{found:?}");
        assert_eq!(found.len(), expected, "{verdict:?}");
    }
    let (mut at, mut followed, mut pages) = (EventPosition::default(), Vec::new(), PAGES);
    loop {
        turn(&mut pages);
        let events = world.store.events_after(&main(), at, 256).await.unwrap();
        let Some(last) = events.changes.last() else { break };
        assert!(events.changes.len() < 2 * COUNT);
        at.changes = last.position.0;
        followed.extend(events.changes.iter().map(|row| row.position.0));
    }
    assert_eq!(followed, (1..=2 * COUNT as i64).collect::<Vec<_>>());
}

pub async fn hosts_of_large_items_are_compared_in_short_pages(world: &World) {
    let host = grown(world).await;
    world.judge().await;
    let baseline = world.capture(&main(), host.id, Vec::new()).await.unwrap();
    assert_eq!(baseline.items, COUNT as u64 + 1);
    let due = world.store.hosts_to_compare(None, 10).await.unwrap().remove(0);
    let (mut after, mut items, mut pages) = (None, BTreeSet::new(), PAGES);
    loop {
        turn(&mut pages);
        let rows = world.store.compare_page(&due, after, 1_000).await.unwrap();
        let Some(last) = rows.last() else { break };
        after = Some(last.fingerprint);
        for row in rows {
            assert!(items.insert(row.item), "an item came twice");
        }
    }
    assert_eq!(items.len(), COUNT + 1);
    // The last found that there is no more.
    assert!(pages.start > 2);
    world.compare(1_000).await;
    assert_eq!(open(world).await, 0);
    assert_eq!(world.store.changes(&main(), &ChangeFilter::default(), page(1)).await.unwrap().items.len(), 1);
}
