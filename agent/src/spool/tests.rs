use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use trueline_drift::{CoverageGap, Epoch, GapReason, RecordBody, Sequence, Time};
use trueline_proto::{ChainLink, v1};

use super::*;
use crate::testing::await_some;

mod agreement;
mod anew;
mod damage;
mod numbers;

const LIMIT: SpoolLimit = SpoolLimit { bytes: 64 * 1024 * 1024, segment_bytes: 4096 };

fn body(number: u64) -> RecordBody {
    RecordBody::InventoryComplete { items: number, observed_at: Time::from_micros(7) }
}

/// A record that does not compress.
fn bulky(seed: u64, bytes: usize) -> RecordBody {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let scope: String = (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'!' + (state % 90) as u8)
        })
        .collect();
    RecordBody::Gap(CoverageGap {
        scope,
        reason: GapReason::SpoolFull,
        began_at: Time::from_micros(1),
        ended_at: None,
        lost: None,
        remedy: None,
    })
}

fn open(directory: &Path) -> (Spool, Recovery) {
    open_with(directory, LIMIT)
}

fn open_with(directory: &Path, limit: SpoolLimit) -> (Spool, Recovery) {
    // Another test's child process holds our descriptors until it executes.
    await_some("the spool's lock", || match Spool::open(directory, limit, None, || Epoch(1)) {
        Err(SpoolError::InUse { .. }) => None,
        opened => Some(opened.unwrap()),
    })
}

/// The folder as a power cut at this moment would leave it.
fn crashed(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_tree(directory, copy.path());
    copy
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy_tree(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn records(spool: &Spool, after: u64) -> Vec<(u64, RecordBody)> {
    spool.records_after(Sequence(after)).map(|record| record.map(|(sequence, body)| (sequence.0, body)).unwrap()).collect()
}

/// Verifies numbers and chain as a collector does.
fn verify(epoch: Epoch, mut link: ChainLink, frames: &[v1::Frame]) {
    for frame in frames {
        link = link.next(epoch, Sequence(frame.first_sequence), frame.count, &frame.payload);
        assert_eq!(frame.link[..], link.0, "frame {}", frame.first_sequence);
    }
    for pair in frames.windows(2) {
        assert_eq!(pair[0].first_sequence + u64::from(pair[0].count), pair[1].first_sequence);
    }
}

fn all_frames(spool: &Spool) -> Vec<v1::Frame> {
    let mut frames: Vec<v1::Frame> = Vec::new();
    let mut after = Sequence(spool.oldest().0 - 1);
    loop {
        let more = spool.frames_after(after, 2000).unwrap();
        let Some(last) = more.last() else { return frames };
        after = Sequence(last.first_sequence + u64::from(last.count) - 1);
        frames.extend(more);
    }
}

fn only_segment(directory: &Path) -> std::path::PathBuf {
    let folder = format::epoch_folder(directory, Epoch(1));
    let mut segments: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(segments.len(), 1);
    segments.remove(0)
}

#[test]
fn records_come_back_in_order_with_a_chain_that_verifies() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, recovery) = open(directory.path());
    assert_eq!((recovery.epoch, recovery.oldest, recovery.newest), (Epoch(1), Sequence(1), Sequence(0)));
    for number in 1..=100 {
        assert_eq!(spool.append(vec![body(number * 2 - 1), body(number * 2)]).unwrap(), Sequence(number * 2));
    }
    let frames = all_frames(&spool);
    verify(Epoch(1), ChainLink::START, &frames);
    assert_eq!(spool.frames_after(Sequence(3), 1).unwrap()[0].first_sequence, 3, "the frame that holds the record is given whole");
    assert_eq!(records(&spool, 3).first(), Some(&(4, body(4))));
    drop(spool);
    let (spool, recovery) = open(directory.path());
    assert_eq!((recovery.epoch, recovery.newest, recovery.damaged, recovery.truncated_bytes), (Epoch(1), Sequence(200), None, 0));
    assert_eq!(records(&spool, 0), (1..=200).map(|number| (number, body(number))).collect::<Vec<_>>());
    assert_eq!(spool.append(vec![body(201)]).unwrap(), Sequence(201));
    verify(Epoch(1), ChainLink::START, &all_frames(&spool));
}

