//! Waits between attempts: exponential, with full jitter, so that a fleet does not return at once.

use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    attempts: u32,
}

impl Backoff {
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, attempts: 0 }
    }

    /// As every agent waits for its collector.
    pub fn of_link() -> Self {
        Self::new(Duration::from_millis(200), Duration::from_secs(60))
    }

    /// After a success: the next failure waits shortly again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The wait before the next attempt. `chance` is uniform over all of u64; the wait is uniform
    /// between half the shortest and the present bound, which doubles with each attempt.
    pub fn next_wait(&mut self, chance: u64) -> Duration {
        let bound = self.shortest.saturating_mul(1 << self.attempts.min(20)).min(self.longest);
        self.attempts = self.attempts.saturating_add(1);
        let floor = self.shortest / 2;
        let span = bound.saturating_sub(floor);
        floor + span.mul_f64(chance as f64 / u64::MAX as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_start_over_after_success() {
        let mut backoff = Backoff::of_link();
        let longest: Vec<u64> = (0..12).map(|_| backoff.next_wait(u64::MAX).as_millis() as u64).collect();
        assert_eq!(longest[..4], [200, 400, 800, 1600]);
        assert_eq!(longest[11], 60_000);
        backoff.reset();
        assert_eq!(backoff.next_wait(u64::MAX).as_millis(), 200);
    }

    #[test]
    fn chance_spreads_the_waits() {
        let mut backoff = Backoff::of_link();
        backoff.attempts = 20;
        assert_eq!(backoff.clone().next_wait(0).as_millis(), 100);
        let half = backoff.next_wait(u64::MAX / 2).as_secs();
        assert!((29..31).contains(&half), "{half}");
    }
}
