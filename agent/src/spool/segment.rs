//! One segment file: making it, reading frames from it, removing it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use trueline_drift::Sequence;

use super::SpoolError;
use super::format::{self, FRAME_HEADER, SEGMENT_HEADER, SegmentHeader, StoredFrame, payload_length};

/// A segment that readers may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub first: Sequence,
    /// Length of the file up to the last durable frame.
    pub bytes: u64,
}

/// Makes a segment with its header; durable in name and header. A leftover file of that name holds nothing that was
/// ever visible and is overwritten.
pub fn create(folder: &Path, header: &SegmentHeader) -> Result<File, SpoolError> {
    let path = format::segment_path(folder, header.first);
    let make = || {
        let file = format::open(&path, OpenOptions::new().read(true).write(true).create(true).truncate(true))?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync_all()?;
        File::open(folder)?.sync_all()?;
        Ok(file)
    };
    make().map_err(|error| {
        // What is half made must not stand in the way of the next attempt; the error is what matters.
        let _ = fs::remove_file(&path);
        SpoolError::io("make", &path)(error)
    })
}

pub fn open_for_append(folder: &Path, first: Sequence) -> Result<File, SpoolError> {
    let path = format::segment_path(folder, first);
    format::open(&path, OpenOptions::new().read(true).write(true)).map_err(SpoolError::io("open", &path))
}

pub fn remove(folder: &Path, first: Sequence) -> Result<(), SpoolError> {
    let path = format::segment_path(folder, first);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(SpoolError::io("remove", &path)(error)),
        _ => Ok(()),
    }
}

pub fn read_header(file: &File) -> io::Result<Option<SegmentHeader>> {
    let mut bytes = [0; SEGMENT_HEADER];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(SegmentHeader::decode(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// The whole frame at `offset` of a file that ends at `end`; `None` when there is none.
pub fn read_frame(file: &File, offset: u64, end: u64) -> io::Result<Option<StoredFrame>> {
    if end.saturating_sub(offset) <= FRAME_HEADER as u64 {
        return Ok(None);
    }
    let mut bytes = vec![0; FRAME_HEADER];
    file.read_exact_at(&mut bytes, offset)?;
    let Some(length) = payload_length(&bytes) else { return Ok(None) };
    let size = FRAME_HEADER + length;
    if size as u64 > end - offset {
        return Ok(None);
    }
    bytes.resize(size, 0);
    file.read_exact_at(&mut bytes[FRAME_HEADER..], offset + FRAME_HEADER as u64)?;
    Ok(StoredFrame::decode(bytes))
}

/// The next whole frame after a broken one, and its offset. Looks at every offset, in windows.
pub fn find_frame(file: &File, mut offset: u64, end: u64, accept: impl Fn(&StoredFrame) -> bool) -> io::Result<Option<(u64, StoredFrame)>> {
    const WINDOW: usize = 64 * 1024;
    let mut window = vec![0; WINDOW + FRAME_HEADER];
    while end.saturating_sub(offset) > FRAME_HEADER as u64 {
        let length = window.len().min((end - offset) as usize);
        file.read_exact_at(&mut window[..length], offset)?;
        let starts = length - FRAME_HEADER;
        for at in 0..starts {
            if payload_length(&window[at..length]).is_some()
                && let Some(frame) = read_frame(file, offset + at as u64, end)?
                && accept(&frame)
            {
                return Ok(Some((offset + at as u64, frame)));
            }
        }
        offset += starts as u64;
    }
    Ok(None)
}
