//! Interfaces, addresses, routes and rules over netlink: what is told when one changes, and whole readings of them. See rtnetlink(7).
//!
//! Who changed something is not told: a message has the number of the port that asked for it, which any program may choose as it likes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{SockProtocol, setsockopt, sockopt};
use trueline_drift::netlink::messages;
use trueline_drift::network::Touched;

use super::netlink::{DUMP, Netlink, open, receive};

/// `RTNLGRP_LINK`, `…_IPV4_IFADDR`, `…_IPV4_ROUTE`, `…_IPV4_RULE`, `…_IPV6_IFADDR`, `…_IPV6_ROUTE`, `…_IPV6_RULE` and
/// `…_NEXTHOP`, as bind(2) has them.
const CHANGES: u32 = 1 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18 | 1 << 31;
/// What may wait, in bytes.
const QUEUE: usize = 1 << 20;
/// Datagrams that one call takes at most.
const DATAGRAMS: usize = 1024;

/// What one call brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    pub touched: Touched,
    /// The kernel had no more room: there were others.
    pub is_incomplete: bool,
}

/// Hears every change from now on.
#[derive(Debug)]
pub struct NetworkNews {
    socket: OwnedFd,
}

impl NetworkNews {
    /// Room for [`Self::read`]. What is told of an interface has some 2,000 bytes.
    pub const BUFFER: usize = 8192;

    pub fn open() -> io::Result<Self> {
        let socket = open(SockProtocol::NetlinkRoute, CHANGES)?;
        // Not permitted, the default stays, and what is lost is told as ever.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &QUEUE);
        Ok(Self { socket })
    }

    /// All that waits, without waiting for more.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<News> {
        let mut news = News::default();
        for _ in 0..DATAGRAMS {
            let room = buffer.len();
            match receive(&self.socket, buffer) {
                // The rest of it is lost.
                Ok(Some(datagram)) if datagram.len() == room => news.touched = Touched::ALL,
                Ok(Some(datagram)) => messages(datagram).for_each(|message| news.touched.add(Touched::by(message.kind, message.body))),
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

/// Asks for what there is.
#[derive(Debug)]
pub struct Network(Netlink);

impl Network {
    /// Answers of at most so many bytes in all.
    pub fn open(room: usize) -> io::Result<Self> {
        Ok(Self(Netlink::open(SockProtocol::NetlinkRoute, room)?))
    }

    /// The bodies of all messages that bring one of these. `question`: the header of such a message and what it asks by.
    /// [`io::ErrorKind::Interrupted`]: a change came into the middle of it, and it must be asked again.
    pub fn dump(&mut self, brings: u16, question: &[u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        // What asks for all has the number after the one that says that something went.
        self.0.ask(brings + 2, DUMP, question, |kind, body| {
            if kind == brings {
                take(body);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ip_does_is_told_and_what_the_kernel_adds_to_it_is_not() {
        let test = "what_ip_does_is_told_and_what_the_kernel_adds_to_it_is_not";
        let ip = |command: &str| {
            let status = std::process::Command::new("ip").args(command.split(' ')).stderr(std::process::Stdio::null()).status();
            if status.is_ok_and(|status| status.success()) { Ok(()) } else { Err(format!("no `ip {command}` here")) }
        };
        let told = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
            let news = NetworkNews::open().map_err(|error| format!("no netlink: {error}"))?;
            let mut touched = Vec::new();
            for command in ["link set lo up", "route add blackhole 203.0.113.0/25", "route add blackhole 203.0.113.128/25 proto bgp"] {
                ip(command)?;
                let told = news.read(&mut [0; NetworkNews::BUFFER]).map_err(|error| error.to_string())?;
                assert!(!told.is_incomplete);
                touched.push(told.touched);
            }
            Ok::<_, String>(touched)
        });
        match told.join().expect("the thread does not panic") {
            Ok(touched) => assert_eq!(touched, [Touched::ALL, Touched { interfaces: false, routes: true }, Touched::default()]),
            Err(reason) => crate::collect::skipped(test, &reason),
        }
    }
}
