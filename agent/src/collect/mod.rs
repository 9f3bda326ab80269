//! Reads items: the only way a value enters the system.
//!
//! A reading never follows a symbolic link that another user could have planted, never opens a
//! device or a FIFO, and never holds more than a bounded part of a file.

pub mod account;
pub mod apk;
pub mod at_job;
pub mod attributes;
pub mod authorized_key;
pub mod block_device;
pub mod certificate;
mod collectors;
pub mod command;
pub mod container;
pub mod cron_job;
pub mod environment;
pub mod file;
pub mod filesystem;
pub mod firewall;
pub mod folder;
pub mod fstab;
pub mod group;
pub mod hardware;
mod holders;
pub mod hostname;
pub mod hosts_entry;
pub mod interface;
pub mod kernel;
pub mod kernel_module;
pub mod limits;
pub mod listener;
pub mod locale;
pub mod lsm;
pub mod manifest;
pub mod mount;
pub mod names;
pub mod pace;
pub mod package;
pub mod pam_rule;
pub mod program;
pub mod refusal;
pub mod repository;
pub mod resolver;
pub mod root;
pub mod route;
pub mod rpm;
pub mod run;
pub mod session;
pub mod settings;
pub mod sshd;
pub mod sudo_rule;
pub mod swap;
pub mod sysctl;
pub mod texts;
pub mod time_sync;
pub mod timer;
pub mod timezone;
pub mod unit;
pub mod user;

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use trueline_drift::redact::RedactionKey;
use trueline_drift::watch::WatchPolicy;
use trueline_drift::{Fields, ItemId, ItemKey, ItemKind, Time};

use crate::kernel::file::Inode;
use crate::sensor::Generation;

pub use collectors::Collectors;
pub use file::{FileReader, Glance, Known, ReadError};
pub use holders::Holders;
pub use root::Root;

/// All lines of a file that is told by its lines, as they may be kept.
pub type Lines = Arc<[String]>;

/// An item as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub fields: Fields,
    /// For files: what must be unchanged for the contents to be taken as unchanged. Absent where
    /// that could not be relied on: the file changed a moment ago, or was not read in full.
    pub stamp: Option<Stamp>,
    /// For files: which one bears the name; the stamp's, where there is one.
    pub inode: Option<Inode>,
    /// For files: when it last changed, by the clock that inodes are stamped with.
    pub changed_at: Option<Time>,
    /// For files that are told by their lines, and were read.
    pub lines: Option<Lines>,
}

impl Reading {
    /// Of what is not a file.
    pub fn of(fields: Fields) -> Self {
        Self { fields, stamp: None, inode: None, changed_at: None, lines: None }
    }
}

/// A file's identity and times. `changed_ns` (ctime) moves with every change of contents or metadata
/// and cannot be set by a program, so an equal stamp lets a quick scan skip the hashing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub modified_ns: i64,
    pub changed_ns: i64,
}

/// How the items of one kind are read, and how a change of one is noticed.
#[derive(Debug)]
pub struct Collector {
    pub kind: ItemKind,
    /// Files and folders of the host: all is read again once one is touched. A folder stands for all that lies beneath it.
    pub sources: &'static [&'static str],
    /// All is read again this often: the bound on what neither a source nor a sensor tells of.
    pub poll: Option<Duration>,
    pub read: fn(&Place<'_>) -> Result<Listing, CollectError>,
}

/// What a collector may read, and what it needs to do so.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub root: &'a Root,
    pub policy: &'a WatchPolicy,
    pub key: &'a RedactionKey,
    pub holders: &'a Holders,
    pub kept: &'a Kept,
}

/// What collectors keep from one reading to the next.
#[derive(Debug, Default)]
pub struct Kept {
    pub configured: sysctl::LastConfigured,
    pub origins: package::Origins,
}

/// All items of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// Sorted by item.
    pub items: Vec<(ItemId, Reading)>,
    /// Entries of the host's database that make no sense and were left out.
    pub skipped: u64,
    /// The version of all that was read, where the kernel counts them.
    pub generation: Option<Generation>,
}

#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    #[error(transparent)]
    File(#[from] ReadError),
    #[error("cannot read {subject}: {reason}; check that the agent may read it")]
    Database { subject: String, reason: String },
}

impl CollectError {
    fn database(subject: impl Into<String>, error: &std::io::Error) -> Self {
        Self::Database { subject: subject.into(), reason: refusal::reason(error) }
    }
}

/// Longest key that stands whole, in bytes: longer than any path, and escaped still one that an item may have.
const KEY_LIMIT: usize = 8 * 1024;

/// The key of an entry, and of a long one its beginning with a digest of the whole: left out it would be hidden.
fn shortened(key: &[u8]) -> Vec<u8> {
    if key.len() <= KEY_LIMIT {
        return key.to_vec();
    }
    [&key[..KEY_LIMIT], b" sha256 ", hex::encode(&Sha256::digest(key)[..16]).as_bytes()].concat()
}

/// Builds a listing from what a database yields; of two entries with one key the first counts.
fn listing(kind: ItemKind, entries: impl IntoIterator<Item = (Vec<u8>, Fields)>, skipped: u64) -> Listing {
    let mut items = std::collections::BTreeMap::new();
    let mut skipped = skipped;
    for (key, fields) in entries {
        match ItemKey::from_bytes(&shortened(&key)) {
            Ok(key) if !key.as_str().is_empty() => {
                items.entry(key).and_modify(|_| skipped += 1).or_insert(Reading::of(fields));
            }
            _ => skipped += 1,
        }
    }
    let items = items.into_iter().map(|(key, reading)| (ItemId::new(kind, key), reading)).collect();
    Listing { items, skipped, ..Listing::default() }
}

/// Says on standard error why a test cannot run here, or fails if nothing may be left out.
#[cfg(test)]
pub(crate) fn skipped(test: &str, reason: &str) {
    assert!(std::env::var_os("TRUELINE_TEST_REQUIRE").is_none(), "{test} cannot run: {reason}");
    // Past the capture of the test harness.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("skipped: {test}: {reason}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_with_long_keys_are_told_apart_and_not_left_out() {
        let long = |end: &[u8]| [&[0xff; 100_000], end].concat();
        let found = listing(ItemKind::SudoRule, [long(b"a"), long(b"b"), b"c".to_vec()].map(|key| (key, Fields::new())), 0);
        assert_eq!((found.items.len(), found.skipped), (3, 0));
    }
}
