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

use trueline_drift::{Actor, Cause, ItemId};

use crate::collect::pace::Pace;
use crate::collect::{FileReader, ReadError, Reading, Root};

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

/// There is no room for another request.
#[derive(Debug, PartialEq, Eq)]
pub struct Crowded;

struct Work {
    request: Request,
    thread: JoinHandle<Read>,
}

#[derive(Default)]
pub struct Aside {
    waiting: VecDeque<Request>,
    at_work: Option<Work>,
    give_up: Arc<AtomicBool>,
}

impl Aside {
    /// The last touch of a file that waits already is the one that counts, from when the first was.
    pub fn ask(&mut self, request: Request) -> Result<(), Crowded> {
        if let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.item == request.item) {
            *waiting = Request { asked_at: waiting.asked_at, ..request };
            return Ok(());
        }
        if self.waiting.len() >= CAPACITY {
            return Err(Crowded);
        }
        self.waiting.push_back(request);
        Ok(())
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
            again.asked_at = request.asked_at;
            return None;
        }
        Some((request, read))
    }

    fn begin(&mut self, request: Request, pace: u64) {
        let give_up = Arc::clone(&self.give_up);
        let path = request.item.key.bytes().into_owned();
        let read = move || FileReader::new(&Root::host(), Pace::new(pace).map(Arc::new)).until(give_up).read(&path, None);
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
