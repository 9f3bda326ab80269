//! How the agent is doing: counters, progress, troubles. Written by its threads, read by the
//! heartbeat and by whoever runs the agent.

pub mod report;
pub mod socket;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use trueline_drift::Time;
use trueline_systemd::watchdog::Heartbeat;

use crate::clock;
use crate::identity::Identity;

/// What the agent is doing now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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

/// How the link is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum LinkState {
    /// Not tried yet.
    Connecting {
        since: Time,
    },
    Connected {
        since: Time,
    },
    Down {
        since: Time,
        error: String,
    },
}

/// The certificate in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateLife {
    pub valid_until: Time,
    /// When the collector is asked for the next one.
    pub renew_at: Time,
}

impl From<&Identity> for CertificateLife {
    fn from(identity: &Identity) -> Self {
        Self { valid_until: identity.valid_until, renew_at: identity.renew_at() }
    }
}

/// Signs of life, for the watchdog.
#[derive(Debug, Default)]
pub struct Heartbeats {
    pub observer: Arc<Heartbeat>,
    pub link: Arc<Heartbeat>,
}

#[derive(Debug)]
pub struct Status {
    pub heartbeats: Heartbeats,
    pub changes: AtomicU64,
    /// Changes that could not be spooled when they were seen.
    pub held: AtomicU64,
    /// Microseconds since the epoch; 0 while nothing is held.
    holding_since: AtomicI64,
    pub read_failures: AtomicU64,
    /// Files that were made and gone before they could be read.
    pub transients: AtomicU64,
    /// Items in the state, and the files among them.
    pub items: AtomicU64,
    pub files: AtomicU64,
    pub(crate) progress: watch::Sender<Progress>,
    link: Mutex<LinkState>,
    certificate: Mutex<Option<CertificateLife>>,
    troubles: Mutex<BTreeMap<&'static str, String>>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            heartbeats: Heartbeats::default(),
            changes: AtomicU64::new(0),
            held: AtomicU64::new(0),
            holding_since: AtomicI64::new(0),
            read_failures: AtomicU64::new(0),
            transients: AtomicU64::new(0),
            items: AtomicU64::new(0),
            files: AtomicU64::new(0),
            progress: watch::Sender::new(Progress::default()),
            link: Mutex::new(LinkState::Connecting { since: clock::now() }),
            certificate: Mutex::default(),
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

    /// All but what one part of the agent is in.
    pub fn troubles_but(&self, part: &str) -> Vec<String> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.iter().filter(|(name, _)| **name != part).map(|(_, sentence)| sentence.clone()).collect()
    }

    pub fn link(&self) -> LinkState {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn link_is_up(&self) {
        *self.link.lock().unwrap_or_else(PoisonError::into_inner) = LinkState::Connected { since: clock::now() };
    }

    /// A link that was down already is down since then.
    pub fn link_is_down(&self, error: String) {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match &*link {
            LinkState::Connecting { since } | LinkState::Down { since, .. } => *since,
            LinkState::Connected { .. } => clock::now(),
        };
        *link = LinkState::Down { since, error };
    }

    pub fn certificate(&self) -> Option<CertificateLife> {
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn use_certificate(&self, life: CertificateLife) {
        *self.certificate.lock().unwrap_or_else(PoisonError::into_inner) = Some(life);
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
