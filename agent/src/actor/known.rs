//! From what the table of processes answers to an actor.
//!
//! Invariants: nothing is said of a process that another one, another program of it, or another time of it could be behind instead:
//! what is not certain is left out, and the reason says between what. An actor is *exact* where the kernel told of process, program
//! and standing before the process could go on, and the order of event and program is beyond doubt; *strong* where they were
//! read from /proc at the kernel's word; *correlated* where news was lost that could have been about it.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use trueline_drift::actor::{Container, Process, Session, SessionId, Sudo};
use trueline_drift::text::bounded;
use trueline_drift::{Actor, Certainty};

use super::folder::ProcessFolder;
use super::image::{FileIdentity, ProcessImage};
use super::placement::{Placement, container_of, parse_placement, slice_of, unit_of};
use super::procfs;
use super::reader::{ActorReader, brief};
use crate::kernel::fanotify::EventPidfd;
use crate::kernel::pidfd;
use crate::process::Processes;
use crate::process::event::{BootTime, Executable, Program, Standing};
use crate::process::generation::{Ancestor, Then};
use crate::process::order::{Holder, Sighting};
use crate::process::table::{Answer, Known};

const REMEMBERED: usize = 256;
const SUDO_TEXT: usize = 512;
/// Of a reason, and of each program that it names: their owners choose how long their paths are.
const REASON_TEXT: usize = 1024;
const NAME_TEXT: usize = 200;
const CGROUPS: usize = 16 << 10;
const OWN_LOGIN: &str =
    "the process, or one that it comes of, wrote itself a login without being root, or may have: whose it is is not known";

/// Actors described before, by pid. Beyond the bound the memory starts afresh.
#[derive(Debug, Default)]
pub(super) struct KnownActors {
    actors: HashMap<u32, Described>,
    /// Makers described last: most processes that follow one another have the same.
    line: Option<(Arc<Ancestor>, Vec<Process>)>,
}

#[derive(Debug)]
struct Described {
    started: BootTime,
    /// Owner of its folder in /proc when it was last looked at.
    owner: u32,
    sure: Option<Sure>,
}

/// An actor and what it was made of, of which there was no doubt.
#[derive(Debug)]
struct Sure {
    program: Arc<Program>,
    standing: Arc<Standing>,
    actor: Arc<Actor>,
}

impl KnownActors {
    fn make_room(&mut self, pid: u32) {
        if self.actors.len() >= REMEMBERED && !self.actors.contains_key(&pid) {
            self.actors.clear();
        }
    }
}

impl ActorReader {
    /// The actor behind an event that was read at this sighting; all that the feed had told until then has been taken.
    /// `pending` asks how many file events wait, at most.
    pub fn attribute(
        &mut self,
        processes: &mut Processes,
        pid: u32,
        handle: &EventPidfd,
        sighting: Sighting,
        pending: impl Fn() -> Option<u64>,
    ) -> Arc<Actor> {
        // A login that a process gave itself stands in /proc as any other does.
        let without_own_login =
            |actor: Arc<Actor>, processes: &mut Processes| without_own_login(actor, |session| processes.may_be_self_given(pid, session));
        if processes.feed().is_none() || pid == 0 {
            return without_own_login(self.read_alone(pid, handle), processes);
        }
        if matches!(handle, EventPidfd::Absent)
            && !processes.hears_of_users()
            && let Some(folder) = ProcessFolder::open(pid)
        {
            processes.look_at_users(pid, &folder, &pending);
        }
        let (present, holder) = match handle {
            EventPidfd::Open(pidfd) if self.look(processes, pid, pidfd, pending) => (Some(pidfd), Holder::Present),
            EventPidfd::Ended => (None, Holder::Reaped),
            EventPidfd::Open(_) | EventPidfd::Absent => (None, Holder::Unsaid),
        };
        match processes.who(pid, &Sighting { holder, ..sighting }) {
            Answer::Known(known) if known.is_doubtful && present.is_some() => without_own_login(self.read(pid, present), processes),
            Answer::Known(known) => self.known(processes, pid, known, present.is_some()),
            Answer::Ambiguous(several) => {
                let reason = format!("{} processes had the pid {pid} one after the other while the event waited to be read", several.len());
                let mut actor = Actor::unknown(reason);
                actor.via = self.sources(processes);
                actor.process = Some(Process::bare(pid));
                Arc::new(actor)
            }
            Answer::Unknown => without_own_login(self.read_alone(pid, handle), processes),
        }
    }

