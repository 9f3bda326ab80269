//! Becoming known to a collector: a key made here, a join token, a pinned CA.
//!
//! Invariants: one enrolment at a time into a data directory; it may be broken off at any moment and begun again with the
//! same token, and makes one host; nothing that the collector says is kept or shown before it was parsed.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tonic::Code;
use trueline_drift::{Epoch, HostId, text};
use trueline_proto::v1;
use trueline_proto::v1::enrolment_client::EnrolmentClient;

use crate::identity::{Identity, IdentityError, KeyRequest, make_directory};
use crate::link::{ConnectError, check_address, pinned_channel};
use crate::spool::{Spool, SpoolError, SpoolLimit};

/// How long the collector may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait for another enrolment into the same folder: longer than one asks and keeps.
const TURN_TIMEOUT: Duration = Duration::from_secs(60);
const TURN_AGAIN: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub struct EnrolRequest {
    /// host:port of the collector's enrolment, usually port 9441.
    pub collector: String,
    pub token: String,
    /// Of the CA certificate's DER.
    pub ca_sha256: [u8; 32],
    pub data_dir: PathBuf,
    /// host:port of the link, where the collector's answer is not to be used.
    pub link: Option<String>,
}

impl std::fmt::Debug for EnrolRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnrolRequest").field("collector", &self.collector).field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("the collector refused to enrol this host: {message}")]
    Refused { message: String },
    #[error("the collector could not enrol this host: {message}")]
    Failed { message: String },
    #[error("the collector sent a CA other than the one pinned with --ca-sha256")]
    OtherCa,
    #[error("another enrolment into {} is under way", path.display())]
    Busy { path: PathBuf },
    #[error("meanwhile {} holds another identity; it stays", path.display())]
    Overtaken { path: PathBuf },
    #[error("cannot {operation} {}: {source}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl EnrolError {
    /// Whether asking again with the same request leads to the same answer.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::OtherCa => true,
            Self::Connect(error) => matches!(error, ConnectError::Address { .. } | ConnectError::OtherCa { .. }),
            Self::Failed { .. } | Self::Busy { .. } | Self::Overtaken { .. } | Self::Io { .. } | Self::Identity(_) => false,
        }
    }
}

/// Enrols the host and keeps its identity in the data directory.
pub async fn enrol(request: EnrolRequest) -> Result<Identity, EnrolError> {
    Turn::wait(&request.data_dir).await?.ask(request).await?.keep().await
}

/// The right to change who the host is: the service and whoever enrols it by hand have it one after the other. Given
/// back when dropped.
#[derive(Debug)]
pub struct Turn {
    _folder: File,
}

impl Turn {
    /// Waits for it, a minute at most.
    pub async fn wait(data_dir: &Path) -> Result<Self, EnrolError> {
        let deadline = Instant::now() + TURN_TIMEOUT;
        loop {
            let path = data_dir.to_owned();
            match blocking(move || Self::take(&path)).await? {
                Err(EnrolError::Busy { .. }) if Instant::now() < deadline => tokio::time::sleep(TURN_AGAIN).await,
                taken => return taken,
            }
        }
    }

    fn take(data_dir: &Path) -> Result<Self, EnrolError> {
        let path = &make_directory(data_dir)?;
        let fail = |operation| move |source| EnrolError::Io { operation, path: path.clone(), source };
        let folder = File::open(path).map_err(fail("open"))?;
        match folder.try_lock() {
            Ok(()) => Ok(Self { _folder: folder }),
            Err(TryLockError::WouldBlock) => Err(EnrolError::Busy { path: data_dir.to_owned() }),
            Err(TryLockError::Error(source)) => Err(fail("lock")(source)),
        }
    }

