//! Where every sensor thread puts its signals, and what counts them.
//!
//! A full channel holds the sensor back until there is room: what then piles up is the kernel's queue,
//! whose overflow is reported. Only stopping ends the waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use trueline_drift::{GapReason, Time};

use super::{Loss, Signal};

/// Since the sensors started.
#[derive(Debug, Default)]
pub struct SensorCounters {
    /// Events that the kernel delivered, in view or not.
    pub events: AtomicU64,
    /// Times that a queue of events overflowed.
    pub overflows: AtomicU64,
    /// Events that were taken from the kernel and could not be passed on; each is also part of a
    /// [`Loss`] unless the agent is stopping.
    pub dropped: AtomicU64,
}

impl SensorCounters {
    pub(super) fn count(&self, counter: impl Fn(&Self) -> &AtomicU64) {
        counter(self).fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone)]
pub(super) struct Outlet {
    signals: SyncSender<Signal>,
    pub counters: Arc<SensorCounters>,
    stopping: Arc<AtomicBool>,
}

/// Nobody listens any more: the thread ends.
#[derive(Debug)]
pub(super) struct Closed;

impl Outlet {
    pub fn new(signals: SyncSender<Signal>, counters: Arc<SensorCounters>) -> Self {
        Self { signals, counters, stopping: Arc::default() }
    }

    pub fn send(&self, signal: Signal) -> Result<(), Closed> {
        /// How soon a held-back sensor tries again; stopping unparks it at once.
        const RETRY: Duration = Duration::from_millis(1);
        let mut waiting = signal;
        loop {
            match self.signals.try_send(waiting) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(back)) if !self.stopping.load(Ordering::Acquire) => waiting = back,
                Err(_) => {
                    self.counters.count(|counters| &counters.dropped);
                    return Err(Closed);
                }
            }
            std::thread::park_timeout(RETRY);
        }
    }

    pub fn lose(&self, scope: String, reason: GapReason, began_at: Time, lost: Option<u64>) -> Result<(), Closed> {
        self.send(Signal::Lost(Loss { scope, reason, began_at, lost }))
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }
}

pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    Time::from_micros(i64::try_from(since).unwrap_or(i64::MAX))
}
