//! Real processes, told by the real kernel. What the machine refuses is skipped by name.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;
use crate::actor::procfs;
use crate::process::event::{BootTime, ProcessEvent, ProcessEventKind, Program, Standing, Subject};

/// A feed of the test's own, and what keeps floods away meanwhile.
fn probe() -> Option<(ProcessProbe, RwLockReadGuard<'static, ()>)> {
    let calm = FLOOD.read().unwrap_or_else(PoisonError::into_inner);
    start().map(|probe| (probe, calm))
}

fn flooded_probe() -> Option<(ProcessProbe, RwLockWriteGuard<'static, ()>)> {
    let flood = FLOOD.write().unwrap_or_else(PoisonError::into_inner);
    start().map(|probe| (probe, flood))
}

fn start() -> Option<ProcessProbe> {
    match ProcessProbe::start() {
        Ok(probe) => Some(probe),
        Err(error) => {
            assert!(std::env::var_os("TRUELINE_TEST_REQUIRE").is_none(), "{error}");
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// What was told of one process.
#[derive(Debug)]
struct Told {
    started: Option<BootTime>,
    fork: Option<(Subject, Standing)>,
    programs: Vec<(Program, Standing)>,
    exits: Vec<Standing>,
}

impl Told {
    fn last(&self) -> &Program {
        &self.programs.last().expect("it executed something").0
    }

    fn path(&self) -> &str {
        &self.last().executable.as_ref().expect("what it executed is known").path
    }
}

/// Lets a child end and returns what was told of it. Its end is told before anybody can wait for it.
fn story(probe: &mut ProcessProbe, mut child: Child) -> Told {
    let pid = child.id();
    let mut told = Told { started: None, fork: None, programs: Vec::new(), exits: Vec::new() };
    let mut take = |event: ProcessEvent| {
        if event.process.pid != pid {
            return;
        }
        assert!(told.started.is_none() || told.started == event.process.started, "one process: {event:?}");
        told.started = event.process.started;
        match event.kind {
            ProcessEventKind::Fork { parent, standing, .. } => told.fork = Some((parent, standing.unwrap())),
            ProcessEventKind::Exec { program, standing, .. } => told.programs.push((*program.unwrap(), standing.unwrap())),
            ProcessEventKind::Exit { standing } => told.exits.push(standing.unwrap()),
            ProcessEventKind::Users { .. } => panic!("this feed tells no such thing"),
        }
    };
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        await_told(probe);
        let _ = probe.drain(&mut take);
    };
    assert!(status.success(), "{status}");
    assert_eq!(probe.drain(&mut take), Drained::All);
    assert_eq!((probe.dropped(), probe.missed()), (0, 0));
    assert!(told.started.is_some() && told.exits.len() == 1, "{told:?}");
    told
}

/// Sleeps until the ring is so full that the reader is woken; not for long, for little wakes nobody.
fn await_told(probe: &ProcessProbe) {
    let mut waiting = [PollFd::new(probe.as_fd(), PollFlags::POLLIN)];
    poll(&mut waiting, PollTimeout::from(20_u8)).unwrap();
}

/// Whoever fills rings does so alone: each test has a ring, and all are told of everything.
static FLOOD: RwLock<()> = RwLock::new(());

fn run(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

fn python(program: &str) -> Option<Child> {
    match Command::new("python3").args(["-c", program]).stdin(Stdio::null()).spawn() {
        Ok(child) => Some(child),
        Err(error) => {
            assert!(std::env::var_os("TRUELINE_TEST_REQUIRE").is_none(), "python3: {error}");
            eprintln!("skipped: python3: {error}");
            None
        }
    }
}

/// Where the kernel finds a program, with every link in its path followed.
fn real(path: &str) -> String {
    std::fs::canonicalize(path).unwrap().to_str().unwrap().to_owned()
}

fn program_file(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::copy("/bin/true", &path).unwrap();
    path
}

/// The group of the unified hierarchy, by the folder that stands for it.
fn own_cgroup() -> u64 {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).expect("a unified hierarchy");
    let root = if Path::new("/sys/fs/cgroup/cgroup.procs").exists() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/unified" };
    std::fs::metadata(Path::new(root).join(path)).unwrap().ino()
}

fn namespace(name: &str) -> Option<u32> {
    u32::try_from(std::fs::metadata(format!("/proc/self/ns/{name}")).unwrap().ino()).ok()
}

#[test]
fn a_child_is_told_whole_from_beginning_to_end() {
    let Some((mut probe, _calm)) = probe() else { return };
    let before = BootTime::now();
    let nobody = 65534;
    let child = run(Command::new("/bin/echo").args(["one", "--password=hunter2"]).uid(nobody).current_dir("/usr/bin"));
    let told = story(&mut probe, child);

    let (parent, forked) = told.fork.as_ref().expect("it was made");
    let own = procfs::parse_stat(&std::fs::read("/proc/self/stat").unwrap()).unwrap();
    assert_eq!(parent.pid, std::process::id());
    // /proc tells start times in hundredths of a second.
    assert_eq!(parent.started.unwrap().nanos() / 10_000_000, own.started);
    assert!(told.started.unwrap() > before && told.started.unwrap() < BootTime::now());

    let login = |name| std::fs::read(format!("/proc/self/{name}")).ok().and_then(|bytes| procfs::parse_audit_id(&bytes));
    let standing = Standing {
        uid: nix::unistd::getuid().as_raw(),
        euid: nix::unistd::geteuid().as_raw(),
        login_uid: login("loginuid"),
        session: login("sessionid"),
        cgroup: Some(own_cgroup()),
        terminal: Some(own.terminal).filter(|terminal| *terminal != 0),
        pid_namespace: namespace("pid"),
        mount_namespace: namespace("mnt"),
    };
    assert_eq!(*forked, standing);

    let [(program, at_exec)] = &told.programs[..] else { panic!("one program: {told:?}") };
    assert_eq!(*at_exec, Standing { uid: nobody, euid: nobody, ..standing });
    assert_eq!((told.path(), program.cwd.as_deref(), program.name.as_str()), (&*real("/bin/echo"), Some("/usr/bin"), "echo"));
    assert_eq!(program.arguments.masked(), ["/bin/echo", "one", "--password=[redacted]"]);
    assert_eq!(program.script, None);
    let file = std::fs::metadata("/bin/echo").unwrap();
    let executable = program.executable.as_ref().unwrap();
    assert_eq!((executable.removed, executable.inode), (false, Some(file.ino())));
    assert_eq!(executable.device, Some(file.dev()));
    assert_eq!(executable.changed.unwrap().as_secs(), file.ctime().cast_unsigned());
    assert_eq!(told.exits, std::slice::from_ref(at_exec));
}

#[test]
fn a_child_made_by_a_plain_fork_is_told_as_one_made_by_vfork_is() {
    let Some((mut probe, _calm)) = probe() else { return };
    let mut command = Command::new("/bin/true");
    // SAFETY: the closure does nothing, which is allowed between fork and exec. It is there since the library then forks plainly.
    unsafe { command.pre_exec(|| Ok(())) };
    let told = story(&mut probe, run(&mut command));
    assert_eq!(told.fork.as_ref().unwrap().0.pid, std::process::id());
    assert_eq!((told.path(), told.programs.len()), (&*real("/bin/true"), 1));
}

#[test]
fn a_script_is_told_with_the_interpreter_that_runs_it() {
    let Some((mut probe, _calm)) = probe() else { return };
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("job");
    std::fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    // Through a shell, for another test's child may hold the script open for writing while it forks.
    let child = run(Command::new("/bin/sh").args(["-c", "exec ./job x"]).current_dir(folder.path()));
    let told = story(&mut probe, child);
    let program = told.last();
    assert_eq!((told.path(), program.script.as_deref(), program.name.as_str()), (&*real("/bin/sh"), Some("./job"), "job"));
    assert_eq!(program.cwd.as_deref(), std::fs::canonicalize(folder.path()).unwrap().to_str());
    assert_eq!(program.arguments.masked(), ["/bin/sh", "./job", "x"]);
}

#[test]
fn neither_a_descriptor_nor_a_first_argument_hides_what_is_executed() {
    let Some((mut probe, _calm)) = probe() else { return };
    let source = "import os; fd = os.open('/bin/true', os.O_RDONLY); os.execv(f'/proc/self/fd/{fd}', ['/usr/bin/apt', 'update'])";
    let Some(child) = python(source) else { return };
    let told = story(&mut probe, child);
    assert_eq!((told.path(), told.last().script.as_deref()), (&*real("/bin/true"), None));
    assert_eq!(told.last().arguments.masked(), ["/usr/bin/apt", "update"]);
}

#[test]
fn a_program_without_a_file_and_a_removed_one_are_told_as_such() {
    let Some((mut probe, _calm)) = probe() else { return };
    let source =
        "import os; fd = os.memfd_create('/usr/bin/apt'); os.write(fd, open('/bin/true', 'rb').read()); os.execve(fd, ['apt'], {})";
    let Some(child) = python(source) else { return };
    let told = story(&mut probe, child);
    assert_eq!(told.path(), "memfd:/usr/bin/apt");
    assert!(told.last().executable.as_ref().unwrap().removed);

    let folder = tempfile::tempdir().unwrap();
    let path = program_file(folder.path(), "gone");
    let source = "import os; p = 'PATH'; fd = os.open(p, os.O_RDONLY); os.unlink(p); os.execve(fd, ['gone'], {})";
    let Some(child) = python(&source.replace("PATH", path.to_str().unwrap())) else { return };
    let told = story(&mut probe, child);
    assert_eq!(told.path(), std::fs::canonicalize(folder.path()).unwrap().join("gone").to_str().unwrap());
    assert!(told.last().executable.as_ref().unwrap().removed);
}

#[test]
fn a_process_that_calls_itself_otherwise_is_known_by_its_program() {
    let Some((mut probe, _calm)) = probe() else { return };
    let source = "import ctypes; assert ctypes.CDLL(None).prctl(15, b'apt', 0, 0, 0) == 0";
    let Some(child) = python(source) else { return };
    let told = story(&mut probe, child);
    assert!(told.path().contains("/python3") && told.last().name.starts_with("python3"), "{told:?}");
}

#[test]
fn a_program_that_another_thread_than_the_first_executes_is_the_same_process() {
    let Some((mut probe, _calm)) = probe() else { return };
    let source = "import os, threading
wait = threading.Event()
others = [threading.Thread(target=wait.wait, daemon=True) for _ in range(3)]
[t.start() for t in others]
t = threading.Thread(target=lambda: os.execv('/bin/true', ['true']))
t.start()
wait.wait()";
    let Some(child) = python(source) else { return };
    let told = story(&mut probe, child);
    assert_eq!(told.path(), real("/bin/true"));
    let threads = &told.programs[told.programs.len() - 2].0;
    assert!(threads.executable.as_ref().unwrap().path.contains("/python3"), "{threads:?}");
}

#[test]
fn threads_are_not_processes() {
    let Some((mut probe, _calm)) = probe() else { return };
    let mut told = Vec::new();
    let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(|| nix::unistd::gettid().as_raw().cast_unsigned())).collect();
    let threads: Vec<u32> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(probe.drain(|event| told.push(event)), Drained::All);
    let of_threads = told.iter().filter(|event| threads.contains(&event.process.pid)).count();
    assert_eq!(of_threads, 0, "{told:?}");
    assert!(!told.iter().any(|event| event.process.pid == std::process::id()));
}

#[test]
fn a_login_is_told_from_the_next_program_on_and_at_the_end() {
    let Some((mut probe, _calm)) = probe() else { return };
    let child = run(Command::new("/bin/sh").args(["-c", "echo 4242 >/proc/self/loginuid && exec /bin/true"]));
    let told = story(&mut probe, child);
    let [(_, before), (_, after)] = &told.programs[..] else { panic!("{told:?}") };
    assert_ne!(before.login_uid, Some(4242));
    assert_eq!(after.login_uid, Some(4242));
    assert!(after.session.is_some() && after.session != before.session);
    assert_eq!(told.exits[0], *after);
}

#[test]
fn a_program_of_another_mount_namespace_is_told_with_that_namespace() {
    let Some((mut probe, _calm)) = probe() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = program_file(folder.path(), "fake");
    let source = format!("mount --bind {} /bin/echo && exec /bin/echo", path.display());
    let told = story(&mut probe, run(Command::new("unshare").args(["--mount", "/bin/sh", "-c", &source])));
    // By its own lights it is the real one. Namespace and file say otherwise.
    assert_eq!(told.path(), real("/bin/echo"));
    let standing = &told.programs.last().unwrap().1;
    assert!(standing.mount_namespace.is_some() && standing.mount_namespace != namespace("mnt"));
    assert_eq!(told.last().executable.as_ref().unwrap().inode, Some(std::fs::metadata(&path).unwrap().ino()));
}

#[test]
fn the_longest_arguments_and_deepest_folders_are_cut_and_say_so() {
    let Some((mut probe, _calm)) = probe() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut deep = folder.path().to_owned();
    deep.extend(std::iter::repeat_n("d", 200));
    std::fs::create_dir_all(&deep).unwrap();
    let path = program_file(&deep, "deep");
    let long = "x".repeat(100_000);
    // Through a shell, as with the script.
    let source = "exec \"$0\" \"$1\"";
    let told = story(&mut probe, run(Command::new("/bin/sh").args(["-c", source]).arg(&path).arg(&long)));
    assert!(told.path().starts_with("…/d/d/d/") && told.path().ends_with("/deep"), "{}", told.path());
    assert_eq!(told.last().arguments.masked().last().unwrap(), "…");
}

/// At full speed, the reader asleep until it is woken since the ring fills.
#[test]
fn of_ten_thousand_short_lived_children_none_is_missed() {
    const SHELLS: usize = 2;
    const CHILDREN: usize = 5_000;
    let Some((mut probe, _flood)) = flooded_probe() else { return };
    let source = format!("i=0; while [ $i -lt {CHILDREN} ]; do /bin/true; i=$((i+1)); done");
    let mut shells: Vec<Child> = (0..SHELLS).map(|_| run(Command::new("/bin/sh").args(["-c", &source]))).collect();
    let parents: Vec<u32> = shells.iter().map(Child::id).collect();
    let true_path = real("/bin/true");

    #[derive(Default, PartialEq, Debug)]
    struct Seen {
        forks: u32,
        programs: u32,
        exits: u32,
    }
    let mut seen: HashMap<(u32, Option<BootTime>), Seen> = HashMap::new();
    let mut last = BootTime::default();
    let mut take = |event: ProcessEvent| {
        let id = (event.process.pid, event.process.started);
        match event.kind {
            ProcessEventKind::Fork { parent, .. } if parents.contains(&parent.pid) => {
                last = event.at;
                seen.entry(id).or_default().forks += 1;
            }
            ProcessEventKind::Exec { program, .. } => {
                if let Some(seen) = seen.get_mut(&id) {
                    assert_eq!(*program.unwrap().executable.unwrap().path, *true_path);
                    seen.programs += 1;
                }
            }
            ProcessEventKind::Exit { .. } => {
                if let Some(seen) = seen.get_mut(&id) {
                    seen.exits += 1;
                }
            }
            _ => {}
        }
    };
    while shells.iter_mut().any(|shell| shell.try_wait().unwrap().is_none()) {
        await_told(&probe);
        let _ = probe.drain(&mut take);
    }
    assert_eq!(probe.drain(&mut take), Drained::All);
    assert_eq!((probe.dropped(), probe.missed()), (0, 0));
    assert_eq!(seen.len(), SHELLS * CHILDREN);
    let whole = Seen { forks: 1, programs: 1, exits: 1 };
    let broken: Vec<_> = seen.iter().filter(|(_, seen)| **seen != whole).take(5).collect();
    assert!(broken.is_empty(), "{broken:?}");
    assert!(last < BootTime::now());
}

#[test]
fn a_full_ring_is_counted_and_harms_nothing() {
    let Some((mut probe, _flood)) = flooded_probe() else { return };
    let long = "x".repeat(4_000);
    // Nobody reads: each takes more than four kilobytes of a ring of at most four megabytes.
    let source = format!("i=0; while [ $i -lt 1200 ]; do /bin/true {long}; i=$((i+1)); done");
    let status = run(Command::new("/bin/sh").args(["-c", &source])).wait().unwrap();
    assert!(status.success());
    let lost = probe.dropped();
    assert!(lost > 0);
    let mut told = 0;
    let _ = probe.drain(|_| told += 1);
    assert!(told > 100);
    let mut child = run(&mut Command::new("/bin/true"));
    child.wait().unwrap();
    let mut told = 0;
    let _ = probe.drain(|event| told += u32::from(event.process.pid == child.id()));
    assert_eq!((told, probe.dropped()), (3, lost), "it goes on afterwards");
}
