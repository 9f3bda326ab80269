//! The frame: a run of records, compressed once on the host, hash-chained, kept in the spool and
//! sent as it lies there.
//!
//! Invariants: a frame never decompresses to more than [`FRAME_LIMIT`] bytes and never holds more
//! than [`RECORDS_LIMIT`] records; [`decode`] refuses what breaks this before allocating for it. The
//! chain makes a missing, altered or reordered frame evident to whoever holds the link before it.

use std::io::Read;

use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use sha2::{Digest, Sha256};
use trueline_drift::{Epoch, RecordBody, Sequence};

use crate::{ConvertError, v1};

/// Largest decompressed frame, in bytes.
pub const FRAME_LIMIT: usize = 2 * 1024 * 1024;
pub const RECORDS_LIMIT: usize = 4096;
/// Largest record, in bytes: an item before and after at its limit, its key, and its actor.
pub const RECORD_LIMIT: usize = 2 * trueline_drift::value::ITEM_LIMIT + 256 * 1024;
/// Most entries of a record's body and of its actor: more than the domain's limits let any have.
const ENTRIES_LIMIT: usize = 4096;

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
    #[error("frame {first} holds a record of {bytes} bytes; {RECORD_LIMIT} are allowed")]
    RecordTooLarge { first: u64, bytes: usize },
    #[error("frame {first} holds a message of more than {ENTRIES_LIMIT} entries")]
    Entries { first: u64 },
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
    bound_entries(&plain, first)?;
    let records = v1::Records::decode(&plain[..]).map_err(|source| FrameError::Encoding { first, source })?.records;
    if records.is_empty() || records.len() > RECORDS_LIMIT {
        return Err(FrameError::Count { first, count: records.len() });
    }
    if records.len() != frame.count as usize {
        return Err(FrameError::Miscounted { first, said: frame.count, held: records.len() });
    }
    Ok(records)
}

/// Refuses what would make the decoder allocate for more entries than there can be: two bytes of an empty
/// message become a hundred of memory. Counted over a whole record, because messages that come again are merged.
fn bound_entries(records: &[u8], first: u64) -> Result<(), FrameError> {
    // Numbers of fields in record.proto.
    const RECORD: u32 = 1;
    const CHANGED: u32 = 2;
    const ACTOR: u32 = 8;
    let failed = |source| FrameError::Encoding { first, source };
    for (index, record) in Entries(records).enumerate() {
        let (tag, record) = record.map_err(failed)?;
        if index >= RECORDS_LIMIT {
            return Err(FrameError::Count { first, count: index + 1 });
        }
        if record.len() > RECORD_LIMIT {
            return Err(FrameError::RecordTooLarge { first, bytes: record.len() });
        }
        let (mut of_body, mut of_actor) = (0, 0);
        for body in Entries(record).take_while(|_| tag == RECORD) {
            let (kind, body) = body.map_err(failed)?;
            for part in Entries(body) {
                let (tag, part) = part.map_err(failed)?;
                of_body += 1;
                if (kind, tag) == (CHANGED, ACTOR) {
                    of_actor += Entries(part).count();
                }
                if of_body > ENTRIES_LIMIT || of_actor > ENTRIES_LIMIT {
                    return Err(FrameError::Entries { first });
                }
            }
        }
    }
    Ok(())
}

/// The entries of an encoded message, each with its number and, where it has a length, its bytes.
struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    fn read(&mut self) -> Result<(u32, &'a [u8]), prost::DecodeError> {
        let (tag, wire_type) = decode_key(&mut self.0)?;
        let value = self.0;
        skip_field(wire_type, tag, &mut self.0, DecodeContext::default())?;
        let mut value = &value[..value.len() - self.0.len()];
        match wire_type {
            WireType::LengthDelimited => decode_varint(&mut value)?,
            _ => return Ok((tag, &[])),
        };
        Ok((tag, value))
    }
}

/// Ends after the first error.
impl<'a> Iterator for Entries<'a> {
    type Item = Result<(u32, &'a [u8]), prost::DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = self.read();
        if entry.is_err() {
            self.0 = &[];
        }
        Some(entry)
    }
}

