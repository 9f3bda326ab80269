//! What a rule can look at: fields of headers, and what the kernel knows of a packet, by nft's names.

use super::datum::Datatype::{
    self, Direction, Ether, EtherType, Family, Icmp, Icmpv6, Integer, Interface, Ipv4, Ipv6, Mark, Name, Number, PacketType, Port,
    Protocol, State, Status, TcpFlags,
};

/// A field of a header: offset and length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    pub offset: usize,
    pub length: usize,
    pub datatype: Datatype,
}

const fn field(name: &'static str, offset: usize, length: usize, datatype: Datatype) -> Field {
    Field { name, offset, length, datatype }
}

pub const ETHER: &[Field] = &[field("ether daddr", 0, 6, Ether), field("ether saddr", 6, 6, Ether), field("ether type", 12, 2, EtherType)];

pub const IP: &[Field] = &[
    field("ip length", 2, 2, Number),
    field("ip id", 4, 2, Number),
    field("ip frag-off", 6, 2, Integer),
    field("ip ttl", 8, 1, Number),
    field("ip protocol", 9, 1, Protocol),
    field("ip checksum", 10, 2, Number),
    field("ip saddr", 12, 4, Ipv4),
    field("ip daddr", 16, 4, Ipv4),
];

pub const IP6: &[Field] = &[
    field("ip6 length", 4, 2, Number),
    field("ip6 nexthdr", 6, 1, Protocol),
    field("ip6 hoplimit", 7, 1, Number),
    field("ip6 saddr", 8, 16, Ipv6),
    field("ip6 daddr", 24, 16, Ipv6),
];

pub const ARP: &[Field] = &[
    field("arp htype", 0, 2, Number),
    field("arp ptype", 2, 2, EtherType),
    field("arp hlen", 4, 1, Number),
    field("arp plen", 5, 1, Number),
    field("arp operation", 6, 2, Number),
    field("arp saddr ether", 8, 6, Ether),
    field("arp saddr ip", 14, 4, Ipv4),
    field("arp daddr ether", 18, 6, Ether),
    field("arp daddr ip", 24, 4, Ipv4),
];

const TCP: &[Field] = &[
    field("tcp sport", 0, 2, Port),
    field("tcp dport", 2, 2, Port),
    field("tcp sequence", 4, 4, Number),
    field("tcp ackseq", 8, 4, Number),
    field("tcp flags", 13, 1, TcpFlags),
    field("tcp window", 14, 2, Number),
    field("tcp checksum", 16, 2, Number),
    field("tcp urgptr", 18, 2, Number),
];

const UDP: &[Field] = &[
    field("udp sport", 0, 2, Port),
    field("udp dport", 2, 2, Port),
    field("udp length", 4, 2, Number),
    field("udp checksum", 6, 2, Number),
];

const SCTP: &[Field] = &[field("sctp sport", 0, 2, Port), field("sctp dport", 2, 2, Port), field("sctp vtag", 4, 4, Number)];

const DCCP: &[Field] = &[field("dccp sport", 0, 2, Port), field("dccp dport", 2, 2, Port)];

const UDPLITE: &[Field] = &[field("udplite sport", 0, 2, Port), field("udplite dport", 2, 2, Port)];

const ICMP: &[Field] = &[
    field("icmp type", 0, 1, Icmp),
    field("icmp code", 1, 1, Number),
    field("icmp checksum", 2, 2, Number),
    field("icmp id", 4, 2, Number),
    field("icmp sequence", 6, 2, Number),
];

const ICMPV6: &[Field] = &[
    field("icmpv6 type", 0, 1, Icmpv6),
    field("icmpv6 code", 1, 1, Number),
    field("icmpv6 checksum", 2, 2, Number),
    field("icmpv6 id", 4, 2, Number),
    field("icmpv6 sequence", 6, 2, Number),
];

/// Where the protocol is not known: what those with ports have in common.
pub const PORTS: &[Field] = &[field("th sport", 0, 2, Port), field("th dport", 2, 2, Port)];

