//! What matches and targets of xtables were told, as `iptables -S` writes it where that is known here.
//!
//! Invariant: what is not understood to the last byte is told by its digits, or by a digest where they are many.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Network;
use super::datum::quotable;

const STATES: &[(u64, &str)] = &[(1, "INVALID"), (8, "NEW"), (4, "RELATED"), (2, "ESTABLISHED"), (0x40, "UNTRACKED")];

/// Begins with a blank, if it is not empty. `network`: what the packet is of, where that is known.
pub fn extension(name: &[u8], revision: u64, data: &[u8], network: Option<Network>) -> String {
    const SHOWN: usize = 32;
    let end = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let told = &data[..end];
    let known = match (name, revision) {
        (b"comment", 0) if !told.is_empty() && !told.contains(&0) => Some(format!(" \"{}\"", quotable(told))),
        (b"tcp", 0) => tcp(data),
        (b"udp", 0) => udp(data),
        (b"conntrack", 2..=3) => states(data),
        (b"LOG", 0) => log(data),
        (b"multiport", 1) => ports_of_many(data),
        (b"REJECT", 0) => reject(data, network),
        (b"SNAT", _) => translation(" --to-source ", revision, data, network),
        (b"DNAT", _) => translation(" --to-destination ", revision, data, network),
        (b"MASQUERADE" | b"REDIRECT", 0) => translation(" --to-ports ", revision, data, network),
        _ => None,
    };
    known.unwrap_or_else(|| {
        let revision = if revision == 0 { String::new() } else { format!(" revision {revision}") };
        match told {
            [] => revision,
            told if told.len() <= SHOWN => format!("{revision} 0x{}", hex::encode(told)),
            told => format!("{revision} sha256 {}", super::digest(told)),
        }
    })
}

/// `struct xt_log_info`: level, flags, prefix.
fn log(data: &[u8]) -> Option<String> {
    const WARNING: u8 = 4;
    let (&[level, flags], prefix) = (data.first_chunk::<2>()?, data.get(2..32)?);
    let text = crate::netlink::until_zero(prefix);
    if flags != 0 || prefix[text.len()..].iter().any(|byte| *byte != 0) {
        return None;
    }
    let prefix = if text.is_empty() { String::new() } else { format!(" --log-prefix \"{}\"", quotable(text)) };
    let level = if level == WARNING { String::new() } else { format!(" --log-level {level}") };
    Some(prefix + &level)
}

/// `struct xt_tcp`.
fn tcp(data: &[u8]) -> Option<String> {
    let rest = data.get(8..12)?;
    // An option, flags: rarely asked for, and told by their digits.
    let [0, 0, 0, inverted] = *rest else { return None };
    ports(data, inverted)
}

/// `struct xt_udp`.
fn udp(data: &[u8]) -> Option<String> {
    ports(data, *data.get(8)?)
}

/// Both begin with them: the least and last source port, the same of the destination, in the processor's byte order.
fn ports(data: &[u8], inverted: u8) -> Option<String> {
    const SOURCE: u8 = 1;
    const DESTINATION: u8 = 2;
    const ANY: (u16, u16) = (0, u16::MAX);
    if inverted & !(SOURCE | DESTINATION) != 0 || data.get(12..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0)) {
        return None;
    }
    let port = |place: usize| data.get(place..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
    let mut told = String::new();
    for (option, range, flag) in [("--sport", (port(0)?, port(2)?), SOURCE), ("--dport", (port(4)?, port(6)?), DESTINATION)] {
        let not = if inverted & flag != 0 { " !" } else { "" };
        match range {
            ANY if not.is_empty() => {}
            (first, last) if first == last => told += &format!("{not} {option} {first}"),
            (first, last) => told += &format!("{not} {option} {first}:{last}"),
        }
    }
    Some(told)
}

