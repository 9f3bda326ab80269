//! The REST objects as far as tables and the feed need them. What is printed as JSON never goes
//! through here: it stays as it came.

use serde::Deserialize;
use trueline_drift::baseline::EXISTS;
use trueline_drift::format::lines::Lines;
use trueline_drift::{Actor, Candidates, FieldChange, ItemId, Time, Transaction, Value};

use crate::failure::Failure;
use crate::screen::Tone;

/// Reads an object of the collector.
pub fn read<T: for<'de> Deserialize<'de>>(value: &serde_json::Value) -> Result<T, Failure> {
    T::deserialize(value).map_err(|error| {
        Failure::Refused(format!("the collector's answer is not as this version knows it ({error}): are they of one version?"))
    })
}

#[derive(Debug, Deserialize)]
pub struct Host {
    pub id: String,
    pub name: String,
    pub state: String,
    pub facts: trueline_drift::Facts,
    pub agent_version: Option<String>,
    pub enrolled_at: Time,
    pub last_seen_at: Option<Time>,
    pub revoked_at: Option<Time>,
    pub certificate_expires_at: Option<Time>,
    pub inventory_completed_at: Option<Time>,
    pub acknowledged: u64,
    pub items: u64,
    pub open_drifts: u64,
    /// Missing from an older collector's answer, which folds nothing.
    #[serde(default)]
    pub folded_drifts: u64,
    pub baseline: Option<BaselineName>,
    pub comparison: Option<String>,
    /// Missing from an older collector's answer, which does not tell.
    #[serde(default)]
    pub has_twin: bool,
    #[serde(default)]
    pub status: Status,
}

impl Host {
    /// Its state for people: a host whose agent has not come yet is not silent.
    pub fn standing(&self) -> &str {
        if self.state == "silent" && self.last_seen_at.is_none() { "new" } else { &self.state }
    }

    /// Whether its open drift is all that its baseline and what is known of it amount to.
    pub fn is_compared(&self) -> bool {
        self.comparison.as_deref() == Some("current")
    }
}

#[derive(Debug, Deserialize)]
pub struct BaselineName {
    pub name: String,
    pub version: u64,
}

impl BaselineName {
    pub fn is(&self, baseline: &Baseline) -> bool {
        self.name == baseline.name && self.version == baseline.version
    }
}

impl std::fmt::Display for BaselineName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} v{}", self.name, self.version)
    }
}

