//! The client side of the link's TLS, as an agent has it: for enrolment whoever shows the CA whose
//! digest was given, afterwards that CA alone and a certificate of one's own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tonic::transport::{Channel, Endpoint};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn verifier(ca: &CertificateDer<'_>) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone().into_owned())?;
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build().map_err(|error| Error::General(error.to_string()))
}

/// Trusts the CA with a given SHA-256, which the server must show beside its own certificate.
#[derive(Debug)]
struct PinnedCa {
    sha256: [u8; 32],
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = intermediates.iter().find(|certificate| Sha256::digest(certificate)[..] == self.sha256);
        let ca = ca.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        verifier(ca)?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// What a client trusts, and what it shows.
#[derive(Clone)]
pub struct ClientTls(Arc<ClientConfig>);

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientTls(..)")
    }
}

impl ClientTls {
    /// For enrolment: nothing is known but the digest of the CA.
    pub fn pinned(sha256: [u8; 32]) -> anyhow::Result<Self> {
        let provider = provider();
        let algorithms = provider.signature_verification_algorithms;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PinnedCa { sha256, algorithms }))
            .with_no_client_auth();
        Ok(Self::speaking_http2(config))
    }

    /// For the link: the collector's CA, and the certificate and key of this agent.
    pub fn mutual(ca: &[u8], chain: &[Vec<u8>], key: &[u8]) -> anyhow::Result<Self> {
        let chain = chain.iter().map(|certificate| CertificateDer::from(certificate.clone())).collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec()));
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_webpki_verifier(verifier(&CertificateDer::from(ca.to_vec()))?)
            .with_client_auth_cert(chain, key)?;
        Ok(Self::speaking_http2(config))
    }

    /// As nobody: trusts this CA and shows no certificate.
    pub fn anonymous(ca: &[u8]) -> anyhow::Result<Self> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_webpki_verifier(verifier(&CertificateDer::from(ca.to_vec()))?)
            .with_no_client_auth();
        Ok(Self::speaking_http2(config))
    }

    fn speaking_http2(mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self(Arc::new(config))
    }

    async fn connect(self, source: Option<IpAddr>, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let stream = dial(source, address).await?;
        TlsConnector::from(self.0).connect(ServerName::from(address.ip()), stream).await
    }

    /// A handshake alone. What the server has against it is the error.
    pub async fn shake(&self, source: Option<IpAddr>, address: SocketAddr) -> io::Result<()> {
        let mut stream = self.clone().connect(source, address).await?;
        // With TLS 1.3 a server's refusal comes after the client's last word; one that agrees begins to speak.
        stream.read_u8().await.map(drop)
    }

    /// A gRPC channel over one TLS connection to this address.
    pub async fn channel(&self, address: SocketAddr) -> anyhow::Result<Channel> {
        self.channel_from(None, address).await
    }

    /// The same from one of this machine's addresses.
    pub async fn channel_from(&self, source: Option<IpAddr>, address: SocketAddr) -> anyhow::Result<Channel> {
        let tls = self.clone();
        let connect = tower::service_fn(move |_| {
            let connecting = tls.clone().connect(source, address);
            async move { connecting.await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("https://collector.invalid").connect_timeout(Duration::from_secs(20));
        endpoint.connect_with_connector(connect).await.with_context(|| format!("connecting to the collector at {address}"))
    }
}

/// A TCP connection, from one of this machine's addresses where that is given: all of 127.0.0.0/8 are.
pub async fn dial(source: Option<IpAddr>, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
