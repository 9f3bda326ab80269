//! The process connector: the kernel's own messages of processes that start, run another program, change their user or
//! end. See linux/cn_proc.h.
//!
//! [`parse`] is a pure function over bytes and never panics. Processes are told, not threads: what a thread does is left out
//! here, except that a program which any thread starts replaces its process's. Only the kernel is listened to. Works in the
//! first namespaces of pids and of the network alone.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, NetlinkAddr, SockaddrLike, bind, recvfrom, send, setsockopt, sockopt};

/// Holds some 8,000 messages; the kernel counts a good kilobyte of its memory for each.
const ROOM: usize = 8 << 20;
/// The longest datagram that is looked at; the kernel's are 76 bytes.
const DATAGRAM: usize = 512;
/// Messages of the kernel's subsystem for processes.
const GROUP: u32 = libc::CN_IDX_PROC;
const LISTEN: u32 = 1;
const IGNORE: u32 = 2;

const FORK: u32 = 0x1;
const EXEC: u32 = 0x2;
const UID: u32 = 0x4;
const EXIT: u32 = 0x8000_0000;

/// What a message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Fork {
        parent: u32,
    },
    Exec,
    Users {
        uid: u32,
        euid: u32,
    },
    /// The process's first thread has ended. Others of its threads may go on.
    Exit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    pub pid: u32,
    /// Nanoseconds of the monotonic clock, which stands still while the host sleeps.
    pub monotonic: u64,
    pub told: Told,
}

/// What one reading brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    Message(Message),
    /// Of a thread, of another kind, or from somebody else than the kernel.
    Nothing,
    /// The kernel had no more room, and messages since the last reading are lost.
    Overflow,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    #[error("the process connector tells of the host's processes only in the first pid namespace, and this is another")]
    Namespace,
    #[error("the process connector cannot be used: {doing}: {source}")]
    Refused { doing: &'static str, source: io::Error },
    #[error("the process connector can leave out what is not asked for only since Linux 6.6")]
    Unfiltered,
    #[error("the process connector does not answer: the kernel lacks it, or this is not the first user namespace")]
    Silent,
}

/// Open and listening.
#[derive(Debug)]
pub struct Connector {
    socket: OwnedFd,
    /// Messages that came while the kernel's assent was waited for.
    early: std::collections::VecDeque<Received>,
}

impl Connector {
    /// On return every process that starts leads to a message. Needs CAP_NET_ADMIN.
    pub fn open() -> Result<Self, ConnectorError> {
        Self::open_for(FORK | EXEC | UID | EXIT)
    }

    /// Of nothing but changes of users. Needs Linux 6.6: an older kernel would tell of everything all the same.
    pub fn open_for_users() -> Result<Self, ConnectorError> {
        if leaves_out_what_is_not_asked_for() { Self::open_for(UID) } else { Err(ConnectorError::Unfiltered) }
    }

    fn open_for(kinds: u32) -> Result<Self, ConnectorError> {
        let refused = |doing| move |source: nix::errno::Errno| ConnectorError::Refused { doing, source: source.into() };
        if !is_first_pid_namespace() {
            return Err(ConnectorError::Namespace);
        }
        let flags = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: the call takes three integers and touches no memory of ours.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, flags, libc::NETLINK_CONNECTOR) };
        if fd < 0 {
            return Err(ConnectorError::Refused { doing: "opening its socket", source: io::Error::last_os_error() });
        }
        // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        // Not permitted, the default stays, and an overflow is told as ever.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &ROOM);
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP)).map_err(refused("joining its group"))?;
        let mut connector = Self { socket, early: std::collections::VecDeque::new() };
        connector.order(&[LISTEN]).map_err(refused("asking for its messages"))?;
        connector.await_assent()?;
        // Linux 6.6 and newer leaves out what is not asked for; older ones do not know the longer order, and take no notice.
        connector.order(&[LISTEN, kinds]).map_err(refused("asking for its messages"))?;
        Ok(connector)
    }

    fn order(&self, words: &[u32]) -> nix::Result<()> {
        send(self.socket.as_raw_fd(), &order(words), MsgFlags::empty()).map(drop)
    }

    /// The kernel answers within the call that asks; a moment is given all the same.
    fn await_assent(&mut self) -> Result<(), ConnectorError> {
        use nix::poll::{PollFd, PollFlags, poll};
        const PATIENCE_MS: u8 = 200;
        const MESSAGES: usize = 10_000;
        for _ in 0..MESSAGES {
            match self.datagram(parse_assent) {
                Ok(Some(Ok(()))) => return Ok(()),
                Ok(Some(Err(code))) => {
                    let source = io::Error::from_raw_os_error(code);
                    return Err(ConnectorError::Refused { doing: "asking for its messages", source });
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut waiting = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
                    if poll(&mut waiting, PATIENCE_MS).is_ok_and(|ready| ready == 0) {
                        return Err(ConnectorError::Silent);
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.early.push_back(Received::Overflow),
                Err(source) => return Err(ConnectorError::Refused { doing: "waiting for its answer", source }),
            }
        }
        Err(ConnectorError::Silent)
    }

    /// The next message; `None` when there is none waiting.
    pub fn receive(&mut self) -> io::Result<Option<Received>> {
        if let Some(early) = self.early.pop_front() {
            return Ok(Some(early));
        }
        loop {
            match self.datagram(parse) {
                Ok(message) => return Ok(Some(message.map_or(Received::Nothing, Received::Message))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(Some(Received::Overflow)),
                Err(error) => return Err(error),
            }
        }
    }

    fn datagram<T>(&self, parse: impl FnOnce(&[u8]) -> Option<T>) -> io::Result<Option<T>> {
        let mut buffer = [0; DATAGRAM];
        let (length, sender) = recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut buffer)?;
        let is_kernel = sender.is_some_and(|sender| sender.family() == Some(nix::sys::socket::AddressFamily::Netlink) && sender.pid() == 0);
        Ok(buffer.get(..length).filter(|_| is_kernel).and_then(parse))
    }
}

impl AsFd for Connector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        // Before Linux 6.6 the kernel goes on telling until it is asked to stop, though nobody listens.
        let _ = self.order(&[IGNORE]);
    }
}

