//! The bytes of the spool's files: segment header, frame, position, marker. See the module above for the layout.
//!
//! Reading takes nothing for granted: a length is checked before anything is allocated for it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use prost::bytes::Bytes;
use trueline_drift::{Epoch, Sequence};
use trueline_proto::frame::{FRAME_LIMIT, RECORDS_LIMIT};
use trueline_proto::{ChainLink, v1};

use super::SpoolError;

const VERSION: u32 = 1;
const SEGMENT_MAGIC: &[u8; 8] = b"TLSPOOL\0";
const POSITION_MAGIC: &[u8; 8] = b"TLSPPOS\0";
const POSITION_BYTES: usize = 32;
const MARKER_MAGIC: &[u8; 8] = b"TLSPNEW\0";
const MARKER_BYTES: usize = 24;

pub const SEGMENT_HEADER: usize = 64;
pub const FRAME_HEADER: usize = 60;
/// Numbers that records may have. Others are damage: they leave no room to count on.
const SEQUENCES: std::ops::Range<u64> = 1..u64::MAX / 2;
/// zstd may grow what cannot be compressed by 1/256 and a little.
const PAYLOAD_LIMIT: usize = FRAME_LIMIT + FRAME_LIMIT / 128;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    pub epoch: Epoch,
    pub first: Sequence,
    /// Of the frame before the segment's first.
    pub link: ChainLink,
}

impl SegmentHeader {
    pub fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..20].copy_from_slice(&self.epoch.0.to_le_bytes());
        bytes[20..28].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[28..60].copy_from_slice(&self.link.0);
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..SEGMENT_HEADER)?;
        let whole = &bytes[..8] == SEGMENT_MAGIC && u32_at(bytes, 8) == VERSION && u32_at(bytes, 60) == crc32fast::hash(&bytes[..60]);
        if !whole || !SEQUENCES.contains(&u64_at(bytes, 20)) {
            return None;
        }
        Some(Self { epoch: Epoch(u64_at(bytes, 12)), first: Sequence(u64_at(bytes, 20)), link: ChainLink::from_bytes(&bytes[28..60])? })
    }
}

/// A frame as it lies on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredFrame {
    pub frame: v1::Frame,
    /// First sequence of the append that wrote it.
    pub append: Sequence,
}

impl StoredFrame {
    pub fn first(&self) -> Sequence {
        Sequence(self.frame.first_sequence)
    }

    pub fn last(&self) -> Sequence {
        Sequence(self.frame.first_sequence + u64::from(self.frame.count) - 1)
    }

    /// Bytes on disk.
    pub fn size(&self) -> u64 {
        (FRAME_HEADER + self.frame.payload.len()) as u64
    }

    pub fn encode(&self) -> Vec<u8> {
        let payload = &self.frame.payload;
        let mut bytes = Vec::with_capacity(FRAME_HEADER + payload.len());
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.frame.first_sequence.to_le_bytes());
        bytes.extend_from_slice(&self.frame.count.to_le_bytes());
        bytes.extend_from_slice(&self.append.0.to_le_bytes());
        bytes.extend_from_slice(&self.frame.link);
        bytes.extend_from_slice(payload);
        let crc = frame_crc(&bytes);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The frame that `bytes` are; `None` when it is not whole.
    pub fn decode(bytes: Vec<u8>) -> Option<Self> {
        let bytes = Bytes::from(bytes);
        let size = FRAME_HEADER + payload_length(&bytes)?;
        if bytes.len() != size || u32_at(&bytes, 4) != frame_crc(&bytes) {
            return None;
        }
        let frame = v1::Frame {
            first_sequence: u64_at(&bytes, 8),
            count: u32_at(&bytes, 16),
            payload: bytes.slice(FRAME_HEADER..),
            link: bytes.slice(28..FRAME_HEADER),
        };
        Some(Self { frame, append: Sequence(u64_at(&bytes, 20)) })
    }
}

fn frame_crc(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..4]);
    hasher.update(&bytes[8..]);
    hasher.finalize()
}

/// The length of the payload of a frame whose header is plausible. Cheap: recovery asks it of every offset.
pub fn payload_length(header: &[u8]) -> Option<usize> {
    let header = header.get(..FRAME_HEADER)?;
    let length = u32_at(header, 0) as usize;
    let (first, count, append) = (u64_at(header, 8), u32_at(header, 16), u64_at(header, 20));
    let plausible = (1..=PAYLOAD_LIMIT).contains(&length)
        && (1..=RECORDS_LIMIT as u32).contains(&count)
        && append >= 1
        && append <= first
        && SEQUENCES.contains(&first);
    plausible.then_some(length)
}

/// The acknowledged position: which epoch counts, and up to where it has been taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub epoch: Epoch,
    pub acknowledged: Sequence,
}

