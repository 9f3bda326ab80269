//! One thing on a host that can drift, addressed `kind:key`.
//!
//! A key is always printable text (see [`crate::text`]): a file name that is not UTF-8, or holds a
//! newline or a terminal escape, is escaped once, when it enters, and stays so everywhere.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::{ItemKind, text};

#[derive(Debug, thiserror::Error)]
pub enum ItemError {
    #[error("`{name}` is not a kind of item: use {}", ItemKind::names())]
    Kind { name: String },
    #[error("`{text}` is not an item: write kind:key, as in file:/etc/ssh/sshd_config")]
    Shape { text: String },
    #[error("the item's key is {length} bytes long; {limit} is the limit", limit = ItemKey::LIMIT)]
    TooLong { length: usize },
}

/// The name of an item within its kind: an absolute path, a package, a sysctl, a user.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemKey(String);

impl ItemKey {
    /// Longest key in bytes of text. A path may exceed PATH_MAX (4096) when it was made by relative
    /// steps, and each byte of it may need four characters.
    pub const LIMIT: usize = 64 * 1024;

    /// From bytes that the host chose.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ItemError> {
        Self::checked(text::printable(bytes).into_owned())
    }

    /// From text that is already in the printable form; anything unprintable in it is escaped.
    pub fn from_text(key: &str) -> Result<Self, ItemError> {
        let bytes = text::original(key);
        Self::from_bytes(&bytes)
    }

    fn checked(key: String) -> Result<Self, ItemError> {
        if key.len() > Self::LIMIT { Err(ItemError::TooLong { length: key.len() }) } else { Ok(Self(key)) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The bytes the host knows this key by.
    pub fn bytes(&self) -> std::borrow::Cow<'_, [u8]> {
        text::original(&self.0)
    }
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId {
    pub kind: ItemKind,
    pub key: ItemKey,
}

impl ItemId {
    pub fn new(kind: ItemKind, key: ItemKey) -> Self {
        Self { kind, key }
    }

    /// The first 16 bytes of SHA-256 over `kind:key`: how a store finds an item whose key may be
    /// longer than an index entry may be.
    pub fn fingerprint(&self) -> ItemFingerprint {
        let mut hasher = Sha256::new();
        hasher.update(self.kind.name().as_bytes());
        hasher.update(b":");
        hasher.update(self.key.0.as_bytes());
        let digest = hasher.finalize();
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        ItemFingerprint(short)
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.key)
    }
}

impl FromStr for ItemId {
    type Err = ItemError;

    fn from_str(item: &str) -> Result<Self, ItemError> {
        let shape = || ItemError::Shape { text: text::bounded(item, 80).into_owned() };
        let (kind, key) = item.split_once(':').ok_or_else(shape)?;
        if key.is_empty() {
            return Err(shape());
        }
        Ok(Self { kind: kind.parse()?, key: ItemKey::from_text(key)? })
    }
}

impl Serialize for ItemId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ItemId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemFingerprint(pub [u8; 16]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_read_back_from_their_text() {
        for text in ["file:/etc/ssh/sshd_config", "sysctl:net.ipv4.ip_forward", "file:/tmp/a\\x0ab", "unit:a@b:c.service"] {
            assert_eq!(text.parse::<ItemId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn raw_control_characters_in_text_are_escaped_on_entry() {
        let item: ItemId = "file:/tmp/\u{1b}[2J".parse().unwrap();
        assert_eq!(item.to_string(), "file:/tmp/\\x1b[2J");
    }

    #[test]
    fn an_item_without_kind_or_key_is_refused_with_an_example() {
        for text in ["/etc/passwd", "file:", "disc:sda"] {
            let error = text.parse::<ItemId>().unwrap_err().to_string();
            assert!(error.contains("kind"), "{error}");
        }
    }
}
