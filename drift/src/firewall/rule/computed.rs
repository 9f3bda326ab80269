//! Values that are worked out rather than read: options of headers, routes, sockets, hashes.

use super::Rule;
use crate::firewall::datum::Datatype;
use crate::firewall::register::Source;
use crate::netlink::{attributes, number};

impl Rule<'_> {
    pub(super) fn extension_header(&mut self, data: &[u8]) -> Option<()> {
        let (kind, offset, length) = (number(data, 2)?, number(data, 3)?, number(data, 4)?);
        let is_presence = number(data, 5).unwrap_or(0) & 1 != 0;
        let header = match number(data, 6).unwrap_or(0) {
            0 => "exthdr",
            1 => "tcp option",
            2 => "ip option",
            3 => "sctp chunk",
            4 => "dccp option",
            _ => return None,
        };
        const SEGMENT_SIZE: (&str, u64, u64, u64) = ("tcp option", 2, 2, 2);
        let (name, datatype) = match (header, kind, offset, length) {
            _ if is_presence => (format!("{header} {kind}"), Datatype::Existence),
            SEGMENT_SIZE => ("tcp option maxseg size".to_owned(), Datatype::Number),
            _ => (format!("{header} @{kind},{},{}", offset.saturating_mul(8), length.saturating_mul(8)), Datatype::Integer),
        };
        match (number(data, 7), number(data, 1)) {
            (Some(register), _) => {
                let value = self.value(register, Datatype::Port)?;
                self.clauses.push(format!("{name} set {value}"));
            }
            (None, Some(register)) => {
                let length = if is_presence { 1 } else { length as usize };
                self.registers.store(register, Source { is_host_order: false, ..Source::named(name, datatype, length) });
            }
            (None, None) => self.clauses.push(format!("reset {name}")),
        }
        Some(())
    }

    pub(super) fn computed(&mut self, name: &[u8], data: &[u8]) -> Option<()> {
        let (register, source) = match name {
            b"fib" => (number(data, 1)?, fib(data)?),
            b"rt" => {
                let (name, datatype, length) = match number(data, 2)? {
                    0 => ("rt classid", Datatype::Number, 4),
                    1 => ("rt ip nexthop", Datatype::Ipv4, 4),
                    2 => ("rt ip6 nexthop", Datatype::Ipv6, 16),
                    3 => ("rt mtu", Datatype::Number, 2),
                    4 => ("rt ipsec", Datatype::Existence, 1),
                    _ => return None,
                };
                (number(data, 1)?, Source { is_host_order: matches!(datatype, Datatype::Number), ..Source::named(name, datatype, length) })
            }
            b"socket" => {
                let (name, datatype, length) = match number(data, 1)? {
                    0 => ("socket transparent".to_owned(), Datatype::Number, 1),
                    1 => ("socket mark".to_owned(), Datatype::Mark, 4),
                    2 => ("socket wildcard".to_owned(), Datatype::Number, 1),
                    // A cgroup's number, which is another after each start of its unit.
                    3 => (format!("socket cgroupv2 level {}", number(data, 3).unwrap_or(0)), Datatype::Number, 8),
                    _ => return None,
                };
                (number(data, 2)?, Source::named(name, datatype, length))
            }
            b"numgen" => {
                let word = ["inc", "random"].get(number(data, 3)? as usize)?;
                let offset = number(data, 4).filter(|offset| *offset != 0).map(|offset| format!(" offset {offset}")).unwrap_or_default();
                (number(data, 1)?, Source::named(format!("numgen {word} mod {}{offset}", number(data, 2)?), Datatype::Number, 4))
            }
            b"hash" => (number(data, 2)?, self.hash(data)?),
            _ => {
                // Known to write one register and no other; what it is asked is told by its digits.
                let register_at = if name == b"tunnel" { 2 } else { 1 };
                let asked = attributes(data).filter(|(attribute, _)| *attribute != register_at);
                let asked: String = asked.map(|(attribute, value)| format!(" {attribute}={}", hex::encode(value))).collect();
                (number(data, register_at)?, Source::named(format!("[{}{asked}]", crate::firewall::name(name)), Datatype::Integer, 16))
            }
        };
        self.registers.store(register, source);
        Some(())
    }

    fn hash(&mut self, data: &[u8]) -> Option<Source> {
        const SYMMETRIC: u64 = 1;
        let mut name = if number(data, 7) == Some(SYMMETRIC) {
            "symhash".to_owned()
        } else {
            let sources = self.registers.concatenation(number(data, 1)?, number(data, 3)? as usize)?;
            let sources: Vec<String> = sources.iter().map(|source| self.masked_words(source).0).collect();
            format!("jhash {}", sources.join(" . "))
        };
        name += &format!(" mod {}", number(data, 4)?);
        for (attribute, word) in [(5, "seed"), (6, "offset")] {
            name += &number(data, attribute).filter(|number| *number != 0).map(|number| format!(" {word} {number:#x}")).unwrap_or_default();
        }
        Some(Source::named(name, Datatype::Number, 4))
    }
}

fn fib(data: &[u8]) -> Option<Source> {
    const PRESENT: u64 = 1 << 5;
    const ASKED: [&str; 5] = ["saddr", "daddr", "mark", "iif", "oif"];
    let flags = number(data, 3)?;
    let asked: Vec<&str> = ASKED.iter().enumerate().filter(|(bit, _)| flags & 1 << bit != 0).map(|(_, name)| *name).collect();
    let (result, datatype, length) = match number(data, 2)? {
        1 => ("oif", Datatype::Interface, 4),
        2 => ("oifname", Datatype::Name, 16),
        3 => ("type", Datatype::AddressType, 4),
        _ => return None,
    };
    let datatype = if flags & PRESENT != 0 { Datatype::Existence } else { datatype };
    let is_host_order = datatype != Datatype::Name;
    Some(Source { is_host_order, ..Source::named(format!("fib {} {result}", asked.join(" . ")), datatype, length) })
}
