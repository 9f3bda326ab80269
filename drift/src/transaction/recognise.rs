//! From a change's chain of processes to the runs that it belongs to.
//!
//! A run is recognised by what the kernel told, never by what a process says of itself. Its leader's executable must be the
//! host's own file at a known path; a name, `argv[0]`, a copy elsewhere, a file that somebody else may write count for nothing.
//! It must have run that program already when it made the change or the next process of the chain: otherwise a process could
//! make a child, and then become apt. Only root changes packages or configures hosts, so what anybody else starts is none: who
//! owns a process can put code into it.
//!
//! What falls short of that and still may be is `correlated`: where the source does not tell when a program began or whose
//! process it is, where a script is known from an interpreter's arguments alone (a process can rewrite its own), Ansible's
//! modules, which whoever logs in can imitate, and a timer's service, which others can start as well. No run is surer than the process that the chain begins with.
//!
//! Out of reach: code that root puts into a genuine program (a preloaded library, a hook of apt's, a debugger). The command
//! tells of some of it.

use uuid::Uuid;

use super::program::{self, base};
use super::{Transaction, TransactionId, TransactionKind};
use crate::actor::{Certainty, Process, Session, User};
use crate::text::bounded;
use crate::{Actor, BootId, Time};

const COMMAND_TEXT: usize = 512;
const NAME_TEXT: usize = 128;

/// What is known of who made a change.
#[derive(Debug, Clone)]
pub struct Chain<'a> {
    pub boot: BootId,
    /// Of the first process.
    pub certainty: Certainty,
    /// The process that made the change, then who made each: its maker, not who adopted it.
    pub links: Vec<Link<'a>>,
    pub user: Option<&'a User>,
    pub session: Option<&'a Session>,
    /// Absent where the unit is not one of the host's own service manager: a user's manager has units of any name.
    pub unit: Option<Unit<'a>>,
}

/// A process of the chain, with what its host says of it.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    pub process: &'a Process,
    pub standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Whom it acts as: the effective user.
    pub uid: Option<u32>,
    /// The executable is the very file that the host has at that path, and nobody but root can have written it.
    pub genuine: bool,
    /// The same of the script, whose path the kernel told when it started the interpreter for it.
    pub genuine_script: bool,
    /// Whether it ran this program already when it did what the chain is about: the first link the change, every other the
    /// process before it. Absent where the source does not tell.
    pub ran_then: Option<bool>,
}

/// A service of the host's service manager.
#[derive(Debug, Clone, Copy)]
pub struct Unit<'a> {
    pub name: &'a str,
    /// There is a timer for it. What started it this time may have been somebody else.
    pub has_timer: bool,
    /// systemd's id of this start of it.
    pub invocation: Option<Uuid>,
}

impl<'a> Chain<'a> {
    /// The chain of an actor; `standing` is asked for each of its processes, with its place in the chain.
    pub fn of(actor: &'a Actor, boot: BootId, unit: Option<Unit<'a>>, mut standing: impl FnMut(usize, &Process) -> Standing) -> Self {
        let processes = actor.process.iter().chain(actor.parents.iter().filter(|_| actor.process.is_some()));
        let links = processes.enumerate().map(|(place, process)| Link { process, standing: standing(place, process) }).collect();
        Self { boot, certainty: actor.certainty, links, user: actor.user.as_ref(), session: actor.session.as_ref(), unit }
    }

    fn login(&self) -> Option<&str> {
        let session = self.session.filter(|session| session.certainty <= Certainty::Strong).and_then(|session| session.user.as_deref());
        self.user.and_then(|user| user.login_name.as_deref()).or(session)
    }
}

/// A run, as one link of the chain shows it.
struct Run {
    kind: TransactionKind,
    certainty: Certainty,
    /// The link whose process gives it its identity.
    leader: usize,
    name: Option<String>,
    command: Option<String>,
    invocation: Option<Uuid>,
}

impl Run {
    /// What it has no name for itself, a run of its own kind within it has.
    fn named_as(self, inner: &Self) -> Self {
        let name = self.name.or_else(|| inner.name.clone().filter(|_| inner.kind == self.kind));
        Self { name, ..self }
    }
}

/// The runs that a change belongs to, the innermost with those around it in it. Nothing where the process is unknown.
pub fn recognise(chain: &Chain<'_>) -> Option<Transaction> {
    if chain.certainty == Certainty::Unknown {
        return None;
    }
    let mut runs: Vec<Run> = Vec::new();
    for place in 0..chain.links.len() {
        let Some(run) = led(chain, place) else { continue };
        match runs.last_mut().and_then(|inner| Some((together(chain, inner, &run)?, inner))) {
            Some((Together::Inner, _)) => {}
            Some((Together::Outer, inner)) => *inner = run.named_as(inner),
            None => runs.push(run),
        }
    }
    runs.extend(timed(chain));
    runs.truncate(Transaction::DEPTH);
    runs.into_iter().rev().fold(None, |within, run| Some(told(chain, run, within)))
}

