//! Baselines: desired state, captured from a host or written as YAML.
//!
//! A baseline speaks for the items it lists and for the scopes it closes. In a closed scope an item
//! that is not listed should not exist; outside it is no concern of the baseline.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::document::{DocumentError, parse_yaml};
use crate::pattern::Pattern;
use crate::{FieldName, Fields, ItemId, ItemKind, Value};

/// Fields that move without anybody deciding: never part of a captured baseline.
const VOLATILE: &[&str] = &["mtime", "nlink"];

/// What a baseline says of one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expectation {
    /// These fields, with these values; other fields are free.
    Fields(Fields),
    /// The item should not exist.
    Absent,
    /// The baseline does not speak of it.
    Free,
}

/// A part of a host in which everything that should exist is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClosedScope {
    pub kind: ItemKind,
    /// Over item keys.
    pub keys: Pattern,
}

impl ClosedScope {
    pub fn contains(&self, item: &ItemId) -> bool {
        self.kind == item.kind && self.keys.matches(item.key.as_str())
    }
}

/// A baseline as it is written: the YAML document.
///
/// ```yaml
/// name: web
/// closed:
///   - { kind: file, keys: "/etc/cron.d/*" }
/// items:
///   "file:/etc/ssh/sshd_config": { mode: "0600", owner: root }
///   "sysctl:net.ipv4.ip_forward": { value: "0" }
///   "package:telnetd": absent
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineDocument {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<ClosedScope>,
    #[serde(default)]
    pub items: BTreeMap<ItemId, ExpectedItem>,
}

/// `absent`, or the fields that are expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ExpectedItem {
    Absent(AbsentWord),
    Fields(Fields),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AbsentWord {
    Absent,
}

impl BaselineDocument {
    pub fn parse(source_name: &str, text: &str) -> Result<Self, DocumentError> {
        parse_yaml(source_name, text)
    }

    pub fn expectation(&self, item: &ItemId) -> Expectation {
        match self.items.get(item) {
            Some(ExpectedItem::Fields(fields)) => Expectation::Fields(fields.clone()),
            Some(ExpectedItem::Absent(_)) => Expectation::Absent,
            None => unlisted(&self.closed, item),
        }
    }
}

/// What a baseline with these closed scopes says of an item that it does not list.
pub fn unlisted(closed: &[ClosedScope], item: &ItemId) -> Expectation {
    if closed.iter().any(|scope| scope.contains(item)) { Expectation::Absent } else { Expectation::Free }
}

/// The expectation a captured baseline holds of an item, from how it is now.
pub fn captured(fields: &Fields) -> Fields {
    let is_folder = fields.value("type") == Some(&Value::text("folder"));
    fields
        .iter()
        .filter(|(name, value)| {
            // A folder's size is its file system's affair.
            let is_volatile = VOLATILE.contains(&name.as_str()) || (is_folder && name.as_str() == "size");
            !is_volatile && !value.is_unreadable()
        })
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// A field that departs from the baseline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    pub field: FieldName,
    pub expected: Option<Value>,
    pub actual: Option<Value>,
}

/// The name of the field that stands for an item's being there at all.
pub const EXISTS: FieldName = FieldName::known("exists");

/// Where an item departs from what is expected of it; `None` stands for an item that is not there.
/// Sorted by field. An unreadable value departs: what could not be read is not compliant.
pub fn departures(expected: &Expectation, actual: Option<&Fields>) -> Vec<Departure> {
    let exists = |expected: bool, actual: bool| {
        vec![Departure { field: EXISTS, expected: Some(Value::Boolean(expected)), actual: Some(Value::Boolean(actual)) }]
    };
    match (expected, actual) {
        (Expectation::Free, _) | (Expectation::Absent, None) => Vec::new(),
        (Expectation::Absent, Some(_)) => exists(false, true),
        (Expectation::Fields(_), None) => exists(true, false),
        (Expectation::Fields(expected), Some(actual)) => expected
            .iter()
            .filter(|(name, value)| actual.value(name.as_str()) != Some(value))
            .map(|(name, value)| Departure {
                field: name.clone(),
                expected: Some(value.clone()),
                actual: actual.value(name.as_str()).cloned(),
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &str = r#"
name: web
closed:
  - { kind: file, keys: "/etc/cron.d/*" }
items:
  "file:/etc/ssh/sshd_config": { mode: "0600", owner: root }
  "package:telnetd": absent
"#;

    #[test]
    fn a_written_baseline_speaks_of_listed_items_and_closed_scopes() {
        let web = BaselineDocument::parse("web.yaml", WEB).unwrap();
        let expectation = |item: &str| web.expectation(&item.parse().unwrap());
        assert!(matches!(expectation("file:/etc/ssh/sshd_config"), Expectation::Fields(_)));
        assert_eq!(expectation("package:telnetd"), Expectation::Absent);
        assert_eq!(expectation("file:/etc/cron.d/evil"), Expectation::Absent);
        assert_eq!(expectation("file:/etc/hosts"), Expectation::Free);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let error = BaselineDocument::parse("web.yaml", "name: web\nitem: {}\n").unwrap_err().to_string();
        assert!(error.starts_with("web.yaml:2:1: unknown key `item`: did you mean `items`?"), "{error}");
    }

    #[test]
    fn what_cannot_be_read_departs() {
        let expected = Expectation::Fields(Fields::new().with("sha256", "ab"));
        let mut actual = Fields::new();
        actual.set(FieldName::known("sha256"), Value::unreadable("permission denied"));
        assert_eq!(departures(&expected, Some(&actual)).len(), 1);
    }
}
