//! File systems that come, go, or refuse.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;

use trueline_drift::watch::WatchPolicy;

use super::super::*;
use super::{PATIENCE, skip, target, watch};

/// A file system of the test's own, unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(kind: &str, point: &Path, options: &str) -> nix::Result<Self> {
        nix::mount::mount(Some("none"), point, Some(kind), nix::mount::MsFlags::empty(), Some(options))?;
        Ok(Self(point.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_file_system_mounted_beneath_a_watched_path_is_watched_and_can_be_unmounted() {
    let test = "a_file_system_mounted_beneath_a_watched_path_is_watched_and_can_be_unmounted";
    let prepare = |base: &Path| fs::create_dir(base.join("m")).unwrap();
    let Some(watched) = watch(test, Preference::Best, 1024, prepare) else { return };
    let point = watched.path("m");
    let mounted = match Mounted::new("tmpfs", &point, "size=1m") {
        Ok(mounted) => mounted,
        Err(error) => return skip(test, &error.to_string()),
    };
    let wait = |wanted: &Path| loop {
        if let Signal::Touched(touch) = watched.signals.recv_timeout(PATIENCE).expect("a signal")
            && touch.target == target(wanted)
        {
            break touch;
        }
    };
    assert_eq!(wait(&point).depth, Depth::Tree);
    fs::write(point.join("f"), "1").unwrap();
    wait(&point.join("f"));
    nix::mount::umount2(&point, nix::mount::MntFlags::empty()).expect("the sensor holds no mount busy");
    assert_eq!(wait(&point).depth, Depth::Tree);
    // The path leads to the file system beneath now, which is watched as before.
    fs::write(point.join("beneath"), "1").unwrap();
    wait(&point.join("beneath"));
    fs::write(watched.path("beside"), "1").unwrap();
    wait(&watched.path("beside"));
    drop(mounted);
}

#[test]
fn what_fanotify_refuses_is_watched_by_inotify() {
    let test = "what_fanotify_refuses_is_watched_by_inotify";
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().canonicalize().unwrap();
    for name in ["lower", "upper", "work", "seen"] {
        fs::create_dir(base.join(name)).unwrap();
    }
    let text = |name: &str| base.join(name).to_str().unwrap().to_owned();
    let options = format!("lowerdir={},upperdir={},workdir={}", text("lower"), text("upper"), text("work"));
    let _mounted = match Mounted::new("overlay", &base.join("seen"), &options) {
        Ok(mounted) => mounted,
        Err(error) => return skip(test, &error.to_string()),
    };
    let (sender, signals) = sync_channel(1024);
    let sensors = Sensors::start(&WatchPolicy::only_paths(vec![text("seen")]), sender, Arc::default()).unwrap();
    let coverage = sensors.coverage();
    let Some(row) = coverage.iter().find(|row| row.scope == format!("file:{}", text("seen"))) else { panic!("{coverage:?}") };
    if row.name == "fanotify" {
        return skip(test, "fanotify takes this kernel's overlay");
    }
    assert!(row.watching && row.reason.is_some(), "{coverage:?}");
    fs::create_dir(base.join("seen/d")).unwrap();
    fs::write(base.join("seen/d/f"), "1").unwrap();
    fs::write(base.join("seen/d/f"), "2").unwrap();
    for wanted in ["seen/d", "seen"] {
        let wanted = base.join(wanted);
        fs::set_permissions(&wanted, fs::Permissions::from_mode(0o700)).unwrap();
        while !matches!(signals.recv_timeout(PATIENCE).expect("a signal"), Signal::Touched(touch) if touch.target == target(&wanted)) {}
    }
}
