//! Opening: reads and verifies everything, cuts a torn end, and begins a new epoch where the old one cannot go on.
//! The rules are at the top of the module above.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tokio::sync::watch;
use trueline_drift::{Epoch, Sequence};
use trueline_proto::ChainLink;

use super::format::{self, Marker, Position, SEGMENT_HEADER, SegmentHeader, StoredFrame};
use super::segment::{self, Segment};
use super::writer::{Packed, Writer};
use super::{Spool, SpoolError, SpoolLimit, View};

/// What was found on opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    pub epoch: Epoch,
    /// newest + 1 when the spool holds nothing.
    pub oldest: Sequence,
    pub newest: Sequence,
    pub acknowledged: Sequence,
    /// Bytes of a torn end that were cut off. They had not been reported as appended.
    pub truncated_bytes: u64,
    /// Set when a new epoch was begun, because records were lost or `renumbered`.
    pub damaged: Option<Damage>,
    /// A new epoch was begun because the numbers did not fit the collector's ([`Spool::begin_anew_after`]): it lacks
    /// records that this host has no more, or has records that this host knows nothing of.
    pub renumbered: bool,
}

/// Records that are gone. The observer opens a coverage gap and sends its inventory again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The epoch that ended, whose numbers `lost` uses.
    pub epoch: Epoch,
    pub lost: Vec<Lost>,
    /// Records that were copied into the new epoch.
    pub saved: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    pub first: Sequence,
    /// Absent when nothing tells how far the loss goes.
    pub last: Option<Sequence>,
}

pub fn open(
    directory: &Path,
    limit: SpoolLimit,
    known: Option<(Epoch, Sequence)>,
    new_epoch: impl FnOnce() -> Epoch,
) -> Result<(Spool, Recovery), SpoolError> {
    format::make_folder(directory)?;
    let lock = lock(directory)?;
    let position = Position::read(directory)?;
    let marked = Marker::read(directory)?.map(|marker| marker.after);
    let found = epochs(directory)?;
    // Without a position the oldest epoch counts: a newer one is a copy that was not finished.
    let current = position.map(|position| position.epoch).or(found.first().copied());
    let begin = |after: Option<Epoch>| {
        let least = after.max(known.map(|(epoch, _)| epoch)).max(marked).map_or(Epoch(1), |epoch| Epoch(epoch.0.saturating_add(1)));
        new_epoch().max(least)
    };

    let Some(epoch) = current else {
        let epoch = begin(None);
        let end = copy(directory, epoch, limit, &[])?;
        Marker::remove(directory)?;
        let recovery = recovery(epoch, &end.segments, end.newest, Sequence(0), 0, None);
        return Ok((assemble(directory, epoch, limit, end, Sequence(0), lock)?, recovery));
    };
    remove_epochs(directory, found.iter().copied().filter(|other| *other != epoch))?;

    let folder = format::epoch_folder(directory, epoch);
    let acknowledged = position.map(|position| position.acknowledged);
    // A greater epoch counts already when the crash came before the marker went.
    let renumbered = marked.is_some_and(|after| after >= epoch);
    let mut survey = Survey::of(&folder, epoch, acknowledged)?;
    let known = known.filter(|(known, _)| *known == epoch).map(|(_, sequence)| sequence).max(acknowledged);
    if let Some(known) = known
        && known > survey.newest
    {
        survey.lose_until(known.next());
    }
    if !renumbered
        && !survey.broken
        && survey.lost.is_empty()
        && let Some(active) = survey.segments.last().copied()
    {
        let file = segment::open_for_append(&folder, active.first)?;
        let path = format::segment_path(&folder, active.first);
        file.set_len(active.bytes).and_then(|()| file.sync_all()).map_err(SpoolError::io("cut the torn end of", &path))?;
        format::sync_folder(&folder)?;
        let acknowledged = acknowledged.unwrap_or(Sequence(survey.oldest().0 - 1));
        let recovery = recovery(epoch, &survey.segments, survey.newest, acknowledged, survey.truncated, None);
        let end = End { segments: survey.segments, newest: survey.newest, link: survey.link, file };
        if position.is_none() {
            Position { epoch, acknowledged }.replace(directory)?;
        }
        Marker::remove(directory)?;
        return Ok((assemble(directory, epoch, limit, end, acknowledged, lock)?, recovery));
    }

    if !survey.broken && survey.lost.is_empty() && survey.segments.is_empty() && position.is_some() {
        // The epoch counts, and nothing of it is there.
        survey.broken = true;
        survey.lost.push(Lost { first: acknowledged.unwrap_or_default().next(), last: None });
    }
    let next = begin(Some(epoch));
    let wanted = acknowledged.unwrap_or_default();
    let readable: Vec<Place> = survey.frames.into_iter().filter(|place| place.last > wanted).collect();
    let end = copy(directory, next, limit, &readable)?;
    remove_epochs(directory, [epoch].into_iter())?;
    // Last: should anything before fail, the next opening does it again.
    Marker::remove(directory)?;
    let damage = (survey.broken || renumbered).then_some(Damage { epoch, lost: survey.lost, saved: end.newest.0 });
    let recovery = Recovery { renumbered, ..recovery(next, &end.segments, end.newest, Sequence(0), survey.truncated, damage) };
    Ok((assemble(directory, next, limit, end, Sequence(0), lock)?, recovery))
}

