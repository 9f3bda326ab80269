//! The kernel's packet filter over netlink: what is told when its rules change, and whole readings of them. See linux/netfilter/
//! nfnetlink.h and nf_tables.h.
//!
//! Invariant: it is always the filter of the calling thread's network namespace. To ask a kernel that could load nf_tables loads it: who must not cause that looks first.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{SockProtocol, setsockopt, sockopt};
use trueline_drift::netlink::{messages, number, text};

use super::netlink::{DUMP, Netlink, open, receive};

/// `NFNL_SUBSYS_NFTABLES`, where a message's type has it.
const NF_TABLES: u16 = 10 << 8;
/// `NFNLGRP_NFTABLES`, as bind(2) has it.
const CHANGES: u32 = 1 << 6;
const NEW_GENERATION: u16 = NF_TABLES | 15;
/// `struct nfgenmsg`, before the attributes.
const FAMILY_HEADER: usize = 4;
const PROCESS: u16 = 2;
const PROCESS_NAME: u16 = 3;
/// What may wait, in bytes: every rule of a commit is told as well.
const QUEUE: usize = 1 << 20;
/// Datagrams that one call takes at most.
const DATAGRAMS: usize = 1024;

const GET_GENERATION: u8 = 16;
const GENERATION: u16 = 1;

/// A transaction that has taken effect: what `nft -f` does, or one command of iptables-nft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The number of the ruleset that it made.
    pub generation: u32,
    /// The thread that made it, in the first pid namespace.
    pub pid: u32,
    /// Its name of at most 15 bytes, which it chose itself.
    pub name: Vec<u8>,
}

/// What one call brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    pub commits: Vec<Commit>,
    /// The kernel had no more room: there were others.
    pub is_incomplete: bool,
}

/// Hears every commit from now on.
#[derive(Debug)]
pub struct FirewallNews {
    socket: OwnedFd,
}

impl FirewallNews {
    /// Room for [`Self::read`]. Each commit comes in a datagram of its own of some 40 bytes; of longer ones the rest is of no interest.
    pub const BUFFER: usize = 4096;

    /// EPERM without CAP_NET_ADMIN; EPROTONOSUPPORT where the kernel has no netfilter.
    pub fn open() -> io::Result<Self> {
        let socket = open(SockProtocol::NetlinkNetFilter, CHANGES)?;
        // Not permitted, the default stays, and what is lost is told as ever.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &QUEUE);
        Ok(Self { socket })
    }

    /// All that waits, without waiting for more.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<News> {
        let mut news = News::default();
        for _ in 0..DATAGRAMS {
            match receive(&self.socket, buffer) {
                Ok(Some(datagram)) => news.commits.extend(parse_commits(datagram)),
                Ok(None) => break,
                Err(Errno::ENOBUFS) => news.is_incomplete = true,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(news)
    }
}

impl AsFd for FirewallNews {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Asks for what the filter is told to do.
#[derive(Debug)]
pub struct Netfilter(Netlink);

impl Netfilter {
    /// Answers of at most so many bytes in all. EPROTONOSUPPORT where the kernel has no netfilter.
    pub fn open(room: usize) -> io::Result<Self> {
        Ok(Self(Netlink::open(SockProtocol::NetlinkNetFilter, room)?))
    }

    /// The number of the ruleset: another after each commit. EPERM without CAP_NET_ADMIN; EINVAL without nf_tables.
    pub fn generation(&mut self) -> io::Result<u32> {
        let mut generation = None;
        self.ask(GET_GENERATION, 0, 0, &[], |_, _, attributes| generation = number(attributes, GENERATION))?;
        generation.and_then(|number| u32::try_from(number).ok()).ok_or_else(|| Errno::EBADMSG.into())
    }

    /// Everything that a question of this kind is answered with: what a message brings, its family, its attributes.
    /// [`io::ErrorKind::Interrupted`]: a change came into the middle of it, and it must be asked again.
    pub fn dump(&mut self, asks: u8, family: u8, attributes: &[u8], take: impl FnMut(u8, u8, &[u8])) -> io::Result<()> {
        self.ask(asks, DUMP, family, attributes, take)
    }

