//! Routes. One is keyed by what the kernel tells it from others by: where it leads, and of which table and metric it is.

use super::{AF_INET, AF_INET6, Interfaces, LOCAL, MAIN, address, native, native_short, prefix, protocol_word, rule, table_word};
use crate::netlink::find;
use crate::{FieldName, Fields, Value};

/// `struct rtmsg`, before the attributes.
const HEADER: usize = 12;
/// `struct rtnexthop`.
const HOP_HEADER: usize = 8;

/// `RTA_…`.
const DESTINATION: u16 = 1;
const FROM: u16 = 2;
const DEVICE: u16 = 4;
const GATEWAY: u16 = 5;
const METRIC: u16 = 6;
const SOURCE: u16 = 7;
const HOPS: u16 = 9;
const CACHE: u16 = 12;
const TABLE: u16 = 15;
const VIA: u16 = 18;
/// Where `struct rta_cacheinfo` has when the route ends.
const EXPIRES: usize = 8;

/// What a packet made, and no person.
const CLONED: u32 = 0x200;

/// Routes that come and go by themselves, by who made them: the kernel (with an address, or told by a router), clients of
/// DHCP, and daemons that learn them from others or move them between hosts.
const BY_ITSELF: &[u8] = &[
    1,   // redirect
    2,   // kernel
    8,   // gated
    9,   // ra
    11,  // zebra
    12,  // bird
    14,  // xorp
    16,  // dhcp
    18,  // keepalived
    42,  // babel
    186, // bgp
    187, // isis
    188, // ospf
    189, // rip
    192, // eigrp
];

/// Routes and rules that are taken; hosts have some ten.
const LIMIT: usize = 10_000;

/// All routes and rules of one reading.
#[derive(Debug)]
pub struct Routes<'a> {
    interfaces: &'a Interfaces,
    /// The key, what tells it from another of the same key, the fields.
    found: Vec<(Vec<u8>, String, Fields)>,
    is_cut: bool,
    is_torn: bool,
}

impl<'a> Routes<'a> {
    pub fn new(interfaces: &'a Interfaces) -> Self {
        Self { interfaces, found: Vec::new(), is_cut: false, is_torn: false }
    }

    /// Takes the body of a message that brings a route. `None`: it is damaged.
    pub fn take_route(&mut self, body: &[u8]) -> Option<()> {
        if !is_setting(body)? {
            return Some(());
        }
        let (header, attributes) = body.split_at_checked(HEADER)?;
        let [family, length, from_length, tos, _, protocol, scope, kind, ..] = *header else { return None };
        let number = |attribute| find(attributes, attribute).and_then(native);
        let told = |attribute| find(attributes, attribute).and_then(|bytes| address(family, bytes));
        let index = number(DEVICE);
        if index.is_some_and(|index| self.interfaces.is_containers(index)) {
            return Some(());
        }
        let destination = if length == 0 { "default".to_owned() } else { prefix(told(DESTINATION)?, length) };
        let table = table_of(header, attributes);

        let mut key = destination.clone();
        let mut fields = Fields::new();
        let mut set = |name, value: &str| fields.set(FieldName::known(name), Value::text(value));
        set("destination", &destination);
        set("table", &table_word(table));
        set("type", &type_word(kind));
        set("protocol", &protocol_word(protocol));
        if family == AF_INET6 && length == 0 {
            key += " inet6";
        }
        if from_length > 0 {
            let from = prefix(told(FROM)?, from_length);
            key += &format!(" from {from}");
            set("from", &from);
        }
        if tos > 0 {
            let tos = format!("{tos:#04x}");
            key += &format!(" tos {tos}");
            set("tos", &tos);
        }
        if table != MAIN {
            key += &format!(" table {table}");
        }
        // Of IPv6 it says nothing.
        if family == AF_INET {
            set("scope", &scope_word(scope));
        }
        if let Some(source) = told(SOURCE) {
            set("source", &source.to_string());
        }
        let gateway = gateway(family, attributes).unwrap_or_default();
        if !gateway.is_empty() {
            set("gateway", &gateway);
        }
        let device = index.map(|index| self.interfaces.name(index));
        self.is_torn |= device == Some(None);
        let device = device.flatten().map(Value::bytes);
        let hops = find(attributes, HOPS).map(|hops| self.hops(family, hops));
        // Of two that differ in nothing but where they lead, the order is not the kernel's.
        let aside = format!("{gateway} {device:?} {hops:?} {kind}");
        if let Some(device) = device {
            fields.set(FieldName::known("device"), device);
        }
        if let Some(hops) = hops.filter(|hops| !hops.is_empty()) {
            fields.set(FieldName::known("next_hops"), Value::list(hops));
        }
        if let Some(metric) = number(METRIC).filter(|metric| *metric > 0) {
            key += &format!(" metric {metric}");
            fields.set(FieldName::known("metric"), Value::Integer(metric.into()));
        }
        self.keep(key.into_bytes(), aside, fields);
        Some(())
    }

