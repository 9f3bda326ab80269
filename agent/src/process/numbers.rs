//! Which process the kernel means where it tells a number of the first pid namespace and the agent lies in another. Pure.
//!
//! Invariants: bounded; a number is told for a process while that lives and shortly after, long before another can have come by it.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::event::BootTime;

/// As many as live on a host; the oldest are forgotten first.
const ROOM: usize = 16_384;
/// The kernel hands out all other numbers before it uses one again.
const AFTER_END: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct Numbers {
    here: HashMap<u32, Here>,
    order: VecDeque<u32>,
}

#[derive(Debug)]
struct Here {
    pid: u32,
    ended: Option<BootTime>,
}

impl Numbers {
    /// The process with this pid here bears the other number in the first namespace.
    pub fn note(&mut self, first: u32, pid: u32) {
        if self.here.insert(first, Here { pid, ended: None }).is_none() {
            self.order.push_back(first);
        }
        while self.order.len() > ROOM {
            if let Some(oldest) = self.order.pop_front() {
                self.here.remove(&oldest);
            }
        }
    }

    pub fn end(&mut self, first: u32, at: BootTime) {
        if let Some(here) = self.here.get_mut(&first) {
            here.ended = Some(at);
        }
    }

    /// Its pid here.
    pub fn here(&self, first: u32, now: BootTime) -> Option<u32> {
        let here = self.here.get(&first)?;
        here.ended.is_none_or(|ended| now.since(ended) <= AFTER_END).then_some(here.pid)
    }

    /// News was lost: who ended since is not known.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_its_processs_until_shortly_after_its_end() {
        let (mut numbers, at) = (Numbers::default(), |seconds: u64| BootTime::from_nanos(seconds * 1_000_000_000));
        numbers.note(9_000, 12);
        assert_eq!((numbers.here(9_000, at(50)), numbers.here(12, at(50))), (Some(12), None));
        numbers.end(9_000, at(50));
        assert_eq!((numbers.here(9_000, at(51)), numbers.here(9_000, at(52))), (Some(12), None));
        numbers.note(9_000, 13);
        assert_eq!(numbers.here(9_000, at(60)), Some(13));
        (0..40_000).for_each(|number| numbers.note(number, number));
        assert!(numbers.here.len() <= ROOM && numbers.order.len() <= ROOM);
    }
}
