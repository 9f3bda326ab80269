//! Parts of packages: their drift is folded under the package's while there is such, and shown as soon as there is not.

use std::collections::{BTreeMap, BTreeSet};

use trueline_drift::baseline::Departure;
use trueline_drift::judge::{BaselineName, weigh};
use trueline_drift::reconcile::Step;
use trueline_drift::{Epoch, FieldName, Fields, HostId, RecordBody, Severity, Verdict};
use trueline_store::{CompareRow, DriftFilter, DriftRow, DriftState, DriftWrite, EventPosition, Folded, Summary};

use crate::world::{Sender, World, at, changed, facts, inventory_complete, item, main, observed, page, removed, shipped};

const PACKAGE: &str = "package:nginx";

fn with(field: &'static str, value: &str) -> Fields {
    Fields::new().with("mode", "0644").with(field, value)
}

/// A host that is as its baseline has it: a package, two files of its, one of nobody's.
async fn settled(world: &World, name: &str) -> Sender {
    let mut host = world.host(name).await;
    let mut records = vec![observed(PACKAGE, with("version", "1"))];
    records.extend(["file:/one", "file:/two", "file:/own"].map(|file| observed(file, with("size", "1"))));
    records.push(inventory_complete(4));
    world.send(&mut host, records).await;
    world.capture(&main(), host.id, Vec::new()).await.unwrap();
    world.compare(10).await;
    host
}

/// The package goes to version 2 with its files, and somebody touches the other.
async fn upgraded(world: &World, name: &str) -> Sender {
    let mut host = settled(world, name).await;
    let records = vec![
        shipped(changed("file:/one", "size", "1", "2"), PACKAGE),
        changed(PACKAGE, "version", "1", "2"),
        shipped(changed("file:/two", "size", "1", "2"), PACKAGE),
        changed("file:/own", "size", "1", "2"),
    ];
    world.send(&mut host, records).await;
    world.judge().await;
    host
}

async fn listed(world: &World, folded: Folded) -> Vec<DriftRow> {
    let filter = DriftFilter { unresolved: true, folded, ..DriftFilter::default() };
    world.store.drifts(&main(), &filter, page(1000)).await.unwrap().items
}

fn names(rows: &[DriftRow]) -> Vec<String> {
    let mut names: Vec<String> = rows.iter().map(|row| row.item.to_string()).collect();
    names.sort();
    names
}

/// Every count of what is open and what is folded, which must be one, and all there is.
async fn counts(world: &World) -> (u64, u64) {
    let summary = world.store.summary(&main(), at(0)).await.unwrap();
    let hosts = world.store.hosts(&main(), page(100)).await.unwrap().items;
    let of_hosts = hosts.iter().fold((0, 0), |sum, host| (sum.0 + host.open_drifts, sum.1 + host.folded_drifts));
    let measures = world.store.measure(&main(), at(0)).await.unwrap();
    let measured = (measures.open_drifts.values().sum::<u64>(), measures.folded_drifts.values().sum::<u64>());
    let told = (summary.open_drifts, summary.folded_drifts);
    assert_eq!((told, told), (of_hosts, measured));
    let of = async |folded| listed(world, folded).await.len() as u64;
    assert_eq!(told, (of(Folded::LeftOut).await, of(Folded::Only).await));
    assert_eq!(told.0 + told.1, of(Folded::Listed).await);
    told
}

