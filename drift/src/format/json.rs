//! JSON (RFC 8259). A repeated key is the reader's to decide there, and most take the last: that counts, and a conflict is
//! shown. Numbers stay as they are written, so that the smallest difference in the greatest of them shows.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::tree::{self, Count, Node};
use super::{FormatError, Settings};

pub(super) fn covers(path: &str) -> bool {
    super::has_suffix(path, &[".json"])
}

pub(super) fn read(text: &str, settings: &mut Settings) -> Result<(), FormatError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let root: &RawValue = serde_json::from_str(text).map_err(|error| FormatError { line: error.line(), reason: "it is no JSON" })?;
    let node = node(root.get(), 0, &mut Count::default()).map_err(|reason| FormatError { line: 0, reason })?;
    tree::take(&node, settings)
}

/// One level of a list or table, its entries as they are written. Each level is read once more than the one around it, so
/// that time is bounded by the length times [`super::DEPTH`].
enum Level<'a> {
    List(Vec<&'a RawValue>),
    Table(Vec<(String, &'a RawValue)>),
}

struct Levels;

impl<'de> Visitor<'de> for Levels {
    type Value = Level<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or a table")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Level<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = list.next_element()? {
            entries.push(entry);
        }
        Ok(Level::List(entries))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Level<'de>, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = table.next_entry()? {
            entries.push(entry);
        }
        Ok(Level::Table(entries))
    }
}

impl<'de> Deserialize<'de> for Level<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Levels)
    }
}

fn node(raw: &str, depth: usize, count: &mut Count) -> Result<Node, &'static str> {
    count.one(depth)?;
    let broken = |_| "a text in it is no Unicode";
    if raw.starts_with('"') {
        return Ok(Node::Scalar(tree::quoted(&serde_json::from_str::<String>(raw).map_err(broken)?)));
    }
    if !raw.starts_with(['[', '{']) {
        return Ok(Node::Scalar(raw.to_owned()));
    }
    match serde_json::from_str(raw).map_err(broken)? {
        Level::List(entries) => {
            let entries: Result<_, _> = entries.into_iter().map(|entry| node(entry.get(), depth + 1, count)).collect();
            entries.map(Node::List)
        }
        Level::Table(entries) => {
            let entries: Result<_, _> = entries.into_iter().map(|(key, value)| Ok((key, node(value.get(), depth + 1, count)?))).collect();
            entries.map(Node::Table)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Format;
    use super::super::nested_tests::{refused, told};

    #[test]
    fn values_are_told_by_their_path() {
        let text = r#"{"log": {"level": "info", "max": 1e400, "big": 123456789012345678901234567890},
            "users": [{"name": "bob", "shell": "/bin/sh"}, {"name": "eve", "shell": null}], "hosts": ["a", "b"],
            "auths": {"registry.example.org": {"auth": "x"}}, "mixed": [1, {"a": true}], "none": {}, "empty": [], "n": "1"}"#;
        insta::assert_snapshot!(told(Format::Json, text));
    }

    #[test]
    fn a_key_that_stands_twice_is_not_hidden() {
        insta::assert_snapshot!(told(Format::Json, r#"{"a": 1, "a": 2, "b": {"x": 1}, "b": {"y": 2}, "c": [1], "c": [2]}"#));
    }

    #[test]
    fn hostile_documents_end() {
        for text in [
            "[".repeat(1 << 20),
            format!("{}1{}", "[".repeat(40), "]".repeat(40)),
            "{\"a\":".repeat(1 << 17),
            format!("[{}1]", "1,".repeat(100_000)),
            "{\"a\": \"\\ud800\"}".to_owned(),
            "{a: 1}".to_owned(),
        ] {
            refused(Format::Json, &text);
        }
        assert!(told(Format::Json, "\"\\u001b[31m\"").contains("\\\\x1b[31m"));
    }
}
