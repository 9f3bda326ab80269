//! Peers turned away: each logged once per host, or per address where no host is known, and reason; all of them counted.
//!
//! Invariant: the table never holds more than [`ENTRIES`] entries, whoever knocks.

use std::collections::HashMap;
use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::{CertificateError, Error as TlsError};
use trueline_drift::HostId;

use super::Peer;
use super::census::neighbourhood;

const ENTRIES: usize = 1024;
/// After this long the same refusal is news again.
const MEMORY: Duration = Duration::from_secs(600);

/// Why a peer was turned away. The name goes into metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    NotTls,
    NoCertificate,
    CertificateExpired,
    CertificateOfOtherCa,
    CertificateInvalid,
    CertificateWithoutIdentity,
    PeerAborted,
    HungUp,
    Slow,
    Idle,
    TooManyHandshakes,
    TooManyConnections,
    TooManyConnectionsOfAddress,
    TooManyConnectionsOfHost,
    HandshakeFailed,
    CertificateUnknown,
    HostRevoked,
    IdentityInUse,
    Protocol,
    MessageTooLarge,
    MessageInvalid,
    FrameInvalid,
    SequenceGap,
    ChainBroken,
    EpochStale,
    TokenUnknown,
    TokenExpired,
    TokenUsedUp,
    TokenRevoked,
    TooManyTries,
    RequestInvalid,
}

impl Refusal {
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::NoCertificate => "no_certificate",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateOfOtherCa => "certificate_of_other_ca",
            Self::CertificateInvalid => "certificate_invalid",
            Self::CertificateWithoutIdentity => "certificate_without_identity",
            Self::PeerAborted => "peer_aborted",
            Self::HungUp => "hung_up",
            Self::Slow => "slow",
            Self::Idle => "idle",
            Self::TooManyHandshakes => "too_many_handshakes",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyConnectionsOfAddress => "too_many_connections_of_address",
            Self::TooManyConnectionsOfHost => "too_many_connections_of_host",
            Self::HandshakeFailed => "handshake_failed",
            Self::CertificateUnknown => "certificate_unknown",
            Self::HostRevoked => "host_revoked",
            Self::IdentityInUse => "identity_in_use",
            Self::Protocol => "protocol",
            Self::MessageTooLarge => "message_too_large",
            Self::MessageInvalid => "message_invalid",
            Self::FrameInvalid => "frame_invalid",
            Self::SequenceGap => "sequence_gap",
            Self::ChainBroken => "chain_broken",
            Self::EpochStale => "epoch_stale",
            Self::TokenUnknown => "token_unknown",
            Self::TokenExpired => "token_expired",
            Self::TokenUsedUp => "token_used_up",
            Self::TokenRevoked => "token_revoked",
            Self::TooManyTries => "too_many_tries",
            Self::RequestInvalid => "request_invalid",
        }
    }

    /// What a failed handshake was refused for.
    pub fn of_handshake(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
            Some(TlsError::NoCertificatesPresented) => Self::NoCertificate,
            Some(TlsError::InvalidCertificate(fault)) => match fault {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::CertificateExpired,
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::CertificateOfOtherCa,
                _ => Self::CertificateInvalid,
            },
            Some(TlsError::InvalidMessage(_)) => Self::NotTls,
            Some(TlsError::AlertReceived(_)) => Self::PeerAborted,
            Some(_) => Self::HandshakeFailed,
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::HungUp,
            None => Self::HandshakeFailed,
        }
    }
}

/// Whom a refusal is told of: many hosts may come from one address, and one peer from all addresses of its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Subject {
    Host(HostId),
    Address(IpAddr),
}

impl From<&Peer> for Subject {
    fn from(peer: &Peer) -> Self {
        peer.identity.as_ref().map_or_else(|| Self::Address(neighbourhood(peer.address.ip())), |identity| Self::Host(identity.host))
    }
}

#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<(Subject, Refusal), Instant>>);

impl Refusals {
    /// Counts a refusal, and logs it if this peer was not refused for this reason lately. Tells whether that was news.
    pub fn note(&self, peer: &Peer, refusal: Refusal, detail: impl Display) -> bool {
        metrics::counter!("trueline_refusals_total", "reason" => refusal.name()).increment(1);
        let is_news = self.is_news(peer.into(), refusal, Instant::now());
        if is_news {
            let detail = detail.to_string();
            let detail = trueline_drift::text::printable(detail.as_bytes());
            tracing::warn!(peer = %peer.address.ip(), reason = refusal.name(), "refused: {detail}");
        }
        is_news
    }

    /// Whether this peer was refused lately, for whatever reason.
    pub fn knows(&self, peer: &Peer) -> bool {
        let subject = Subject::from(peer);
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().any(|((of, _), at)| *of == subject && at.elapsed() < MEMORY)
    }

    fn is_news(&self, subject: Subject, refusal: Refusal, now: Instant) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.get(&(subject, refusal)).is_some_and(|at| now.duration_since(*at) < MEMORY) {
            return false;
        }
        if seen.len() >= ENTRIES {
            seen.retain(|_, at| now.duration_since(*at) < MEMORY);
        }
        if seen.len() >= ENTRIES
            && let Some(oldest) = seen.iter().min_by_key(|(_, at)| **at).map(|(key, _)| *key)
        {
            seen.remove(&oldest);
        }
        seen.insert((subject, refusal), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::PeerIdentity;
    use trueline_drift::{TenantId, Time};

    fn peer(address: &str, host: Option<u128>) -> Peer {
        let address = std::net::SocketAddr::new(address.parse().unwrap(), 1);
        let identity = host.map(|host| PeerIdentity {
            host: HostId(uuid::Uuid::from_u128(host)),
            tenant: TenantId::main(),
            serial: "00".to_owned(),
            expires_at: Time::from_seconds(1),
        });
        Peer { address, local: address, identity }
    }

    #[test]
    fn a_refusal_is_news_once_per_peer_and_reason_until_it_is_forgotten() {
        let refusals = Refusals::default();
        let start = Instant::now();
        let (one, other) = (Subject::from(&peer("10.0.0.1", None)), Subject::from(&peer("10.0.0.2", None)));
        assert!(refusals.is_news(one, Refusal::NotTls, start));
        assert!(!refusals.is_news(one, Refusal::NotTls, start));
        assert!(refusals.is_news(one, Refusal::Slow, start));
        assert!(refusals.is_news(other, Refusal::NotTls, start));
        assert!(refusals.is_news(one, Refusal::NotTls, start + MEMORY));
    }

    #[test]
    fn each_host_behind_one_address_is_told_of_and_a_host_that_moves_is_not_news() {
        let refusals = Refusals::default();
        assert!(refusals.note(&peer("10.0.0.1", Some(1)), Refusal::HostRevoked, "x"));
        assert!(refusals.note(&peer("10.0.0.1", Some(2)), Refusal::HostRevoked, "x"));
        assert!(!refusals.note(&peer("10.0.0.9", Some(1)), Refusal::HostRevoked, "x"));
        assert!(refusals.knows(&peer("10.0.0.7", Some(2))));
        assert!(!refusals.knows(&peer("10.0.0.1", Some(3))) && !refusals.knows(&peer("10.0.0.1", None)));
    }

    #[test]
    fn the_table_stays_bounded_under_many_addresses() {
        let refusals = Refusals::default();
        let start = Instant::now();
        for number in 0..(ENTRIES as u32 * 2) {
            assert!(refusals.is_news(Subject::Address(IpAddr::from(number.to_be_bytes())), Refusal::NotTls, start));
        }
        assert_eq!(refusals.0.lock().unwrap().len(), ENTRIES);
    }
}