pub async fn parts_of_a_package_are_folded_under_its_drift(world: &World) {
    let mut host = upgraded(world, "web").await;
    let shown = listed(world, Folded::LeftOut).await;
    assert_eq!(names(&shown), ["file:/own", PACKAGE]);
    let folds: BTreeMap<String, u64> = shown.iter().map(|row| (row.item.to_string(), row.folds)).collect();
    assert_eq!(folds, [("file:/own".to_owned(), 0), (PACKAGE.to_owned(), 2)].into());
    assert!(shown.iter().all(|row| row.folded_under.is_none()));

    for folded in [Folded::Only, Folded::Under(item(PACKAGE))] {
        let parts = listed(world, folded).await;
        assert_eq!(names(&parts), ["file:/one", "file:/two"]);
        assert!(parts.iter().all(|part| part.folded_under == Some(item(PACKAGE)) && part.folds == 0));
        let one = world.store.drift(&main(), parts[0].id).await.unwrap().unwrap();
        assert_eq!(one, parts[0]);
    }
    assert!(listed(world, Folded::Under(item("package:other"))).await.is_empty());
    assert_eq!(listed(world, Folded::Listed).await.len(), 4);

    // Pages are full of what is shown, whatever lies between.
    let filter = DriftFilter { unresolved: true, ..DriftFilter::default() };
    let first = world.store.drifts(&main(), &filter, page(1)).await.unwrap();
    let second = world.store.drifts(&main(), &filter, trueline_store::Page { limit: 1, after: first.next }).await.unwrap();
    assert_eq!((names(&first.items), names(&second.items), second.next), (vec!["file:/own".into()], vec![PACKAGE.into()], None));

    // A drift that somebody has seen is unresolved as well.
    let package = shown.iter().find(|row| row.item == item(PACKAGE)).unwrap();
    assert!(world.store.acknowledge_drift(&main(), package.id, "token:ops", None, at(400)).await.unwrap());
    assert_eq!(counts(world).await, (2, 2));

    // The package goes back, and leaves a file behind.
    let records = vec![shipped(changed("file:/two", "size", "2", "1"), PACKAGE), changed(PACKAGE, "version", "2", "1")];
    world.send(&mut host, records).await;
    world.judge().await;
    assert_eq!(names(&listed(world, Folded::LeftOut).await), ["file:/one", "file:/own"]);
    assert_eq!(counts(world).await, (2, 0));
    let resolved = DriftFilter { state: Some(DriftState::Resolved), ..DriftFilter::default() };
    let resolved = world.store.drifts(&main(), &resolved, page(10)).await.unwrap().items;
    assert_eq!(names(&resolved), ["file:/two", PACKAGE], "what is resolved is folded no longer");
    assert!(resolved.iter().all(|row| row.folded_under.is_none() && row.folds == 0));
}

fn made_setuid(name: &str) -> RecordBody {
    let RecordBody::Changed(mut change) = changed(name, "mode", "0644", "4755") else { panic!("a change") };
    change.unchanged = Fields::new().with("size", "1");
    RecordBody::Changed(change)
}

pub async fn all_that_is_hidden_is_counted(world: &World) {
    assert_eq!(counts(world).await, (0, 0));
    let mut host = settled(world, "web").await;
    upgraded(world, "db").await;
    let records = vec![shipped(made_setuid("file:/one"), PACKAGE), made_setuid("file:/own"), changed(PACKAGE, "version", "1", "2")];
    world.send(&mut host, records).await;
    world.judge().await;
    assert_eq!(counts(world).await, (4, 3));
    let all = listed(world, Folded::Listed).await;
    let critical = |row: &&DriftRow| row.severity == Severity::Critical;
    assert_eq!(names(&all.iter().filter(critical).cloned().collect::<Vec<_>>()), ["file:/one", "file:/own"]);
    let Summary { open_critical, .. } = world.store.summary(&main(), at(0)).await.unwrap();
    assert_eq!(open_critical, 1, "the other is a part of a package");
    let filter = DriftFilter { host: Some(host.id), severity: Some(Severity::Critical), folded: Folded::Only, ..DriftFilter::default() };
    assert_eq!(names(&world.store.drifts(&main(), &filter, page(10)).await.unwrap().items), ["file:/one"]);
}

pub async fn a_part_that_is_changed_by_itself_is_raised(world: &World) {
    let mut host = upgraded(world, "web").await;
    world.send(&mut host, vec![changed("file:/one", "size", "2", "3")]).await;
    world.judge().await;
    assert_eq!(names(&listed(world, Folded::LeftOut).await), ["file:/one", "file:/own", PACKAGE]);
    assert_eq!(counts(world).await, (3, 1));
    let changes = world.store.changes(&main(), &Default::default(), page(1)).await.unwrap().items;
    assert_eq!(changes[0].judgement.as_ref().unwrap().verdict, Verdict::Notable);
}

