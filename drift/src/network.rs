//! The host's network as the kernel tells of it over rtnetlink(7): what somebody decided, without what comes by itself.

pub mod interface;
pub mod route;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const IPV4: u8 = 2;
const IPV6: u8 = 10;

/// An address of the family, in network byte order.
fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        IPV4 => Some(IpAddr::V4(Ipv4Addr::from(*bytes.first_chunk::<4>()?))),
        IPV6 => Some(IpAddr::V6(Ipv6Addr::from(*bytes.first_chunk::<16>()?))),
        _ => None,
    }
}

/// A number of the machine's byte order, as all of rtnetlink's are.
fn native(bytes: Option<&[u8]>) -> Option<u32> {
    match *bytes? {
        [one] => Some(u32::from(one)),
        [a, b] => Some(u32::from(u16::from_ne_bytes([a, b]))),
        [a, b, c, d] => Some(u32::from_ne_bytes([a, b, c, d])),
        _ => None,
    }
}
