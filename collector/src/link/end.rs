//! Why a stream ends, and what its agent is told.

use std::error::Error;

use tonic::{Code, Status};
use trueline_drift::Sequence;

use crate::ingest::IngestError;
use crate::tls::Refusal;

/// Why a stream ends.
pub enum End {
    /// The agent is gone or has finished.
    Gone,
    Said(Status),
    Refused(Refusal, Status),
    /// The hub asked for it: shutdown, revocation or a newer stream.
    Asked,
}

impl From<IngestError> for End {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Closed => Self::Said(Status::unavailable(error.to_string())),
            IngestError::Refused(_) => {
                Self::Said(Status::internal("the collector's database refused the records; see the collector's log"))
            }
        }
    }
}

pub fn refused(refusal: Refusal, status: Status) -> End {
    End::Refused(refusal, status)
}

/// The frames do not continue what is here: the agent numbers them anew.
pub fn sequence_gap(expected: Sequence, got: Sequence) -> End {
    refused(Refusal::SequenceGap, Status::data_loss(format!("sequence gap: expected {expected}, got {got}")))
}

/// As [`sequence_gap`].
pub fn chain_broken(at: Sequence) -> End {
    refused(Refusal::ChainBroken, Status::data_loss(format!("the hash chain is broken at sequence {at}")))
}

/// What a failed read of the stream means: a message that breaks the contract, or a peer that is gone.
pub fn broken(status: Status) -> End {
    match status.code() {
        Code::OutOfRange => refused(Refusal::MessageTooLarge, Status::invalid_argument(status.message())),
        Code::Internal | Code::Unimplemented if status.source().is_none() => {
            refused(Refusal::MessageInvalid, Status::invalid_argument(status.message()))
        }
        _ => End::Gone,
    }
}
