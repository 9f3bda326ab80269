//! Interfaces and their addresses: RTM_NEWLINK and RTM_NEWADDR, see linux/if_link.h and linux/if_addr.h.
//!
//! Left out is what comes by itself: one end of a pair (veth), as each container has, and of addresses those with a lifetime, as DHCP and
//! router advertisements give, and those of the link alone. That an interface has such is told, not which.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{address, native};
use crate::netlink::{find, text};
use crate::{FieldName, Fields, Value, text as printing};

/// `struct ifinfomsg` and `struct ifaddrmsg`.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

const UP: u32 = 1;
const PERMANENT: u32 = 0x80;
/// `ARPHRD_ETHER`, `ARPHRD_LOOPBACK`.
const ETHERNET: u16 = 1;
const LOOPBACK: u16 = 772;
/// Not of a mount of the interface but of one link.
const LINK_SCOPE: u8 = 253;
const PAIR: &str = "veth";

/// An interface, by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    /// The kernel's own bytes: everything but a slash and blanks.
    pub name: Vec<u8>,
    kind: String,
    mac: Option<String>,
    mtu: Option<u32>,
    is_up: bool,
    is_promiscuous: bool,
    master: Option<u32>,
    lies_on: Option<u32>,
    vlan: Option<u32>,
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub index: u32,
    address: IpAddr,
    prefix: u8,
    is_permanent: bool,
}

/// `None` for what is no whole message, and for what is left out.
pub fn interface(message: &[u8]) -> Option<Interface> {
    let (header, attributes) = message.split_at_checked(LINK_HEADER)?;
    let hardware = u16::from_ne_bytes([header[2], header[3]]);
    let index = native(header.get(4..8))?;
    let flags = native(header.get(8..12))?;
    let information = find(attributes, 18).unwrap_or_default();
    let kind = text(information, 1).map(|kind| printing::printable(kind).into_owned());
    let kind = kind.unwrap_or_else(|| match hardware {
        ETHERNET => "ethernet".to_owned(),
        LOOPBACK => "loopback".to_owned(),
        other => format!("type {other}"),
    });
    if kind == PAIR {
        return None;
    }
    let data = find(information, 2).unwrap_or_default();
    Some(Interface {
        index,
        name: text(attributes, 3).filter(|name| !name.is_empty())?.to_vec(),
        mac: find(attributes, 1).filter(|_| hardware == ETHERNET).map(hexadecimal),
        mtu: native(find(attributes, 4)),
        is_up: flags & UP != 0,
        is_promiscuous: native(find(attributes, 30)).is_some_and(|count| count > 0),
        master: native(find(attributes, 10)),
        lies_on: native(find(attributes, 5)).filter(|below| *below != index),
        vlan: native(find(data, 1)).filter(|_| kind == "vlan"),
        kind,
    })
}

/// Number and name of any interface.
pub fn interface_name(message: &[u8]) -> Option<(u32, Vec<u8>)> {
    let (header, attributes) = message.split_at_checked(LINK_HEADER)?;
    Some((native(header.get(4..8))?, text(attributes, 3)?.to_vec()))
}

pub fn interface_address(message: &[u8]) -> Option<Address> {
    let (header, attributes) = message.split_at_checked(ADDRESS_HEADER)?;
    let (family, prefix, scope) = (header[0], header[1], header[3]);
    // Of both ends of a line the local one; the other attribute is the peer's there.
    let bytes = find(attributes, 2).or_else(|| find(attributes, 1))?;
    let flags = native(find(attributes, 8)).unwrap_or(u32::from(header[2]));
    let is_of_link = scope == LINK_SCOPE && family == super::IPV6;
    let address = address(family, bytes).filter(|_| !is_of_link)?;
    Some(Address { index: native(header.get(4..8))?, address, prefix, is_permanent: flags & PERMANENT != 0 })
}