fn recovery(
    epoch: Epoch,
    segments: &[Segment],
    newest: Sequence,
    acknowledged: Sequence,
    truncated_bytes: u64,
    damaged: Option<Damage>,
) -> Recovery {
    let oldest = segments.first().map_or(newest.next(), |segment| segment.first);
    Recovery { epoch, oldest, newest, acknowledged, truncated_bytes, damaged, renumbered: false }
}

fn lock(directory: &Path) -> Result<File, SpoolError> {
    let path = directory.join("lock");
    let file = format::open(&path, OpenOptions::new().write(true).create(true).truncate(false)).map_err(SpoolError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SpoolError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(error)) => Err(SpoolError::io("lock", &path)(error)),
    }
}

/// Numbers in the names of a folder, ascending; other names are left alone.
fn names<T: Ord>(folder: &Path, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, SpoolError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(SpoolError::io("list", folder))? {
        let entry = entry.map_err(SpoolError::io("list", folder))?;
        found.extend(entry.file_name().to_str().and_then(&parse));
    }
    found.sort();
    Ok(found)
}

fn epochs(directory: &Path) -> Result<Vec<Epoch>, SpoolError> {
    names(directory, format::epoch_of)
}

fn remove_epochs(directory: &Path, epochs: impl Iterator<Item = Epoch>) -> Result<(), SpoolError> {
    let mut removed = false;
    for epoch in epochs {
        let folder = format::epoch_folder(directory, epoch);
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removal => removal.map(|()| removed = true).map_err(SpoolError::io("remove", &folder))?,
        }
    }
    if removed { format::sync_folder(directory) } else { Ok(()) }
}

/// Where a whole frame lies.
struct Place {
    path: PathBuf,
    offset: u64,
    last: Sequence,
}

/// What the files of an epoch hold.
struct Survey {
    segments: Vec<Segment>,
    newest: Sequence,
    link: ChainLink,
    lost: Vec<Lost>,
    /// The chain cannot go on; with or without records lost.
    broken: bool,
    truncated: u64,
    /// Every whole frame, in order; for the copy, should one be needed.
    frames: Vec<Place>,
}

impl Survey {
    fn oldest(&self) -> Sequence {
        self.segments.first().map_or(self.newest.next(), |segment| segment.first)
    }

    fn of(folder: &Path, epoch: Epoch, acknowledged: Option<Sequence>) -> Result<Self, SpoolError> {
        let mut survey = Self {
            segments: Vec::new(),
            newest: Sequence(0),
            link: ChainLink::START,
            lost: Vec::new(),
            broken: false,
            truncated: 0,
            frames: Vec::new(),
        };
        if !folder.exists() {
            return Ok(survey);
        }
        let firsts = names(folder, format::segment_of)?;
        if let Some(first) = firsts.first() {
            // Segments go only once acknowledged; where nothing tells what was, the oldest one's beginning is taken for it.
            let before = Sequence(first.0.saturating_sub(1));
            survey.newest = acknowledged.map_or(before, |acknowledged| before.min(acknowledged));
        }
        for (at, first) in firsts.iter().enumerate() {
            survey.read(folder, epoch, *first, at == 0, at + 1 == firsts.len())?;
        }
        Ok(survey)
    }

    fn lose_until(&mut self, next: Sequence) {
        let first = self.newest.next();
        if next > first {
            self.lost.push(Lost { first, last: Some(Sequence(next.0 - 1)) });
            self.newest = Sequence(next.0 - 1);
            self.broken = true;
        }
    }