/// Of two runs, the one within the other: what they are together where they are one. Never less sure than either.
fn together(chain: &Chain<'_>, inner: &Run, outer: &Run) -> Option<Together> {
    use TransactionKind::{Apt, Dnf, Dpkg, Rpm, UnattendedUpgrades, Zypper};
    let is_tool = matches!((inner.kind, outer.kind), (Dpkg, Apt | UnattendedUpgrades) | (Apt, UnattendedUpgrades) | (Rpm, Dnf | Zypper));
    if inner.kind == outer.kind && is_daemon(inner.kind) {
        // A copy of the service, made for one run.
        let [copy, service] = [inner, outer].map(|run| chain.links.get(run.leader).map(|link| (&link.process.exe, &link.process.argv)));
        return (copy == service).then_some(Together::Inner);
    }
    let is_one = is_tool || (inner.kind == outer.kind && inner.kind != TransactionKind::Cron);
    (is_one && outer.certainty <= inner.certainty).then_some(Together::Outer)
}

enum Together {
    Inner,
    Outer,
}

/// Services that live for months make a process for each run; the others are one run from their first process on.
const fn is_daemon(kind: TransactionKind) -> bool {
    use TransactionKind::{Chef, Puppet, Salt};
    matches!(kind, Puppet | Salt | Chef)
}

/// The run that the link's process leads.
fn led(chain: &Chain<'_>, place: usize) -> Option<Run> {
    let Link { process, standing } = chain.links[place];
    let exe = process.exe.as_deref().map(path)?;
    if !standing.genuine || standing.ran_then == Some(false) {
        return None;
    }
    // Without the time a program began, it may have begun after.
    let when = if standing.ran_then.is_none() { Certainty::Correlated } else { Certainty::Exact };
    let certainty = chain.certainty.max(when);
    if program::is_cron(exe) {
        return job(chain, place, certainty);
    }
    let maker = chain.links.get(place + 1).filter(|maker| maker.standing.genuine).and_then(|maker| maker.process.exe.as_deref());
    let is_build = program::is_build(exe, arguments(process, None), maker);
    let (kind, script, certainty) = if let Some(kind) = program::executable(exe) {
        (kind, None, certainty)
    } else if is_build {
        (TransactionKind::ContainerBuild, None, certainty)
    } else if let Some(script) = process.script.as_deref() {
        (program::script(script).filter(|_| standing.genuine_script && program::runs_scripts(exe))?, Some(script), certainty)
    } else {
        return from_arguments(chain, place).or_else(|| piped(chain, place));
    };
    let certainty = as_root(kind, standing.uid, certainty)?;
    let arguments = arguments(process, script);
    let name = arguments.iter().find(|word| program::is_verb(word)).cloned();
    let command = command(script.unwrap_or(exe), arguments);
    Some(Run { kind, certainty, leader: place, name, command: Some(command), invocation: None })
}

/// Builds of containers may be anybody's; only root's are sure, for who owns a process can put code into it.
fn as_root(kind: TransactionKind, uid: Option<u32>, certainty: Certainty) -> Option<Certainty> {
    match uid {
        Some(0) => Some(certainty),
        Some(_) if kind != TransactionKind::ContainerBuild => None,
        _ => Some(certainty.max(Certainty::Correlated)),
    }
}

/// What an interpreter's arguments say it runs. They are what the process shows of itself: correlated at best.
fn from_arguments(chain: &Chain<'_>, place: usize) -> Option<Run> {
    let Link { process, standing } = chain.links[place];
    let exe = process.exe.as_deref().map(path).filter(|exe| program::is_interpreter(exe))?;
    let options = process.argv.iter().skip(1).take_while(|argument| argument.starts_with('-')).count();
    let script = process.argv.get(1 + options)?;
    let certainty = chain.certainty.max(Certainty::Correlated);
    if let Some(module) = program::ansible_module(script) {
        let leader = controlled(chain, place)?;
        let name = Some(bounded(module, NAME_TEXT).into_owned());
        let command = Some(command(exe, arguments(process, None)));
        return Some(Run { kind: TransactionKind::Ansible, certainty, leader, name, command, invocation: None });
    }
    let kind = program::script(script).filter(|_| program::runs_scripts(exe))?;
    let certainty = as_root(kind, standing.uid, certainty)?;
    let arguments = arguments(process, Some(script));
    let name = arguments.iter().find(|word| program::is_verb(word)).cloned();
    Some(Run { kind, certainty, leader: place, name, command: Some(command(script, arguments)), invocation: None })
}

