//! The state: the last reading of every item, in one redb file.
//!
//! # Invariants
//!
//! - Contents and [`State::spooled`] change in one transaction: whatever survives a crash, the contents are exactly those
//!   after the record that `spooled` names.
//! - Nothing is forgotten in silence: a file that is not whole is moved aside and reported.
//! - Keys are the host's own bytes behind a kind byte, so a path and all beneath it are one range.
//!
//! # Durability
//!
//! The spool is the write-ahead log. [`State::apply`] commits without a sync (`redb::Durability::None`: atomic, visible, lost
//! in a crash together with every such commit since the last durable one) and makes every commit durable that brings
//! the rows since the last one past [`ROWS_UNSYNCED`]; [`State::flush`] and the metadata setters commit durably. After a crash redb opens
//! at the last durable commit, and the observer replays the spool after [`State::spooled`].
//! Therefore the spool may only drop records up to [`State::durable_spooled`]: hand that to
//! `Spool::mark_applied` after each `apply` and `flush`. The order at every change is: spool append, then `apply`.
//!
//! What is applied without a record (a stamp after a touch that changed nothing) may be lost in a crash: it costs a
//! reading of the file, no change.
//!
//! # Errors
//!
//! After a failed commit redb takes no more writes. [`State::reopen`] goes back to the last durable commit; the caller then
//! replays the spool after [`State::spooled`], as at the start.

pub mod encoding;
mod names;
mod sweep;
#[cfg(test)]
mod tests;
mod texts;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use redb::{Builder, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError, TableDefinition};
use trueline_drift::{Epoch, Fields, ItemId, ItemKind, RecordBody, Sequence, Time};

pub use names::Bearers;
pub use sweep::{Scope, Seen};

use crate::collect::{Glance, Lines, Stamp};
use crate::kernel::file::Inode;
use names::Names;
use texts::Texts;

const ITEMS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("items");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Rows that commits without a sync may pile up.
pub const ROWS_UNSYNCED: usize = 4096;
/// Records that [`State::replay`] applies in one commit.
const REPLAY_BATCH: usize = 512;

const SPOOLED: &str = "spooled";
const COUNTS: &str = "counts";
const INVENTORY: &str = "inventory_complete";
const COVERED: &str = "covered_policy";
const POLICY: &str = "policy";
const VOCABULARY: &str = "vocabulary";
const REDACTION: &str = "redaction";
const LAST_ALIVE: &str = "last_alive";

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("cannot {operation} the state {}: {source}", path.display())]
    Storage { operation: &'static str, path: PathBuf, source: Box<redb::Error> },
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("the state {} holds a row that does not read back: restart the agent, which checks the file", path.display())]
    Damaged { path: PathBuf },
    #[error("the state {} stopped at an error before: reopen it", path.display())]
    Closed { path: PathBuf },
}

/// An item as it was last read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub fields: Fields,
    pub observed_at: Time,
    /// Absent after a replay, and for what is not a file: the next scan reads the item whole.
    pub stamp: Option<Stamp>,
    /// For files: which one bore the name; the stamp's, where there is one.
    pub inode: Option<Inode>,
    /// To be kept with it, as [`State::lines`] yields them; a lookup leaves them out, and what is kept stays where there are none.
    pub lines: Option<Lines>,
}

impl Stored {
    /// As told, by a record: how the file was found is not in it.
    pub fn told(fields: Fields, observed_at: Time) -> Self {
        Self { fields, observed_at, stamp: None, inode: None, lines: None }
    }
}

/// A state file that was not whole. The new state is empty: the observer opens a coverage gap and takes its inventory again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    pub to: PathBuf,
    pub reason: String,
}

/// When every item of the watch list had been observed, and how many there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InventoryComplete {
    pub at: Time,
    pub items: u64,
    /// Of the spool that told it: in another epoch the collector has yet to hear of every item.
    pub epoch: Epoch,
}

/// The watch policy in force, as the collector sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPolicy {
    pub version: u64,
    pub document: String,
}

