//! The ports' connections: who may speak, how many at once, and who was turned away.
//!
//! Own acceptor around tonic: it needs a certificate resolver (renewal without restart), limits on
//! handshakes, and refusals that an operator can read. The identity in a verified client certificate is
//! the only identity of a peer.

mod acceptor;
mod census;
mod peer;
mod refusal;
mod server;
mod stream;

pub use acceptor::{Door, DoorLimits};
pub use census::{HostConnections, neighbourhood};
pub use peer::{Peer, PeerIdentity};
pub use refusal::{Refusal, Refusals};
pub use server::{ServerLeaf, agents_config, enrolment_config, rest_config};
pub use stream::PeerStream;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS cannot be set up for {subject}: {reason}")]
    Setup { subject: &'static str, reason: String },
    #[error(transparent)]
    Ca(#[from] crate::ca::CaError),
}
