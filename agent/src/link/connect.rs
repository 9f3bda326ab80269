//! TLS to the collector: mutual TLS for the link, a pinned CA for enrolment.
//!
//! tonic's own TLS settings offer neither a custom verifier nor rustls with a provider of our
//! choice, so the connection is made here and handed to it.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use tonic::transport::{Channel, Endpoint, Uri};
use trueline_drift::text;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("`{address}` is not an address: write HOST:PORT")]
    Address { address: String },
    #[error("cannot reach {address}: {reason}")]
    Unreachable { address: String, reason: String },
    #[error("cannot trust {address}: {reason}")]
    OtherCa { address: String, reason: String },
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Where a channel goes: HOST:PORT, and nothing else.
struct Address {
    host: String,
    port: u16,
    name: ServerName<'static>,
    endpoint: Endpoint,
}

impl Address {
    fn parse(address: &str) -> Result<Self, ConnectError> {
        // It may be another's: what it is not, is shown with care.
        let wrong = || ConnectError::Address { address: text::bounded(&text::printable(address.as_bytes()), 300).into_owned() };
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let port: u16 = port.parse().map_err(|_| wrong())?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
        let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(|_| wrong())?;
        Ok(Self { host, port, name, endpoint })
    }
}

/// Whether [`channel`] takes it for an address.
pub fn check_address(address: &str) -> Result<(), ConnectError> {
    Address::parse(address).map(drop)
}

/// An HTTP/2 channel to `address` (host:port) under these TLS settings.
pub async fn channel(address: &str, config: ClientConfig) -> Result<Channel, ConnectError> {
    let Address { host, port, name, endpoint } = Address::parse(address)?;
    let connector = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_: Uri| {
        let (host, name, connector) = (host.clone(), name.clone(), connector.clone());
        async move {
            let socket = TcpStream::connect((host.as_str(), port)).await?;
            socket.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, socket).await?))
        }
    });
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(1024 * 1024);
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect_with_connector(connect)).await;
    let unreachable = |reason: String| ConnectError::Unreachable { address: address.to_owned(), reason };
    match connected {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) if is_other_ca(&error) => Err(ConnectError::OtherCa { address: address.to_owned(), reason: NotPinned.to_string() }),
        Ok(Err(error)) => Err(unreachable(innermost(&error))),
        Err(_) => Err(unreachable(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()))),
    }
}

/// A channel that trusts exactly the CA with this digest, for enrolment.
pub async fn pinned_channel(address: &str, ca_sha256: [u8; 32]) -> Result<Channel, ConnectError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedCa { digest: ca_sha256, provider }))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    channel(address, config).await
}

#[derive(Debug, thiserror::Error)]
#[error("the collector's CA does not have the digest given with --ca-sha256")]
struct NotPinned;

/// Whether the server was refused for its CA, wherever in an error that stands.
fn is_other_ca(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(rustls::Error::Other(OtherError(inner))) = error.downcast_ref() {
        return inner.is::<NotPinned>();
    }
    // What an I/O error holds is not among its sources.
    let held = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    held.is_some_and(|held| is_other_ca(held)) || error.source().is_some_and(is_other_ca)
}

/// Accepts a server whose chain holds the CA with the pinned digest and verifies under it.
#[derive(Debug)]
struct PinnedCa {
    digest: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let ca = intermediates
            .iter()
            .find(|certificate| Sha256::digest(certificate)[..] == self.digest)
            .ok_or_else(|| rustls::Error::Other(OtherError(Arc::new(NotPinned))))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(leaf, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The last cause of an error: "connection refused" rather than "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_and_is_shown_with_care_where_it_is_none() {
        for good in ["collector:9440", "10.1.2.3:9440", "[2001:db8::1]:9440", "a.b.example:1"] {
            check_address(good).unwrap();
        }
        for wrong in ["", "collector", "collector:", "collector:99999", ":9440", "a b:1", "a/b:1", "x@y:1", "evil\u{1b}[2J:9440", "a\n:1"] {
            let error = check_address(wrong).unwrap_err();
            let shown = error.to_string();
            assert!(matches!(error, ConnectError::Address { .. }), "{wrong:?}: {shown}");
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
        }
        assert!(check_address(&"a".repeat(100_000)).unwrap_err().to_string().len() < 500);
    }
}
