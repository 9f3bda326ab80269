//! Up to when all that happened to files has been told. Pure.
//!
//! Whoever reads a file for its event may read what another process has written since, whose event still waits: the file's ctime shows
//! that, if it is known until when everything has been told: [`GRACE`] after the change, for the kernel queues an event right after
//! what it tells of, and a process can lose its processor in between. What waits in the kernel's queue is counted at one moment; once as many
//! have been taken, all from before that moment is told, also where the queue is never empty.

use std::time::Duration;

use trueline_drift::Time;

/// How much longer than its change an event may take to be queued. Who is stopped for longer within that one call, as by a full
/// disk, goes unnoticed.
pub const GRACE: Duration = Duration::from_millis(20);
/// Times are those of the clock that inodes are stamped with.
#[derive(Debug)]
pub(super) struct Progress {
    /// The clock's step.
    tick: Duration,
    /// When touches were told of that this has not followed yet.
    first: Option<Time>,
    last: Time,
    /// A moment, and how many events had been queued by then, at most.
    mark: Option<(Time, u64)>,
}

impl Progress {
    pub fn new(tick: Duration) -> Self {
        Self { tick, first: None, last: Time::default(), mark: None }
    }

    pub fn touched(&mut self, now: Time) {
        self.set_back(now);
        self.first.get_or_insert(now);
        self.last = now;
    }

    /// How long until [`Self::told`] can have something to tell, if nothing else happens; at least a millisecond.
    pub fn wait(&self, now: Time) -> Option<Duration> {
        let due = self.after(self.first?);
        Some(Duration::from_micros(due.micros_since(now).clamp(1000, self.longest().as_micros() as i64).unsigned_abs()))
    }

    /// Until when all has been told, if that is news: `taken` events were taken and told of, `pending` asks how many wait.
    pub fn told(&mut self, now: Time, taken: u64, pending: impl Fn() -> Option<u64>) -> Option<Time> {
        self.set_back(now);
        let first = self.first?;
        if self.mark.is_none() && now >= self.after(first) {
            self.mark = Some((now, taken + pending()?));
        }
        // One that the kernel could not hand over is never taken.
        let (at, _) = self.mark.take_if(|(_, queued)| taken >= *queued || pending() == Some(0))?;
        self.first = (at < self.after(self.last)).then_some(self.last);
        Some(at)
    }

    /// The clock may be: what was to come by it counts from now.
    fn set_back(&mut self, now: Time) {
        if now < self.last {
            (self.last, self.mark) = (now, None);
            self.first = self.first.map(|_| now);
        }
    }

    /// By when the event of what was changed at that time has been queued.
    fn after(&self, time: Time) -> Time {
        time.plus_micros(self.longest().as_micros() as i64)
    }

    fn longest(&self) -> Duration {
        GRACE + self.tick
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ticks: i64) -> Time {
        Time::from_micros(ticks * 4000)
    }

    #[test]
    fn where_nothing_waits_all_is_told_a_moment_later_and_then_no_more() {
        let mut progress = Progress::new(Duration::from_millis(4));
        assert_eq!(progress.told(at(1), 0, || panic!("nothing is asked")), None);
        progress.touched(at(1));
        assert_eq!(progress.told(at(6), 1, || panic!("the event of another change may still come")), None);
        assert_eq!(progress.wait(at(6)), Some(Duration::from_millis(4)));
        assert_eq!(progress.told(at(7), 1, || Some(0)), Some(at(7)));
        assert_eq!(progress.wait(at(99)), None);
    }

    #[test]
    fn a_clock_that_is_set_back_is_followed() {
        let mut progress = Progress::new(Duration::from_millis(4));
        progress.touched(at(1_000_000));
        assert_eq!(progress.told(at(5), 1, || panic!("it counts from here")), None);
        assert_eq!(progress.wait(at(5)), Some(Duration::from_millis(24)));
        assert_eq!(progress.told(at(11), 1, || Some(0)), Some(at(11)));
        assert_eq!(progress.wait(at(11)), None);
    }

    #[test]
    fn a_queue_that_is_never_empty_is_told_of_up_to_what_waited_at_a_moment() {
        let mut progress = Progress::new(Duration::from_millis(4));
        progress.touched(at(1));
        assert_eq!(progress.told(at(8), 10, || Some(5)), None);
        progress.touched(at(9));
        assert_eq!(progress.told(at(9), 14, || Some(3)), None, "one moment after the other");
        assert_eq!(progress.told(at(10), 15, || None), Some(at(8)));
        assert!(progress.wait(at(10)).is_some(), "there were touches since");
        assert_eq!(progress.told(at(15), 20, || Some(0)), Some(at(15)));
        assert_eq!(progress.wait(at(99)), None);
    }
}
