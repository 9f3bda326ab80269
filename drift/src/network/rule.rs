//! Rules that choose a table of routes, in the words of `ip rule`.

use super::{AF_INET, AF_INET6, NAME_LIMIT, address, native, native_short, prefix, protocol_word, table_word};
use crate::netlink::{find, text};
use crate::{FieldName, Fields, Value};

/// `struct fib_rule_hdr`, before the attributes.
const HEADER: usize = 12;

/// `FRA_…`.
const TO: u16 = 1;
const FROM: u16 = 2;
const INPUT: u16 = 3;
const GOTO: u16 = 4;
const PRIORITY: u16 = 6;
const MARK: u16 = 10;
const SUPPRESS_GROUP: u16 = 13;
const SUPPRESS_PREFIX: u16 = 14;
const TABLE: u16 = 15;
const MASK: u16 = 16;
const OUTPUT: u16 = 17;
const OF_DEVICE: u16 = 19;
const USERS: u16 = 20;
const PROTOCOL: u16 = 21;
const IP_PROTOCOL: u16 = 22;
const SOURCE_PORTS: u16 = 23;
const DESTINATION_PORTS: u16 = 24;

const INVERTED: u32 = 2;

/// Its key in bytes, and its fields; `Some(None)` for one of neither protocol of the internet. `None`: it is damaged.
pub(super) fn decode(body: &[u8]) -> Option<Option<(Vec<u8>, Fields)>> {
    let (header, attributes) = body.split_at_checked(HEADER)?;
    let [family, to_length, from_length, tos, table, _, _, action, ..] = *header else { return None };
    if ![AF_INET, AF_INET6].contains(&family) {
        return Some(None);
    }
    let number = |attribute| find(attributes, attribute).and_then(native);
    let told = |attribute| find(attributes, attribute).and_then(|bytes| address(family, bytes));

    let mut selector = Vec::new();
    let mut say = |word: &str, value: &[u8]| {
        if !selector.is_empty() {
            selector.push(b' ');
        }
        selector.extend(word.bytes());
        if !value.is_empty() {
            selector.push(b' ');
            selector.extend(value);
        }
    };
    if native(&header[8..])? & INVERTED != 0 {
        say("not", b"");
    }
    match from_length {
        0 => say("from", b"all"),
        length => say("from", prefix(told(FROM)?, length).as_bytes()),
    }
    if to_length > 0 {
        say("to", prefix(told(TO)?, to_length).as_bytes());
    }
    if tos > 0 {
        say("tos", format!("{tos:#04x}").as_bytes());
    }
    match (number(MARK).unwrap_or(0), number(MASK).unwrap_or(0)) {
        (0, 0) => {}
        (mark, u32::MAX) => say("fwmark", format!("{mark:#x}").as_bytes()),
        (mark, mask) => say("fwmark", format!("{mark:#x}/{mask:#x}").as_bytes()),
    }
    for (word, attribute) in [("iif", INPUT), ("oif", OUTPUT)] {
        if let Some(name) = text(attributes, attribute) {
            say(word, Some(name).filter(|name| name.len() <= NAME_LIMIT)?);
        }
    }
    if let Some((first, last)) = find(attributes, USERS).and_then(|range| Some((native(range)?, native(range.get(4..)?)?))) {
        say("uidrange", format!("{first}-{last}").as_bytes());
    }
    if let Some(protocol) = find(attributes, IP_PROTOCOL).and_then(|bytes| bytes.first()) {
        say("ipproto", protocol.to_string().as_bytes());
    }
    for (word, attribute) in [("sport", SOURCE_PORTS), ("dport", DESTINATION_PORTS)] {
        let range = find(attributes, attribute).and_then(|range| Some((native_short(range)?, native_short(range.get(2..)?)?)));
        match range {
            Some((first, last)) if first == last => say(word, first.to_string().as_bytes()),
            Some((first, last)) => say(word, format!("{first}-{last}").as_bytes()),
            None => {}
        }
    }

    let mut does = match action {
        1 if find(attributes, OF_DEVICE).and_then(|bytes| bytes.first()).is_some_and(|is_so| *is_so != 0) => {
            "lookup the table of the device".to_owned()
        }
        1 => format!("lookup {}", table_word(number(TABLE).unwrap_or(table.into()))),
        2 => format!("goto {}", number(GOTO)?),
        3 => "nop".to_owned(),
        6 => "blackhole".to_owned(),
        7 => "unreachable".to_owned(),
        8 => "prohibit".to_owned(),
        other => format!("action {other}"),
    };
    for (word, attribute) in [("suppress_prefixlength", SUPPRESS_PREFIX), ("suppress_ifgroup", SUPPRESS_GROUP)] {
        if let Some(limit) = number(attribute).filter(|limit| *limit != u32::MAX) {
            does += &format!(" {word} {limit}");
        }
    }

    let mut key = format!("rule {}{} ", number(PRIORITY).unwrap_or(0), if family == AF_INET6 { " inet6" } else { "" }).into_bytes();
    key.extend(&selector);
    let mut fields = Fields::new();
    fields.set(FieldName::known("selector"), Value::bytes(&selector));
    fields.set(FieldName::known("action"), Value::text(&does));
    if let Some(protocol) = find(attributes, PROTOCOL).and_then(|bytes| bytes.first()) {
        fields.set(FieldName::known("protocol"), Value::text(&protocol_word(*protocol)));
    }
    Some(Some((key, fields)))
}
