//! Torn, flipped and missing: what is lost is told, what is not lost comes back.

use std::collections::BTreeSet;

use super::*;

#[test]
fn a_write_torn_at_any_byte_is_cut_to_the_last_whole_frame() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    spool.append(vec![body(1), body(2)]).unwrap();
    let whole = spool.bytes();
    spool.append(vec![body(3)]).unwrap();
    let end = spool.bytes();
    for length in whole..end {
        for zeros in [false, true] {
            let copy = crashed(directory.path());
            let file = std::fs::OpenOptions::new().write(true).open(only_segment(copy.path())).unwrap();
            file.set_len(length).unwrap();
            if zeros {
                file.set_len(end).unwrap();
            }
            let (spool, recovery) = open(copy.path());
            assert_eq!((recovery.newest, &recovery.damaged, spool.epoch()), (Sequence(2), &None, Epoch(1)), "{length} {zeros}");
            assert_eq!(recovery.truncated_bytes, if zeros { end - whole } else { length - whole });
            assert_eq!(spool.append(vec![body(3)]).unwrap(), Sequence(3));
            verify(Epoch(1), ChainLink::START, &all_frames(&spool));
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_before_the_last_append_is_found_and_reported() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    spool.append(vec![body(1), body(2)]).unwrap();
    let from = spool.bytes();
    spool.append(vec![body(3), body(4)]).unwrap();
    let to = spool.bytes();
    spool.append(vec![body(5)]).unwrap();
    for at in 0..to {
        let copy = crashed(directory.path());
        let path = only_segment(copy.path());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at as usize] ^= 1 << (at % 8);
        std::fs::write(&path, bytes).unwrap();
        let (spool, recovery) = open(copy.path());
        let damage = recovery.damaged.unwrap_or_else(|| panic!("the flip at {at} went unseen"));
        let kept: Vec<u64> = records(&spool, 0)
            .into_iter()
            .map(|(_, body)| match body {
                RecordBody::InventoryComplete { items, .. } => items,
                other => panic!("{other:?}"),
            })
            .collect();
        let lost: BTreeSet<u64> = damage.lost.iter().flat_map(|lost| lost.first.0..=lost.last.unwrap().0).collect();
        let expected: &[u64] = match at {
            0..64 => &[],
            at if at < from => &[1, 2],
            _ => &[3, 4],
        };
        assert_eq!(lost, expected.iter().copied().collect(), "byte {at}");
        assert!((1..=5).all(|number| lost.contains(&number) != kept.contains(&number)), "byte {at}: {kept:?} {lost:?}");
        assert_eq!((damage.epoch, spool.epoch(), damage.saved), (Epoch(1), Epoch(2), kept.len() as u64));
        verify(Epoch(2), ChainLink::START, &all_frames(&spool));
        spool.append(vec![body(6)]).unwrap();
        drop(spool);
        let (spool, recovery) = open(copy.path());
        assert_eq!((recovery.damaged, recovery.epoch), (None, Epoch(2)), "damage is reported once");
        verify(Epoch(2), ChainLink::START, &all_frames(&spool));
    }
}

#[test]
fn a_missing_segment_and_numbers_known_elsewhere_are_damage() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    for number in 1..=10 {
        spool.append(vec![bulky(number, 3000)]).unwrap();
    }
    let copy = crashed(directory.path());
    segment::remove(&format::epoch_folder(copy.path(), Epoch(1)), Sequence(4)).unwrap();
    let (_, recovery) = open(copy.path());
    assert_eq!(recovery.damaged.unwrap().lost, [Lost { first: Sequence(4), last: Some(Sequence(4)) }]);

    let copy = crashed(directory.path());
    let known = Some((Epoch(1), Sequence(12)));
    let (spool, recovery) = Spool::open(copy.path(), LIMIT, known, || Epoch(1)).unwrap();
    let damage = recovery.damaged.unwrap();
    assert_eq!((&damage.lost[..], damage.saved), (&[Lost { first: Sequence(11), last: Some(Sequence(12)) }][..], 10));
    assert_eq!(spool.epoch(), Epoch(2));

    let copy = crashed(directory.path());
    std::fs::remove_dir_all(format::epoch_folder(copy.path(), Epoch(1))).unwrap();
    let (_, recovery) = open(copy.path());
    assert_eq!(recovery.damaged.unwrap().lost, [Lost { first: Sequence(1), last: None }]);
}
