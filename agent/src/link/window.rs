//! What is under way to the collector: bounded, so that a slow collector holds the sender back.

use std::collections::VecDeque;

use trueline_drift::Sequence;

/// Most payload that may be under way without an acknowledgement.
const WINDOW_BYTES: usize = 2 * 1024 * 1024;

/// What was sent and is not yet acknowledged.
#[derive(Debug, Default)]
pub struct Window {
    /// The last that was sent.
    pub sent: Sequence,
    under_way: VecDeque<(Sequence, usize)>,
    bytes: usize,
}

impl Window {
    /// With nothing under way; sending goes on after this record.
    pub fn after(acknowledged: Sequence) -> Self {
        Self { sent: acknowledged, ..Self::default() }
    }

    pub fn has_room(&self) -> bool {
        self.bytes < WINDOW_BYTES
    }

    pub fn send(&mut self, last: Sequence, bytes: usize) {
        self.sent = last;
        self.bytes += bytes;
        self.under_way.push_back((last, bytes));
    }

    pub fn acknowledge(&mut self, upto: Sequence) {
        while let Some((last, bytes)) = self.under_way.front()
            && *last <= upto
        {
            self.bytes -= bytes;
            self.under_way.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_counts_what_is_under_way() {
        let mut window = Window::default();
        window.send(Sequence(10), WINDOW_BYTES - 1);
        assert!(window.has_room());
        window.send(Sequence(20), 1);
        assert!(!window.has_room());
        window.acknowledge(Sequence(15));
        assert!(window.has_room());
        window.acknowledge(Sequence(20));
        assert_eq!((window.bytes, window.sent), (0, Sequence(20)));
    }
}
