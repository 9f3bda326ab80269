//! Interfaces and their addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{AF_INET, AF_INET6, NAME_LIMIT, address, native, native_short};
use crate::netlink::{find, text};
use crate::{FieldName, Fields, Value};

/// `struct ifinfomsg` and `struct ifaddrmsg`, before the attributes.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;

/// `IFLA_…`.
const HARDWARE_ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const PARENT: u16 = 5;
const MASTER: u16 = 10;
const INFO: u16 = 18;
const PROMISCUITY: u16 = 30;
const PARENT_NAMESPACE: u16 = 37;
const PERMANENT_ADDRESS: u16 = 54;
/// `IFLA_INFO_…` and `IFLA_VLAN_ID`.
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VLAN: u16 = 1;

/// `IFA_…`.
const PEER: u16 = 1;
const OWN: u16 = 2;
const FLAGS: u16 = 8;

const UP: u32 = 1;
/// An address without a lifetime.
const PERMANENT: u32 = 0x80;

const ETHERNET: u16 = 1;
const INFINIBAND: u16 = 32;

/// All interfaces of one reading, by their numbers.
#[derive(Debug, Default)]
pub struct Interfaces {
    links: BTreeMap<u32, Link>,
}

#[derive(Debug)]
struct Link {
    name: Vec<u8>,
    kind: String,
    is_up: bool,
    mtu: Option<u32>,
    /// Of a device that has such an address at all.
    mac: Option<String>,
    /// The device brought an address of its own: the one that it has is this, or was set.
    has_permanent: bool,
    master: Option<u32>,
    parent: Option<u32>,
    vlan: Option<u16>,
    is_promiscuous: bool,
    is_containers: bool,
    addresses: BTreeSet<String>,
    is_dynamic: bool,
}

impl Interfaces {
    /// Takes the body of a message that brings an interface. `None`: it is damaged.
    pub fn take_link(&mut self, body: &[u8]) -> Option<()> {
        let (header, attributes) = body.split_at_checked(LINK_HEADER)?;
        if header[0] != 0 {
            // What a bridge says of its port.
            return Some(());
        }
        let hardware = native_short(&header[2..])?;
        let name = text(attributes, NAME).filter(|name| !name.is_empty() && name.len() <= NAME_LIMIT)?;
        let number = |attribute| find(attributes, attribute).and_then(native);
        let info = find(attributes, INFO).unwrap_or_default();
        let kind = text(info, INFO_KIND).filter(|kind| !kind.is_empty());
        let vlan = find(info, INFO_DATA)
            .filter(|_| kind.is_some_and(|kind| kind == b"vlan"))
            .and_then(|data| find(data, VLAN))
            .and_then(native_short);
        let is_elsewhere = find(attributes, PARENT_NAMESPACE).is_some();
        let link = Link {
            name: name.to_vec(),
            kind: kind.map_or_else(|| hardware_word(hardware), |kind| crate::text::printable(kind).into_owned()),
            is_up: native(&header[8..])? & UP != 0,
            mtu: number(MTU),
            mac: find(attributes, HARDWARE_ADDRESS).filter(|_| [ETHERNET, INFINIBAND].contains(&hardware)).and_then(mac),
            has_permanent: find(attributes, PERMANENT_ADDRESS).is_some(),
            master: number(MASTER),
            // The number is another namespace's then.
            parent: number(PARENT).filter(|parent| *parent != 0 && !is_elsewhere),
            vlan,
            is_promiscuous: number(PROMISCUITY).is_some_and(|count| count > 0),
            is_containers: is_containers(attributes),
            addresses: BTreeSet::new(),
            is_dynamic: false,
        };
        self.links.insert(native(&header[4..])?, link);
        Some(())
    }

