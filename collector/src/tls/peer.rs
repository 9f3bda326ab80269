//! Who is at the other end of a connection.

use std::net::SocketAddr;

use tokio_rustls::rustls::pki_types::CertificateDer;
use trueline_drift::{HostId, TenantId, Time};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a client certificate of our own CA says. Made only from a certificate that TLS verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    pub host: HostId,
    pub tenant: TenantId,
    /// Lower-case hexadecimal.
    pub serial: String,
    pub expires_at: Time,
}

/// A connection's other end; tonic hands it to every request of the connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// Our end, as the peer dialled it.
    pub local: SocketAddr,
    /// Absent on ports that ask for no client certificate.
    pub identity: Option<PeerIdentity>,
}

impl PeerIdentity {
    /// Reads `trueline://TENANT/HOST`, the serial and the expiry.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok()??;
        let [GeneralName::URI(uri)] = names.value.general_names[..] else { return None };
        let (tenant, host) = uri.strip_prefix("trueline://")?.split_once('/')?;
        if tenant.is_empty() {
            return None;
        }
        Some(Self {
            host: host.parse().ok()?,
            tenant: TenantId(tenant.to_owned()),
            serial: hex::encode(parsed.raw_serial()),
            expires_at: Time::from_seconds(parsed.validity().not_after.timestamp()),
        })
    }
}
