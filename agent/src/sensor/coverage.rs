//! What is watched by which sensor, and why not by a better one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use trueline_drift::operation::{Engine, Means, ProcessFeed};
use trueline_drift::{Certainty, Operation, OperationCoverage, text};

/// The name where nothing watches.
pub(super) const POLL: &str = "poll";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// `fanotify`, `inotify`, or `poll` where nothing but reading again will find a change.
    pub name: &'static str,
    /// `file:/etc`, `sysctl:*`.
    pub scope: String,
    pub watching: bool,
    /// Why nothing better watches it, or what is missing.
    pub reason: Option<String>,
}

/// The scope of what tells of actors and not of changes.
pub(super) const ACTORS: &str = "actor:";

/// Before the name of an operation: the scope of a hook in the kernel that tells of it by itself, as `operation:flags`.
pub const OPERATION: &str = "operation:";
/// Of what no sensor tells: a host without logind has no such items.
const SESSIONS: &str = "session:";

/// Most places named in one sentence.
const NAMED: usize = 3;
/// In bytes.
const SENTENCE: usize = 1000;

/// What an operator should know of rows that should be watched and are not; what is never watched but by reading again is
/// as it must be.
pub fn unwatched(rows: &[Coverage]) -> Option<String> {
    // A source of actors that is missing leaves nothing unwatched, nor do a hook and the records of logins.
    let is_aside = |row: &Coverage| [ACTORS, OPERATION, SESSIONS].iter().any(|scope| row.scope.starts_with(scope));
    let is_missed = |row: &&Coverage| !row.watching && row.name != POLL && !is_aside(row);
    let missed: Vec<&Coverage> = rows.iter().filter(is_missed).collect();
    let named: Vec<String> = missed
        .iter()
        .take(NAMED)
        .map(|row| match &row.reason {
            Some(reason) => format!("{} ({reason})", row.scope),
            None => row.scope.clone(),
        })
        .collect();
    let more = match missed.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    (!named.is_empty()).then(|| {
        let sentence = format!("not watched, and read again on schedule alone: {}{more}", named.join(", "));
        text::bounded(&sentence, SENTENCE).into_owned()
    })
}

/// What these rows come to, operation by operation.
pub fn operations(rows: &[Coverage]) -> Vec<OperationCoverage> {
    let files: Vec<&Coverage> = rows.iter().filter(|row| row.scope.starts_with("file:")).collect();
    let by = |name: &str| files.iter().find(|row| row.watching && row.name == name);
    let engine = by("fanotify").map(|row| (Engine::Fanotify, *row)).or_else(|| by("inotify").map(|row| (Engine::Inotify, *row)));
    let why = |row: &Coverage| bounded(row.reason.as_deref().unwrap_or("it is read again on schedule alone"));
    let (files, files_less) = match engine {
        Some((engine, best)) => {
            let mut less: Vec<String> = best.reason.iter().map(|reason| bounded(reason)).collect();
            let lesser: Vec<&&Coverage> = files.iter().filter(|row| !row.watching || row.name != best.name).collect();
            if let Some(first) = lesser.first() {
                let more = if lesser.len() > 1 { format!(" and {} more", lesser.len() - 1) } else { String::new() };
                let word = if first.watching { format!("watched by {}", first.name) } else { "not watched".to_owned() };
                less.push(format!("{}{more} {word}", bounded(&first.scope)));
            }
            (Ok(engine), (!less.is_empty()).then(|| less.join("; ")))
        }
        None => (Err(files.first().map_or_else(|| "no file is on the watch list".to_owned(), |row| why(row))), None),
    };
    let process = rows.iter().find(|row| row.scope.starts_with("process:"));
    let settings = match rows.iter().find(|row| row.scope == "sysctl:*") {
        Some(row) if row.watching => Ok(()),
        Some(row) => Err(why(row)),
        None => Err("kernel settings are not on the watch list".to_owned()),
    };
    let means = Means {
        files,
        files_less,
        processes: match process.map(|row| row.name) {
            Some("ebpf") => ProcessFeed::Ebpf,
            Some("connector") => ProcessFeed::Connector,
            _ => ProcessFeed::Procfs,
        },
        processes_less: process.and_then(|row| row.reason.as_deref()).map(bounded),
        settings,
        audit: rows.iter().any(|row| row.name == "audit" && row.scope.starts_with(ACTORS) && row.watching),
        hooks: rows.iter().filter(|row| row.watching).filter_map(hooked).collect(),
    };
    means.coverage()
}