/// Each interface by its name. `is_own_mac` tells of a name whether its hardware address is the device's or was set, and not made up.
pub fn fields(interfaces: &[Interface], addresses: &[Address], is_own_mac: impl Fn(&[u8]) -> bool) -> BTreeMap<Vec<u8>, Fields> {
    let names: BTreeMap<u32, &[u8]> = interfaces.iter().map(|interface| (interface.index, &interface.name[..])).collect();
    let of = |interface: &Interface| {
        let mut fields = Fields::new();
        let mut set = |name, value| fields.set(FieldName::known(name), value);
        set("type", Value::text(&interface.kind));
        set("up", Value::Boolean(interface.is_up));
        if let Some(mac) = interface.mac.as_deref().filter(|_| is_own_mac(&interface.name)) {
            set("mac", Value::text(mac));
        }
        if let Some(mtu) = interface.mtu {
            set("mtu", Value::Integer(i64::from(mtu)));
        }
        if interface.is_promiscuous {
            set("promiscuous", Value::Boolean(true));
        }
        for (name, index) in [("master", interface.master), ("lies_on", interface.lies_on)] {
            if let Some(other) = index.and_then(|index| names.get(&index)) {
                set(name, Value::bytes(other));
            }
        }
        if let Some(vlan) = interface.vlan {
            set("vlan", Value::Integer(i64::from(vlan)));
        }
        let (permanent, passing): (Vec<&Address>, _) =
            addresses.iter().filter(|address| address.index == interface.index).partition(|address| address.is_permanent);
        let permanent: BTreeSet<(IpAddr, u8)> = permanent.into_iter().map(|address| (address.address, address.prefix)).collect();
        if !permanent.is_empty() {
            set("addresses", Value::list(permanent.into_iter().map(|(address, prefix)| format!("{address}/{prefix}")).collect()));
        }
        if !passing.is_empty() {
            set("dynamic", Value::Boolean(true));
        }
        fields
    };
    interfaces.iter().map(|interface| (interface.name.clone(), of(interface))).collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::attribute;

    fn link(index: u32, flags: u32, name: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut message = vec![0, 0];
        message.extend(ETHERNET.to_ne_bytes());
        message.extend(index.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(attribute(3, format!("{name}\0").as_bytes()));
        message.extend(attributes.concat());
        message
    }

    fn assigned(index: u32, family: u8, prefix: u8, flags: u32, scope: u8, address: &[u8]) -> Vec<u8> {
        let mut message = vec![family, prefix, flags as u8, scope];
        message.extend(index.to_ne_bytes());
        message.extend([attribute(1, address), attribute(8, &flags.to_ne_bytes())].concat());
        message
    }

    #[test]
    fn what_somebody_decided_is_told_and_what_comes_by_itself_is_not() {
        let mac = |last| attribute(1, &[2, 0, 0, 0, 0, last]);
        let of_kind = |kind: &str, data: &[u8]| attribute(18, &[attribute(1, kind.as_bytes()), attribute(2, data)].concat());
        let links = [
            link(
                2,
                UP,
                "eth0",
                &[mac(1), attribute(4, &1500_u32.to_ne_bytes()), attribute(10, &4_u32.to_ne_bytes()), attribute(30, &1_u32.to_ne_bytes())],
            ),
            link(3, 0, "eth0.7", &[mac(1), of_kind("vlan", &attribute(1, &7_u16.to_ne_bytes())), attribute(5, &2_u32.to_ne_bytes())]),
            link(4, UP, "br0", &[mac(9), of_kind("bridge", &[])]),
            link(5, UP, "vethabc", &[mac(8), of_kind("veth", &[])]),
        ];
        let addresses = [
            assigned(4, 2, 24, PERMANENT, 0, &[10, 0, 0, 2]),
            assigned(4, 2, 24, PERMANENT, 0, &[10, 0, 0, 1]),
            assigned(4, 10, 64, 0, 0, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
            assigned(2, 10, 64, PERMANENT, LINK_SCOPE, &[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]),
        ];
        let interfaces: Vec<Interface> = links.iter().filter_map(|message| interface(message)).collect();
        let addresses: Vec<Address> = addresses.iter().filter_map(|message| interface_address(message)).collect();
        let shown: Vec<String> = fields(&interfaces, &addresses, |name| name != b"br0")
            .iter()
            .map(|(name, fields)| format!("{} {}", String::from_utf8_lossy(name), serde_json::to_string(fields).unwrap()))
            .collect();
        assert_eq!(
            shown,
            [
                r#"br0 {"addresses":["10.0.0.1/24","10.0.0.2/24"],"dynamic":true,"type":"bridge","up":true}"#,
                r#"eth0 {"mac":"02:00:00:00:00:01","master":"br0","mtu":1500,"promiscuous":true,"type":"ethernet","up":true}"#,
                r#"eth0.7 {"lies_on":"eth0","mac":"02:00:00:00:00:01","type":"vlan","up":false,"vlan":7}"#,
            ]
        );
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let links: Vec<Interface> = interface(&bytes).into_iter().collect();
            let addresses: Vec<Address> = interface_address(&bytes).into_iter().collect();
            fields(&links, &addresses, |_| true);
        }
    }
}