    fn read_alone(&mut self, pid: u32, handle: &EventPidfd) -> Arc<Actor> {
        match handle {
            EventPidfd::Open(pidfd) => self.read(pid, Some(pidfd)),
            EventPidfd::Ended => self.read_ended(pid),
            EventPidfd::Absent => self.read(pid, None),
        }
    }

    fn sources(&self, processes: &Processes) -> Vec<String> {
        let mut via = vec![self.via.clone()];
        via.extend(processes.feed().map(str::to_owned));
        via
    }

    /// Whether the process still holds its pid; then what changes without a word is looked at.
    fn look(&mut self, processes: &mut Processes, pid: u32, pidfd: &OwnedFd, pending: impl Fn() -> Option<u64>) -> bool {
        let information = pidfd::information(pidfd.as_fd());
        if information.is_err() && !pidfd::holds_pid(pidfd.as_fd()) {
            return false;
        }
        // Users and control group are told by the kernel at once, or else by the owner of its folder, when it is another than before.
        let owner = match &information {
            Ok(info) => info.euid,
            Err(_) => std::fs::symlink_metadata(format!("/proc/{pid}")).map_or(u32::MAX, |folder| folder.uid()),
        };
        let is_new = self.told.actors.get(&pid).is_none_or(|described| described.owner != owner);
        // The owner says nothing of a process that may not be dumped, and nothing else tells of users: they are looked at each time.
        let is_untold = information.is_err() && !processes.hears_of_users();
        if (is_untold || is_new && (information.is_err() || processes.lies_elsewhere(pid)))
            && let Some(folder) = ProcessFolder::open(pid)
            // Opened while it held its pid, the folder is this process's.
            && pidfd::holds_pid(pidfd.as_fd())
        {
            if is_new { processes.look_at(pid, &folder, &pending) } else { processes.look_at_users(pid, &folder, &pending) }
        }
        if is_new {
            self.told.make_room(pid);
            self.told.actors.insert(pid, Described { started: BootTime::default(), owner, sure: None });
        }
        if let Ok(info) = information {
            processes.observe(pid, pending, |standing| {
                (standing.uid, standing.euid) = (info.uid, info.euid);
                standing.cgroup = info.cgroup.or(standing.cgroup);
            });
        }
        true
    }

    fn known(&mut self, processes: &mut Processes, pid: u32, known: Known, is_present: bool) -> Arc<Actor> {
        let Known { started, shown, then, is_doubtful } = known;
        if let Some(described) = self.told.actors.get_mut(&pid)
            && described.started != started
        {
            // Of another process with this pid.
            (described.started, described.sure) = (started, None);
        }
        let sure = match (then.programs.as_slice(), then.standings.as_slice()) {
            ([Some(program)], [Some(standing)]) if !is_doubtful => Some((program, standing)),
            _ => None,
        };
        if let (Some((program, standing)), Some(Sure { program: before, standing: stood, actor })) =
            (sure, self.told.actors.get(&pid).and_then(|described| described.sure.as_ref()))
            && Arc::ptr_eq(program, before)
            && Arc::ptr_eq(standing, stood)
            // Whose login it is may have come out since.
            && !standing.session.is_some_and(|session| processes.is_self_given(session))
        {
            return Arc::clone(actor);
        }
        let makers = processes.makers(pid, started);
        let mut actor = self.describe_known(processes, pid, shown, &then, makers.as_ref(), is_present);
        if is_doubtful {
            actor = actor.but("news of processes was lost, and some of it may have been about this one");
        }
        let actor = Arc::new(actor);
        if let Some((program, standing)) = sure {
            self.told.make_room(pid);
            let described = self.told.actors.entry(pid).or_insert(Described { started, owner: u32::MAX, sure: None });
            described.sure = Some(Sure { program: Arc::clone(program), standing: Arc::clone(standing), actor: Arc::clone(&actor) });
        }
        actor
    }

