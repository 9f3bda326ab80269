//! Enrolment: a join token and a key of the host's own become an identity.
//!
//! Invariants: a host is recorded together with the use of the token that it costs, and only with a request that was
//! signed by its own key; whatever fails after that, the answer on its way back too, is mended by asking again with the
//! same key, which costs no further use and makes no second host. Tries are limited by address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::{Request, Response, Status};
use trueline_drift::{Facts, HostId};
use trueline_proto::v1;
use trueline_store::{Enrolled, NewAction, NewCertificate, NewHost, Standing, StoreError, TokenKind};
use uuid::Uuid;

use crate::allowance::Allowance;
use crate::ca::{self, CaError, CertificateAuthority};
use crate::hub::{Hub, now};
use crate::tls::{Peer, Refusal, Refusals, neighbourhood};
use crate::token;

/// Guesses of one address, or of one network of IPv6, within [`PERIOD`](crate::allowance::PERIOD).
const FAILURES: u32 = 20;
/// All tries of one address, good ones too: a fleet behind one address may enrol at once, but a token that leaked
/// cannot fill the database at the speed of the wire.
const TRIES: u32 = 3_000;
const TOKEN_LIMIT: usize = 256;

pub struct EnrolmentService {
    pub hub: Arc<Hub>,
    pub ca: Arc<CertificateAuthority>,
    pub refusals: Arc<Refusals>,
    pub certificate_lifetime: Duration,
    /// As configured.
    pub link_address: Option<String>,
    /// The link's port, where agents would not assume it.
    pub link_port: Option<u16>,
    pub tries: Tries,
}

/// What each address, or network of IPv6, may still try.
#[derive(Debug)]
pub struct Tries {
    all: Allowance<IpAddr>,
    failed: Allowance<IpAddr>,
}

impl Default for Tries {
    fn default() -> Self {
        Self { all: Allowance::new(TRIES), failed: Allowance::new(FAILURES) }
    }
}

#[tonic::async_trait]
impl v1::enrolment_server::Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<v1::EnrolRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        let Some(peer) = request.extensions().get::<Peer>().cloned() else {
            return Err(Status::internal("the connection has no peer"));
        };
        let enrolled = self.enrol_host(&peer, request.into_inner()).await;
        let outcome = if enrolled.is_ok() { "enrolled" } else { "refused" };
        metrics::counter!("trueline_enrolments_total", "outcome" => outcome).increment(1);
        enrolled.map(Response::new)
    }
}

