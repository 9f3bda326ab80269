//! Reads a process and its parents from /proc into an actor, quickly and within bounds.
//!
//! Invariants: a folder in /proc is opened once per process and everything is read through it, so
//! that no two processes are mixed; with a pidfd, the process is shown to hold its pid after that
//! folder was opened. A known actor is used again only while process, program and owner are the same,
//! or once the process has ended, when the pid cannot have been used again meanwhile.

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trueline_drift::actor::{Container, Process, Session, SessionId, Sudo, User};
use trueline_drift::text::bounded;
use trueline_drift::{Actor, BootId, Certainty, Time};

use super::folder::{Mark, ProcessFolder, Program};
use super::image::ProcessImage;
use super::known::KnownActors;
use super::placement::{Placement, parse_placement};
use super::procfs::{self, Stat};
use super::users::UserNames;
use crate::kernel::pidfd;
use crate::process::event::BootTime;
use crate::process::survey::namespace;

const REMEMBERED: usize = 256;
const IMAGES: usize = 1024;
const PARENTS: usize = 8;
const SUDO_TEXT: usize = 512;
/// How long after it was last seen alive an ended process is still taken for the owner of its pid.
/// Pids come round again only after a whole turn of at least 32,768.
const PID_REST: Duration = Duration::from_millis(500);

/// One per thread that asks; holds at most 256 actors and as many parents.
#[derive(Debug)]
pub struct ActorReader {
    pub(super) via: String,
    actors: HashMap<u32, Known<Arc<Actor>>>,
    parents: HashMap<u32, Known<(Process, u32)>>,
    pub(super) users: UserNames,
    pub(super) boot: Option<BootId>,
    /// Mount namespace of the host's first process.
    pub(super) host_mounts: Option<u32>,
    booted: Time,
    ticks_per_second: u64,
    /// Told by a feed of processes.
    pub(super) told: KnownActors,
    images: Vec<ProcessImage>,
    /// What was said of them lately. Beyond the bound the memory starts afresh.
    imaged: HashSet<ProcessImage>,
}

