//! Values of packets as nft writes them, by its own types.
//!
//! Invariant: two values of one type and one length that differ are written differently.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A type of nft's, as far as it decides how a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datatype {
    /// In hexadecimal digits: of no type that is known here.
    Integer,
    Verdict,
    Ipv4,
    Ipv6,
    Ether,
    EtherType,
    Family,
    Protocol,
    Port,
    Icmp,
    Icmpv6,
    TcpFlags,
    Mark,
    /// An interface's number: its name is not told.
    Interface,
    Name,
    Number,
    PacketType,
    State,
    Status,
    Direction,
    AddressType,
    /// Whether there is one.
    Existence,
}

use Datatype::{
    AddressType, Direction, Ether, EtherType, Existence, Family, Icmp, Icmpv6, Integer, Interface, Ipv4, Ipv6, Mark, Name, Number,
    PacketType, Port, Protocol, State, Status, TcpFlags, Verdict,
};

const PROTOCOLS: &[(u64, &str)] = &[
    (1, "icmp"),
    (2, "igmp"),
    (6, "tcp"),
    (17, "udp"),
    (33, "dccp"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "ipv6-icmp"),
    (132, "sctp"),
    (136, "udplite"),
];
const ETHER_TYPES: &[(u64, &str)] = &[(0x0800, "ip"), (0x0806, "arp"), (0x86dd, "ip6"), (0x8100, "8021q"), (0x88a8, "8021ad")];
const ICMP_TYPES: &[(u64, &str)] = &[
    (0, "echo-reply"),
    (3, "destination-unreachable"),
    (4, "source-quench"),
    (5, "redirect"),
    (8, "echo-request"),
    (9, "router-advertisement"),
    (10, "router-solicitation"),
    (11, "time-exceeded"),
    (12, "parameter-problem"),
    (13, "timestamp-request"),
    (14, "timestamp-reply"),
    (15, "info-request"),
    (16, "info-reply"),
    (17, "address-mask-request"),
    (18, "address-mask-reply"),
];
const ICMPV6_TYPES: &[(u64, &str)] = &[
    (1, "destination-unreachable"),
    (2, "packet-too-big"),
    (3, "time-exceeded"),
    (4, "parameter-problem"),
    (128, "echo-request"),
    (129, "echo-reply"),
    (130, "mld-listener-query"),
    (131, "mld-listener-report"),
    (132, "mld-listener-done"),
    (133, "nd-router-solicit"),
    (134, "nd-router-advert"),
    (135, "nd-neighbor-solicit"),
    (136, "nd-neighbor-advert"),
    (137, "nd-redirect"),
    (138, "router-renumbering"),
    (141, "ind-neighbor-solicit"),
    (142, "ind-neighbor-advert"),
    (143, "mld2-listener-report"),
];
const TCP_FLAGS: &[(u64, &str)] =
    &[(1, "fin"), (2, "syn"), (4, "rst"), (8, "psh"), (0x10, "ack"), (0x20, "urg"), (0x40, "ecn"), (0x80, "cwr")];
