use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use trueline_drift::change::ChangeKind;
use trueline_drift::{Actor, Cause, Change, FieldChange, FieldName, ItemKey, Observation, Value};

use super::*;
use crate::spool::{Spool, SpoolError, SpoolLimit};
use crate::testing::await_some;

const CACHE: usize = 2 * 1024 * 1024;

fn open(directory: &Path) -> State {
    // Another test's child process holds our descriptors until it executes.
    let (state, aside) = await_some("the state's lock", || match State::open(&directory.join("state.redb"), CACHE, "now") {
        Err(StateError::Storage { source, .. }) if matches!(*source, redb::Error::DatabaseAlreadyOpen) => None,
        opened => Some(opened.unwrap()),
    });
    assert_eq!(aside, None);
    state
}

fn file(path: &[u8]) -> ItemId {
    ItemId::new(ItemKind::File, ItemKey::from_bytes(path).unwrap())
}

fn stored(number: i64) -> Stored {
    let stamp = Stamp { device: 1, inode: 2, size: number as u64, modified_ns: -3, changed_ns: 4 };
    Stored {
        fields: Fields::new().with("mode", "0644").with("size", number),
        observed_at: Time::from_micros(number),
        stamp: Some(stamp),
        inode: Some(stamp.inode()),
        lines: None,
    }
}

/// The folder as a power cut at this moment would leave it.
fn crashed(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_tree(directory, copy.path());
    copy
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn what_was_applied_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(directory.path());
    assert!(state.is_empty().unwrap());
    let (hosts, passwd) = (file(b"/etc/hosts"), file(b"/etc/passwd"));
    state.apply(&[(hosts.clone(), Some(stored(1))), (passwd.clone(), Some(stored(2)))], Some((Epoch(7), Sequence(2)))).unwrap();
    state.apply(&[(passwd.clone(), None), (hosts.clone(), Some(stored(3)))], Some((Epoch(7), Sequence(4)))).unwrap();
    assert_eq!((state.spooled(), state.durable_spooled()), ((Epoch(7), Sequence(4)), (Epoch(0), Sequence(0))));
    state.set_inventory_complete(InventoryComplete { at: Time::from_micros(9), items: 1, epoch: Epoch(7) }).unwrap();
    assert_eq!(state.durable_spooled(), (Epoch(7), Sequence(4)), "metadata commits what came before it");
    let policy = StoredPolicy { version: 3, document: "paths: [/etc]".into() };
    state.set_policy(&policy).unwrap();
    state.set_last_alive(Time::from_micros(-5)).unwrap();
    drop(state);
    let state = open(directory.path());
    assert_eq!(state.lookup(&hosts).unwrap(), Some(stored(3)));
    assert_eq!(state.lookup(&passwd).unwrap(), None);
    assert_eq!((state.count(ItemKind::File).unwrap(), state.count(ItemKind::Unit).unwrap()), (1, 0));
    assert_eq!(state.inventory_complete().unwrap(), Some(InventoryComplete { at: Time::from_micros(9), items: 1, epoch: Epoch(7) }));
    assert_eq!(state.policy().unwrap(), Some(policy));
    assert_eq!(state.last_alive().unwrap(), Some(Time::from_micros(-5)));
    assert_eq!(state.spooled(), (Epoch(7), Sequence(4)));
}

#[test]
fn keys_of_any_bytes_and_of_any_length_are_kept_apart() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(directory.path());
    let long = vec![b'a'; ItemKey::LIMIT - 1];
    let mut longer = long.clone();
    longer.push(b'b');
    let items: Vec<ItemId> = [&b"/tmp/\xff\xfe"[..], b"/tmp/\\xff", b"/tmp/\x1b[2J\n", &long, &longer].into_iter().map(file).collect();
    let changes: Vec<_> = items.iter().enumerate().map(|(at, item)| (item.clone(), Some(stored(at as i64)))).collect();
    state.apply(&changes, None).unwrap();
    for (item, expected) in changes {
        assert_eq!(state.lookup(&item).unwrap(), expected);
    }
    assert_eq!(state.items(&Scope::kind(ItemKind::File), None, 10).unwrap().len(), 5);
}