#[test]
fn the_limit_holds_appends_and_acknowledging_gives_the_space_back() {
    let directory = tempfile::tempdir().unwrap();
    let limit = SpoolLimit { bytes: 512 * 1024, segment_bytes: 64 * 1024 };
    let (spool, _) = open_with(directory.path(), limit);
    let mut number = 0;
    let refused = loop {
        match spool.append(vec![bulky(number, 2000)]) {
            Ok(sequence) => number = sequence.0,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::Full { limit: 524_288, .. }), "{refused}");
    assert!(spool.bytes() <= limit.bytes && spool.bytes() > limit.bytes / 2);
    let newest = spool.newest();
    spool.acknowledge(newest).unwrap();
    assert!(spool.append(vec![bulky(2, 2000)]).is_err(), "the state still needs them");
    spool.mark_applied(newest).unwrap();
    assert!(spool.bytes() <= limit.segment_bytes, "{}", spool.bytes());
    assert_eq!(spool.append(vec![body(1)]).unwrap(), newest.next());
    assert!(matches!(spool.frames_after(Sequence(0), 1), Err(SpoolError::Gone { .. })));
    drop(spool);
    let (spool, recovery) = open_with(directory.path(), limit);
    assert_eq!((recovery.acknowledged, recovery.damaged), (newest, None));
    assert!(recovery.oldest > Sequence(1) && recovery.oldest <= newest.next());
    assert_eq!(records(&spool, newest.0).len(), 1);
}

#[test]
fn a_hundred_thousand_records_stay_bounded_and_arrive_in_order_while_being_written() {
    const RECORDS: u64 = 100_000;
    let directory = tempfile::tempdir().unwrap();
    let limit = SpoolLimit { bytes: 512 * 1024, segment_bytes: 64 * 1024 };
    let (spool, _) = open_with(directory.path(), limit);
    let spool = Arc::new(spool);
    let failed = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (spool, failed) = (Arc::clone(&spool), Arc::clone(&failed));
        move || {
            let mut next = 1;
            while next <= RECORDS && !failed.load(Ordering::Relaxed) {
                let batch: Vec<_> = (next..(next + 37).min(RECORDS + 1)).map(body).collect();
                let count = batch.len() as u64;
                match spool.append(batch) {
                    Ok(_) => next += count,
                    Err(AppendError::Full { .. }) => std::thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
                assert!(spool.bytes() <= limit.bytes);
            }
        }
    });
    let mut received = 0;
    let mut link = ChainLink::START;
    while received < RECORDS {
        // Looked at first: what it wrote before it ended is still to be had.
        let is_written = writer.is_finished();
        let frames = spool.frames_after(Sequence(received), 16 * 1024).unwrap();
        assert!(!(is_written && frames.is_empty()), "the writer has ended at {} and {received} came", spool.newest().0);
        verify(Epoch(1), link, &frames);
        for frame in &frames {
            link = ChainLink::from_bytes(&frame.link).unwrap();
            for record in trueline_proto::frame::decode(frame).unwrap() {
                received += 1;
                assert_eq!(record, body(received));
            }
        }
        spool.mark_applied(Sequence(received)).unwrap();
        spool.acknowledge(Sequence(received)).unwrap();
    }
    failed.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert_eq!(spool.newest(), Sequence(RECORDS));
}

#[test]
fn a_second_process_is_kept_out() {
    let directory = tempfile::tempdir().unwrap();
    let (_spool, _) = open(directory.path());
    assert!(matches!(Spool::open(directory.path(), LIMIT, None, || Epoch(1)), Err(SpoolError::InUse { .. })));
}

#[test]
fn frames_are_split_within_the_limits_of_the_wire() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, _) = open(directory.path());
    spool.append((0..9000).map(body).collect()).unwrap();
    spool.append((0..300).map(|seed| bulky(seed, 4000)).collect()).unwrap();
    let frames = all_frames(&spool);
    verify(Epoch(1), ChainLink::START, &frames);
    assert!(frames.iter().all(|frame| frame.payload.len() <= 260 * 1024 && frame.count <= 4096));
    assert_eq!(records(&spool, 0).len(), 9300);
    let refused = spool.append(vec![body(1), bulky(1, 3 * 1024 * 1024)]);
    assert!(matches!(refused, Err(AppendError::TooLarge { index: 1, .. })));
    assert_eq!(spool.newest(), Sequence(9300));
}

