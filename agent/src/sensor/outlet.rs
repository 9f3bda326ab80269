//! Where every sensor thread puts its signals, and what counts them.
//!
//! A full channel fills the outlet's own backlog, where it has one; a full backlog holds the sensor back until there is room: what
//! then piles up is the kernel's queue, whose overflow is reported. Only stopping ends the waiting. Signals leave in the
//! order that they came in.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
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

#[derive(Debug)]
pub(super) struct Outlet {
    signals: SyncSender<Signal>,
    backlog: Mutex<VecDeque<Signal>>,
    /// Most signals in it.
    room: usize,
    pub counters: Arc<SensorCounters>,
    stopping: Arc<AtomicBool>,
}

/// How soon a held-back sensor tries again; stopping unparks it at once.
const RETRY: Duration = Duration::from_millis(1);
/// The same where the last try was in vain.
const SELDOM: Duration = Duration::from_millis(20);
/// Of a backlog, the room that is kept when it is empty.
const KEPT: usize = 64;

/// What is left of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backlog {
    Empty,
    /// It is to be flushed again after this time.
    Waiting(Duration),
}

/// For one more thread with the same channel; it has no backlog, for that needs somebody who flushes it.
impl Clone for Outlet {
    fn clone(&self) -> Self {
        let (signals, counters, stopping) = (self.signals.clone(), Arc::clone(&self.counters), Arc::clone(&self.stopping));
        Self { signals, backlog: Mutex::default(), room: 0, counters, stopping }
    }
}

/// Nobody listens any more: the thread ends.
#[derive(Debug)]
pub(super) struct Closed;

impl Outlet {
    pub fn new(signals: SyncSender<Signal>, counters: Arc<SensorCounters>) -> Self {
        Self { signals, backlog: Mutex::default(), room: 0, counters, stopping: Arc::default() }
    }

    /// The same with a backlog of so many signals. Whoever has one must [`Self::flush`] it while nothing else happens.
    pub fn with_backlog(&self, room: usize) -> Self {
        Self { room, ..self.clone() }
    }

    pub fn send(&self, signal: Signal) -> Result<(), Closed> {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        backlog.push_back(signal);
        loop {
            self.drain(&mut backlog)?;
            if backlog.len() <= self.room {
                return Ok(());
            }
            if self.stopping.load(Ordering::Acquire) {
                return Err(self.closed(&mut backlog));
            }
            std::thread::park_timeout(RETRY);
        }
    }

    /// Passes on what the channel has room for.
    pub fn flush(&self) -> Result<Backlog, Closed> {
        let mut backlog = self.backlog.lock().unwrap_or_else(PoisonError::into_inner);
        let before = backlog.len();
        self.drain(&mut backlog)?;
        Ok(match backlog.len() {
            0 => Backlog::Empty,
            // Nobody takes signals for now.
            left if left == before => Backlog::Waiting(SELDOM),
            _ => Backlog::Waiting(RETRY),
        })
    }

    /// Waits until all has been passed on, or the sensor is told to stop.
    pub fn empty(&self) {
        while !self.is_stopping() && matches!(self.flush(), Ok(Backlog::Waiting(_))) {
            std::thread::park_timeout(RETRY);
        }
    }

    fn drain(&self, backlog: &mut VecDeque<Signal>) -> Result<(), Closed> {
        while let Some(signal) = backlog.pop_front() {
            match self.signals.try_send(signal) {
                Ok(()) => {}
                Err(TrySendError::Full(back)) => {
                    backlog.push_front(back);
                    return Ok(());
                }
                Err(TrySendError::Disconnected(back)) => {
                    backlog.push_front(back);
                    return Err(self.closed(backlog));
                }
            }
        }
        // A burst's memory is given back.
        if backlog.capacity() > KEPT {
            *backlog = VecDeque::new();
        }
        Ok(())
    }

    fn closed(&self, backlog: &mut VecDeque<Signal>) -> Closed {
        self.counters.dropped.fetch_add(backlog.len() as u64, Ordering::Relaxed);
        backlog.clear();
        Closed
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
