//! Numbers that no spool gives, behind checksums that are right.

use super::*;
use crate::spool::format::{Position, SegmentHeader, StoredFrame};

/// Opens, appends, and opens again what was appended.
fn takes_records(directory: &Path) {
    let (spool, _) = open(directory);
    let last = spool.append(vec![body(7)]).unwrap();
    drop(spool);
    let (spool, recovery) = open(directory);
    assert_eq!((recovery.truncated_bytes, recovery.damaged, spool.newest()), (0, None, last));
    assert_eq!(records(&spool, last.0 - 1), [(last.0, body(7))]);
}

#[test]
fn a_segment_beyond_all_numbers_does_not_take_records_with_it() {
    for first in [0, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        let directory = tempfile::tempdir().unwrap();
        let folder = format::epoch_folder(directory.path(), Epoch(1));
        std::fs::create_dir(&folder).unwrap();
        let header = SegmentHeader { epoch: Epoch(1), first: Sequence(first), link: ChainLink::START };
        std::fs::write(format::segment_path(&folder, Sequence(first)), header.encode()).unwrap();
        takes_records(directory.path());
    }
}

#[test]
fn a_frame_beyond_all_numbers_does_not_take_records_with_it() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).0.append(vec![body(1)]).unwrap();
    let path = only_segment(directory.path());
    let frame = v1::Frame { first_sequence: u64::MAX, count: 4096, payload: vec![1].into(), link: vec![0; 32].into() };
    let odd = StoredFrame { frame, append: Sequence(u64::MAX) }.encode();
    std::fs::write(&path, [std::fs::read(&path).unwrap(), odd].concat()).unwrap();
    takes_records(directory.path());
}

#[test]
fn a_position_beyond_all_numbers_is_no_position() {
    let directory = tempfile::tempdir().unwrap();
    open(directory.path()).0.append(vec![body(1)]).unwrap();
    Position { epoch: Epoch(1), acknowledged: Sequence(u64::MAX) }.replace(directory.path()).unwrap();
    let (spool, recovery) = open(directory.path());
    assert_eq!((recovery.damaged, spool.acknowledged(), spool.newest()), (None, Sequence(0), Sequence(1)));
    drop(spool);
    takes_records(directory.path());
}