#[test]
fn the_sweep_finds_what_a_scan_did_not_meet_within_its_scope_alone() {
    let directory = tempfile::tempdir().unwrap();
    let state = open(directory.path());
    let paths: [&[u8]; 8] = [b"/etc", b"/etc-old", b"/etc.d/a", b"/etc/a", b"/etc/b/c", b"/etc/b/\xff", b"/etc0", b"/usr"];
    let mut changes: Vec<_> = paths.iter().map(|path| (file(path), Some(stored(1)))).collect();
    changes.push(("package:etc".parse().unwrap(), Some(stored(1))));
    state.apply(&changes, None).unwrap();
    let mut seen = Seen::new();
    let mut other = seen.fork();
    seen.insert(&file(b"/etc"));
    other.insert_bytes(ItemKind::File, b"/etc/b/\xff");
    seen.absorb(other);
    let scope = Scope::beneath(b"/etc/");
    let first = state.unseen(&scope, &mut seen, None, 1).unwrap();
    assert_eq!(first, [file(b"/etc/a")]);
    assert_eq!(state.unseen(&scope, &mut seen, first.last(), 10).unwrap(), [file(b"/etc/b/c")]);
    assert_eq!(state.unseen(&scope, &mut seen, Some(&file(b"/usr")), 10).unwrap(), []);
    assert_eq!(state.unseen(&Scope::beneath(b"/"), &mut seen, None, 100).unwrap().len(), 6);
    assert_eq!(state.unseen(&Scope::kind(ItemKind::Package), &mut seen, None, 100).unwrap().len(), 1);
    let keys: Vec<_> = state.items(&scope, None, 10).unwrap().into_iter().map(|(item, _)| item).collect();
    assert_eq!(keys, [&b"/etc"[..], b"/etc/a", b"/etc/b/c", b"/etc/b/\xff"].map(file));
}

#[test]
fn a_damaged_file_is_moved_aside_and_reported() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let changes: Vec<_> = (0..500).map(|number| (file(format!("/etc/{number}").as_bytes()), Some(stored(number)))).collect();
    let state = open(directory.path());
    state.apply(&changes, None).unwrap();
    drop(state);
    let whole = fs::read(&path).unwrap();
    let row = whole.windows(8).position(|window| window == b"/etc/250").unwrap();
    let mut flipped = whole.clone();
    flipped[row + 12] ^= 4;
    let damages: [&[u8]; 4] = [b"not a database at all", &flipped, &whole[..whole.len() / 3], &[0; 8192]];
    for (number, damaged) in damages.into_iter().enumerate() {
        fs::write(&path, damaged).unwrap();
        let (state, aside) = State::open(&path, CACHE, &number.to_string()).unwrap();
        let aside = aside.unwrap_or_else(|| panic!("damage {number} went unseen"));
        assert_eq!(fs::read(&aside.to).unwrap().len(), damaged.len());
        assert!(state.is_empty().unwrap() && !aside.reason.is_empty());
        state.apply(&changes[..1], None).unwrap();
    }
}