type Spooled = (Epoch, Sequence);

#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    spooled: Spooled,
    durable: Spooled,
    unsynced: usize,
}

/// Shared by the observer, which writes, and scanning threads, which look up.
pub struct State {
    path: PathBuf,
    cache_bytes: usize,
    /// Absent after an error until it is reopened.
    database: RwLock<Option<Database>>,
    progress: Mutex<Progress>,
}

impl State {
    /// Opens or makes the state at `path` with a cache of `cache_bytes`, and verifies all of it. A file that is not whole is
    /// renamed to `path` + `.damaged-` + `mark`, and a new one is made.
    pub fn open(path: &Path, cache_bytes: usize, mark: &str) -> Result<(Self, Option<SetAside>), StateError> {
        let (database, aside) = match database(path, cache_bytes) {
            Ok(database) => (database, None),
            Err(error) if is_damage(&error) => {
                let mut name = path.as_os_str().to_owned();
                name.push(format!(".damaged-{mark}"));
                let to = PathBuf::from(name);
                fs::rename(path, &to).map_err(|source| StateError::Io { operation: "move aside", path: path.to_owned(), source })?;
                let database = database(path, cache_bytes).map_err(fault("make", path))?;
                (database, Some(SetAside { to, reason: error.to_string() }))
            }
            Err(error) => return Err(fault("open", path)(error)),
        };
        let state = Self { path: path.to_owned(), cache_bytes, database: RwLock::new(None), progress: Mutex::new(Progress::default()) };
        state.take(database)?;
        Ok((state, aside))
    }

    /// Goes back to the last durable commit after an error. The caller replays the spool after [`Self::spooled`].
    pub fn reopen(&self) -> Result<(), StateError> {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
        let database = database(&self.path, self.cache_bytes).map_err(fault("reopen", &self.path))?;
        self.take(database)
    }

    fn take(&self, database: Database) -> Result<(), StateError> {
        let fault = |error: redb::Error| self.storage("prepare", error);
        let transaction = database.begin_write().map_err(|error| fault(error.into()))?;
        transaction.open_table(ITEMS).map_err(|error| fault(error.into()))?;
        Names::make(&transaction).map_err(fault)?;
        Texts::open(&transaction).map_err(fault)?;
        let spooled = {
            let meta = transaction.open_table(META).map_err(|error| fault(error.into()))?;
            let row = meta.get(SPOOLED).map_err(|error| fault(error.into()))?;
            row.and_then(|row| numbers(row.value())).map_or_else(Spooled::default, |[epoch, sequence]| (Epoch(epoch), Sequence(sequence)))
        };
        transaction.commit().map_err(|error| fault(error.into()))?;
        *self.progress() = Progress { spooled, durable: spooled, unsynced: 0 };
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = Some(database);
        Ok(())
    }

    pub fn lookup(&self, item: &ItemId) -> Result<Option<Stored>, StateError> {
        self.read(|items| {
            let key = encoding::key(item);
            let row = items.get(key.as_slice())?;
            Ok(row.map(|row| encoding::decode(&key, row.value())))
        })?
        .map(|stored| stored.ok_or_else(|| self.damaged()))
        .transpose()
    }

