//! Waits until an item is quiet, so that a burst of events becomes one reading.
//!
//! Pure: time is an argument. Invariants: a target is due no later than `limit` after its first
//! event, however busy it stays; the number of waiting targets is bounded, and at the bound the
//! oldest become due at once. Nothing is dropped.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use trueline_drift::{Actor, Certainty, Fields, ItemKind, Time};

use crate::collect::{Listing, Reading};
use crate::sensor::{Depth, Entry, Generation, Target, Touch};

#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// After the last event of a finished writer.
    pub finished: Duration,
    /// After the last write to a file that is still open.
    pub unfinished: Duration,
    /// After it was put back, at least.
    pub again: Duration,
    /// After the first event, at the latest.
    pub limit: Duration,
    /// Most targets waiting.
    pub capacity: usize,
}

impl Default for Patience {
    fn default() -> Self {
        let [finished, again, unfinished, limit] = [8, 10, 200, 1000].map(Duration::from_millis);
        Self { finished, unfinished, again, limit, capacity: 16_384 }
    }
}

/// A target whose burst is over.
#[derive(Debug, Clone)]
pub struct Settled {
    pub target: Target,
    pub depth: Depth,
    /// Of the last event that named one.
    pub actor: Option<Arc<Actor>>,
    /// More than one process took part in the burst.
    pub shared: bool,
    /// As [`Touch::wrote`], of any of them.
    pub wrote: bool,
    /// As [`Touch::entry`], of all of them.
    pub entry: Option<Entry>,
    /// The last process ran this one, and then what the actor tells, within the burst.
    pub before: Option<String>,
    /// Of the last event.
    pub touched_at: Time,
    /// When it was first found to be gone.
    pub missed_at: Option<Time>,
    /// What was read since the last event, of what bears no time of its own.
    pub held: Option<Held>,
    /// As [`Touch::generation`], of the last event that told one.
    pub generation: Option<Generation>,
    /// Until when it may be put back.
    pub limit: Instant,
}

impl Settled {
    /// This one may have done so too.
    pub fn share(&mut self, actor: &Actor) {
        self.shared |= self.actor.as_ref().is_some_and(|own| !is_same_process(own, actor));
    }
}

/// A reading that waits until all that came before it has been told.
#[derive(Debug, Clone)]
pub struct Held {
    pub read: HeldReading,
    /// When it was over.
    pub read_at: Time,
}

#[derive(Debug, Clone)]
pub enum HeldReading {
    Item {
        reading: Option<Reading>,
        /// What the state had then. Once it has something else, another reading was told meanwhile, and this one may be the older.
        known: Option<Fields>,
    },
    /// Of all items of a kind. It is let go of where another is told: see [`Settle::let_go`].
    Kind(Listing),
}

