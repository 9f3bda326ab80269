//! The spool: records on disk between the observer that writes them and the link that sends them.
//!
//! # Invariants
//!
//! - Records are numbered from 1 without holes within an epoch. Every frame that is visible to a reader is on disk
//!   (`fdatasync`), whole, and its link follows from the frame before it.
//! - [`Spool::append`] is all or nothing: after an error the numbering and the files are as before.
//! - The files never hold more than the limit. At the limit nothing is dropped: the append is refused, and the
//!   observer holds its items dirty, and says so once there is room.
//! - A segment is deleted only when every record in it is acknowledged by the collector *and* durably applied to the
//!   state ([`Spool::mark_applied`]): the spool is the state's write-ahead log.
//! - Nothing is skipped in silence. Damage is reported with the sequences it took.
//!
//! # Format (integers little endian)
//!
//! ```text
//! DIR/position                         replaced by write, fsync, rename, fsync of DIR
//!     magic 8, version u32, epoch u64, acknowledged u64, crc32 of what precedes
//! DIR/epoch-EEEEEEEEEEEEEEEEEEEE/NNNNNNNNNNNNNNNNNNNN.seg      named by its first sequence
//!     header: magic 8, version u32, epoch u64, first sequence u64, link before it 32, crc32 of what precedes
//!     frame, repeated: length of payload u32, crc32 of the rest of the frame u32, first sequence u64, count u32,
//!                      first sequence of its append u64, link 32, payload (zstd of `Records`, sent as it lies)
//! ```
//!
//! # Operation
//!
//! **Append.** Frames are written at the end of the newest segment, then one `fdatasync`. A segment is synced before its
//! successor is made, and the folder after a segment was made, so only the newest segment can have a torn end.
//!
//! **Open.** All frames are read and verified. A broken frame that no later append follows was never acknowledged to the
//! observer: a torn end, cut off. A broken frame with a later append behind it, a missing segment, or numbers that
//! are known elsewhere and absent here are damage: the chain cannot go on over the hole, and to use the lost numbers again
//! would make the collector drop new records as old ones. So a **new epoch** begins: the readable records that were not
//! acknowledged are copied into it in order, with new numbers and a new chain, and the lost range is reported, for the
//! observer to open a coverage gap and to send its inventory again. A record whose acknowledgement had not reached the position
//! file may then arrive twice, under both epochs. The copy lies in a folder of its own; the position file, which names the
//! epoch, is the moment it counts; the old folder goes last.
//!
//! **Begin anew.** Numbers that no longer fit the collector's (its database or this host went back to an older state) lead
//! to the same copy into a new epoch. A file `anew` (magic 8, version u32, epoch u64, crc32) asks the next opening for it,
//! and goes once the new epoch counts.
//!
//! **Acknowledge.** The position is written before segments are deleted. It may lag: to lose it means to send again.
//! When there is no space for it, segments go first; a crash in between shows as damage, never as silence.
//!
//! Calls block on the disk: the link makes them from `spawn_blocking`.

mod format;
mod reader;
mod recovery;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use trueline_drift::{Epoch, RecordBody, Sequence};
use trueline_proto::FrameError;

pub use reader::Records;
pub use recovery::{Damage, Lost, Recovery};

use format::{Marker, Position};
use reader::Cursor;
use segment::Segment;
use writer::Writer;

/// Acknowledged records after which the position is written although no segment can go.
const POSITION_EVERY: u64 = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolLimit {
    /// Most bytes of all segments together.
    pub bytes: u64,
    /// Size at which a segment is closed and the next begun.
    pub segment_bytes: u64,
}

impl Default for SpoolLimit {
    fn default() -> Self {
        Self { bytes: 256 * 1024 * 1024, segment_bytes: 4 * 1024 * 1024 }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("the spool {} is in use by another process: stop the other agent", path.display())]
    InUse { path: PathBuf },
    #[error("the spool's record {sequence} cannot be read back from {}: restart the agent, which saves what is readable", path.display())]
    Damaged { sequence: Sequence, path: PathBuf },
    #[error("record {asked} has left the spool; the oldest is {oldest}")]
    Gone { asked: Sequence, oldest: Sequence },
    #[error(transparent)]
    Frame(#[from] FrameError),
}

impl SpoolError {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }
}

/// Why nothing was appended. The spool is as it was before the call.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("the spool is full: {bytes} bytes of {limit}; changes are held until the collector takes some")]
    Full { bytes: u64, limit: u64 },
    #[error("no space left for the spool {}: free space on its disk", path.display())]
    NoSpace { path: PathBuf },
    #[error("record {index} of the append needs {bytes} bytes; {limit} is the most one record may have")]
    TooLarge { index: usize, bytes: usize, limit: usize },
    #[error("an append needs at least one record")]
    Empty,
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
}

