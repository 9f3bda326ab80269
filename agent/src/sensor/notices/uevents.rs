//! The kernel's messages of its own objects, of which modules are one kind: that one came or went, and not by whom. See
//! netlink(7), NETLINK_KOBJECT_UEVENT.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket, sockopt};

/// What the kernel itself tells; what udev tells others is the second.
const GROUP: u32 = 1;
/// Devices come by the hundred when a bus is looked through.
const ROOM: usize = 1 << 20;
/// Of a message only its beginning counts.
const MESSAGE: usize = 256;

#[derive(Debug)]
pub(super) struct Uevents {
    socket: OwnedFd,
}

/// What one reading brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Uevent {
    Module,
    Other,
    /// Messages were lost.
    Overflow,
    None,
}

impl Uevents {
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkKObjectUEvent)?;
        // Not permitted, the default stays, and an overflow is told as ever.
        let _ = setsockopt(&socket, sockopt::RcvBufForce, &ROOM);
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUP))?;
        Ok(Self { socket })
    }

    pub fn read(&self) -> io::Result<Uevent> {
        let mut message = [0; MESSAGE];
        match recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut message) {
            Ok((length, Some(from))) if from.pid() == 0 => Ok(told(&message[..length.min(MESSAGE)])),
            Ok(_) | Err(Errno::EINTR) => Ok(Uevent::Other),
            Err(Errno::EAGAIN) => Ok(Uevent::None),
            Err(Errno::ENOBUFS) => Ok(Uevent::Overflow),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `add@/module/xfs`, then what is told of it.
fn told(message: &[u8]) -> Uevent {
    let path = message.split(|byte| *byte == b'@').nth(1).unwrap_or_default();
    if path.starts_with(b"/module/") { Uevent::Module } else { Uevent::Other }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_told_from_devices() {
        for (message, is_module) in [
            (&b"add@/module/xfs\0ACTION=add\0DEVPATH=/module/xfs\0"[..], true),
            (b"remove@/module/xfs\0", true),
            (b"add@/devices/virtual/block/loop1\0ACTION=add\0", false),
            (b"libudev\0\xfe\xed", false),
            (b"", false),
        ] {
            assert_eq!(told(message) == Uevent::Module, is_module);
        }
    }

    #[test]
    fn nothing_waits_on_a_new_socket_of_a_quiet_machine_or_it_is_of_the_kernel() {
        let uevents = Uevents::open().unwrap();
        assert_ne!(uevents.read().unwrap(), Uevent::Overflow);
    }
}
