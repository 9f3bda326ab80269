//! Random operations on real file systems, against the real agent: after quiet, what it told adds up to what the disk holds, and
//! nothing was told twice.
//!
//! A round is what happens between two quiet points. Each change must lead from what was told last to something else (see
//! [`Watching`]), so an item is told again only for another state that the agent really read. A round that ends within the time
//! that the agent waits for an item to be quiet has one settled state: there an item is told at most once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::cell::RefCell;
use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestError, TestRunner};
use trueline_tests::needs;
use trueline_tests::state::item;
use trueline_tests::truth::operation::{self, Names, Operation};
use trueline_tests::truth::volume::{Kind, Volume};
use trueline_tests::truth::watching::{Watching, brief};

/// For the agent to tell all: it reads within a second of the first event; a loaded machine gets more.
const LIMIT: Duration = Duration::from_secs(20);
/// The same while a failure is made smaller.
const SHRINKING: Duration = Duration::from_secs(4);
/// Below the agent's shortest wait for quiet, 8 ms.
const ONE_BURST: Duration = Duration::from_millis(6);
const SEQUENCE: usize = 40;

struct Scene {
    volume: Volume,
    /// Before the agent's start, and beyond the end of one.
    old: File,
    watching: Option<Watching>,
    limit: Duration,
    performed: u64,
    refused: u64,
    rounds: u64,
    changes: u64,
    gaps: u64,
}

impl Scene {
    fn new(volume: Volume) -> anyhow::Result<Self> {
        let old = operation::old_descriptor(&volume.scope())?;
        Ok(Self { volume, old, watching: None, limit: LIMIT, performed: 0, refused: 0, rounds: 0, changes: 0, gaps: 0 })
    }

    /// One sequence, from the same beginning; after a failure with another agent.
    fn play(&mut self, operations: &[Operation]) -> anyhow::Result<()> {
        operation::lay_out(&self.volume).context("laying out the scope")?;
        let mut watching = match self.watching.take() {
            Some(watching) => watching,
            None => Watching::start(&self.volume.scope())?,
        };
        watching.settled(LIMIT).context("after the scope was laid out")?;
        watching.take_told();
        let before = (watching.changes(), watching.gaps());
        let mut began = Instant::now();
        let mut round = 0;
        for (number, operation) in operations.iter().chain([&Operation::Rest]).enumerate() {
            if matches!(operation, Operation::Rest) {
                self.rest(&mut watching, &operations[round..number.min(operations.len())], began.elapsed())?;
                (began, round) = (Instant::now(), number + 1);
                continue;
            }
            self.performed += 1;
            self.refused += u64::from(operation.perform(&self.volume, &self.old).is_err());
        }
        self.changes += watching.changes() - before.0;
        self.gaps += watching.gaps() - before.1;
        self.watching = Some(watching);
        Ok(())
    }

    fn rest(&mut self, watching: &mut Watching, round: &[Operation], took: Duration) -> anyhow::Result<()> {
        watching.settled(self.limit).with_context(|| format!("in the round {round:?}"))?;
        self.rounds += 1;
        let told = watching.take_told();
        if took < ONE_BURST {
            for (item, changes) in &told {
                let texts: Vec<String> = changes.iter().map(brief).collect();
                ensure!(
                    changes.len() == 1,
                    "{item} changed within {took:?} and is told {} times: {texts:#?}, after {round:?}",
                    texts.len()
                );
            }
        }
        Ok(())
    }
}

/// `TRUELINE_TRUTH_OPERATIONS` on each file system: 10,000 by hand, few where nobody says.
fn operations() -> usize {
    std::env::var("TRUELINE_TRUTH_OPERATIONS").ok().and_then(|count| count.parse().ok()).unwrap_or(200)
}

/// `None`, with the reason said, where this machine has no such file system.
fn volume(kind: Kind) -> Option<Volume> {
    if !needs::mount() {
        return None;
    }
    let maps = Command::new("xfs_io").arg("-V").output().is_ok_and(|output| output.status.success());
    if !needs::need(maps, "needs xfs_io: apt-get install xfsprogs") {
        return None;
    }
    let volume = Volume::mount(kind).unwrap();
    needs::need(volume.is_ok(), volume.as_ref().err().map_or("", String::as_str));
    volume.ok()
}

fn holds_on(kind: Kind, regressions: &'static str) {
    holds_with(kind, Names::Single, regressions);
}

fn holds_with(kind: Kind, names: Names, regressions: &'static str) {
    let Some(volume) = volume(kind) else { return };
    let scene = RefCell::new(Scene::new(volume).unwrap());
    let mut runner = TestRunner::new(Config {
        cases: u32::try_from(operations().div_ceil(SEQUENCE)).unwrap(),
        max_shrink_iters: 60,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(regressions))),
        ..Config::default()
    });
    let began = Instant::now();
    let outcome = runner.run(&proptest::collection::vec(operation::any(names), SEQUENCE), |operations| {
        let mut scene = scene.borrow_mut();
        let played = scene.play(&operations);
        played.map_err(|error| {
            if scene.limit == LIMIT {
                eprintln!("{kind:?}, before it is made smaller: {error:#}");
            }
            scene.limit = SHRINKING;
            TestCaseError::fail(format!("{error:#}"))
        })
    });
    let Scene { performed, refused, rounds, changes, gaps, .. } = &*scene.borrow();
    println!(
        "{kind:?}: {performed} operations ({refused} refused) in {rounds} rounds, {changes} changes, {gaps} gaps, {:?}",
        began.elapsed()
    );
    if let Err(TestError::Fail(reason, operations)) = outcome {
        panic!("{kind:?}: {reason}\nthe smallest that fails: {operations:#?}");
    }
    outcome.unwrap();
}