    fn describe_known(
        &mut self,
        processes: &mut Processes,
        pid: u32,
        shown: BootTime,
        then: &Then,
        makers: Option<&Arc<Ancestor>>,
        is_present: bool,
    ) -> Actor {
        let mut reasons = Vec::new();
        let program = only(&then.programs).cloned().flatten();
        reasons.extend(program_reason(&then.programs));
        if program.as_ref().is_some_and(|program| program.executable.is_some() && program.arguments.bytes() == 0) && processes.is_pressing()
        {
            reasons.push("the arguments could not be read: the process had ended, or has none".to_owned());
        }
        let standings: Vec<&Standing> = then.standings.iter().flatten().map(Arc::as_ref).collect();
        let is_whole = !standings.is_empty() && standings.len() == then.standings.len();
        let uid = agreed(&standings, is_whole, |standing| standing.uid);
        let is_own = |standing: &Standing| standing.session.is_some_and(|session| processes.is_self_given(session));
        let login = agreed(&standings, is_whole, |standing| standing.login_uid.filter(|_| !is_own(standing)));
        let session = agreed(&standings, is_whole, |standing| standing.session.filter(|_| !is_own(standing)));
        if standings.iter().any(|standing| is_own(standing)) {
            reasons.push(OWN_LOGIN.to_owned());
        }
        let cgroup = agreed(&standings, is_whole, |standing| standing.cgroup);
        let terminal = agreed(&standings, is_whole, |standing| standing.terminal).flatten().and_then(procfs::terminal_name);
        if uid.is_none() || login.is_none() || session.is_none() {
            reasons.push(standing_reason(&standings, is_whole));
        }
        let user = uid.map(|uid| {
            let euid = agreed(&standings, is_whole, |standing| standing.euid);
            let mut user = self.user(uid, euid.unwrap_or(uid), login.flatten());
            user.euid = euid.filter(|_| program.is_some());
            user
        });
        let mut process = Process { started_at: Some(self.started(shown)), ..Process::bare(pid) };
        if let Some(program) = &program {
            (process.exe, process.script) = (program.executable.as_ref().map(shown_path), program.script.as_deref().map(str::to_owned));
            (process.argv, process.cwd) = (program.arguments.masked(), program.cwd.as_deref().map(str::to_owned));
            let mounts = agreed(&standings, is_whole, |standing| standing.mount_namespace);
            self.note_image(&process, program, uid, mounts.flatten());
        }
        let line: Vec<&Arc<Ancestor>> = makers.map(Ancestor::line).into_iter().flatten().collect();
        let parents = self.parents_in(&line);
        let sudo = self.sudo(&process, uid, &parents, &line, terminal.clone());
        let placement = self.placement(processes, pid, cgroup.flatten(), is_present);
        let certainty = certainty_of(processes.feed(), then, &reasons);
        let number = session.flatten().zip(self.boot);
        Actor {
            certainty,
            via: self.sources(processes),
            process: Some(process),
            parents,
            user,
            session: number.map(|(number, boot)| Session { terminal, ..Session::bare(SessionId::audit(boot, number)) }),
            sudo,
            unit: placement.unit,
            slice: placement.slice,
            container: placement.container.map(|id| Container { certainty, id, image: None }),
            reason: (!reasons.is_empty()).then(|| bounded(&reasons.join("; "), REASON_TEXT).into_owned()),
        }
    }

    fn parents_in(&mut self, line: &[&Arc<Ancestor>]) -> Vec<Process> {
        let Some(nearest) = line.first() else { return Vec::new() };
        if let Some((known, parents)) = &self.told.line
            && Arc::ptr_eq(known, nearest)
        {
            return parents.clone();
        }
        let parents: Vec<Process> = line.iter().map(|ancestor| self.parent_of(ancestor)).collect();
        self.told.line = Some((Arc::clone(nearest), parents.clone()));
        parents
    }

