//! The verdict on a change: whether anybody decided it, from the baseline.

use serde::{Deserialize, Serialize};

use crate::baseline::{Departure, Expectation, departures};
use crate::change::ChangeKind;
use crate::sensitivity::{DriftType, Severity, classify};
use crate::{Certainty, Change, ItemId, ItemKind};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Expected,
    OutOfScope,
    Notable,
    Critical,
}

impl Verdict {
    pub const ALL: [Self; 4] = [Self::Expected, Self::OutOfScope, Self::Notable, Self::Critical];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Expected => "expected",
            Self::OutOfScope => "out_of_scope",
            Self::Notable => "notable",
            Self::Critical => "critical",
        }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A verdict with its reasons, each a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    pub verdict: Verdict,
    pub reasons: Vec<String>,
}

/// The baseline that a host is held against, by name and version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaselineName {
    pub name: String,
    pub version: u64,
}

impl std::fmt::Display for BaselineName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "baseline {} v{}", self.name, self.version)
    }
}

/// How grave a departure is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub departure: Departure,
    pub verdict: Verdict,
    pub severity: Severity,
    pub drift_type: DriftType,
    pub reasons: Vec<String>,
}

/// Weighs one departure of an item. Nothing authorises a change yet, so a security field that is
/// critical by itself makes a critical drift, everything else a notable one.
pub fn weigh(item: &ItemId, departure: Departure, baseline: &BaselineName) -> Finding {
    let (severity, drift_type) = classify(item, departure.field.as_str(), departure.actual.as_ref());
    let verdict = if severity == Severity::Critical { Verdict::Critical } else { Verdict::Notable };
    let mut reasons = vec![format!("departs from {baseline}")];
    if departure.actual.as_ref().is_some_and(crate::Value::is_unreadable) {
        reasons.push("could not be read, and so cannot be called compliant".to_owned());
    }
    if severity == Severity::Critical {
        reasons.push(format!("{} of {} decides who may act on the host", departure.field, item.kind));
    }
    Finding { departure, verdict, severity, drift_type, reasons }
}

/// Judges a change against what the host's baseline expects of its item.
///
/// Only the fields that this change moved count for its verdict; an older departure of the same item
/// stays the matter of the change that made it.
pub fn judge(change: &Change, baseline: Option<(&BaselineName, &Expectation)>) -> (Judgement, Vec<Finding>) {
    let one = |verdict, reason: String| Judgement { verdict, reasons: vec![reason] };
    let Some((name, expectation)) = baseline else {
        return (one(Verdict::OutOfScope, "the host has no baseline yet".to_owned()), Vec::new());
    };
    if *expectation == Expectation::Free {
        return (one(Verdict::OutOfScope, format!("{name} does not speak of this item")), Vec::new());
    }
    let after = change.after();
    let findings: Vec<Finding> =
        departures(expectation, after.as_ref()).into_iter().map(|departure| weigh(&change.item, departure, name)).collect();
    if let Some(package) = change.shipped_by.as_ref().filter(|_| change.item.kind == ItemKind::File) {
        // What departs stays drift: it shows until the package itself is accepted or goes back.
        let went = if change.kind == ChangeKind::Removed { "it went with" } else { "it is as it came with" };
        return (one(Verdict::Expected, format!("{went} {package}: that is what is to be judged")), findings);
    }
    let moved = |finding: &&Finding| {
        finding.departure.field == crate::baseline::EXISTS || change.fields.iter().any(|field| field.name == finding.departure.field)
    };
    let judgement = match findings.iter().filter(moved).max_by_key(|finding| finding.verdict) {
        None => one(Verdict::Expected, format!("agrees with {name} in every field it moved")),
        Some(worst) => {
            let mut reasons = worst.reasons.clone();
            if change.actor.certainty == Certainty::Unknown {
                reasons.push("no source says who did it".to_owned());
            }
            Judgement { verdict: worst.verdict, reasons }
        }
    };
    (judgement, findings)
}
