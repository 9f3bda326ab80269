//! Sockets of netlink(7): questions with all of their answers, and what the kernel tells unasked.
//!
//! Invariants: only what the kernel itself sent is taken; every question has an end, in time and in bytes. Answers are of the calling
//! thread's network namespace.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, sendto, socket};
use trueline_drift::netlink::messages;

/// `struct nlmsghdr`.
const HEADER: usize = 16;
const REQUEST: u16 = 1;
pub const DUMP: u16 = 0x300;
/// A dump that a change came into the middle of.
const INTERRUPTED: u16 = 0x10;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The kernel fills at most half of it, and has no longer message.
const ANSWER_ROOM: usize = 64 << 10;
const ANSWER: Duration = Duration::from_secs(5);

/// A socket of a protocol that is told what these groups are, as bind(2) has them.
pub fn open(protocol: SockProtocol, groups: u32) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(fd)
}

/// The kernel's next datagram; `None` when none waits.
pub fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> nix::Result<Option<&'a [u8]>> {
    loop {
        match recvfrom::<NetlinkAddr>(socket.as_raw_fd(), buffer) {
            Ok((length, Some(from))) if from.pid() == 0 => return Ok(buffer.get(..length)),
            // Not the kernel's.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// Asks the kernel.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sent: u32,
    buffer: Vec<u8>,
    /// Bytes that all answers together may still have.
    room: usize,
}

impl Netlink {
    /// Answers of at most so many bytes in all. EPROTONOSUPPORT where the kernel has no such protocol.
    pub fn open(protocol: SockProtocol, room: usize) -> io::Result<Self> {
        Ok(Self { socket: open(protocol, 0)?, sent: 0, buffer: vec![0; ANSWER_ROOM], room })
    }

    /// Each message of the answer by its number, without its header; with [`DUMP`] there are several.
    /// [`io::ErrorKind::Interrupted`]: a change came into the middle of them, and it must be asked again.
    pub fn ask(&mut self, kind: u16, flags: u16, body: &[u8], mut take: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.sent += 1;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(u32::try_from(HEADER + body.len()).map_err(|_| Errno::EMSGSIZE)?.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST | flags).to_ne_bytes());
        message.extend(self.sent.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        sendto(self.socket.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let deadline = Instant::now() + ANSWER;
        let mut is_interrupted = false;
        loop {
            let length = match receive(&self.socket, &mut self.buffer)? {
                Some(datagram) => datagram.len(),
                None => {
                    wait(&self.socket, deadline)?;
                    continue;
                }
            };
            self.room = self.room.checked_sub(length).ok_or_else(|| io::Error::other("there is more of it than the agent reads"))?;
            if length == self.buffer.len() {
                // The rest of it is lost.
                return Err(Errno::EMSGSIZE.into());
            }
            for message in messages(&self.buffer[..length]).filter(|message| message.sequence == self.sent) {
                is_interrupted |= message.flags & INTERRUPTED != 0;
                match message.kind {
                    DONE if is_interrupted => return Err(io::ErrorKind::Interrupted.into()),
                    ERROR | DONE => {
                        let code = message.body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.saturating_abs())) };
                    }
                    kind => {
                        take(kind, message.body);
                        if flags & DUMP == 0 {
                            return Ok(());
                        }
                    }
                }
            }
        }
    }
}

fn wait(socket: &OwnedFd, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
