//! The agents' link, port 9440: the gRPC service, who may use it, and the streams it runs.
//!
//! Invariants: the identity in the verified client certificate is the only identity, whatever a
//! message says; its serial is looked up in the store before a stream is registered, so that who may not speak ends no
//! other, and again after, so that a revocation either refuses the stream or ends it; every stream's task is owned here and joined.

mod end;
mod greeting;
mod progress;
mod session;
mod status;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use trueline_drift::HostId;
use trueline_proto::v1;
use trueline_store::{NewAction, NewCertificate};

use crate::allowance::{Allowance, PERIOD};
use crate::ca::CertificateAuthority;
use crate::config::PolicyDocument;
use crate::enrolment::{unavailable, unsigned};
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
    pub renewals: Allowance<HostId>,
}

/// Renewals of one host within [`PERIOD`], over those that its certificates' lifetime asks for.
const RENEWALS: u32 = 10;

/// What each host may renew: an agent does it at two thirds of its certificate's life, and again where that failed.
pub fn renewals(lifetime: Duration) -> Allowance<HostId> {
    let due = PERIOD.as_secs() * 3 / lifetime.as_secs().max(1);
    Allowance::new(RENEWALS.saturating_add(u32::try_from(due).unwrap_or(u32::MAX)))
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

fn peer_of<T>(request: &Request<T>) -> Result<(Peer, PeerIdentity), Status> {
    match request.extensions().get::<Peer>() {
        Some(peer @ Peer { identity: Some(identity), .. }) => Ok((peer.clone(), identity.clone())),
        _ => Err(Status::unauthenticated("this port needs a client certificate")),
    }
}

/// Whether the certificate may still speak for its host.
pub async fn check_credential(hub: &Hub, identity: &PeerIdentity) -> Result<(), (Option<Refusal>, Status)> {
    let credential = hub.store.credential(&identity.serial).await.map_err(|error| (None, unavailable(error)))?;
    match credential {
        Some(credential) if credential.revoked_at.is_some() => {
            Err((Some(Refusal::HostRevoked), Status::permission_denied("this host's certificate was revoked")))
        }
        Some(credential) if credential.host == identity.host && credential.tenant == identity.tenant => Ok(()),
        Some(_) => Err(unknown_certificate()),
        None => adopt(hub, identity).await,
    }
}

fn unknown_certificate() -> (Option<Refusal>, Status) {
    (Some(Refusal::CertificateUnknown), Status::permission_denied("this certificate is unknown here; enrol the host again"))
}

/// Puts a certificate on record that is not, for a host that is and was not revoked. TLS has proven that our CA signed
/// it: the database was set back to a backup older than the host's last renewal. A fleet must survive that.
async fn adopt(hub: &Hub, identity: &PeerIdentity) -> Result<(), (Option<Refusal>, Status)> {
    let failed = |error| (None, unavailable(error));
    let host = hub.store.host(&identity.tenant, &identity.host.to_string()).await.map_err(failed)?;
    match host {
        None => return Err(unknown_certificate()),
        Some(host) if host.revoked_at.is_some() => {
            return Err((Some(Refusal::HostRevoked), Status::permission_denied("this host's certificate was revoked")));
        }
        Some(_) => {}
    }
    let now = now();
    let certificate =
        NewCertificate { serial: identity.serial.clone(), host: identity.host, issued_at: now, expires_at: identity.expires_at };
    let action = NewAction {
        tenant: identity.tenant.clone(),
        at: now,
        actor: "collector".to_owned(),
        action: "certificate.adopt".to_owned(),
        subject: format!("host:{}", identity.host),
        detail: Some(format!("{} was not on record: the database was set back", identity.serial)),
    };
    // First, for once the certificate is on record nobody comes here again.
    hub.store.note_action(action).await.map_err(failed)?;
    hub.store.add_certificate(certificate).await.map_err(failed)?;
    tracing::warn!(host = %identity.host, serial = identity.serial, "a certificate of this CA that was not on record was adopted");
    Ok(())
}

#[tonic::async_trait]
impl v1::link_server::Link for LinkService {
    type StreamStream = ReceiverStream<Result<v1::FromCollector, Status>>;

    async fn stream(&self, request: Request<Streaming<v1::FromAgent>>) -> Result<Response<Self::StreamStream>, Status> {
        let (peer, identity) = peer_of(&request)?;
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let session = Session {
            hub: Arc::clone(&self.hub),
            refusals: Arc::clone(&self.refusals),
            ingest: self.ingest.clone(),
            policy: self.policy.clone(),
            heartbeat_seconds: self.heartbeat_seconds,
            peer,
            identity,
            outbox,
        };
        self.sessions.spawn(session.run(request.into_inner()));
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let renewed = self.renew_host(request).await;
        let outcome = if renewed.is_ok() { "renewed" } else { "refused" };
        metrics::counter!("trueline_renewals_total", "outcome" => outcome).increment(1);
        renewed.map(Response::new)
    }
}

impl LinkService {
    async fn renew_host(&self, request: Request<v1::RenewRequest>) -> Result<v1::RenewResponse, Status> {
        let (peer, identity) = peer_of(&request)?;
        let refuse = |(refusal, status): (Option<Refusal>, Status)| {
            if let Some(refusal) = refusal {
                self.refusals.note(&peer, refusal, format_args!("host {}: {}", identity.host, status.message()));
            }
            status
        };
        if !self.renewals.spend(identity.host, Instant::now()) {
            return Err(refuse((
                Some(Refusal::TooManyTries),
                Status::resource_exhausted("too many renewals of this host's certificate; try again in a minute"),
            )));
        }
        check_credential(&self.hub, &identity).await.map_err(refuse)?;
        let now = now();
        let csr = request.into_inner().csr;
        let signed = self.ca.sign_host(&csr, identity.host, &identity.tenant, self.certificate_lifetime, now);
        let issued = signed.map_err(unsigned).map_err(refuse)?;
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
        Ok(v1::RenewResponse { certificates: vec![issued.certificate.to_vec().into()] })
    }
}
