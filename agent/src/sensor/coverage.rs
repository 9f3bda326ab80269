//! What is watched by which sensor, and why not by a better one.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

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
