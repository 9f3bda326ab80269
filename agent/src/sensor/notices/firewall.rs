//! The kernel's messages of new versions of its packet filter (nf_tables), each with the process that made it. See
//! linux/netfilter/nf_tables.h, NFT_MSG_NEWGEN.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket, sockopt};

use crate::sensor::Generation;

/// `NFNLGRP_NFTABLES`, as a bit of bind(2)'s.
const GROUP: u32 = 1 << (7 - 1);
/// Each rule that comes or goes is told too, and only then the version that they make.
const ROOM: usize = 8 << 20;
/// The kernel fills messages up to a page or two.
const MESSAGE: usize = 64 << 10;
/// Of `NFNL_SUBSYS_NFTABLES`.
const NEW_GENERATION: u16 = 10 << 8 | 15;
const GENERATION: u16 = 1;
const PROCESS: u16 = 2;
const NAME: u16 = 3;
const HEADER: usize = 16;
/// Of nfnetlink, after the header.
const FAMILY: usize = 4;

#[derive(Debug)]
pub(super) struct FirewallNews {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// A new version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit {
    pub generation: Generation,
    /// The thread that made it, in the numbers of the host's first pid namespace.
    pub thread: u32,
    /// The thread's.
    pub name: Vec<u8>,
}

/// What one reading brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    Commits(Vec<Commit>),
    /// Messages were lost.
    Overflow,
    None,
}

impl FirewallNews {
    /// EPERM without CAP_NET_ADMIN, EPROTONOSUPPORT where the kernel lacks netfilter.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        // Not permitted, the default stays, and an overflow is told as ever.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &ROOM);
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
        Ok(Self { socket, buffer: vec![0; MESSAGE] })
    }

    pub fn read(&mut self) -> io::Result<News> {
        match recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut self.buffer) {
            // Others than the kernel may send to whoever listens.
            Ok((_, Some(from))) if from.pid() != 0 => Ok(News::Commits(Vec::new())),
            Ok((length, _)) if length >= MESSAGE => Ok(News::Overflow),
            Ok((length, _)) => Ok(News::Commits(commits(&self.buffer[..length]))),
            Err(Errno::EINTR) => Ok(News::Commits(Vec::new())),
            Err(Errno::EAGAIN) => Ok(News::None),
            Err(Errno::ENOBUFS) => Ok(News::Overflow),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for FirewallNews {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The versions that a datagram tells of.
fn commits(datagram: &[u8]) -> Vec<Commit> {
    let mut commits = Vec::new();
    let mut rest = datagram;
    while let Some(length) = number::<4>(rest, 0).map(|bytes| u32::from_ne_bytes(bytes) as usize) {
        let Some(message) = rest.get(..length).filter(|_| length >= HEADER) else { break };
        if number::<2>(message, 4).map(u16::from_ne_bytes) == Some(NEW_GENERATION) {
            commits.extend(message.get(HEADER + FAMILY..).and_then(commit));
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    commits
}

fn commit(attributes: &[u8]) -> Option<Commit> {
    let (mut generation, mut thread, mut name) = (None, 0, Vec::new());
    let mut rest = attributes;
    while let (Some(length), Some(kind)) = (number::<2>(rest, 0).map(u16::from_ne_bytes), number::<2>(rest, 2).map(u16::from_ne_bytes)) {
        let length = usize::from(length);
        let Some(body) = rest.get(4..length) else { break };
        match kind {
            GENERATION => generation = number(body, 0).map(u32::from_be_bytes),
            PROCESS => thread = number(body, 0).map_or(0, u32::from_be_bytes),
            NAME => name = body.split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
            _ => {}
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    Some(Commit { generation: Generation(generation?), thread, name })
}

const fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk::<N>().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = [(4 + body.len() as u16).to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(body);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn message(kind: u16, attributes: &[u8]) -> Vec<u8> {
        let length = (HEADER + FAMILY + attributes.len()) as u32;
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10 + FAMILY]);
        bytes.extend(attributes);
        bytes
    }

    #[test]
    fn a_version_is_told_with_its_author_among_other_messages() {
        let told = [attribute(1, &7_u32.to_be_bytes()), attribute(2, &812_u32.to_be_bytes()), attribute(3, b"nft\0")].concat();
        let datagram = [message(10 << 8 | 6, &attribute(1, b"filter\0")), message(NEW_GENERATION, &told)].concat();
        assert_eq!(commits(&datagram), [Commit { generation: Generation(7), thread: 812, name: b"nft".to_vec() }]);
        assert!(commits(&datagram[..datagram.len() - 1]).is_empty(), "a message that is cut off is none");
    }

    proptest! {
        #[test]
        fn noise_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), attributes in proptest::collection::vec(any::<u8>(), 0..60)) {
            commits(&bytes);
            commits(&message(NEW_GENERATION, &attributes));
        }
    }
}