const STATES: &[(u64, &str)] = &[(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (0x40, "untracked")];
const STATUSES: &[(u64, &str)] =
    &[(1, "expected"), (2, "seen-reply"), (4, "assured"), (8, "confirmed"), (0x10, "snat"), (0x20, "dnat"), (0x200, "dying")];
const ADDRESS_TYPES: &[(u64, &str)] = &[
    (0, "unspec"),
    (1, "unicast"),
    (2, "local"),
    (3, "broadcast"),
    (4, "anycast"),
    (5, "multicast"),
    (6, "blackhole"),
    (7, "unreachable"),
    (8, "prohibit"),
];

/// nft's types by their numbers: name, bytes in a concatenation (0: they vary), how a value is written.
const TYPES: &[(u64, &str, usize, Datatype)] = &[
    (1, "verdict", 0, Verdict),
    (2, "nf_proto", 1, Family),
    (5, "string", 0, Name),
    (7, "ipv4_addr", 4, Ipv4),
    (8, "ipv6_addr", 16, Ipv6),
    (9, "ether_addr", 6, Ether),
    (10, "ether_type", 2, EtherType),
    (12, "inet_proto", 1, Protocol),
    (13, "inet_service", 2, Port),
    (14, "icmp_type", 1, Icmp),
    (15, "tcp_flag", 1, TcpFlags),
    (19, "mark", 4, Mark),
    (20, "iface_index", 4, Interface),
    (24, "uid", 4, Number),
    (25, "gid", 4, Number),
    (26, "ct_state", 4, State),
    (27, "ct_dir", 1, Direction),
    (28, "ct_status", 4, Status),
    (29, "icmpv6_type", 1, Icmpv6),
    (31, "pkt_type", 1, PacketType),
    (38, "fib_addrtype", 4, AddressType),
    (41, "ifname", 16, Name),
];
const TYPE_BITS: u32 = 6;

/// The types of a set's key or data, each with its bytes where they are known: several for a concatenation.
pub fn datatypes(number: u64) -> Vec<(String, usize, Datatype)> {
    let digit = |place: u32| number >> (place * TYPE_BITS) & ((1 << TYPE_BITS) - 1);
    let places = (0..5).rev().skip_while(|place| *place > 0 && digit(*place) == 0);
    places
        .map(|place| match TYPES.iter().find(|(known, ..)| *known == digit(place)) {
            Some((_, name, bytes, datatype)) => ((*name).to_owned(), *bytes, *datatype),
            None if digit(place) == 4 => ("integer".to_owned(), 0, Integer),
            None => (format!("type {}", digit(place)), 0, Integer),
        })
        .collect()
}

impl Datatype {
    /// Whether several of its values can hold at once, and are written with commas between them.
    pub fn is_mask(self) -> bool {
        matches!(self, TcpFlags | State | Status)
    }

    /// Whether the kernel keeps it in the processor's byte order.
    pub fn is_in_host_order(self) -> bool {
        matches!(self, Mark | Interface | Number | State | Status | AddressType)
    }

    /// `is_big`: the most significant byte comes first.
    pub fn write(self, bytes: &[u8], is_big: bool) -> String {
        let number = number(bytes, is_big);
        let named = |names: &'static [(u64, &'static str)]| {
            number.and_then(|number| names.iter().find(|(known, _)| *known == number)).map(|(_, n)| *n)
        };
        let named_or_number = |names: &'static [(u64, &'static str)]| named(names).map(str::to_owned).or_else(|| Some(number?.to_string()));
        let written = match self {
            Integer | Verdict => None,
            Ipv4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).to_string()),
            Ipv6 => <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).to_string()),
            Ether => (bytes.len() == 6).then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")),
            EtherType => named(ETHER_TYPES).map(str::to_owned),
            Family => named_or_number(&[(2, "ipv4"), (10, "ipv6")]),
            Protocol => named_or_number(PROTOCOLS),
            Icmp => named_or_number(ICMP_TYPES),
            Icmpv6 => named_or_number(ICMPV6_TYPES),
            PacketType => named_or_number(&[(0, "host"), (1, "broadcast"), (2, "multicast"), (3, "other")]),
            Direction => named_or_number(&[(0, "original"), (1, "reply")]),
            AddressType => named_or_number(ADDRESS_TYPES),
            Existence => named_or_number(&[(0, "missing"), (1, "exists")]),
            Port | Interface | Number => number.map(|number| number.to_string()),
            Mark => number.map(|number| format!("{number:#010x}")),
            TcpFlags => number.and_then(|number| flags(number, TCP_FLAGS)),
            State => number.and_then(|number| flags(number, STATES)),
            Status => number.and_then(|number| flags(number, STATUSES)),
            Name => interface(bytes),
        };
        written.unwrap_or_else(|| hexadecimal(bytes, is_big))
    }
}

/// The number that up to eight bytes make.
pub fn number(bytes: &[u8], is_big: bool) -> Option<u64> {
    let shift = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
    let is_first_low = cfg!(target_endian = "little") && !is_big;
    (1..=8).contains(&bytes.len()).then(|| if is_first_low { bytes.iter().rev().fold(0, shift) } else { bytes.iter().fold(0, shift) })
}