    /// Takes the body of a message that brings an address, after all interfaces.
    pub fn take_address(&mut self, body: &[u8]) -> Option<()> {
        if !is_told_of_address(body)? {
            return Some(());
        }
        let (header, attributes) = body.split_at_checked(ADDRESS_HEADER)?;
        let told = |attribute| find(attributes, attribute).and_then(|bytes| address(header[0], bytes));
        let (peer, length) = (told(PEER), header[1]);
        let own = told(OWN).or(peer)?;
        let flags = find(attributes, FLAGS).and_then(native).unwrap_or(u32::from(header[2]));
        // Of an interface that came after the others were read it is told with that.
        let Some(link) = self.links.get_mut(&native(&header[4..])?) else { return Some(()) };
        if flags & PERMANENT == 0 {
            link.is_dynamic = true;
            return Some(());
        }
        link.addresses.insert(match peer.filter(|peer| *peer != own) {
            Some(peer) => format!("{own} peer {peer}/{length}"),
            None => format!("{own}/{length}"),
        });
        Some(())
    }

    pub fn name(&self, index: u32) -> Option<&[u8]> {
        self.links.get(&index).map(|link| link.name.as_slice())
    }

    pub(super) fn is_containers(&self, index: u32) -> bool {
        self.links.get(&index).is_some_and(|link| link.is_containers)
    }

    /// The items by their keys, in bytes. `is_set`: whether somebody set the address of an interface of this name, which
    /// brought none of its own; any other it gave itself, or took from another.
    pub fn items(&self, mut is_set: impl FnMut(&[u8]) -> bool) -> Vec<(Vec<u8>, Fields)> {
        let told = self.links.values().filter(|link| !link.is_containers);
        told.map(|link| {
            let mut fields = Fields::new();
            let mut set = |name, value| fields.set(FieldName::known(name), value);
            set("type", Value::text(&link.kind));
            set("up", Value::Boolean(link.is_up));
            set("dynamic", Value::Boolean(link.is_dynamic));
            if let Some(mtu) = link.mtu {
                set("mtu", Value::Integer(mtu.into()));
            }
            if let Some(mac) = link.mac.as_deref().filter(|_| link.has_permanent || is_set(&link.name)) {
                set("mac", Value::text(mac));
            }
            for (name, index) in [("master", link.master), ("parent", link.parent)] {
                if let Some(other) = index.and_then(|index| self.name(index)) {
                    set(name, Value::bytes(other));
                }
            }
            if let Some(vlan) = link.vlan {
                set("vlan", Value::Integer(vlan.into()));
            }
            if link.is_promiscuous {
                set("promiscuous", Value::Boolean(true));
            }
            if !link.addresses.is_empty() {
                set("addresses", Value::list(link.addresses.iter().cloned().collect()));
            }
            (link.name.clone(), fields)
        })
        .collect()
    }
}

/// Whether a message that brings an interface, or takes it, is of one that is told. `None`: it is damaged.
pub(super) fn is_setting(body: &[u8]) -> Option<bool> {
    let (header, attributes) = body.split_at_checked(LINK_HEADER)?;
    Some(header[0] == 0 && !is_containers(attributes))
}

/// Whether a message that brings an address, or takes it, is of one that counts, be it for a while. `None`: it is damaged.
pub(super) fn is_told_of_address(body: &[u8]) -> Option<bool> {
    let (header, attributes) = body.split_at_checked(ADDRESS_HEADER)?;
    if ![AF_INET, AF_INET6].contains(&header[0]) {
        return Some(false);
    }
    let own = find(attributes, OWN).or_else(|| find(attributes, PEER)).and_then(|bytes| address(header[0], bytes))?;
    // An interface gives itself such a one when it is connected.
    Some(!matches!(own, IpAddr::V6(own) if own.is_unicast_link_local()))
}

/// One end of a pair of which the other is in another network namespace.
fn is_containers(attributes: &[u8]) -> bool {
    let kind = find(attributes, INFO).and_then(|info| text(info, INFO_KIND));
    kind.is_some_and(|kind| kind == b"veth") && find(attributes, PARENT_NAMESPACE).is_some()
}

fn mac(bytes: &[u8]) -> Option<String> {
    const LONGEST: usize = 32;
    let is_one = bytes.len() <= LONGEST && bytes.iter().any(|byte| *byte != 0);
    is_one.then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"))
}

/// Of a device that no kind was asked for.
fn hardware_word(hardware: u16) -> String {
    match hardware {
        ETHERNET => "ethernet".to_owned(),
        INFINIBAND => "infiniband".to_owned(),
        280 => "can".to_owned(),
        512 => "ppp".to_owned(),
        772 => "loopback".to_owned(),
        other => format!("hardware {other}"),
    }
}