impl From<SpoolError> for AppendError {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::Io { path, source, .. } if is_no_space(&source) => Self::NoSpace { path },
            SpoolError::Io { operation, path, source } => Self::Io { operation, path, source },
            other => Self::Io { operation: "use", path: PathBuf::new(), source: io::Error::other(other) },
        }
    }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

/// Lets pass what failed for want of space and is tried again at the next acknowledgement.
fn later_without_space(result: Result<(), SpoolError>) -> Result<(), SpoolError> {
    match result {
        Err(SpoolError::Io { source, path, .. }) if is_no_space(&source) => {
            tracing::debug!(path = %path.display(), "no space yet for the spool's own bookkeeping");
            Ok(())
        }
        result => result,
    }
}

/// What readers may see, and the bookkeeping of acknowledgements. Locked for moments only, never over I/O.
struct View {
    /// Oldest first; the last is the one appends go to. Never empty.
    segments: Vec<Segment>,
    newest: Sequence,
    acknowledged: Sequence,
    /// The state has this and all before it on disk.
    applied: Sequence,
    /// What the position file says.
    persisted: Sequence,
}

impl View {
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    fn releasable(&self) -> Sequence {
        self.acknowledged.min(self.applied)
    }
}

/// Shared between one writer and any readers. Lock order: writer, position, view.
pub struct Spool {
    directory: PathBuf,
    epoch: Epoch,
    limit: SpoolLimit,
    writer: Mutex<Writer>,
    /// Held while the position file is replaced.
    position: Mutex<()>,
    view: Mutex<View>,
    /// Where the link's last read ended.
    cursor: Mutex<Option<Cursor>>,
    newest: watch::Sender<Sequence>,
    /// Keeps a second process out.
    _lock: File,
}

