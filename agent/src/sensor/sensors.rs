//! Starts the best sensors that this host allows and stops them again.
//!
//! fanotify names the process behind each event and needs no watch per folder; inotify does neither,
//! and is for file systems and users that fanotify refuses.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use trueline_drift::ItemKind;
use trueline_drift::watch::WatchPolicy;

use super::audit::{self, Audit, AuditUse};
use super::coverage::{Coverage, CoverageTable, POLL};
use super::fanotify::Fanotify;
use super::inotify::{Inotify, Scope};
use super::outlet::{Outlet, SensorCounters};
use super::view::View;
use super::{CatchUp, Signal};
use crate::process::feed::FeedChoice;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preference {
    /// fanotify wherever the kernel and the file system allow it.
    #[default]
    Best,
    InotifyOnly,
}

#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    #[error("fanotify cannot be used: {source}; it needs Linux 5.9 and CAP_SYS_ADMIN")]
    Fanotify { source: std::io::Error },
    #[error("inotify cannot be used: {source}; look at fs.inotify.max_user_instances")]
    Inotify { source: notify::Error },
    #[error("a sensor's thread cannot be started: {source}; look at the limit of processes")]
    Thread { source: std::io::Error },
}

/// The running sensors. Dropping them stops and joins their threads.
#[derive(Debug)]
pub struct Sensors {
    engine: Engine,
    audit: Option<Audit>,
    outlet: Outlet,
    coverage: Arc<CoverageTable>,
    /// Why the engine is inotify.
    reason: String,
}

#[derive(Debug)]
enum Engine {
    Fanotify(Fanotify),
    Inotify(Inotify),
}

impl Sensors {
    /// On return every change to what is in view will lead to a signal. Signals are hints: the channel
    /// may be small, a full one holds the sensors back and never loses silently.
    pub fn start(policy: &WatchPolicy, signals: SyncSender<Signal>, counters: Arc<SensorCounters>) -> Result<Self, SensorError> {
        Self::start_with(Preference::Best, policy, signals, counters)
    }

    pub fn start_with(
        preference: Preference,
        policy: &WatchPolicy,
        signals: SyncSender<Signal>,
        counters: Arc<SensorCounters>,
    ) -> Result<Self, SensorError> {
        Self::start_fed(preference, FeedChoice::Best, policy, signals, counters)
    }

    /// With no other feed of processes than this.
    pub fn start_fed(
        preference: Preference,
        feed: FeedChoice,
        policy: &WatchPolicy,
        signals: SyncSender<Signal>,
        counters: Arc<SensorCounters>,
    ) -> Result<Self, SensorError> {
        let outlet = Outlet::new(signals, counters);
        let coverage = Arc::new(CoverageTable::default());
        let reason = match preference {
            Preference::InotifyOnly => "fanotify was not asked for".to_owned(),
            Preference::Best => match Fanotify::start(policy, outlet.clone(), Arc::clone(&coverage), feed) {
                Ok(fanotify) => {
                    return Ok(Self { engine: Engine::Fanotify(fanotify), audit: None, outlet, coverage, reason: String::new() });
                }
                Err(error) => error.to_string(),
            },
        };
        let inotify = Inotify::start(outlet.clone(), Arc::clone(&coverage))?;
        let sensors = Self { engine: Engine::Inotify(inotify), audit: None, outlet, coverage, reason };
        if let Some(in_place) = sensors.order(policy) {
            // An error means that the thread has stopped, which the coverage tells.
            let _ = in_place.recv();
        }
        Ok(sensors)
    }

    /// Asks the kernel's audit records too who makes changes.
    pub fn and_audit(mut self, audit: AuditUse, policy: &WatchPolicy) -> Result<Self, SensorError> {
        self.audit = match audit {
            AuditUse::Off => {
                audit::clear();
                None
            }
            audit => {
                let started = Audit::start(audit, policy, self.outlet.clone(), Arc::clone(&self.coverage));
                Some(started.map_err(|source| SensorError::Thread { source })?)
            }
        };
        Ok(self)
    }

    /// What is watched, and by what. Changes with the policy, with mounts, and with limits reached.
    pub fn coverage(&self) -> Vec<Coverage> {
        self.coverage.rows()
    }

    /// Watches what this policy names instead, soon after the return. Each path that came into view is
    /// reported as a tree once it is watched. Never waits, so whoever takes the signals may call it.
    pub fn update(&self, policy: &WatchPolicy) {
        if let Some(audit) = &self.audit {
            audit.update(policy);
        }
        drop(self.order(policy));
    }

    /// Whether events come with who made them.
    pub fn names_processes(&self) -> bool {
        matches!(&self.engine, Engine::Fanotify(fanotify) if fanotify.is_running())
    }

    /// Asks for [`Signal::CaughtUp`] once all is told that has happened by now. False: no such answer will come, and nothing
    /// is known of who made a change (inotify). Never waits.
    pub fn catch_up(&self, question: CatchUp) -> bool {
        match &self.engine {
            Engine::Fanotify(fanotify) => fanotify.catch_up(question),
            Engine::Inotify(_) => false,
        }
    }

    /// Asks for a [`Signal::ToldUntil`] later than the last. Never waits.
    pub fn tell_progress(&self) {
        if let Engine::Fanotify(fanotify) = &self.engine {
            fanotify.tell_progress();
        }
    }

    fn order(&self, policy: &WatchPolicy) -> Option<Receiver<()>> {
        match &self.engine {
            Engine::Fanotify(fanotify) => {
                fanotify.update(policy);
                None
            }
            Engine::Inotify(inotify) => {
                let view = View::new(policy);
                let scopes = view.roots().iter().map(|root: &PathBuf| Scope { path: root.clone(), reason: self.reason.clone() }).collect();
                if policy.watches_kind(ItemKind::Sysctl) {
                    self.coverage.replace("sysctl", vec![unwatched_sysctls(&self.reason)]);
                } else {
                    self.coverage.replace("sysctl", Vec::new());
                }
                Some(inotify.watch(view, scopes, Vec::new()))
            }
        }
    }
}

pub(super) fn unwatched_sysctls(reason: &str) -> Coverage {
    Coverage { name: POLL, scope: "sysctl:*".to_owned(), watching: false, reason: Some(reason.to_owned()) }
}