/// `struct xt_conntrack_mtinfo2` and `3`, where they ask for the connection's state and nothing else.
fn states(data: &[u8]) -> Option<String> {
    /// Where the flags of what is asked and of what is turned round are, and the states.
    const FLAGS: usize = 146;
    const STATE: u16 = 1;
    let half = |place: usize| data.get(place..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes));
    let (asked, inverted, states) = (half(FLAGS)?, half(FLAGS + 2)?, half(FLAGS + 4)?);
    let is_rest_empty = data.iter().enumerate().all(|(at, byte)| *byte == 0 || (FLAGS..FLAGS + 6).contains(&at));
    if asked != STATE || inverted & !STATE != 0 || !is_rest_empty {
        return None;
    }
    let names = super::bits(states.into(), STATES);
    Some(if inverted == 0 { format!(" --ctstate {names}") } else { format!(" ! --ctstate {names}") })
}

/// `struct xt_multiport_v1`: which ports, how many, the ports, which of them begin a range, whether it is turned round.
fn ports_of_many(data: &[u8]) -> Option<String> {
    const MOST: usize = 15;
    let option = *["--sports", "--dports", "--ports"].get(usize::from(*data.first()?))?;
    let (count, begins) = (usize::from(*data.get(1)?), data.get(32..32 + MOST)?);
    let not = match data.get(47)? {
        0 => "",
        1 => " !",
        _ => return None,
    };
    let ports = data.get(2..2 + 2 * count.min(MOST))?.chunks_exact(2).map(|port| u16::from_ne_bytes([port[0], port[1]]));
    let is_rest_empty = data[2 + 2 * count.min(MOST)..32].iter().chain(&begins[count.min(MOST)..]).all(|byte| *byte == 0);
    if count == 0 || count > MOST || !is_rest_empty || data.len() < 48 || data[48..].iter().any(|byte| *byte != 0) {
        return None;
    }
    let mut told = String::new();
    for (place, port) in ports.enumerate() {
        let separator = if place == 0 {
            ""
        } else if begins[place - 1] != 0 {
            ":"
        } else {
            ","
        };
        told += &format!("{separator}{port}");
    }
    Some(format!("{not} {option} {told}"))
}

/// `struct ipt_reject_info` and `ip6t_reject_info`.
fn reject(data: &[u8], network: Option<Network>) -> Option<String> {
    const IP: [&str; 9] = [
        "icmp-net-unreachable",
        "icmp-host-unreachable",
        "icmp-proto-unreachable",
        "icmp-port-unreachable",
        "echo-reply",
        "icmp-net-prohibited",
        "icmp-host-prohibited",
        "tcp-reset",
        "icmp-admin-prohibited",
    ];
    const IP6: [&str; 9] = [
        "icmp6-no-route",
        "icmp6-adm-prohibited",
        "icmp6-not-neighbour",
        "icmp6-addr-unreachable",
        "icmp6-port-unreachable",
        "echo-reply",
        "tcp-reset",
        "icmp6-policy-fail",
        "icmp6-reject-route",
    ];
    let (with, rest) = data.split_first_chunk()?;
    let names = match network? {
        Network::Ip => IP,
        Network::Ip6 => IP6,
        Network::Arp => return None,
    };
    let name = names.get(u32::from_ne_bytes(*with) as usize)?;
    rest.iter().all(|byte| *byte == 0).then(|| format!(" --reject-with {name}"))
}

