//! Bounds how fast a background scan reads, and how much of a core it takes, over all of its threads.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::kernel::thread::CpuClock;

/// The longest sleep: how soon a reading that nobody wants any more ends.
const STEP: Duration = Duration::from_millis(100);

/// Time left unused is worth nothing after this long.
const CREDIT: Duration = Duration::from_millis(100);

/// What has been taken so far will have been paid for by a certain time.
#[derive(Debug)]
struct Account(Mutex<Instant>);

impl Account {
    fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// How long whoever takes this much has to wait.
    fn take(&self, cost: Duration, now: Instant) -> Duration {
        let mut paid_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let credit_since = now.checked_sub(CREDIT).unwrap_or(now);
        *paid_at = (*paid_at).max(credit_since) + cost;
        paid_at.saturating_duration_since(now)
    }
}

/// Both bounds at once; none of either is written as 0.
#[derive(Debug)]
pub struct Pace {
    bytes_per_second: u64,
    core_percent: u32,
    bytes: Account,
    core: Account,
}

impl Pace {
    /// `None` where nothing is bounded.
    pub fn new(bytes_per_second: u64, core_percent: u32) -> Option<Self> {
        let is_bound = bytes_per_second > 0 || core_percent > 0;
        is_bound.then(|| Self { bytes_per_second, core_percent, bytes: Account::new(), core: Account::new() })
    }

    fn bytes_wait(&self, bytes: u64, now: Instant) -> Duration {
        if self.bytes_per_second == 0 {
            return Duration::ZERO;
        }
        self.bytes.take(Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64), now)
    }

    fn core_wait(&self, used: Duration, now: Instant) -> Duration {
        if self.core_percent == 0 {
            return Duration::ZERO;
        }
        self.core.take(used * 100 / self.core_percent, now)
    }

    /// Takes this much processor time, without waiting: for whoever has others to wait for.
    pub fn charge(&self, used: Duration) {
        self.core_wait(used, Instant::now());
    }

    /// Waits for the bytes, and for what the thread has used since the last time, on the thread that reads, unless it is to give up.
    pub fn wait(&self, bytes: u64, meter: &mut Meter, give_up: impl Fn() -> bool) {
        let now = Instant::now();
        let used = if self.core_percent == 0 { Duration::ZERO } else { meter.lap() };
        let mut wait = self.bytes_wait(bytes, now).max(self.core_wait(used, now));
        while !wait.is_zero() && !give_up() {
            let step = wait.min(STEP);
            std::thread::sleep(step);
            wait -= step;
        }
    }
}

/// The processor time of the one thread that uses it.
#[derive(Debug, Default)]
pub struct Meter(Option<(CpuClock, Duration)>);

impl Meter {
    /// Since the last call; nothing at the first.
    pub fn lap(&mut self) -> Duration {
        let clock = match &self.0 {
            Some((clock, _)) => *clock,
            None => match CpuClock::of_this_thread() {
                Ok(clock) => clock,
                Err(_) => return Duration::ZERO,
            },
        };
        let now = clock.read().unwrap_or_default();
        let last = self.0.replace((clock, now)).map_or(now, |(_, last)| last);
        now.saturating_sub(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_beyond_the_bound_are_waited_for_and_idle_time_is_not_saved_up() {
        let pace = Pace::new(1000, 0).unwrap();
        let start = Instant::now() + Duration::from_secs(60);
        assert_eq!(pace.bytes_wait(100, start), Duration::ZERO);
        assert_eq!(pace.bytes_wait(500, start), Duration::from_millis(500));
        assert_eq!(pace.bytes_wait(1000, start), Duration::from_millis(1500));
        assert_eq!(pace.bytes_wait(1100, start + Duration::from_secs(60)), Duration::from_secs(1));
        assert_eq!(pace.core_wait(Duration::from_secs(9), start), Duration::ZERO);
    }

    #[test]
    fn of_a_quarter_of_a_core_four_times_as_long_is_waited_for() {
        let pace = Pace::new(0, 25).unwrap();
        let start = Instant::now() + Duration::from_secs(60);
        assert_eq!(pace.core_wait(Duration::from_millis(25), start), Duration::ZERO, "of a tenth of a second that nobody used");
        assert_eq!(pace.core_wait(Duration::from_millis(100), start), Duration::from_millis(400));
        assert_eq!(pace.bytes_wait(u64::MAX, start), Duration::ZERO);
    }

    #[test]
    fn a_meter_tells_the_time_that_its_thread_was_at_work() {
        let mut meter = Meter::default();
        assert_eq!(meter.lap(), Duration::ZERO);
        let mut sum = 0_u64;
        let used = loop {
            (0..100_000).for_each(|number| sum = std::hint::black_box(sum ^ number));
            let used = meter.lap();
            if used > Duration::ZERO {
                break used;
            }
        };
        assert!(used < Duration::from_secs(60));
    }
}
