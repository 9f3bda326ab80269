//! The host's interfaces, addresses, routes and rules over rtnetlink(7): what is told when they change, and whole readings of them.
//!
//! Who changed them is not told: a message names the socket that asked, and that number is its process's only by custom.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use trueline_drift::netlink::messages;

use super::netlink::{DUMP, Netlink, open, receive};

/// `RTNLGRP_LINK`, `RTNLGRP_IPV4_IFADDR`, `RTNLGRP_IPV6_IFADDR`.
const INTERFACES: u32 = 1 | 1 << 4 | 1 << 8;
/// `RTNLGRP_IPV4_ROUTE`, `RTNLGRP_IPV4_RULE`, `RTNLGRP_IPV6_ROUTE`, `RTNLGRP_IPV6_RULE`.
const ROUTES: u32 = 1 << 6 | 1 << 7 | 1 << 10 | 1 << 18;
/// The first numbers of what tells of routes; and of rules, after which other things come.
const ROUTE: std::ops::Range<u16> = 24..28;
const RULE: std::ops::Range<u16> = 32..36;
const DATAGRAMS: usize = 1024;

/// What can be asked for, by the number of the question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    Links = 18,
    Addresses = 22,
    Routes = 26,
    Rules = 34,
}

/// What has changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    pub interfaces: bool,
    pub routes: bool,
    /// The kernel had no more room: there was other news.
    pub is_incomplete: bool,
}

/// Hears every change from now on.
#[derive(Debug)]
pub struct NetworkNews {
    socket: OwnedFd,
}

impl NetworkNews {
    /// Room for [`Self::read`]: the beginning of each datagram says enough.
    pub const BUFFER: usize = 4096;

    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: open(SockProtocol::NetlinkRoute, INTERFACES | ROUTES)? })
    }

    /// All that waits, without waiting for more.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<News> {
        let mut news = News::default();
        for _ in 0..DATAGRAMS {
            match receive(&self.socket, buffer) {
                Ok(Some(datagram)) => {
                    // One that did not fit is cut short, but for its header.
                    let kind = messages(datagram).next().map(|message| message.kind).or_else(|| number(datagram));
                    let is_route = kind.is_some_and(|kind| ROUTE.contains(&kind) || RULE.contains(&kind));
                    news.routes |= is_route;
                    news.interfaces |= !is_route;
                }
                Ok(None) => break,
                Err(Errno::ENOBUFS) => news.is_incomplete = true,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(news)
    }
}

impl AsFd for NetworkNews {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn number(datagram: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(*datagram.get(4..)?.first_chunk()?))
}

/// Each message of a whole reading. [`io::ErrorKind::Interrupted`]: a change came into the middle of it.
pub fn read(subject: Subject, room: usize, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    let mut netlink = Netlink::open(SockProtocol::NetlinkRoute, room)?;
    // `struct rtgenmsg`, as long as the longest of the headers: of all families.
    netlink.ask(subject as u16, DUMP, &[0; 16], |_, body| take(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ip_does_is_told_and_read() {
        let test = "what_ip_does_is_told_and_read";
        let told = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
            let news = NetworkNews::open().map_err(|error| format!("no netlink: {error}"))?;
            let mut seen = Vec::new();
            for command in ["link set lo up", "route add blackhole 10.9.0.0/16", "rule add from 10.9.0.0/16 lookup 77 priority 7"] {
                let run = std::process::Command::new("ip").args(command.split(' ')).status();
                if !run.is_ok_and(|status| status.success()) {
                    return Err(format!("`ip {command}` does not work here"));
                }
                seen.push(news.read(&mut [0; NetworkNews::BUFFER]).map_err(|error| error.to_string())?);
            }
            let mut counts = Vec::new();
            for subject in [Subject::Links, Subject::Addresses, Subject::Routes, Subject::Rules] {
                let mut count = 0;
                read(subject, 1 << 20, |_| count += 1).map_err(|error| error.to_string())?;
                counts.push(count);
            }
            Ok((seen, counts))
        });
        match told.join().expect("the thread does not panic") {
            Ok((seen, counts)) => {
                assert!(seen[0].interfaces, "{seen:?}");
                assert!(seen[1..].iter().all(|news| *news == News { routes: true, ..News::default() }), "{seen:?}");
                assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
            }
            Err(reason) => crate::collect::skipped(test, &reason),
        }
    }
}