    fn parent_of(&mut self, ancestor: &Ancestor) -> Process {
        let mut process = Process { started_at: Some(self.started(ancestor.started)), ..Process::bare(ancestor.pid) };
        if let Some(program) = &ancestor.program {
            (process.exe, process.script) = (program.executable.as_ref().map(shown_path), program.script.as_deref().map(str::to_owned));
            process.argv = brief(program.arguments.masked());
            let standing = ancestor.standing.as_deref();
            let mounts = standing.and_then(|standing| standing.mount_namespace);
            self.note_image(&process, program, standing.map(|standing| standing.uid), mounts);
        }
        process
    }

    fn note_image(&mut self, process: &Process, program: &Program, uid: Option<u32>, mounts: Option<u32>) {
        let (Some(exe), Some(executable)) = (&process.exe, &program.executable) else { return };
        let file = executable.device.zip(executable.inode).filter(|_| !executable.removed);
        let file = file.map(|(device, inode)| FileIdentity { device, inode, changed: executable.changed });
        let is_apart = mounts.zip(self.host_mounts).is_some_and(|(own, hosts)| own != hosts);
        self.note(ProcessImage { pid: process.pid, started_at: process.started_at, exe: exe.clone(), file, uid, is_apart });
    }

    /// The nearest sudo that the process runs under, or is. sudo runs a second sudo of its own to watch over the terminal. Who ran
    /// it is in the real uid that the first of them began with; its maker may have become another user without a word. Where that is
    /// root's, it was root, or sudo has put it away: then its maker is asked.
    fn sudo(
        &mut self,
        process: &Process,
        uid: Option<u32>,
        parents: &[Process],
        line: &[&Arc<Ancestor>],
        terminal: Option<String>,
    ) -> Option<Sudo> {
        let is_sudo = |process: &Process| process.exe.as_deref().is_some_and(|exe| exe == "/usr/bin/sudo" || exe.ends_with("/bin/sudo"));
        let chain: Vec<&Process> = std::iter::once(process).chain(parents).collect();
        let uid_of = |place: usize| match place {
            0 => uid,
            above => line.get(above - 1)?.standing.as_ref().map(|standing| standing.uid),
        };
        let first = chain.iter().position(|process| is_sudo(process))?;
        let last = first + chain[first..].iter().take_while(|process| is_sudo(process)).count() - 1;
        let mut name = |uid: u32| self.users.name(uid).unwrap_or_else(|| format!("uid {uid}"));
        let command = chain[last].argv.get(1..).map(|command| command.join(" ")).filter(|command| !command.is_empty());
        Some(Sudo {
            certainty: Certainty::Strong,
            by: uid_of(last).filter(|uid| *uid != 0).or_else(|| uid_of(last + 1)).map(&mut name),
            as_user: first.checked_sub(1).and_then(uid_of).map(&mut name),
            command: command.map(|command| bounded(&command, SUDO_TEXT).into_owned()),
            // The one it was called on: what it starts may have been given another.
            terminal: match last {
                0 => terminal,
                above => line.get(above - 1).and_then(|sudo| procfs::terminal_name(sudo.standing.as_ref()?.terminal?)),
            },
        })
    }

    /// The unified hierarchy names the group by number; where it names none, as on hosts with the older ones alone, a living process
    /// is asked.
    fn placement(&mut self, processes: &mut Processes, pid: u32, cgroup: Option<u64>, is_present: bool) -> Placement {
        let told = cgroup.and_then(|id| processes.cgroup_path(id)).map(|path| Placement {
            unit: unit_of(&path),
            slice: slice_of(&path),
            container: container_of(&path),
        });
        match told {
            Some(told) if told != Placement::default() || !is_present => told,
            None if !is_present => Placement::default(),
            _ => ProcessFolder::open(pid)
                .and_then(|folder| folder.bytes("cgroup", CGROUPS))
                .map(|bytes| parse_placement(&bytes))
                .unwrap_or_default(),
        }
    }
}

fn without_own_login(actor: Arc<Actor>, is_own: impl FnOnce(u32) -> bool) -> Arc<Actor> {
    let number = actor.session.as_ref().and_then(|session| session.id.as_str().rsplit_once('-')?.1.parse().ok());
    if !number.is_some_and(is_own) {
        return actor;
    }
    let mut actor = Arc::unwrap_or_clone(actor);
    actor.session = None;
    if let Some(user) = &mut actor.user {
        (user.login_uid, user.login_name) = (None, None);
    }
    // Of one that is read from /proc its login alone says who ran it.
    if let Some(sudo) = &mut actor.sudo {
        sudo.by = None;
    }
    actor.reason = Some(actor.reason.map_or_else(|| OWN_LOGIN.to_owned(), |reason| format!("{reason}; {OWN_LOGIN}")));
    Arc::new(actor)
}

