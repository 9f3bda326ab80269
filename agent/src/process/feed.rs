//! Where the table hears of processes: the eBPF feed, else the process connector, else nowhere.
//!
//! Each is tried by itself, and what it is refused for is kept. The connector tells only that something happened, so what a
//! process runs and for whom is read from /proc at once, and may come too late: then it is not known. The message of an exec comes at its
//! very end, when /proc has long shown the next program: what was read is therefore true of what the process did after the reading,
//! when the message of any later exec would have been taken, and of nothing before.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::cgroups::Cgroups;
use super::event::{BootTime, ProcessEvent, ProcessEventKind, Program, Standing, Subject};
use super::login::Login;
use super::survey;
use crate::actor::folder::ProcessFolder;
use crate::kernel::connector::{Connector, Message, Received, Told};
use crate::kernel::process_probe::{Drained, ProcessProbe};

/// Taken at once from a connector, in messages of processes; one of anything else costs a [`MESSAGE`]th. Others can make more of them
/// without end, and each keeps the thread from its events.
const MESSAGES: u32 = 1000;
const MESSAGE: u32 = 8;

/// Which feeds may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum FeedChoice {
    /// The best that the kernel allows.
    #[default]
    Best,
    #[value(name = "ebpf")]
    Probe,
    Connector,
    /// None: processes are read from /proc when their events are.
    #[value(name = "proc")]
    Absent,
}

#[derive(Debug)]
pub enum Feed {
    Probe(Box<ProcessProbe>),
    Connector(Connector),
    Absent,
}

/// Why a feed is not used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub feed: &'static str,
    pub reason: String,
}

/// What a feed told.
#[derive(Debug)]
pub struct News {
    pub event: ProcessEvent,
    /// What /proc showed then, for a feed that tells no more than that a program began.
    pub found: Option<Found>,
    /// Looked at since.
    pub login: Option<Login>,
    /// So many file events waited, at most, after it was told and before anything was read for it.
    pub pending: Option<u64>,
}

#[derive(Debug)]
pub struct Found {
    pub program: Option<Program>,
    pub standing: Option<Standing>,
    pub until: BootTime,
    /// So many file events waited, at most, after the reading.
    pub pending: Option<u64>,
}

/// How a draining ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Drain {
    /// Everything told before it began has been taken.
    Whole,
    /// Something is missing.
    Lossy,
}

impl Feed {
    /// `files` is the queue of file events that what is told will be joined with.
    pub fn start(choice: FeedChoice, files: BorrowedFd<'_>) -> (Self, Vec<Refusal>) {
        let mut refusals = Vec::new();
        if matches!(choice, FeedChoice::Best | FeedChoice::Probe) {
            match ProcessProbe::start() {
                Ok(mut probe) => {
                    probe.show_queue(files);
                    return (Self::Probe(Box::new(probe)), refusals);
                }
                Err(error) => refusals.push(Refusal { feed: "ebpf", reason: error.to_string() }),
            }
        }
        if matches!(choice, FeedChoice::Best | FeedChoice::Connector) {
            match Connector::open() {
                Ok(connector) => return (Self::Connector(connector), refusals),
                Err(error) => refusals.push(Refusal { feed: "connector", reason: error.to_string() }),
            }
        }
        (Self::Absent, refusals)
    }

    pub const fn name(&self) -> Option<&'static str> {
        match self {
            Self::Probe(_) => Some("ebpf"),
            Self::Connector(_) => Some("connector"),
            Self::Absent => None,
        }
    }

    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Probe(probe) => Some(probe.as_fd()),
            Self::Connector(connector) => Some(connector.as_fd()),
            Self::Absent => None,
        }
    }

    /// What the eBPF feed could not tell since its start.
    pub fn dropped(&self) -> u64 {
        match self {
            Self::Probe(probe) => probe.dropped(),
            Self::Connector(_) | Self::Absent => 0,
        }
    }

    /// What the kernel left out beside. Reads files.
    pub fn missed(&self) -> u64 {
        match self {
            Self::Probe(probe) => probe.missed(),
            Self::Connector(_) | Self::Absent => 0,
        }
    }

    /// Takes all that was told before the call. `pending` asks how many file events wait, at most.
    pub fn drain(&mut self, cgroups: &mut Cgroups, pending: impl Fn() -> Option<u64>, mut take: impl FnMut(News)) -> io::Result<Drain> {
        match self {
            Self::Absent => Ok(Drain::Whole),
            Self::Probe(probe) => {
                let drained = probe.drain(|event| take(News { event, found: None, login: None, pending: None }));
                Ok(if drained == Drained::All { Drain::Whole } else { Drain::Lossy })
            }
            Self::Connector(connector) => drain_connector(connector, cgroups, &pending, &mut take),
        }
    }
}

