//! The wire contract: generated messages and services, the frame that agents spool and send, and
//! the one place that converts between wire and domain.

pub mod convert;
pub mod frame;

/// Generated from `trueline/v1/*.proto`.
#[allow(clippy::all, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("trueline.v1");
}

pub use convert::{ConvertError, RunId};
pub use frame::{ChainLink, FrameError};

/// Version of this contract, said in `Hello`.
pub const PROTOCOL: u32 = 1;

/// Largest gRPC message either side takes, in bytes.
pub const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;
