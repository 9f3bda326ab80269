//! In which order a file event and what its process did came about. Pure.
//!
//! The two are told through different queues, and a file event bears no time. What is known of it is when the queue that it
//! came through was last empty, when it was read, and its place in that queue. A thing that a process did bears its time and,
//! where the feed can tell it, how much waited in the queue of file events at that moment: what came later in that
//! queue is younger. What came before need not be older: while an event waits, the kernel adds to it whatever else its process
//! does to the same file, so only the time of the reading makes one older. It never adds what another process does, with the same
//! pid or not: an event that waited already when a process was made is not its own. Where nothing settles it, the order is not known,
//! and is never taken for granted.

use std::collections::VecDeque;

use super::event::{BootTime, Queued};

/// Two clocks may be this far apart: the kernel's on different processors, or after the monotonic one was turned into boot time.
const SLACK: u64 = 2_000;
/// Readings remembered. What is older is settled by time.
const READINGS: usize = 512;

/// What is known of when a file event came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sighting {
    /// Its queue was empty at this time or later, so the event is younger.
    pub emptied: BootTime,
    /// The reading that brought it.
    pub began: BootTime,
    pub ended: BootTime,
    /// Its number in a queue whose readings are noted, counted since the agent began.
    pub place: Option<u64>,
    pub holder: Holder,
}

/// Whether the event's process had its pid when the event was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    Present,
    /// It had been reaped before.
    Reaped,
    Unsaid,
}

/// Where in the queue of file events something lies that a process did: how many had been queued by then, since the agent began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    least: u64,
    most: u64,
}

/// Of a file event to something that its process did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Older,
    Younger,
    Unknown,
}

impl Fence {
    pub const UNKNOWN: Self = Self { least: 0, most: u64::MAX };

    /// Whether the event with this number was queued afterwards, for certain.
    pub fn is_before(self, place: Option<u64>) -> bool {
        place.is_some_and(|place| place >= self.most)
    }

    /// Whether the event with this number was queued earlier, for certain. Its own process may have added to it since.
    pub fn is_after(self, place: Option<u64>) -> bool {
        place.is_some_and(|place| place < self.least)
    }
}

impl Sighting {
    /// In a queue whose readings are not noted.
    pub const fn unplaced(emptied: BootTime, began: BootTime, ended: BootTime) -> Self {
        Self { emptied, began, ended, place: None, holder: Holder::Unsaid }
    }

    /// The order of this event and of what happened at a time and place.
    pub fn order(&self, at: BootTime, fence: Fence) -> Order {
        if is_settled(at, self.emptied) {
            return Order::Younger;
        }
        if self.ended.nanos().saturating_add(SLACK) <= at.nanos() {
            return Order::Older;
        }
        if fence.is_before(self.place) { Order::Younger } else { Order::Unknown }
    }
}

/// Whether every event of a queue that was empty then is younger than what happened at that time.
pub const fn is_settled(at: BootTime, emptied: BootTime) -> bool {
    emptied.nanos() >= at.nanos().saturating_add(SLACK)
}

/// What was read of one queue of file events.
#[derive(Debug, Default)]
pub struct FileQueue {
    readings: VecDeque<Reading>,
    /// Of those that are remembered no more.
    forgotten_until: BootTime,
    /// Of all events read so far.
    read: u64,
    emptied: BootTime,
}

#[derive(Debug, Clone, Copy)]
pub struct Reading {
    began: BootTime,
    ended: BootTime,
    emptied: BootTime,
    first: u64,
}

impl Reading {
    /// Of an event of this reading, by its number in it.
    pub fn sighting(&self, number: usize) -> Sighting {
        let place = Some(self.first + number as u64);
        Sighting { emptied: self.emptied, began: self.began, ended: self.ended, place, holder: Holder::Unsaid }
    }
}

impl FileQueue {
    /// Nothing waited at some moment after this one.
    pub fn emptied(&mut self, at: BootTime) {
        self.emptied = self.emptied.max(at);
    }

    pub fn last_emptied(&self) -> BootTime {
        self.emptied
    }

    /// Of all events, since the agent began.
    pub const fn taken(&self) -> u64 {
        self.read
    }

    /// A reading brought so many events.
    pub fn read(&mut self, began: BootTime, ended: BootTime, events: usize) -> Reading {
        let reading = Reading { began, ended, emptied: self.emptied, first: self.read };
        self.read += events as u64;
        if self.readings.len() >= READINGS {
            let forgotten = self.readings.pop_front();
            self.forgotten_until = forgotten.map_or(self.forgotten_until, |reading| reading.ended);
        }
        self.readings.push_back(reading);
        reading
    }

