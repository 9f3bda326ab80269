//! The server's certificate and the TLS settings of each port.
//!
//! Invariant: one crypto provider, aws-lc-rs, named explicitly; no process-wide default is installed or
//! relied on.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, version};
use trueline_drift::Time;

use super::TlsError;
use crate::ca::CertificateAuthority;
use crate::config::RestTls;

/// The certificate that the listeners show, replaced in place when it is renewed.
#[derive(Debug)]
pub struct ServerLeaf {
    shown: RwLock<Arc<CertifiedKey>>,
    names: Vec<String>,
    lifetime: Duration,
}

impl ServerLeaf {
    /// Issues the first certificate. The duration says when to call [`ServerLeaf::renew`].
    pub fn issue(ca: &CertificateAuthority, names: Vec<String>, lifetime: Duration, now: Time) -> Result<(Self, Duration), TlsError> {
        let (key, due) = certified(ca, &names, lifetime, now)?;
        Ok((Self { shown: RwLock::new(key), names, lifetime }, due))
    }

    pub fn renew(&self, ca: &CertificateAuthority, now: Time) -> Result<Duration, TlsError> {
        let (key, due) = certified(ca, &self.names, self.lifetime, now)?;
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = key;
        Ok(due)
    }
}

impl ResolvesServerCert for ServerLeaf {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// A fresh certificate with the root behind it, since enrolling agents pin the root's digest. Due for renewal at two
/// thirds of its life.
fn certified(
    ca: &CertificateAuthority,
    names: &[String],
    lifetime: Duration,
    now: Time,
) -> Result<(Arc<CertifiedKey>, Duration), TlsError> {
    let server = ca.server(names, lifetime, now)?;
    let chain = vec![server.issued.certificate, ca.root().clone()];
    let key = CertifiedKey::from_der(chain, server.key, &aws_lc_rs::default_provider()).map_err(setup("the server certificate"))?;
    Ok((Arc::new(key), lifetime / 3 * 2))
}

/// Port 9440: TLS 1.3, a client certificate of our own CA or nothing. No session is resumed: a resumed one would
/// skip the check of the client's certificate.
pub fn agents_config(ca: &CertificateAuthority, leaf: Arc<ServerLeaf>) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(ca.root().clone()).map_err(setup("agents"))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().map_err(setup("agents"))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])
        .map_err(setup("agents"))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(leaf);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Port 9441: the server proves itself, the client shows its token.
pub fn enrolment_config(leaf: Arc<ServerLeaf>) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(setup("enrolment"))?
        .with_no_client_auth()
        .with_cert_resolver(leaf);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// REST with the operator's own certificate.
pub fn rest_config(files: &RestTls) -> Result<ServerConfig, TlsError> {
    let wrong = |path: &std::path::Path| {
        let path = path.display().to_string();
        move |error: tokio_rustls::rustls::pki_types::pem::Error| TlsError::Setup { subject: "REST", reason: format!("{path}: {error}") }
    };
    let chain = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(wrong(&files.certificate))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(wrong(&files.key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(setup("REST"))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(setup("REST"))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn setup<E: std::fmt::Display>(subject: &'static str) -> impl FnOnce(E) -> TlsError {
    move |error| TlsError::Setup { subject, reason: error.to_string() }
}
