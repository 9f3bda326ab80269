//! Tables of ip_tables and ip6_tables, as iptables-legacy reads them. See linux/netfilter_ipv4/ip_tables.h.
//!
//! Invariants: a table is read whole or not at all. To ask for one that is not there makes the kernel load it: only those are to be
//! asked for that it lists.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use trueline_drift::firewall::{LegacyFamily, LegacyHooks};

const NAME: usize = 32;
/// `struct ipt_getinfo`: the name, which hooks are valid, five entry points and five ends, counts of entries and of bytes.
const INFO: usize = NAME + 4 + 20 + 20 + 4 + 4;
/// `struct ipt_get_entries`: the name, the size, and what aligns the entries.
const ENTRIES_HEADER: usize = NAME + 8;
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;

/// A table's entries, of at most `limit` bytes. EPERM without CAP_NET_ADMIN.
/// [`io::ErrorKind::WouldBlock`]: it changed meanwhile, and must be asked for again.
pub fn table(family: LegacyFamily, name: &[u8], limit: usize) -> io::Result<(LegacyHooks, Vec<u8>)> {
    let (address_family, level) = match family {
        LegacyFamily::Ip => (AddressFamily::Inet, libc::SOL_IP),
        LegacyFamily::Ip6 => (AddressFamily::Inet6, libc::SOL_IPV6),
    };
    if name.len() >= NAME {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let socket = socket(address_family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut info = [0; INFO];
    info[..name.len()].copy_from_slice(name);
    option(&socket, level, GET_INFO, &mut info)?;
    let word = |at: usize| u32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
    let five = |at: usize| std::array::from_fn(|place| word(at + 4 * place));
    let hooks = LegacyHooks { valid: word(NAME), entry: five(NAME + 4) };
    let size = word(INFO - 4);
    if size as usize > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    let mut entries = vec![0; ENTRIES_HEADER + size as usize];
    entries[..name.len()].copy_from_slice(name);
    entries[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    option(&socket, level, GET_ENTRIES, &mut entries)?;
    entries.drain(..ENTRIES_HEADER);
    Ok((hooks, entries))
}

fn option(socket: &OwnedFd, level: libc::c_int, option: libc::c_int, buffer: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the buffer is of the length that is given, which is all that the kernel reads and writes of it; it holds bytes alone, for
    // which every value is valid. The length is a variable of ours.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, buffer.as_mut_ptr().cast(), &raw mut length) };
    match result {
        0 if length as usize == buffer.len() => Ok(()),
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Err(io::Error::last_os_error()),
    }
}