/// The guarded values stay consistent when a holder panics: the writer repairs what it left, the view changes in one step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Spool {
    /// Opens or makes the spool in `directory`.
    ///
    /// `known` is the furthest record that the state or the collector has seen: when the spool does not reach as far,
    /// its disk lost records, and a new epoch begins. `new_epoch` is asked when an epoch begins; a number that is not greater than
    /// the epoch before is raised above it.
    pub fn open(
        directory: &Path,
        limit: SpoolLimit,
        known: Option<(Epoch, Sequence)>,
        new_epoch: impl FnOnce() -> Epoch,
    ) -> Result<(Self, Recovery), SpoolError> {
        recovery::open(directory, limit, known, new_epoch)
    }

    /// Numbers, writes and syncs the records; the last one's sequence. They are visible to readers on return.
    pub fn append(&self, records: Vec<RecordBody>) -> Result<Sequence, AppendError> {
        let mut writer = locked(&self.writer);
        let frames = writer.encode(records)?;
        writer.repair()?;
        let room = self.limit.bytes;
        let needed = writer.size_of(&frames);
        if self.bytes() + needed > room {
            // The newest segment goes only here and in `acknowledge`: it may be all that fills the spool.
            self.rotate_released(&mut writer)?;
            let bytes = self.bytes();
            if bytes + needed > room {
                return Err(AppendError::Full { bytes, limit: self.limit.bytes });
            }
        }
        let written = writer.write(frames)?;
        let newest = written.newest;
        {
            let mut view = locked(&self.view);
            view.newest = newest;
            if let Some(active) = view.segments.last_mut() {
                active.bytes = written.first_bytes;
            }
            view.segments.extend(written.created);
        }
        self.newest.send_replace(newest);
        Ok(newest)
    }

    /// Frames that hold records after `sequence`, in order, at least one when there is one, and then as many as stay
    /// within `max_bytes` of payload. The first may begin at or before `sequence`.
    pub fn frames_after(&self, sequence: Sequence, max_bytes: usize) -> Result<Vec<trueline_proto::v1::Frame>, SpoolError> {
        let mut cursor = locked(&self.cursor);
        reader::frames_after(self, &mut cursor, sequence, max_bytes)
    }

    /// Every record after `sequence` that was durable at the call, for the state to catch up with.
    pub fn records_after(&self, sequence: Sequence) -> Records<'_> {
        Records::new(self, sequence)
    }

    /// The collector has this record and all before it.
    pub fn acknowledge(&self, sequence: Sequence) -> Result<(), SpoolError> {
        {
            let mut view = locked(&self.view);
            view.acknowledged = view.acknowledged.max(sequence.min(view.newest));
        }
        self.release()
    }

    /// The state has this record and all before it on disk. Until this is first said nothing is deleted.
    pub fn mark_applied(&self, sequence: Sequence) -> Result<(), SpoolError> {
        {
            let mut view = locked(&self.view);
            view.applied = view.applied.max(sequence.min(view.newest));
        }
        self.release()
    }

    /// Writes the acknowledged position now, as at the agent's end.
    pub fn persist_position(&self) -> Result<(), SpoolError> {
        let _replacing = locked(&self.position);
        let acknowledged = {
            let view = locked(&self.view);
            if view.persisted == view.acknowledged {
                return Ok(());
            }
            view.acknowledged
        };
        Position { epoch: self.epoch, acknowledged }.replace(&self.directory)?;
        locked(&self.view).persisted = acknowledged;
        Ok(())
    }

    /// Asks the next opening to number what is not acknowledged anew, under an epoch greater than `epoch` and this one.
    /// Durable on return; until the spool is opened again it goes on as before.
    pub fn begin_anew_after(&self, epoch: Epoch) -> Result<(), SpoolError> {
        let _replacing = locked(&self.position);
        Marker { after: epoch.max(self.epoch) }.replace(&self.directory)
    }

    fn release(&self) -> Result<(), SpoolError> {
        // First, for what follows needs space that this may be all there is to give.
        self.delete_released()?;
        let (rotate, persist) = {
            let view = locked(&self.view);
            let active = view.segments.last().map_or(0, |segment| segment.bytes);
            let behind = view.segments.first().is_some_and(|segment| segment.first > view.persisted.next());
            (
                view.releasable() == view.newest && active > self.limit.segment_bytes / 2,
                behind || view.acknowledged.0 - view.persisted.0 >= POSITION_EVERY,
            )
        };
        if persist {
            later_without_space(self.persist_position())?;
        }
        if rotate && let Ok(mut writer) = self.writer.try_lock() {
            // A writer at work rotates by itself when it needs the room.
            writer.repair()?;
            later_without_space(self.rotate_released(&mut writer))?;
        }
        Ok(())
    }

    /// Begins a new segment when the newest holds nothing that is still needed, and deletes what can go.
    fn rotate_released(&self, writer: &mut Writer) -> Result<(), SpoolError> {
        self.delete_released()?;
        let idle = {
            let view = locked(&self.view);
            view.releasable() == view.newest && view.segments.last().is_some_and(|segment| segment.first <= view.newest)
        };
        if idle {
            let created = writer.rotate()?;
            locked(&self.view).segments.push(created);
            self.delete_released()?;
        }
        Ok(())
    }

    fn delete_released(&self) -> Result<(), SpoolError> {
        let releasable = |view: &View| {
            // A segment ends where its successor begins; the newest never goes.
            view.segments.windows(2).take_while(|pair| pair[1].first <= view.releasable().next()).count()
        };
        let (count, behind) = {
            let view = locked(&self.view);
            let count = releasable(&view);
            (count, count > 0 && view.segments[count].first > view.persisted.next())
        };
        if count == 0 {
            return Ok(());
        }
        if behind {
            // Without space the segments go first, and the next `release` writes the position.
            later_without_space(self.persist_position())?;
        }
        let gone: Vec<Segment> = {
            let mut view = locked(&self.view);
            let count = releasable(&view);
            view.segments.drain(..count).collect()
        };
        let folder = format::epoch_folder(&self.directory, self.epoch);
        for segment in gone {
            segment::remove(&folder, segment.first)?;
        }
        Ok(())
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The newest durable record; 0 before the first.
    pub fn newest(&self) -> Sequence {
        locked(&self.view).newest
    }

    /// The oldest record that is held; newest + 1 when none is.
    pub fn oldest(&self) -> Sequence {
        locked(&self.view).segments.first().map_or(Sequence(1), |segment| segment.first)
    }

    pub fn acknowledged(&self) -> Sequence {
        locked(&self.view).acknowledged
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        locked(&self.view).bytes()
    }

    pub fn limit(&self) -> SpoolLimit {
        self.limit
    }

    /// Follows the newest durable record.
    pub fn subscribe(&self) -> watch::Receiver<Sequence> {
        self.newest.subscribe()
    }
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("directory", &self.directory).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = self.persist_position() {
            tracing::warn!(%error, "the spool's position was not written; acknowledged records will be sent again");
        }
    }
}