#[derive(Debug, thiserror::Error)]
enum ReplayError {
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

/// What the observer does at its start.
fn start(directory: &Path) -> (Spool, State) {
    let state = open(directory);
    let known = Some(state.spooled()).filter(|(epoch, _)| epoch.0 > 0);
    let limit = SpoolLimit { bytes: 1 << 20, segment_bytes: 1024 };
    let (spool, recovery) = Spool::open(&directory.join("spool"), limit, known, || Epoch(1)).unwrap();
    assert_eq!(recovery.damaged, None);
    let after = if state.spooled().0 == spool.epoch() { state.spooled().1 } else { Sequence(spool.oldest().0 - 1) };
    state.replay::<ReplayError>(spool.epoch(), spool.records_after(after).map(|record| Ok(record?))).unwrap();
    assert_eq!(state.spooled().1, spool.newest());
    spool.mark_applied(state.durable_spooled().1).unwrap();
    (spool, state)
}

fn transition(item: &ItemId, before: Option<i64>, after: Option<i64>) -> RecordBody {
    let value = |size: Option<i64>| size.map(Value::Integer);
    if before.is_none()
        && let Some(after) = after
        && after % 2 == 0
    {
        let fields = Fields::new().with("mode", "0644").with("size", after);
        return RecordBody::Observed(Observation { item: item.clone(), fields, observed_at: Time::from_micros(after) });
    }
    let kind = match (before, after) {
        (None, _) => ChangeKind::Created,
        (_, None) => ChangeKind::Removed,
        _ => ChangeKind::Modified,
    };
    RecordBody::Changed(Box::new(Change {
        item: item.clone(),
        kind,
        fields: vec![FieldChange { name: FieldName::known("size"), before: value(before), after: value(after) }],
        unchanged: Fields::new().with("mode", "0644"),
        observed_after: Time::from_micros(0),
        observed_at: Time::from_micros(after.unwrap_or(0)),
        cause: Cause::Event,
        actor: Actor::unknown("test"),
        transaction: None,
        shipped_by: None,
        candidates: trueline_drift::Candidates::default(),
        lines: None,
    }))
}

#[derive(Debug, Clone, Copy)]
enum CrashAt {
    Never,
    /// Appended, not applied.
    AfterAppend,
    AfterApply,
    AfterFlush,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Every change that the spool took is in the state exactly once, wherever the agent dies.
    #[test]
    fn a_crash_anywhere_between_spool_and_state_loses_and_repeats_nothing(
        steps in proptest::collection::vec((0usize..6, proptest::option::weighted(0.8, 1i64..1000), prop_oneof![
            6 => Just(CrashAt::Never), 1 => Just(CrashAt::AfterAppend), 1 => Just(CrashAt::AfterApply), 1 => Just(CrashAt::AfterFlush)
        ], any::<bool>()), 1..40)
    ) {
        let mut home = tempfile::tempdir().unwrap();
        let (mut spool, mut state) = start(home.path());
        let mut model = std::collections::BTreeMap::<ItemId, i64>::new();
        let mut reported = Vec::new();
        for (slot, after, crash, acknowledge) in steps {
            let item = file(format!("/etc/{slot}").as_bytes());
            let before = state.lookup(&item).unwrap().and_then(|stored| match stored.fields.value("size") {
                Some(Value::Integer(size)) => Some(*size),
                _ => None,
            });
            prop_assert_eq!(before, model.get(&item).copied());
            if before == after {
                continue;
            }
            let record = transition(&item, before, after);
            reported.push(record.clone());
            let sequence = spool.append(vec![record]).unwrap();
            prop_assert_eq!(sequence.0, reported.len() as u64);
            match after {
                Some(after) => { model.insert(item.clone(), after); }
                None => { model.remove(&item); }
            }
            if !matches!(crash, CrashAt::AfterAppend) {
                state.apply(&[(item, after.map(stored))], Some((spool.epoch(), sequence))).unwrap();
            }
            if matches!(crash, CrashAt::AfterFlush) {
                state.flush().unwrap();
            }
            spool.mark_applied(state.durable_spooled().1).unwrap();
            if acknowledge {
                spool.acknowledge(sequence).unwrap();
            }
            if !matches!(crash, CrashAt::Never) {
                let copy = crashed(home.path());
                drop((spool, state));
                home = copy;
                (spool, state) = start(home.path());
            }
        }
        prop_assert_eq!(state.count(ItemKind::File).unwrap(), model.len() as u64);
        for (item, size) in model {
            let found = state.lookup(&item).unwrap().unwrap();
            prop_assert_eq!(found.fields.value("size"), Some(&Value::Integer(size)));
        }
        prop_assert_eq!(spool.newest().0, reported.len() as u64);
    }
}

#[test]
fn a_full_disk_is_an_error_and_the_state_goes_on_once_there_is_space() {
    let name = "a_full_disk_is_an_error";
    let directory = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]).arg(directory.path()).output();
    if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
        use std::io::Write;
        assert!(std::env::var_os("TRUELINE_TEST_REQUIRE").is_none(), "{name}: cannot mount a tmpfs: {mounted:?}");
        let _ = writeln!(std::io::stderr(), "skipped: {name}: cannot mount a tmpfs");
        return;
    }
    let ballast = directory.path().join("ballast");
    let outcome = std::panic::catch_unwind(|| {
        let state = open(directory.path());
        let batch =
            |number: i64| -> Vec<_> { (0..200).map(|at| (file(format!("/etc/{number}/{at}").as_bytes()), Some(stored(number)))).collect() };
        state.apply(&batch(0), Some((Epoch(1), Sequence(0)))).unwrap();
        state.flush().unwrap();
        fs::write(&ballast, vec![1; 8 << 20]).unwrap_err();
        let mut number = 1;
        let refused = loop {
            if let Err(error) = state.apply(&batch(number), Some((Epoch(1), Sequence(number as u64)))).and_then(|()| state.flush()) {
                break error;
            }
            number += 1;
            assert!(number < 10_000);
        };
        assert!(matches!(refused, StateError::Storage { .. }), "{refused}");
        assert!(matches!(state.lookup(&file(b"/etc/0/0")), Err(StateError::Closed { .. })));
        fs::remove_file(&ballast).unwrap();
        state.reopen().unwrap();
        let (epoch, spooled) = state.spooled();
        assert!(epoch == Epoch(1) && (spooled.0 as i64 == number - 1 || spooled.0 as i64 == number), "{spooled} {number}");
        assert_eq!(state.len().unwrap(), (spooled.0 + 1) * 200);
        state.apply(&batch(number), Some((Epoch(1), Sequence(number as u64)))).unwrap();
        state.flush().unwrap();
        assert_eq!(state.lookup(&file(format!("/etc/{number}/7").as_bytes())).unwrap(), Some(stored(number)));
    });
    let _ = Command::new("umount").arg("-l").arg(directory.path()).status();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn counts_of_an_agent_that_knew_fewer_kinds_are_read() {
    let before = super::bytes([0, 5, 4, 3, 2, 1, 6, 7]);
    let counts = super::counts(&before);
    assert_eq!((&counts[..8], &counts[8..]), (&[0, 5, 4, 3, 2, 1, 6, 7][..], &[0; 56][..]));
    assert_eq!(super::counts(&super::bytes(counts)), counts);
}

