//! The agents' link, port 9440: the gRPC service, who may use it, and the streams it runs.
//!
//! Invariants: the identity in the verified client certificate is the only identity, whatever a
//! message says; its serial is looked up in the store after the stream is registered, so that a revocation
//! either refuses the stream or ends it; every stream's task is owned here and joined.

mod session;
mod status;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use trueline_proto::v1;
use trueline_store::{NewAction, NewCertificate};

use crate::ca::{CaError, CertificateAuthority};
use crate::config::PolicyDocument;
use crate::enrolment::unavailable;
use crate::hub::{Hub, now};
use crate::ingest::Ingest;
use crate::tls::{Peer, PeerIdentity, Refusal, Refusals};

use session::Session;

/// Messages to an agent that may wait in the collector.
const OUTBOX: usize = 16;

pub type Policy = Option<Arc<PolicyDocument>>;

pub struct LinkService {
    pub hub: Arc<Hub>,
    pub ca: Arc<CertificateAuthority>,
    pub refusals: Arc<Refusals>,
    pub ingest: Ingest,
    pub policy: watch::Receiver<Policy>,
    pub sessions: Arc<Sessions>,
    pub heartbeat_seconds: u32,
    pub certificate_lifetime: Duration,
}

/// The tasks of the live streams.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<JoinSet<()>>);

impl Sessions {
    fn spawn(&self, session: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = tasks.try_join_next() {
            note_panic(ended);
        }
        tasks.spawn(session);
    }

    /// Waits for every stream to end; they end by themselves once the hub shuts down.
    pub async fn join(&self) {
        let mut tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some(ended) = tasks.join_next().await {
            note_panic(ended);
        }
    }
}

fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a stream's task failed");
    }
}

fn peer_of<T>(request: &Request<T>) -> Result<(IpAddr, PeerIdentity), Status> {
    match request.extensions().get::<Peer>() {
        Some(Peer { address, identity: Some(identity), .. }) => Ok((address.ip(), identity.clone())),
        _ => Err(Status::unauthenticated("this port needs a client certificate")),
    }
}

/// Whether the certificate may still speak for its host.
async fn check_credential(hub: &Hub, identity: &PeerIdentity) -> Result<(), (Option<Refusal>, Status)> {
    let credential = hub.store.credential(&identity.serial).await.map_err(|error| (None, unavailable(error)))?;
    match credential {
        Some(credential) if credential.revoked_at.is_some() => {
            Err((Some(Refusal::HostRevoked), Status::permission_denied("this host's certificate was revoked")))
        }
        Some(credential) if credential.host == identity.host && credential.tenant == identity.tenant => Ok(()),
        _ => Err((Some(Refusal::CertificateUnknown), Status::permission_denied("this certificate is unknown here; enrol the host again"))),
    }
}

#[tonic::async_trait]
impl v1::link_server::Link for LinkService {
    type StreamStream = ReceiverStream<Result<v1::FromCollector, Status>>;

    async fn stream(&self, request: Request<Streaming<v1::FromAgent>>) -> Result<Response<Self::StreamStream>, Status> {
        let (address, identity) = peer_of(&request)?;
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let session = Session {
            hub: Arc::clone(&self.hub),
            refusals: Arc::clone(&self.refusals),
            ingest: self.ingest.clone(),
            policy: self.policy.clone(),
            heartbeat_seconds: self.heartbeat_seconds,
            address,
            identity,
            outbox,
        };
        self.sessions.spawn(session.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let (address, identity) = peer_of(&request)?;
        let refuse = |(refusal, status): (Option<Refusal>, Status)| {
            if let Some(refusal) = refusal {
                self.refusals.note(address, refusal, status.message());
            }
            status
        };
        check_credential(&self.hub, &identity).await.map_err(refuse)?;
        let now = now();
        let csr = request.into_inner().csr;
        let issued =
            self.ca.sign_host(&csr, identity.host, &identity.tenant, self.certificate_lifetime, now).map_err(|error| match error {
                CaError::Request(_) => refuse((Some(Refusal::RequestInvalid), Status::invalid_argument(error.to_string()))),
                error => {
                    tracing::error!(%error, "cannot sign a host's certificate");
                    Status::internal("the collector cannot sign certificates; see its log")
                }
            })?;
        let certificate =
            NewCertificate { serial: issued.serial, host: identity.host, issued_at: issued.issued_at, expires_at: issued.expires_at };
        self.hub.store.add_certificate(certificate).await.map_err(unavailable)?;
        let action = NewAction {
            tenant: identity.tenant,
            at: now,
            actor: format!("host:{}", identity.host),
            action: "certificate.renew".to_owned(),
            subject: format!("host:{}", identity.host),
            detail: None,
        };
        if let Err(error) = self.hub.store.note_action(action).await {
            tracing::error!(%error, host = %identity.host, "a renewal could not be noted in the log of actions");
        }
        Ok(Response::new(v1::RenewResponse { certificates: vec![issued.certificate.to_vec().into()] }))
    }
}
