use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo, setfsuid};

use trueline_drift::pattern::Pattern;

use super::worker::LARGE;
use super::*;
use crate::collect::{FileReader, Root, skipped};
use crate::kernel::file::Pinned;
use crate::testing::{await_some, until};

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().canonicalize().unwrap();
    (folder, path)
}

fn policy(roots: &[&Path]) -> WatchPolicy {
    let roots = roots.iter().map(|root| root.display().to_string()).collect();
    WatchPolicy { exclude: Vec::new(), ..WatchPolicy::only_paths(roots) }
}

fn options(threads: usize) -> ScanOptions {
    ScanOptions { threads, mode: ScanMode::Full, pace: None }
}

/// The readings by path beneath `place`; a path sent twice fails.
fn found(place: &Path, policy: &WatchPolicy, threads: usize) -> (BTreeMap<String, Reading>, ScanSummary) {
    let (sink, batches) = sync_channel(1);
    std::thread::scope(|scope| {
        let scanning =
            scope.spawn(|| scan(policy, &options(threads), &RedactionKey::new([0; 32]), &Nothing, sink, &ScanProgress::default()).unwrap());
        let mut found = BTreeMap::new();
        for met in batches.into_iter().flatten() {
            let Met::Read(item, reading) = met else { panic!("nothing is known: {met:?}") };
            let path = item.key.as_str().strip_prefix(&place.display().to_string()).unwrap_or(item.key.as_str());
            assert!(found.insert(path.to_owned(), reading).is_none(), "{item} was sent twice");
        }
        let summary = scanning.join().unwrap();
        assert_eq!(summary.items, found.len() as u64);
        (found, summary)
    })
}

fn paths(found: &BTreeMap<String, Reading>) -> Vec<&str> {
    found.keys().map(String::as_str).collect()
}

#[test]
fn overlapping_roots_links_and_exclusions_give_each_item_once() {
    let (_folder, place) = folder();
    for path in ["a/b/c", "x/__pycache__/y", "skip/me"] {
        fs::create_dir_all(place.join(path)).unwrap();
    }
    for path in ["a/1", "a/b/2", "a/b/c/3", "x/__pycache__/4", "x/.5.swp", "skip/me/6"] {
        fs::write(place.join(path), path).unwrap();
    }
    symlink("a", place.join("link")).unwrap();
    symlink("..", place.join("a/loop")).unwrap();
    mkfifo(&place.join("fifo"), Mode::S_IRWXU).unwrap();
    let mut policy = policy(&[&place, &place.join("a/b"), &place.join("link"), &place.join("absent"), &place.join("a/1")]);
    policy.exclude = ["/**/__pycache__", "/**/.*.swp"].map(Pattern::new).to_vec();
    policy.exclude.push(Pattern::new(&format!("{}/skip", place.display())));
    for threads in [1, 4] {
        let (found, summary) = found(&place, &policy, threads);
        let expected = ["", "/a", "/a/1", "/a/b", "/a/b/2", "/a/b/c", "/a/b/c/3", "/a/loop", "/fifo", "/link", "/x"];
        assert_eq!(paths(&found), expected);
        assert_eq!((summary.failures, summary.bytes), (0, 3 + 5 + 7));
    }
}

#[test]
fn one_wide_folder_is_shared_out_without_loss() {
    let (_folder, place) = folder();
    for number in 0..6000 {
        fs::write(place.join(format!("a rather long name of a file, number {number}")), "").unwrap();
    }
    let (found, _) = found(&place, &policy(&[&place]), 4);
    assert_eq!(found.len(), 6001);
}

#[test]
fn a_tree_deeper_than_path_max_is_walked_to_its_end() {
    let (_folder, place) = folder();
    let mut at = fs::File::open(&place).map(std::os::fd::OwnedFd::from).unwrap();
    for _ in 0..1500 {
        nix::sys::stat::mkdirat(&at, c"deeper", Mode::S_IRWXU).unwrap();
        at = nix::fcntl::openat(&at, c"deeper", nix::fcntl::OFlag::O_DIRECTORY, Mode::empty()).unwrap();
    }
    let (found, summary) = found(&place, &policy(&[&place]), 2);
    assert_eq!((found.len(), summary.failures), (1501, 0));
}

#[test]
fn a_scan_reads_what_the_reader_of_one_file_reads() {
    let (_folder, place) = folder();
    fs::write(place.join("file"), "x").unwrap();
    symlink("file", place.join("link")).unwrap();
    let (found, _) = found(&place, &policy(&[&place]), 1);
    let mut reader = FileReader::new(&Root::host(), RedactionKey::new([0; 32]), None);
    for (path, reading) in found {
        let alone = reader.read(format!("{}{path}", place.display()).as_bytes(), None).unwrap().unwrap();
        assert_eq!(alone.fields, reading.fields, "{path}");
    }
}

/// One file is known by this stamp.
struct OneFile(Stamp);

