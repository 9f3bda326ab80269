//! How far a stream has come, and opening its frames.

use futures_util::stream::FuturesOrdered;
use tokio::sync::oneshot;
use tonic::Status;
use trueline_drift::{Epoch, RecordBody, Sequence};
use trueline_proto::frame::{FrameError, RECORDS_LIMIT, decode_wire};
use trueline_proto::{ChainLink, v1};
use trueline_store::AppendOutcome;

use super::end::{End, chain_broken, refused, sequence_gap};
use crate::ingest::IngestError;
use crate::tls::Refusal;

pub type Answer = Result<Result<AppendOutcome, IngestError>, oneshot::error::RecvError>;

/// Where a stream stands.
pub struct Progress {
    pub epoch: Epoch,
    /// The last sequence handed in, and the link after it.
    pub taken: Sequence,
    pub link: ChainLink,
    /// The last sequence that is durable.
    pub durable: Sequence,
    pub acknowledged: Option<Sequence>,
    /// What was handed in and is not answered yet.
    pub in_flight: FuturesOrdered<oneshot::Receiver<Result<AppendOutcome, IngestError>>>,
}

impl Progress {
    /// Takes one answer of the store in.
    pub fn note(&mut self, answer: Answer) -> Result<(), End> {
        let outcome = answer.map_err(|_| IngestError::Closed)??;
        match outcome {
            AppendOutcome::Accepted { acknowledged, .. } => {
                self.durable = self.durable.max(acknowledged);
                Ok(())
            }
            AppendOutcome::SequenceGap { expected, got } => Err(sequence_gap(expected, got)),
            AppendOutcome::BrokenChain { at } => Err(chain_broken(at)),
            AppendOutcome::StaleEpoch { current } => {
                let reason = format!("the host's spool is at epoch {current} by now");
                Err(refused(Refusal::EpochStale, Status::failed_precondition(reason)))
            }
            AppendOutcome::Revoked => Err(refused(Refusal::HostRevoked, Status::permission_denied("this host's certificate was revoked"))),
            AppendOutcome::UnknownHost => {
                Err(refused(Refusal::CertificateUnknown, Status::permission_denied("this host is unknown here; enrol it again")))
            }
        }
    }
}

/// A frame as it was opened.
pub struct Opened {
    pub records: Vec<RecordBody>,
    pub link: ChainLink,
}

/// Continues the chain and decodes the records.
pub fn open(epoch: Epoch, previous: ChainLink, frame: &v1::Frame) -> Result<Opened, FrameError> {
    let link = previous.next(epoch, Sequence(frame.first_sequence), frame.count, &frame.payload);
    let wire = decode_wire(frame)?;
    let records = wire
        .into_iter()
        .map(|record| RecordBody::try_from(record).map_err(|source| FrameError::Record { first: frame.first_sequence, source }))
        .collect::<Result<_, _>>()?;
    Ok(Opened { records, link })
}

/// The last sequence of a frame; `None` for numbers that no frame has.
pub fn last_of(frame: &v1::Frame) -> Option<Sequence> {
    if frame.first_sequence == 0 || frame.count == 0 || frame.count as usize > RECORDS_LIMIT {
        return None;
    }
    // Both databases count to 2^63 - 1.
    let last = frame.first_sequence.checked_add(u64::from(frame.count) - 1)?;
    i64::try_from(last).is_ok().then_some(Sequence(last))
}