/// A module of Ansible's that came through a pipe has no name. The shell that became another user for it says so.
fn piped(chain: &Chain<'_>, place: usize) -> Option<Run> {
    let process = chain.links[place].process;
    let told = process.argv.get(2).filter(|_| process.argv[1] == "-c").and_then(|line| program::ansible_become(line))?;
    // Where the module has a name, that tells more.
    let is_named = |link: &Link<'_>| link.process.argv.iter().any(|argument| program::ansible_module(argument).is_some());
    if chain.links[..place].iter().any(is_named) {
        return None;
    }
    let command = Some(bounded(told, COMMAND_TEXT).into_owned());
    let certainty = chain.certainty.max(Certainty::Correlated);
    let leader = controlled(chain, place)?;
    Some(Run { kind: TransactionKind::Ansible, certainty, leader, name: None, command, invocation: None })
}

/// The link of the connection that a module came over: all modules of a play share it.
fn controlled(chain: &Chain<'_>, place: usize) -> Option<usize> {
    let over = |link: &&Link<'_>| {
        let is_roots = link.standing.uid == Some(0) || link.standing.uid.is_none();
        link.standing.genuine && is_roots && link.process.exe.as_deref().map(path).is_some_and(program::is_sshd)
    };
    let connection = chain.links.iter().enumerate().skip(place + 1).find(|(_, link)| over(link)).map(|(place, _)| place);
    connection.or_else(|| chain.links[place].standing.uid.is_none_or(|uid| uid == 0).then_some(place))
}

/// A job is what cron made; cron's own doing is none.
fn job(chain: &Chain<'_>, place: usize, certainty: Certainty) -> Option<Run> {
    let leader = place.checked_sub(1)?;
    let process = chain.links[leader].process;
    // Cron makes a process of its own for each job, and that one makes the job's.
    if process.exe.as_deref().map(path).is_some_and(program::is_cron) && chain.links[leader].standing.genuine {
        return None;
    }
    let certainty = as_root(TransactionKind::Cron, chain.links[place].standing.uid, certainty)?;
    let command = match &process.argv[..] {
        [_, option, command] if option == "-c" => bounded(command, COMMAND_TEXT).into_owned(),
        argv => bounded(&argv.join(" "), COMMAND_TEXT).into_owned(),
    };
    let command = (!command.is_empty()).then_some(command);
    Some(Run { kind: TransactionKind::Cron, certainty, leader, name: None, command, invocation: None })
}

/// What a timer started is all of its unit. People and other units can start it as well, and nothing tells the one from the other.
fn timed(chain: &Chain<'_>) -> Option<Run> {
    let unit = chain.unit.filter(|unit| unit.has_timer)?;
    let below_the_first = |at: &usize| chain.links.get(at + 1).is_some_and(|maker| maker.process.pid == 1);
    // Without either the run has no identity.
    let leader = (0..chain.links.len()).find(below_the_first);
    if unit.invocation.is_none() && leader.is_none() {
        return None;
    }
    let leader = leader.unwrap_or(chain.links.len());
    let name = Some(bounded(unit.name, NAME_TEXT).into_owned());
    Some(Run {
        kind: TransactionKind::Timer,
        certainty: chain.certainty.max(Certainty::Correlated),
        leader,
        name,
        command: None,
        invocation: unit.invocation,
    })
}

fn told(chain: &Chain<'_>, run: Run, within: Option<Transaction>) -> Transaction {
    let leader = chain.links.get(run.leader).map(|link| link.process);
    let began_at: Option<Time> = leader.and_then(|leader| leader.started_at);
    let id = match run.invocation {
        Some(invocation) => TransactionId::of_invocation(run.kind, invocation),
        None => TransactionId::led_by(run.kind, chain.boot, leader.map_or(0, |leader| leader.pid), began_at),
    };
    let login = chain.login();
    let origin = chain.session.and_then(|session| session.origin).filter(|_| run.kind == TransactionKind::Ansible);
    let requested_by = match (login, origin) {
        (Some(login), Some(origin)) => Some(format!("{login} from {}", origin.address)),
        (Some(login), None) => Some(login.to_owned()),
        (None, Some(origin)) => Some(origin.address.to_string()),
        (None, None) => None,
    };
    let Run { kind, certainty, name, command, .. } = run;
    Transaction { id, kind, certainty, name, command, requested_by, began_at, within: within.map(Box::new) }
}

/// As /proc names a file that was replaced since: whether it is the host's own is told apart from its name.
fn path(exe: &str) -> &str {
    exe.strip_suffix(" (deleted)").unwrap_or(exe)
}

/// What was given to the program, or to the script where one runs: `argv[0]` is whatever its maker liked.
fn arguments<'a>(process: &'a Process, script: Option<&str>) -> &'a [String] {
    let program = script.and_then(|script| process.argv.iter().position(|argument| argument == script)).unwrap_or(0);
    process.argv.get(program + 1..).unwrap_or_default()
}

fn command(program: &str, arguments: &[String]) -> String {
    let mut line = base(program).to_owned();
    for argument in arguments {
        line.push(' ');
        line.push_str(argument);
        if line.len() > COMMAND_TEXT {
            break;
        }
    }
    bounded(&line, COMMAND_TEXT).into_owned()
}