    /// Of each file, whether all that is known of it still holds. What cannot be looked up does not.
    pub fn hold(&self, files: &[(ItemId, Glance<'_>)]) -> Vec<bool> {
        let held = self.read(|items| {
            let holds = |(item, glance): &(ItemId, Glance<'_>)| {
                let key = encoding::key(item);
                let row = items.get(key.as_slice())?;
                Ok(row.and_then(|row| encoding::holds(&key, row.value(), glance)) == Some(true))
            };
            files.iter().map(holds).collect()
        });
        held.unwrap_or_else(|_| vec![false; files.len()])
    }

    /// Sets or removes items, and notes the record that they came with; one commit. `None` removes.
    pub fn apply(&self, changes: &[(ItemId, Option<Stored>)], spooled: Option<(Epoch, Sequence)>) -> Result<(), StateError> {
        let durable = self.progress().unsynced + changes.len() >= ROWS_UNSYNCED;
        self.write("write", changes, spooled, None, durable)
    }

    /// Makes everything applied so far durable.
    pub fn flush(&self) -> Result<(), StateError> {
        if self.progress().unsynced == 0 {
            return Ok(());
        }
        self.write("flush", &[], None, None, true)
    }

    /// The record up to which the contents go; in another epoch than the spool's, all of the spool is after it.
    pub fn spooled(&self) -> (Epoch, Sequence) {
        self.progress().spooled
    }

    /// As [`Self::spooled`], of what a crash leaves: the spool keeps what comes after.
    pub fn durable_spooled(&self) -> (Epoch, Sequence) {
        self.progress().durable
    }

    /// Applies the spool's records after [`Self::spooled`], from an iterator that begins there; the number applied. Stamps are not
    /// in records, so replayed files are read again by the next scan.
    pub fn replay<E: From<StateError>>(
        &self,
        epoch: Epoch,
        records: impl Iterator<Item = Result<(Sequence, RecordBody), E>>,
    ) -> Result<u64, E> {
        let mut batch = Vec::new();
        let (mut count, mut last) = (0, None);
        let (known_epoch, known) = self.spooled();
        for record in records {
            let (sequence, body) = record?;
            if epoch == known_epoch && sequence <= known {
                continue;
            }
            count += 1;
            last = Some((epoch, sequence));
            match body {
                RecordBody::Observed(observation) => {
                    batch.push((observation.item, Some(Stored::told(observation.fields, observation.observed_at))));
                }
                RecordBody::Changed(change) => {
                    let observed_at = change.observed_at;
                    let stored = change.after().map(|fields| Stored::told(fields, observed_at));
                    batch.push((change.item, stored));
                }
                RecordBody::Unwatched { item, .. } => batch.push((item, None)),
                RecordBody::Gap(_) | RecordBody::InventoryComplete { .. } => {}
            }
            if batch.len() >= REPLAY_BATCH {
                self.apply(&batch, last)?;
                batch.clear();
            }
        }
        self.write("replay into", &batch, last, None, true)?;
        Ok(count)
    }

    /// Items held, per kind.
    pub fn count(&self, kind: ItemKind) -> Result<u64, StateError> {
        Ok(self.metadata(COUNTS)?.map_or(0, |row| counts(&row)[usize::from(encoding::kind_byte(kind))]))
    }

    pub fn inventory_complete(&self) -> Result<Option<InventoryComplete>, StateError> {
        let row = self.metadata(INVENTORY)?;
        Ok(row.and_then(|row| numbers(&row)).map(|[at, items, epoch]| InventoryComplete {
            at: Time::from_micros(at as i64),
            items,
            epoch: Epoch(epoch),
        }))
    }

    pub fn set_inventory_complete(&self, complete: InventoryComplete) -> Result<(), StateError> {
        self.set_metadata(INVENTORY, &bytes([complete.at.micros() as u64, complete.items, complete.epoch.0]))
    }

    /// Whether an error closed it: nothing can be looked up before [`Self::reopen`].
    pub fn is_closed(&self) -> bool {
        self.database().is_none()
    }

    /// The watch policy, as YAML, under which the state was last complete.
    pub fn covered(&self) -> Result<Option<String>, StateError> {
        let row = self.metadata(COVERED)?;
        row.map(|row| String::from_utf8(row).map_err(|_| self.damaged())).transpose()
    }

    pub fn set_covered(&self, document: &str) -> Result<(), StateError> {
        self.set_metadata(COVERED, document.as_bytes())
    }

    pub fn policy(&self) -> Result<Option<StoredPolicy>, StateError> {
        let Some(row) = self.metadata(POLICY)?.filter(|row| !row.is_empty()) else { return Ok(None) };
        let (version, document) = row.split_first_chunk().ok_or_else(|| self.damaged())?;
        let document = String::from_utf8(document.to_vec()).map_err(|_| self.damaged())?;
        Ok(Some(StoredPolicy { version: u64::from_le_bytes(*version), document }))
    }

    pub fn set_policy(&self, policy: &StoredPolicy) -> Result<(), StateError> {
        let mut row = policy.version.to_le_bytes().to_vec();
        row.extend_from_slice(policy.document.as_bytes());
        self.set_metadata(POLICY, &row)
    }

    /// From now on no policy of the collector's is in force.
    pub fn forget_policy(&self) -> Result<(), StateError> {
        self.set_metadata(POLICY, &[])
    }

    /// Up to which row of what agents came to tell all items here have been told in full.
    pub fn vocabulary(&self) -> Result<Option<u64>, StateError> {
        Ok(self.metadata(VOCABULARY)?.and_then(|row| numbers(&row)).map(|[vocabulary]| vocabulary))
    }

    pub fn set_vocabulary(&self, vocabulary: u64) -> Result<(), StateError> {
        self.set_metadata(VOCABULARY, &bytes([vocabulary]))
    }

    /// The fingerprint of what all items here were redacted by.
    pub fn redaction(&self) -> Result<Option<String>, StateError> {
        let row = self.metadata(REDACTION)?;
        row.map(|row| String::from_utf8(row).map_err(|_| self.damaged())).transpose()
    }

    pub fn set_redaction(&self, fingerprint: &str) -> Result<(), StateError> {
        self.set_metadata(REDACTION, fingerprint.as_bytes())
    }

    /// When the agent last said that it was watching: what follows, up to its start, is a coverage gap.
    pub fn last_alive(&self) -> Result<Option<Time>, StateError> {
        Ok(self.metadata(LAST_ALIVE)?.and_then(|row| numbers(&row)).map(|[at]| Time::from_micros(at as i64)))
    }

    /// Durable, and everything applied before it too: serves as the periodic flush.
    pub fn set_last_alive(&self, at: Time) -> Result<(), StateError> {
        self.set_metadata(LAST_ALIVE, &bytes([at.micros() as u64]))
    }

    fn metadata(&self, name: &'static str) -> Result<Option<Vec<u8>>, StateError> {
        let guard = self.database();
        let database = guard.as_ref().ok_or_else(|| self.closed())?;
        let read = || -> Result<Option<Vec<u8>>, redb::Error> {
            let meta = database.begin_read()?.open_table(META)?;
            Ok(meta.get(name)?.map(|row| row.value().to_vec()))
        };
        read().map_err(|error| self.storage("read", error))
    }

    fn set_metadata(&self, name: &'static str, row: &[u8]) -> Result<(), StateError> {
        self.write("write", &[], None, Some((name, row)), true)
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&redb::ReadOnlyTable<&'static [u8], &'static [u8]>) -> Result<T, redb::Error>,
    ) -> Result<T, StateError> {
        let guard = self.database();
        let database = guard.as_ref().ok_or_else(|| self.closed())?;
        let run = || read(&database.begin_read()?.open_table(ITEMS)?);
        run().map_err(|error| self.storage("read", error))
    }

    fn write(
        &self,
        operation: &'static str,
        changes: &[(ItemId, Option<Stored>)],
        spooled: Option<Spooled>,
        metadata: Option<(&str, &[u8])>,
        durable: bool,
    ) -> Result<(), StateError> {
        let guard = self.database();
        let database = guard.as_ref().ok_or_else(|| self.closed())?;
        let run = || -> Result<(), redb::Error> {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(if durable { Durability::Immediate } else { Durability::None })?;
            {
                let mut meta = transaction.open_table(META)?;
                if !changes.is_empty() {
                    let mut counts = meta.get(COUNTS)?.map_or([0; KINDS], |row| counts(row.value()));
                    let mut items = transaction.open_table(ITEMS)?;
                    let mut names = Names::open(&transaction)?;
                    let mut texts = Texts::open(&transaction)?;
                    for (item, stored) in changes {
                        let key = encoding::key(item);
                        let count = &mut counts[usize::from(key[0])];
                        match stored {
                            Some(stored) => {
                                let row = encoding::encode(&key, stored);
                                let before = items.insert(key.as_slice(), row.as_slice())?;
                                *count += u64::from(before.is_none());
                                let before = before.and_then(|before| encoding::shared_inode(&key, before.value()));
                                names.change(&key, before, encoding::shared_inode(&key, &row))?;
                                texts.keep(&key, stored)?;
                            }
                            None => {
                                let before = items.remove(key.as_slice())?;
                                *count = count.saturating_sub(u64::from(before.is_some()));
                                names.change(&key, before.and_then(|before| encoding::shared_inode(&key, before.value())), None)?;
                                texts.remove(&key)?;
                            }
                        }
                    }
                    meta.insert(COUNTS, bytes(counts).as_slice())?;
                }
                if let Some((epoch, sequence)) = spooled {
                    meta.insert(SPOOLED, bytes([epoch.0, sequence.0]).as_slice())?;
                }
                if let Some((name, row)) = metadata {
                    meta.insert(name, row)?;
                }
            }
            transaction.commit()?;
            Ok(())
        };
        let outcome = run().map_err(|error| self.storage(operation, error));
        drop(guard);
        if let Err(error) = outcome {
            // What redb holds in memory is not known to be whole: it goes back to what is on disk.
            *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
            return Err(error);
        }
        let mut progress = self.progress();
        progress.spooled = spooled.unwrap_or(progress.spooled);
        if durable {
            (progress.durable, progress.unsynced) = (progress.spooled, 0);
        } else {
            progress.unsynced += changes.len().max(1);
        }
        Ok(())
    }

    fn database(&self) -> RwLockReadGuard<'_, Option<Database>> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn storage(&self, operation: &'static str, source: redb::Error) -> StateError {
        StateError::Storage { operation, path: self.path.clone(), source: Box::new(source) }
    }

