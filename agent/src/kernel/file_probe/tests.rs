//! Real operations, told by the real kernel. What the machine refuses is skipped by name; where the hooks are what a run is
//! for (tests/stock-kernel), TRUELINE_TEST_HOOKS makes that a failure.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::record::{Entry, Operation, OperationKind};
use super::*;
use crate::kernel::fanotify::{Group, Reach, Report};
use crate::kernel::file::Inode;
use crate::kernel::process_probe::Drained;

fn start() -> Option<FileProbe> {
    match FileProbe::start() {
        Ok(probe) => {
            // Another stands for the first where the kernel is older than 6.6.
            let refused: Vec<&Hook> = probe.hooks().iter().filter(|hook| hook.refused.is_some() && hook.name != "fsnotify").collect();
            assert!(refused.is_empty() || std::env::var_os("TRUELINE_TEST_HOOKS").is_none(), "{refused:?}");
            Some(probe)
        }
        Err(error) => {
            assert!(std::env::var_os("TRUELINE_TEST_HOOKS").is_none(), "{error}");
            eprintln!("skipped: {error}");
            None
        }
    }
}

fn inode(path: &Path) -> Inode {
    let file = fs::metadata(path).unwrap();
    Inode { device: file.dev(), number: file.ino() }
}

fn all(probe: &mut FileProbe) -> Vec<Operation> {
    let mut told = Vec::new();
    assert_eq!(probe.drain(&mut |operation| told.push(operation)), Drained::All);
    assert_eq!(probe.dropped(), 0);
    told
}

fn run(program: &str, arguments: &[&str]) -> u32 {
    let mut child = Command::new(program).args(arguments).spawn().unwrap();
    assert!(child.wait().unwrap().success(), "{program} {arguments:?}");
    child.id()
}

/// The events of one entry, together, and whose they were.
fn events_of(told: &[Operation], name: &str) -> Vec<(u32, u64)> {
    let event = |operation: &Operation| match &operation.kind {
        OperationKind::Event { events, entry } if entry.name == name.as_bytes() => Some((operation.pid, *events)),
        _ => None,
    };
    told.iter().filter_map(event).collect()
}

#[test]
fn what_is_refused_is_refused_hook_by_hook_with_a_reason() {
    match FileProbe::start() {
        Ok(probe) => assert_eq!(probe.hooks().iter().filter(|hook| hook.name.contains("fsnotify") && hook.refused.is_none()).count(), 1),
        Err(FileProbeError::Attach(hooks)) => {
            assert_eq!(hooks.len(), 10);
            assert!(hooks.iter().all(|hook| hook.refused.as_ref().is_some_and(|reason| !reason.is_empty())), "{hooks:?}");
        }
        Err(error) => eprintln!("skipped: {error}"),
    }
}

#[test]
fn each_operation_on_an_entry_names_its_process_and_others_folders_are_left_out() {
    let Some(mut probe) = start() else { return };
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    probe.follow(&[inode(folder.path())]).unwrap();
    // Where nobody watches files the kernel tells nobody.
    let watch = Group::open(Report::Names).unwrap();
    watch.mark(Reach::Filesystem, libc::FAN_CREATE | libc::FAN_MODIFY | libc::FAN_ATTRIB | libc::FAN_CLOSE_WRITE, folder.path()).unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let entries = if probe.hooks()[0].refused.is_none() { libc::FAN_CREATE } else { 0 };
    all(&mut probe);
    let writer = run("/bin/sh", &["-c", &format!("echo x >{}; echo x >{}/elsewhere", path("a"), other.path().display())]);
    let told = all(&mut probe);
    let events: u64 = events_of(&told, "a").iter().inspect(|(pid, _)| assert_eq!(*pid, writer)).fold(0, |all, (_, events)| all | events);
    assert_eq!(events, entries | libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE, "{told:?}");
    assert!(events_of(&told, "elsewhere").is_empty());
    // What others do elsewhere is told too.
    let first = told.iter().find(|operation| operation.pid == writer).expect("the writer's first");
    let OperationKind::Event { entry: Entry { folder: of, inode: number, .. }, .. } = &first.kind else { panic!("{first:?}") };
    assert_eq!((*of, *number), (inode(folder.path()), inode(Path::new(&path("a"))).number));
    assert!(first.started < first.at && first.at < crate::process::event::BootTime::now());
    assert_eq!(first.euid, nix::unistd::geteuid().as_raw());

    for (command, name, expected) in [
        (vec!["chmod", "600", &path("a")], "a", libc::FAN_ATTRIB),
        (vec!["chown", "1", &path("a")], "a", libc::FAN_ATTRIB),
        (vec!["setfattr", "-n", "user.x", "-v", "y", &path("a")], "a", libc::FAN_ATTRIB),
        (vec!["truncate", "-s", "0", &path("a")], "a", libc::FAN_MODIFY),
        (vec!["ln", &path("a"), &path("b")], "b", libc::FAN_CREATE),
        (vec!["mv", &path("b"), &path("c")], "c", libc::FAN_MOVED_TO),
        (vec!["mkdir", &path("d")], "d", libc::FAN_CREATE),
        (vec!["rm", &path("c")], "c", libc::FAN_DELETE),
    ] {
        let pid = run(command[0], &command[1..]);
        let told = all(&mut probe);
        if entries == 0 && expected & (libc::FAN_ATTRIB | libc::FAN_MODIFY) == 0 {
            continue;
        }
        let has = events_of(&told, name).iter().any(|(by, events)| *by == pid && events & expected != 0);
        assert!(has, "{command:?}: {told:?}");
    }
    // One that is not permitted to is not told of.
    run("setpriv", &["--reuid=65534", "--clear-groups", "sh", "-c", &format!("chmod 777 {} 2>/dev/null; true", path("a"))]);
    assert_eq!(events_of(&all(&mut probe), "a"), []);
    probe.follow(&[]).unwrap();
    run("touch", &[&path("a")]);
    assert_eq!(events_of(&all(&mut probe), "a"), []);
}

