//! Reads a process and its parents from /proc into an actor, quickly and within bounds.
//!
//! Invariants: a folder in /proc is opened once per process and everything is read through it, so
//! that no two processes are mixed; with a pidfd, the process is shown to hold its pid after that
//! folder was opened. A known actor is used again only while process, program and owner are the same,
//! or once the process has ended, when the pid cannot have been used again meanwhile.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, fstat};
use trueline_drift::actor::{Process, Session, User};
use trueline_drift::text::{bounded, printable};
use trueline_drift::{Actor, Certainty, Time};

use super::placement::{Placement, parse_placement};
use super::procfs::{self, Stat};
use super::users::UserNames;
use crate::kernel::pidfd;

const REMEMBERED: usize = 256;
const PARENTS: usize = 8;
const PATH_TEXT: usize = 1024;
const SUDO_TEXT: usize = 512;
/// How long after it was last seen alive an ended process is still taken for the owner of its pid.
/// Pids come round again only after a whole turn of at least 32,768.
const PID_REST: Duration = Duration::from_millis(500);

/// One per thread that asks; holds at most 256 actors and as many parents.
#[derive(Debug)]
pub struct ActorReader {
    via: String,
    actors: HashMap<u32, Known<Arc<Actor>>>,
    parents: HashMap<u32, Known<(Process, u32)>>,
    users: UserNames,
    booted: Time,
    ticks_per_second: u64,
}

#[derive(Debug)]
struct Known<T> {
    mark: Mark,
    /// See [`pidfd::identity`].
    identity: Option<u64>,
    seen: Instant,
    value: T,
}

/// What stays the same while a process is the same process, runs the same program and has the same
/// owner.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    started: u64,
    arguments_at: u64,
    owner: u32,
}

impl ActorReader {
    /// `via` is the sensor that names the processes: `fanotify`.
    pub fn new(via: &str) -> Self {
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        Self {
            via: via.to_owned(),
            actors: HashMap::new(),
            parents: HashMap::new(),
            users: UserNames::new(Path::new("/etc/passwd")),
            booted: booted_at(),
            ticks_per_second: u64::try_from(ticks).unwrap_or(100).max(1),
        }
    }

    /// The actor behind `pid`. With a pidfd the answer is about that process alone; without one it is
    /// about whoever has the pid now, which only an event just read may be taken for.
    pub fn read(&mut self, pid: u32, pidfd: Option<&OwnedFd>) -> Arc<Actor> {
        if pid == 0 {
            return Arc::new(Actor::unknown("the process is outside the agent's process namespace"));
        }
        let Some(folder) = ProcessFolder::open(pid) else { return self.ended(pid, pidfd) };
        if pidfd.is_some_and(|pidfd| !pidfd::holds_pid(pidfd.as_fd())) {
            return self.ended(pid, pidfd);
        }
        // What lacks something is asked again: in the middle of exec a process has no arguments yet.
        if let Some(known) = self.actors.get_mut(&pid)
            && known.value.reason.is_none()
            && let Some((_, mark)) = folder.stat()
            && known.is(&mark)
        {
            known.seen = Instant::now();
            return Arc::clone(&known.value);
        }
        let Some((stat, mark, program)) = folder.program() else { return self.ended(pid, pidfd) };
        let actor = Arc::new(self.describe(&folder, pid, stat, program));
        let identity = pidfd.and_then(|pidfd| pidfd::identity(pidfd.as_fd()));
        remember(&mut self.actors, pid, Known { mark, identity, seen: Instant::now(), value: Arc::clone(&actor) });
        actor
    }

    /// The process had been reaped before the event was read, so that its pid may be another's by now.
    pub fn read_ended(&mut self, pid: u32) -> Arc<Actor> {
        self.ended(pid, None)
    }

