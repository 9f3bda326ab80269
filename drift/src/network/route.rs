//! Routes and the rules that choose among their tables: RTM_NEWROUTE and RTM_NEWRULE, see linux/rtnetlink.h and linux/fib_rules.h.
//!
//! Left out is what comes by itself: the kernel's own, what router advertisements, redirects, DHCP and routing daemons put there, and what
//! is a copy made for one packet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{IPV4, IPV6, address, native};
use crate::netlink::{find, text};
use crate::{FieldName, Fields, Value, text as printing};

/// `struct rtmsg` and `struct fib_rule_hdr`.
const HEADER: usize = 12;
/// `struct rtnexthop`.
const HOP: usize = 8;
const HOPS_LIMIT: usize = 256;
/// `RTM_F_CLONED`.
const COPIED: u32 = 0x200;
const LOCAL: u32 = 255;
/// `RTPROT_UNSPEC`, `RTPROT_BOOT` (what ip(8) sets without being told otherwise) and `RTPROT_STATIC`: a person's or a script's.
const DECIDED: [u8; 3] = [0, 3, 4];
/// Numbers that rtnetlink.h gives to nobody: a host's own.
const OWN: [std::ops::RangeInclusive<u8>; 3] = [5..=7, 19..=41, 200..=255];

/// What a route or rule is called, and its fields.
pub type Told = (Vec<u8>, Fields);

/// Names of interfaces by their numbers.
pub type Names = BTreeMap<u32, Vec<u8>>;

pub fn route(message: &[u8], names: &Names) -> Option<Told> {
    let (header, attributes) = message.split_at_checked(HEADER)?;
    let [family, length, _, tos, table, protocol, scope, kind, ..] = *header else { return None };
    let table = native(find(attributes, 15)).unwrap_or(u32::from(table));
    let is_decided = DECIDED.contains(&protocol) || OWN.iter().any(|own| own.contains(&protocol));
    if !is_decided || table == LOCAL || native(header.get(8..12))? & COPIED != 0 {
        return None;
    }
    let destination = prefix(family, find(attributes, 1), length)?;
    let metric = native(find(attributes, 6)).filter(|metric| *metric != 0);
    let mut key = format!("{} {destination}", table_name(table));
    for (what, number) in [("tos", Some(u32::from(tos)).filter(|tos| *tos != 0)), ("metric", metric)] {
        key += &number.map(|number| format!(" {what} {number}")).unwrap_or_default();
    }
    let mut fields = Fields::new();
    let mut set = |name, value| fields.set(FieldName::known(name), value);
    set("type", Value::text(kind_name(kind)));
    set("protocol", Value::text(&protocol_name(protocol)));
    let one = hop(family, attributes, native(find(attributes, 4)), names);
    let several = find(attributes, 9).map(|hops| several(family, hops, names)).unwrap_or_default();
    let mut gateways: Vec<String> = one.into_iter().chain(several).collect();
    gateways.sort_unstable();
    if !gateways.is_empty() {
        set("gateways", Value::list(gateways));
    }
    if let Some(source) = find(attributes, 7).and_then(|bytes| address(family, bytes)) {
        set("source", Value::text(&source.to_string()));
    }
    if let (IPV4, Some(scope)) = (family, scope_name(scope)) {
        set("scope", Value::text(scope));
    }
    Some((key.into_bytes(), fields))
}

pub fn rule(message: &[u8]) -> Option<Told> {
    let (header, attributes) = message.split_at_checked(HEADER)?;
    let [family, destination, source, _, table, _, _, action, ..] = *header else { return None };
    // `RTPROT_KERNEL`: the three that are always there.
    if native(find(attributes, 21)) == Some(2) {
        return None;
    }
    let table = native(find(attributes, 15)).unwrap_or(u32::from(table));
    let mut key = format!("rule {} {}", if family == IPV6 { "ipv6" } else { "ipv4" }, native(find(attributes, 6)).unwrap_or(0));
    for (what, number, length) in [("from", 2, source), ("to", 1, destination)] {
        if let Some(bytes) = find(attributes, number) {
            key += &format!(" {what} {}", prefix(family, Some(bytes), length)?);
        }
    }
    for (what, number) in [("iif", 3), ("oif", 17)] {
        key += &text(attributes, number).map(|name| format!(" {what} {}", printing::printable(name))).unwrap_or_default();
    }
    key += &native(find(attributes, 10)).filter(|mark| *mark != 0).map(|mark| format!(" fwmark {mark:#x}")).unwrap_or_default();
    let mut fields = Fields::new();
    fields.set(FieldName::known("type"), Value::text(action_name(action)));
    fields.set(FieldName::known("table"), Value::text(&table_name(table)));
    Some((key.into_bytes(), fields))
}