/// Takes all that a connector told before the call; where that is more than its bound, the rest waits and this counts as a loss.
pub fn drain_connector(
    connector: &mut Connector,
    cgroups: &mut Cgroups,
    pending: &impl Fn() -> Option<u64>,
    take: &mut impl FnMut(News),
) -> io::Result<Drain> {
    let began = BootTime::now();
    let asleep = asleep();
    let mut waiting = None;
    let mut looked_at = HashSet::new();
    let mut all = Vec::new();
    let taken = take_messages(
        || connector.receive(),
        |message| {
            let at = BootTime::from_nanos(message.monotonic.saturating_add(asleep));
            // Others go on starting processes: what they do from now on is for the next time.
            let is_later = at > began;
            let waiting = if is_later { pending() } else { *waiting.get_or_insert_with(pending) };
            all.push(news(message, at, cgroups, waiting, &mut looked_at));
            !is_later
        },
    );
    // Asked once for all: as many waited after each of the readings, at most.
    let waiting = if all.iter().any(|news| news.found.is_some()) { pending() } else { None };
    for mut news in all {
        if let Some(found) = &mut news.found {
            found.pending = waiting;
        }
        take(news);
    }
    taken
}

/// Until nothing waits, `take` wants no more, or the bound is reached.
fn take_messages(mut receive: impl FnMut() -> io::Result<Option<Received>>, mut take: impl FnMut(Message) -> bool) -> io::Result<Drain> {
    let mut drain = Drain::Whole;
    let mut room = MESSAGES * MESSAGE;
    while let Some(received) = receive()? {
        let cost = match received {
            Received::Nothing => 1,
            Received::Overflow => {
                drain = Drain::Lossy;
                1
            }
            Received::Message(message) if take(message) => MESSAGE,
            Received::Message(_) => return Ok(drain),
        };
        room = room.saturating_sub(cost);
        if room == 0 {
            return Ok(Drain::Lossy);
        }
    }
    Ok(drain)
}

/// So many file events waited, at most, after it was told and before this.
fn news(message: Message, at: BootTime, cgroups: &mut Cgroups, pending: Option<u64>, looked_at: &mut HashSet<u32>) -> News {
    let subject = |pid| Subject { pid, started: None };
    let process = subject(message.pid);
    let told =
        |process, kind| News { event: ProcessEvent { at, process, first_number: None, kind }, found: None, login: None, pending: None };
    match message.told {
        Told::Fork { parent } => {
            // From here on the pid is another's.
            looked_at.remove(&message.pid);
            told(process, ProcessEventKind::Fork { parent: subject(parent), standing: None, queued: None })
        }
        Told::Exit => told(process, ProcessEventKind::Exit { standing: None }),
        Told::Users { uid, euid } => {
            // Whoever becomes another user has mostly just been given a login.
            let folder = looked_at.insert(message.pid).then(|| ProcessFolder::open(message.pid)).flatten();
            let folder = folder.filter(|folder| started(folder).is_some_and(|started| started <= at));
            let login = folder.and_then(|folder| survey::login(&folder));
            News { login, pending, ..told(process, ProcessEventKind::Users { uid, euid }) }
        }
        Told::Exec => {
            let folder = ProcessFolder::open(message.pid);
            let look = folder.as_ref().and_then(survey::look);
            let started = look.as_ref().map(|look| survey::started(&look.stat));
            // Of a process that began after the message the pid is another's by now.
            let started = started.filter(|started| *started <= at);
            let found = started.and(folder.zip(look)).map(|(folder, look)| {
                let standing = survey::standing(&folder, &look.stat, cgroups);
                Found { program: look.program, standing, until: BootTime::now(), pending: None }
            });
            let process = Subject { started, ..process };
            let kind = ProcessEventKind::Exec { program: None, standing: None, queued: None };
            News { found, pending, ..told(process, kind) }
        }
    }
}

fn started(folder: &ProcessFolder) -> Option<BootTime> {
    folder.stat().map(|(stat, _)| survey::started(&stat))
}

/// By how much boot time is ahead of the monotonic clock: the time asleep.
fn asleep() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    let clock = |id| clock_gettime(id).map_or(0, |time| std::time::Duration::from(time).as_nanos());
    let monotonic = clock(ClockId::CLOCK_MONOTONIC);
    let boot = clock(ClockId::CLOCK_BOOTTIME);
    let ahead = u64::try_from(boot.saturating_sub(monotonic)).unwrap_or(0);
    // The two were not read at one moment.
    const MOMENT: u64 = 1_000_000;
    if ahead < MOMENT { 0 } else { ahead }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread storm, or a queue that overflows again and again, must not keep the thread for ever.
    #[test]
    fn whatever_is_received_without_end_is_left_at_a_bound() {
        let message = Message { pid: 7, monotonic: 0, told: Told::Exit };
        for (received, most) in
            [(Received::Nothing, MESSAGES * MESSAGE), (Received::Overflow, MESSAGES * MESSAGE), (Received::Message(message), MESSAGES)]
        {
            let mut count = 0;
            let drained = take_messages(
                || {
                    count += 1;
                    assert!(count <= most, "{received:?}");
                    Ok(Some(received))
                },
                |_| true,
            );
            assert_eq!((drained.unwrap(), count), (Drain::Lossy, most));
        }
    }

    #[test]
    fn what_ends_before_the_bound_is_whole_and_what_wants_no_more_takes_no_more() {
        let message = Received::Message(Message { pid: 7, monotonic: 0, told: Told::Exit });
        let mut waiting = vec![Received::Nothing, message, message];
        assert_eq!(take_messages(|| Ok(waiting.pop()), |_| true).unwrap(), Drain::Whole);
        let mut waiting = vec![message, message];
        assert_eq!(take_messages(|| Ok(waiting.pop()), |_| false).unwrap(), Drain::Whole);
        assert_eq!(waiting.len(), 1);
    }
}