pub fn hexadecimal(bytes: &[u8], is_big: bool) -> String {
    match number(bytes, is_big) {
        Some(number) => format!("{number:#0width$x}", width = 2 + 2 * bytes.len()),
        None => format!("0x{}", hex::encode(bytes)),
    }
}

/// `None` where a bit has no name.
fn flags(number: u64, names: &[(u64, &str)]) -> Option<String> {
    let set: Vec<&str> = names.iter().filter(|(bit, _)| number & bit != 0).map(|(_, name)| *name).collect();
    let known = names.iter().fold(0, |bits, (bit, _)| bits | bit);
    match number {
        0 => Some("0".to_owned()),
        number if number & !known == 0 => Some(set.join(",")),
        _ => None,
    }
}

/// `"eth0"`; `"eth*"` for the beginning of a name. `None` for what no interface can be called.
fn interface(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0);
    let name = &bytes[..end.unwrap_or(bytes.len())];
    let is_rest_empty = bytes[name.len()..].iter().all(|byte| *byte == 0);
    let is_whole = end.is_some() && (bytes.len() == 16 || end == Some(bytes.len() - 1));
    let star = if end.is_none() { "*" } else { "" };
    (is_rest_empty && (is_whole || end.is_none()) && !name.contains(&b'*')).then(|| format!("\"{}{star}\"", quotable(name)))
}

/// As text between quotation marks.
pub fn quotable(bytes: &[u8]) -> String {
    crate::text::printable(bytes).replace('"', "\\x22")
}

/// The length of the prefix that a mask makes.
pub fn prefix(mask: &[u8]) -> Option<usize> {
    let ones: usize = mask.iter().take_while(|byte| **byte == 0xff).count();
    let last = mask.get(ones).copied().unwrap_or(0);
    let bits = ones * 8 + last.leading_ones() as usize;
    let is_contiguous = last.count_ones() == last.leading_ones() && mask.iter().skip(ones + 1).all(|byte| *byte == 0);
    is_contiguous.then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_written_as_nft_writes_them() {
        for (datatype, bytes, is_big, written) in [
            (Ipv4, &[10, 0, 0, 1][..], true, "10.0.0.1"),
            (Port, &[1, 187], true, "443"),
            (Ether, &[2, 0, 0, 0, 0, 0x1f], true, "02:00:00:00:00:1f"),
            (State, &6u32.to_ne_bytes(), false, "established,related"),
            (State, &0x80u32.to_ne_bytes(), false, "0x00000080"),
            (Mark, &1u32.to_ne_bytes(), false, "0x00000001"),
            (Name, b"eth0\0\0\0\0\0\0\0\0\0\0\0\0", false, "\"eth0\""),
            (Name, b"eth", false, "\"eth*\""),
            (Name, b"a\"\x1b\0", false, "\"a\\x22\\x1b\""),
            (Ipv4, &[1, 2], true, "0x0102"),
        ] {
            assert_eq!(datatype.write(bytes, is_big), written);
        }
        let names = |number| datatypes(number).into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
        assert_eq!(names(7), ["ipv4_addr"]);
        assert_eq!(names(7 << 12 | 12 << 6 | 13), ["ipv4_addr", "inet_proto", "inet_service"]);
        assert_eq!(names(0), ["type 0"]);
        assert_eq!((prefix(&[255, 240, 0]), prefix(&[255, 0, 255]), prefix(&[0, 0])), (Some(12), None, Some(0)));
    }

    proptest! {
        #[test]
        fn what_differs_is_written_differently(a in proptest::collection::vec(any::<u8>(), 0..20), at: usize, byte: u8, is_big: bool) {
            let mut b = a.clone();
            if !b.is_empty() {
                let at = at % b.len();
                b[at] = byte;
            }
            let all = TYPES.iter().map(|(.., datatype)| *datatype).chain([Integer, Existence]);
            for datatype in all {
                prop_assert_eq!(a == b, datatype.write(&a, is_big) == datatype.write(&b, is_big), "{:?}", datatype);
            }
        }
    }
}