pub async fn a_package_without_drift_folds_nothing(world: &World) {
    let mut web = settled(world, "web").await;
    world.send(&mut web, vec![shipped(changed("file:/one", "size", "1", "2"), PACKAGE)]).await;
    // Nor does that of another host.
    upgraded(world, "db").await;
    let filter = DriftFilter { host: Some(web.id), ..DriftFilter::default() };
    let shown = world.store.drifts(&main(), &filter, page(10)).await.unwrap().items;
    assert_eq!((names(&shown), &shown[0].folded_under), (vec!["file:/one".to_owned()], &None));
    assert_eq!(counts(world).await, (3, 2));
    let parts: BTreeSet<_> = listed(world, Folded::Under(item(PACKAGE))).await.into_iter().map(|row| row.host_name).collect();
    assert_eq!(parts, ["db".to_owned()].into());
}

/// Nobody decided the first; that its package is upgraded again decides nothing of it.
pub async fn what_stood_open_before_its_package_drifted_stays_a_matter_of_its_own(world: &World) {
    let mut host = settled(world, "web").await;
    let late = |record: RecordBody, seconds: i64| match record {
        RecordBody::Changed(mut change) => {
            change.observed_at = at(seconds);
            RecordBody::Changed(change)
        }
        other => other,
    };
    world.send(&mut host, vec![late(shipped(changed("file:/one", "size", "1", "2"), PACKAGE), 30)]).await;
    world.judge().await;
    assert_eq!(names(&listed(world, Folded::LeftOut).await), ["file:/one"], "its package has no drift");
    let upgrade =
        vec![late(shipped(changed("file:/two", "size", "1", "2"), PACKAGE), 20_000), late(changed(PACKAGE, "version", "1", "2"), 20_300)];
    world.send_at(&mut host, upgrade, at(20_400)).await;
    world.judge().await;
    assert_eq!(names(&listed(world, Folded::LeftOut).await), ["file:/one", PACKAGE]);
    assert_eq!(counts(world).await, (2, 1));
}

pub async fn packages_cannot_hide_each_other(world: &World) {
    let mut host = world.host("web").await;
    let records = ["package:a", "package:b"].map(|package| observed(package, with("version", "1")));
    world.send(&mut host, records.into_iter().chain([inventory_complete(2)]).collect()).await;
    world.capture(&main(), host.id, Vec::new()).await.unwrap();
    let records = vec![
        shipped(changed("package:a", "version", "1", "2"), "package:b"),
        shipped(changed("package:b", "version", "1", "2"), "package:a"),
    ];
    world.send(&mut host, records).await;
    world.judge().await;
    assert_eq!(names(&listed(world, Folded::LeftOut).await), ["package:a", "package:b"]);
    world.send(&mut host, vec![shipped(changed("package:a", "version", "2", "3"), "package:a")]).await;
    world.judge().await;
    assert_eq!(counts(world).await, (2, 0));
}

pub async fn a_file_that_its_package_dropped_is_folded_and_one_that_went_missing_is_not(world: &World) {
    let mut host = settled(world, "web").await;
    let records = vec![shipped(removed("file:/one", "size", "1"), PACKAGE), changed(PACKAGE, "version", "1", "2")];
    world.send(&mut host, records).await;
    world.judge().await;
    assert_eq!(names(&listed(world, Folded::Only).await), ["file:/one"]);

    // A new epoch finds the package's second file as the upgrade left it, and a third one missing.
    world.send(&mut host, vec![shipped(changed("file:/two", "size", "1", "2"), PACKAGE)]).await;
    world.send(&mut host, vec![shipped(changed("file:/own", "size", "1", "2"), PACKAGE)]).await;
    world.judge().await;
    assert_eq!(names(&listed(world, Folded::Only).await), ["file:/one", "file:/own", "file:/two"]);
    world.store.host_connected(host.id, &facts("web"), "0.1.0", Epoch(2), at(2)).await.unwrap();
    let mut anew = Sender::new(host.id, Epoch(2));
    let records = vec![observed(PACKAGE, with("version", "2")), observed("file:/two", with("size", "2")), inventory_complete(2)];
    world.send(&mut anew, records).await;
    world.compare(10).await;
    assert_eq!(names(&listed(world, Folded::Only).await), ["file:/one", "file:/two"]);
    let shown = listed(world, Folded::LeftOut).await;
    let missing = |row: &&DriftRow| row.item == item("file:/own") && row.field.as_str() == "exists";
    assert_eq!(shown.iter().filter(missing).count(), 1, "nobody said that the package dropped it");
}

