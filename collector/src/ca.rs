//! The collector's own certificate authority: its root, the certificates of hosts and of the server.
//!
//! Invariants:
//! - The root's key never leaves `DATA/ca/root.key` (mode 0600). Key and certificate lie in one file,
//!   linked into place whole, so that no crash leaves a key without its certificate.
//! - What a host's certificate says comes from the caller alone. Of a request only the public key is
//!   used, and only after its self-signature was verified.
//! - Agents pin the SHA-256 of the root's DER; it is public.

use std::fs;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::RngExt;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo, date_time_ymd,
};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use trueline_drift::{HostId, TenantId, Time};
use trueline_store::KeyDigest;
use x509_parser::prelude::FromDer;

/// Largest certificate request taken, in bytes. One with a P-384 key needs about 400.
const REQUEST_LIMIT: usize = 8 * 1024;
const FILE_LIMIT: u64 = 64 * 1024;
const ROOT_LIFETIME_SECONDS: i64 = 10 * 365 * 86_400;
/// How far a host's clock may lag behind ours.
const CLOCK_ALLOWANCE_SECONDS: i64 = 300;

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("cannot {operation} {}: {source}", path.display())]
    File { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("{} {reason}", path.display())]
    Root { path: PathBuf, reason: String },
    #[error("the certificate request {0}")]
    Request(String),
    #[error("cannot issue a certificate for {subject}: {source}")]
    Issue { subject: String, source: rcgen::Error },
    #[error("`{0}` cannot stand in a certificate")]
    Name(String),
}

/// A certificate that was signed here.
#[derive(Debug, Clone)]
pub struct Issued {
    pub certificate: CertificateDer<'static>,
    /// Lower-case hexadecimal.
    pub serial: String,
    pub issued_at: Time,
    pub expires_at: Time,
}

/// The server's own certificate with its key.
#[derive(Debug)]
pub struct ServerIdentity {
    pub issued: Issued,
    pub key: PrivateKeyDer<'static>,
}

pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    path: PathBuf,
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority").field("sha256", &self.sha256()).finish_non_exhaustive()
    }
}

impl CertificateAuthority {
    /// Reads the root kept under `data_dir/ca`, or makes one where there is none yet.
    pub fn open(data_dir: &Path, now: Time) -> Result<Self, CaError> {
        let folder = data_dir.join("ca");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(failed("create", &folder))?;
        let secret = folder.join("root.key");
        if fs::symlink_metadata(&secret).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            let text = new_root(now)?;
            place_once(&secret, text.as_bytes(), 0o600)?;
        }
        let text = read_secret(&secret)?;
        let wrong = |reason: String| CaError::Root { path: secret.clone(), reason };
        let root = CertificateDer::from_pem_slice(text.as_bytes()).map_err(|error| wrong(format!("holds no certificate: {error}")))?;
        let key = KeyPair::from_pem(&text).map_err(|error| wrong(format!("holds no usable key: {error}")))?;
        let (_, parsed) =
            x509_parser::certificate::X509Certificate::from_der(&root).map_err(|error| wrong(format!("does not decode: {error}")))?;
        if parsed.public_key().raw != key.subject_public_key_info() {
            return Err(wrong("holds a certificate that is not of its key; restore both from the same backup".to_owned()));
        }
        let issuer = Issuer::from_ca_cert_der(&root, key).map_err(|error| wrong(format!("does not decode: {error}")))?;
        let path = folder.join("ca.pem");
        // The file is the key's PEM and then the certificate's.
        let public = text.find("-----BEGIN CERTIFICATE-----").map_or("", |start| &text[start..]);
        if fs::read(&path).ok().as_deref() != Some(public.as_bytes()) {
            replace(&path, public.as_bytes(), 0o600)?;
        }
        Ok(Self { issuer, root, path })
    }

    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    /// The public certificate as PEM.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What agents pin: SHA-256 of the root's DER, hexadecimal.
    pub fn sha256(&self) -> String {
        hex::encode(Sha256::digest(&self.root))
    }

    /// Certifies the key of a PKCS #10 request for a host. Subject and extensions of the request are ignored.
    pub fn sign_host(&self, request: &[u8], host: HostId, tenant: &TenantId, lifetime: Duration, now: Time) -> Result<Issued, CaError> {
        let key = requested_key(request)?;
        let uri = format!("trueline://{tenant}/{host}");
        let mut params = leaf(&host.to_string(), ExtendedKeyUsagePurpose::ClientAuth);
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().map_err(|_| CaError::Name(uri.clone()))?)];
        self.issue(params, &key, lifetime, now, &uri)
    }

    /// A certificate for the collector's own listeners.
    pub fn server(&self, names: &[String], lifetime: Duration, now: Time) -> Result<ServerIdentity, CaError> {
        let mut params = leaf("trueline-collector", ExtendedKeyUsagePurpose::ServerAuth);
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(name.as_str().try_into().map_err(|_| CaError::Name(name.clone()))?),
            });
        }
        let subject = || "the collector".to_owned();
        let key = KeyPair::generate().map_err(|source| CaError::Issue { subject: subject(), source })?;
        let issued = self.issue(params, &key, lifetime, now, &subject())?;
        Ok(ServerIdentity { issued, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() })
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        lifetime: Duration,
        now: Time,
        subject: &str,
    ) -> Result<Issued, CaError> {
        let serial = random_serial();
        let expires_at = now.plus_seconds(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        set_validity(&mut params, now.plus_seconds(-CLOCK_ALLOWANCE_SECONDS), expires_at);
        let certificate =
            params.signed_by(key, &self.issuer).map_err(|source| CaError::Issue { subject: subject.to_owned(), source })?.der().clone();
        Ok(Issued { certificate, serial: hex::encode(serial), issued_at: now, expires_at })
    }
}