/// As /proc/PID/exe shows it.
fn shown_path(executable: &Executable) -> String {
    let suffix = if executable.removed { " (deleted)" } else { "" };
    format!("{}{suffix}", executable.path)
}

fn only<T>(all: &[T]) -> Option<&T> {
    if let [one] = all { Some(one) } else { None }
}

/// What all that is possible agree on.
fn agreed<T: PartialEq>(standings: &[&Standing], is_whole: bool, part: impl Fn(&Standing) -> T) -> Option<T> {
    let first = part(standings.first()?);
    (is_whole && standings.iter().all(|standing| part(standing) == first)).then_some(first)
}

/// /proc may have been read too late, and a process can write other arguments there: what it alone showed is never exact.
fn certainty_of(feed: Option<&str>, then: &Then, reasons: &[String]) -> Certainty {
    match feed {
        Some("ebpf") if reasons.is_empty() && !then.is_read => Certainty::Exact,
        _ => Certainty::Strong,
    }
}

fn program_reason(programs: &[Option<Arc<Program>>]) -> Option<String> {
    let name = |program: &Option<Arc<Program>>| match program {
        Some(program) => {
            let path = program.executable.as_ref().map_or_else(|| format!("[{}]", program.name), shown_path);
            bounded(&path, NAME_TEXT).into_owned()
        }
        None => "a program that is not known".to_owned(),
    };
    match programs {
        [Some(program)] if program.executable.is_none() => Some(format!("a thread of the kernel, named {}", bounded(&program.name, 64))),
        [Some(_)] => None,
        [] | [None] => Some("the process had ended, or ran another program, before its executable could be read".to_owned()),
        several => {
            let names: Vec<String> = several.iter().take(4).map(name).collect();
            let names = names.join(", then ");
            Some(format!("the process ran {names} while the event waited to be read: which of them did it is not known"))
        }
    }
}

fn standing_reason(standings: &[&Standing], is_whole: bool) -> String {
    if !is_whole {
        return "on whose behalf the process ran could not be learnt in time".to_owned();
    }
    let name = |standing: &&Standing| match standing.login_uid {
        Some(login) => format!("uid {} of login {login}", standing.uid),
        None => format!("uid {} of no login", standing.uid),
    };
    let names: Vec<String> = standings.iter().take(4).map(name).collect();
    format!("the process ran as {} while the event waited to be read: as whom it did it is not known", names.join(", then as "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::event::Arguments;

    #[test]
    fn only_what_the_kernel_told_is_exact() {
        let (told, read) = (Then::default(), Then { is_read: true, ..Then::default() });
        assert_eq!(certainty_of(Some("ebpf"), &told, &[]), Certainty::Exact);
        assert_eq!(certainty_of(Some("ebpf"), &read, &[]), Certainty::Strong);
        assert_eq!(certainty_of(Some("ebpf"), &told, &["unsure".to_owned()]), Certainty::Strong);
        assert_eq!(certainty_of(Some("connector"), &told, &[]), Certainty::Strong);
    }

    /// Whoever runs programs from folders with long names must not make a record that no collector takes.
    #[test]
    fn a_reason_is_short_whatever_the_programs_are_called() {
        let program = |byte: char| {
            let path = format!("/{}", byte.to_string().repeat(1000)).into();
            let executable = Executable { path, removed: true, device: None, inode: None, changed: None };
            let arguments = Arguments::new(b"");
            Some(Arc::new(Program { name: "x".to_owned(), executable: Some(executable), script: None, arguments, cwd: None }))
        };
        let programs: Vec<_> = ['a', 'b', 'c', 'd', 'e'].map(program).into();
        let reason = program_reason(&programs).unwrap();
        assert!(reason.len() <= 1200 && reason.contains("which of them did it is not known"), "{} bytes", reason.len());
    }
}