impl EnrolmentService {
    async fn enrol_host(&self, peer: &Peer, request: v1::EnrolRequest) -> Result<v1::EnrolResponse, Status> {
        let (address, local) = (peer.address.ip(), peer.local.ip().to_canonical());
        let network = neighbourhood(address);
        let tried_at = Instant::now();
        if !self.tries.failed.is_left(network, tried_at) || !self.tries.all.spend(network, tried_at) {
            let reason = "too many enrolments from this address; try again in a minute";
            self.refusals.note(peer, Refusal::TooManyTries, reason);
            return Err(Status::resource_exhausted(reason));
        }
        let refuse = |refusal, status: Status| {
            // Hosts of one image may all have come with a token that was good once: that is no guessing.
            if matches!(refusal, Refusal::TokenUnknown | Refusal::RequestInvalid) {
                self.tries.failed.spend(network, Instant::now());
            }
            self.refusals.note(peer, refusal, status.message());
            status
        };
        let facts = request.facts.ok_or_else(|| refuse(Refusal::RequestInvalid, Status::invalid_argument("facts are missing")))?;
        let facts = Facts::try_from(facts).map_err(|error| refuse(Refusal::RequestInvalid, Status::invalid_argument(error.to_string())))?;
        let now = now();
        if request.join_token.len() > TOKEN_LIMIT {
            return Err(refuse(Refusal::TokenUnknown, Status::unauthenticated("this is no join token")));
        }
        let token = token::digest(&request.join_token);
        let known = self.hub.store.token_by_digest(&token).await.map_err(unavailable)?.filter(|token| token.kind == TokenKind::Join);
        let standing = known.map(|token| token.standing(now));
        if !matches!(standing, Some(Standing::Good | Standing::UsedUp)) {
            return Err(refused(standing, &refuse));
        }
        let key = match ca::key_digest(&request.csr) {
            Ok(key) => key,
            Err(_) if standing != Some(Standing::Good) => return Err(refused(standing, &refuse)),
            Err(error) => return Err(unsigned_for(error, &refuse)),
        };
        let hostname = facts.hostname.clone();
        let new = NewHost { id: HostId(Uuid::now_v7()), facts, enrolled_at: now, token, key };
        let candidate = new.id;
        let (host, token) = match self.hub.store.enrol_host(new).await.map_err(unavailable)? {
            Enrolled::Host { id, token } => (id, token),
            Enrolled::Unknown => return Err(refused(None, &refuse)),
            Enrolled::Refused(standing) => return Err(refused(Some(standing), &refuse)),
        };
        let signed = self.ca.sign_host(&request.csr, host, &token.tenant, self.certificate_lifetime, now);
        let issued = signed.map_err(|error| unsigned_for(error, &refuse))?;
        let certificate = NewCertificate { serial: issued.serial, host, issued_at: issued.issued_at, expires_at: issued.expires_at };
        self.hub.store.add_certificate(certificate).await.map_err(unavailable)?;
        let again = if host == candidate { "" } else { ", asked again" };
        let action = NewAction {
            tenant: token.tenant,
            at: now,
            actor: format!("token:{}", token.name),
            action: "host.enrol".to_owned(),
            subject: format!("host:{host}"),
            detail: Some(format!("{hostname} from {address}{again}")),
        };
        if let Err(error) = self.hub.store.note_action(action).await {
            tracing::error!(%error, %host, "an enrolment could not be noted in the log of actions");
        }
        self.hub.news.ring();
        tracing::info!(%host, hostname, peer = %address, token = token.name, "host enrolled");
        Ok(v1::EnrolResponse {
            host_id: host.to_string(),
            certificates: vec![issued.certificate.to_vec().into()],
            ca_certificate: self.ca.root().to_vec().into(),
            link_address: self.link_address.clone().or_else(|| self.link_port.map(|port| SocketAddr::from((local, port)).to_string())),
        })
    }
}

/// The answer to a token that lets nobody in; `None` where there is no such token.
fn refused(standing: Option<Standing>, refuse: &dyn Fn(Refusal, Status) -> Status) -> Status {
    let (refusal, reason) = match standing {
        None => (Refusal::TokenUnknown, "the join token is unknown here"),
        Some(Standing::Expired) => (Refusal::TokenExpired, "the join token has expired; ask for a new one"),
        Some(Standing::UsedUp) => (Refusal::TokenUsedUp, "the join token is used up; ask for a new one"),
        Some(Standing::Revoked) => (Refusal::TokenRevoked, "the join token was revoked"),
        Some(Standing::Good) => (Refusal::TokenUnknown, "the join token cannot be used"),
    };
    refuse(refusal, Status::unauthenticated(reason))
}

fn unsigned_for(error: CaError, refuse: &dyn Fn(Refusal, Status) -> Status) -> Status {
    match unsigned(error) {
        (Some(refusal), status) => refuse(refusal, status),
        (None, status) => status,
    }
}

/// What a peer learns of a request that was not signed, and for what it is turned away where that is its own doing.
pub fn unsigned(error: CaError) -> (Option<Refusal>, Status) {
    if let CaError::Request(_) = error {
        return (Some(Refusal::RequestInvalid), Status::invalid_argument(error.to_string()));
    }
    tracing::error!(%error, "cannot sign a host's certificate");
    (None, Status::internal("the collector cannot sign certificates; see its log"))
}

/// What a peer learns of a failing store: that it should try again, not why.
pub fn unavailable(error: StoreError) -> Status {
    tracing::error!(%error, "a request failed in the store");
    if error.is_passing() {
        Status::unavailable("the collector's database is not available; try again")
    } else {
        Status::internal("the collector's database refused; see the collector's log")
    }
}