    fn ask(&mut self, asks: u8, flags: u16, family: u8, attributes: &[u8], mut take: impl FnMut(u8, u8, &[u8])) -> io::Result<()> {
        let body = [&[family, 0, 0, 0], attributes].concat();
        self.0.ask(NF_TABLES | u16::from(asks), flags, &body, |kind, body| {
            if kind & 0xff00 == NF_TABLES
                && let Some((header, attributes)) = body.split_at_checked(FAMILY_HEADER)
            {
                take(kind as u8, header[0], attributes);
            }
        })
    }
}

/// The commits that a datagram tells of. One of a kernel before 4.17 does not say by whom, and comes with pid 0.
pub fn parse_commits(datagram: &[u8]) -> impl Iterator<Item = Commit> {
    messages(datagram).filter(|message| message.kind == NEW_GENERATION).filter_map(|message| {
        let attributes = message.body.get(FAMILY_HEADER..)?;
        let pid = number(attributes, PROCESS).and_then(|pid| u32::try_from(pid).ok()).filter(|pid| i32::try_from(*pid).is_ok());
        let name = text(attributes, PROCESS_NAME).unwrap_or_default();
        let generation = u32::try_from(number(attributes, GENERATION)?).ok()?;
        Some(Commit { generation, pid: pid.unwrap_or(0), name: name[..name.len().min(15)].to_vec() })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Linux 6.18 sent it: length, type, flags, sequence, port; family, version, generation; generation, pid, name.
    const COMMIT: &[u8] =
        b"\x2c\0\0\0\x0f\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\x02\x08\0\x01\0\0\0\0\x02\x08\0\x02\0\0\0\x04\xd2\x08\0\x03\0nft\0";

    #[test]
    fn a_commit_says_who_made_it() {
        let told: Vec<_> = parse_commits(COMMIT).collect();
        assert_eq!(told, [Commit { generation: 2, pid: 1234, name: b"nft".to_vec() }]);
        let rule_and_commit = [b"\x14\0\0\0\x06\x0a\0\0\0\0\0\0\0\0\0\0\x02\0\0\0", COMMIT].concat();
        assert_eq!(parse_commits(&rule_and_commit).collect::<Vec<_>>(), told);
        let anonymous = b"\x1c\0\0\0\x0f\x0a\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x08\0\x01\0\0\0\0\x07";
        assert_eq!(parse_commits(anonymous).collect::<Vec<_>>(), [Commit { generation: 7, pid: 0, name: vec![] }]);
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_parser(
            bytes in proptest::collection::vec(any::<u8>(), 0..128),
            at in 0_usize..44,
            byte: u8,
            cut in 0_usize..46,
        ) {
            let mut damaged = COMMIT.to_vec();
            damaged[at] = byte;
            damaged.truncate(cut);
            for datagram in [bytes, damaged] {
                prop_assert!(parse_commits(&datagram).all(|commit| commit.name.len() <= 15));
            }
        }
    }

    #[test]
    fn what_nft_commits_is_told_with_its_pid() {
        let test = "what_nft_commits_is_told_with_its_pid";
        let told = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
            let news = FirewallNews::open().map_err(|error| format!("no netlink: {error}"))?;
            let mut child =
                std::process::Command::new("nft").args(["add", "table", "ip", "told"]).spawn().map_err(|_| "there is no nft")?;
            let pid = child.id();
            if !child.wait().is_ok_and(|status| status.success()) {
                return Err("the kernel takes no tables".to_owned());
            }
            Ok((pid, news.read(&mut [0; FirewallNews::BUFFER]).map_err(|error| error.to_string())?))
        });
        match told.join().expect("the thread does not panic") {
            Ok((pid, news)) => {
                // In another pid namespace the kernel's number is not ours.
                let commit = news.commits.first().expect("a commit was made");
                assert_eq!((news.commits.len(), commit.name.as_slice(), news.is_incomplete), (1, &b"nft"[..], false));
                assert!(commit.pid == pid || !crate::kernel::connector::is_first_pid_namespace());
            }
            Err(reason) => crate::collect::skipped(test, &reason),
        }
    }
}
