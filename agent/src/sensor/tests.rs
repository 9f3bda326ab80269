//! The sensors against the kernel: each operation on a folder of the test's own, through fanotify and
//! through inotify. No test waits by the clock: each ends with an operation whose signal closes it.

mod actors;
mod hooked;
mod mounts;
mod notices;
mod whose;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use trueline_drift::watch::WatchPolicy;

use super::*;
use crate::process::feed::FeedChoice;

/// Only a test that is going to fail waits this long.
const PATIENCE: Duration = Duration::from_secs(60);

struct Watched {
    sensors: Sensors,
    signals: Receiver<Signal>,
    counters: Arc<SensorCounters>,
    base: PathBuf,
    _folder: tempfile::TempDir,
}

/// Without the kernel's leave a test is skipped aloud, or fails where it must not be skipped.
fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("TRUELINE_TEST_REQUIRE").is_none(), "{test} may not be skipped here: {reason}");
    // Straight to the descriptor, because the harness captures what is printed.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
}

fn engine(preference: Preference) -> &'static str {
    if preference == Preference::Best { "fanotify" } else { "inotify" }
}

fn watch(test: &str, preference: Preference, room: usize, prepare: impl Fn(&Path)) -> Option<Watched> {
    watch_fed(test, preference, FeedChoice::Best, room, prepare)
}

fn watch_fed(test: &str, preference: Preference, feed: FeedChoice, room: usize, prepare: impl Fn(&Path)) -> Option<Watched> {
    // What the sensors say of a loss, for whoever reads why a test failed; another test may have been first.
    let _ = tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_test_writer().try_init();
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().canonicalize().unwrap();
    prepare(&base);
    let policy = WatchPolicy { exclude: Vec::new(), ..WatchPolicy::only_paths(vec![base.to_str().unwrap().to_owned()]) };
    let (sender, signals) = sync_channel(room);
    let counters = Arc::new(SensorCounters::default());
    let sensors = Sensors::start_fed(preference, feed, &policy, sender, Arc::clone(&counters)).unwrap();
    let coverage = sensors.coverage();
    if !coverage.iter().any(|row| row.name == engine(preference) && row.watching) {
        skip(test, &format!("{coverage:?}"));
        return None;
    }
    Some(Watched { sensors, signals, counters, base, _folder: folder })
}

impl Watched {
    /// The watched folder itself for no name.
    fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let name = name.as_ref();
        if name.is_empty() { self.base.clone() } else { self.base.join(name) }
    }

    /// All touches up to that of a file made now, which is left out.
    fn touches(&self) -> Vec<Touch> {
        let fence = self.path(".fence");
        fs::write(&fence, "x").unwrap();
        let mut touches = Vec::new();
        loop {
            match self.signals.recv_timeout(PATIENCE).expect("a signal of the last operation") {
                Signal::Touched(touch) if touch.target == target(&fence) => break,
                Signal::Touched(touch) => touches.push(touch),
                Signal::Image(_) | Signal::ToldUntil { .. } => {}
                other => panic!("{other:?}; why stands above"),
            }
        }
        // What is still to come of the fence must not close the next round.
        fs::remove_file(&fence).unwrap();
        fs::create_dir(self.path(".end")).unwrap();
        fs::remove_dir(self.path(".end")).unwrap();
        let end = target(&self.path(".end"));
        let mut ends = 0;
        while ends == 0 {
            if let Signal::Touched(touch) = self.signals.recv_timeout(PATIENCE).expect("a signal of the last operation") {
                ends += usize::from(touch.target == end);
            }
        }
        touches
    }

    fn depth_of(&self, touches: &[Touch], name: impl AsRef<OsStr>) -> Option<Depth> {
        let wanted = target(&self.path(name));
        touches.iter().filter(|touch| touch.target == wanted).map(|touch| touch.depth).max()
    }
}

fn target(path: &Path) -> Target {
    Target::Path(path.as_os_str().as_bytes().to_vec())
}

const BOTH: [Preference; 2] = [Preference::Best, Preference::InotifyOnly];