/// Of a mount a hook does not know which it is, and of memory not what is written there.
fn hooked(row: &Coverage) -> Option<(Operation, Certainty)> {
    let name = row.scope.strip_prefix(OPERATION).or_else(|| row.scope.strip_prefix(ACTORS))?;
    let operation = Operation::ALL.into_iter().find(|operation| operation.name() == name)?;
    let is_partial = matches!(operation, Operation::Mount | Operation::MmapWrite);
    Some((operation, if is_partial { Certainty::Correlated } else { Certainty::Exact }))
}

/// A reason among others.
fn bounded(reason: &str) -> String {
    text::bounded(reason, SENTENCE / 5).into_owned()
}

/// Each sensor replaces its own rows.
#[derive(Debug, Default)]
pub(super) struct CoverageTable(Mutex<BTreeMap<&'static str, Vec<Coverage>>>);

impl CoverageTable {
    pub fn replace(&self, sensor: &'static str, rows: Vec<Coverage>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(sensor, rows);
    }

    pub fn rows(&self) -> Vec<Coverage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &'static str, scope: &str, watching: bool) -> Coverage {
        Coverage { name, scope: scope.to_owned(), watching, reason: (!watching).then(|| "why".to_owned()) }
    }

    fn told(rows: &[Coverage], operation: Operation) -> (Option<Certainty>, String) {
        let row = operations(rows).into_iter().find(|row| row.operation == operation).unwrap();
        (row.actor, row.reason.unwrap_or_default())
    }

    #[test]
    fn rows_come_to_what_is_told_of_each_operation() {
        let process = |name, reason: &str| Coverage {
            name,
            scope: "process:*".to_owned(),
            watching: true,
            reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        };
        let whole = [row("fanotify", "file:/etc", true), row("fanotify", "sysctl:*", true), process("ebpf", "")];
        assert_eq!(told(&whole, Operation::Write), (Some(Certainty::Exact), String::new()));
        assert_eq!(told(&whole, Operation::SysctlWrite), (Some(Certainty::Exact), String::new()));
        let partly = [
            row("fanotify", "file:/etc", true),
            row("inotify", "file:/overlay", true),
            row(POLL, "file:/gone", false),
            row(POLL, "sysctl:*", false),
            process("connector", "ebpf: refused"),
        ];
        let why = "ebpf: refused; file:/overlay and 1 more watched by inotify";
        assert_eq!(told(&partly, Operation::Chmod), (Some(Certainty::Strong), why.to_owned()));
        assert_eq!(told(&partly, Operation::SysctlWrite), (None, "why".to_owned()));
        assert_eq!(told(&[row("inotify", "file:/etc", true)], Operation::Chmod).0, Some(Certainty::Unknown));
        assert_eq!(told(&[row("fanotify", "file:/etc", false)], Operation::Chmod), (None, "why".to_owned()));
        assert_eq!(told(&[], Operation::Chmod), (None, "no file is on the watch list".to_owned()));
    }

    #[test]
    fn a_hook_that_is_attached_tells_of_its_operation() {
        let rows = |watching| [row("fanotify", "file:/etc", true), row("lsm", "operation:flags", watching)];
        assert_eq!(told(&rows(true), Operation::Flags).0, Some(Certainty::Exact));
        assert_eq!(told(&rows(false), Operation::Flags).0, None);
        assert_eq!(unwatched(&rows(false)), None, "what has no hook is watched all the same");
    }

    #[test]
    fn what_should_be_watched_and_is_not_is_named() {
        assert_eq!(unwatched(&[row("fanotify", "file:/etc", true), row(POLL, "sysctl:*", false), row("audit", "actor:*", false)]), None);
        let missed: Vec<Coverage> = (0..5).map(|number| row("inotify", &format!("file:/{number}"), false)).collect();
        let said = unwatched(&missed).unwrap();
        assert!(said.ends_with("file:/0 (why), file:/1 (why), file:/2 (why), and 2 more"), "{said}");
        assert!(unwatched(&missed[..1]).unwrap().ends_with("alone: file:/0 (why)"));
    }
}