/// `struct nf_nat_ipv4_multi_range_compat` in the first revision, `nf_nat_range` and `nf_nat_range2` in the others: flags, the least
/// and the last address, the same of ports.
fn translation(option: &str, revision: u64, data: &[u8], network: Option<Network>) -> Option<String> {
    const ADDRESSES: u32 = 1;
    const PORTS: u32 = 2;
    const FLAGS: [(u32, &str); 3] = [(4, " --random"), (8, " --persistent"), (16, " --random-fully")];
    let word = |at: usize| data.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    let (flags_at, width) = match (revision, network?) {
        // One range, which is all that there ever is.
        (0, Network::Ip) if word(0)? == 1 => (4, 4),
        (1 | 2, Network::Ip | Network::Ip6) => (0, 16),
        _ => return None,
    };
    let flags = word(flags_at)?;
    let (least, most, ports) = (flags_at + 4, flags_at + 4 + width, flags_at + 4 + 2 * width);
    let known = FLAGS.iter().fold(ADDRESSES | PORTS, |known, (flag, _)| known | flag);
    let port = |at: usize| data.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
    let is_empty = |part: &[u8]| part.iter().all(|byte| *byte == 0);
    let is_unused = |given: u32, from: usize, to: usize| flags & given != 0 || data.get(from..to).is_some_and(is_empty);
    if flags & !known != 0
        || !is_unused(ADDRESSES, least, ports)
        || !is_unused(PORTS, ports, ports + 4)
        || !is_empty(data.get(ports + 4..)?)
    {
        return None;
    }
    let is_ip = network == Some(Network::Ip);
    let address = |at: usize| {
        let bytes = data.get(at..at + width)?;
        if is_ip {
            let (first, rest) = bytes.split_first_chunk::<4>()?;
            return is_empty(rest).then(|| Ipv4Addr::from(*first).to_string());
        }
        Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).to_string())
    };
    let between = |first: String, last: String| if first == last { first } else { format!("{first}-{last}") };
    let mut to = String::new();
    if flags & ADDRESSES != 0 {
        to = between(address(least)?, address(most)?);
        if !is_ip && flags & PORTS != 0 {
            to = format!("[{to}]");
        }
    }
    if flags & PORTS != 0 {
        let colon = if option == " --to-ports " { "" } else { ":" };
        to += &format!("{colon}{}", between(port(ports)?.to_string(), port(ports + 2)?.to_string()));
    }
    let mut told = if to.is_empty() { String::new() } else { format!("{option}{to}") };
    FLAGS.iter().filter(|(flag, _)| flags & flag != 0).for_each(|(_, word)| told += word);
    Some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_ip(name: &[u8], revision: u64, data: &[u8]) -> String {
        extension(name, revision, data, Some(Network::Ip))
    }

    #[test]
    fn extensions_are_told_as_iptables_tells_them_and_what_is_more_by_its_digits() {
        let mut range = [0; 44];
        range[0] = 3;
        range[4..8].copy_from_slice(&[172, 17, 0, 2]);
        range[20..24].copy_from_slice(&[172, 17, 0, 9]);
        range[36..40].copy_from_slice(&[0, 80, 0, 81]);
        assert_eq!(of_ip(b"DNAT", 2, &range), " --to-destination 172.17.0.2-172.17.0.9:80-81");
        assert_eq!(extension(b"DNAT", 2, &range, Some(Network::Ip6)), " --to-destination [ac11:2::-ac11:9::]:80-81");
        // A port that the new range would be worked out from.
        range[40] = 1;
        assert!(of_ip(b"DNAT", 2, &range).starts_with(" revision 2 sha256 "));
        let one = [1, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4, 1, 2, 3, 4, 0, 0, 0, 0];
        assert_eq!(of_ip(b"SNAT", 0, &one), " --to-source 1.2.3.4");
        assert_eq!(of_ip(b"MASQUERADE", 0, &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), "");
        let mut ports = [0; 48];
        ports[..2].copy_from_slice(&[1, 3]);
        for (at, port) in [22_u16, 80, 90].into_iter().enumerate() {
            ports[2 + 2 * at..4 + 2 * at].copy_from_slice(&port.to_ne_bytes());
        }
        ports[33] = 1;
        assert_eq!(of_ip(b"multiport", 1, &ports), " --dports 22,80:90");
        assert_eq!(of_ip(b"REJECT", 0, &3u32.to_ne_bytes()), " --reject-with icmp-port-unreachable");
        assert_eq!(of_ip(b"novel", 3, &[1, 2, 0]), " revision 3 0x0102");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_an_extension(data in proptest::collection::vec(0_u8..4, 0..200), at in 0_usize..10, revision in 0_u64..4) {
            let names: [&[u8]; 10] =
                [b"comment", b"tcp", b"udp", b"conntrack", b"LOG", b"multiport", b"REJECT", b"SNAT", b"DNAT", b"MASQUERADE"];
            for network in [None, Some(Network::Ip), Some(Network::Ip6), Some(Network::Arp)] {
                let told = extension(names[at], revision, &data, network);
                proptest::prop_assert!(!told.chars().any(char::is_control));
            }
        }
    }
}
