//! One drift as the feed shows it, in a page and in the stream that keeps the page live.

use serde::Serialize;
use trueline_drift::actor::Session;
use trueline_drift::baseline::EXISTS;
use trueline_drift::{Actor, Certainty, ItemKind, Time, Transaction, Value, Verdict, text};
use trueline_store::{DriftRow, DriftState, Explanation};

use super::age::grouped;
use super::page::Moment;

/// Longest text of a value in the feed, in bytes; the detail page has all of it.
const VALUE_SHOWN: usize = 240;
/// Longest key shown.
const KEY_SHOWN: usize = 400;

#[derive(Serialize)]
pub struct Row {
    pub id: i64,
    #[serde(skip)]
    pub at: Moment,
    /// When it opened, milliseconds since the epoch.
    pub millis: i64,
    pub host: String,
    pub host_id: String,
    pub kind: &'static str,
    pub key: String,
    pub field: String,
    /// Absent: nothing is expected, or the item does not have it.
    pub before: Option<String>,
    pub after: Option<String>,
    pub actor: String,
    pub certainty: &'static str,
    /// The run that it was made in, or else the login.
    pub through: Option<String>,
    pub verdict: &'static str,
    /// The verdict in words.
    pub verdict_text: &'static str,
    pub state: &'static str,
    /// The package whose drift stands for it: such a row is not in the feed.
    pub folded_under: Option<String>,
    /// How many drifts are folded under it, where there are any.
    pub folds: Option<String>,
    /// What the script finds a package's parts by when the package's drift opens after theirs: of a package its own name, of a
    /// part the package's.
    pub package: Option<String>,
}

impl Row {
    pub fn of(row: &DriftRow, now: Time) -> Self {
        let shown = |value: &Option<Value>| {
            value.as_ref().map(|value| text::bounded(&in_words(row.field.as_str(), value), VALUE_SHOWN).into_owned())
        };
        let (actor, certainty) = actor(row.change.as_ref().map(|change| &change.actor));
        let at = Moment::of(row.opened_at, now);
        Self {
            id: row.id,
            millis: at.millis,
            at,
            host: row.host_name.clone(),
            host_id: row.host.to_string(),
            kind: row.item.kind.name(),
            key: text::bounded(row.item.key.as_str(), KEY_SHOWN).into_owned(),
            field: row.field.to_string(),
            before: shown(&row.expected),
            after: shown(&row.actual),
            actor,
            certainty,
            through: row.change.as_ref().and_then(through),
            verdict: row.verdict.name(),
            verdict_text: words(row.verdict),
            state: state(row.state),
            folded_under: row.folded_under.as_ref().map(|package| text::bounded(&package.to_string(), KEY_SHOWN).into_owned()),
            folds: (row.folds > 0).then(|| grouped(row.folds)),
            package: match row.item.kind {
                ItemKind::Package => Some(row.item.fingerprint()),
                _ => row.part_of,
            }
            .map(|fingerprint| hex::encode(fingerprint.0)),
        }
    }
}

/// A value for people: whether an item is there at all reads better than true and false.
pub fn in_words(field: &str, value: &Value) -> String {
    match value {
        Value::Boolean(true) if field == EXISTS.as_str() => "present".to_owned(),
        Value::Boolean(false) if field == EXISTS.as_str() => "absent".to_owned(),
        _ => value.to_string(),
    }
}

/// An actor in a line, and how sure it is. A drift without a change was found by comparing state.
pub fn actor(actor: Option<&Actor>) -> (String, &'static str) {
    match actor {
        Some(actor) => (actor.summary(), actor.certainty.name()),
        None => ("unknown · found by comparing the host with its baseline".to_owned(), "unknown"),
    }
}

/// The innermost run that a change was made in, or the login where there was none.
fn through(change: &Explanation) -> Option<String> {
    let run = change.transaction.as_ref().map(Transaction::summary);
    let login = || change.actor.session.as_ref().filter(|session| session.certainty != Certainty::Unknown).map(Session::brief);
    run.or_else(login).map(|text| text::bounded(&text, VALUE_SHOWN).into_owned())
}

pub const fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Expected => "expected",
        Verdict::OutOfScope => "out of scope",
        Verdict::Notable => "notable",
        Verdict::Critical => "critical",
    }
}

pub const fn state(state: DriftState) -> &'static str {
    match state {
        DriftState::Open => "open",
        DriftState::Acknowledged => "acknowledged",
        DriftState::Resolved => "resolved",
    }
}