    fn damaged(&self) -> StateError {
        StateError::Damaged { path: self.path.clone() }
    }

    fn closed(&self) -> StateError {
        StateError::Closed { path: self.path.clone() }
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("path", &self.path).field("progress", &*self.progress()).finish_non_exhaustive()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if self.database().is_some()
            && let Err(error) = self.flush()
        {
            tracing::warn!(%error, "the state was not flushed; it is replayed from the spool at the next start");
        }
    }
}

fn database(path: &Path, cache_bytes: usize) -> Result<Database, DatabaseError> {
    use std::os::unix::fs::OpenOptionsExt;
    // Made here so that nobody else can ever read it, and that a planted link is refused.
    fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)?;
    Builder::new().set_cache_size(cache_bytes).set_check_integrity_on_open(true).create(path)
}

/// Whether the file's contents are to blame, and not its disk or another process.
fn is_damage(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::UpgradeRequired(_) | DatabaseError::RepairAborted | DatabaseError::Storage(StorageError::Corrupted(_)) => true,
        DatabaseError::Storage(StorageError::Io(error)) => {
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}

fn fault(operation: &'static str, path: &Path) -> impl FnOnce(DatabaseError) -> StateError {
    let path = path.to_owned();
    move |error| StateError::Storage { operation, path, source: Box::new(error.into()) }
}

/// Places are kind bytes.
type Counts = [u64; KINDS];

const KINDS: usize = 64;

const _: () = assert!(ItemKind::ALL.len() < KINDS, "each kind has a place");

/// Agents of other versions keep fewer or more.
fn counts(row: &[u8]) -> Counts {
    let mut counts = [0; KINDS];
    for (count, bytes) in counts.iter_mut().zip(row.as_chunks::<8>().0) {
        *count = u64::from_le_bytes(*bytes);
    }
    counts
}

fn numbers<const N: usize>(row: &[u8]) -> Option<[u64; N]> {
    let (chunks, rest) = row.as_chunks::<8>();
    let chunks: &[[u8; 8]; N] = chunks.try_into().ok()?;
    rest.is_empty().then(|| chunks.map(u64::from_le_bytes))
}

fn bytes<const N: usize>(numbers: [u64; N]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}
