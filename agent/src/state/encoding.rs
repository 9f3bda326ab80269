//! How a key and a stored reading are written in the database. Rows of older agents must stay readable: tags are
//! added at the end, never renumbered, and another list of known names is another version.
//!
//! ```text
//! key:   kind as on the wire u8, key as the host's bytes
//! value: version u8, crc32 of key and rest u32 LE, observed_at varint, stamp u8: 0, or 1 and device inode size
//!        modified changed, or 2 and device inode, varints; fields: name (code u8, or 0 and text), tag u8, value; to the end
//! ```
//! Integers are LEB128, signed ones zigzag; text is its length and its bytes.

use trueline_drift::format::Format;
use trueline_drift::value::{FieldName, Fields, KNOWN, Value};
use trueline_drift::{ItemId, ItemKey, ItemKind, Time};
use trueline_proto::convert::{item_kind_from_wire, item_kind_to_wire};

use super::Stored;
use crate::collect::{Glance, Stamp};
use crate::kernel::file::Inode;

const VERSION: u8 = 1;
const HEADER: usize = 5;

const FALSE: u8 = 0;
const TRUE: u8 = 1;
const INTEGER: u8 = 2;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const UNREADABLE: u8 = 5;
/// Text of 64 lower case hex digits, as 32 bytes.
const DIGEST: u8 = 6;

pub fn kind_byte(kind: ItemKind) -> u8 {
    i32::from(item_kind_to_wire(kind)) as u8
}

pub fn key(item: &ItemId) -> Vec<u8> {
    key_of(item.kind, &item.key.bytes())
}

pub fn key_of(kind: ItemKind, bytes: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + bytes.len());
    key.push(kind_byte(kind));
    key.extend_from_slice(bytes);
    key
}

/// `None` for a key that this module did not write.
pub fn item(key: &[u8]) -> Option<ItemId> {
    let (kind, bytes) = key.split_first()?;
    Some(ItemId::new(item_kind_from_wire(i32::from(*kind)).ok()?, ItemKey::from_bytes(bytes).ok()?))
}

pub fn encode(key: &[u8], stored: &Stored) -> Vec<u8> {
    let mut out = Vec::with_capacity(192);
    out.extend_from_slice(&[VERSION, 0, 0, 0, 0]);
    signed(&mut out, stored.observed_at.micros());
    match (&stored.stamp, stored.inode) {
        (None, None) => out.push(0),
        (None, Some(inode)) => {
            out.push(2);
            unsigned(&mut out, inode.device);
            unsigned(&mut out, inode.number);
        }
        (Some(stamp), _) => {
            out.push(1);
            unsigned(&mut out, stamp.device);
            unsigned(&mut out, stamp.inode);
            unsigned(&mut out, stamp.size);
            signed(&mut out, stamp.modified_ns);
            signed(&mut out, stamp.changed_ns);
        }
    }
    for (name, value) in stored.fields.iter() {
        match KNOWN.binary_search(&name.as_str()) {
            Ok(at) => out.push(at as u8 + 1),
            Err(_) => {
                out.push(0);
                text(&mut out, name.as_str());
            }
        }
        push_value(&mut out, value);
    }
    let crc = checksum(key, &out[HEADER..]);
    out[1..HEADER].copy_from_slice(&crc.to_le_bytes());
    out
}

/// `None` when the row is not what [`encode`] wrote under this key.
pub fn decode(key: &[u8], row: &[u8]) -> Option<Stored> {
    let mut rest = Rest::of(key, row)?;
    let observed_at = Time::from_micros(rest.signed()?);
    let (stamp, inode) = rest.identity()?;
    let mut fields = Fields::new();
    while !rest.0.is_empty() {
        let name = match rest.byte()? {
            0 => FieldName::new(rest.text()?),
            code => FieldName::known(KNOWN.get(usize::from(code) - 1)?),
        };
        fields.set(name, rest.value()?);
    }
    Some(Stored { fields, observed_at, stamp, inode, lines: None })
}

