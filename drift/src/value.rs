//! Values of fields, and the sorted set of them that describes an item.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::text;

/// Longest text that one value keeps whole, in bytes. Of a longer one the beginning and a digest of all of it are kept, so
/// that two of them are equal only if the originals are.
pub const VALUE_LIMIT: usize = 4096;

/// Longest text of a value, with what [`VALUE_LIMIT`] appends.
pub const TEXT_LIMIT: usize = VALUE_LIMIT + 64;

/// Most entries of a list, and most bytes of them together; more is treated as too long a text is.
pub const LIST_LIMIT: usize = 1024;
const LIST_BYTES: usize = 64 * 1024;

/// Most bytes of an item's fields together: beyond it the longest values give way to their digests.
pub const ITEM_LIMIT: usize = 128 * 1024;

/// Names of fields that the agent reports, so that the common ones cost no allocation. The agent's state writes a name as its
/// place here: the list is sorted, and an entry that comes or goes needs a new version of that format.
pub const KNOWN: &[&str] = &[
    "acl",
    "active",
    "architecture",
    "capabilities",
    "enabled",
    "flags",
    "gecos",
    "gid",
    "group",
    "home",
    "link_target",
    "locked",
    "members",
    "mode",
    "mtime",
    "nlink",
    "owner",
    "password",
    "path",
    "sha256",
    "shell",
    "size",
    "source",
    "status",
    "type",
    "uid",
    "value",
    "version",
];

/// The name of a field: `mode`, `sha256`, `xattr.user.note`, `config.PermitRootLogin`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldName(Cow<'static, str>);

impl FieldName {
    /// Longest name in bytes; of a longer one the beginning is kept, and says so.
    pub const LIMIT: usize = 512;
    /// Room for what says so.
    const CUT: usize = Self::LIMIT - 48;

    pub const fn known(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    /// A name of a name is that name: whoever stores or sends one makes it anew when it is read.
    pub fn new(name: &str) -> Self {
        match KNOWN.binary_search(&name) {
            Ok(at) => Self(Cow::Borrowed(KNOWN[at])),
            Err(_) => {
                let bytes = text::original(name);
                let printable = text::printable(&bytes);
                if printable.len() <= Self::LIMIT {
                    return Self(Cow::Owned(printable.into_owned()));
                }
                // Not within an escape, which would then stand for other bytes.
                let mut end = Self::CUT;
                while !printable.is_char_boundary(end) || text::printable(&text::original(&printable[..end])) != printable[..end] {
                    end -= 1;
                }
                Self(Cow::Owned(format!("{}… ({} bytes in all)", &printable[..end], printable.len())))
            }
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl std::borrow::Borrow<str> for FieldName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for FieldName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for FieldName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(&String::deserialize(deserializer)?))
    }
}

/// A field's value. JSON and YAML: a boolean, a number, a string, a list of strings, or
/// `{unreadable: "why"}` where reading was tried and failed, which is neither equal nor unequal to
/// anything (what could not be read is not compliant).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    Boolean(bool),
    Integer(i64),
    Text(String),
    List(Vec<String>),
    Unreadable { unreadable: String },
}

impl Value {
    pub fn text(text: &str) -> Self {
        Self::Text(bounded(text, text.as_bytes()))
    }

    /// Text from bytes that the host chose: escaped, then bounded.
    pub fn bytes(bytes: &[u8]) -> Self {
        // Escaping never shortens: more of a long one cannot matter.
        Self::Text(bounded(&text::printable(&bytes[..bytes.len().min(VALUE_LIMIT + 1)]), bytes))
    }

    /// Texts in the order that means something to the item.
    pub fn list(texts: Vec<String>) -> Self {
        let count = texts.len();
        let mut hasher = Sha256::new();
        let mut room = LIST_BYTES;
        let mut kept = Vec::new();
        for text in texts {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
            let text = bounded(&text, text.as_bytes());
            match room.checked_sub(text.len()) {
                Some(rest) if kept.len() < LIST_LIMIT => {
                    room = rest;
                    kept.push(text);
                }
                _ => room = 0,
            }
        }
        if kept.len() < count {
            kept.truncate(LIST_LIMIT - 1);
            kept.push(format!("… ({count} entries in all, sha256 {})", short(hasher)));
        }
        Self::List(kept)
    }

    pub fn unreadable(reason: impl fmt::Display) -> Self {
        Self::Unreadable { unreadable: text::bounded(&reason.to_string(), 256).into_owned() }
    }

    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable { .. })
    }

    /// Bytes of text in it.
    pub fn size(&self) -> usize {
        match self {
            Self::Boolean(_) | Self::Integer(_) => 8,
            Self::Text(text) | Self::Unreadable { unreadable: text } => text.len(),
            Self::List(list) => list.iter().map(String::len).sum(),
        }
    }
}