    fn describe(&mut self, folder: &ProcessFolder, pid: u32, stat: Stat, program: Program) -> Actor {
        let Program { exe, argv, cwd } = program;
        let login_uid = folder.bytes("loginuid", 32).and_then(|bytes| procfs::parse_audit_id(&bytes));
        let user = folder.bytes("status", 4096).and_then(|bytes| procfs::parse_users(&bytes));
        let session = folder.bytes("sessionid", 32).and_then(|bytes| procfs::parse_audit_id(&bytes));
        let placement = folder.bytes("cgroup", 16384).map(|bytes| parse_placement(&bytes)).unwrap_or_default();
        let name = bounded(&stat.name, 64);
        let reason = match (stat.is_kernels, &exe, argv.is_empty()) {
            (true, ..) => Some(format!("a thread of the kernel, named {name}")),
            (false, None, _) => Some(format!("the process had ended before its executable could be read; its name was {name}")),
            (false, Some(_), true) => Some("the arguments could not be read: the process had ended, or shows none".to_owned()),
            (false, Some(_), false) => None,
        };
        let process = Process { pid, started_at: Some(self.started_at(stat.started)), exe, argv, cwd };
        let parents = self.parents_of(stat.parent);
        let Placement { unit, container } = placement;
        Actor {
            certainty: Certainty::Strong,
            via: vec![self.via.clone(), "procfs".to_owned()],
            sudo: sudo_command(&process, &parents),
            process: Some(process),
            parents,
            user: user.map(|(uid, euid)| self.user(uid, euid, login_uid)),
            session: session.map(|id| Session { id: id.to_string(), origin: procfs::terminal_name(stat.terminal) }),
            unit,
            container,
            reason,
        }
    }

    fn user(&mut self, uid: u32, euid: u32, login_uid: Option<u32>) -> User {
        User {
            uid,
            euid: Some(euid),
            login_uid,
            name: self.users.name(uid),
            login_name: login_uid.and_then(|login| self.users.name(login)),
        }
    }

