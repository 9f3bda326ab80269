//! The service manager's watchdog, told that the service lives only while every part of it goes on.
//!
//! Invariant: no part can speak for another. A part that stands still for the whole interval ends in a restart by
//! the service manager, so the interval must be longer than any single step that a part may honestly take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::notify::Notifier;

/// One part's sign of life: it beats at each turn of its loop.
#[derive(Debug, Default)]
pub struct Heartbeat(AtomicU64);

impl Heartbeat {
    pub fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often the service manager wants to hear that the service lives; `None` where it does not.
pub fn interval() -> Option<Duration> {
    let read = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_other = read("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id()));
    read("WATCHDOG_USEC").filter(|micros| *micros > 0 && !is_other).map(Duration::from_micros)
}

#[derive(Debug)]
struct Part {
    name: &'static str,
    heartbeat: Arc<Heartbeat>,
    /// When the manager was last told.
    told: u64,
}

/// Called from the one loop that speaks with the service manager.
#[derive(Debug)]
pub struct Watchdog {
    interval: Duration,
    parts: Vec<Part>,
    told_at: Instant,
    has_warned: bool,
}

impl Watchdog {
    pub fn new(interval: Duration, parts: impl IntoIterator<Item = (&'static str, Arc<Heartbeat>)>) -> Self {
        let parts = parts.into_iter().map(|(name, heartbeat)| Part { name, told: heartbeat.count(), heartbeat }).collect();
        Self { interval, parts, told_at: Instant::now(), has_warned: false }
    }

    /// As the environment asks; `None` without a watchdog.
    pub fn from_environment(parts: impl IntoIterator<Item = (&'static str, Arc<Heartbeat>)>) -> Option<Self> {
        interval().map(|interval| Self::new(interval, parts))
    }

    /// How often [`Self::tend`] should be called, at least.
    pub fn every(&self) -> Duration {
        self.interval / 8
    }

    /// Tells the manager that the service lives, where it is time and every part has beaten since the last time.
    /// Whether it was told.
    pub fn tend(&mut self, notifier: &Notifier) -> bool {
        self.tend_at(Instant::now(), notifier)
    }

    fn tend_at(&mut self, now: Instant, notifier: &Notifier) -> bool {
        let since = now.saturating_duration_since(self.told_at);
        if since < self.interval / 4 {
            return false;
        }
        if let Some(part) = self.parts.iter().find(|part| part.heartbeat.count() == part.told) {
            if since >= self.interval / 2 && !self.has_warned {
                self.has_warned = true;
                warn!(
                    part = part.name,
                    since_s = since.as_secs(),
                    watchdog_s = self.interval.as_secs(),
                    "a part of the service stands still"
                );
            }
            return false;
        }
        for part in &mut self.parts {
            part.told = part.heartbeat.count();
        }
        self.told_at = now;
        self.has_warned = false;
        notifier.watchdog();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_is_told_only_while_every_part_goes_on() {
        let (observer, link) = (Arc::new(Heartbeat::default()), Arc::new(Heartbeat::default()));
        let interval = Duration::from_secs(40);
        let mut watchdog = Watchdog::new(interval, [("observer", Arc::clone(&observer)), ("link", Arc::clone(&link))]);
        let (silent, start) = (Notifier::default(), watchdog.told_at);
        let mut tend = |seconds| watchdog.tend_at(start + Duration::from_secs(seconds), &silent);
        observer.beat();
        link.beat();
        assert!(!tend(9), "too early");
        assert!(tend(10));
        observer.beat();
        assert!(!tend(20), "the link stands still");
        assert!(!tend(49));
        link.beat();
        assert!(tend(49), "it was only slow");
        assert!(!tend(60), "both stand still");
    }
}
