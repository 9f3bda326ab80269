//! Waits until an item is quiet, so that a burst of events becomes one reading.
//!
//! Pure: time is an argument. Invariants: a target is due no later than `limit` after its first
//! event, however busy it stays; the number of waiting targets is bounded, and at the bound the
//! oldest become due at once. Nothing is dropped.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use trueline_drift::{Actor, Time};

use crate::sensor::{Depth, Target, Touch};

#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// After the last event of a finished writer.
    pub finished: Duration,
    /// After the last write to a file that is still open.
    pub unfinished: Duration,
    /// After the first event, at the latest.
    pub limit: Duration,
    /// Most targets waiting.
    pub capacity: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self { finished: Duration::from_millis(8), unfinished: Duration::from_millis(200), limit: Duration::from_secs(1), capacity: 16_384 }
    }
}

/// A target whose burst is over.
#[derive(Debug)]
pub struct Settled {
    pub target: Target,
    pub depth: Depth,
    /// Of the last event that named one.
    pub actor: Option<Arc<Actor>>,
    /// More than one process took part in the burst.
    pub shared: bool,
    /// Of the last event.
    pub touched_at: Time,
}

#[derive(Debug)]
struct Waiting {
    first: Instant,
    due: Instant,
    depth: Depth,
    actor: Option<Arc<Actor>>,
    shared: bool,
    touched_at: Time,
}

#[derive(Debug)]
pub struct Settle {
    patience: Patience,
    waiting: HashMap<Target, Waiting>,
    /// The same targets by the moment they are due.
    order: BTreeSet<(Instant, Target)>,
    /// Touches that joined one that waited, since the beginning.
    joined: u64,
}

impl Settle {
    pub fn new(patience: Patience) -> Self {
        Self { patience, waiting: HashMap::new(), order: BTreeSet::new(), joined: 0 }
    }

    pub fn touch(&mut self, touch: Touch, now: Instant) {
        let quiet = now + if touch.finished { self.patience.finished } else { self.patience.unfinished };
        if let Some(waiting) = self.waiting.get_mut(&touch.target) {
            self.joined += 1;
            let due = quiet.min(waiting.first + self.patience.limit);
            if due != waiting.due {
                self.order.remove(&(waiting.due, touch.target.clone()));
                waiting.due = due;
                self.order.insert((due, touch.target));
            }
            waiting.depth = waiting.depth.max(touch.depth);
            waiting.touched_at = touch.at;
            if let Some(actor) = touch.actor {
                let last = waiting.actor.take();
                waiting.shared |= last.as_ref().is_some_and(|last| !is_same_process(last, &actor));
                waiting.actor = Some(match last {
                    Some(last) if is_same_process(&last, &actor) && last.certainty < actor.certainty => last,
                    _ => actor,
                });
            }
            return;
        }
        let waiting = Waiting { first: now, due: quiet, depth: touch.depth, actor: touch.actor, shared: false, touched_at: touch.at };
        self.order.insert((quiet, touch.target.clone()));
        self.waiting.insert(touch.target, waiting);
    }

    /// When [`Self::take_due`] will next have something.
    pub fn next_due(&self) -> Option<Instant> {
        if self.waiting.len() > self.patience.capacity {
            return self.waiting.values().map(|waiting| waiting.first).min();
        }
        self.order.first().map(|(due, _)| *due)
    }

    /// At most `most` targets that are due, the longest waiting first.
    pub fn take_due(&mut self, now: Instant, most: usize) -> Vec<Settled> {
        let mut settled = Vec::new();
        while settled.len() < most {
            let is_over = self.waiting.len() > self.patience.capacity;
            match self.order.first() {
                Some((due, _)) if *due <= now || is_over => {}
                _ => break,
            }
            let Some((_, target)) = self.order.pop_first() else { break };
            let waiting = self.waiting.remove(&target).expect("`order` and `waiting` hold the same targets");
            settled.push(Settled {
                target,
                depth: waiting.depth,
                actor: waiting.actor,
                shared: waiting.shared,
                touched_at: waiting.touched_at,
            });
        }
        settled
    }

    /// Touches that joined one that waited, since the beginning.
    pub fn joined(&self) -> u64 {
        self.joined
    }

