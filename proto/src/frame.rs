//! The frame: a run of records, compressed once on the host, hash-chained, kept in the spool and
//! sent as it lies there.
//!
//! Invariants: a frame never decompresses to more than [`FRAME_LIMIT`] bytes and never holds more
//! than [`RECORDS_LIMIT`] records; [`decode`] refuses what breaks this before allocating for it. The
//! chain makes a missing, altered or reordered frame evident to whoever holds the link before it.

use std::io::Read;

use prost::Message;
use sha2::{Digest, Sha256};
use trueline_drift::{Epoch, RecordBody, Sequence};

use crate::{ConvertError, v1};

/// Largest decompressed frame, in bytes.
pub const FRAME_LIMIT: usize = 2 * 1024 * 1024;
pub const RECORDS_LIMIT: usize = 4096;

/// One link of the hash chain over an epoch's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainLink(pub [u8; 32]);

impl ChainLink {
    /// Before the first frame of an epoch.
    pub const START: Self = Self([0; 32]);

    pub fn next(self, epoch: Epoch, first: Sequence, count: u32, payload: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        hasher.update(epoch.0.to_le_bytes());
        hasher.update(first.0.to_le_bytes());
        hasher.update(u64::from(count).to_le_bytes());
        hasher.update(Sha256::digest(payload));
        Self(hasher.finalize().into())
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("frame {first} decompresses to more than {FRAME_LIMIT} bytes")]
    TooLarge { first: u64 },
    #[error("frame {first} holds {count} records; 1 to {RECORDS_LIMIT} are allowed")]
    Count { first: u64, count: usize },
    #[error("frame {first} says it holds {said} records and holds {held}")]
    Miscounted { first: u64, said: u32, held: usize },
    #[error("frame {first} is not zstd: {source}")]
    Compression { first: u64, source: std::io::Error },
    #[error("frame {first} does not decode: {source}")]
    Encoding { first: u64, source: prost::DecodeError },
    #[error("frame {first}: {source}")]
    Record { first: u64, source: ConvertError },
}

/// Compresses encoded records. Reusable: the zstd context is the costly part.
pub struct FrameEncoder {
    compressor: zstd::bulk::Compressor<'static>,
}

impl FrameEncoder {
    /// Level 1: agents spare the host, and most of a record's bytes are digests anyway.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { compressor: zstd::bulk::Compressor::new(1)? })
    }

    /// The payload of a frame. The caller keeps `records` within the limits of this module.
    pub fn encode(&mut self, records: &v1::Records) -> std::io::Result<Vec<u8>> {
        self.compressor.compress(&records.encode_to_vec())
    }
}

/// The wire records of a frame, within the limits, not yet converted.
pub fn decode_wire(frame: &v1::Frame) -> Result<Vec<v1::Record>, FrameError> {
    let first = frame.first_sequence;
    let mut plain = Vec::with_capacity(frame.payload.len().saturating_mul(4).min(FRAME_LIMIT));
    zstd::stream::read::Decoder::new(&frame.payload[..])
        .and_then(|mut decoder| {
            // A window no larger than the frame may be: a header alone cannot make us allocate.
            decoder.window_log_max(21)?;
            decoder.take(FRAME_LIMIT as u64 + 1).read_to_end(&mut plain)
        })
        .map_err(|source| FrameError::Compression { first, source })?;
    if plain.len() > FRAME_LIMIT {
        return Err(FrameError::TooLarge { first });
    }
    let records = v1::Records::decode(&plain[..]).map_err(|source| FrameError::Encoding { first, source })?.records;
    if records.is_empty() || records.len() > RECORDS_LIMIT {
        return Err(FrameError::Count { first, count: records.len() });
    }
    if records.len() != frame.count as usize {
        return Err(FrameError::Miscounted { first, said: frame.count, held: records.len() });
    }
    Ok(records)
}

/// The records of a frame as the domain knows them.
pub fn decode(frame: &v1::Frame) -> Result<Vec<RecordBody>, FrameError> {
    decode_wire(frame)?
        .into_iter()
        .map(|record| RecordBody::try_from(record).map_err(|source| FrameError::Record { first: frame.first_sequence, source }))
        .collect()
}