/// Of several of one name, which only some of their gateways tell apart, one with all of these.
pub fn together(told: impl IntoIterator<Item = Told>) -> BTreeMap<Vec<u8>, Fields> {
    let mut all: BTreeMap<Vec<u8>, Fields> = BTreeMap::new();
    for (key, fields) in told {
        let gateways = |fields: &Fields| match fields.value("gateways") {
            Some(Value::List(gateways)) => gateways.clone(),
            _ => Vec::new(),
        };
        match all.get_mut(&key) {
            Some(known) => {
                let mut joined = [gateways(known), gateways(&fields)].concat();
                joined.sort_unstable();
                joined.dedup();
                if !joined.is_empty() {
                    known.set(FieldName::known("gateways"), Value::list(joined));
                }
            }
            None => drop(all.insert(key, fields)),
        }
    }
    all
}

fn several(family: u8, mut hops: &[u8], names: &Names) -> Vec<String> {
    let mut told = Vec::new();
    while told.len() < HOPS_LIMIT
        && let Some(length) = native(hops.get(..2)).map(|length| length as usize)
        && let Some(one) = hops.get(..length).filter(|one| one.len() >= HOP)
    {
        told.extend(hop(family, &one[HOP..], native(one.get(4..8)), names));
        hops = hops.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    told
}

/// `10.0.0.1 dev eth0`, or `dev eth0`.
fn hop(family: u8, attributes: &[u8], device: Option<u32>, names: &Names) -> Option<String> {
    let plain = find(attributes, 5).and_then(|bytes| address(family, bytes));
    // `struct rtvia`: an address of the other family.
    let via = || find(attributes, 18).and_then(|via| address(native(via.get(..2))? as u8, via.get(2..)?));
    let gateway = plain.or_else(via).map(|gateway: IpAddr| gateway.to_string());
    // One that is not told stands by its number.
    let device = device.filter(|device| *device != 0).map(|device| match names.get(&device) {
        Some(name) => format!("dev {}", printing::printable(name)),
        None => format!("dev {device}"),
    });
    let told: Vec<String> = gateway.into_iter().chain(device).collect();
    (!told.is_empty()).then(|| told.join(" "))
}

fn prefix(family: u8, bytes: Option<&[u8]>, length: u8) -> Option<String> {
    let all = [0; 16];
    Some(format!("{}/{length}", address(family, bytes.unwrap_or(&all))?))
}

fn table_name(table: u32) -> String {
    match table {
        253 => "default".to_owned(),
        254 => "main".to_owned(),
        LOCAL => "local".to_owned(),
        other => other.to_string(),
    }
}

fn protocol_name(protocol: u8) -> String {
    match protocol {
        0 => "unspecified".to_owned(),
        3 => "boot".to_owned(),
        4 => "static".to_owned(),
        other => other.to_string(),
    }
}

fn kind_name(kind: u8) -> &'static str {
    match kind {
        1 => "unicast",
        2 => "local",
        3 => "broadcast",
        4 => "anycast",
        5 => "multicast",
        6 => "blackhole",
        7 => "unreachable",
        8 => "prohibit",
        9 => "throw",
        10 => "nat",
        _ => "other",
    }
}

fn scope_name(scope: u8) -> Option<&'static str> {
    match scope {
        200 => Some("site"),
        253 => Some("link"),
        254 => Some("host"),
        255 => Some("nowhere"),
        _ => None,
    }
}