/// What an agent last said of itself.
#[derive(Debug, Default, Deserialize)]
pub struct Status {
    #[serde(default)]
    pub sensors: Vec<Sensor>,
    #[serde(default)]
    pub troubles: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct Sensor {
    pub name: String,
    pub scope: String,
    pub watching: bool,
    pub reason: Option<String>,
}

impl Sensor {
    /// Items are not watched where they should be. What else a row is about tells more of a change, and leaves none unseen.
    pub fn is_blind(&self) -> bool {
        !self.watching && ["file:", "sysctl:"].iter().any(|kind| self.scope.starts_with(kind))
    }
}

#[derive(Debug, Deserialize)]
pub struct Change {
    pub id: i64,
    pub host_name: String,
    pub item: ItemId,
    pub kind: String,
    #[serde(default)]
    pub cause: String,
    pub fields: Vec<FieldChange>,
    pub observed_after: Time,
    pub observed_at: Time,
    pub received_at: Time,
    pub actor: Actor,
    pub transaction: Option<Transaction>,
    pub shipped_by: Option<ItemId>,
    /// Missing where somebody is named, and from an older collector's answer.
    #[serde(default)]
    pub candidates: Candidates,
    /// Of a file that is not told by its settings.
    pub lines: Option<Lines>,
    pub verdict: Option<String>,
    #[serde(default)]
    pub reasons: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub struct Drift {
    pub id: i64,
    pub host: String,
    pub host_name: String,
    pub item: ItemId,
    pub field: String,
    pub expected: Option<Value>,
    pub actual: Option<Value>,
    pub verdict: String,
    pub severity: String,
    #[serde(rename = "type")]
    pub drift_type: String,
    pub state: String,
    pub opened_at: Time,
    pub updated_at: Time,
    pub resolved_at: Option<Time>,
    pub change: Option<i64>,
    pub actor: Option<Actor>,
    pub transaction: Option<Transaction>,
    pub resolved_by: Option<i64>,
    pub acknowledged: Option<Acknowledged>,
    pub folded_under: Option<ItemId>,
    #[serde(default)]
    pub folds: u64,
    #[serde(default)]
    pub reasons: Vec<String>,
    pub event: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Acknowledged {
    pub at: Time,
    pub by: String,
    pub note: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Baseline {
    pub id: i64,
    pub name: String,
    pub version: u64,
    pub origin: String,
    /// Missing from an older collector's answer.
    #[serde(default)]
    pub whole: bool,
    pub items: u64,
    pub created_at: Time,
    pub created_by: String,
    pub hosts: u64,
}

#[derive(Debug, Deserialize)]
pub struct Gap {
    pub host_name: String,
    pub scope: String,
    pub reason: String,
    pub explanation: String,
    pub began_at: Time,
    pub ended_at: Option<Time>,
    pub lost: Option<u64>,
    pub remedy: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Token {
    pub id: i64,
    pub kind: String,
    pub role: String,
    pub name: String,
    pub standing: String,
    pub created_at: Time,
    pub expires_at: Option<Time>,
    pub uses_left: Option<u32>,
    /// Only in the answer that made it.
    pub token: Option<String>,
}

#[derive(Debug, Deserialize)]
pub struct Summary {
    pub expected: u64,
    pub out_of_scope: u64,
    pub notable: u64,
    pub critical: u64,
    pub open_drifts: u64,
}

impl Summary {
    pub fn changes(&self) -> u64 {
        self.expected + self.out_of_scope + self.notable + self.critical
    }
}

/// Fields that say little beside others that moved with them.
const QUIET: &[&str] = &["mtime", "nlink"];

/// A value in the length a line has for it: the whole of a digest tells nobody more than its start.
pub fn short(field: &str, value: Option<&Value>) -> String {
    match value {
        None => "–".to_owned(),
        Some(Value::Text(text)) if field.ends_with("sha256") && text.len() > 12 && text.is_ascii() => format!("{}…", &text[..8]),
        Some(Value::Text(text)) if text.is_empty() => "\"\"".to_owned(),
        Some(value) => value.to_string(),
    }
}

/// Expected and actual in words, where the field is the item's being there.
pub fn departure(drift: &Drift) -> (String, String) {
    if drift.field == EXISTS.as_str() {
        let words = |value: &Option<Value>, yes: &str, no: &str| match value {
            Some(Value::Boolean(true)) => yes.to_owned(),
            _ => no.to_owned(),
        };
        return (words(&drift.expected, "present", "absent"), words(&drift.actual, "present", "missing"));
    }
    (short(&drift.field, drift.expected.as_ref()), short(&drift.field, drift.actual.as_ref()))
}

/// A change's fields as toned pieces of a line: `mode 0644 → 0600, owner root → alice`.
pub fn transition(change: &Change) -> Vec<(Tone, String)> {
    match change.kind.as_str() {
        "created" => {
            let told: Vec<String> = ["type", "version", "value", "mode", "owner", "size"]
                .iter()
                .filter_map(|name| change.fields.iter().find(|field| field.name.as_str() == *name))
                .map(|field| format!("{} {}", field.name, short(field.name.as_str(), field.after.as_ref())))
                .collect();
            let more = if told.is_empty() { String::new() } else { format!(" {}", told.join(", ")) };
            vec![(Tone::After, "created".to_owned()), (Tone::Plain, more)]
        }
        "removed" => vec![(Tone::Before, "removed".to_owned())],
        _ => {
            let telling = |field: &&FieldChange| !QUIET.contains(&field.name.as_str());
            let mut fields: Vec<&FieldChange> = change.fields.iter().filter(telling).collect();
            if fields.is_empty() {
                fields = change.fields.iter().collect();
            }
            let mut pieces = Vec::new();
            for (at, field) in fields.iter().enumerate() {
                let name = field.name.as_str();
                pieces.push((Tone::Plain, format!("{}{name} ", if at == 0 { "" } else { ", " })));
                pieces.push((Tone::Before, short(name, field.before.as_ref())));
                pieces.push((Tone::Dim, " → ".to_owned()));
                pieces.push((Tone::After, short(name, field.after.as_ref())));
            }
            pieces
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: &str, fields: serde_json::Value) -> Change {
        read(&serde_json::json!({
            "id": 1, "host_name": "web1", "item": "file:/etc/hosts", "kind": kind, "fields": fields,
            "observed_after": "2026-02-12T10:30:00Z", "observed_at": "2026-02-12T10:30:00Z", "received_at": "2026-02-12T10:30:00Z",
            "actor": {"certainty": "unknown"}
        }))
        .unwrap()
    }

    fn text(change: &Change) -> String {
        transition(change).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn a_transition_leaves_out_what_moves_with_everything_unless_it_is_all_there_is() {
        let digest = |c: &str| c.repeat(64);
        let edited = change(
            "modified",
            serde_json::json!([
                {"name": "mtime", "before": "a", "after": "b"},
                {"name": "sha256", "before": digest("a"), "after": digest("b")},
                {"name": "size", "before": 1, "after": null}
            ]),
        );
        assert_eq!(text(&edited), "sha256 aaaaaaaa… → bbbbbbbb…, size 1 → –");
        let touched = change("modified", serde_json::json!([{"name": "mtime", "before": "a", "after": "b"}]));
        assert_eq!(text(&touched), "mtime a → b");
        let made = change("created", serde_json::json!([{"name": "mode", "before": null, "after": "0644"}]));
        assert_eq!(text(&made), "created mode 0644");
    }
}
