//! What a rule does where that depends on nothing that it looked at before: verdicts, limits, logging, rejection.
//!
//! Invariants: what counts or remembers is not a setting, and is left out; every other attribute is written, by name or in
//! hexadecimal digits.

use super::datum::quotable;
use super::extension::extension;
use crate::netlink::{attributes, find, number, text};

/// As `struct nft_data` has a verdict.
pub fn verdict(data: &[u8], named: impl Fn(&[u8]) -> String) -> String {
    const CODE: u16 = 1;
    const CHAIN: u16 = 2;
    let chain = || text(data, CHAIN).map(&named).unwrap_or_default();
    match number(data, CODE).map(|code| (code as u32).cast_signed()) {
        Some(0) => "drop".to_owned(),
        Some(1) => "accept".to_owned(),
        Some(-1) => "continue".to_owned(),
        Some(-2) => "break".to_owned(),
        Some(-3) => format!("jump {}", chain()),
        Some(-4) => format!("goto {}", chain()),
        Some(-5) => "return".to_owned(),
        // With a queue's number in its upper half.
        Some(code) => format!("verdict {code:#x}"),
        None => "verdict ?".to_owned(),
    }
}

/// A statement that stands by itself; `None` for one that is not known, or that needs what a register holds.
pub fn standing(name: &[u8], data: &[u8]) -> Option<String> {
    Some(match name {
        // What they have counted is no setting.
        b"counter" => "counter".to_owned(),
        b"last" => "last".to_owned(),
        b"notrack" => "notrack".to_owned(),
        b"limit" => limit(data)?,
        b"quota" => format!("quota {}{} bytes", over(number(data, 2)), number(data, 1)?),
        b"connlimit" => format!("ct count {}{}", over(number(data, 2)), number(data, 1)?),
        b"log" => log(data),
        b"queue" => queue(data)?,
        b"flow_offload" => format!("flow add @{}", super::name(text(data, 1)?)),
        _ => return None,
    })
}

/// For what can be turned round: the first flag says so.
fn over(flags: Option<u64>) -> &'static str {
    if flags.unwrap_or(0) & 1 != 0 { "over " } else { "" }
}

fn limit(data: &[u8]) -> Option<String> {
    const BYTES: u64 = 1;
    let rate = number(data, 1)?;
    let unit = match number(data, 2)? {
        1 => "second".to_owned(),
        60 => "minute".to_owned(),
        3600 => "hour".to_owned(),
        86_400 => "day".to_owned(),
        604_800 => "week".to_owned(),
        seconds => format!("{seconds} seconds"),
    };
    let (kind, burst, over) = (number(data, 4).unwrap_or(0), number(data, 3).unwrap_or(0), over(number(data, 5)));
    Some(match kind {
        BYTES if burst == 0 => format!("limit rate {over}{rate} bytes/{unit}"),
        BYTES => format!("limit rate {over}{rate} bytes/{unit} burst {burst} bytes"),
        // nft's own default.
        _ if burst == 5 => format!("limit rate {over}{rate}/{unit}"),
        _ => format!("limit rate {over}{rate}/{unit} burst {burst} packets"),
    })
}

fn log(data: &[u8]) -> String {
    const LEVELS: [&str; 9] = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit"];
    const FLAGS: [(u64, &str); 5] = [(1, "tcp sequence"), (2, "tcp options"), (4, "ip options"), (8, "skuid"), (32, "ether")];
    let mut log = "log".to_owned();
    if let Some(prefix) = text(data, 2) {
        log += &format!(" prefix \"{}\"", quotable(prefix));
    }
    for (attribute, name) in [(1, "group"), (3, "snaplen"), (4, "queue-threshold")] {
        // The kernel tells of none as nought; group nought is one.
        if let Some(number) = number(data, attribute).filter(|number| *number != 0 || attribute == 1) {
            log += &format!(" {name} {number}");
        }
    }
    const WARN: u64 = 4;
    if let Some(level) = number(data, 5).filter(|level| *level != WARN) {
        let name = usize::try_from(level).ok().and_then(|level| LEVELS.get(level));
        log += &name.map_or_else(|| format!(" level {level}"), |name| format!(" level {name}"));
    }
    let flags = number(data, 6).unwrap_or(0);
    for (_, name) in FLAGS.iter().filter(|(flag, _)| flags & flag != 0) {
        log += &format!(" flags {name}");
    }
    let known = FLAGS.iter().fold(0, |known, (flag, _)| known | flag);
    if flags & !known != 0 {
        log += &format!(" flags {:#x}", flags & !known);
    }
    log
}

fn queue(data: &[u8]) -> Option<String> {
    let (first, total, flags) = (number(data, 1)?, number(data, 2).unwrap_or(1), number(data, 3).unwrap_or(0));
    let last = first.saturating_add(total.max(1) - 1);
    let range = if last == first { first.to_string() } else { format!("{first}-{last}") };
    Some(match flags {
        0 => format!("queue to {range}"),
        1 => format!("queue flags bypass to {range}"),
        2 => format!("queue flags fanout to {range}"),
        3 => format!("queue flags bypass,fanout to {range}"),
        other => format!("queue flags {other:#x} to {range}"),
    })
}

/// What stops a packet and tells its sender. `family`: what the packet is of, where that is known.
pub fn reject(data: &[u8], family: Option<super::Network>) -> Option<String> {
    const ICMP: [&str; 16] = [
        "net-unreachable",
        "host-unreachable",
        "prot-unreachable",
        "port-unreachable",
        "4",
        "5",
        "6",
        "7",
        "8",
        "net-prohibited",
        "host-prohibited",
        "11",
        "12",
        "admin-prohibited",
        "14",
        "15",
    ];
    const ICMPV6: [&str; 7] = ["no-route", "admin-prohibited", "2", "addr-unreachable", "port-unreachable", "policy-fail", "reject-route"];
    const ICMPX: [&str; 4] = ["no-route", "port-unreachable", "host-unreachable", "admin-prohibited"];
    let code = usize::try_from(number(data, 2).unwrap_or(0)).ok()?;
    let named = |family: &str, names: &[&str], default: usize| match names.get(code) {
        Some(_) if code == default => "reject".to_owned(),
        Some(name) => format!("reject with {family} {name}"),
        None => format!("reject with {family} {code}"),
    };
    Some(match (number(data, 1)?, family) {
        (0, Some(super::Network::Ip)) => named("icmp", &ICMP, 3),
        (0, Some(super::Network::Ip6)) => named("icmpv6", &ICMPV6, 4),
        (0, _) => format!("reject with icmp code {code}"),
        (1, _) => "reject with tcp reset".to_owned(),
        // Not the bare word where the packet's own protocol would give that too.
        (2, None) => named("icmpx", &ICMPX, 1),
        (2, Some(_)) => named("icmpx", &ICMPX, usize::MAX),
        (other, _) => format!("reject with type {other} code {code}"),
    })
}

/// A match or target of xtables, as iptables-nft makes them where nf_tables has none of its own.
pub fn compatible(what: &[u8], data: &[u8], network: Option<super::Network>) -> Option<String> {
    let name = text(data, 1)?;
    let told = extension(name, number(data, 2).unwrap_or(0), find(data, 3).unwrap_or_default(), network);
    Some(format!("xt {} {}{told}", super::name(what), super::name(name)))
}

/// An expression that is not known: its name, and each attribute with its digits.
pub fn raw(name: &[u8], data: &[u8]) -> String {
    let mut raw = format!("[{}", super::name(name));
    for (number, value) in attributes(data) {
        raw += &format!(" {number}={}", hex::encode(value));
    }
    raw + "]"
}