#[test]
fn every_operation_on_a_file_is_seen() {
    for preference in BOTH {
        let Some(watched) = watch("every_operation_on_a_file_is_seen", preference, 1024, |_| {}) else { continue };
        let file = watched.path("a");
        let step = |what: &str, act: &dyn Fn(), names: &[&str]| {
            act();
            let touches = watched.touches();
            for name in names {
                assert!(watched.depth_of(&touches, name).is_some(), "{preference:?}: {what} of {name}: {touches:?}");
            }
            assert!(touches.iter().any(|touch| touch.finished), "{preference:?}: {what} is never finished: {touches:?}");
        };
        step("creation", &|| fs::write(&file, "1").unwrap(), &["a"]);
        step("change", &|| fs::write(&file, "2").unwrap(), &["a"]);
        step("truncation", &|| fs::File::options().write(true).open(&file).unwrap().set_len(0).unwrap(), &["a"]);
        step("mode", &|| fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap(), &["a"]);
        step("owner", &|| std::os::unix::fs::chown(&file, None, Some(nix::unistd::getegid().as_raw())).unwrap(), &["a"]);
        step("rename", &|| fs::rename(&file, watched.path("b")).unwrap(), &["a", "b"]);
        step("symbolic link", &|| std::os::unix::fs::symlink("nowhere", watched.path("link")).unwrap(), &["link"]);
        step("hard link", &|| fs::hard_link(watched.path("b"), watched.path("hard")).unwrap(), &["hard"]);
        step("removal", &|| fs::remove_file(watched.path("b")).unwrap(), &["b"]);
        step("mode of the folder", &|| fs::set_permissions(&watched.base, fs::Permissions::from_mode(0o750)).unwrap(), &[""]);
    }
}

#[test]
fn folders_that_appear_move_and_go_are_reported_as_trees() {
    for preference in BOTH {
        let prepare = |base: &Path| fs::create_dir_all(base.join("old/deep/deeper")).unwrap();
        let Some(watched) = watch("folders_that_appear_move_and_go_are_reported_as_trees", preference, 1024, prepare) else { continue };
        fs::create_dir_all(watched.path("x/y/z")).unwrap();
        let touches = watched.touches();
        assert_eq!(watched.depth_of(&touches, "x"), Some(Depth::Tree), "{preference:?}: {touches:?}");
        fs::write(watched.path("x/y/z/late"), "1").unwrap();
        let touches = watched.touches();
        assert!(watched.depth_of(&touches, "x/y/z/late").is_some(), "{preference:?}: a folder made just now is watched: {touches:?}");

        fs::write(watched.path("old/deep/deeper/f"), "1").unwrap();
        watched.touches();
        fs::rename(watched.path("old"), watched.path("new")).unwrap();
        let touches = watched.touches();
        assert_eq!(watched.depth_of(&touches, "old"), Some(Depth::Tree), "{preference:?}: {touches:?}");
        assert_eq!(watched.depth_of(&touches, "new"), Some(Depth::Tree), "{preference:?}: {touches:?}");
        fs::write(watched.path("new/deep/deeper/f"), "2").unwrap();
        let touches = watched.touches();
        assert!(watched.depth_of(&touches, "new/deep/deeper/f").is_some(), "{preference:?}: {touches:?}");
        assert!(watched.depth_of(&touches, "old/deep/deeper/f").is_none(), "{preference:?}: {touches:?}");

        fs::remove_dir_all(watched.path("new")).unwrap();
        let touches = watched.touches();
        assert_eq!(watched.depth_of(&touches, "new"), Some(Depth::Tree), "{preference:?}: {touches:?}");
    }
}

#[test]
fn a_tree_moved_in_from_outside_is_watched_from_then_on() {
    for preference in BOTH {
        let Some(watched) = watch("a_tree_moved_in_from_outside_is_watched_from_then_on", preference, 1024, |_| {}) else { continue };
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir_all(outside.path().join("t/u")).unwrap();
        fs::write(outside.path().join("t/u/f"), "1").unwrap();
        fs::rename(outside.path().join("t"), watched.path("t")).unwrap();
        let touches = watched.touches();
        assert_eq!(watched.depth_of(&touches, "t"), Some(Depth::Tree), "{preference:?}: {touches:?}");
        fs::write(watched.path("t/u/f"), "2").unwrap();
        let touches = watched.touches();
        assert!(watched.depth_of(&touches, "t/u/f").is_some(), "{preference:?}: {touches:?}");
    }
}

