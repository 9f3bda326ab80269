//! What Puppet says of its last run (last_run_summary.yaml).
//!
//! Invariants: every text comes out printable and bounded; what does not read as Puppet writes it is left out. It is a tool's word
//! on itself, about its last run: whose run that was, the time tells.

use serde::Deserialize;

use super::Outcome;
use crate::Time;
use crate::document::parse_yaml;
use crate::text::{bounded, printable};

const VERSION_TEXT: usize = 128;
/// Longest summary: Puppet writes some two KiB.
const LIMIT: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Of the catalogue: a time, or whatever `config_version` prints.
    pub catalogue_version: Option<String>,
    pub ended_at: Time,
    /// Absent where there was no catalogue to apply.
    pub outcome: Option<Outcome>,
}

#[derive(Debug, Deserialize)]
struct Document {
    version: Option<Version>,
    resources: Option<Resources>,
    events: Option<Events>,
    time: Times,
}

#[derive(Debug, Deserialize)]
struct Version {
    config: Option<Word>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Word {
    Integer(i64),
    Text(String),
}

#[derive(Debug, Deserialize)]
struct Resources {
    #[serde(default)]
    failed: u64,
    #[serde(default)]
    failed_to_restart: u64,
    #[serde(default)]
    changed: u64,
}

#[derive(Debug, Deserialize)]
struct Events {
    #[serde(default)]
    failure: u64,
}

#[derive(Debug, Deserialize)]
struct Times {
    last_run: i64,
}

/// `None` for what is no summary.
pub fn summary(text: &[u8]) -> Option<Summary> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= LIMIT)?;
    let Document { version, resources, events, time } = parse_yaml("last_run_summary.yaml", text).ok()?;
    let catalogue_version = version.and_then(|version| version.config).map(|config| match config {
        Word::Integer(number) => number.to_string(),
        Word::Text(text) => bounded(&printable(text.as_bytes()), VERSION_TEXT).into_owned(),
    });
    let has_failed = events.is_some_and(|events| events.failure > 0);
    let outcome = resources.map(|resources| match resources {
        Resources { failed, failed_to_restart, .. } if has_failed || failed > 0 || failed_to_restart > 0 => Outcome::Failed,
        Resources { changed: 0, .. } => Outcome::Unchanged,
        _ => Outcome::Changed,
    });
    let catalogue_version = catalogue_version.filter(|version| !version.is_empty());
    Some(Summary { catalogue_version, ended_at: Time::from_seconds(time.last_run).in_calendar(), outcome })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As Puppet 7 writes it after a run that changed two resources.
    const CHANGED: &str = include_str!("last_run_summary.yaml");

    fn of(text: &str) -> Option<Summary> {
        summary(text.as_bytes())
    }

    #[test]
    fn a_summary_tells_the_catalogue_and_what_came_of_it() {
        let changed = of(CHANGED).unwrap();
        assert_eq!(changed.catalogue_version.as_deref(), Some("1770892201"));
        assert_eq!((changed.ended_at, changed.outcome), (Time::from_seconds(1_770_892_202), Some(Outcome::Changed)));
        let unchanged = of(&CHANGED.replace("changed: 2", "changed: 0")).unwrap();
        assert_eq!(unchanged.outcome, Some(Outcome::Unchanged));
        for failure in [("failed: 0", "failed: 1"), ("failure: 0", "failure: 1"), ("failed_to_restart: 0", "failed_to_restart: 1")] {
            assert_eq!(of(&CHANGED.replacen(failure.0, failure.1, 1)).unwrap().outcome, Some(Outcome::Failed), "{failure:?}");
        }
        let named = of(&CHANGED.replace("config: 1770892201", "config: \"main \\e[31m\"")).unwrap();
        assert_eq!(named.catalogue_version.as_deref(), Some("main \\x1b[31m"));
        // The catalogue could not be made: nothing was applied, and there is no version of it.
        let none = of("---\nversion:\n  config:\n  puppet: 7.23.0\ntime:\n  last_run: 1770892202\n").unwrap();
        assert_eq!((none.catalogue_version, none.outcome), (None, None));
    }

    #[test]
    fn what_is_no_summary_is_none() {
        for text in ["", "---\n", "version: {config: 1}", "time: {last_run: soon}", "- 1\n", "time: &a [*a]\n", "\u{0}"] {
            assert_eq!(of(text), None, "{text:?}");
        }
        assert_eq!(of(&format!("{CHANGED}# {}\n", "x".repeat(LIMIT))), None);
        let bomb = "a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b]\n";
        let _ = of(&format!("{bomb}{CHANGED}"));
    }

    proptest! {
        #[test]
        fn whatever_the_version_is_it_comes_out_printable(version in ".{0,200}") {
            let config = format!("config: {}", serde_json::to_string(&version).unwrap());
            if let Some(summary) = of(&CHANGED.replace("config: 1770892201", &config)) {
                prop_assert!(!summary.catalogue_version.unwrap_or_default().chars().any(char::is_control));
            }
        }
    }
}
