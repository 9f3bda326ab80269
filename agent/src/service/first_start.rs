//! The first start of a host that nobody has enrolled by hand: it enrols itself with what its environment says.
//!
//! Invariants: a collector that cannot be reached, or that is busy, is tried again for as long as it takes; what it
//! refuses for good ends the service with a message that says what to do. An identity that somebody made meanwhile is
//! used and never replaced. The token is in no log.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use trueline_systemd::watchdog::Heartbeat;

use super::Confinement;
use crate::enrol::{EnrolError, EnrolRequest, Granted, Turn};
use crate::identity::{Identity, IdentityError};
use crate::link::Backoff;
use crate::run::beat;

/// What the environment holds of `/etc/trueline/enroll.env`.
#[derive(Clone, Default)]
pub struct Invitation {
    pub collector: Option<String>,
    pub token: Option<String>,
    pub ca_sha256: Option<String>,
}

pub const COLLECTOR: &str = "TRUELINE_COLLECTOR";
pub const TOKEN: &str = "TRUELINE_JOIN_TOKEN";
pub const CA_SHA256: &str = "TRUELINE_CA_SHA256";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvitationError {
    #[error(
        "this host is not enrolled: write {COLLECTOR}, {TOKEN} and {CA_SHA256} into /etc/trueline/enroll.env and start the service \
         again, or run `trueline-agent enroll --collector HOST:9441 --token T --ca-sha256 HEX`"
    )]
    None,
    #[error("this host is not enrolled, and {missing} is missing beside the others: look at /etc/trueline/enroll.env")]
    Partial { missing: &'static str },
    #[error("{CA_SHA256} is not 64 hexadecimal digits: `trueline-collector ca` prints them")]
    Digest,
}

impl Invitation {
    /// `token`: of the environment, out of which it was taken.
    pub fn from_environment(token: Option<String>) -> Self {
        let read = |name| std::env::var(name).ok();
        Self { collector: read(COLLECTOR), token, ca_sha256: read(CA_SHA256) }
    }

    pub fn request(self, data_dir: std::path::PathBuf) -> Result<EnrolRequest, InvitationError> {
        let known = |value: Option<String>| value.map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let (collector, token, digest) = match (known(self.collector), known(self.token), known(self.ca_sha256)) {
            (None, None, None) => return Err(InvitationError::None),
            (None, ..) => return Err(InvitationError::Partial { missing: COLLECTOR }),
            (_, None, _) => return Err(InvitationError::Partial { missing: TOKEN }),
            (.., None) => return Err(InvitationError::Partial { missing: CA_SHA256 }),
            (Some(collector), Some(token), Some(digest)) => (collector, token, digest),
        };
        let ca_sha256 = parse_digest(&digest).ok_or(InvitationError::Digest)?;
        Ok(EnrolRequest { collector, token, ca_sha256, data_dir, link: None })
    }
}

/// 64 hexadecimal digits.
pub fn parse_digest(text: &str) -> Option<[u8; 32]> {
    hex::decode(text.trim()).ok()?.try_into().ok()
}

/// Enrolment under way, on a thread of its own.
pub struct Enrolment {
    thread: JoinHandle<Option<Result<Identity, EnrolError>>>,
    stop: CancellationToken,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Enrolment {
    pub fn start(request: EnrolRequest, confinement: Confinement, heartbeat: Arc<Heartbeat>) -> std::io::Result<Self> {
        let (stop, trouble) = (CancellationToken::new(), Arc::new(Mutex::new(None)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build()?;
        let (stopping, shown) = (stop.clone(), Arc::clone(&trouble));
        let thread = std::thread::Builder::new().name("enrolment".to_owned()).spawn(move || {
            confinement.enter();
            let ended = runtime.block_on(async {
                tokio::select! {
                    ended = keep_trying(&request, &shown, &stopping) => ended,
                    never = beat(&heartbeat) => never,
                }
            });
            // What is left looks up a name, which may take half a minute; what an identity takes was waited for.
            runtime.shutdown_background();
            ended
        })?;
        Ok(Self { thread, stop, trouble })
    }

    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// What went wrong at the last attempt; none failed yet where absent.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for its end, which is soon; `None` where it was stopped before.
    pub fn finish(self) -> Option<Result<Identity, EnrolError>> {
        self.stop.cancel();
        self.thread.join().unwrap_or_default()
    }
}

/// `None` where it was stopped before the host was enrolled.
async fn keep_trying(
    request: &EnrolRequest,
    trouble: &Mutex<Option<String>>,
    stop: &CancellationToken,
) -> Option<Result<Identity, EnrolError>> {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    info!(collector = request.collector, "this host is not enrolled yet; enrolling it");
    loop {
        let attempt = tokio::select! {
            () = stop.cancelled() => return None,
            attempt = attempt(request) => attempt,
        };
        let enrolled = match attempt {
            // Whoever stops the service waits for this: half an identity is none.
            Ok(Attempt::Granted(granted)) => granted.keep().await,
            Ok(Attempt::There(identity)) => Ok(*identity),
            Err(error) => Err(error),
        };
        match enrolled {
            Ok(identity) => {
                info!(host = %identity.host, link = identity.link, "enrolled");
                return Some(Ok(identity));
            }
            Err(error) if error.is_final() => return Some(Err(error)),
            Err(error) => {
                let wait = backoff.next_wait(rand::random());
                warn!(%error, retry_ms = wait.as_millis() as u64, "this host could not be enrolled yet");
                *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                tokio::select! {
                    () = stop.cancelled() => return None,
                    () = tokio::time::sleep(wait) => {}
                }
            }
        }
    }
}

enum Attempt {
    Granted(Box<Granted>),
    /// Somebody enrolled the host by hand meanwhile.
    There(Box<Identity>),
}

async fn attempt(request: &EnrolRequest) -> Result<Attempt, EnrolError> {
    let turn = Turn::wait(&request.data_dir).await?;
    let data_dir = request.data_dir.clone();
    let present = tokio::task::spawn_blocking(move || Identity::load(&data_dir)).await;
    match present {
        Ok(Ok(identity)) => Ok(Attempt::There(Box::new(identity))),
        Ok(Err(IdentityError::NotEnrolled { .. })) => Ok(Attempt::Granted(Box::new(turn.ask(request.clone()).await?))),
        Ok(Err(error)) => Err(error.into()),
        Err(error) => Err(EnrolError::Failed { message: format!("looking for an identity broke off: {error}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invitation(collector: &str, token: &str, digest: &str) -> Invitation {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Invitation { collector: given(collector), token: given(token), ca_sha256: given(digest) }
    }

    #[test]
    fn an_invitation_is_whole_or_says_what_it_lacks() {
        let digest = "ab".repeat(32);
        let request = |invitation: Invitation| invitation.request("/data".into());
        let whole = request(invitation("c:9441", " t ", &format!("{digest}\n"))).unwrap();
        assert_eq!((whole.token.as_str(), whole.ca_sha256), ("t", [0xab; 32]));
        for (asked, expected) in [
            (invitation("", "", ""), InvitationError::None),
            (invitation("", "t", &digest), InvitationError::Partial { missing: COLLECTOR }),
            (invitation("c:9441", " ", &digest), InvitationError::Partial { missing: TOKEN }),
            (invitation("c:9441", "t", ""), InvitationError::Partial { missing: CA_SHA256 }),
            (invitation("c:9441", "t", "abc"), InvitationError::Digest),
        ] {
            assert_eq!(request(asked).unwrap_err(), expected);
        }
    }
}