#[test]
fn the_names_of_a_file_are_known_while_it_has_several() {
    let directory = tempfile::tempdir().unwrap();
    let inode = Inode { device: 8, number: 77 };
    let named = |links: i64| Stored { fields: Fields::new().with("nlink", links), stamp: None, inode: Some(inode), ..stored(1) };
    let names = |state: &State| state.names_of(inode).unwrap();
    let (a, b) = (file(b"/etc/a"), file(b"/etc/b"));
    let other = Stored { inode: Some(Inode { number: 78, ..inode }), ..named(2) };
    {
        let state = open(directory.path());
        state.apply(&[(a.clone(), Some(named(2))), (b.clone(), Some(named(2))), (file(b"/etc/c"), Some(other))], None).unwrap();
        assert_eq!(names(&state), [a.clone(), b.clone()]);
    }
    let state = open(directory.path());
    assert_eq!(names(&state), [a.clone(), b.clone()]);
    state.apply(&[(b.clone(), None)], None).unwrap();
    assert_eq!(names(&state), std::slice::from_ref(&a));
    state.apply(&[(a.clone(), Some(named(1)))], None).unwrap();
    assert!(names(&state).is_empty());
    let met = state.bearers(&|sought| sought == inode, None, 1).unwrap();
    assert_eq!((met.items, met.last.clone()), (vec![(a.clone(), inode)], Some(a)));
    let rest = state.bearers(&|sought| sought == inode, met.last.as_ref(), 10).unwrap();
    assert!(rest.items.is_empty() && rest.last.is_none());
}

#[test]
fn a_state_that_kept_no_names_learns_them() {
    let directory = tempfile::tempdir().unwrap();
    let inode = Inode { device: 8, number: 77 };
    let named = Stored { fields: Fields::new().with("nlink", 2), stamp: None, inode: Some(inode), ..stored(1) };
    open(directory.path()).apply(&[(file(b"/etc/a"), Some(named))], None).unwrap();
    let database = redb::Database::open(directory.path().join("state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    assert!(transaction.delete_table(redb::TableDefinition::<&[u8], &[u8]>::new("names")).unwrap());
    transaction.commit().unwrap();
    drop(database);
    assert_eq!(open(directory.path()).names_of(inode).unwrap(), [file(b"/etc/a")]);
}