    /// Whether the path has been touched and not yet been read.
    pub fn holds(&self, path: &[u8]) -> bool {
        self.waiting.contains_key(&Target::Path(path.to_vec()))
    }

    /// Who is known to have touched the paths that wait.
    pub fn actors(&self) -> impl Iterator<Item = (&[u8], &Actor)> {
        self.waiting.iter().filter_map(|(target, waiting)| match (target, &waiting.actor) {
            (Target::Path(path), Some(actor)) => Some((&path[..], &**actor)),
            _ => None,
        })
    }

    /// Whether touches should stay with the kernel for now.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= self.patience.capacity
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

fn is_same_process(a: &Actor, b: &Actor) -> bool {
    match (&a.process, &b.process) {
        (Some(a), Some(b)) => a.pid == b.pid && (a.started_at == b.started_at || a.started_at.is_none() || b.started_at.is_none()),
        _ => false,
    }
}

/// The actor of a settled burst, with what is doubtful about it said.
pub fn actor_of(settled: &Settled) -> Actor {
    let Some(actor) = &settled.actor else {
        return Actor::unknown("the sensor of this item does not name the process (inotify)");
    };
    if settled.shared { actor.but(SHARED) } else { Actor::clone(actor) }
}

/// Of two touches of one thing, the first `earlier`.
pub fn together(earlier: &Actor, actor: &Actor) -> Actor {
    if !is_same_process(earlier, actor) {
        return actor.but(SHARED);
    }
    if earlier.certainty < actor.certainty { earlier.clone() } else { actor.clone() }
}

const SHARED: &str = "more than one process touched it within the same moment; the last is named";

#[cfg(test)]
mod tests {
    use trueline_drift::Certainty;

    use super::*;

    fn touch(path: &str, finished: bool) -> Touch {
        Touch { target: Target::Path(path.into()), at: Time::from_seconds(1), actor: None, depth: Depth::Item, finished }
    }

    #[test]
    fn a_burst_becomes_one_reading_after_it_is_quiet() {
        let mut settle = Settle::new(Patience::default());
        let start = Instant::now();
        for step in 0..5 {
            settle.touch(touch("/etc/a", true), start + Duration::from_millis(step * 5));
        }
        assert!(settle.take_due(start + Duration::from_millis(27), 10).is_empty());
        assert_eq!(settle.take_due(start + Duration::from_millis(28), 10).len(), 1);
        assert!(settle.is_empty());
    }

    #[test]
    fn an_item_that_never_rests_is_read_at_the_limit() {
        let mut settle = Settle::new(Patience::default());
        let start = Instant::now();
        for step in 0..=100 {
            settle.touch(touch("/etc/a", false), start + Duration::from_millis(step * 10));
        }
        assert_eq!(settle.take_due(start + Duration::from_secs(1), 10).len(), 1);
    }

    #[test]
    fn beyond_the_capacity_the_oldest_are_due_at_once() {
        let mut settle = Settle::new(Patience { capacity: 10, ..Patience::default() });
        let start = Instant::now();
        for number in 0..15 {
            settle.touch(touch(&format!("/etc/{number:02}"), true), start);
        }
        let due = settle.take_due(start, 100);
        assert_eq!(due.len(), 5);
        assert_eq!(due[0].target, Target::Path(b"/etc/00".to_vec()));
        assert_eq!(settle.len(), 10);
    }

    #[test]
    fn two_writers_in_one_burst_lower_the_certainty() {
        let actor = |pid| {
            let mut actor = Actor::unknown("");
            actor.certainty = Certainty::Strong;
            actor.process = Some(trueline_drift::actor::Process { pid, started_at: None, exe: None, argv: vec![], cwd: None });
            Arc::new(actor)
        };
        let mut settle = Settle::new(Patience::default());
        let start = Instant::now();
        for pid in [7, 9] {
            settle.touch(Touch { actor: Some(actor(pid)), ..touch("/etc/a", true) }, start);
        }
        let settled = settle.take_due(start + Duration::from_secs(1), 1).remove(0);
        let named = actor_of(&settled);
        assert_eq!((named.certainty, named.process.unwrap().pid), (Certainty::Correlated, 9));
    }
}
