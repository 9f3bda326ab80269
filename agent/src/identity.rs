//! The host's identity on disk: private key, certificate, the CA it trusts, and where its link is.
//!
//! Invariants: the key is made here and never leaves; files are replaced whole (write, fsync, rename)
//! so that a crash leaves either the old or the new; key and certificate are one file, so that they
//! always belong together; the membership is there only while everything beside it belongs to it, and the
//! certificate names the host that it names. The key of an enrolment under way is on disk before anybody is asked.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use trueline_drift::{HostId, Time};

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("this host is not enrolled ({} is missing): run `trueline-agent enroll --collector HOST:9441 --token T --ca-sha256 HEX`", path.display())]
    NotEnrolled { path: PathBuf },
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{} is damaged ({reason}): enrol the host again", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("cannot make a key or a certificate request: {0}")]
    Key(#[from] rcgen::Error),
    #[error("the collector's answer is not usable: {reason}")]
    Answer { reason: String },
}

/// A fresh key with the request that asks for its certificate.
pub struct KeyRequest {
    key: KeyPair,
    /// PKCS #10, DER.
    pub csr: Vec<u8>,
}

/// The key of an enrolment under way.
const PENDING: &str = "pending.pem";

impl KeyRequest {
    pub fn new() -> Result<Self, IdentityError> {
        Self::of(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
    }

    fn of(key: KeyPair) -> Result<Self, IdentityError> {
        let csr = CertificateParams::default().serialize_request(&key)?.der().to_vec();
        Ok(Self { key, csr })
    }

    /// The key to enrol with: durably in `data_dir`, and the same at every call until an identity with it is kept there.
    /// By its key the collector knows a host whose answer was lost.
    pub fn pending(data_dir: &Path) -> Result<Self, IdentityError> {
        let directory = data_dir.join("identity");
        let path = directory.join(PENDING);
        match std::fs::read_to_string(&path) {
            Ok(text) => match KeyPair::from_pem(&text) {
                // Left behind by a crash after the identity was in place.
                Ok(key) if Identity::load(data_dir).is_ok_and(|present| present.has_key(&key)) => {}
                Ok(key) => return Self::of(key),
                Err(error) => tracing::warn!(path = %path.display(), %error, "the key of an enrolment is damaged; making another"),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(IdentityError::Io { operation: "read", path, source }),
        }
        let request = Self::new()?;
        make_directory(data_dir)?;
        replace(&path, request.key.serialize_pem().as_bytes())?;
        Ok(request)
    }
}

/// Where the link is and who the host is, beside the key material.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Membership {
    host: HostId,
    /// host:port
    link: String,
}

#[derive(Clone)]
pub struct Identity {
    directory: PathBuf,
    pub host: HostId,
    pub link: String,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivatePkcs8KeyDer<'static>>,
    ca: CertificateDer<'static>,
    pub valid_from: Time,
    pub valid_until: Time,
    /// `host.pem` where it could not be written yet.
    unsaved: Option<Arc<str>>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("host", &self.host).field("link", &self.link).field("valid_until", &self.valid_until).finish()
    }
}

