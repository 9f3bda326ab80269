//! The writing end: encodes records into frames, writes and syncs them, and takes back what failed half way.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use prost::Message;
use prost::bytes::Bytes;
use trueline_drift::{Epoch, RecordBody, Sequence};
use trueline_proto::frame::{FRAME_LIMIT, FrameEncoder, RECORDS_LIMIT};
use trueline_proto::{ChainLink, v1};

use super::format::{FRAME_HEADER, SEGMENT_HEADER, SegmentHeader, StoredFrame, segment_path};
use super::segment::{self, Segment};
use super::{AppendError, SpoolError};

/// Plain bytes in a frame of several records: what the link sends stays small, and so does memory.
const FRAME_TARGET: usize = 256 * 1024;
/// What one record adds to its frame besides its own bytes, at most.
const RECORD_OVERHEAD: usize = 8;
const RECORD_LIMIT: usize = FRAME_LIMIT - RECORD_OVERHEAD;

/// A compressed run of records that has no number yet.
pub struct Packed {
    pub count: u32,
    pub payload: Bytes,
}

/// Where the spool ended before an append.
#[derive(Debug, Clone)]
struct Mark {
    active: Segment,
    next: Sequence,
    link: ChainLink,
    created: Vec<Sequence>,
}

pub struct Written {
    pub newest: Sequence,
    /// Bytes now in the segment that was the newest before.
    pub first_bytes: u64,
    pub created: Vec<Segment>,
}

pub struct Writer {
    folder: PathBuf,
    epoch: Epoch,
    segment_bytes: u64,
    encoder: FrameEncoder,
    file: File,
    active: Segment,
    next: Sequence,
    link: ChainLink,
    /// Set while an append is under way: what to go back to when it does not end well.
    unfinished: Option<Mark>,
}

impl Writer {
    pub fn new(
        folder: PathBuf,
        epoch: Epoch,
        segment_bytes: u64,
        file: File,
        active: Segment,
        newest: Sequence,
        link: ChainLink,
    ) -> Result<Self, SpoolError> {
        let encoder = FrameEncoder::new().map_err(SpoolError::io("compress for", &folder))?;
        Ok(Self { folder, epoch, segment_bytes, encoder, file, active, next: newest.next(), link, unfinished: None })
    }

    pub fn encode(&mut self, records: Vec<RecordBody>) -> Result<Vec<Packed>, AppendError> {
        let mut frames = Vec::new();
        let mut run = v1::Records::default();
        let mut plain = 0;
        for (index, body) in records.into_iter().enumerate() {
            let record = v1::Record::from(body);
            let bytes = record.encoded_len();
            if bytes > RECORD_LIMIT {
                return Err(AppendError::TooLarge { index, bytes, limit: RECORD_LIMIT });
            }
            if plain + bytes + RECORD_OVERHEAD > FRAME_TARGET || run.records.len() == RECORDS_LIMIT {
                self.pack(&mut run, &mut frames)?;
                plain = 0;
            }
            plain += bytes + RECORD_OVERHEAD;
            run.records.push(record);
        }
        self.pack(&mut run, &mut frames)?;
        if frames.is_empty() { Err(AppendError::Empty) } else { Ok(frames) }
    }

    fn pack(&mut self, run: &mut v1::Records, frames: &mut Vec<Packed>) -> Result<(), AppendError> {
        if run.records.is_empty() {
            return Ok(());
        }
        let payload = self.encoder.encode(run).map_err(SpoolError::io("compress for", &self.folder))?;
        frames.push(Packed { count: run.records.len() as u32, payload: payload.into() });
        run.records.clear();
        Ok(())
    }

    /// Bytes that these frames add to the spool at most.
    pub fn size_of(&self, frames: &[Packed]) -> u64 {
        frames.iter().map(|frame| (FRAME_HEADER + frame.payload.len() + SEGMENT_HEADER) as u64).sum()
    }

    /// Writes and syncs; on failure goes back to before.
    pub fn write(&mut self, frames: Vec<Packed>) -> Result<Written, SpoolError> {
        self.unfinished = Some(Mark { active: self.active, next: self.next, link: self.link, created: Vec::new() });
        match self.write_frames(frames) {
            Ok(written) => {
                self.unfinished = None;
                Ok(written)
            }
            Err(error) => {
                if let Err(again) = self.repair() {
                    tracing::warn!(error = %again, "the spool could not be cut back; it will be before the next append");
                }
                Err(error)
            }
        }
    }

    fn write_frames(&mut self, frames: Vec<Packed>) -> Result<Written, SpoolError> {
        let append = self.next;
        let mut first_bytes = None;
        let mut closed = Vec::new();
        for Packed { count, payload } in frames {
            let size = (FRAME_HEADER + payload.len()) as u64;
            if self.active.bytes + size > self.segment_bytes && self.active.first < self.next {
                let full = self.active;
                self.rotate()?;
                if first_bytes.is_none() { first_bytes = Some(full.bytes) } else { closed.push(full) }
            }
            let link = self.link.next(self.epoch, self.next, count, &payload);
            let frame = v1::Frame { first_sequence: self.next.0, count, payload, link: link.0.to_vec().into() };
            let bytes = StoredFrame { frame, append }.encode();
            self.file.write_all_at(&bytes, self.active.bytes).map_err(|error| self.fault("write", error))?;
            self.active.bytes += size;
            self.next = self.next.plus(u64::from(count));
            self.link = link;
        }
        self.file.sync_data().map_err(|error| self.fault("sync", error))?;
        let newest = Sequence(self.next.0 - 1);
        Ok(match first_bytes {
            None => Written { newest, first_bytes: self.active.bytes, created: Vec::new() },
            Some(first_bytes) => {
                closed.push(self.active);
                Written { newest, first_bytes, created: closed }
            }
        })
    }

    /// Closes the newest segment, durably, and begins the next.
    pub fn rotate(&mut self) -> Result<Segment, SpoolError> {
        self.file.sync_data().map_err(|error| self.fault("sync", error))?;
        let header = SegmentHeader { epoch: self.epoch, first: self.next, link: self.link };
        if let Some(mark) = &mut self.unfinished {
            mark.created.push(self.next);
        }
        self.file = segment::create(&self.folder, &header)?;
        self.active = Segment { first: self.next, bytes: SEGMENT_HEADER as u64 };
        Ok(self.active)
    }

    /// Takes back what an append left that did not end well. Nothing to do otherwise.
    pub fn repair(&mut self) -> Result<(), SpoolError> {
        let Some(mark) = self.unfinished.clone() else { return Ok(()) };
        for first in &mark.created {
            segment::remove(&self.folder, *first)?;
        }
        if self.active.first != mark.active.first {
            self.file = segment::open_for_append(&self.folder, mark.active.first)?;
        }
        self.active = mark.active;
        (self.next, self.link) = (mark.next, mark.link);
        self.file.set_len(mark.active.bytes).map_err(|error| self.fault("cut back", error))?;
        self.unfinished = None;
        Ok(())
    }

    /// The newest segment and the last link.
    pub fn finish(self) -> (File, ChainLink) {
        (self.file, self.link)
    }

    fn fault(&self, operation: &'static str, source: std::io::Error) -> SpoolError {
        SpoolError::Io { operation, path: segment_path(&self.folder, self.active.first), source }
    }
}