#[derive(Debug)]
struct Waiting {
    first: Instant,
    due: Instant,
    depth: Depth,
    actor: Option<Arc<Actor>>,
    shared: bool,
    wrote: bool,
    entry: Option<Entry>,
    /// Its process ran this one, and then what the actor tells, within the burst.
    before: Option<String>,
    touched_at: Time,
    missed_at: Option<Time>,
    held: Option<Held>,
    generation: Option<Generation>,
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
            waiting.held = None;
            waiting.wrote |= touch.wrote;
            waiting.entry = touch.entry.map(|entry| entry.after(waiting.entry)).or(waiting.entry);
            waiting.generation = touch.generation.or(waiting.generation);
            if let Some(actor) = touch.actor {
                let last = waiting.actor.take();
                if let Some(program) = last.as_ref().and_then(|last| other_program(last, &actor)) {
                    waiting.before.get_or_insert(program);
                }
                waiting.shared |= last.as_ref().is_some_and(|last| !is_same_process(last, &actor));
                waiting.actor = Some(match last {
                    Some(last) if is_same_process(&last, &actor) => one_of(last, actor),
                    _ => actor,
                });
            }
            return;
        }
        let Touch { at: touched_at, actor, depth, wrote, entry, generation, .. } = touch;
        let (due, shared, before, missed_at, held) = (quiet, false, None, None, None);
        let waiting = Waiting { first: now, due, depth, actor, shared, wrote, entry, before, touched_at, missed_at, held, generation };
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
                wrote: waiting.wrote,
                entry: waiting.entry,
                before: waiting.before,
                touched_at: waiting.touched_at,
                missed_at: waiting.missed_at,
                held: waiting.held,
                generation: waiting.generation,
                limit: waiting.first + self.patience.limit,
            });
        }
        settled
    }

    /// It turned out not to be over: it waits as one that is still at work does. One that waits already does so for both.
    pub fn put_back(&mut self, settled: Settled, wait: Duration, now: Instant) {
        if self.waiting.contains_key(&settled.target) {
            return;
        }
        let Settled { target, depth, actor, shared, wrote, entry, before, touched_at, missed_at, held, generation, limit } = settled;
        let first = limit.checked_sub(self.patience.limit).unwrap_or(now);
        let due = (now + wait.max(self.patience.again)).min(limit);
        self.order.insert((due, target.clone()));
        let waiting = Waiting { first, due, depth, actor, shared, wrote, entry, before, touched_at, missed_at, held, generation };
        self.waiting.insert(target, waiting);
    }

    /// Touches that joined one that waited, since the beginning.
    pub fn joined(&self) -> u64 {
        self.joined
    }

    /// Whether the path has been touched and not yet been read.
    pub fn holds(&self, path: &[u8]) -> bool {
        self.waiting.contains_key(&Target::Path(path.to_vec()))
    }

    /// As [`Self::holds`], for a kernel setting.
    pub fn holds_setting(&self, name: &str) -> bool {
        self.waiting.contains_key(&Target::Sysctl(name.to_owned()))
    }

    /// As [`Self::holds`], for what the kernel holds.
    pub fn holds_kind(&self, kind: ItemKind) -> bool {
        self.waiting.contains_key(&Target::Kind(kind))
    }

    /// All of the kind was read and told of: what was read before is the older.
    pub fn let_go(&mut self, kind: ItemKind) {
        if let Some(waiting) = self.waiting.get_mut(&Target::Kind(kind)) {
            waiting.held = None;
        }
    }

    /// Who is known to have touched the path, if that waits.
    pub fn actor(&self, path: &[u8]) -> Option<&Actor> {
        self.waiting.get(&Target::Path(path.to_vec()))?.actor.as_deref()
    }

    /// The paths that wait.
    pub fn paths(&self) -> impl Iterator<Item = &[u8]> {
        self.waiting.keys().filter_map(|target| match target {
            Target::Path(path) => Some(&path[..]),
            Target::Sysctl(_) | Target::Kind(_) => None,
        })
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

/// Of what was told of one process by two touches.
fn one_of(last: Arc<Actor>, actor: Arc<Actor>) -> Arc<Actor> {
    if last.via != actor.via {
        // Another source knows other things.
        return Arc::new(last.with(&actor));
    }
    if last.certainty < actor.certainty { last } else { actor }
}

/// What a process ran at the earlier of two touches, where that is not what it ran at the later.
fn other_program(earlier: &Actor, later: &Actor) -> Option<String> {
    let (earlier_process, process) = earlier.process.as_ref().zip(later.process.as_ref()).filter(|_| is_same_process(earlier, later))?;
    // Not every source knows of scripts.
    let is_other_script = earlier.via == later.via && earlier_process.script != process.script;
    let is_other = earlier_process.exe != process.exe || is_other_script;
    earlier_process.exe.clone().filter(|_| is_other && process.exe.is_some())
}

/// The process is sure, which of its programs it was is not.
fn either(before: &str, actor: &Actor) -> Actor {
    let now = actor.process.as_ref().and_then(|process| process.exe.as_deref()).unwrap_or_default();
    let reason = format!("the process ran {before} and then {now} while it was at it: which of them did it is not known");
    Actor { certainty: actor.certainty.max(Certainty::Strong), reason: Some(reason), ..actor.clone() }
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
        return Actor::unknown("no process was named: inotify never does, nor what comes into view by a mount or another watch list");
    };
    let actor = settled.before.as_ref().map_or_else(|| Actor::clone(actor), |before| either(before, actor));
    if settled.shared { actor.but(SHARED) } else { actor }
}

/// Of two touches of one thing, the first `earlier`.
pub fn together(earlier: &Actor, actor: &Actor) -> Actor {
    if !is_same_process(earlier, actor) {
        return actor.but(SHARED);
    }
    earlier.with(actor)
}