    /// Asks the collector. Whatever becomes of the answer, asking again with the same token is the same enrolment: the key
    /// is on disk before, and it is by its key that the collector knows the host.
    pub async fn ask(self, request: EnrolRequest) -> Result<Granted, EnrolError> {
        if let Some(link) = &request.link {
            check_address(link)?;
        }
        let channel = pinned_channel(&request.collector, request.ca_sha256).await?;
        let data_dir = request.data_dir.clone();
        let (key, replaces) =
            blocking(move || Ok::<_, IdentityError>((KeyRequest::pending(&data_dir)?, present_host(&data_dir)))).await??;
        let facts = tokio::task::spawn_blocking(crate::facts::read).await.unwrap_or_default();
        let mut client = EnrolmentClient::new(channel);
        let wish = v1::EnrolRequest { join_token: request.token.clone(), csr: key.csr.clone().into(), facts: Some(facts.into()) };
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.enrol(wish))
            .await
            .map_err(|_| EnrolError::Failed { message: format!("it did not answer within {} s", ANSWER_TIMEOUT.as_secs()) })?
            .map_err(|status| {
                let message = text::bounded(&text::printable(status.message().as_bytes()), 300).into_owned();
                match status.code() {
                    Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument => EnrolError::Refused { message },
                    // Too many at once among them: it may well take this host later.
                    _ => EnrolError::Failed { message },
                }
            })?
            .into_inner();
        if <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(&answer.ca_certificate)) != request.ca_sha256 {
            return Err(EnrolError::OtherCa);
        }
        let unusable = |reason: String| IdentityError::Answer { reason };
        let host = answer.host_id.parse().map_err(|_| unusable("its host id is not a UUID".to_owned()))?;
        let host_name = request.collector.rsplit_once(':').map_or(request.collector.as_str(), |(host, _)| host);
        let link = request.link.or(answer.link_address).unwrap_or_else(|| format!("{host_name}:9440"));
        check_address(&link).map_err(|error| unusable(format!("where it has the link: {error}")))?;
        let chain = answer.certificates.iter().map(|certificate| certificate.to_vec()).collect();
        Ok(Granted { turn: self, data_dir: request.data_dir, replaces, key, host, link, chain, ca: answer.ca_certificate.to_vec() })
    }
}

/// What a collector granted, in memory alone.
pub struct Granted {
    turn: Turn,
    data_dir: PathBuf,
    replaces: Option<HostId>,
    key: KeyRequest,
    host: HostId,
    link: String,
    chain: Vec<Vec<u8>>,
    ca: Vec<u8>,
}

impl Granted {
    /// Keeps it in the data directory, over the identity that was there when the collector was asked.
    pub async fn keep(self) -> Result<Identity, EnrolError> {
        blocking(move || {
            let Self { turn, data_dir, replaces, key, host, link, chain, ca } = self;
            // Put there by hand, past the turn.
            if present_host(&data_dir) != replaces {
                return Err(EnrolError::Overtaken { path: data_dir });
            }
            let kept = Identity::keep(&data_dir, &key, host, &link, &chain, &ca)?;
            drop(turn);
            Ok(kept)
        })
        .await?
    }
}

fn present_host(data_dir: &Path) -> Option<HostId> {
    Identity::load(data_dir).ok().map(|identity| identity.host)
}

/// What waits for the disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, EnrolError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| EnrolError::Failed { message: format!("a step of it broke off: {error}") })
}

/// How many records in `data_dir` no collector has acknowledged. A few thousand of them may have been, shortly before the
/// agent was killed. An error where the agent is running.
pub fn unsent(data_dir: &Path) -> Result<u64, SpoolError> {
    let folder = data_dir.join("spool");
    if !folder.is_dir() {
        return Ok(0);
    }
    let new_epoch = || Epoch(u64::try_from(crate::clock::now().micros()).unwrap_or(1));
    let (spool, _) = Spool::open(&folder, SpoolLimit::default(), None, new_epoch)?;
    Ok(spool.newest().0.saturating_sub(spool.acknowledged().0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_enrolment_at_a_time_into_a_folder() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = Turn::wait(folder.path()).await.unwrap();
        assert!(matches!(Turn::take(folder.path()), Err(EnrolError::Busy { .. })));
        Turn::wait(other.path()).await.unwrap();
        let (path, second) = (folder.path().to_owned(), tokio::sync::oneshot::channel());
        let waiting = tokio::spawn(async move {
            let _ = second.0.send(());
            Turn::wait(&path).await.map(drop)
        });
        second.1.await.unwrap();
        drop(first);
        tokio::time::timeout(TURN_TIMEOUT, waiting).await.unwrap().unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_link_that_is_no_address_is_refused_before_anybody_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let request = EnrolRequest {
            collector: "127.0.0.1:1".to_owned(),
            token: "t0ken".to_owned(),
            ca_sha256: [0; 32],
            data_dir: folder.path().to_owned(),
            link: Some("evil\u{1b}[2J".to_owned()),
        };
        let error = enrol(request).await.unwrap_err();
        assert!(matches!(error, EnrolError::Connect(ConnectError::Address { .. })) && error.is_final(), "{error}");
        assert!(!error.to_string().contains('\u{1b}'));
    }
}