#[test]
fn hostile_names_arrive_byte_for_byte() {
    for preference in BOTH {
        let Some(watched) = watch("hostile_names_arrive_byte_for_byte", preference, 1024, |_| {}) else { continue };
        let names: [&[u8]; 6] = [b"\xff\xfe", b"a\nb", b"\x1b[2J", &[b'n'; 255], " \u{202e}txt".as_bytes(), b"x (deleted)"];
        for name in names {
            fs::write(watched.path(OsStr::from_bytes(name)), "1").unwrap();
        }
        let folder = OsString::from_vec(b"d\xff (deleted)".to_vec());
        fs::create_dir(watched.path(&folder)).unwrap();
        let touches = watched.touches();
        for name in names {
            assert!(watched.depth_of(&touches, OsStr::from_bytes(name)).is_some(), "{preference:?}: {name:?}: {touches:?}");
        }
        fs::write(watched.path(&folder).join("f"), "1").unwrap();
        let touches = watched.touches();
        assert!(watched.depth_of(&touches, Path::new(&folder).join("f")).is_some(), "{preference:?}: {touches:?}");
    }
}

#[test]
fn a_folder_beyond_the_longest_path_is_reported_by_one_above_it() {
    let test = "a_folder_beyond_the_longest_path_is_reported_by_one_above_it";
    let Some(watched) = watch(test, Preference::Best, 1024, |_| {}) else { return };
    let name = "n".repeat(250);
    let script = format!("for i in $(seq 20); do mkdir {name} && cd -P ./{name} || exit 1; done; echo x > f");
    let done = Command::new("/bin/bash").args(["-c", &script]).current_dir(&watched.base).status().unwrap();
    assert!(done.success());
    let touches = watched.touches();
    let deepest = touches.iter().filter_map(|touch| match &touch.target {
        Target::Path(path) if touch.depth == Depth::Tree => Some(path.len()),
        _ => None,
    });
    assert!(deepest.max().unwrap() > 3500, "{touches:?}");
}

#[test]
fn what_lies_outside_the_view_is_not_reported() {
    let excluded = |base: &Path| fs::create_dir(base.join("in")).unwrap();
    for preference in BOTH {
        let Some(watched) = watch("what_lies_outside_the_view_is_not_reported", preference, 1024, excluded) else { continue };
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("f"), "1").unwrap();
        let _ = fs::read(watched.path("in"));
        let touches = watched.touches();
        assert!(touches.is_empty(), "{preference:?}: {touches:?}");
    }
}

#[test]
fn a_watched_path_that_is_not_there_yet_is_seen_when_it_comes() {
    for preference in BOTH {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        let text = |name: &str| base.join(name).to_str().unwrap().to_owned();
        let policy = WatchPolicy::only_paths(vec![text("a/b/c"), text("fence")]);
        let (sender, signals) = sync_channel(1024);
        let sensors = Sensors::start_with(preference, &policy, sender, Arc::default()).unwrap();
        if !sensors.coverage().iter().any(|row| row.name == engine(preference)) {
            skip("a_watched_path_that_is_not_there_yet_is_seen_when_it_comes", "no fanotify");
            continue;
        }
        fs::create_dir_all(base.join("a/b/c")).unwrap();
        let wanted = target(&base.join("a/b/c"));
        loop {
            if let Signal::Touched(touch) = signals.recv_timeout(PATIENCE).expect("the folder's own signal")
                && touch.target == wanted
                && touch.depth == Depth::Tree
            {
                break;
            }
        }
        fs::rename(base.join("a"), base.join("z")).unwrap();
        fs::write(base.join("fence"), "x").unwrap();
        let mut seen = false;
        loop {
            if let Signal::Touched(touch) = signals.recv_timeout(PATIENCE).expect("the fence's signal") {
                seen |= touch.target == wanted;
                if touch.target == target(&base.join("fence")) {
                    break;
                }
            }
        }
        assert!(seen || preference == Preference::InotifyOnly, "moving a folder above takes the watched one away");
    }
}