/// `text` if it is short, and else its beginning and a digest of all that it was made from.
fn bounded(text: &str, whole: &[u8]) -> String {
    if text.len() <= VALUE_LIMIT {
        return text.to_owned();
    }
    let end = (0..=VALUE_LIMIT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    cut(&text[..end], whole)
}

/// The beginning of a text, and what tells the whole of it from others: 64 bytes more at most.
fn cut(beginning: &str, whole: &[u8]) -> String {
    format!("{beginning}… ({} bytes in all, sha256 {})", whole.len(), short(Sha256::new().chain_update(whole)))
}

fn short(hasher: Sha256) -> String {
    hex::encode(&hasher.finalize()[..8])
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<bool> for Value {
    fn from(boolean: bool) -> Self {
        Self::Boolean(boolean)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(boolean) => write!(f, "{boolean}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::List(list) => write!(f, "[{}]", list.join(", ")),
            Self::Unreadable { unreadable } => write!(f, "unreadable: {unreadable}"),
        }
    }
}

/// An item's fields, sorted by name. A field that an item does not have is absent, never empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fields(BTreeMap<FieldName, Value>);

impl Fields {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn set(&mut self, name: FieldName, value: Value) {
        self.0.insert(name, value);
    }

    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.set(FieldName::known(name), value.into());
        self
    }

    /// Within [`ITEM_LIMIT`]: where there is more, the longest values give way to a digest of theirs.
    pub fn bounded(mut self) -> Self {
        let mut total = self.size();
        while total > ITEM_LIMIT {
            let Some(longest) = self.0.values_mut().max_by_key(|value| value.size()) else { break };
            let before = longest.size();
            let digest = cut("", longest.to_string().as_bytes());
            if digest.len() >= before {
                break;
            }
            total -= before - digest.len();
            *longest = Value::Text(digest);
        }
        self
    }

    /// Bytes of all names and values: what [`ITEM_LIMIT`] bounds.
    pub fn size(&self) -> usize {
        self.iter().map(|(name, value)| name.as_str().len() + value.size()).sum()
    }

    pub fn remove(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&FieldName, &Value)> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(FieldName, Value)> for Fields {
    fn from_iter<I: IntoIterator<Item = (FieldName, Value)>>(fields: I) -> Self {
        Self(fields.into_iter().collect())
    }
}

impl IntoIterator for Fields {
    type Item = (FieldName, Value);
    type IntoIter = std::collections::btree_map::IntoIter<FieldName, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_are_sorted_for_the_search() {
        assert!(KNOWN.is_sorted());
    }

    #[test]
    fn values_keep_their_type_through_json() {
        let fields = Fields::new().with("mode", "0644").with("size", 12).with("enabled", true);
        let json = serde_json::to_string(&fields).unwrap();
        assert_eq!(json, r#"{"enabled":true,"mode":"0644","size":12}"#);
        assert_eq!(serde_json::from_str::<Fields>(&json).unwrap(), fields);
        let unreadable = Value::unreadable("permission denied");
        let json = serde_json::to_string(&unreadable).unwrap();
        assert_eq!(json, r#"{"unreadable":"permission denied"}"#);
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), unreadable);
    }

    /// A long name that is read back from the state as another would be a change each time.
    #[test]
    fn a_long_name_stays_the_same_when_it_is_made_anew() {
        for length in 500..520 {
            for byte in ["a", "\u{1}", "é", "\u{202e}", "\\"] {
                let name = FieldName::new(&format!("xattr.user.{}", byte.repeat(length)));
                assert!(name.as_str().len() <= FieldName::LIMIT);
                assert_eq!(FieldName::new(name.as_str()), name);
            }
        }
    }

    #[test]
    fn a_long_value_is_cut_and_still_differs_from_another() {
        let text = |last: u8| {
            let mut bytes = vec![b'a'; 10_000];
            bytes.push(last);
            let Value::Text(text) = Value::bytes(&bytes) else { panic!() };
            text
        };
        assert!(text(b'a').len() <= TEXT_LIMIT && text(b'a').contains("… (10001 bytes in all, sha256 "), "{}", text(b'a'));
        assert_ne!(text(b'a'), text(b'b'));
        // Escaped it is longer than it was.
        let Value::Text(escaped) = Value::bytes(&vec![0xff; VALUE_LIMIT]) else { panic!() };
        assert!(escaped.len() <= TEXT_LIMIT && escaped.contains("… (4096 bytes in all"));
    }

    #[test]
    fn a_long_list_is_cut_and_still_differs_from_another() {
        let list = |last: &str| {
            let members = (0..10_000).map(|number| format!("member{number}")).chain([last.to_owned()]).collect();
            let Value::List(list) = Value::list(members) else { panic!() };
            list
        };
        assert_eq!(list("a").len(), LIST_LIMIT);
        assert!(list("a").last().unwrap().starts_with("… (10001 entries in all, sha256 "));
        assert_ne!(list("a"), list("b"));
        let Value::List(long) = Value::list(vec!["x".repeat(VALUE_LIMIT); 100]) else { panic!() };
        assert!(long.len() == 17 && long[16].starts_with("… (100 entries in all"));
    }

    #[test]
    fn an_item_too_large_to_be_told_keeps_its_small_fields_and_digests_of_the_rest() {
        let fields = |last: &str| {
            let mut fields = Fields::new().with("mode", "0644");
            for number in 0..200 {
                fields.set(FieldName::new(&format!("xattr.user.{number}")), Value::text(&format!("{}{last}", "x".repeat(4000))));
            }
            fields.bounded()
        };
        let size: usize = fields("a").iter().map(|(name, value)| name.as_str().len() + value.size()).sum();
        assert!(size <= ITEM_LIMIT, "{size}");
        assert_eq!(fields("a").value("mode"), Some(&Value::text("0644")));
        assert_eq!(fields("a").len(), 201);
        assert_ne!(fields("a"), fields("b"));
        assert_eq!(fields("a").bounded(), fields("a"));
    }
}
