//! How long file events gather before they are read. Pure.
//!
//! Whoever writes much wakes the sensor with each event, which takes the processor from the writer for longer than the reading takes.
//! Where events come one upon the other, they gather for [`GATHERING`] and are read together; where they do not, none waits.
//! Only for a feed of processes that tells all by itself: what has to be looked at in /proc would be gone by then.

use std::time::Duration;

use crate::process::event::BootTime;

/// Far less than the time for which a file has to be quiet.
const GATHERING: Duration = Duration::from_millis(2);
/// Over which events are counted, at least.
const SPAN: Duration = Duration::from_millis(10);
/// In a span: from so many on they come one upon the other.
const MANY: u128 = 50;

#[derive(Debug, Default)]
pub(super) struct Pace {
    began: BootTime,
    events: u128,
    is_dense: bool,
    emptied: BootTime,
}

impl Pace {
    /// So many events were read.
    pub fn read(&mut self, events: usize) {
        self.events += events as u128;
    }

    /// None waits any more.
    pub fn emptied(&mut self, now: BootTime) {
        self.emptied = now;
        let elapsed = now.since(self.began);
        if elapsed >= SPAN {
            self.is_dense = self.events * SPAN.as_nanos() >= MANY * elapsed.as_nanos();
            (self.began, self.events) = (now, 0);
        }
    }

    /// How long they are still left alone, if at all; in whole milliseconds.
    pub fn wait(&self, now: BootTime) -> Option<Duration> {
        let left = GATHERING.saturating_sub(now.since(self.emptied));
        (self.is_dense && !left.is_zero()).then(|| Duration::from_millis(left.as_micros().div_ceil(1000) as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(micros: u64) -> BootTime {
        BootTime::from_nanos(micros * 1000)
    }

    /// One after the other, so many microseconds apart, each read at once; whether the last of them makes the next gather.
    fn gathers(apart: u64, count: u64) -> bool {
        let mut pace = Pace::default();
        pace.emptied(at(1_000_000));
        (1..=count).for_each(|number| {
            pace.read(1);
            pace.emptied(at(1_000_000 + number * apart));
        });
        pace.wait(at(1_000_000 + count * apart)).is_some()
    }

    #[test]
    fn only_events_that_come_one_upon_the_other_gather() {
        assert!(!gathers(1, 1000), "until a span is over nobody knows");
        assert!(gathers(100, 101) && gathers(200, 51));
        assert!(!gathers(210, 100) && !gathers(50_000, 1000));
    }

    #[test]
    fn they_gather_for_a_moment_and_the_first_after_a_silence_wait_no_longer() {
        let mut pace = Pace::default();
        pace.emptied(at(1_000_000));
        pace.read(200);
        pace.emptied(at(1_010_000));
        assert_eq!(pace.wait(at(1_010_000)), Some(Duration::from_millis(2)));
        assert_eq!(pace.wait(at(1_011_500)), Some(Duration::from_millis(1)));
        assert_eq!(pace.wait(at(1_012_000)), None);
        pace.read(200);
        pace.emptied(at(9_000_000));
        assert_eq!(pace.wait(at(9_000_000)), None);
    }
}