/// PEM of a key and its new self-signed root.
fn new_root(now: Time) -> Result<String, CaError> {
    let failed = |source| CaError::Issue { subject: "the root".to_owned(), source };
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::default();
    let serial = random_serial();
    params.distinguished_name = DistinguishedName::new();
    // The serial tells roots of several installations apart in listings.
    params.distinguished_name.push(DnType::CommonName, format!("Trueline collector CA {}", hex::encode(&serial[..4])));
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now.plus_seconds(-86_400), now.plus_seconds(ROOT_LIFETIME_SECONDS));
    let root = params.self_signed(&key).map_err(failed)?;
    Ok(format!("{}{}", key.serialize_pem(), root.pem()))
}

fn leaf(common_name: &str, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params
}

/// The key of a request that proves possession of it, if it is of a kind worth certifying.
/// The digest of the key that a PKCS #10 request asks a certificate for, which has signed it.
pub fn key_digest(request: &[u8]) -> Result<KeyDigest, CaError> {
    Ok(KeyDigest(Sha256::digest(requested_key(request)?.subject_public_key_info()).into()))
}

fn requested_key(request: &[u8]) -> Result<SubjectPublicKeyInfo, CaError> {
    let refused = |reason: &str| CaError::Request(reason.to_owned());
    if request.len() > REQUEST_LIMIT {
        return Err(CaError::Request(format!("has {} bytes; {REQUEST_LIMIT} is the limit", request.len())));
    }
    let (rest, parsed) =
        x509_parser::certification_request::X509CertificationRequest::from_der(request).map_err(|_| refused("is not PKCS #10 in DER"))?;
    if !rest.is_empty() {
        return Err(refused("has bytes after its end"));
    }
    let key = SubjectPublicKeyInfo::from_der(parsed.certification_request_info.subject_pki.raw)
        .map_err(|_| refused("has a key of an unknown kind; use ECDSA P-256, P-384 or Ed25519"))?;
    let strong = [(&rcgen::PKCS_ECDSA_P256_SHA256, 65), (&rcgen::PKCS_ECDSA_P384_SHA384, 97), (&rcgen::PKCS_ED25519, 32)];
    if !strong.iter().any(|(algorithm, length)| key.algorithm() == *algorithm && key.der_bytes().len() == *length) {
        return Err(refused("has a weak or unusual key; use ECDSA P-256, P-384 or Ed25519"));
    }
    parsed.verify_signature().map_err(|_| refused("is not signed by its own key"))?;
    Ok(key)
}

/// 128 bits, positive and without a leading zero byte, so that its DER is these bytes.
fn random_serial() -> [u8; 16] {
    let mut serial: [u8; 16] = rand::rng().random();
    serial[0] = (serial[0] & 0x3f) | 0x40;
    serial
}

fn set_validity(params: &mut CertificateParams, from: Time, until: Time) {
    let epoch = date_time_ymd(1970, 1, 1);
    let seconds = |time: Time| Duration::from_secs(u64::try_from(time.micros() / 1_000_000).unwrap_or(0));
    params.not_before = epoch + seconds(from);
    params.not_after = epoch + seconds(until);
}

fn failed<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> CaError + 'a {
    move |source| CaError::File { operation, path: path.to_owned(), source }
}

fn read_secret(path: &Path) -> Result<String, CaError> {
    let wrong = |reason: &str| CaError::Root { path: path.to_owned(), reason: reason.to_owned() };
    let seen = fs::symlink_metadata(path).map_err(failed("read", path))?;
    if !seen.is_file() {
        return Err(wrong("is not a plain file"));
    }
    if seen.permissions().mode() & 0o077 != 0 {
        return Err(wrong("can be read by others: `chmod 600` it, and consider whether the key is still secret"));
    }
    let mut text = String::new();
    fs::File::open(path).and_then(|file| file.take(FILE_LIMIT).read_to_string(&mut text)).map_err(failed("read", path))?;
    Ok(text)
}

/// Writes a file whole and durably under a temporary name beside its place.
fn write_aside(path: &Path, content: &[u8], mode: u32) -> Result<PathBuf, CaError> {
    let aside = path.with_extension(format!("new-{}", hex::encode(&random_serial()[..6])));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside).map_err(failed("create", &aside))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed("write", &aside))?;
    Ok(aside)
}

/// The first writer wins; a file that is there already stays.
fn place_once(path: &Path, content: &[u8], mode: u32) -> Result<(), CaError> {
    let aside = write_aside(path, content, mode)?;
    let placed = match fs::hard_link(&aside, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("create", path)(error)),
        _ => Ok(()),
    };
    fs::remove_file(&aside).map_err(failed("remove", &aside))?;
    sync_folder(path)?;
    placed
}

fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), CaError> {
    let aside = write_aside(path, content, mode)?;
    fs::rename(&aside, path).map_err(failed("replace", path))?;
    sync_folder(path)
}

fn sync_folder(path: &Path) -> Result<(), CaError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync", folder))
}
