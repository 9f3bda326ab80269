//! Files too large to be read between two events are read aside, one at a time, on a thread of their own and at the pace
//! of background reading.
//!
//! Invariants: a reading that was overtaken by another touch is thrown away and taken again, but not for longer than
//! [`PATIENCE`]; the number of files that wait is bounded; dropping it ends the reading at once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use trueline_drift::redact::RedactionKey;
use trueline_drift::{Actor, Cause, ItemId};

use super::compare::UNWRITTEN;
use super::freshness::STILL_WRITTEN;
use super::settle::together;
use super::{Observer, Scope, Sink};
use crate::clock;
use crate::collect::pace::Pace;
use crate::collect::{CollectError, FileReader, ReadError, Reading, Root};
use crate::kernel::thread::read_behind_others;

/// The most that is read between two events: 10 ms of hashing.
pub const LARGE: u64 = 16 * 1024 * 1024;

/// Files waiting.
const CAPACITY: usize = 1000;

/// How long a file that is touched while it is read goes unreported.
const PATIENCE: Duration = Duration::from_secs(60);

type Read = Result<Option<Reading>, ReadError>;

/// A file to be read, and on whose account.
#[derive(Debug)]
pub struct Request {
    pub item: ItemId,
    pub cause: Cause,
    pub actor: Actor,
    pub asked_at: Instant,
}

impl Request {
    /// Takes in a later one for the same file: a scan knows nothing that an event does not.
    fn join(&mut self, later: &Self) {
        match (self.cause, later.cause) {
            (Cause::Event, Cause::Event) => self.actor = together(&self.actor, &later.actor),
            (Cause::Rescan, Cause::Event) => (self.cause, self.actor) = (Cause::Event, later.actor.clone()),
            (_, Cause::Rescan) => {}
        }
    }
}

/// There is no room for another request.
#[derive(Debug, PartialEq, Eq)]
pub struct Crowded;

struct Work {
    request: Request,
    thread: JoinHandle<Read>,
}

pub struct Aside {
    key: RedactionKey,
    waiting: VecDeque<Request>,
    at_work: Option<Work>,
    give_up: Arc<AtomicBool>,
}

impl Aside {
    /// Secrets in what is read are masked by the host's key.
    pub fn new(key: RedactionKey) -> Self {
        Self { key, waiting: VecDeque::new(), at_work: None, give_up: Arc::default() }
    }

    /// A file that waits already is read once for all that asked.
    pub fn ask(&mut self, request: Request) -> Result<(), Crowded> {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.item == request.item) {
            waiting.join(&request);
            return Ok(());
        }
        if self.waiting.len() >= CAPACITY {
            return Err(Crowded);
        }
        self.waiting.push_back(request);
        Ok(())
    }

    #[cfg(test)]
    pub fn is_at_work(&self) -> bool {
        self.at_work.is_some()
    }

    /// What was read since the last call, if anything; begins the next at this pace, in bytes a second.
    pub fn take(&mut self, pace: u64, now: Instant) -> Option<(Request, Read)> {
        if self.at_work.as_ref().is_some_and(|work| !work.thread.is_finished()) {
            return None;
        }
        let done = self.at_work.take().and_then(|work| self.finish(work, now));
        if let Some(request) = self.waiting.pop_front() {
            self.begin(request, pace);
        }
        done
    }

    fn finish(&mut self, Work { request, thread }: Work, now: Instant) -> Option<(Request, Read)> {
        let read = thread.join().unwrap_or_else(|_| Err(ReadError::broke_off(&request.item)));
        let again = self.waiting.iter_mut().find(|waiting| waiting.item == request.item);
        if let Some(again) = again
            && now.saturating_duration_since(request.asked_at) < PATIENCE
        {
            let later = std::mem::replace(again, request);
            again.join(&later);
            return None;
        }
        Some((request, read))
    }

    fn begin(&mut self, request: Request, pace: u64) {
        let (give_up, key) = (Arc::clone(&self.give_up), self.key.clone());
        let path = request.item.key.bytes().into_owned();
        let read = move || {
            // Where the kernel refuses, it only competes with others.
            let _ = read_behind_others();
            FileReader::new(&Root::host(), key, Pace::new(pace, 0).map(Arc::new)).until(give_up).read(&path, None)
        };
        match std::thread::Builder::new().name("large file".to_owned()).spawn(read) {
            Ok(thread) => self.at_work = Some(Work { request, thread }),
            Err(error) => {
                tracing::warn!(item = %request.item, %error, "no thread could be had to read a large file; it is tried again");
                self.waiting.push_front(request);
            }
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.give_up.store(true, Ordering::Relaxed);
        if let Some(work) = self.at_work.take() {
            // What it read is found again at the next start.
            drop(work.thread.join());
        }
    }
}