const SHARED: &str = "more than one process touched it within the same moment; the last is named";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensor::Deed;

    fn touch(path: &str, finished: bool) -> Touch {
        Touch {
            target: Target::Path(path.into()),
            at: Time::from_seconds(1),
            actor: None,
            depth: Depth::Item,
            wrote: true,
            entry: None,
            finished,
            generation: None,
        }
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
    fn what_is_put_back_comes_again_and_no_later_than_the_limit() {
        let mut settle = Settle::new(Patience::default());
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        settle.touch(touch("/etc/a", true), start);
        let settled = settle.take_due(after(25), 1).remove(0);
        settle.put_back(settled, Duration::from_millis(40), after(25));
        assert!(settle.holds(b"/etc/a") && settle.take_due(after(64), 1).is_empty());
        let settled = settle.take_due(after(65), 1).remove(0);
        settle.put_back(settled.clone(), Duration::ZERO, after(65));
        let settled = settle.take_due(after(75), 1).remove(0);
        settle.put_back(settled.clone(), Duration::from_secs(9), after(75));
        settle.put_back(settled, Duration::from_secs(9), after(65));
        assert_eq!(settle.next_due(), Some(after(1000)));
        settle.touch(touch("/etc/a", true), after(990));
        assert_eq!(settle.take_due(after(1000), 1).remove(0).limit, after(1000));
    }

    #[test]
    fn what_was_read_is_held_until_the_next_touch() {
        let mut settle = Settle::new(Patience::default());
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        settle.touch(touch("/etc/a", true), start);
        let settled = settle.take_due(after(25), 1).remove(0);
        let held = Some(Held { read: HeldReading::Item { reading: None, known: None }, read_at: Time::from_seconds(1) });
        settle.put_back(Settled { held, ..settled }, Duration::ZERO, after(25));
        let settled = settle.take_due(after(50), 1).remove(0);
        assert!(settled.held.is_some());
        settle.put_back(settled, Duration::ZERO, after(50));
        settle.touch(touch("/etc/a", true), after(51));
        assert!(settle.take_due(after(75), 1).remove(0).held.is_none());
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
            actor.process = Some(trueline_drift::actor::Process::bare(pid));
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

    #[test]
    fn a_process_that_becomes_another_program_in_one_burst_is_not_said_to_have_been_the_last() {
        let actor = |exe: &str| {
            let process = trueline_drift::actor::Process { exe: Some(exe.to_owned()), ..trueline_drift::actor::Process::bare(7) };
            Arc::new(Actor { certainty: Certainty::Exact, reason: None, process: Some(process), ..Actor::unknown("") })
        };
        let mut settle = Settle::new(Patience::default());
        let start = Instant::now();
        let mut named = |exes: &[&str]| {
            for exe in exes {
                settle.touch(Touch { actor: Some(actor(exe)), ..touch("/etc/a", true) }, start);
            }
            actor_of(&settle.take_due(start + Duration::from_secs(1), 1).remove(0))
        };
        assert_eq!(named(&["/bin/sh", "/bin/sh"]), *actor("/bin/sh"));
        let either = named(&["/bin/sh", "/usr/bin/apt-get", "/usr/bin/apt-get"]);
        assert_eq!(either.certainty, Certainty::Strong);
        let reason = either.reason.unwrap();
        assert!(reason.contains("ran /bin/sh and then /usr/bin/apt-get"), "{reason}");
    }

    #[test]
    fn which_of_two_programs_it_was_is_not_known_either_once_it_was_put_back() {
        let actor = |exe: &str| {
            let process = trueline_drift::actor::Process { exe: Some(exe.to_owned()), ..trueline_drift::actor::Process::bare(7) };
            Arc::new(Actor { certainty: Certainty::Exact, reason: None, process: Some(process), ..Actor::unknown("") })
        };
        let mut settle = Settle::new(Patience::default());
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let touch_by = |settle: &mut Settle, exe, at| settle.touch(Touch { actor: Some(actor(exe)), ..touch("/etc/a", true) }, at);
        touch_by(&mut settle, "/bin/sh", after(0));
        touch_by(&mut settle, "/usr/bin/apt-get", after(1));
        let settled = settle.take_due(after(20), 1).remove(0);
        settle.put_back(settled, Duration::from_millis(20), after(20));
        touch_by(&mut settle, "/usr/bin/apt-get", after(25));
        assert_eq!(actor_of(&settle.take_due(after(500), 1).remove(0)).certainty, Certainty::Strong);
    }

    #[test]
    fn what_was_done_last_to_an_entry_counts() {
        let mut settle = Settle::new(Patience::default());
        let start = Instant::now();
        let mut last = |entries: &[Option<Entry>]| {
            entries.iter().for_each(|entry| settle.touch(Touch { entry: *entry, ..touch("/etc/a", true) }, start));
            settle.take_due(start + Duration::from_secs(1), 1).remove(0).entry.unwrap()
        };
        let made = Entry { last: Deed::Made, was_made: true, was_renamed_away: false };
        let removed = Entry { last: Deed::Removed, was_made: false, was_renamed_away: false };
        let moved = Entry { was_renamed_away: true, ..removed };
        // As an editor keeps the former file beside the new one.
        assert_eq!(last(&[Some(removed), Some(made), None]), made);
        assert_eq!(last(&[Some(made), None, Some(removed), None]), Entry { last: Deed::Removed, ..made });
        assert!(last(&[Some(made), Some(removed)]).was_transient());
        assert!(!last(&[Some(removed), None]).was_transient(), "nobody saw it made");
        assert!(!last(&[Some(made), Some(moved)]).was_transient(), "as an editor's new file that takes the name of the old one");
    }
}