fn leaves_out_what_is_not_asked_for() -> bool {
    let Ok(system) = nix::sys::utsname::uname() else { return false };
    let release = system.release().to_string_lossy();
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else { return false };
    (major, minor) >= (6, 6)
}

/// The inode of the first pid namespace is the same on every kernel (`PROC_PID_INIT_INO`).
pub fn is_first_pid_namespace() -> bool {
    use std::os::unix::fs::MetadataExt;
    const FIRST: u64 = 0xEFFF_FFFC;
    std::fs::metadata("/proc/self/ns/pid").is_ok_and(|namespace| namespace.ino() == FIRST)
}

/// `struct nlmsghdr`.
const NETLINK_HEADER: usize = 16;
/// `struct cn_msg`.
const CONNECTOR_HEADER: usize = 20;
/// Of `struct proc_event`: before what is particular to each kind.
const EVENT_HEADER: usize = 16;

fn order(words: &[u32]) -> Vec<u8> {
    let length = NETLINK_HEADER + CONNECTOR_HEADER + words.len() * 4;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or(0).to_ne_bytes());
    bytes.extend((libc::NLMSG_DONE as u16).to_ne_bytes());
    // Flags, sequence number and sender of the netlink header.
    bytes.extend([0; 10]);
    bytes.extend(libc::CN_IDX_PROC.to_ne_bytes());
    bytes.extend(libc::CN_VAL_PROC.to_ne_bytes());
    // Sequence number and acknowledgement of the connector's header.
    bytes.extend([0; 8]);
    bytes.extend(u16::try_from(words.len() * 4).unwrap_or(0).to_ne_bytes());
    bytes.extend([0; 2]);
    words.iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
    bytes
}

/// The event in a datagram, if it is one of processes.
fn event(datagram: &[u8]) -> Option<&[u8]> {
    let length = word(datagram, 0)? as usize;
    let message = datagram.get(NETLINK_HEADER..length)?;
    if (word(message, 0)?, word(message, 4)?) != (libc::CN_IDX_PROC, libc::CN_VAL_PROC) {
        return None;
    }
    let length = usize::from(u16::from_ne_bytes(take(message, 16)?));
    message.get(CONNECTOR_HEADER..)?.get(..length)
}

/// The message in a datagram of the kernel's; `None` for what is not of a process, or damaged.
pub fn parse(datagram: &[u8]) -> Option<Message> {
    let event = event(datagram)?;
    let kind = word(event, 0)?;
    let monotonic = u64::from_ne_bytes(take(event, 8)?);
    let body = event.get(EVENT_HEADER..)?;
    let (pid, told) = match kind {
        FORK => (leader(body, 8)?, Told::Fork { parent: pid(body, 4)? }),
        // After an exec whichever thread began it is the process's first.
        EXEC => (pid(body, 4)?, Told::Exec),
        UID => (leader(body, 0)?, Told::Users { uid: word(body, 8)?, euid: word(body, 12)? }),
        EXIT => (leader(body, 0)?, Told::Exit),
        _ => return None,
    };
    Some(Message { pid, monotonic, told })
}

/// The kernel's answer to an order: assent, or an error's number.
fn parse_assent(datagram: &[u8]) -> Option<Result<(), i32>> {
    const ASSENT: u32 = 0;
    let event = event(datagram)?;
    (word(event, 0)? == ASSENT).then_some(())?;
    let error = word(event, EVENT_HEADER)?.cast_signed();
    Some(if error == 0 { Ok(()) } else { Err(error.saturating_abs()) })
}

