//! How the agent is doing: counters, progress, troubles. Written by its threads, read by the
//! heartbeat and by whoever runs the agent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;
use trueline_drift::Time;

/// What the agent is doing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    #[default]
    Starting,
    /// Reading every item for the first time.
    Inventory,
    /// Reading items again: after a restart, a loss, or on schedule.
    Rescan,
    Watching,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    pub phase: Phase,
    /// Items read in this phase; of a finished inventory, all there are.
    pub items: u64,
    pub bytes: u64,
}

#[derive(Debug)]
pub struct Status {
    pub changes: AtomicU64,
    /// Changes that could not be spooled when they were seen.
    pub held: AtomicU64,
    /// Microseconds since the epoch; 0 while nothing is held.
    holding_since: AtomicI64,
    pub read_failures: AtomicU64,
    pub items: AtomicU64,
    progress: watch::Sender<Progress>,
    troubles: Mutex<BTreeMap<&'static str, String>>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            changes: AtomicU64::new(0),
            held: AtomicU64::new(0),
            holding_since: AtomicI64::new(0),
            read_failures: AtomicU64::new(0),
            items: AtomicU64::new(0),
            progress: watch::Sender::new(Progress::default()),
            troubles: Mutex::default(),
        }
    }
}

impl Status {
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    pub fn advance(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }

    /// Sets or clears what an operator should know about one part of the agent.
    pub fn trouble(&self, part: &'static str, sentence: Option<String>) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        match sentence {
            Some(sentence) => {
                troubles.insert(part, sentence);
            }
            None => {
                troubles.remove(part);
            }
        }
    }

    pub fn troubles(&self) -> Vec<String> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    pub fn holding_since(&self) -> Option<Time> {
        match self.holding_since.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Time::from_micros(micros)),
        }
    }

    pub fn hold_since(&self, since: Option<Time>) {
        self.holding_since.store(since.map_or(0, Time::micros), Ordering::Relaxed);
    }
}