    /// Adds one segment. `oldest`: the chain before it is gone, and its header is what says where it goes on.
    fn read(&mut self, folder: &Path, epoch: Epoch, first: Sequence, oldest: bool, last: bool) -> Result<(), SpoolError> {
        let path = format::segment_path(folder, first);
        let fault = |operation| SpoolError::io(operation, &path);
        let file = format::open(&path, OpenOptions::new().read(true)).map_err(fault("open"))?;
        let end = file.metadata().map_err(fault("read"))?.len();
        let header = segment::read_header(&file).map_err(fault("read"))?.filter(|header| header.epoch == epoch && header.first == first);
        let mut offset = SEGMENT_HEADER as u64;
        match header {
            Some(header) => {
                self.lose_until(first);
                if oldest {
                    self.link = header.link;
                }
                if first < self.newest.next() && end <= offset {
                    // Made by an attempt that failed; holds nothing.
                    return segment::remove(folder, first);
                }
                // Otherwise the frames before are not those that this segment was written after.
                self.broken |= header.link != self.link;
                self.link = header.link;
            }
            None => {
                if last && segment::find_frame(&file, 0, end, |_| true).map_err(fault("read"))?.is_none() {
                    // A segment that was being made: frames follow a header only once it is durable.
                    self.truncated += end;
                    return segment::remove(folder, first);
                }
                // Nothing vouches for where the chain goes on, though every frame may be whole.
                self.lose_until(first);
                self.broken = true;
                offset = 0;
            }
        }
        let torn_end_possible = last && offset > 0;
        while offset < end {
            let expected = self.newest.next();
            let frame = segment::read_frame(&file, offset, end).map_err(fault("read"))?.filter(|frame| {
                let chained = self.link.next(epoch, frame.first(), frame.frame.count, &frame.frame.payload);
                frame.first() == expected && (self.broken || frame.frame.link[..] == chained.0)
            });
            if let Some(frame) = frame {
                offset = self.take(&path, offset, &frame);
                continue;
            }
            let later = segment::find_frame(&file, offset + 1, end, |frame| {
                frame.first() >= expected && (!torn_end_possible || frame.append > expected)
            });
            match later.map_err(fault("read"))? {
                Some((at, frame)) => {
                    self.lose_until(frame.first());
                    self.broken = true;
                    offset = self.take(&path, at, &frame);
                }
                // The next segment tells how much is lost, or this is the torn end.
                None => {
                    self.truncated += if last { end - offset } else { 0 };
                    break;
                }
            }
        }
        self.segments.push(Segment { first, bytes: offset });
        Ok(())
    }

    fn take(&mut self, path: &Path, offset: u64, frame: &StoredFrame) -> u64 {
        self.newest = frame.last();
        self.link = ChainLink::from_bytes(&frame.frame.link).unwrap_or(ChainLink::START);
        self.frames.push(Place { path: path.to_owned(), offset, last: frame.last() });
        offset + frame.size()
    }
}

/// The end of an epoch that can be written on.
struct End {
    segments: Vec<Segment>,
    newest: Sequence,
    link: ChainLink,
    file: File,
}

/// Payload bytes that are copied with one sync.
const COPY_BATCH: usize = 1024 * 1024;

#[derive(Default)]
struct Batch {
    frames: Vec<Packed>,
    bytes: usize,
}

/// Makes an epoch that holds the records of `frames` under new numbers. It counts once the position names it.
fn copy(directory: &Path, epoch: Epoch, limit: SpoolLimit, frames: &[Place]) -> Result<End, SpoolError> {
    let folder = format::epoch_folder(directory, epoch);
    remove_epochs(directory, [epoch].into_iter())?;
    format::make_folder(&folder)?;
    format::sync_folder(directory)?;
    let header = SegmentHeader { epoch, first: Sequence(1), link: ChainLink::START };
    let file = segment::create(&folder, &header)?;
    let active = Segment { first: Sequence(1), bytes: SEGMENT_HEADER as u64 };
    let mut segments = vec![active];
    let mut writer = Writer::new(folder.clone(), epoch, limit.segment_bytes, file, active, Sequence(0), ChainLink::START)?;
    let mut newest = Sequence(0);
    let mut batch = Batch::default();
    for (at, place) in frames.iter().enumerate() {
        let source = format::open(&place.path, OpenOptions::new().read(true)).map_err(SpoolError::io("open", &place.path))?;
        let end = source.metadata().map_err(SpoolError::io("read", &place.path))?.len();
        let damaged = || SpoolError::Damaged { sequence: place.last, path: place.path.clone() };
        let stored = segment::read_frame(&source, place.offset, end).map_err(SpoolError::io("read", &place.path))?.ok_or_else(damaged)?;
        batch.bytes += stored.frame.payload.len();
        batch.frames.push(Packed { count: stored.frame.count, payload: stored.frame.payload });
        if batch.bytes < COPY_BATCH && at + 1 < frames.len() {
            continue;
        }
        let written = writer.write(std::mem::take(&mut batch).frames)?;
        newest = written.newest;
        if let Some(segment) = segments.last_mut() {
            segment.bytes = written.first_bytes;
        }
        segments.extend(written.created);
    }
    Position { epoch, acknowledged: Sequence(0) }.replace(directory)?;
    let (file, link) = writer.finish();
    Ok(End { segments, newest, link, file })
}

fn assemble(directory: &Path, epoch: Epoch, limit: SpoolLimit, end: End, acknowledged: Sequence, lock: File) -> Result<Spool, SpoolError> {
    let active = end.segments.last().copied().expect("an open spool has a segment");
    let folder = format::epoch_folder(directory, epoch);
    let writer = Writer::new(folder, epoch, limit.segment_bytes, end.file, active, end.newest, end.link)?;
    Ok(Spool {
        directory: directory.to_owned(),
        epoch,
        limit,
        writer: Mutex::new(writer),
        position: Mutex::new(()),
        view: Mutex::new(View { segments: end.segments, newest: end.newest, acknowledged, applied: Sequence(0), persisted: acknowledged }),
        cursor: Mutex::new(None),
        newest: watch::Sender::new(end.newest),
        _lock: lock,
    })
}
