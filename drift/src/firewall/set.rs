//! Sets and maps: what kind of elements they take, and the elements that were put into them by hand.
//!
//! Invariants: elements that packets put in, or that time out, are not settings and are left out. Elements are told in the order
//! of their keys, however the kernel keeps them; adjoining ranges are told as they were given as far as the kernel still knows.

use super::datum::{Datatype, datatypes, hexadecimal, quotable};
use super::statement::verdict;
use super::{bits, object};
use crate::netlink::{attributes, find, number, text};

const ANONYMOUS: u64 = 0x1;
const INTERVAL: u64 = 0x4;
const MAP: u64 = 0x8;
const TIMEOUT: u64 = 0x10;
const EVALUATED: u64 = 0x20;
/// Flags as nft has them; others follow from how the set is used.
const FLAGS: &[(u64, &str)] = &[(0x2, "constant"), (INTERVAL, "interval"), (TIMEOUT, "timeout"), (EVALUATED, "dynamic")];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    flags: u64,
    key: Vec<(String, usize, Datatype)>,
    /// Bytes of a key, with what fills up each of its parts.
    pub key_length: usize,
    data: Vec<(String, usize, Datatype)>,
    object: Option<u64>,
    timeout: Option<u64>,
    size: Option<u64>,
    memory: bool,
    comment: Option<Vec<u8>>,
    elements: Vec<Element>,
    is_cut: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Element {
    key: Vec<u8>,
    /// Of a range within a concatenation.
    end: Option<Vec<u8>>,
    is_interval_end: bool,
    is_catch_all: bool,
    rest: String,
}

impl Set {
    /// Elements that are taken; a range is two.
    pub const LIMIT: usize = 1 << 15;

    /// From the attributes of `NFT_MSG_NEWSET`.
    pub fn decode(set: &[u8]) -> Self {
        const VERDICTS: u64 = 0xffff_ff00;
        const COMMENT: u8 = 7;
        let flags = number(set, 3).unwrap_or(0);
        let data = match number(set, 6) {
            Some(VERDICTS) => vec![("verdict".to_owned(), 0, Datatype::Verdict)],
            Some(types) if flags & MAP != 0 => datatypes(types),
            _ => Vec::new(),
        };
        Self {
            flags,
            key: datatypes(number(set, 4).unwrap_or(0)),
            key_length: number(set, 5).unwrap_or(0) as usize,
            data,
            object: number(set, 15),
            timeout: number(set, 11).filter(|timeout| *timeout != 0),
            size: find(set, 9).and_then(|description| number(description, 1)),
            memory: number(set, 8) == Some(1),
            comment: super::comment(find(set, 13), COMMENT),
            elements: Vec::new(),
            is_cut: false,
        }
    }

    pub fn is_anonymous(&self) -> bool {
        self.flags & ANONYMOUS != 0
    }

    /// Whether somebody chose its elements.
    pub fn has_settings(&self) -> bool {
        self.flags & (TIMEOUT | EVALUATED) == 0
    }

    /// From the attributes of `NFT_MSG_NEWSETELEM`. Beyond `room` or [`Self::LIMIT`] there are none at all: a part of them would be
    /// taken for the whole.
    pub fn take(&mut self, message: &[u8], room: usize) {
        const ELEMENTS: u16 = 3;
        for (_, element) in attributes(find(message, ELEMENTS).unwrap_or_default()) {
            if self.is_cut || self.elements.len() >= room.min(Self::LIMIT) {
                self.is_cut = true;
                self.elements = Vec::new();
                return;
            }
            self.elements.push(self.element(element));
        }
    }

    pub fn count(&self) -> usize {
        self.elements.len()
    }