type Record = fn(&str) -> RecordBody;
/// What a record makes of whether an item is a part, and of its size.
type Effect = fn(bool, Option<u8>) -> (bool, Option<u8>);

const SAID: [(Record, Effect); 6] = [
    (|name| shipped(changed(name, "size", "1", "2"), PACKAGE), |_, _| (true, Some(2))),
    (|name| changed(name, "size", "1", "2"), |_, _| (false, Some(2))),
    (|name| shipped(removed(name, "size", "1"), PACKAGE), |_, _| (true, None)),
    (|name| observed(name, with("size", "2")), |is_part, size| (is_part && size == Some(2), Some(2))),
    (|name| observed(name, with("size", "3")), |is_part, size| (is_part && size == Some(3), Some(3))),
    (|name| RecordBody::Unwatched { item: item(name), observed_at: at(30) }, |is_part, size| (is_part, size)),
];

pub async fn what_one_append_says_of_a_part_is_what_many_say(world: &World) {
    let runs: Vec<[usize; 3]> = (0..216).map(|number| [number / 36, number / 6 % 6, number % 6]).collect();
    let name = |run: &[usize; 3]| format!("file:/{}{}{}", run[0], run[1], run[2]);
    let is_part = |run: &&[usize; 3]| run.iter().fold((false, Some(1)), |(is_part, size), said| SAID[*said].1(is_part, size)).0;
    let expected: BTreeSet<String> = runs.iter().filter(is_part).map(name).collect();
    let record = |run: &[usize; 3], step: usize| SAID[run[step]].0(&name(run));
    // Where one append ends and the next begins.
    let splits: [&[usize]; 4] = [&[3], &[1, 2, 3], &[2, 3], &[1, 3]];
    for ends in splits {
        let mut host = world.host(&format!("appends-{}-{}", ends.len(), ends[0])).await;
        let known = runs.iter().map(|run| observed(&name(run), with("size", "1")));
        let package = [observed(PACKAGE, with("version", "1")), inventory_complete(217)];
        world.send(&mut host, known.chain(package).collect()).await;
        world.capture(&main(), host.id, Vec::new()).await.unwrap();
        let begins = std::iter::once(&0).chain(ends);
        for (begin, end) in begins.zip(ends) {
            let records = runs.iter().flat_map(|run| (*begin..*end).map(|step| record(run, step)));
            world.send(&mut host, records.collect()).await;
        }
        world.judge().await;
        open_all(world).await;
        let filter = DriftFilter { host: Some(host.id), unresolved: true, folded: Folded::Only, ..DriftFilter::default() };
        let parts = world.store.drifts(&main(), &filter, page(5000)).await.unwrap().items;
        let found: BTreeSet<String> = parts.iter().map(|row| row.item.to_string()).collect();
        let wrong: Vec<_> = found.symmetric_difference(&expected).collect();
        assert!(wrong.is_empty(), "{ends:?}: {wrong:?}");
    }
}

/// Opens drift of every item of the hosts that are due, whatever it is.
async fn open_all(world: &World) {
    for host in world.store.hosts_to_compare(None, 100).await.unwrap() {
        let decide = |rows: Vec<CompareRow>| {
            let departs = |row: CompareRow| {
                let departure = Departure { field: FieldName::known("mode"), expected: None, actual: Some("0777".into()) };
                let finding = weigh(&row.item, departure, &BaselineName { name: "web".into(), version: 1 });
                let step = Step::Open(finding);
                DriftWrite { host: host.host, item: row.item, item_row: row.item_row, at: at(300), change: None, step }
            };
            rows.into_iter().map(departs).collect()
        };
        world.store.compare(&host, None, 1000, &decide).await.unwrap();
        world.store.comparison_done(&host).await.unwrap();
    }
}