/// Whether the row is of a file that still looks so, without making its fields; `None` as for [`decode`].
pub fn holds(key: &[u8], row: &[u8], glance: &Glance<'_>) -> Option<bool> {
    let mut rest = Rest::of(key, row)?;
    rest.signed()?;
    if rest.identity()?.0 != Some(glance.stamp) {
        return Some(false);
    }
    let (mut owner, mut group, mut format) = (None, None, None);
    while !rest.0.is_empty() {
        let name = match rest.byte()? {
            0 => rest.text()?,
            code => KNOWN.get(usize::from(code) - 1)?,
        };
        let text = rest.skip()?;
        match name {
            "owner" => owner = text,
            "group" => group = text,
            "format" => format = text,
            _ => {}
        }
    }
    // What it set while it had a format counts no more once it has none, and is not known until it is read in it.
    Some((owner, group, format) == (glance.owner, glance.group, glance.format.map(Format::name)))
}

/// The file that bore the name; `None` also for a row that is not whole.
pub fn inode(key: &[u8], row: &[u8]) -> Option<Inode> {
    let mut rest = Rest::of(key, row)?;
    rest.signed()?;
    rest.identity()?.1
}

/// As [`inode`], where it had other names too.
pub fn shared_inode(key: &[u8], row: &[u8]) -> Option<Inode> {
    let mut rest = Rest::of(key, row)?;
    rest.signed()?;
    let inode = rest.identity()?.1?;
    while !rest.0.is_empty() {
        let name = match rest.byte()? {
            0 => rest.text()?,
            code => KNOWN.get(usize::from(code) - 1)?,
        };
        if name == "nlink" {
            return matches!(rest.value()?, Value::Integer(links) if links > 1).then_some(inode);
        }
        rest.skip()?;
    }
    None
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

fn push_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Boolean(false) => out.push(FALSE),
        Value::Boolean(true) => out.push(TRUE),
        Value::Integer(number) => {
            out.push(INTEGER);
            signed(out, *number);
        }
        Value::Text(digits) if is_digest(digits) => {
            out.push(DIGEST);
            let mut bytes = [0; 32];
            hex::decode_to_slice(digits, &mut bytes).expect("64 hex digits are 32 bytes");
            out.extend_from_slice(&bytes);
        }
        Value::Text(value) => {
            out.push(TEXT);
            text(out, value);
        }
        Value::List(list) => {
            out.push(LIST);
            unsigned(out, list.len() as u64);
            list.iter().for_each(|entry| text(out, entry));
        }
        Value::Unreadable { unreadable } => {
            out.push(UNREADABLE);
            text(out, unreadable);
        }
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn unsigned(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn signed(out: &mut Vec<u8>, number: i64) {
    unsigned(out, (number << 1 ^ number >> 63) as u64);
}

fn text(out: &mut Vec<u8>, text: &str) {
    unsigned(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// What is left of a row to read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn of(key: &[u8], row: &'a [u8]) -> Option<Self> {
        let (header, body) = row.split_at_checked(HEADER)?;
        (header[0] == VERSION && header[1..] == checksum(key, body).to_le_bytes()).then_some(Self(body))
    }

    fn identity(&mut self) -> Option<(Option<Stamp>, Option<Inode>)> {
        Some(match self.byte()? {
            0 => (None, None),
            1 => {
                let stamp = Stamp {
                    device: self.unsigned()?,
                    inode: self.unsigned()?,
                    size: self.unsigned()?,
                    modified_ns: self.signed()?,
                    changed_ns: self.signed()?,
                };
                (Some(stamp), Some(stamp.inode()))
            }
            2 => (None, Some(Inode { device: self.unsigned()?, number: self.unsigned()? })),
            _ => return None,
        })
    }

    /// Past a value; its text where it is one.
    fn skip(&mut self) -> Option<Option<&'a str>> {
        Some(match self.byte()? {
            FALSE | TRUE => None,
            INTEGER => self.signed().map(|_| None)?,
            TEXT => Some(self.text()?),
            LIST => {
                for _ in 0..self.unsigned()? {
                    self.text()?;
                }
                None
            }
            UNREADABLE => self.text().map(|_| None)?,
            DIGEST => self.take(32).map(|_| None)?,
            _ => return None,
        })
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.unsigned()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.unsigned()?).ok()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    fn value(&mut self) -> Option<Value> {
        Some(match self.byte()? {
            FALSE => Value::Boolean(false),
            TRUE => Value::Boolean(true),
            INTEGER => Value::Integer(self.signed()?),
            TEXT => Value::Text(self.text()?.to_owned()),
            LIST => {
                let count = self.unsigned()?;
                Value::List((0..count).map(|_| self.text().map(str::to_owned)).collect::<Option<_>>()?)
            }
            UNREADABLE => Value::Unreadable { unreadable: self.text()?.to_owned() },
            DIGEST => Value::Text(hex::encode(self.take(32)?)),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::Boolean),
            any::<i64>().prop_map(Value::Integer),
            ".{0,40}".prop_map(Value::Text),
            "[0-9a-f]{64}".prop_map(Value::Text),
            proptest::collection::vec(".{0,20}", 0..5).prop_map(Value::List),
            "[a-z ]{0,30}".prop_map(|unreadable| Value::Unreadable { unreadable }),
        ]
    }

    proptest! {
        #[test]
        fn a_row_reads_back_and_an_altered_one_does_not(
            fields in proptest::collection::vec(("mode|sha256|owner|group|nlink|format|config\\.[A-Z]{1,8}", value()), 0..8),
            unstamped in proptest::option::of((any::<u64>(), any::<u64>())),
            observed in any::<i64>(),
            stamp in proptest::option::of((any::<u64>(), any::<u64>(), any::<u64>(), any::<i64>(), any::<i64>())),
            flip in any::<proptest::sample::Index>(),
        ) {
            let stamp = stamp.map(|(device, inode, size, modified_ns, changed_ns)| Stamp { device, inode, size, modified_ns, changed_ns });
            let inode = stamp.map(|stamp| stamp.inode()).or(unstamped.map(|(device, number)| Inode { device, number }));
            let stored = Stored {
                fields: fields.into_iter().map(|(name, value)| (FieldName::new(&name), value)).collect(),
                observed_at: Time::from_micros(observed),
                stamp,
                inode,
                lines: None,
            };
            let mut row = encode(b"\x01/etc/a", &stored);
            prop_assert_eq!(decode(b"\x01/etc/a", &row), Some(stored.clone()));
            let is_shared = matches!(stored.fields.value("nlink"), Some(Value::Integer(links)) if *links > 1);
            prop_assert_eq!(super::inode(b"\x01/etc/a", &row), inode);
            prop_assert_eq!(shared_inode(b"\x01/etc/a", &row), inode.filter(|_| is_shared));
            if let Some(stamp) = stored.stamp {
                let text = |name| match stored.fields.value(name) {
                    // A name that looks like a digest is kept as one: such a file is read again, which is no harm.
                    Some(Value::Text(text)) if !is_digest(text) => Some(text.as_str()),
                    _ => None,
                };
                let glance = Glance { stamp, owner: text("owner"), group: text("group"), format: None };
                prop_assert_eq!(holds(b"\x01/etc/a", &row, &glance), Some(text("format").is_none()));
                let others = [
                    Glance { stamp: Stamp { changed_ns: stamp.changed_ns ^ 1, ..stamp }, ..glance },
                    Glance { owner: Some("another"), ..glance },
                    Glance { group: Some("another"), ..glance },
                ];
                for other in others {
                    prop_assert_eq!(holds(b"\x01/etc/a", &row, &other), Some(false));
                }
                prop_assert_eq!(holds(b"\x01/etc/b", &row, &glance), None);
            }
            prop_assert_eq!(decode(b"\x01/etc/b", &row), None);
            let bit = flip.index(row.len() * 8);
            row[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(decode(b"\x01/etc/a", &row), None);
        }
    }
}