#[derive(Debug)]
struct Known<T> {
    mark: Mark,
    /// See [`pidfd::identity`].
    identity: Option<u64>,
    seen: Instant,
    value: T,
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
            boot: crate::facts::boot_id(),
            host_mounts: std::fs::read_link("/proc/1/ns/mnt").ok().and_then(|link| namespace(link.to_str()?)),
            booted: booted_at(),
            ticks_per_second: u64::try_from(ticks).unwrap_or(100).max(1),
            told: KnownActors::default(),
            images: Vec::new(),
            imaged: HashSet::new(),
        }
    }

    /// Which files the processes run that were described since the last time.
    pub fn take_images(&mut self) -> Vec<ProcessImage> {
        std::mem::take(&mut self.images)
    }

    pub(super) fn note(&mut self, image: ProcessImage) {
        // A parent is described with each of its children.
        if self.imaged.contains(&image) {
            return;
        }
        if self.imaged.len() >= IMAGES {
            self.imaged.clear();
        }
        self.imaged.insert(image.clone());
        self.images.push(image);
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
        let session = folder.bytes("sessionid", 32).and_then(|bytes| procfs::parse_audit_id(&bytes)).zip(self.boot);
        let placement = folder.bytes("cgroup", 16384).map(|bytes| parse_placement(&bytes)).unwrap_or_default();
        let name = bounded(&stat.name, 64);
        let reason = match (stat.is_kernels, &exe, argv.is_empty()) {
            (true, ..) => Some(format!("a thread of the kernel, named {name}")),
            (false, None, _) => Some(format!("the process had ended before its executable could be read; its name was {name}")),
            (false, Some(_), true) => Some("the arguments could not be read: the process had ended, or shows none".to_owned()),
            (false, Some(_), false) => None,
        };
        let process = Process { started_at: Some(self.started_at(stat.started)), exe, argv, cwd, ..Process::bare(pid) };
        self.note_running(folder, &process, user.map(|(uid, _)| uid));
        let parents = self.parents_of(stat.parent);
        let Placement { unit, slice, container } = placement;
        let user = user.map(|(uid, euid)| self.user(uid, euid, login_uid));
        let terminal = procfs::terminal_name(stat.terminal);
        Actor {
            certainty: Certainty::Strong,
            via: vec![self.via.clone(), "procfs".to_owned()],
            // Who ran sudo, and as whom it runs the command, is not asked of the processes themselves: the login stands for the one,
            // and for the other whoever the command has become since.
            sudo: sudo_command(&process, &parents).map(|command| Sudo {
                certainty: Certainty::Correlated,
                by: user.as_ref().and_then(|user| user.login_name.clone().or_else(|| user.login_uid.map(|uid| format!("uid {uid}")))),
                as_user: user.as_ref().and_then(|user| user.name.clone()),
                command: Some(command),
                terminal: terminal.clone(),
            }),
            process: Some(process),
            parents,
            user,
            session: session.map(|(number, boot)| Session { terminal, ..Session::bare(SessionId::audit(boot, number)) }),
            unit,
            slice,
            container: container.map(|id| Container { certainty: Certainty::Strong, id, image: None }),
            reason,
        }
    }

    pub(super) fn user(&mut self, uid: u32, euid: u32, login_uid: Option<u32>) -> User {
        User {
            uid,
            euid: Some(euid),
            login_uid,
            name: self.users.name(uid),
            login_name: login_uid.and_then(|login| self.users.name(login)),
        }
    }

    pub(super) fn started_at(&self, ticks: u64) -> Time {
        let micros = u128::from(ticks) * 1_000_000 / u128::from(self.ticks_per_second);
        self.booted.plus_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    fn note_running(&mut self, folder: &ProcessFolder, process: &Process, uid: Option<u32>) {
        if let Some(exe) = &process.exe {
            let file = folder.executable().filter(|_| !exe.ends_with(" (deleted)"));
            self.note(ProcessImage { pid: process.pid, started_at: process.started_at, exe: exe.clone(), file, uid, is_apart: false });
        }
    }

    /// To the clock tick, as /proc tells it.
    pub(super) fn started(&self, at: BootTime) -> Time {
        let ticks = u128::from(at.nanos()) * u128::from(self.ticks_per_second) / 1_000_000_000;
        self.started_at(u64::try_from(ticks).unwrap_or(u64::MAX))
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
        let process = Process { started_at, exe: folder.link("exe"), argv: brief(folder.arguments()), ..Process::bare(pid) };
        self.note_running(&folder, &process, None);
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
        actor.process = Some(Process::bare(pid));
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
pub(super) fn brief(argv: Vec<String>) -> Vec<String> {
    const ARGUMENTS: usize = 12;
    // Whole paths, also of the modules that Ansible copies to a host: its runs are recognised by them.
    const BYTES: usize = 160;
    let more = argv.len() > ARGUMENTS;
    let mut brief: Vec<String> = argv.iter().take(ARGUMENTS).map(|argument| bounded(argument, BYTES).into_owned()).collect();
    if more {
        brief.push("…".to_owned());
    }
    brief
}

pub(super) fn booted_at() -> Time {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_micros());
    let up = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map_or(0, |up| Duration::from(up).as_micros());
    Time::from_micros(i64::try_from(now.saturating_sub(up)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::testing::await_some;
    use std::process::{Command, Stdio};

    #[test]
    fn a_child_is_named_with_its_parent_and_only_while_it_lives() {
        let mut child = Command::new("/bin/sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let handle = pidfd::open(child.id()).ok();
        let mut reader = ActorReader::new("test");
        // Between fork and exec the child still is this program, and during exec it has no arguments.
        let actor = await_some("the child runs its program", || {
            let actor = reader.read(child.id(), handle.as_ref());
            let process = actor.process.as_ref().unwrap();
            let is_sleep = process.exe.as_deref().is_some_and(|exe| exe.ends_with("sleep"));
            (is_sleep && !process.argv.is_empty()).then_some(actor)
        });
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
        let shell = await_some("the child runs a shell", || {
            let actor = reader.read(child.id(), None);
            exe(&actor).ends_with("sh").then_some(actor)
        });
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
            exe: Some(exe.to_owned()),
            argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
            ..Process::bare(1)
        };
        let parents = [process("/bin/sh", &["sh"]), process("/usr/bin/sudo", &["sudo", "-u", "root", "vi", "x"])];
        assert_eq!(sudo_command(&process("/usr/bin/vi", &["vi", "x"]), &parents).as_deref(), Some("-u root vi x"));
        assert_eq!(sudo_command(&process("/usr/bin/vi", &["vi", "x"]), &parents[..1]), None);
    }
}