pub async fn events_tell_what_is_folded(world: &World) {
    upgraded(world, "web").await;
    let events = world.store.events_after(&main(), EventPosition::default(), 100).await.unwrap();
    let told: BTreeMap<String, (Option<String>, u64)> = events
        .drift
        .into_iter()
        .map(|(_, _, row)| (row.item.to_string(), (row.folded_under.map(|package| package.to_string()), row.folds)))
        .collect();
    let under = || (Some(PACKAGE.to_owned()), 0);
    let expected = [("file:/one", under()), ("file:/own", (None, 0)), ("file:/two", under()), (PACKAGE, (None, 2))];
    assert_eq!(told, expected.map(|(name, told)| (name.to_owned(), told)).into());
    let by: Vec<_> = events.changes.iter().filter_map(|row| row.change.shipped_by.as_ref()).map(ToString::to_string).collect();
    assert_eq!(by, [PACKAGE, PACKAGE]);
    let verdicts: Vec<_> = events.changes.iter().map(|row| row.judgement.as_ref().unwrap().verdict).collect();
    assert_eq!(verdicts, [Verdict::Expected, Verdict::Notable, Verdict::Expected, Verdict::Notable]);
}

/// A database as the step before left it, with a host of which a package and a file have drifted.
fn of_the_step_before(is_sqlite: bool) -> String {
    let steps = if is_sqlite {
        [include_str!("../../migrations/sqlite/0001_first.sql"), include_str!("../../migrations/sqlite/0002_whole_baselines.sql")]
    } else {
        [include_str!("../../migrations/postgres/0001_first.sql"), include_str!("../../migrations/postgres/0002_whole_baselines.sql")]
    };
    let bytes = |bytes: &[u8]| if is_sqlite { format!("X'{}'", hex::encode(bytes)) } else { format!("'\\x{}'", hex::encode(bytes)) };
    let mut text = steps.concat();
    text.push_str("CREATE TABLE schema_version (version BIGINT NOT NULL); INSERT INTO schema_version (version) VALUES (2);");
    text.push_str(&format!(
        "INSERT INTO hosts (uuid, tenant, name, facts, status, join_token, enrolled_at, epoch, acknowledged, link, items, generation, \
        compared_generation) VALUES ({}, 'main', 'old', '{{\"hostname\":\"old\"}}', '{{}}', 1, 0, 1, 0, {}, 2, 0, 0);",
        bytes(OLD_HOST.as_bytes()),
        bytes(&[0; 32])
    ));
    for (id, kind, name) in [(1, 2, PACKAGE), (2, 1, "file:/one")] {
        let (item, key) = (item(name), name.split_once(':').unwrap().1);
        text.push_str(&format!(
            "INSERT INTO items (id, host, fingerprint, kind, key, present, fields, observed_at, epoch) \
            SELECT {id}, id, {}, {kind}, '{key}', 1, {}, 0, 1 FROM hosts; \
            INSERT INTO drift (id, tenant, host, item, field, verdict, severity, drift_type, reasons, opened_at, updated_at) \
            SELECT {id}, 'main', id, {id}, 'size', 3, 2, 2, '[]', 0, 0 FROM hosts;",
            bytes(&item.fingerprint().0),
            bytes(&[])
        ));
    }
    text.push_str("UPDATE cursors SET position = 2 WHERE name = 'drift';");
    text
}

const OLD_HOST: uuid::Uuid = uuid::Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057);

pub async fn a_database_of_the_step_before_keeps_its_drift(world: &World) {
    let old = world.of_script(of_the_step_before).await;
    let before = listed(&old, Folded::LeftOut).await;
    assert_eq!(names(&before), ["file:/one", PACKAGE]);
    assert!(before.iter().all(|row| row.part_of.is_none() && row.folded_under.is_none() && row.folds == 0));
    assert_eq!(counts(&old).await, (2, 0));
    let mut host = Sender::new(HostId(OLD_HOST), Epoch(1));
    old.send(&mut host, vec![shipped(changed("file:/one", "size", "2", "3"), PACKAGE)]).await;
    assert_eq!(counts(&old).await, (1, 1), "nobody judged it yet, and its drift is what it was");
}
