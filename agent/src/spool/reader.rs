//! The reading end. A reader keeps its place, so that a read in order costs no search; it holds no lock over a read.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;

use trueline_drift::{RecordBody, Sequence};
use trueline_proto::v1;

use super::format::{self, SEGMENT_HEADER};
use super::segment::{self, Segment};
use super::{Spool, SpoolError, locked};

/// Payload bytes that [`Records`] reads at a time.
const RECORDS_READ: usize = 256 * 1024;

/// The place of the frame that begins with `next`, or of the end of the segment.
pub struct Cursor {
    file: File,
    segment: Sequence,
    offset: u64,
    next: Sequence,
}

/// The segment that holds `sequence`, and the newest record.
fn find(spool: &Spool, sequence: Sequence) -> (Option<Segment>, Sequence) {
    let view = locked(&spool.view);
    let after = view.segments.partition_point(|segment| segment.first <= sequence);
    (after.checked_sub(1).map(|at| view.segments[at]), view.newest)
}

pub fn frames_after(
    spool: &Spool,
    cursor: &mut Option<Cursor>,
    sequence: Sequence,
    max_bytes: usize,
) -> Result<Vec<v1::Frame>, SpoolError> {
    let mut frames = Vec::new();
    let mut bytes = 0;
    let mut wanted = sequence.next();
    let folder = format::epoch_folder(&spool.directory, spool.epoch);
    loop {
        let (segment, newest) = find(spool, wanted);
        if wanted > newest {
            return Ok(frames);
        }
        let Some(segment) = segment else {
            return Err(SpoolError::Gone { asked: wanted, oldest: spool.oldest() });
        };
        let path = format::segment_path(&folder, segment.first);
        let mut place = match cursor.take() {
            Some(place) if place.segment == segment.first && place.next == wanted => place,
            _ => match format::open(&path, OpenOptions::new().read(true)) {
                Ok(file) => Cursor { file, segment: segment.first, offset: SEGMENT_HEADER as u64, next: segment.first },
                // Deleted since the look: the next look says so.
                Err(error) if error.kind() == io::ErrorKind::NotFound && spool.oldest() > segment.first => continue,
                Err(error) => return Err(SpoolError::io("open", &path)(error)),
            },
        };
        let before = wanted;
        while place.offset < segment.bytes {
            let frame = segment::read_frame(&place.file, place.offset, segment.bytes).map_err(SpoolError::io("read", &path))?;
            let Some(frame) = frame.filter(|frame| frame.first() == place.next) else { break };
            let last = frame.last();
            if last >= wanted {
                bytes += frame.frame.payload.len();
                if bytes > max_bytes && !frames.is_empty() {
                    *cursor = Some(place);
                    return Ok(frames);
                }
            }
            place.offset += frame.size();
            place.next = last.next();
            if last >= wanted {
                wanted = place.next;
                frames.push(frame.frame);
            }
        }
        if wanted == before {
            // The segment should hold this record. What was read before it is good, and the next call comes back here.
            return if frames.is_empty() { Err(SpoolError::Damaged { sequence: place.next, path }) } else { Ok(frames) };
        }
        *cursor = Some(place);
    }
}

/// See [`Spool::records_after`]. Ends after the first error.
pub struct Records<'a> {
    spool: &'a Spool,
    cursor: Option<Cursor>,
    next: Sequence,
    last: Sequence,
    ready: VecDeque<RecordBody>,
}

impl<'a> Records<'a> {
    pub(super) fn new(spool: &'a Spool, sequence: Sequence) -> Self {
        Self { spool, cursor: None, next: sequence.next(), last: spool.newest(), ready: VecDeque::new() }
    }

    fn fill(&mut self) -> Result<(), SpoolError> {
        let after = Sequence(self.next.0 - 1);
        for frame in frames_after(self.spool, &mut self.cursor, after, RECORDS_READ)? {
            // The first frame may begin with records that were not asked for.
            let known = if self.ready.is_empty() { self.next.0.saturating_sub(frame.first_sequence) as usize } else { 0 };
            self.ready.extend(trueline_proto::frame::decode(&frame)?.into_iter().skip(known));
        }
        Ok(())
    }
}

impl Iterator for Records<'_> {
    type Item = Result<(Sequence, RecordBody), SpoolError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next > self.last {
            return None;
        }
        if self.ready.is_empty()
            && let Err(error) = self.fill()
        {
            self.last = Sequence(0);
            return Some(Err(error));
        }
        let body = self.ready.pop_front()?;
        let sequence = self.next;
        self.next = sequence.next();
        Some(Ok((sequence, body)))
    }
}
