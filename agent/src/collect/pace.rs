//! Bounds how fast a background scan reads, over all of its threads.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest sleep: how soon a reading that nobody wants any more ends.
const STEP: Duration = Duration::from_millis(100);

/// A token bucket that holds at most a tenth of a second's bytes.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// When the bytes taken so far will all have been paid for.
    paid_at: Mutex<Instant>,
}

impl Pace {
    /// `None` where there is no bound, written as 0.
    pub fn new(bytes_per_second: u64) -> Option<Self> {
        (bytes_per_second > 0).then(|| Self { bytes_per_second, paid_at: Mutex::new(Instant::now()) })
    }

    /// How long the reader of this many bytes has to wait.
    fn take(&self, bytes: u64, now: Instant) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let credit_since = now.checked_sub(Duration::from_millis(100)).unwrap_or(now);
        *paid_at = (*paid_at).max(credit_since) + cost;
        paid_at.saturating_duration_since(now)
    }

    /// Waits, on the thread that reads, unless it is to give up.
    pub fn wait(&self, bytes: u64, give_up: impl Fn() -> bool) {
        let mut wait = self.take(bytes, Instant::now());
        while !wait.is_zero() && !give_up() {
            let step = wait.min(STEP);
            std::thread::sleep(step);
            wait -= step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_beyond_the_bound_are_waited_for_and_idle_time_is_not_saved_up() {
        let pace = Pace::new(1000).unwrap();
        let start = Instant::now() + Duration::from_secs(60);
        assert_eq!(pace.take(100, start), Duration::ZERO);
        assert_eq!(pace.take(500, start), Duration::from_millis(500));
        assert_eq!(pace.take(1000, start), Duration::from_millis(1500));
        assert_eq!(pace.take(1100, start + Duration::from_secs(60)), Duration::from_secs(1));
    }
}
