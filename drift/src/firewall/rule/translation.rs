//! Rules that send a packet elsewhere: translated, redirected, copied or forwarded.

use super::Rule;
use crate::firewall::Network;
use crate::firewall::datum::Datatype;
use crate::netlink::number;

const FLAGS: &[(u64, &str)] = &[(4, "random"), (8, "persistent"), (16, "fully-random"), (64, "prefix")];
/// The kernel's own marks of what else was given.
const GIVEN: u64 = 1 | 2;

impl Rule<'_> {
    pub(super) fn translation(&mut self, name: &[u8], data: &[u8]) -> Option<String> {
        // Where the attributes are: the family, the least and the last address, the same of ports, the flags.
        let (word, family, addresses, ports, flags) = match name {
            b"nat" if number(data, 1)? == 0 => ("snat", Some(2), (3, 4), (5, 6), 7),
            b"nat" if number(data, 1)? == 1 => ("dnat", Some(2), (3, 4), (5, 6), 7),
            b"masq" => ("masquerade", None, (0, 0), (2, 3), 1),
            b"redir" => ("redirect", None, (0, 0), (1, 2), 3),
            b"tproxy" => ("tproxy", Some(1), (2, 2), (3, 3), 0),
            b"dup" => return self.elsewhere("dup", number(data, 1), number(data, 2)),
            b"fwd" => return self.elsewhere("fwd", number(data, 2), number(data, 1)),
            _ => return None,
        };
        let family = family.and_then(|attribute| number(data, attribute)).and_then(|family| Network::of_family(family as u8));
        let datatype = match family.or(self.network) {
            Some(Network::Ip) => Datatype::Ipv4,
            Some(Network::Ip6) => Datatype::Ipv6,
            _ => Datatype::Integer,
        };
        let mut clause = word.to_owned();
        if let Some(family) = family.filter(|family| Some(*family) != self.network) {
            clause += &format!(" {}", family.word());
        }
        let from = number(data, addresses.0);
        let is_port_within = |register| from.is_some_and(|from| self.registers.is_within(register, from));
        let is_joint = number(data, ports.0).is_some_and(is_port_within);
        let address = self.between(data, addresses, datatype)?;
        let port = if is_joint { None } else { self.between(data, ports, Datatype::Port)? };
        if is_joint {
            clause += " addr . port";
        }
        match (address, port) {
            (None, None) => {}
            (Some(address), None) => clause += &format!(" to {address}"),
            (None, Some(port)) => clause += &format!(" to :{port}"),
            (Some(address), Some(port)) if datatype == Datatype::Ipv6 => clause += &format!(" to [{address}]:{port}"),
            (Some(address), Some(port)) => clause += &format!(" to {address}:{port}"),
        }
        let flags = crate::firewall::bits(number(data, flags).unwrap_or(0) & !GIVEN, FLAGS);
        if !flags.is_empty() {
            clause += &format!(" {flags}");
        }
        Some(clause)
    }

    /// What two registers span. `Some(None)`: there are none; `None`: what they hold is not known.
    fn between(&mut self, data: &[u8], (first, last): (u16, u16), datatype: Datatype) -> Option<Option<String>> {
        let Some(register) = number(data, first) else { return Some(None) };
        let least = self.value(register, datatype)?;
        let Some(other) = number(data, last).filter(|other| *other != register) else { return Some(Some(least)) };
        if self.registers.is_within(other, register) {
            // Both ends come from one element of a map.
            return Some(Some(format!("interval {least}")));
        }
        let most = self.value(other, datatype)?;
        Some(Some(if most == least { least } else { format!("{least}-{most}") }))
    }

    fn elsewhere(&mut self, word: &str, address: Option<u64>, device: Option<u64>) -> Option<String> {
        let datatype = match self.network {
            Some(Network::Ip) => Datatype::Ipv4,
            Some(Network::Ip6) => Datatype::Ipv6,
            _ => Datatype::Integer,
        };
        let mut clause = word.to_owned();
        if let Some(register) = address {
            clause += &format!(" to {}", self.value(register, datatype)?);
        }
        if let Some(register) = device {
            clause += &format!(" device {}", self.value(register, Datatype::Interface)?);
        }
        Some(clause)
    }
}