/// The records of a frame as the domain knows them.
pub fn decode(frame: &v1::Frame) -> Result<Vec<RecordBody>, FrameError> {
    decode_wire(frame)?
        .into_iter()
        .map(|record| RecordBody::try_from(record).map_err(|source| FrameError::Record { first: frame.first_sequence, source }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(plain: &[u8]) -> v1::Frame {
        let payload = zstd::bulk::compress(plain, 1).unwrap();
        v1::Frame { first_sequence: 1, count: 1, payload: payload.into(), link: vec![0; 32].into() }
    }

    /// A message within messages, by the numbers of their fields, innermost first.
    fn nested(tags: &[u32], innermost: &[u8]) -> Vec<u8> {
        tags.iter().fold(innermost.to_vec(), |inner, tag| {
            let mut outer = Vec::new();
            prost::encoding::bytes::encode(*tag, &inner, &mut outer);
            outer
        })
    }

    #[test]
    fn a_frame_of_nothing_but_entries_is_refused_before_it_is_decoded() {
        let records = [0x0a, 0].repeat(FRAME_LIMIT / 2 - 1);
        assert!(matches!(decode_wire(&frame(&records)), Err(FrameError::Count { .. })));
        let fields = [0x1a, 0].repeat(100_000);
        assert!(matches!(decode_wire(&frame(&nested(&[2, 1], &fields))), Err(FrameError::Entries { .. })));
        let parents = [0x22, 0].repeat(4000);
        let actors = nested(&[8], &parents).repeat(10);
        assert!(matches!(decode_wire(&frame(&nested(&[2, 1], &actors))), Err(FrameError::Entries { .. })));
        assert_eq!(decode_wire(&frame(&nested(&[1], b""))).unwrap().len(), 1);
    }

    /// What the domain's own bounds allow must pass: an agent would send for ever what is refused.
    #[test]
    fn the_largest_change_that_a_host_can_make_passes_and_a_larger_one_does_not() {
        use trueline_drift::change::ChangeKind;
        use trueline_drift::value::VALUE_LIMIT;
        use trueline_drift::{Actor, Cause, Change, FieldChange, FieldName, Fields, ItemId, ItemKey, ItemKind, Time, Value};

        let fields = |byte: u8| -> Fields {
            let mut fields: Fields = (0..150)
                .map(|number| {
                    let name = FieldName::new(&format!("{}{number}", "\u{1}".repeat(150)));
                    (name, Value::bytes(&vec![byte; VALUE_LIMIT]))
                })
                .collect();
            fields.set(FieldName::known("members"), Value::list(vec![(byte as char).to_string().repeat(VALUE_LIMIT); 2000]));
            fields.bounded()
        };
        let (before, after) = (fields(b'a'), fields(0xff));
        let moved = before.iter().map(|(name, value)| FieldChange {
            name: name.clone(),
            before: Some(value.clone()),
            after: after.value(name.as_str()).cloned(),
        });
        let change = Change {
            item: ItemId::new(ItemKind::File, ItemKey::from_bytes(&[b"/".as_slice(), &vec![1; ItemKey::LIMIT / 4 - 1]].concat()).unwrap()),
            kind: ChangeKind::Modified,
            fields: moved.collect(),
            unchanged: Fields::new(),
            observed_after: Time::from_seconds(1),
            observed_at: Time::from_seconds(2),
            cause: Cause::Event,
            actor: Actor::unknown("it has ended"),
            transaction: None,
            shipped_by: None,
            candidates: trueline_drift::Candidates::default(),
            lines: None,
        };
        let record: v1::Record = RecordBody::Changed(Box::new(change.clone())).into();
        let plain = v1::Records { records: vec![record] }.encode_to_vec();
        assert!(plain.len() > 200_000, "{}", plain.len());
        assert_eq!(decode(&frame(&plain)).unwrap(), [RecordBody::Changed(Box::new(change))]);
        let larger = nested(&[2, 1], &vec![0; RECORD_LIMIT]);
        assert!(matches!(decode_wire(&frame(&larger)), Err(FrameError::RecordTooLarge { .. })));
    }

    #[test]
    fn a_clock_beyond_the_calendar_is_brought_into_it() {
        use trueline_drift::Time;
        for (micros, text) in [(i64::MAX, "9999-12-30T22:00:00.000000Z"), (i64::MIN, "1970-01-01T00:00:00.000000Z")] {
            let body = v1::record::Body::InventoryComplete(v1::InventoryComplete { items: 1, observed_at: micros });
            let record = RecordBody::try_from(v1::Record { body: Some(body) }).unwrap();
            let RecordBody::InventoryComplete { observed_at, .. } = record else { panic!("{record:?}") };
            assert_eq!(observed_at.to_string(), text);
            assert_eq!(text.parse::<Time>().unwrap(), observed_at);
        }
    }
}
