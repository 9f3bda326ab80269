//! Numbers that no longer fit the collector's: what the marker leads to, wherever a crash falls.

use super::*;

/// Ten records of which four are acknowledged, and the mark.
fn marked(directory: &Path, after: Epoch) {
    let (spool, _) = open(directory);
    for number in 1..=10 {
        spool.append(vec![body(number)]).unwrap();
    }
    spool.mark_applied(Sequence(10)).unwrap();
    spool.acknowledge(Sequence(4)).unwrap();
    spool.begin_anew_after(after).unwrap();
    assert_eq!(spool.append(vec![body(11)]).unwrap(), Sequence(11), "until it is opened again it goes on as before");
}

fn expect_anew(directory: &Path, epoch: Epoch) {
    let (spool, recovery) = open(directory);
    assert_eq!((recovery.epoch, recovery.renumbered), (epoch, true));
    assert_eq!(recovery.damaged, Some(Damage { epoch: Epoch(1), lost: Vec::new(), saved: 7 }));
    assert_eq!(records(&spool, 0), (1..=7).map(|number| (number, body(number + 4))).collect::<Vec<_>>());
    verify(epoch, ChainLink::START, &all_frames(&spool));
    drop(spool);
    let (spool, recovery) = open(directory);
    assert_eq!((recovery.epoch, recovery.renumbered, recovery.damaged), (epoch, false, None), "it is done once");
    assert_eq!(spool.append(vec![body(12)]).unwrap(), Sequence(8));
}

#[test]
fn a_marked_spool_numbers_what_is_not_acknowledged_anew() {
    for (after, epoch) in [(Epoch(0), Epoch(2)), (Epoch(1), Epoch(2)), (Epoch(41), Epoch(42))] {
        let directory = tempfile::tempdir().unwrap();
        marked(directory.path(), after);
        expect_anew(directory.path(), epoch);
    }
}

#[test]
fn a_crash_before_the_new_epoch_counts_does_it_again() {
    let directory = tempfile::tempdir().unwrap();
    marked(directory.path(), Epoch(1));
    // A copy that was not finished: the position does not name it.
    let half = format::epoch_folder(directory.path(), Epoch(2));
    std::fs::create_dir(&half).unwrap();
    std::fs::write(format::segment_path(&half, Sequence(1)), [0x41; 100]).unwrap();
    expect_anew(directory.path(), Epoch(2));
}

#[test]
fn a_crash_after_the_new_epoch_counts_does_not_do_it_again() {
    let directory = tempfile::tempdir().unwrap();
    marked(directory.path(), Epoch(1));
    let old = format::epoch_folder(directory.path(), Epoch(1));
    let kept = tempfile::tempdir().unwrap();
    copy_tree(&old, kept.path());
    drop(open(directory.path()));
    // As before the old folder and the marker went.
    std::fs::create_dir(&old).unwrap();
    copy_tree(kept.path(), &old);
    format::Marker { after: Epoch(1) }.replace(directory.path()).unwrap();

    let (spool, recovery) = open(directory.path());
    assert_eq!((recovery.epoch, recovery.newest, recovery.renumbered, recovery.damaged), (Epoch(2), Sequence(7), false, None));
    assert_eq!(records(&spool, 0).len(), 7);
    assert!(!old.exists());
    assert_eq!(format::Marker::read(directory.path()).unwrap(), None);
}

#[test]
fn a_marker_that_is_not_whole_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    marked(directory.path(), Epoch(1));
    let path = directory.path().join("anew");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[14] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (_, recovery) = open(directory.path());
    assert_eq!((recovery.epoch, recovery.newest, recovery.renumbered, recovery.damaged), (Epoch(1), Sequence(11), false, None));
}