fn action_name(action: u8) -> &'static str {
    match action {
        1 => "lookup",
        2 => "goto",
        3 => "nop",
        6 => "blackhole",
        7 => "unreachable",
        8 => "prohibit",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::attribute;

    fn message(header: [u8; 8], attributes: &[Vec<u8>]) -> Vec<u8> {
        [&header[..], &[0; 4], &attributes.concat()].concat()
    }

    fn device(index: u32) -> Vec<u8> {
        attribute(4, &index.to_ne_bytes())
    }

    fn next_hop(index: u32, gateway: [u8; 4]) -> Vec<u8> {
        let gateway = attribute(5, &gateway);
        [&((8 + gateway.len()) as u16).to_ne_bytes()[..], &[0; 2], &index.to_ne_bytes(), &gateway].concat()
    }

    #[test]
    fn routes_are_told_as_ip_writes_them_and_those_that_come_by_themselves_are_not() {
        let names = Names::from([(2, b"eth0".to_vec()), (3, b"eth1".to_vec())]);
        let metric = |metric: u32| attribute(6, &metric.to_ne_bytes());
        let routes = [
            message([IPV4, 0, 0, 0, 254, 3, 0, 1], &[attribute(5, &[10, 0, 0, 1]), device(2)]),
            message([IPV4, 24, 0, 0, 254, 2, 253, 1], &[attribute(1, &[10, 0, 0, 0]), device(2)]),
            message([IPV4, 0, 0, 0, 254, 16, 0, 1], &[attribute(5, &[10, 0, 0, 9]), metric(100), device(2)]),
            message(
                [IPV4, 8, 0, 0, 254, 4, 0, 1],
                &[
                    attribute(1, &[172, 0, 0, 0]),
                    metric(50),
                    attribute(9, &[next_hop(3, [10, 1, 0, 1]), next_hop(2, [10, 0, 0, 2])].concat()),
                ],
            ),
            message([IPV4, 16, 0, 0, 0, 4, 0, 6], &[attribute(1, &[192, 168, 0, 0]), attribute(15, &1000_u32.to_ne_bytes())]),
            message([IPV6, 0, 0, 0, 254, 4, 0, 1], &[attribute(5, &[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), device(7)]),
            message([IPV6, 0, 0, 0, 254, 4, 0, 1], &[attribute(5, &[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]), device(2)]),
            message([IPV4, 32, 0, 0, LOCAL as u8, 4, 254, 2], &[attribute(1, &[10, 0, 0, 5])]),
        ];
        let rules = [
            message([IPV4, 0, 0, 0, 254, 0, 0, 1], &[attribute(6, &32766_u32.to_ne_bytes()), attribute(21, &[2])]),
            message(
                [IPV4, 0, 8, 0, 0, 0, 0, 1],
                &[
                    attribute(6, &100_u32.to_ne_bytes()),
                    attribute(2, &[10, 0, 0, 0]),
                    attribute(3, b"eth1\0"),
                    attribute(10, &16_u32.to_ne_bytes()),
                    attribute(15, &1000_u32.to_ne_bytes()),
                    attribute(21, &[3]),
                ],
            ),
        ];
        let told = routes.iter().filter_map(|bytes| route(bytes, &names)).chain(rules.iter().filter_map(|bytes| rule(bytes)));
        let shown: Vec<String> = together(told)
            .iter()
            .map(|(key, fields)| format!("{} {}", String::from_utf8_lossy(key), serde_json::to_string(fields).unwrap()))
            .collect();
        assert_eq!(
            shown,
            [
                r#"1000 192.168.0.0/16 {"protocol":"static","type":"blackhole"}"#,
                r#"main 0.0.0.0/0 {"gateways":["10.0.0.1 dev eth0"],"protocol":"boot","type":"unicast"}"#,
                r#"main 172.0.0.0/8 metric 50 {"gateways":["10.0.0.2 dev eth0","10.1.0.1 dev eth1"],"protocol":"static","type":"unicast"}"#,
                r#"main ::/0 {"gateways":["fe80::1 dev 7","fe80::2 dev eth0"],"protocol":"static","type":"unicast"}"#,
                r#"rule ipv4 100 from 10.0.0.0/8 iif eth1 fwmark 0x10 {"table":"1000","type":"lookup"}"#,
            ]
        );
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let told = route(&bytes, &Names::new()).into_iter().chain(rule(&bytes));
            together(told);
        }
    }
}