impl<S: Sink> Observer<S> {
    pub(super) fn read_aside(&mut self, item: &ItemId, cause: Cause, actor: &Actor) {
        // Whatever of it has changed by then, its contents may be among it.
        let actor = if self.unwritten { actor.but(UNWRITTEN) } else { actor.clone() };
        let request = Request { item: item.clone(), cause, actor, asked_at: Instant::now() };
        if let Err(Crowded) = self.aside.ask(request) {
            self.read_later(Scope::of(item), &"too many large files wait to be read");
        }
    }

    /// Takes what was read aside, and has the next large file read.
    pub(super) fn work_aside(&mut self) {
        let Some((request, read)) = self.aside.take(self.parts.policy.scan_bytes_per_second, Instant::now()) else { return };
        if !self.parts.policy.watches(&request.item) {
            // Another watch list came meanwhile.
            return;
        }
        let present = match read {
            // Since it was opened it may have gone, or another may have come in its place: what was read counts if it still holds.
            Ok(Some(reading)) => {
                let known = reading.stamp.as_ref().map(|stamp| (stamp, &reading.fields));
                match self.parts.collectors.read_item(&request.item, known) {
                    // It has changed again and is as large: an event tells of that, and this is what is known until then.
                    Err(CollectError::File(ReadError::Large { .. })) => Ok(Some(reading)),
                    present => present,
                }
            }
            read => read.map_err(CollectError::from),
        };
        match present {
            Ok(reading) => {
                // Who touched it meanwhile may have changed what was read.
                let may_be_anothers = self.settle.holds(&request.item.key.bytes())
                    || reading.as_ref().is_some_and(|reading| self.may_be_anothers(&request.item, reading));
                let is_doubtful = request.cause == Cause::Event && self.names(&request.actor) && may_be_anothers;
                let mut actor = if is_doubtful { request.actor.but(STILL_WRITTEN) } else { request.actor };
                if request.cause == Cause::Event {
                    let before = self.stored(&request.item).ok().flatten();
                    let done = (clock::now(), true);
                    actor = self.tell_others(&request.item, before.as_ref(), reading.as_ref(), done, &actor, &mut VecDeque::new());
                }
                self.compare(request.item.clone(), reading, request.cause, &actor, self.novelty(&request.item));
            }
            Err(error) => {
                self.note_failure(request.item.key.as_str(), &error);
                self.read_later(Scope::of(&request.item), &error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trueline_drift::Certainty;
    use trueline_drift::actor::Process;

    fn request(pid: u32, cause: Cause) -> Request {
        let process = Process::bare(pid);
        let actor = Actor { certainty: Certainty::Strong, process: Some(process), reason: None, ..Actor::unknown("") };
        Request { item: "file:/large".parse().unwrap(), cause, actor, asked_at: Instant::now() }
    }

    #[test]
    fn a_file_that_waits_is_read_once_for_all_who_touched_it() {
        let joined = |first: Request, later: Request| {
            let mut aside = Aside::new(RedactionKey::new([0; 32]));
            aside.ask(first).unwrap();
            aside.ask(later).unwrap();
            assert_eq!(aside.waiting.len(), 1);
            let request = aside.waiting.pop_front().unwrap();
            (request.cause, request.actor.process.unwrap().pid, request.actor.certainty)
        };
        let same = joined(request(1, Cause::Event), request(1, Cause::Event));
        assert_eq!(same, (Cause::Event, 1, Certainty::Strong));
        let another = joined(request(1, Cause::Event), request(2, Cause::Event));
        assert_eq!(another, (Cause::Event, 2, Certainty::Correlated));
        let scanned = joined(request(1, Cause::Event), request(2, Cause::Rescan));
        assert_eq!(scanned, (Cause::Event, 1, Certainty::Strong));
        let found_first = joined(request(2, Cause::Rescan), request(1, Cause::Event));
        assert_eq!(found_first, (Cause::Event, 1, Certainty::Strong));
    }
}