impl Identity {
    /// Reads what [`Self::keep`] wrote in `data_dir`.
    pub fn load(data_dir: &Path) -> Result<Self, IdentityError> {
        let directory = data_dir.join("identity");
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read(&path).map_err(|source| match source.kind() {
                std::io::ErrorKind::NotFound => IdentityError::NotEnrolled { path },
                _ => IdentityError::Io { operation: "read", path, source },
            })
        };
        let damaged = |name: &str, reason: String| IdentityError::Damaged { path: directory.join(name), reason };
        let membership: Membership =
            serde_json::from_slice(&read("membership.json")?).map_err(|error| damaged("membership.json", error.to_string()))?;
        let host = read("host.pem")?;
        let ca = CertificateDer::from_pem_slice(&read("ca.pem")?).map_err(|error| damaged("ca.pem", error.to_string()))?;
        Self::assemble(directory.clone(), membership, &host, ca).map_err(|reason| damaged("host.pem", reason))
    }

    /// `host`: what `host.pem` holds.
    fn assemble(directory: PathBuf, membership: Membership, host: &[u8], ca: CertificateDer<'static>) -> Result<Self, String> {
        let Membership { host: id, link } = membership;
        let key = PrivatePkcs8KeyDer::from_pem_slice(host).map_err(|error| error.to_string())?;
        let chain = CertificateDer::pem_slice_iter(host).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        let leaf = chain.first().ok_or("it holds no certificate")?;
        let (valid_from, valid_until) = facts_of(leaf, id)?;
        Ok(Self { directory, host: id, link, chain, key: Arc::new(key), ca, valid_from, valid_until, unsaved: None })
    }

    /// Writes an identity into `data_dir`, over an older one if there is one, and returns it as read back. After
    /// a crash half way the host is not enrolled.
    pub fn keep(
        data_dir: &Path,
        request: &KeyRequest,
        host: HostId,
        link: &str,
        chain: &[Vec<u8>],
        ca: &[u8],
    ) -> Result<Self, IdentityError> {
        let directory = data_dir.join("identity");
        let unusable = |reason| IdentityError::Answer { reason };
        let pem = host_pem(request, chain)?;
        let membership = Membership { host, link: link.to_owned() };
        let membership_text = serde_json::to_vec(&membership).map_err(|error| unusable(error.to_string()))?;
        Self::assemble(directory.clone(), membership, pem.as_bytes(), CertificateDer::from(ca.to_vec())).map_err(unusable)?;

        make_directory(data_dir)?;
        let [ca_path, host_path, membership_path] = ["ca.pem", "host.pem", "membership.json"].map(|name| directory.join(name));
        // All of it is on disk before the older identity goes: a full disk leaves that as it is.
        stage(&ca_path, pem_text(ca).as_bytes())?;
        stage(&host_path, pem.as_bytes())?;
        stage(&membership_path, &membership_text)?;
        match std::fs::remove_file(&membership_path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(IdentityError::Io { operation: "remove", path: membership_path, source });
            }
            _ => sync(&directory)?,
        }
        put(&ca_path)?;
        put(&host_path)?;
        sync(&directory)?;
        // Last: its presence says that the rest is there and belongs to it.
        put(&membership_path)?;
        sync(&directory)?;
        // Of no use any more, and found out as such where it stays.
        let _ = std::fs::remove_file(directory.join(PENDING));
        Self::load(data_dir)
    }

    fn has_key(&self, key: &KeyPair) -> bool {
        self.key.secret_pkcs8_der() == key.serialize_der()
    }

    /// This identity under a renewed certificate for a new key. In memory alone, until [`Self::save`].
    pub fn renew(&self, request: &KeyRequest, chain: &[Vec<u8>]) -> Result<Self, IdentityError> {
        let pem = host_pem(request, chain)?;
        let membership = Membership { host: self.host, link: self.link.clone() };
        let renewed = Self::assemble(self.directory.clone(), membership, pem.as_bytes(), self.ca.clone())
            .map_err(|reason| IdentityError::Answer { reason })?;
        // What cannot be used must not take the place of what can.
        renewed.client_config().map_err(|error| IdentityError::Answer { reason: error.to_string() })?;
        Ok(Self { unsaved: Some(pem.into()), ..renewed })
    }

    /// Whether the disk holds this certificate.
    pub fn is_saved(&self) -> bool {
        self.unsaved.is_none()
    }

    /// Writes what is in memory alone, and returns the identity as saved.
    pub fn save(&self) -> Result<Self, IdentityError> {
        if let Some(pem) = &self.unsaved {
            replace(&self.directory.join("host.pem"), pem.as_bytes())?;
        }
        Ok(Self { unsaved: None, ..self.clone() })
    }

    /// The same identity with its collector's link at another host:port.
    pub fn point_to(&self, link: &str) -> Result<Self, IdentityError> {
        let membership = serde_json::to_vec(&Membership { host: self.host, link: link.to_owned() })
            .map_err(|error| IdentityError::Answer { reason: error.to_string() })?;
        replace(&self.directory.join("membership.json"), &membership)?;
        Ok(Self { link: link.to_owned(), ..self.clone() })
    }

    /// When to ask for the next certificate: at two thirds of this one's life.
    pub fn renew_at(&self) -> Time {
        self.valid_from.plus_micros(self.valid_until.micros_since(self.valid_from) / 3 * 2)
    }

    /// TLS for the link: this certificate, and trust in the collector's CA alone.
    pub fn client_config(&self) -> Result<ClientConfig, IdentityError> {
        let unusable = |error: rustls::Error| IdentityError::Damaged { path: self.directory.join("host.pem"), reason: error.to_string() };
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).map_err(unusable)?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(unusable)?
            .with_root_certificates(roots)
            .with_client_auth_cert(self.chain.clone(), PrivateKeyDer::Pkcs8(self.key.clone_key()))
            .map_err(unusable)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// The `notBefore` and `notAfter` of a certificate (RFC 5280, 4.1.2.5) that names this host as its subject.
fn facts_of(certificate: &[u8], host: HostId) -> Result<(Time, Time), String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    let names: Vec<_> = parsed.subject().iter_common_name().map(|name| name.as_str().unwrap_or_default()).collect();
    if names != [host.to_string()] {
        return Err(format!("its certificate is not this host's, {host}"));
    }
    let validity = parsed.validity();
    Ok((Time::from_seconds(validity.not_before.timestamp()), Time::from_seconds(validity.not_after.timestamp())))
}

fn host_pem(request: &KeyRequest, chain: &[Vec<u8>]) -> Result<String, IdentityError> {
    if chain.is_empty() {
        return Err(IdentityError::Answer { reason: "it holds no certificate".to_owned() });
    }
    let mut text = request.key.serialize_pem();
    for certificate in chain {
        text.push_str(&pem_text(certificate));
    }
    Ok(text)
}

fn pem_text(der: &[u8]) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE", der))
}

/// Makes the folder of the identity where it is not there yet.
pub fn make_directory(data_dir: &Path) -> Result<PathBuf, IdentityError> {
    let path = data_dir.join("identity");
    match std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path) {
        Ok(()) => Ok(path),
        Err(source) => Err(IdentityError::Io { operation: "make", path, source }),
    }
}

/// Replaces a file as a whole, readable by its owner alone.
fn replace(path: &Path, contents: &[u8]) -> Result<(), IdentityError> {
    stage(path, contents)?;
    put(path)?;
    sync(path.parent().expect("identity files lie in a directory"))
}

/// Writes what is to become `path`, durably, beside it.
fn stage(path: &Path, contents: &[u8]) -> Result<(), IdentityError> {
    let fail = |source| IdentityError::Io { operation: "write", path: path.to_owned(), source };
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path.with_extension("new")).map_err(fail)?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(fail)
}

/// Puts what was staged in its place.
fn put(path: &Path) -> Result<(), IdentityError> {
    std::fs::rename(path.with_extension("new"), path).map_err(|source| IdentityError::Io {
        operation: "replace",
        path: path.to_owned(),
        source,
    })
}

fn sync(directory: &Path) -> Result<(), IdentityError> {
    let synced = std::fs::File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|source| IdentityError::Io { operation: "sync", path: directory.to_owned(), source })
}

#[cfg(test)]
mod tests;
