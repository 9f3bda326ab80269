//! The daemon's configuration: `/etc/trueline/collector.toml`, with the command line's words over it.
//!
//! Invariants: an unknown key is refused with file, line and the nearest known key; a configuration
//! that passed [`Settings::into_config`] can be served as it is.

use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use trueline_drift::document::{DocumentError, parse_toml, parse_yaml};
use trueline_drift::watch::WatchPolicy;
use trueline_store::StoreError;

pub const DEFAULT_PATH: &str = "/etc/trueline/collector.toml";
const DEFAULT_DATA_DIR: &str = "/var/lib/trueline-collector";
/// Largest configuration or watch policy file, in bytes.
const FILE_LIMIT: u64 = 1024 * 1024;
const LIFETIME_SECONDS_MOST: u64 = 90 * 86_400;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is larger than {FILE_LIMIT} bytes", .0.display())]
    TooLarge(PathBuf),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("{}: {fault}", path.display())]
    Policy { path: PathBuf, fault: String },
    #[error("{}: cannot look up which text its version stands for: {source}", path.display())]
    PolicyVersion { path: PathBuf, source: StoreError },
    #[error("{key} = {value}: {reason}")]
    Setting { key: &'static str, value: String, reason: &'static str },
}

impl ConfigError {
    /// Whether it stays until somebody edits a file or a command line. What could not be read says nothing of what it holds:
    /// its disk may fail, its file system may not be mounted yet.
    pub fn is_lasting(&self) -> bool {
        match self {
            // No plain file; no text.
            Self::File { source, .. } => matches!(source.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData),
            Self::PolicyVersion { source, .. } => !source.is_passing(),
            Self::TooLarge(_) | Self::Document(_) | Self::Policy { .. } | Self::Setting { .. } => true,
        }
    }
}

/// The TOML document; every key may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Keeps the CA and, unless `database` says otherwise, the database.
    pub data_dir: Option<PathBuf>,
    /// `sqlite:PATH` or `postgres://…`
    pub database: Option<String>,
    /// Agents' link, mutual TLS. ADDRESS:PORT
    pub listen_agents: Option<SocketAddr>,
    pub listen_enrolment: Option<SocketAddr>,
    /// REST and console.
    pub listen_rest: Option<SocketAddr>,
    /// DNS names and addresses under which agents reach this collector.
    pub names: Option<Vec<String>>,
    /// host:port of the link as agents should dial it, where it is not the enrolment's host.
    pub link_address: Option<String>,
    /// Lifetime of an agent's certificate, which it renews by itself.
    pub certificate_seconds: Option<u64>,
    /// Lifetime of the collector's own certificate on the agents' ports, renewed while it serves.
    pub server_certificate_seconds: Option<u64>,
    pub heartbeat_seconds: Option<u32>,
    /// PEM, for REST on other addresses than loopback.
    pub rest_certificate: Option<PathBuf>,
    pub rest_key: Option<PathBuf>,
    /// YAML; sent to every agent. Read again at SIGHUP.
    pub watch_policy: Option<PathBuf>,
}

/// What is served.
#[derive(Debug, Clone)]
pub struct Config {
    pub data_dir: PathBuf,
    pub database: String,
    pub listen_agents: SocketAddr,
    pub listen_enrolment: SocketAddr,
    pub listen_rest: SocketAddr,
    pub names: Vec<String>,
    pub link_address: Option<String>,
    pub certificate_lifetime: Duration,
    pub server_certificate_lifetime: Duration,
    pub heartbeat_seconds: u32,
    pub rest_tls: Option<RestTls>,
    pub watch_policy: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct RestTls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Settings {
    /// The file named, or the default one where it exists.
    pub fn read(path: Option<&Path>) -> Result<Self, ConfigError> {
        let text = match path {
            Some(path) => read_bounded(path)?,
            None => match read_bounded(Path::new(DEFAULT_PATH)) {
                Err(ConfigError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
                read => read?,
            },
        };
        let name = path.unwrap_or(Path::new(DEFAULT_PATH)).display().to_string();
        Ok(parse_toml(&name, &text)?)
    }

    /// What `self` leaves open is taken from `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            data_dir: self.data_dir.or(other.data_dir),
            database: self.database.or(other.database),
            listen_agents: self.listen_agents.or(other.listen_agents),
            listen_enrolment: self.listen_enrolment.or(other.listen_enrolment),
            listen_rest: self.listen_rest.or(other.listen_rest),
            names: self.names.or(other.names),
            link_address: self.link_address.or(other.link_address),
            certificate_seconds: self.certificate_seconds.or(other.certificate_seconds),
            server_certificate_seconds: self.server_certificate_seconds.or(other.server_certificate_seconds),
            heartbeat_seconds: self.heartbeat_seconds.or(other.heartbeat_seconds),
            rest_certificate: self.rest_certificate.or(other.rest_certificate),
            rest_key: self.rest_key.or(other.rest_key),
            watch_policy: self.watch_policy.or(other.watch_policy),
        }
    }

