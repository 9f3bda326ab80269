//! Against the kernel, whose auditing is one for the whole machine: one test, one thing after the other.

use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};

use super::*;
use crate::sensor::SensorCounters;

/// Only a test that is going to fail waits this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Turns auditing off again, whatever becomes of the test.
struct Restored(Status);

impl Drop for Restored {
    fn drop(&mut self) {
        if let Ok(mut control) = Socket::control() {
            let left = control.rules().unwrap_or_default();
            left.iter().for_each(|rule| drop(control.remove(rule)));
            if let Ok(status) = control.status()
                && status.daemon == Some(std::process::id())
            {
                let _ = control.resign(&self.0);
            }
        }
    }
}

fn listen(valued: &Path, use_: AuditUse) -> (Audit, Receiver<Signal>, Arc<CoverageTable>) {
    let (sender, signals) = sync_channel(1024);
    let coverage = Arc::new(CoverageTable::default());
    let policy = WatchPolicy { exclude: Vec::new(), ..WatchPolicy::only_paths(vec![valued.to_str().unwrap().to_owned()]) };
    let outlet = Outlet::new(sender, Arc::new(SensorCounters::default()));
    let valued = vec![(valued.to_owned(), Reach::Folder)];
    let audit = Audit::start_on(valued, use_, &policy, outlet, Arc::clone(&coverage)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while coverage.rows().is_empty() {
        assert!(Instant::now() < deadline, "the sensor says nothing of itself");
        std::thread::yield_now();
    }
    (audit, signals, coverage)
}

fn shell(script: &str, folder: &Path) -> u32 {
    let mut child = Command::new("/bin/sh").args(["-c", script]).current_dir(folder).stdin(Stdio::null()).spawn().unwrap();
    assert!(child.wait().unwrap().success(), "{script}");
    child.id()
}

fn touch_of(signals: &Receiver<Signal>, path: &Path) -> Touch {
    let path = Target::Path(path.as_os_str().as_encoded_bytes().to_vec());
    loop {
        match signals.recv_timeout(PATIENCE) {
            Ok(Signal::Touched(touch)) if touch.target == path => return touch,
            Ok(_) => {}
            Err(error) => panic!("no touch of {path:?}: {error}"),
        }
    }
}

#[test]
fn each_call_names_its_process_and_nothing_is_left_behind() {
    const TEST: &str = "each_call_names_its_process_and_nothing_is_left_behind";
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().canonicalize().unwrap();
    let state = Socket::control().and_then(|mut control| Ok((control.rules()?, control.status()?)));
    let before = match state {
        Ok((_, status)) if status.is_locked => return crate::collect::skipped(TEST, "the rules of auditing are locked"),
        Ok((_, status)) if status.is_enabled => return crate::collect::skipped(TEST, "auditing is in use on this machine"),
        Err(error) => return crate::collect::skipped(TEST, &format!("the kernel's audit interface is refused: {error}")),
        Ok((_, status)) => status,
    };
    let _restored = Restored(before);

    // What a killed run leaves.
    let mut control = Socket::control().unwrap();
    control.add(&Rule::changes_to(Path::new("/etc/hostname"), Reach::Entry)).unwrap();

    let (alone, signals, coverage) = listen(&base, AuditUse::Alone);
    assert!(coverage.rows()[0].watching, "{:?}", coverage.rows());
    let rules = control.rules().unwrap();
    assert!(matches!(&rules[..], [rule] if rule.names(&base)), "{rules:?}");
    let status = control.status().unwrap();
    assert_eq!((status.is_enabled, status.daemon), (true, Some(std::process::id())));

    let pid = shell("echo x > made", &base);
    let actor = touch_of(&signals, &base.join("made")).actor.unwrap();
    let process = actor.process.as_ref().unwrap();
    assert_eq!((actor.certainty, process.pid), (Certainty::Exact, pid));
    let exe = std::fs::canonicalize("/bin/sh").unwrap();
    assert_eq!((process.exe.as_deref(), &process.argv[..2]), (exe.to_str(), &["/bin/sh".to_owned(), "-c".to_owned()][..]));
    assert_eq!(actor.parents[0].pid, std::process::id());
    assert_eq!(actor.user.as_ref().unwrap().uid, nix::unistd::getuid().as_raw());

    // By the folder that a link leads to, and both ends of a renaming.
    std::fs::create_dir(base.join("in")).unwrap();
    std::os::unix::fs::symlink("in", base.join("link")).unwrap();
    shell("echo x > link/'a b'; mv link/'a b' \"$(printf 'in/c\\nd')\"", &base);
    for name in ["in/a b", "in/a b", "in/c\nd"] {
        assert_eq!(touch_of(&signals, &base.join(name)).actor.unwrap().certainty, Certainty::Exact, "{name}");
    }
    for script in ["rm made", "mkdir made", "chmod 700 made", "rmdir made"] {
        let pid = shell(&format!("exec {script}"), &base);
        let touch = touch_of(&signals, &base.join("made"));
        assert_eq!(touch.actor.unwrap().process.as_ref().unwrap().pid, pid, "{script}");
    }

    drop(alone);
    assert_eq!(control.rules().unwrap(), []);
    let after = control.status().unwrap();
    assert_eq!(after, before, "something is not as it was");
}

/// The same name in another root folder is another entry.
#[test]
fn a_name_that_means_another_file_here_is_not_taken_for_touched() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().canonicalize().unwrap();
    let path = base.join("file");
    std::fs::write(&path, "x").unwrap();
    let metadata = path.symlink_metadata().unwrap();
    let device = (major(metadata.dev()) as u32, minor(metadata.dev()) as u32);
    let named = |inode| Named { name: path.as_os_str().as_encoded_bytes().to_vec(), inode, device, role: Role::There };
    let call = |named| Call {
        at: trueline_drift::Time::from_seconds(1),
        pid: 1,
        parent: 0,
        uid: 0,
        euid: 0,
        login_uid: None,
        session: None,
        exe: None,
        title: Vec::new(),
        cwd: None,
        paths: vec![named],
    };
    assert_eq!(touched(&call(named(metadata.ino()))).count(), 1);
    assert_eq!(touched(&call(named(metadata.ino() + 1))).count(), 0);
}