/// The header of a protocol by its number.
pub fn transport(protocol: u8) -> Option<&'static [Field]> {
    Some(match protocol {
        1 => ICMP,
        6 => TCP,
        17 => UDP,
        33 => DCCP,
        58 => ICMPV6,
        132 => SCTP,
        136 => UDPLITE,
        _ => return None,
    })
}

pub const META_PROTOCOL: u64 = 1;
pub const META_FAMILY: u64 = 15;
pub const META_L4PROTO: u64 = 16;

/// By `enum nft_meta_keys`.
const META: &[(&str, Datatype)] = &[
    ("meta length", Number),
    ("meta protocol", EtherType),
    ("meta priority", Integer),
    ("meta mark", Mark),
    ("iif", Interface),
    ("oif", Interface),
    ("iifname", Name),
    ("oifname", Name),
    ("meta iiftype", Number),
    ("meta oiftype", Number),
    ("meta skuid", Number),
    ("meta skgid", Number),
    ("meta nftrace", Number),
    ("meta rtclassid", Number),
    ("meta secmark", Number),
    ("meta nfproto", Family),
    ("meta l4proto", Protocol),
    ("meta ibrname", Name),
    ("meta obrname", Name),
    ("meta pkttype", PacketType),
    ("meta cpu", Number),
    ("meta iifgroup", Number),
    ("meta oifgroup", Number),
    ("meta cgroup", Number),
    ("meta random", Integer),
    ("meta ipsec", Datatype::Existence),
    ("meta iifkind", Name),
    ("meta oifkind", Name),
    ("meta ibrpvid", Number),
    ("meta ibrvproto", EtherType),
    ("meta time", Number),
    ("meta day", Number),
    ("meta hour", Number),
    ("meta sdif", Interface),
    ("meta sdifname", Name),
];

pub fn meta(key: u64) -> (String, Datatype) {
    named(META, key).unwrap_or_else(|| (format!("meta key {key}"), Integer))
}

/// By `enum nft_ct_keys`.
const CT: &[(&str, Datatype)] = &[
    ("state", State),
    ("direction", Direction),
    ("status", Status),
    ("mark", Mark),
    ("secmark", Number),
    ("expiration", Number),
    ("helper", Name),
    ("l3proto", Family),
    ("saddr", Integer),
    ("daddr", Integer),
    ("protocol", Protocol),
    ("proto-src", Port),
    ("proto-dst", Port),
    ("label", Integer),
    ("packets", Number),
    ("bytes", Number),
    ("avgpkt", Number),
    ("zone", Number),
    ("event", Integer),
    ("ip saddr", Ipv4),
    ("ip daddr", Ipv4),
    ("ip6 saddr", Ipv6),
    ("ip6 daddr", Ipv6),
    ("id", Integer),
];

pub fn ct(key: u64, direction: Option<u64>) -> (String, Datatype) {
    let (name, datatype) = named(CT, key).unwrap_or_else(|| (format!("key {key}"), Integer));
    let direction = match direction {
        None => String::new(),
        Some(0) => "original ".to_owned(),
        Some(1) => "reply ".to_owned(),
        Some(other) => format!("direction {other} "),
    };
    (format!("ct {direction}{name}"), datatype)
}

/// Whether the processor's byte order is the one of this key's value.
pub fn is_ct_in_host_order(key: u64, datatype: Datatype) -> bool {
    const NETWORK: [u64; 9] = [8, 9, 11, 12, 13, 19, 20, 21, 22];
    !NETWORK.contains(&key) && !matches!(datatype, Name | Protocol | Family | Direction)
}

pub fn is_meta_in_host_order(key: u64, datatype: Datatype) -> bool {
    const VLAN_PROTOCOL: u64 = 29;
    key != META_PROTOCOL && key != VLAN_PROTOCOL && datatype != Name
}

fn named(table: &[(&str, Datatype)], key: u64) -> Option<(String, Datatype)> {
    table.get(usize::try_from(key).ok()?).map(|(name, datatype)| ((*name).to_owned(), *datatype))
}