    pub fn into_config(self) -> Result<Config, ConfigError> {
        let data_dir = self.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into());
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let listen_rest = self.listen_rest.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8089)));
        let rest_tls = match (self.rest_certificate, self.rest_key) {
            (Some(certificate), Some(key)) => Some(RestTls { certificate, key }),
            (None, None) => None,
            (Some(path), None) | (None, Some(path)) => {
                return Err(setting("rest_certificate and rest_key", path.display(), "one without the other: give both or none"));
            }
        };
        if rest_tls.is_none() && !listen_rest.ip().is_loopback() {
            return Err(setting(
                "listen_rest",
                listen_rest,
                "plain HTTP is served on loopback only: set rest_certificate and rest_key, or listen on 127.0.0.1 behind a proxy",
            ));
        }
        let certificate_lifetime = lifetime("certificate_seconds", self.certificate_seconds.unwrap_or(86_400))?;
        let server_seconds = self.server_certificate_seconds.unwrap_or(LIFETIME_SECONDS_MOST);
        let server_certificate_lifetime = lifetime("server_certificate_seconds", server_seconds)?;
        let heartbeat_seconds = self.heartbeat_seconds.unwrap_or(10);
        if !(1..=3600).contains(&heartbeat_seconds) {
            return Err(setting("heartbeat_seconds", heartbeat_seconds, "allowed are 1 to 3600"));
        }
        let names = self.names.unwrap_or_else(default_names);
        if let Some(name) = names.iter().find(|name| !is_name(name)) {
            return Err(setting("names", name, "give DNS names and addresses, without ports"));
        }
        Ok(Config {
            database: self.database.unwrap_or_else(|| format!("sqlite:{}", data_dir.join("collector.db").display())),
            listen_agents: self.listen_agents.unwrap_or_else(|| any(9440)),
            listen_enrolment: self.listen_enrolment.unwrap_or_else(|| any(9441)),
            listen_rest,
            names,
            link_address: self.link_address,
            certificate_lifetime,
            server_certificate_lifetime,
            heartbeat_seconds,
            rest_tls,
            watch_policy: self.watch_policy,
            data_dir,
        })
    }
}

/// A watch policy as agents get it: the text, proven to parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDocument {
    pub version: u64,
    pub text: String,
}

pub fn read_policy(path: &Path) -> Result<PolicyDocument, ConfigError> {
    let text = read_bounded(path)?;
    let policy: WatchPolicy = parse_yaml(&path.display().to_string(), &text)?;
    let fault = if policy.version == 0 {
        Some("version: give a number from 1, and a greater one at each edit".to_owned())
    } else {
        policy.faults().into_iter().next()
    };
    match fault {
        Some(fault) => Err(ConfigError::Policy { path: path.to_owned(), fault }),
        None => Ok(PolicyDocument { version: policy.version, text }),
    }
}

/// Of a certificate.
fn lifetime(key: &'static str, seconds: u64) -> Result<Duration, ConfigError> {
    if (1..=LIFETIME_SECONDS_MOST).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(setting(key, seconds, "allowed are 1 second to 90 days"))
    }
}

fn setting(key: &'static str, value: impl std::fmt::Display, reason: &'static str) -> ConfigError {
    ConfigError::Setting { key, value: value.to_string(), reason }
}

fn read_bounded(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::File { path: path.to_owned(), source };
    // A FIFO would block the open for ever.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file")));
    }
    let mut text = String::new();
    fs::File::open(path).and_then(|file| file.take(FILE_LIMIT + 1).read_to_string(&mut text)).map_err(failed)?;
    if text.len() as u64 > FILE_LIMIT { Err(ConfigError::TooLarge(path.to_owned())) } else { Ok(text) }
}

fn default_names() -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    // Asked of the kernel: the service sees no /proc/sys.
    let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    if is_name(&host) && !names.contains(&host) {
        names.insert(0, host);
    }
    names
}

fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    name.parse::<IpAddr>().is_ok() || (name.len() <= 253 && name.split('.').all(is_label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_key_is_refused_with_its_line_and_the_nearest_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("collector.toml");
        fs::write(&path, "data_dir = '/x'\nlisten_agent = '0.0.0.0:1'\n").unwrap();
        let error = Settings::read(Some(&path)).unwrap_err().to_string();
        assert!(error.contains(":2:1: unknown key `listen_agent`: did you mean `listen_agents`?"), "{error}");
    }

    #[test]
    fn what_cannot_be_read_now_may_be_later_and_a_text_that_is_wrong_stays_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watch.yaml");
        assert!(!read_policy(&path).unwrap_err().is_lasting(), "its file system may come");
        for text in [&b"\xff\xfe"[..], b"version: x\n"] {
            fs::write(&path, text).unwrap();
            assert!(read_policy(&path).unwrap_err().is_lasting(), "{text:?}");
        }
        assert!(read_policy(folder.path()).unwrap_err().is_lasting(), "a folder");
        for code in [nix::libc::EIO, nix::libc::EMFILE, nix::libc::EACCES] {
            let error = ConfigError::File { path: path.clone(), source: io::Error::from_raw_os_error(code) };
            assert!(!error.is_lasting(), "{error}");
        }
    }

    #[test]
    fn plain_http_off_loopback_is_refused() {
        let open = Settings { listen_rest: Some("0.0.0.0:8089".parse().unwrap()), ..Settings::default() };
        let error = open.into_config().unwrap_err().to_string();
        assert!(error.contains("plain HTTP is served on loopback only"), "{error}");
    }

    #[test]
    fn the_command_line_stands_over_the_file() {
        let file = Settings { heartbeat_seconds: Some(30), certificate_seconds: Some(60), ..Settings::default() };
        let line = Settings { heartbeat_seconds: Some(5), ..Settings::default() };
        let config = line.or(file).into_config().unwrap();
        assert_eq!(config.heartbeat_seconds, 5);
        assert_eq!(config.certificate_lifetime, Duration::from_secs(60));
        assert_eq!(config.database, "sqlite:/var/lib/trueline-collector/collector.db");
    }

    #[test]
    fn a_policy_without_a_version_of_its_own_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("watch.yaml");
        fs::write(&path, "paths: [/etc]\n").unwrap();
        assert!(read_policy(&path).unwrap_err().to_string().contains("version: give a number from 1"));
        fs::write(&path, "version: 3\npaths: [/etc]\n").unwrap();
        assert_eq!(read_policy(&path).unwrap().version, 3);
    }
}
