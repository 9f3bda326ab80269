//! Truth under stress: random operations on real file systems, beside the real agent. After quiet, what it told of each item, folded
//! together, equals an independent reading of the disk; and no change was told twice, out of its order, or of nothing.
//!
//! `TRUELINE_TRUTH_OPERATIONS` says how many operations on each file system (600). A sequence that disagrees is made as short as it
//! can be and printed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "truth/disk.rs"]
mod disk;
#[path = "truth/operation.rs"]
mod operation;
#[path = "truth/picture.rs"]
mod picture;
#[path = "truth/told.rs"]
mod told;

use std::path::Path;

use proptest::collection::vec;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use disk::{Disk, Kind};
use operation::{Hands, operation};
use told::Told;

/// Of one sequence.
const LONGEST: usize = 24;

fn operations() -> usize {
    std::env::var("TRUELINE_TRUTH_OPERATIONS").ok().map_or(600, |text| text.parse().expect("TRUELINE_TRUTH_OPERATIONS is a number"))
}

fn holds_on(kind: Kind) {
    let Some(disk) = Disk::make(kind) else { return };
    let (inside, outside) = (disk.path().join("in"), disk.path().join("out"));
    std::fs::create_dir(&inside).unwrap();
    std::fs::create_dir(&outside).unwrap();
    // Opened before the agent is there.
    let hands = Hands::over(&inside, &outside);
    let told = std::cell::RefCell::new(Told::of(&inside));
    let cases = u32::try_from(operations().div_ceil(LONGEST / 2)).unwrap();
    let mut runner = TestRunner::new(Config { cases, max_shrink_iters: 60, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&vec(operation(), 1..LONGEST), |sequence| {
        for operation in &sequence {
            hands.carry_out(operation);
        }
        let agreed = told.borrow_mut().agrees(&inside);
        hands.tidy();
        agreed.map_err(TestCaseError::fail)
    });
    if let Err(error) = outcome {
        panic!("{kind:?}: {error}");
    }
    eprintln!("{kind:?}: {} operations in {cases} sequences, {} changes told", hands.carried_out(), told.borrow().changes());
    drop(told);
    drop(disk);
}

fn is_mount_point(path: &Path) -> bool {
    let own = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    own.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

#[test]
fn on_ext4() {
    holds_on(Kind::Ext4);
}

#[test]
fn on_xfs() {
    holds_on(Kind::Xfs);
}

#[test]
fn on_a_subvolume_of_btrfs() {
    holds_on(Kind::BtrfsSubvolume);
}

#[test]
fn on_tmpfs() {
    holds_on(Kind::Tmpfs);
}

#[test]
fn on_overlayfs() {
    holds_on(Kind::Overlay);
}

#[test]
fn through_a_bind_mount() {
    holds_on(Kind::Bind);
}

#[test]
fn a_disk_is_gone_once_it_is_unmounted() {
    let Some(disk) = Disk::make(Kind::Tmpfs) else { return };
    let path = disk.path().to_owned();
    assert!(is_mount_point(&path));
    drop(disk);
    assert!(!is_mount_point(&path));
}
