//! Values of fields, and the sorted set of them that describes an item.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::text;

/// Longest text kept in one value, in bytes; more is cut and says so.
pub const VALUE_LIMIT: usize = 4096;

/// Names of fields that the agent reports, so that the common ones cost no allocation.
const KNOWN: &[&str] = &[
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
    pub const LIMIT: usize = 512;

    pub const fn known(name: &'static str) -> Self {
        Self(Cow::Borrowed(name))
    }

    pub fn new(name: &str) -> Self {
        match KNOWN.binary_search(&name) {
            Ok(at) => Self(Cow::Borrowed(KNOWN[at])),
            Err(_) => {
                let bytes = text::original(name);
                let printable = text::printable(&bytes);
                Self(Cow::Owned(text::bounded(&printable, Self::LIMIT).into_owned()))
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
        Self::Text(text::bounded(text, VALUE_LIMIT).into_owned())
    }

    /// Text from bytes that the host chose: escaped, then bounded.
    pub fn bytes(bytes: &[u8]) -> Self {
        // Escaping grows text at most fourfold: no more than VALUE_LIMIT bytes can matter.
        if bytes.len() <= VALUE_LIMIT {
            return Self::text(&text::printable(bytes));
        }
        let cut = text::printable(&bytes[..VALUE_LIMIT]);
        Self::Text(format!("{cut}… ({} bytes in all)", bytes.len()))
    }

    pub fn unreadable(reason: impl fmt::Display) -> Self {
        Self::Unreadable { unreadable: text::bounded(&reason.to_string(), 256).into_owned() }
    }

    pub fn is_unreadable(&self) -> bool {
        matches!(self, Self::Unreadable { .. })
    }
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

    #[test]
    fn a_huge_value_is_cut_and_says_so() {
        let Value::Text(text) = Value::bytes(&vec![b'a'; 10_000]) else { panic!() };
        assert!(text.len() < VALUE_LIMIT + 64 && text.ends_with("(10000 bytes in all)"));
    }
}
