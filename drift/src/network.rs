//! Network interfaces, routes and the rules that choose a table of them, decoded from netlink. See linux/rtnetlink.h.
//!
//! Invariants: only what somebody set is told. What comes and goes by itself is left out: addresses with a lifetime, IPv6's
//! link-local ones, routes that the kernel or a daemon made, and what belongs to containers. Numbers of interfaces and the order
//! of the kernel's answers show nowhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use interface::Interfaces;
pub use route::Routes;

mod interface;
mod route;
mod rule;
#[cfg(test)]
mod tests;

/// Of a message's type: what it brings. That it went is told by the next number, and it is asked for by the one after.
pub const NEW_LINK: u16 = 16;
pub const NEW_ADDRESS: u16 = 20;
pub const NEW_ROUTE: u16 = 24;
pub const NEW_RULE: u16 = 32;
/// With one that goes, routes go of which no word is said.
const NEW_NEXT_HOP: u16 = 104;
/// `nh_protocol` of `struct nhmsg`.
const NEXT_HOP_PROTOCOL: usize = 2;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// The kernel's IFNAMSIZ, without the zero that ends a name.
const NAME_LIMIT: usize = 15;

/// What a message of the kernel's news may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Touched {
    pub interfaces: bool,
    pub routes: bool,
}

impl Touched {
    pub const ALL: Self = Self { interfaces: true, routes: true };

    /// By a message's type and body. A damaged one may have changed anything.
    pub fn by(kind: u16, body: &[u8]) -> Self {
        let is_ours = match kind & !1 {
            NEW_LINK => interface::is_setting(body),
            NEW_ADDRESS => interface::is_told_of_address(body),
            NEW_ROUTE => return Self { interfaces: false, routes: route::is_setting(body).unwrap_or(true) },
            NEW_RULE => return Self { interfaces: false, routes: true },
            NEW_NEXT_HOP => {
                let routes = body.get(NEXT_HOP_PROTOCOL).is_none_or(|protocol| !route::comes_by_itself(*protocol));
                return Self { interfaces: false, routes };
            }
            _ => return Self::default(),
        };
        // With an interface that is shut down, or an address that goes, routes go of which no word is said.
        if is_ours.unwrap_or(true) { Self::ALL } else { Self::default() }
    }

    pub fn add(&mut self, other: Self) {
        self.interfaces |= other.interfaces;
        self.routes |= other.routes;
    }
}

/// A number as the machine writes it, which all of these are.
fn native(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.first_chunk()?))
}

fn native_short(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.first_chunk()?))
}

fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

/// `10.0.0.0/8`; of one host its address alone, as `ip` has it.
fn prefix(address: IpAddr, length: u8) -> String {
    let whole = if address.is_ipv4() { 32 } else { 128 };
    if length == whole { address.to_string() } else { format!("{address}/{length}") }
}

/// A table by the name that the kernel itself has for it, or its number.
fn table_word(table: u32) -> String {
    match table {
        253 => "default".to_owned(),
        MAIN => "main".to_owned(),
        LOCAL => "local".to_owned(),
        other => other.to_string(),
    }
}
const MAIN: u32 = 254;
const LOCAL: u32 = 255;

/// Who made a route or a rule says so by a number; these have a name everywhere.
fn protocol_word(protocol: u8) -> String {
    match protocol {
        0 => "unspec".to_owned(),
        2 => "kernel".to_owned(),
        3 => "boot".to_owned(),
        4 => "static".to_owned(),
        other => other.to_string(),
    }
}