#[test]
fn the_agent_tells_what_ext4_holds() {
    holds_on(Kind::Ext4, "proptest-regressions/truth-ext4.txt");
}

#[test]
fn the_agent_tells_what_xfs_holds() {
    holds_on(Kind::Xfs, "proptest-regressions/truth-xfs.txt");
}

#[test]
fn the_agent_tells_what_btrfs_holds() {
    holds_on(Kind::Btrfs, "proptest-regressions/truth-btrfs.txt");
}

#[test]
fn the_agent_tells_what_tmpfs_holds() {
    holds_on(Kind::Tmpfs, "proptest-regressions/truth-tmpfs.txt");
}

#[test]
fn the_agent_tells_what_overlayfs_holds() {
    holds_on(Kind::Overlay, "proptest-regressions/truth-overlay.txt");
}

#[test]
fn the_agent_tells_what_a_bind_mount_holds() {
    holds_on(Kind::Bind, "proptest-regressions/truth-bind.txt");
}

/// Not removed and created, however the editor goes about it, and the file of its own beside it is no news.
fn saving_is_one_change_on(kind: Kind) {
    let Some(volume) = volume(kind) else { return };
    operation::lay_out(&volume).unwrap();
    let old = operation::old_descriptor(&volume.scope()).unwrap();
    let mut watching = Watching::start(&volume.scope()).unwrap();
    watching.settled(LIMIT).unwrap();
    for save in operation::saves() {
        watching.take_told();
        let began = Instant::now();
        save.perform(&volume, &old).unwrap();
        let took = began.elapsed();
        watching.settled(LIMIT).unwrap();
        let told = watching.take_told();
        let texts: Vec<String> = told.values().flatten().map(brief).collect();
        let saved = &told[&item(&volume.scope().join("a/f0"))];
        assert!(saved.len() == 1 && saved[0]["kind"] == "modified", "{save:?} on {kind:?} is told as {texts:#?}");
        // A file beside it that stood for as long as a settled one does was there.
        assert!(told.len() == 1 || took > ONE_BURST, "{save:?} on {kind:?} within {took:?} is told as {texts:#?}");
    }
}

#[test]
fn an_editors_save_is_one_change_by_fanotify() {
    saving_is_one_change_on(Kind::Ext4);
}

#[test]
fn an_editors_save_is_one_change_by_inotify() {
    saving_is_one_change_on(Kind::Overlay);
}

#[test]
fn what_is_done_through_one_name_is_told_of_each() {
    holds_with(Kind::Ext4, Names::Several, "proptest-regressions/truth-links.txt");
}

#[test]
#[ignore = "no event names what is changed through a name that is not watched: the next scan tells it"]
fn what_is_done_through_an_unwatched_name_is_told() {
    let Some(volume) = volume(Kind::Ext4) else { return };
    operation::lay_out(&volume).unwrap();
    let old = operation::old_descriptor(&volume.scope()).unwrap();
    let mut watching = Watching::start(&volume.scope()).unwrap();
    watching.settled(LIMIT).unwrap();
    for step in operation::through_an_unwatched_name() {
        step.perform(&volume, &old).unwrap();
        watching.settled(Duration::from_secs(3)).with_context(|| format!("after {step:?}")).unwrap();
    }
}

#[test]
fn what_is_mounted_and_unmounted_within_the_scope_is_told() {
    let Some(volume) = volume(Kind::Ext4) else { return };
    operation::lay_out(&volume).unwrap();
    let place = volume.scope().join("a");
    let mut watching = Watching::start(&volume.scope()).unwrap();
    watching.settled(LIMIT).unwrap();
    for _ in 0..3 {
        mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
        let mounted = watching.settled(LIMIT).context("after mount").and_then(|()| {
            std::fs::write(place.join("on-the-mount"), "new\n")?;
            watching.settled(LIMIT).context("after a write to what was mounted")
        });
        umount2(&place, MntFlags::MNT_DETACH).unwrap();
        mounted.unwrap();
        watching.settled(LIMIT).context("after umount").unwrap();
    }
}

/// The oracle itself: what is not told is found out.
#[test]
fn an_agent_that_tells_nothing_does_not_pass() {
    let Some(volume) = volume(Kind::Tmpfs) else { return };
    let mut watching = Watching::start(&volume.scope()).unwrap();
    watching.settled(LIMIT).unwrap();
    let pid = Pid::from_raw(i32::try_from(watching.pid()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    std::fs::write(volume.scope().join("untold"), "").unwrap();
    let outcome = watching.settled(Duration::from_millis(500));
    kill(pid, Signal::SIGCONT).unwrap();
    assert!(format!("{:#}", outcome.unwrap_err()).contains("untold: the agent does not have it"));
    watching.settled(LIMIT).unwrap();
}
