//! The kernel's audit interface: its state, rules under a key of our own, and the records that it tells. See auditctl(8) and
//! the kernel's include/uapi/linux/audit.h.
//!
//! Invariants: only what the kernel itself sent is taken; no rule but those with [`KEY`] is ever touched; every request has
//! an end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, sendto, setsockopt, socket, sockopt,
};

/// Our rules are known by this.
pub const KEY: &str = "trueline";

/// `AUDIT_NLGRP_READLOG`, as bind(2) has it: what everybody with CAP_AUDIT_READ may hear.
const READ_LOG: u32 = 1;
const GET: u16 = 1000;
const SET: u16 = 1001;
const ADD_RULE: u16 = 1011;
const DELETE_RULE: u16 = 1012;
const LIST_RULES: u16 = 1013;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// What `struct audit_status` is to set.
const ENABLED: u32 = 1;
const PID: u32 = 4;
const BACKLOG_LIMIT: u32 = 0x10;
const BACKLOG_WAIT_TIME: u32 = 0x20;
const HEADER: usize = 16;
/// `AUDIT_MESSAGE_TEXT_MAX` and some: a record is no longer.
const MESSAGE: usize = 16 << 10;
const ANSWER: Duration = Duration::from_secs(2);
/// Records that may wait, in bytes.
const QUEUE: usize = 4 << 20;

/// A socket of the audit family.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sent: u32,
}

/// A record as the kernel tells it: its type, and `audit(SECONDS.MILLISECONDS:SERIAL): name=value …`.
#[derive(Debug)]
pub struct Record<'a> {
    pub kind: u16,
    pub text: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    pub is_enabled: bool,
    /// Until the next boot nothing of it can be changed.
    pub is_locked: bool,
    /// The audit daemon's pid.
    pub daemon: Option<u32>,
    /// What becomes of a record that cannot be kept.
    pub on_failure: OnFailure,
    backlog_limit: u32,
    backlog_wait: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// It is lost, in silence or not.
    GoesOn,
    /// The whole host stops.
    Panics,
}

/// What a rule reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The entry of this path, there or not; its folder must be.
    Entry,
    /// A folder that is there, with all beneath it.
    Folder,
}

/// A rule as the kernel takes it.
#[derive(Clone, PartialEq, Eq)]
pub struct Rule(Vec<u8>);

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.0.get(4 * (TEXTS + 1)..).unwrap_or_default()))
    }
}

impl Socket {
    /// Hears every record from now on. EPERM without CAP_AUDIT_READ; ECONNREFUSED outside the first pid namespace.
    pub fn listen() -> io::Result<Self> {
        Self::open(READ_LOG)
    }

    /// For requests. They are refused with EPERM without CAP_AUDIT_CONTROL, and outside the first namespaces of pids and users.
    pub fn control() -> io::Result<Self> {
        Self::open(0)
    }

