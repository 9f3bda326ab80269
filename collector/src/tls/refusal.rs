//! Peers turned away: each logged once per address and reason, all of them counted.
//!
//! Invariant: the table never holds more than [`ENTRIES`] entries, whoever knocks.

use std::collections::HashMap;
use std::fmt::Display;
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_rustls::rustls::{CertificateError, Error as TlsError};

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
    TooManyHandshakes,
    HandshakeFailed,
    CertificateUnknown,
    HostRevoked,
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
            Self::TooManyHandshakes => "too_many_handshakes",
            Self::HandshakeFailed => "handshake_failed",
            Self::CertificateUnknown => "certificate_unknown",
            Self::HostRevoked => "host_revoked",
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

#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<(IpAddr, Refusal), Instant>>);

impl Refusals {
    /// Counts a refusal, and logs it if this address was not refused for this reason lately.
    pub fn note(&self, address: IpAddr, refusal: Refusal, detail: impl Display) {
        metrics::counter!("trueline_refusals_total", "reason" => refusal.name()).increment(1);
        if self.is_news(address, refusal, Instant::now()) {
            let detail = detail.to_string();
            let detail = trueline_drift::text::printable(detail.as_bytes());
            tracing::warn!(peer = %address, reason = refusal.name(), "refused: {detail}");
        }
    }

    fn is_news(&self, address: IpAddr, refusal: Refusal, now: Instant) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.get(&(address, refusal)).is_some_and(|at| now.duration_since(*at) < MEMORY) {
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
        seen.insert((address, refusal), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_news_once_per_address_and_reason_until_it_is_forgotten() {
        let refusals = Refusals::default();
        let start = Instant::now();
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        assert!(refusals.is_news(one, Refusal::NotTls, start));
        assert!(!refusals.is_news(one, Refusal::NotTls, start));
        assert!(refusals.is_news(one, Refusal::Slow, start));
        assert!(refusals.is_news(other, Refusal::NotTls, start));
        assert!(refusals.is_news(one, Refusal::NotTls, start + MEMORY));
    }

    #[test]
    fn the_table_stays_bounded_under_many_addresses() {
        let refusals = Refusals::default();
        let start = Instant::now();
        for number in 0..(ENTRIES as u32 * 2) {
            assert!(refusals.is_news(IpAddr::from(number.to_be_bytes()), Refusal::NotTls, start));
        }
        assert_eq!(refusals.0.lock().unwrap().len(), ENTRIES);
    }
}