    fn started_at(&self, ticks: u64) -> Time {
        let micros = u128::from(ticks) * 1_000_000 / u128::from(self.ticks_per_second);
        self.booted.plus_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    fn parents_of(&mut self, parent: u32) -> Vec<Process> {
        let mut parents = Vec::new();
        let mut next = parent;
        while next != 0 && parents.len() < PARENTS {
            let Some((process, above)) = self.parent(next) else { break };
            parents.push(process);
            next = above;
        }
        parents
    }

    fn parent(&mut self, pid: u32) -> Option<(Process, u32)> {
        let folder = ProcessFolder::open(pid)?;
        let (stat, mark) = folder.stat()?;
        if let Some(known) = self.parents.get_mut(&pid)
            && !known.value.0.argv.is_empty()
            && known.is(&mark)
        {
            known.seen = Instant::now();
            return Some(known.value.clone());
        }
        let started_at = Some(self.started_at(stat.started));
        let process = Process { pid, started_at, exe: folder.link("exe"), argv: brief(folder.arguments()), cwd: None };
        remember(&mut self.parents, pid, Known { mark, identity: None, seen: Instant::now(), value: (process.clone(), stat.parent) });
        Some((process, stat.parent))
    }

    /// What can still be said of a process whose folder in /proc is gone.
    fn ended(&mut self, pid: u32, pidfd: Option<&OwnedFd>) -> Arc<Actor> {
        if let Some(known) = self.actors.get(&pid) {
            let same = match (known.identity, pidfd.and_then(|pidfd| pidfd::identity(pidfd.as_fd()))) {
                (Some(known), Some(asked)) => known == asked,
                _ => known.seen.elapsed() < PID_REST,
            };
            if same {
                return Arc::clone(&known.value);
            }
        }
        let mut actor = Actor::unknown(format!("the process (pid {pid}) had ended before it could be read"));
        actor.via = vec![self.via.clone()];
        actor.process = Some(Process { pid, started_at: None, exe: None, argv: Vec::new(), cwd: None });
        if let Some(info) = pidfd.and_then(|pidfd| pidfd::information(pidfd.as_fd()).ok()) {
            actor.certainty = Certainty::Strong;
            actor.via.push("pidfd".to_owned());
            actor.user = Some(self.user(info.uid, info.euid, None));
            actor.parents = self.parents_of(info.parent);
            actor.reason = Some(format!("the process (pid {pid}) had ended before its executable could be read"));
        }
        Arc::new(actor)
    }
}

impl<T> Known<T> {
    /// A process that has ended, and is not reaped yet, no longer has arguments: its program is still the
    /// one that was read.
    fn is(&self, mark: &Mark) -> bool {
        self.mark.started == mark.started && (mark.arguments_at == 0 || self.mark == *mark)
    }
}

fn remember<T>(known: &mut HashMap<u32, Known<T>>, pid: u32, entry: Known<T>) {
    if known.len() >= REMEMBERED
        && !known.contains_key(&pid)
        && let Some(oldest) = known.iter().min_by_key(|(_, known)| known.seen).map(|(pid, _)| *pid)
    {
        known.remove(&oldest);
    }
    known.insert(pid, entry);
}

/// The command given to the nearest sudo among a process and its parents.
fn sudo_command(process: &Process, parents: &[Process]) -> Option<String> {
    let is_sudo = |process: &&Process| process.exe.as_deref().is_some_and(|exe| exe.ends_with("/sudo"));
    let sudo = std::iter::once(process).chain(parents).find(is_sudo)?;
    let command = sudo.argv.get(1..)?.join(" ");
    (!command.is_empty()).then(|| bounded(&command, SUDO_TEXT).into_owned())
}

/// A parent's arguments: enough to know it by. Every change carries all parents.
fn brief(argv: Vec<String>) -> Vec<String> {
    const ARGUMENTS: usize = 12;
    const BYTES: usize = 80;
    let more = argv.len() > ARGUMENTS;
    let mut brief: Vec<String> = argv.iter().take(ARGUMENTS).map(|argument| bounded(argument, BYTES).into_owned()).collect();
    if more {
        brief.push("…".to_owned());
    }
    brief
}

fn booted_at() -> Time {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_micros());
    let up = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(0, |up| Duration::from(up).as_micros());
    Time::from_micros(i64::try_from(now.saturating_sub(up)).unwrap_or(0))
}

struct Program {
    exe: Option<String>,
    argv: Vec<String>,
    cwd: Option<String>,
}

/// /proc/PID, held open: it stays that process's even when the pid is used again.
struct ProcessFolder(OwnedFd);