    fn open(groups: u32) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkAudit)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        // Where it is refused the usual size stays.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &QUEUE);
        Ok(Self { fd, sent: 0 })
    }

    /// The next record; `None` when none waits. ENOBUFS: records were lost.
    pub fn receive<'a>(&self, buffer: &'a mut [u8; MESSAGE]) -> io::Result<Option<Record<'a>>> {
        loop {
            let (length, from) = match recvfrom::<NetlinkAddr>(self.fd.as_raw_fd(), &mut buffer[..]) {
                Ok(received) => received,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if from.is_none_or(|from| from.pid() != 0) {
                // Not the kernel's.
                continue;
            }
            let Some(kind) = message_kind(&buffer[..length]) else { continue };
            return Ok(Some(Record { kind, text: &buffer[HEADER..length] }));
        }
    }

    /// Room for [`Self::receive`].
    pub fn buffer() -> Box<[u8; MESSAGE]> {
        Box::new([0; MESSAGE])
    }

    pub fn status(&mut self) -> io::Result<Status> {
        let mut status = None;
        self.ask(GET, &[], |kind, body| {
            if kind == GET {
                status = parse_status(body);
            }
            status.is_some()
        })?;
        status.ok_or_else(|| io::Error::from_raw_os_error(libc::EBADMSG))
    }

    /// Makes this process the audit daemon, and turns auditing on. Nobody then waits for it: a record that finds no room is
    /// lost instead. EEXIST where there is a daemon.
    pub fn become_daemon(&mut self) -> io::Result<()> {
        let words = [ENABLED | PID | BACKLOG_LIMIT | BACKLOG_WAIT_TIME, 1, 0, std::process::id(), 0, 8192, 0, 0, 0, 0, 0];
        self.ask(SET, &bytes_of(&words), |_, _| false)
    }

    /// Gives up being the daemon. Auditing stays on for the one that comes.
    pub fn leave_to_another(&mut self, before: &Status) -> io::Result<()> {
        let mask = PID | BACKLOG_LIMIT | BACKLOG_WAIT_TIME;
        self.ask(SET, &bytes_of(&[mask, 0, 0, 0, 0, before.backlog_limit, 0, 0, 0, before.backlog_wait, 0]), |_, _| false)
    }

    /// Gives up being the daemon, and has everything as it was before.
    pub fn resign(&mut self, before: &Status) -> io::Result<()> {
        let mask = ENABLED | PID | BACKLOG_LIMIT | BACKLOG_WAIT_TIME;
        let words = [mask, before.is_enabled.into(), 0, 0, 0, before.backlog_limit, 0, 0, 0, before.backlog_wait, 0];
        self.ask(SET, &bytes_of(&words), |_, _| false)
    }

    /// EEXIST: there is such a rule.
    pub fn add(&mut self, rule: &Rule) -> io::Result<()> {
        self.ask(ADD_RULE, &rule.0, |_, _| false)
    }

    pub fn remove(&mut self, rule: &Rule) -> io::Result<()> {
        self.ask(DELETE_RULE, &rule.0, |_, _| false)
    }

    /// The rules with our key, whoever made them: those of a run that was killed too.
    pub fn rules(&mut self) -> io::Result<Vec<Rule>> {
        let mut rules = Vec::new();
        self.ask(LIST_RULES, &[], |kind, body| {
            if kind == LIST_RULES && Rule::has_key(body) {
                rules.push(Rule(body.to_vec()));
            }
            kind == DONE
        })?;
        Ok(rules)
    }

    /// Sends a request, waits until the kernel has taken it, and gives what else it answers to `take` until that says that it
    /// has all. Where `take` wants nothing the taking is the end.
    fn ask(&mut self, kind: u16, body: &[u8], mut take: impl FnMut(u16, &[u8]) -> bool) -> io::Result<()> {
        self.sent += 1;
        const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
        let length = u32::try_from(HEADER + body.len()).map_err(|_| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
        message.extend(self.sent.to_ne_bytes());
        message.extend(0u32.to_ne_bytes());
        message.extend(body);
        sendto(self.fd.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let is_answered_apart = matches!(kind, GET | LIST_RULES);
        let (mut taken, mut complete) = (false, !is_answered_apart);
        let deadline = Instant::now() + ANSWER;
        let mut buffer = Self::buffer();
        while !(taken && complete) {
            let Some(answer) = self.receive(&mut buffer)? else {
                self.wait(deadline)?;
                continue;
            };
            match answer.kind {
                ERROR => {
                    let code = answer.text.first_chunk().copied().map_or(libc::EBADMSG, |code| -i32::from_ne_bytes(code));
                    if code != 0 {
                        return Err(io::Error::from_raw_os_error(code));
                    }
                    taken = true;
                }
                other => complete |= take(other, answer.text),
            }
        }
        Ok(())
    }

    fn wait(&self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `struct nlmsghdr`. The length in it does not count itself in some records of the kernel, so the datagram's counts.
fn message_kind(message: &[u8]) -> Option<u16> {
    message.get(4..6).filter(|_| message.len() >= HEADER).and_then(|kind| Some(u16::from_ne_bytes(kind.try_into().ok()?)))
}

fn bytes_of(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn word(bytes: &[u8], place: usize) -> Option<u32> {
    bytes.get(4 * place..4 * place + 4).and_then(|word| Some(u32::from_ne_bytes(word.try_into().ok()?)))
}

/// `struct audit_status`.
fn parse_status(body: &[u8]) -> Option<Status> {
    let enabled = word(body, 1)?;
    let daemon = word(body, 3)?;
    Some(Status {
        is_enabled: enabled != 0,
        is_locked: enabled == 2,
        daemon: (daemon != 0).then_some(daemon),
        on_failure: if word(body, 2)? == 2 { OnFailure::Panics } else { OnFailure::GoesOn },
        backlog_limit: word(body, 5)?,
        backlog_wait: word(body, 9)?,
    })
}

/// `struct audit_rule_data`: flags, action, count, 64 words of system calls, 64 fields, 64 values, 64 operators, the length of
/// the texts, the texts.
const FIELD: usize = 3 + 64;
const VALUE: usize = FIELD + 64;
const OPERATOR: usize = VALUE + 64;
const TEXTS: usize = OPERATOR + 64;
const WATCH: u32 = 105;
const PERMISSIONS: u32 = 106;
const FOLDER: u32 = 107;
const FILTER_KEY: u32 = 210;

impl Rule {
    /// Every system call that writes to the path or changes its attributes, once it is done.
    pub fn changes_to(path: &Path, reach: Reach) -> Self {
        const EXIT: u32 = 4;
        const ALWAYS: u32 = 2;
        const EQUAL: u32 = 0x4000_0000;
        const WRITE_OR_ATTRIBUTES: u32 = 2 | 8;
        let (path, key) = (path.as_os_str().as_bytes(), KEY.as_bytes());
        let (path_bytes, key_bytes) = (path.len() as u32, key.len() as u32);
        let what = if reach == Reach::Folder { FOLDER } else { WATCH };
        let fields = [(what, path_bytes), (PERMISSIONS, WRITE_OR_ATTRIBUTES), (FILTER_KEY, key_bytes)];
        let mut words = vec![0; TEXTS + 1];
        (words[0], words[1], words[2]) = (EXIT, ALWAYS, fields.len() as u32);
        // The kernel keeps the last word for classes of system calls.
        words[3..FIELD - 1].fill(u32::MAX);
        for (place, (field, value)) in fields.into_iter().enumerate() {
            (words[FIELD + place], words[VALUE + place], words[OPERATOR + place]) = (field, value, EQUAL);
        }
        words[TEXTS] = path_bytes + key_bytes;
        let mut bytes = bytes_of(&words);
        bytes.extend(path);
        bytes.extend(key);
        Self(bytes)
    }

    #[cfg(test)]
    pub fn names(&self, path: &Path) -> bool {
        self.0.windows(path.as_os_str().len()).any(|part| part == path.as_os_str().as_bytes())
    }

    /// The texts lie one after the other in the order of their fields.
    fn has_key(rule: &[u8]) -> bool {
        /// Fields whose value is the length of a text: besides these five of SELinux's labels, and the executable.
        const TEXTUAL: [u32; 14] = [WATCH, FOLDER, FILTER_KEY, 13, 14, 15, 16, 17, 19, 20, 21, 22, 23, 112];
        let read = || {
            let (count, mut at) = (word(rule, 2)?.min(64) as usize, 4 * (TEXTS + 1));
            for place in 0..count {
                let (field, length) = (word(rule, FIELD + place)?, word(rule, VALUE + place)? as usize);
                if !TEXTUAL.contains(&field) {
                    continue;
                }
                let text = rule.get(at..at.checked_add(length)?)?;
                if field == FILTER_KEY {
                    return Some(text == KEY.as_bytes());
                }
                at += length;
            }
            None
        };
        read().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rule_is_known_by_its_key_alone() {
        let rule = Rule::changes_to(Path::new("/etc/ssh"), Reach::Folder);
        assert!(Rule::has_key(&rule.0));
        assert_eq!(rule.0.len(), 4 * (TEXTS + 1) + "/etc/ssh".len() + KEY.len());
        let mut other = rule.0.clone();
        let last = other.len() - 1;
        other[last] = b'x';
        assert!(!Rule::has_key(&other));
        assert!(!Rule::has_key(&rule.0[..rule.0.len() - 1]));
    }

    proptest! {
        #[test]
        fn what_the_kernel_says_never_breaks_a_parser(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
            let _ = (Rule::has_key(&bytes), parse_status(&bytes), message_kind(&bytes));
        }
    }
}
