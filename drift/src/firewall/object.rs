//! Named objects and flow tables.

use super::datum::quotable;
use super::statement::{raw, standing};
use crate::netlink::{attributes, find, number, text};

/// nft's word for a type of object.
pub fn word(kind: u64) -> String {
    let word = match kind {
        1 => "counter",
        2 => "quota",
        3 => "ct helper",
        4 => "limit",
        5 => "ct count",
        6 => "tunnel",
        7 => "ct timeout",
        8 => "secmark",
        9 => "ct expectation",
        10 => "synproxy",
        other => return format!("object {other}"),
    };
    word.to_owned()
}

/// What an object is set to; empty for a counter, which has no settings.
pub fn value(kind: u64, data: &[u8]) -> String {
    let value = match kind {
        1 => return String::new(),
        2 => standing(b"quota", data),
        4 => standing(b"limit", data),
        5 => standing(b"connlimit", data),
        8 => text(data, 1).map(|context| format!("secmark \"{}\"", quotable(context))),
        _ => None,
    };
    value.unwrap_or_else(|| raw(word(kind).as_bytes(), data))
}

/// The devices that a flow table or a chain of the netdev family is at.
pub fn devices(list: &[u8]) -> Vec<String> {
    attributes(list).map(|(_, name)| crate::text::printable(crate::netlink::until_zero(name)).into_owned()).collect()
}

/// Of a flow table: where it is hooked, with what priority, to which devices.
pub fn hook(flowtable: &[u8]) -> (Option<u64>, Option<i32>, Vec<String>) {
    let hook = find(flowtable, 3).unwrap_or_default();
    let priority = number(hook, 2).map(|priority| (priority as u32).cast_signed());
    (number(hook, 1), priority, devices(find(hook, 3).unwrap_or_default()))
}