#[test]
fn a_new_policy_is_followed_and_what_came_into_view_is_reported() {
    for preference in BOTH {
        let Some(watched) = watch("a_new_policy_is_followed_and_what_came_into_view_is_reported", preference, 1024, |_| {}) else {
            continue;
        };
        let other = tempfile::tempdir().unwrap();
        let other = other.path().canonicalize().unwrap();
        watched.sensors.update(&WatchPolicy::only_paths(vec![other.to_str().unwrap().to_owned()]));
        let wait = |wanted: &Path| loop {
            if let Signal::Touched(touch) = watched.signals.recv_timeout(PATIENCE).expect("a signal") {
                assert!(touch.target != target(&watched.path("old")), "{preference:?}: no longer in view");
                if touch.target == target(wanted) {
                    break;
                }
            }
        };
        wait(&other);
        fs::write(watched.path("old"), "1").unwrap();
        fs::write(other.join("f"), "1").unwrap();
        wait(&other.join("f"));
    }
}

#[test]
fn a_queue_that_overflows_is_reported() {
    for preference in BOTH {
        let Some(watched) = watch("a_queue_that_overflows_is_reported", preference, 1024, |_| {}) else { continue };
        // Nobody takes the signals meanwhile, so the sensor's backlog of 65,536 and the kernel's queue of 16,384 fill up.
        for number in 0..100_000 {
            fs::File::create(watched.path(number.to_string())).unwrap();
        }
        loop {
            if let Signal::Lost(loss) = watched.signals.recv_timeout(PATIENCE).expect("the loss") {
                assert_eq!(loss.reason, GapReason::QueueOverflow);
                assert!(loss.scope.starts_with("file:"), "{loss:?}");
                break;
            }
        }
        assert!(watched.counters.overflows.load(std::sync::atomic::Ordering::Relaxed) > 0);
    }
}

#[test]
fn stopping_does_not_wait_for_signals_to_be_taken() {
    for preference in BOTH {
        let Some(watched) = watch("stopping_does_not_wait_for_signals_to_be_taken", preference, 1, |_| {}) else { continue };
        for number in 0..100 {
            fs::File::create(watched.path(number.to_string())).unwrap();
        }
        let Watched { sensors, signals, .. } = watched;
        drop(sensors);
        drop(signals);
    }
}

/// Runs itself again in a user namespace, where the limit of watches can be set without touching the
/// host's, and where fanotify is refused as it is to an ordinary user.
#[test]
fn the_limit_of_watches_is_reported_and_named_in_the_coverage() {
    let test = "the_limit_of_watches_is_reported_and_named_in_the_coverage";
    const INSIDE: &str = "TRUELINE_TEST_FEW_WATCHES";
    if std::env::var_os(INSIDE).is_some() {
        return reach_the_limit_of_watches();
    }
    let script = "echo 20 > /proc/sys/user/max_inotify_watches || exit 42; exec \"$0\" --exact \"sensor::tests::$1\"";
    let done = Command::new("unshare")
        .args(["--user", "--map-root-user", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(INSIDE, "1")
        .stdout(Stdio::piped())
        .output();
    match done {
        Ok(done) if done.status.success() => assert!(String::from_utf8_lossy(&done.stdout).contains("1 passed"), "{done:?}"),
        Ok(done) if done.status.code() == Some(101) => panic!("{}", String::from_utf8_lossy(&done.stdout)),
        other => skip(test, &format!("no user namespace: {other:?}")),
    }
}

fn reach_the_limit_of_watches() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().canonicalize().unwrap();
    for number in 0..10 {
        fs::create_dir(base.join(number.to_string())).unwrap();
    }
    let (sender, signals) = sync_channel(1024);
    let sensors = Sensors::start(&WatchPolicy::only_paths(vec![base.to_str().unwrap().to_owned()]), sender, Arc::default()).unwrap();
    let row = |sensors: &Sensors| sensors.coverage().into_iter().find(|row| row.name == "inotify").unwrap();
    assert!(row(&sensors).watching && row(&sensors).reason.unwrap().contains("CAP_SYS_ADMIN"), "{:?}", sensors.coverage());
    for number in 10..40 {
        fs::create_dir(base.join(number.to_string())).unwrap();
    }
    loop {
        if let Signal::Lost(loss) = signals.recv_timeout(PATIENCE).expect("the loss") {
            assert_eq!((loss.reason, loss.scope), (GapReason::WatchLimit, format!("file:{}", base.to_str().unwrap())));
            break;
        }
    }
    let row = row(&sensors);
    assert!(!row.watching && row.reason.as_ref().unwrap().contains("max_user_watches"), "{row:?}");
}
