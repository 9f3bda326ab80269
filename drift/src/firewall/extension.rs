//! What matches and targets of xtables were told, as `iptables -S` writes it where that is known here.
//!
//! Invariant: what is not understood to the last byte is told by its digits, or by a digest where they are many.

use super::datum::quotable;

const STATES: &[(u64, &str)] = &[(1, "INVALID"), (8, "NEW"), (4, "RELATED"), (2, "ESTABLISHED"), (0x40, "UNTRACKED")];

/// Begins with a blank, if it is not empty.
pub fn extension(name: &[u8], revision: u64, data: &[u8]) -> String {
    const SHOWN: usize = 32;
    let end = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let told = &data[..end];
    let known = match (name, revision) {
        (b"comment", 0) if !told.is_empty() && !told.contains(&0) => Some(format!(" \"{}\"", quotable(told))),
        (b"tcp", 0) => tcp(data),
        (b"udp", 0) => udp(data),
        (b"conntrack", 2..=3) => states(data),
        (b"LOG", 0) => log(data),
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
    let text = super::attribute::until_zero(prefix);
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