/// A small file system of its own, unmounted at the end.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(name: &str, kib: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={kib}k,mode=0700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(directory.path()).output();
        match mounted {
            Ok(output) if output.status.success() => return Some(Self(directory)),
            other => {
                use std::io::Write;
                assert!(std::env::var_os("TRUELINE_TEST_REQUIRE").is_none(), "{name}: cannot mount a tmpfs: {other:?}");
                let _ = writeln!(std::io::stderr(), "skipped: {name}: cannot mount a tmpfs");
            }
        }
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_an_append_whole_and_takes_it_once_there_is_space() {
    let Some(mount) = Mount::new("a_full_disk_refuses_an_append_whole", 1024) else { return };
    let directory = mount.0.path().join("spool");
    let limit = SpoolLimit { segment_bytes: 256 * 1024, ..LIMIT };
    let (spool, _) = open_with(&directory, limit);
    let batch = |seed: u64| -> Vec<_> { (0..40).map(|at| bulky(seed * 100 + at, 3000)).collect() };
    let mut appended = 0;
    let refused = loop {
        match spool.append(batch(appended)) {
            Ok(sequence) => {
                appended += 1;
                assert_eq!(sequence, Sequence(appended * 40));
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, AppendError::NoSpace { .. }), "{refused}");
    for _ in 0..3 {
        assert!(matches!(spool.append(batch(appended)), Err(AppendError::NoSpace { .. })));
    }
    assert_eq!(spool.newest(), Sequence(appended * 40));
    verify(Epoch(1), ChainLink::START, &all_frames(&spool));
    let copy = crashed(&directory);
    assert_eq!(open_with(copy.path(), limit).1.newest, Sequence(appended * 40));

    spool.mark_applied(spool.newest()).unwrap();
    spool.acknowledge(spool.newest()).unwrap();
    let link = all_frames(&spool).last().map(|frame| frame.link.clone());
    let newest = spool.append(batch(appended)).unwrap();
    assert_eq!(newest, Sequence(appended * 40 + 40));
    let frames = spool.frames_after(Sequence(appended * 40), 1 << 20).unwrap();
    if let Some(link) = link {
        verify(Epoch(1), ChainLink::from_bytes(&link).unwrap(), &frames);
    }
    drop(spool);
    let (spool, recovery) = open_with(&directory, limit);
    assert_eq!((recovery.newest, recovery.damaged, recovery.epoch), (newest, None, Epoch(1)));
    assert_eq!(records(&spool, appended * 40).len(), 40);
}

#[test]
fn acknowledged_segments_leave_a_full_disk_that_has_no_room_for_the_position() {
    use std::io::Write;
    let Some(mount) = Mount::new("acknowledged_segments_leave_a_full_disk", 1024) else { return };
    let directory = mount.0.path().join("spool");
    let limit = SpoolLimit { segment_bytes: 64 * 1024, ..LIMIT };
    let (spool, _) = open_with(&directory, limit);
    for batch in 0..50 {
        spool.append((0..100).map(|at| bulky(batch * 100 + at, 20)).collect()).unwrap();
    }
    spool.mark_applied(spool.newest()).unwrap();
    let fill = || {
        let mut ballast = std::fs::OpenOptions::new().create(true).append(true).open(mount.0.path().join("ballast")).unwrap();
        while ballast.write(&[7; 4096]).is_ok_and(|written| written > 0) {}
    };
    fill();
    let full = format::Marker { after: Epoch(1) }.replace(&directory).unwrap_err();
    assert!(matches!(&full, SpoolError::Io { source, .. } if is_no_space(source)), "{full}");
    let (before, part) = (spool.bytes(), Sequence(4500));
    assert!(part.0 > POSITION_EVERY && before > limit.segment_bytes);
    spool.acknowledge(part).unwrap();
    assert!(spool.bytes() < before / 2, "{} of {before}", spool.bytes());
    assert_eq!(Position::read(&directory).unwrap().unwrap().acknowledged, part, "the space that came was enough for the position");

    fill();
    spool.acknowledge(spool.newest()).unwrap();
    assert!(spool.bytes() <= limit.segment_bytes, "{}", spool.bytes());
    std::fs::remove_file(mount.0.path().join("ballast")).unwrap();
    assert_eq!(spool.append(vec![body(1)]).unwrap(), Sequence(5001));
    drop(spool);
    let (spool, recovery) = open_with(&directory, limit);
    assert_eq!((recovery.newest, recovery.acknowledged, recovery.damaged), (Sequence(5001), Sequence(5000), None));
    assert_eq!(records(&spool, 5000), [(5001, body(1))]);
}