    /// Where a thing lies that happened at that time at the latest, when so many events waited; no reading has begun that is not
    /// noted yet.
    pub fn fence(&self, queued: Queued, until: BootTime) -> Fence {
        let is_to_come = |reading: &Reading| reading.began.nanos() >= until.nanos().saturating_add(SLACK);
        let is_over = |reading: &Reading| is_settled(reading.ended, queued.since);
        let taken_by = |place: usize| self.readings.get(place).map_or(self.read, |reading| reading.first);
        let events = u64::from(queued.events);
        // More had not been taken by then, and no fewer.
        let most = taken_by(self.readings.partition_point(|reading| !is_to_come(reading))) + events;
        let least = taken_by(self.readings.partition_point(is_over)) + events;
        Fence { least: if is_settled(self.forgotten_until, queued.since) { least } else { 0 }, most }
    }

    /// Where a thing lies that happened before now, when at most so many events wait.
    pub fn fence_now(&self, pending: u64) -> Fence {
        Fence { least: 0, most: self.read + pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(micros: u64) -> BootTime {
        BootTime::from_nanos(micros * 1000)
    }

    const fn queued(events: u32, since: u64) -> Queued {
        Queued { events, since: at(since) }
    }

    #[test]
    fn times_settle_what_they_can() {
        let sighting = Sighting { emptied: at(100), began: at(200), ended: at(210), place: None, holder: Holder::Unsaid };
        assert_eq!(sighting.order(at(90), Fence::UNKNOWN), Order::Younger);
        assert_eq!(sighting.order(at(99), Fence::UNKNOWN), Order::Unknown, "within what clocks may differ by");
        assert_eq!(sighting.order(at(150), Fence::UNKNOWN), Order::Unknown);
        assert_eq!(sighting.order(at(215), Fence::UNKNOWN), Order::Older);
    }

    #[test]
    fn what_came_later_is_younger_and_what_waited_then_may_be_either() {
        let mut queue = FileQueue::default();
        queue.emptied(at(0));
        queue.read(at(10), at(20), 5);
        // Five were read; two waited when it happened, and may have been added to since.
        let fence = queue.fence(queued(2, 49), at(50));
        assert_eq!(fence, Fence { least: 7, most: 7 });
        let reading = queue.read(at(60), at(70), 4);
        let order = |number| reading.sighting(number).order(at(50), fence);
        assert_eq!([order(0), order(1), order(2), order(3)], [Order::Unknown, Order::Unknown, Order::Younger, Order::Younger]);
        let is_after = |number| fence.is_after(reading.sighting(number).place);
        assert_eq!([is_after(0), is_after(1), is_after(2)], [true, true, false]);
        // The same, learnt only after the reading.
        assert_eq!(queue.fence(queued(2, 49), at(50)), fence);
        // A reading in between: nobody knows how much of it had been taken.
        assert_eq!(queue.fence(queued(2, 49), at(75)), Fence { least: 7, most: 11 });
        // In the midst of that reading none to four may have been taken.
        assert_eq!(queue.fence(queued(2, 64), at(65)), Fence { least: 7, most: 11 });
        assert_eq!(queue.fence(queued(2, 75), at(76)), Fence { least: 11, most: 11 });
    }

    #[test]
    fn what_waits_now_may_be_older_and_what_comes_next_is_not() {
        let mut queue = FileQueue::default();
        queue.read(at(10), at(20), 1);
        let fence = queue.fence_now(2);
        let reading = queue.read(at(60), at(70), 3);
        let order = |number| reading.sighting(number).order(at(50), fence);
        assert_eq!([order(0), order(1), order(2)], [Order::Unknown, Order::Unknown, Order::Younger]);
    }

    #[test]
    fn readings_remembered_are_bounded() {
        let mut queue = FileQueue::default();
        for reading in 0..2 * READINGS as u64 {
            queue.read(at(reading * 10), at(reading * 10 + 1), 1);
        }
        assert_eq!(queue.readings.len(), READINGS);
        let fence = queue.fence(queued(0, 4), at(5));
        assert_eq!(fence.most, READINGS as u64, "no more than what came before them had been taken");
        assert_eq!(fence.least, 0, "of those forgotten, none may have been");
    }
}