impl Memory for OneFile {
    fn hold(&self, files: &[(ItemId, Glance<'_>)]) -> Vec<bool> {
        files.iter().map(|(item, glance)| item.key.as_str().ends_with("/file") && glance.stamp == self.0).collect()
    }

    fn lookup(&self, item: &ItemId) -> Option<(Stamp, Fields)> {
        item.key.as_str().ends_with("/file").then(|| (self.0, Fields::new().with("sha256", "known")))
    }
}

#[test]
fn a_quick_scan_opens_no_file_that_is_as_it_is_known_and_reads_one_that_is_not() {
    let (_folder, place) = folder();
    fs::write(place.join("file"), "x").unwrap();
    let of_now = || Stamp::of(&Pinned::open(format!("{}/file", place.display()).as_bytes()).unwrap().metadata);
    let memory = OneFile(of_now());
    let met = || {
        let (sink, batches) = sync_channel(8);
        let options = ScanOptions { mode: ScanMode::Quick, ..options(1) };
        let policy = policy(&[&place]);
        let summary = scan(&policy, &options, &RedactionKey::new([0; 32]), &memory, sink, &ScanProgress::default()).unwrap();
        let met = batches
            .into_iter()
            .flatten()
            .find(|met| matches!(met, Met::Read(item, _) | Met::Known(item) if item.key.as_str().ends_with("/file")));
        (met.unwrap(), summary.bytes, summary.items)
    };
    let (known, bytes, items) = met();
    assert!(matches!(known, Met::Known(_)), "{known:?}");
    assert_eq!((bytes, items), (0, 2), "the folder and the file");
    fs::write(place.join("file"), "yz").unwrap();
    let (read, bytes, _) = met();
    assert!(matches!(&read, Met::Read(_, reading) if reading.fields.value("size") == Some(&trueline_drift::Value::Integer(2))), "{read:?}");
    assert_eq!(bytes, 2);
}

#[test]
fn a_receiver_that_leaves_stops_the_scan() {
    let (_folder, place) = folder();
    for number in 0..1000 {
        fs::write(place.join(number.to_string()), "").unwrap();
    }
    let (sink, batches) = sync_channel(1);
    drop(batches);
    let ended = scan(&policy(&[&place]), &options(2), &RedactionKey::new([0; 32]), &Nothing, sink, &ScanProgress::default());
    assert!(matches!(ended, Err(ScanError::Stopped)), "{ended:?}");
}

#[test]
fn a_scan_that_would_take_hours_sends_what_it_has_and_ends_when_it_is_stopped() {
    let (_folder, place) = folder();
    fs::write(place.join("before"), "").unwrap();
    fs::File::create(place.join("large")).unwrap().set_len(LARGE + 1).unwrap();
    let (sink, batches) = sync_channel(8);
    let options = ScanOptions { pace: Pace::new(1024, 0).map(Arc::new), ..options(1) };
    let progress = Arc::new(ScanProgress::default());
    let policy = policy(&[&place]);
    // Not in a scope, which would wait for a scan that does not end.
    let scanning = std::thread::spawn({
        let progress = Arc::clone(&progress);
        move || scan(&policy, &options, &RedactionKey::new([0; 32]), &Nothing, sink, &progress)
    });
    let mut sent = await_some("what it has", || batches.try_recv().ok());
    progress.give_up.store(true, Ordering::Relaxed);
    until("the end of the scan", || scanning.is_finished());
    let ended = scanning.join().unwrap();
    assert!(matches!(ended, Err(ScanError::Stopped)), "{ended:?}");
    sent.extend(batches.try_iter().flatten());
    let is_large = |met: &Met| matches!(met, Met::Read(item, _) if item.key.as_str().ends_with("/large"));
    assert!(!sent.iter().any(is_large), "half a file was sent: {sent:?}");
}

#[test]
fn the_kernels_own_files_are_named_and_not_entered() {
    let (found, summary) = found(Path::new("/nowhere"), &policy(&[Path::new("/proc/sys/kernel")]), 1);
    assert_eq!(paths(&found), ["/proc/sys/kernel"]);
    assert_eq!(summary.skipped, ["/proc/sys/kernel"]);
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_disk_mounted_beneath_a_root_is_entered_and_procfs_is_not() {
    let test = "a_disk_mounted_beneath_a_root_is_entered_and_procfs_is_not";
    let (_folder, place) = folder();
    let mut mounted = Vec::new();
    for kind in ["tmpfs", "proc"] {
        let at = place.join(kind);
        fs::create_dir(&at).unwrap();
        if let Err(error) = mount(Some("none"), &at, Some(kind), MsFlags::empty(), None::<&str>) {
            return skipped(test, &format!("mounting {kind}: {error}"));
        }
        mounted.push(Mounted(at));
    }
    fs::write(place.join("tmpfs/file"), "").unwrap();
    let (found, summary) = found(&place, &policy(&[&place]), 2);
    assert_eq!(paths(&found), ["", "/proc", "/tmpfs", "/tmpfs/file"]);
    assert_eq!(summary.skipped, [place.join("proc").display().to_string()]);
    drop(mounted);
}

#[test]
fn what_may_not_be_read_is_counted_and_told() {
    if !Uid::effective().is_root() {
        return skipped("what_may_not_be_read_is_counted_and_told", "it needs root");
    }
    let (_folder, place) = folder();
    fs::create_dir(place.join("closed")).unwrap();
    fs::write(place.join("closed/file"), "").unwrap();
    fs::set_permissions(place.join("closed"), Permissions::from_mode(0o700)).unwrap();
    fs::create_dir(place.join("listed")).unwrap();
    fs::write(place.join("listed/file"), "").unwrap();
    fs::set_permissions(place.join("listed"), Permissions::from_mode(0o744)).unwrap();
    std::thread::scope(|scope| {
        // The user is the thread's own, and that of the threads it starts.
        scope.spawn(|| {
            setfsuid(Uid::from_raw(65534));
            let (found, summary) = found(&place, &policy(&[&place]), 2);
            assert_eq!(paths(&found), ["", "/closed", "/listed", "/listed/file"]);
            assert!(found["/closed"].fields.value("entries").unwrap().is_unreadable());
            assert!(found["/listed/file"].fields.value("type").unwrap().is_unreadable());
            assert_eq!(summary.failures, 2);
        });
    });
}