/// A thread's number and its process's lie side by side; equal for the process's first thread.
fn leader(body: &[u8], at: usize) -> Option<u32> {
    let (thread, process) = (pid(body, at)?, pid(body, at + 4)?);
    (thread == process).then_some(process)
}

fn pid(body: &[u8], at: usize) -> Option<u32> {
    word(body, at).filter(|pid| *pid != 0 && i32::try_from(*pid).is_ok())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    take(bytes, at).map(u32::from_ne_bytes)
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn datagram(kind: u32, words: &[u32]) -> Vec<u8> {
        let mut event = kind.to_ne_bytes().to_vec();
        event.extend(3u32.to_ne_bytes());
        event.extend(77u64.to_ne_bytes());
        words.iter().for_each(|word| event.extend(word.to_ne_bytes()));
        event.resize(40, 0);
        let words: Vec<u32> = event.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect();
        order(&words)
    }

    #[test]
    fn each_kind_is_told_and_what_threads_do_is_left_out() {
        let told = |kind, words: &[u32]| parse(&datagram(kind, words)).map(|message| (message.pid, message.told));
        assert_eq!(told(FORK, &[11, 10, 20, 20]), Some((20, Told::Fork { parent: 10 })));
        assert_eq!(told(FORK, &[11, 10, 21, 20]), None, "a thread");
        assert_eq!(told(EXEC, &[20, 20]), Some((20, Told::Exec)));
        assert_eq!(told(UID, &[20, 20, 1000, 0]), Some((20, Told::Users { uid: 1000, euid: 0 })));
        assert_eq!(told(EXIT, &[20, 20, 0, 17]), Some((20, Told::Exit)));
        assert_eq!(told(EXIT, &[21, 20, 0, 17]), None, "a thread");
        assert_eq!(told(0x200, &[20, 20]), None, "another name");
        assert_eq!(told(EXEC, &[0, 0]), None, "of another namespace");
        assert_eq!(parse(&datagram(EXEC, &[20, 20])).unwrap().monotonic, 77);
        assert_eq!(parse_assent(&datagram(0, &[0])), Some(Ok(())));
        assert_eq!(parse_assent(&datagram(0, &[1])), Some(Err(1)));
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_parser(
            bytes in proptest::collection::vec(any::<u8>(), 0..128),
            at in 0_usize..76,
            byte in any::<u8>(),
            cut in 0_usize..80,
        ) {
            let _ = (parse(&bytes), parse_assent(&bytes));
            let mut damaged = datagram(FORK, &[1, 2, 3, 3]);
            damaged[at] = byte;
            damaged.truncate(cut);
            let _ = (parse(&damaged), parse_assent(&damaged));
        }
    }

    #[test]
    fn of_users_alone_nothing_else_is_told() {
        let test = "of_users_alone_nothing_else_is_told";
        let mut connector = match Connector::open_for_users() {
            Ok(connector) => connector,
            Err(error) => return crate::collect::skipped(test, &error.to_string()),
        };
        let run = |program: &str, arguments: &[&str]| {
            let mut child = std::process::Command::new(program).args(arguments).spawn().unwrap();
            child.wait().unwrap();
            child.id()
        };
        run("/bin/true", &[]);
        // Run by another user, it becomes that one first.
        let other = {
            use std::os::unix::process::CommandExt;
            let mut child = std::process::Command::new("/bin/true").uid(54_321).spawn().unwrap();
            child.wait().unwrap();
            child.id()
        };
        let mut told = Vec::new();
        crate::testing::until("the change of user", || {
            while let Some(received) = connector.receive().unwrap() {
                if let Received::Message(message) = received {
                    assert!(matches!(message.told, Told::Users { .. }), "{message:?}");
                    told.push((message.pid, message.told));
                }
            }
            told.contains(&(other, Told::Users { uid: 54_321, euid: 54_321 }))
        });
    }

    #[test]
    fn a_child_is_told_from_its_start_to_its_end() {
        let mut connector = match Connector::open() {
            Ok(connector) => connector,
            Err(error) => return crate::collect::skipped("a_child_is_told_from_its_start_to_its_end", &error.to_string()),
        };
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        child.wait().unwrap();
        let mut seen = Vec::new();
        crate::testing::until("the child's end", || {
            while let Some(received) = connector.receive().unwrap() {
                match received {
                    Received::Message(message) if message.pid == child.id() => seen.push(message.told),
                    Received::Overflow => panic!("a new socket's queue is not full"),
                    _ => {}
                }
            }
            seen.contains(&Told::Exit)
        });
        assert_eq!(seen, [Told::Fork { parent: std::process::id() }, Told::Exec, Told::Exit]);
    }
}