impl Position {
    /// `None` when there is no file or it is not whole.
    pub fn read(directory: &Path) -> Result<Option<Self>, SpoolError> {
        let Some(bytes) = read_small(directory, "position", POSITION_BYTES)? else { return Ok(None) };
        if !is_whole(&bytes, POSITION_MAGIC, POSITION_BYTES) || u64_at(&bytes, 20) >= SEQUENCES.end {
            let path = directory.join("position");
            tracing::warn!(path = %path.display(), "the spool's position is damaged; acknowledged records will be sent again");
            return Ok(None);
        }
        Ok(Some(Self { epoch: Epoch(u64_at(&bytes, 12)), acknowledged: Sequence(u64_at(&bytes, 20)) }))
    }

    pub fn replace(&self, directory: &Path) -> Result<(), SpoolError> {
        let mut fields = [0; 16];
        fields[..8].copy_from_slice(&self.epoch.0.to_le_bytes());
        fields[8..].copy_from_slice(&self.acknowledged.0.to_le_bytes());
        replace_small(directory, "position", &sealed(POSITION_MAGIC, &fields))
    }
}

/// Names the epoch after which the spool is to be numbered anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker {
    pub after: Epoch,
}

impl Marker {
    /// `None` when there is none or it is not whole: the collector then says again what does not fit.
    pub fn read(directory: &Path) -> Result<Option<Self>, SpoolError> {
        let Some(bytes) = read_small(directory, "anew", MARKER_BYTES)? else { return Ok(None) };
        if !is_whole(&bytes, MARKER_MAGIC, MARKER_BYTES) {
            let path = directory.join("anew");
            tracing::warn!(path = %path.display(), "the mark to number the spool anew is damaged; passing over it");
            return Ok(None);
        }
        Ok(Some(Self { after: Epoch(u64_at(&bytes, 12)) }))
    }

    /// Durable on return.
    pub fn replace(&self, directory: &Path) -> Result<(), SpoolError> {
        replace_small(directory, "anew", &sealed(MARKER_MAGIC, &self.after.0.to_le_bytes()))
    }

    pub fn remove(directory: &Path) -> Result<(), SpoolError> {
        let path = directory.join("anew");
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removal => removal.map_err(SpoolError::io("remove", &path)).and_then(|()| sync_folder(directory)),
        }
    }
}

/// Magic, version, the fields, and the checksum of it all.
fn sealed(magic: &[u8; 8], fields: &[u8]) -> Vec<u8> {
    let mut bytes = [&magic[..], &VERSION.to_le_bytes(), fields].concat();
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes
}

fn is_whole(bytes: &[u8], magic: &[u8; 8], size: usize) -> bool {
    bytes.len() == size
        && &bytes[..8] == magic
        && u32_at(bytes, 8) == VERSION
        && u32_at(bytes, size - 4) == crc32fast::hash(&bytes[..size - 4])
}

/// The contents of a small file, one byte more than `size` at most; `None` when there is no such file.
fn read_small(directory: &Path, name: &str, size: usize) -> Result<Option<Vec<u8>>, SpoolError> {
    let path = directory.join(name);
    let mut bytes = Vec::with_capacity(size + 1);
    match open(&path, OpenOptions::new().read(true)) {
        Ok(file) => file.take(size as u64 + 1).read_to_end(&mut bytes).map_err(SpoolError::io("read", &path))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(SpoolError::io("open", &path)(error)),
    };
    Ok(Some(bytes))
}

fn replace_small(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), SpoolError> {
    let (path, next) = (directory.join(name), directory.join(format!("{name}.next")));
    let write = || {
        let mut file = open(&next, OpenOptions::new().write(true).create(true).truncate(true))?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(SpoolError::io("write", &next))?;
    fs::rename(&next, &path).map_err(SpoolError::io("replace", &path))?;
    sync_folder(directory)
}

/// Opens a file of the spool: never through a link, readable by its owner alone.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK).open(path)
}

pub fn make_folder(path: &Path) -> Result<(), SpoolError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(SpoolError::io("make", path))
}

/// Makes the names in a folder durable.
pub fn sync_folder(path: &Path) -> Result<(), SpoolError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(SpoolError::io("sync", path))
}

pub fn epoch_folder(directory: &Path, epoch: Epoch) -> PathBuf {
    directory.join(format!("epoch-{:020}", epoch.0))
}

pub fn epoch_of(name: &str) -> Option<Epoch> {
    numbered(name.strip_prefix("epoch-")?).map(Epoch)
}

pub fn segment_path(folder: &Path, first: Sequence) -> PathBuf {
    folder.join(format!("{:020}.seg", first.0))
}

pub fn segment_of(name: &str) -> Option<Sequence> {
    numbered(name.strip_suffix(".seg")?).filter(|first| SEQUENCES.contains(first)).map(Sequence)
}

fn numbered(digits: &str) -> Option<u64> {
    (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}