    /// Takes the body of a message that brings a rule. `None`: it is damaged.
    pub fn take_rule(&mut self, body: &[u8]) -> Option<()> {
        if let Some((key, fields)) = rule::decode(body)? {
            let aside = format!("{fields:?}");
            self.keep(key, aside, fields);
        }
        Some(())
    }

    fn keep(&mut self, key: Vec<u8>, aside: String, fields: Fields) {
        if self.found.len() < LIMIT {
            self.found.push((key, aside, fields));
        } else {
            self.is_cut = true;
        }
    }

    /// `via 10.0.0.1 dev eth0 weight 1` for each way that packets are spread over.
    fn hops(&mut self, family: u8, mut rest: &[u8]) -> Vec<String> {
        let mut hops = Vec::new();
        while let Some(length) = native_short(rest).map(usize::from) {
            let Some(hop) = rest.get(..length).filter(|hop| hop.len() >= HOP_HEADER) else { break };
            let (header, attributes) = hop.split_at(HOP_HEADER);
            let mut words = String::new();
            if let Some(gateway) = gateway(family, attributes) {
                words += &format!("via {gateway} ");
            }
            match native(&header[4..]).filter(|index| *index != 0).map(|index| self.interfaces.name(index)) {
                Some(Some(device)) => words += &format!("dev {} ", crate::text::printable(device)),
                Some(None) => self.is_torn = true,
                None => {}
            }
            words += &format!("weight {}", u16::from(header[3]) + 1);
            hops.push(words);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        hops.sort_unstable();
        hops
    }

    /// Whether there were more than are taken, so that they cannot be told.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Whether one leads to an interface that came after those were read.
    pub fn is_torn(&self) -> bool {
        self.is_torn
    }

    /// The items by their keys, in bytes. A second of the same key has ` (2)` after it.
    pub fn into_items(mut self) -> Vec<(Vec<u8>, Fields)> {
        self.found.sort_by(|(one, one_aside, _), (other, other_aside, _)| (one, one_aside).cmp(&(other, other_aside)));
        let (mut last, mut count) = (Vec::new(), 0);
        let numbered = self.found.into_iter().map(|(mut key, _, fields)| {
            count = if key == last { count + 1 } else { 1 };
            last.clone_from(&key);
            if count > 1 {
                key.extend(format!(" ({count})").bytes());
            }
            (key, fields)
        });
        numbered.collect()
    }
}

/// Whether a message that brings a route, or takes it, is of one that somebody set. `None`: it is damaged.
pub(super) fn is_setting(body: &[u8]) -> Option<bool> {
    let (header, attributes) = body.split_at_checked(HEADER)?;
    let expires = find(attributes, CACHE).and_then(|cache| native(cache.get(EXPIRES..)?)).unwrap_or(0);
    Some(
        [AF_INET, AF_INET6].contains(&header[0])
            && !comes_by_itself(header[5])
            && native(&header[8..])? & CLONED == 0
            && table_of(header, attributes) != LOCAL
            && expires == 0,
    )
}

/// Whether what carries this protocol comes and goes by itself.
pub(super) fn comes_by_itself(protocol: u8) -> bool {
    BY_ITSELF.contains(&protocol)
}

fn table_of(header: &[u8], attributes: &[u8]) -> u32 {
    find(attributes, TABLE).and_then(native).unwrap_or(header[4].into())
}

/// Of either protocol: routes of IPv4 may lead by way of IPv6.
fn gateway(family: u8, attributes: &[u8]) -> Option<String> {
    let own = find(attributes, GATEWAY).and_then(|bytes| address(family, bytes));
    let other = || {
        let via = find(attributes, VIA)?;
        let family = u8::try_from(native_short(via)?).ok()?;
        address(family, via.get(2..)?)
    };
    own.or_else(other).map(|gateway| gateway.to_string())
}

fn type_word(kind: u8) -> String {
    const WORDS: [&str; 10] =
        ["unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit", "throw"];
    WORDS.get(usize::from(kind)).map_or_else(|| kind.to_string(), |word| (*word).to_owned())
}

fn scope_word(scope: u8) -> String {
    match scope {
        0 => "global".to_owned(),
        200 => "site".to_owned(),
        253 => "link".to_owned(),
        254 => "host".to_owned(),
        255 => "nowhere".to_owned(),
        other => other.to_string(),
    }
}