impl ProcessFolder {
    fn open(pid: u32) -> Option<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(format!("/proc/{pid}").as_str(), flags, Mode::empty()).ok().map(Self)
    }

    fn file(&self, name: &str) -> Option<File> {
        openat(&self.0, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok().map(File::from)
    }

    fn bytes(&self, name: &str, limit: usize) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(limit.min(1024));
        self.file(name)?.take(limit as u64).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    fn stat(&self) -> Option<(Stat, Mark)> {
        let mut file = self.file("stat")?;
        let owner = fstat(&file).ok()?.st_uid;
        let mut buffer = [0; 1024];
        let length = file.read(&mut buffer).ok()?;
        let stat = procfs::parse_stat(&buffer[..length])?;
        let mark = Mark { started: stat.started, arguments_at: stat.arguments_at, owner };
        Some((stat, mark))
    }

    /// The program's name and arguments vanish first when a process ends, so they are asked first; if the
    /// process ran another program meanwhile, all is asked once more.
    fn program(&self) -> Option<(Stat, Mark, Program)> {
        let ask = || {
            let program = Program { exe: self.link("exe"), argv: self.arguments(), cwd: self.link("cwd") };
            self.stat().map(|(stat, mark)| (stat, mark, program))
        };
        let first = ask()?;
        let Program { exe, argv, .. } = &first.2;
        let replaced = self.link("exe").is_some_and(|now| exe.as_ref() != Some(&now) || argv.is_empty());
        if replaced { ask() } else { Some(first) }
    }

    fn link(&self, name: &str) -> Option<String> {
        let target = readlinkat(&self.0, name).ok()?;
        Some(bounded(&printable(target.as_bytes()), PATH_TEXT).into_owned())
    }

    fn arguments(&self) -> Vec<String> {
        self.bytes("cmdline", procfs::ARGUMENT_BYTES).map(|bytes| procfs::parse_arguments(&bytes)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_child_is_named_with_its_parent_and_only_while_it_lives() {
        let mut child = Command::new("/bin/sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let handle = pidfd::open(child.id()).ok();
        let mut reader = ActorReader::new("test");
        // Between fork and exec the child still is this program, and during exec it has no arguments.
        let actor = loop {
            let actor = reader.read(child.id(), handle.as_ref());
            let process = actor.process.as_ref().unwrap();
            if process.exe.as_deref().is_some_and(|exe| exe.ends_with("sleep")) && !process.argv.is_empty() {
                break actor;
            }
        };
        assert_eq!(actor.certainty, Certainty::Strong);
        let process = actor.process.as_ref().unwrap();
        assert_eq!(process.argv, ["/bin/sleep", "60"]);
        assert_eq!(actor.parents[0].pid, std::process::id());
        assert!(Arc::ptr_eq(&actor, &reader.read(child.id(), handle.as_ref())));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Arc::ptr_eq(&actor, &reader.read(child.id(), handle.as_ref())), "its last events are still its own");
        let stranger = ActorReader::new("test").read(child.id(), handle.as_ref());
        assert_eq!(stranger.certainty, Certainty::Unknown);
        assert_eq!(stranger.process.as_ref().unwrap().pid, child.id());
        assert!(stranger.reason.as_ref().unwrap().contains("had ended"));
    }

    #[test]
    fn a_new_program_in_the_same_process_is_not_taken_for_the_old_one() {
        let script = "read go; exec cat";
        let mut child = Command::new("/bin/sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut reader = ActorReader::new("test");
        let exe = |actor: &Actor| actor.process.as_ref().unwrap().exe.clone().unwrap_or_default();
        let shell = loop {
            let actor = reader.read(child.id(), None);
            if exe(&actor).ends_with("sh") {
                break actor;
            }
        };
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, b"go\nhello\n").unwrap();
        let mut answer = [0; 6];
        child.stdout.take().unwrap().read_exact(&mut answer).unwrap();
        let cat = reader.read(child.id(), None);
        assert_ne!(exe(&shell), exe(&cat));
        assert!(exe(&cat).ends_with("cat"));
        drop(stdin);
        child.wait().unwrap();
    }

    #[test]
    fn the_memory_of_processes_is_bounded() {
        let mut known = HashMap::new();
        let mark = Mark { started: 1, arguments_at: 1, owner: 0 };
        for pid in 0..REMEMBERED as u32 * 3 {
            remember(&mut known, pid, Known { mark: mark.clone(), identity: None, seen: Instant::now(), value: () });
        }
        assert_eq!(known.len(), REMEMBERED);
    }

    #[test]
    fn the_command_given_to_sudo_is_told() {
        let process = |exe: &str, argv: &[&str]| Process {
            pid: 1,
            started_at: None,
            exe: Some(exe.to_owned()),
            argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
            cwd: None,
        };
        let parents = [process("/bin/sh", &["sh"]), process("/usr/bin/sudo", &["sudo", "-u", "root", "vi", "x"])];
        assert_eq!(sudo_command(&process("/usr/bin/vi", &["vi", "x"]), &parents).as_deref(), Some("-u root vi x"));
        assert_eq!(sudo_command(&process("/usr/bin/vi", &["vi", "x"]), &parents[..1]), None);
    }
}
