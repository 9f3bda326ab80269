//! Walks everything in view and reads each file, on a few threads.
//!
//! The list of files is never held: threads share a stack of folders, and what they read leaves in
//! batches through a bounded channel, so a slow receiver slows the walk. Symbolic links are never
//! followed, and folders are opened by their whole path when their turn comes, so that neither a
//! loop nor a deep tree costs more than it holds. File systems of other machines and of the kernel
//! are named, not entered.

mod queue;
mod worker;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use trueline_drift::redact::RedactionKey;
use trueline_drift::watch::{WatchPolicy, is_beneath};
use trueline_drift::{Fields, ItemId, text};

use crate::collect::pace::Pace;
use crate::collect::refusal::reason;
use crate::collect::{Glance, Reading, Stamp};
use queue::Queue;
use worker::{Task, Worker};

/// What a scan met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Met {
    Read(ItemId, Reading),
    /// As it is known.
    Known(ItemId),
}

pub type Batch = Vec<Met>;

/// What is known of files from before.
pub trait Memory: Sync {
    /// Of each of these files, whether all that is known of it still holds, by this glance at it.
    fn hold(&self, files: &[(ItemId, Glance<'_>)]) -> Vec<bool>;

    /// What was read of it, and when that still holds.
    fn lookup(&self, item: &ItemId) -> Option<(Stamp, Fields)>;
}

/// Nothing is known.
#[derive(Debug, Clone, Copy)]
pub struct Nothing;

impl Memory for Nothing {
    fn hold(&self, files: &[(ItemId, Glance<'_>)]) -> Vec<bool> {
        vec![false; files.len()]
    }

    fn lookup(&self, _: &ItemId) -> Option<(Stamp, Fields)> {
        None
    }
}

#[derive(Debug, Clone)]
pub struct ScanOptions {
    pub threads: usize,
    pub mode: ScanMode,
    /// Bounds over all threads.
    pub pace: Option<Arc<Pace>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanMode {
    /// Reads all contents.
    Full,
    /// Takes the contents of a file whose stamp is known as unchanged.
    Quick,
}

/// How far a scan is, for whoever watches it, and a way to end it.
#[derive(Debug, Default)]
pub struct ScanProgress {
    pub folders: AtomicU64,
    pub files: AtomicU64,
    pub bytes: AtomicU64,
    /// Once set, the scan ends within the reading of one buffer.
    pub give_up: Arc<AtomicBool>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanSummary {
    /// Items sent, folders among them.
    pub items: u64,
    /// Bytes of contents read.
    pub bytes: u64,
    /// Items of which something could not be read, and names too long to be items.
    pub failures: u64,
    /// Mount points not entered, printable, at most 64.
    pub skipped: Vec<String>,
    pub elapsed: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("the scan was stopped: nobody wants its results any more")]
    Stopped,
    #[error("cannot scan `{path}` for want of the agent's own resources: {reason}; raise its limits (LimitNOFILE, TasksMax, MemoryMax)")]
    Resources { path: String, reason: String },
}

/// Reads every file that the policy has in view. Dropping the receiver stops the scan at its next batch,
/// [`ScanProgress::give_up`] at once. Secrets are masked by `key`; `memory` is asked in quick mode.
pub fn scan(
    policy: &WatchPolicy,
    options: &ScanOptions,
    key: &RedactionKey,
    memory: &dyn Memory,
    sink: SyncSender<Batch>,
    progress: &ScanProgress,
) -> Result<ScanSummary, ScanError> {
    let started = Instant::now();
    let roots: HashSet<Vec<u8>> = policy
        .paths
        .iter()
        .filter(|root| !policy.excludes_path(root))
        .map(|root| text::original(if root.len() > 1 { root.trim_end_matches('/') } else { root }).into_owned())
        .collect();
    let shared = Shared {
        policy,
        mode: options.mode,
        key,
        memory,
        pace: options.pace.clone(),
        nested: nested(&roots),
        queue: Queue::new(roots.into_iter().map(Task::Root).collect()),
        progress,
        items: AtomicU64::new(0),
        failures: AtomicU64::new(0),
        skipped: Mutex::new(Vec::new()),
        failed: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        for _ in 0..options.threads.clamp(1, 64) {
            let worker = Worker::new(&shared, sink.clone());
            let spawned = std::thread::Builder::new().name("scan".to_owned()).spawn_scoped(scope, || worker.run());
            if let Err(error) = spawned {
                shared.report(ScanError::Resources { path: "/".to_owned(), reason: reason(&error) });
                shared.queue.stop();
            }
        }
    });
    if let Some(error) = shared.failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    Ok(ScanSummary {
        items: shared.items.into_inner(),
        bytes: progress.bytes.load(Ordering::Relaxed),
        failures: shared.failures.into_inner(),
        skipped: shared.skipped.into_inner().unwrap_or_else(PoisonError::into_inner),
        elapsed: started.elapsed(),
    })
}

/// Roots that lie beneath another: their own task reads them, whatever lies between.
fn nested(roots: &HashSet<Vec<u8>>) -> HashSet<Vec<u8>> {
    let beneath = |path: &[u8], root: &[u8]| path != root && is_beneath(&text::printable(path), &text::printable(root));
    roots.iter().filter(|path| roots.iter().any(|root| beneath(path, root))).cloned().collect()
}

struct Shared<'a> {
    policy: &'a WatchPolicy,
    mode: ScanMode,
    key: &'a RedactionKey,
    memory: &'a dyn Memory,
    pace: Option<Arc<Pace>>,
    nested: HashSet<Vec<u8>>,
    queue: Queue<Task>,
    progress: &'a ScanProgress,
    items: AtomicU64,
    failures: AtomicU64,
    skipped: Mutex<Vec<String>>,
    failed: Mutex<Option<ScanError>>,
}

impl Shared<'_> {
    /// The first error is the one that is told.
    fn report(&self, error: ScanError) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

#[cfg(test)]
#[path = "scan_test.rs"]
mod tests;
