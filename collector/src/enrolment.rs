//! Enrolment: a join token and a key of the host's own become an identity.
//!
//! Invariants: a token's use is spent before anything else happens and is not given back, so that no
//! failure can be used to get more out of it; a host is recorded only with a request that can be
//! signed, so that none is enrolled by half. Tries are limited by address, and the table of addresses
//! is bounded.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tonic::{Request, Response, Status};
use trueline_drift::{Facts, HostId};
use trueline_proto::v1;
use trueline_store::{NewAction, NewCertificate, NewHost, Spent, Standing, StoreError, TokenKind};
use uuid::Uuid;

use crate::ca::{CaError, CertificateAuthority};
use crate::hub::{Hub, now};
use crate::tls::{Peer, Refusal, Refusals};
use crate::token;

/// Failed tries of one address within [`TRIES_PERIOD`]. Good tokens are not counted: a fleet behind one
/// address may enrol at once.
const TRIES: u32 = 20;
const TRIES_PERIOD: Duration = Duration::from_secs(60);
const TRIES_ENTRIES: usize = 4096;
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

/// Failed tries by address.
#[derive(Debug, Default)]
pub struct Tries(Mutex<HashMap<IpAddr, (Instant, u32)>>);

impl Tries {
    fn may_try(&self, address: IpAddr, now: Instant) -> bool {
        let tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tries.get(&address).is_none_or(|(since, failed)| *failed < TRIES || now.duration_since(*since) >= TRIES_PERIOD)
    }

    fn failed(&self, address: IpAddr, now: Instant) {
        let mut tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tries.len() >= TRIES_ENTRIES {
            tries.retain(|_, (since, _)| now.duration_since(*since) < TRIES_PERIOD);
        }
        if tries.len() >= TRIES_ENTRIES
            && let Some(oldest) = tries.iter().min_by_key(|(_, (since, _))| *since).map(|(address, _)| *address)
        {
            tries.remove(&oldest);
        }
        let (since, failed) = tries.entry(address).or_insert((now, 0));
        if now.duration_since(*since) >= TRIES_PERIOD {
            (*since, *failed) = (now, 0);
        }
        *failed += 1;
    }
}

#[tonic::async_trait]
impl v1::enrolment_server::Enrolment for EnrolmentService {
    async fn enrol(&self, request: Request<v1::EnrolRequest>) -> Result<Response<v1::EnrolResponse>, Status> {
        let Some(Peer { address, local, .. }) = request.extensions().get::<Peer>().cloned() else {
            return Err(Status::internal("the connection has no peer"));
        };
        let enrolled = self.enrol_host(address.ip(), local.ip().to_canonical(), request.into_inner()).await;
        let outcome = if enrolled.is_ok() { "enrolled" } else { "refused" };
        metrics::counter!("trueline_enrolments_total", "outcome" => outcome).increment(1);
        enrolled.map(Response::new)
    }
}

impl EnrolmentService {
    async fn enrol_host(&self, address: IpAddr, local: IpAddr, request: v1::EnrolRequest) -> Result<v1::EnrolResponse, Status> {
        if !self.tries.may_try(address, Instant::now()) {
            let reason = "too many failed enrolments from this address; try again in a minute";
            self.refusals.note(address, Refusal::TooManyTries, reason);
            return Err(Status::resource_exhausted(reason));
        }
        let refuse = |refusal, status: Status| {
            self.tries.failed(address, Instant::now());
            self.refusals.note(address, refusal, status.message());
            status
        };
        let facts = request.facts.ok_or_else(|| refuse(Refusal::RequestInvalid, Status::invalid_argument("facts are missing")))?;
        let facts = Facts::try_from(facts).map_err(|error| refuse(Refusal::RequestInvalid, Status::invalid_argument(error.to_string())))?;
        let now = now();
        if request.join_token.len() > TOKEN_LIMIT {
            return Err(refuse(Refusal::TokenRefused, Status::unauthenticated("this is no join token")));
        }
        let spent = self.hub.store.spend_token(&token::digest(&request.join_token), TokenKind::Join, now).await.map_err(unavailable)?;
        let token = match spent {
            Spent::Token(token) => token,
            Spent::Unknown => return Err(refuse(Refusal::TokenRefused, Status::unauthenticated("the join token is unknown here"))),
            Spent::Refused(standing) => {
                let reason = match standing {
                    Standing::Expired => "the join token has expired; ask for a new one",
                    Standing::UsedUp => "the join token is used up; ask for a new one",
                    Standing::Revoked => "the join token was revoked",
                    Standing::Good => "the join token cannot be used",
                };
                return Err(refuse(Refusal::TokenRefused, Status::unauthenticated(reason)));
            }
        };
        let host = HostId(Uuid::now_v7());
        let issued = self.ca.sign_host(&request.csr, host, &token.tenant, self.certificate_lifetime, now).map_err(|error| match error {
            CaError::Request(_) => refuse(Refusal::RequestInvalid, Status::invalid_argument(error.to_string())),
            error => {
                tracing::error!(%error, "cannot sign a host's certificate");
                Status::internal("the collector cannot sign certificates; see its log")
            }
        })?;
        let hostname = facts.hostname.clone();
        let new = NewHost { id: host, tenant: token.tenant.clone(), facts, enrolled_at: now, token: token.id };
        self.hub.store.enrol_host(new).await.map_err(unavailable)?;
        let certificate = NewCertificate { serial: issued.serial, host, issued_at: issued.issued_at, expires_at: issued.expires_at };
        if let Err(error) = self.hub.store.add_certificate(certificate).await {
            // A host that can never connect should not be counted among those that are silent.
            if let Err(error) = self.hub.store.revoke_host(&token.tenant, host, now).await {
                tracing::error!(%error, %host, "a host was enrolled without a certificate and could not be revoked");
            }
            return Err(unavailable(error));
        }
        let action = NewAction {
            tenant: token.tenant,
            at: now,
            actor: format!("token:{}", token.name),
            action: "host.enrol".to_owned(),
            subject: format!("host:{host}"),
            detail: Some(format!("{hostname} from {address}")),
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

/// What a peer learns of a failing store: that it should try again, not why.
pub fn unavailable(error: StoreError) -> Status {
    tracing::error!(%error, "a request failed in the store");
    if error.is_passing() {
        Status::unavailable("the collector's database is not available; try again")
    } else {
        Status::internal("the collector's database refused; see the collector's log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tries_are_limited_by_address_and_forgotten_after_a_while() {
        let tries = Tries::default();
        let (one, other): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let start = Instant::now();
        for _ in 0..TRIES {
            assert!(tries.may_try(one, start));
            tries.failed(one, start);
        }
        assert!(!tries.may_try(one, start));
        assert!(tries.may_try(other, start));
        assert!(tries.may_try(one, start + TRIES_PERIOD));
    }

    #[test]
    fn the_table_of_tries_stays_bounded() {
        let tries = Tries::default();
        let start = Instant::now();
        for number in 0..(TRIES_ENTRIES as u32 + 10) {
            tries.failed(IpAddr::from(number.to_be_bytes()), start);
        }
        assert_eq!(tries.0.lock().unwrap().len(), TRIES_ENTRIES);
    }
}
