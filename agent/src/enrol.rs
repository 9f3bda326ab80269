//! Becoming known to a collector: a key made here, a join token, a pinned CA.

use std::path::{Path, PathBuf};

use tonic::Code;
use trueline_drift::{Epoch, text};
use trueline_proto::v1;
use trueline_proto::v1::enrolment_client::EnrolmentClient;

use crate::identity::{Identity, IdentityError, KeyRequest};
use crate::link::{ConnectError, pinned_channel};
use crate::spool::{Spool, SpoolError, SpoolLimit};

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
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Enrols the host and keeps its identity in the data directory.
pub async fn enrol(request: EnrolRequest) -> Result<Identity, EnrolError> {
    let channel = pinned_channel(&request.collector, request.ca_sha256).await?;
    let key = KeyRequest::new()?;
    let facts = tokio::task::spawn_blocking(crate::facts::read).await.unwrap_or_default();
    let answer = EnrolmentClient::new(channel)
        .enrol(v1::EnrolRequest { join_token: request.token.clone(), csr: key.csr.clone().into(), facts: Some(facts.into()) })
        .await
        .map_err(|status| {
            let message = text::bounded(&text::printable(status.message().as_bytes()), 300).into_owned();
            match status.code() {
                Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument | Code::ResourceExhausted => {
                    EnrolError::Refused { message }
                }
                _ => EnrolError::Failed { message },
            }
        })?
        .into_inner();
    if <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(&answer.ca_certificate)) != request.ca_sha256 {
        return Err(EnrolError::OtherCa);
    }
    let host = answer.host_id.parse().map_err(|_| IdentityError::Answer { reason: "its host id is not a UUID".to_owned() })?;
    let host_name = request.collector.rsplit_once(':').map_or(request.collector.as_str(), |(host, _)| host);
    let link = request.link.or(answer.link_address).unwrap_or_else(|| format!("{host_name}:9440"));
    let chain: Vec<Vec<u8>> = answer.certificates.iter().map(|certificate| certificate.to_vec()).collect();
    let data_dir = request.data_dir;
    let kept = tokio::task::spawn_blocking(move || Identity::keep(&data_dir, &key, host, &link, &chain, &answer.ca_certificate)).await;
    Ok(kept.unwrap_or_else(|error| Err(IdentityError::Answer { reason: format!("keeping it failed: {error}") }))?)
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
