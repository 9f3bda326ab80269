//! TLS of the agents' ports: who may speak, and who was turned away.
//!
//! Own acceptor around tonic: it needs a certificate resolver (renewal without restart), limits on
//! handshakes, and refusals that an operator can read. The identity in a verified client certificate is
//! the only identity of a peer.

mod acceptor;
mod peer;
mod refusal;
mod server;

pub use acceptor::{Door, DoorLimits, PeerStream};
pub use peer::{Peer, PeerIdentity};
pub use refusal::{Refusal, Refusals};
pub use server::{ServerLeaf, agents_config, enrolment_config, rest_config};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS cannot be set up for {subject}: {reason}")]
    Setup { subject: &'static str, reason: String },
    #[error(transparent)]
    Ca(#[from] crate::ca::CaError),
}