#[test]
fn flags_are_told_everywhere_with_the_path() {
    let Some(mut probe) = start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, "x").unwrap();
    let text = path.to_str().unwrap();
    let pid = run("chattr", &["+d", text]);
    let told = all(&mut probe);
    let flags: Vec<_> = told.iter().filter(|operation| matches!(operation.kind, OperationKind::Flags(_)) && operation.pid == pid).collect();
    let [Operation { kind: OperationKind::Flags(entry), .. }] = flags[..] else { panic!("{told:?}") };
    assert_eq!((entry.folder, entry.inode), (inode(folder.path()), inode(&path).number));
    // From the top of its file system, wherever that is mounted.
    assert!(text.as_bytes().ends_with(entry.path.as_ref().unwrap()), "{entry:?}");
}

#[test]
fn whoever_may_write_through_memory_is_told() {
    let Some(mut probe) = start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    fs::write(&path, [0; 4096]).unwrap();
    probe.follow(&[inode(folder.path())]).unwrap();
    let mapped = |protection: &str, then: &str| {
        format!("import ctypes, mmap, os; f = os.open({path:?}, os.O_RDWR); m = mmap.mmap(f, 4096, prot={protection}); {then}")
    };
    let mut told = |source: &str| {
        all(&mut probe);
        let pid = run("python3", &["-c", source]);
        all(&mut probe).iter().filter(|operation| operation.pid == pid && matches!(operation.kind, OperationKind::Mapped(_))).count()
    };
    assert_eq!(told(&mapped("mmap.PROT_READ | mmap.PROT_WRITE", "m[0] = 1")), 1);
    assert_eq!(told(&mapped("mmap.PROT_READ", "")), 0);
    // Made writable only afterwards.
    let later = "a = ctypes.c_char.from_buffer(mmap.mmap(f, 4096)); c = ctypes.CDLL(None)
p = ctypes.addressof(a); assert c.mprotect(ctypes.c_void_p(p), 4096, 1) == 0 and c.mprotect(ctypes.c_void_p(p), 4096, 3) == 0";
    assert_eq!(told(&mapped("mmap.PROT_READ", later)), 2, "mapped, and made writable again");
    assert_eq!(File::open(&path).unwrap().metadata().unwrap().len(), 4096);
}

#[test]
fn whoever_mounts_and_unmounts_is_told() {
    let Some(mut probe) = start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    all(&mut probe);
    // In a mount namespace of its own, which ends with it.
    let source = format!("mount -t tmpfs none {path} && umount {path}");
    let pid = run("unshare", &["--mount", "sh", "-c", &format!("{source}; exit")]);
    let told = all(&mut probe);
    let mounts: Vec<&Operation> = told.iter().filter(|operation| operation.kind == OperationKind::Mount && operation.pid != pid).collect();
    let own = u32::try_from(fs::metadata("/proc/self/ns/mnt").unwrap().ino()).unwrap();
    assert!(mounts.len() >= 2 && mounts.iter().all(|mount| mount.mount_namespace != own), "{told:?}");
    // Who is not permitted to is not told of.
    let source = format!("! mount -t tmpfs none {path} 2>/dev/null");
    run("setpriv", &["--reuid=65534", "--clear-groups", "sh", "-c", &source]);
    assert!(!all(&mut probe).iter().any(|operation| operation.kind == OperationKind::Mount && operation.uid == 65534));
}