    /// Whether there were more elements than are taken.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    fn element(&self, element: &[u8]) -> Element {
        const VALUE: u16 = 1;
        let value = |attribute| find(element, attribute).and_then(|data| find(data, VALUE)).map(<[u8]>::to_vec);
        let flags = number(element, 3).unwrap_or(0);
        let mut rest = String::new();
        let one = |expression: &[u8]| {
            let (name, data) = (text(expression, 1).unwrap_or_default(), find(expression, 2).unwrap_or_default());
            super::statement::standing(name, data).unwrap_or_else(|| super::statement::raw(name, data))
        };
        for expression in find(element, 7).into_iter().chain(find(element, 11).into_iter().flat_map(attributes).map(|(_, one)| one)) {
            rest += &format!(" {}", one(expression));
        }
        if let Some(comment) = super::comment(find(element, 6), 0) {
            rest += &format!(" comment \"{}\"", quotable(&comment));
        }
        if let Some(object) = text(element, 9) {
            rest += &format!(" : \"{}\"", quotable(object));
        } else if let Some(data) = find(element, 2) {
            let data = match (find(data, 2), find(data, VALUE)) {
                (Some(told), _) => verdict(told, super::name),
                (None, value) => concatenated(&self.data, value.unwrap_or_default(), false),
            };
            rest += &format!(" : {data}");
        }
        Element { key: value(1).unwrap_or_default(), end: value(10), is_interval_end: flags & 1 != 0, is_catch_all: flags & 2 != 0, rest }
    }

    /// Each element as nft writes it.
    pub fn elements(&self) -> Vec<String> {
        let is_interval = self.flags & INTERVAL != 0;
        let mut elements: Vec<&Element> = self.elements.iter().collect();
        // A range ends where the next may begin.
        elements.sort_by(|a, b| {
            (a.is_catch_all, &a.key, !a.is_interval_end, &a.end).cmp(&(b.is_catch_all, &b.key, !b.is_interval_end, &b.end))
        });
        let mut written = Vec::with_capacity(elements.len());
        for (at, element) in elements.iter().enumerate() {
            let key = if element.is_catch_all {
                "*".to_owned()
            } else if element.is_interval_end {
                continue;
            } else if let Some(end) = &element.end {
                ranges(&self.key, &element.key, end)
            } else if is_interval && self.key.len() == 1 {
                let next = elements.get(at + 1).filter(|next| !next.is_catch_all).map(|next| before(&next.key));
                let last = next.unwrap_or_else(|| vec![0xff; element.key.len()]);
                range(self.key[0].2, &element.key, &last)
            } else {
                concatenated(&self.key, &element.key, is_interval)
            };
            written.push(key + &element.rest);
        }
        written
    }

    /// How an element of data is written that a rule finds in this map.
    pub fn data(&self) -> Datatype {
        self.data.first().map_or(Datatype::Integer, |(.., datatype)| *datatype)
    }

    pub fn data_length(&self) -> usize {
        self.data.iter().map(|(_, length, _)| length.next_multiple_of(4)).sum()
    }

    /// `set` or `map`.
    pub fn word(&self) -> &'static str {
        if self.flags & MAP != 0 || self.object.is_some() { "map" } else { "set" }
    }

    /// The fields of the item but its elements, each a name and a text.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let names = |types: &[(String, usize, Datatype)]| types.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(" . ");
        let mut kind = names(&self.key);
        if let Some(kind_of_object) = self.object {
            kind += &format!(" : {}", object::word(kind_of_object));
        } else if !self.data.is_empty() {
            kind += &format!(" : {}", names(&self.data));
        }
        let mut settings = vec![("type", kind)];
        // The rest say what this one is, or that a rule may change it, which the rules say themselves.
        const IMPLIED: u64 = ANONYMOUS | MAP | 0x40 | 0x80 | 0x100;
        let flags = bits(self.flags & !IMPLIED, FLAGS);
        settings.extend((!flags.is_empty()).then_some(("flags", flags)));
        settings.extend(self.timeout.map(|milliseconds| ("timeout", duration(milliseconds))));
        settings.extend(self.size.map(|size| ("size", size.to_string())));
        settings.extend(self.memory.then(|| ("policy", "memory".to_owned())));
        settings.extend(self.comment.as_ref().map(|comment| ("comment", crate::text::printable(comment).into_owned())));
        settings
    }
}

/// `1h30m`, `500ms`.
pub fn duration(milliseconds: u64) -> String {
    let mut written = String::new();
    let mut rest = milliseconds;
    for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")] {
        if rest >= unit {
            written += &format!("{}{name}", rest / unit);
            rest %= unit;
        }
    }
    if written.is_empty() { "0s".to_owned() } else { written }
}

/// The parts of a concatenation, each of which fills up whole registers.
fn parts<'a>(types: &'a [(String, usize, Datatype)], bytes: &'a [u8]) -> impl Iterator<Item = (Datatype, &'a [u8])> {
    let mut rest = bytes;
    let mut types = types.iter().enumerate();
    let count = types.len();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (datatype, length) = match types.next() {
            // The only one has all of it, whatever it is.
            Some((_, (.., datatype))) if count == 1 => (*datatype, rest.len()),
            Some((_, (_, length, datatype))) if *length > 0 => (*datatype, *length),
            _ => (Datatype::Integer, rest.len()),
        };
        let part = &rest[..length.min(rest.len())];
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((datatype, part))
    })
}

fn concatenated(types: &[(String, usize, Datatype)], bytes: &[u8], is_interval: bool) -> String {
    let part = |(datatype, part): (Datatype, &[u8])| datatype.write(part, is_interval || !datatype.is_in_host_order());
    parts(types, bytes).map(part).collect::<Vec<_>>().join(" . ")
}

/// Both ends belong to it; they are in network byte order.
fn ranges(types: &[(String, usize, Datatype)], first: &[u8], last: &[u8]) -> String {
    if first.len() != last.len() {
        return format!("{}-{}", hexadecimal(first, true), hexadecimal(last, true));
    }
    let parts = parts(types, first).zip(parts(types, last)).map(|((datatype, first), (_, last))| range(datatype, first, last));
    parts.collect::<Vec<_>>().join(" . ")
}

fn range(datatype: Datatype, first: &[u8], last: &[u8]) -> String {
    if first == last {
        return datatype.write(first, true);
    }
    let differing: Vec<u8> = first.iter().zip(last).map(|(a, b)| !(a ^ b)).collect();
    match super::datum::prefix(&differing) {
        Some(bits)
            if matches!(datatype, Datatype::Ipv4 | Datatype::Ipv6)
                && first.len() == last.len()
                && first.iter().zip(last).zip(&differing).all(|((first, last), same)| first & !same == 0 && last | same == 0xff) =>
        {
            format!("{}/{bits}", datatype.write(first, true))
        }
        _ => format!("{}-{}", datatype.write(first, true), datatype.write(last, true)),
    }
}

/// The number before this one.
fn before(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for byte in bytes.iter_mut().rev() {
        let (less, borrowed) = byte.overflowing_sub(1);
        *byte = less;
        if !borrowed {
            break;
        }
    }
    bytes
}
