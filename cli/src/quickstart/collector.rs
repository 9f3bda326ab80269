//! The collector within this process: on loopback only, SQLite beneath the quickstart's folder, and
//! a token for whoever runs `trueline` beside it.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use reqwest::Url;
use tokio_util::sync::CancellationToken;
use trueline_collector::config::Settings;
use trueline_collector::hub::now;
use trueline_collector::serve::{Addresses, ServeError, Serving, serve};
use trueline_collector::token::TokenText;
use trueline_drift::TenantId;
use trueline_store::{NewToken, Role, TokenKind};

use super::folder::Folder;
use crate::api::{Api, Query};
use crate::context::{self, Context, Places, Token};
use crate::failure::Failure;

const AGENTS_PORT: u16 = 9440;
const ENROLMENT_PORT: u16 = 9441;
const REST_PORT: u16 = 8089;
const LISTEN_TRIES: u32 = 10;
/// A quickstart may rest for weeks; the agent renews at two thirds while it runs.
const CERTIFICATE_SECONDS: u64 = 90 * 86_400;

#[derive(Debug)]
pub struct Collector {
    serving: Serving,
    shutdown: CancellationToken,
    pub api: Api,
}

impl Collector {
    /// `link`: where the enrolled agent looks for its collector, host:port.
    pub async fn start(folder: &Folder, link: Option<&str>) -> Result<Self, Failure> {
        let kept = context::load(&Places { option: Some(folder.context_path()), ..Places::default() }).ok();
        let ports = Ports {
            agents: link.and_then(|link| link.rsplit_once(':')?.1.parse().ok()).unwrap_or(AGENTS_PORT),
            rest: kept.as_ref().and_then(|kept| kept.url.port()).unwrap_or(REST_PORT),
        };
        let shutdown = CancellationToken::new();
        let serving = listen(folder, ports, &shutdown).await?;
        match open_api(folder, &serving, kept).await {
            Ok(api) => Ok(Self { serving, shutdown, api }),
            Err(failure) => {
                shutdown.cancel();
                // Its own end is of no more interest than the failure before it.
                let _ = serving.join.await;
                Err(failure)
            }
        }
    }

    pub fn addresses(&self) -> Addresses {
        self.serving.addresses
    }

    pub fn ca_sha256(&self) -> Result<[u8; 32], Failure> {
        let mut digest = [0; 32];
        hex::decode_to_slice(&self.serving.ca_sha256, &mut digest)
            .map_err(|_| Failure::Refused("the collector's CA digest cannot be read".to_owned()))?;
        Ok(digest)
    }

    /// Ends it; what was taken in is durable.
    pub async fn stop(self) {
        self.shutdown.cancel();
        match self.serving.join.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the collector broke off"),
            Err(error) => tracing::error!(%error, "the collector broke off"),
        }
    }
}

/// The ports to begin the search with.
#[derive(Debug, Clone, Copy)]
struct Ports {
    agents: u16,
    rest: u16,
}

async fn listen(folder: &Folder, ports: Ports, shutdown: &CancellationToken) -> Result<Serving, Failure> {
    let refused = |error: &dyn std::error::Error| Failure::Refused(format!("the collector cannot start: {error}"));
    let mut tries = 0;
    loop {
        let agents = free_port(ports.agents, &[])?;
        let enrolment = free_port(ENROLMENT_PORT, &[agents.port()])?;
        let settings = Settings {
            data_dir: Some(folder.collector_path()),
            listen_agents: Some(agents),
            listen_enrolment: Some(enrolment),
            listen_rest: Some(free_port(ports.rest, &[agents.port(), enrolment.port()])?),
            link_address: Some(agents.to_string()),
            certificate_seconds: Some(CERTIFICATE_SECONDS),
            ..Settings::default()
        };
        let config = settings.into_config().map_err(|error| refused(&error))?;
        tries += 1;
        match Box::pin(serve(config, shutdown.clone())).await {
            Ok(serving) => return Ok(serving),
            // Somebody took the port between our look and our listening.
            Err(ServeError::Listen { source, .. }) if source.kind() == std::io::ErrorKind::AddrInUse && tries < LISTEN_TRIES => {}
            Err(error) => return Err(refused(&error)),
        }
    }
}

/// A client with the kept token where it still works, else with a new one, written to the context.
async fn open_api(folder: &Folder, serving: &Serving, kept: Option<Context>) -> Result<Api, Failure> {
    let url = format!("http://{}", serving.addresses.rest);
    if let Some(kept) = kept {
        let token = kept.token.clone();
        let api = client(&url, &token, folder)?;
        match api.get(&["summary"], &Query::default()).await {
            Ok(_) => {
                write_context(folder, &url, &token)?;
                return Ok(api);
            }
            Err(error) if error.is_unauthorised() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let text = TokenText::random(TokenKind::Api);
    let token = NewToken {
        tenant: TenantId::main(),
        kind: TokenKind::Api,
        role: Role::Admin,
        name: "quickstart".to_owned(),
        digest: text.digest(),
        created_at: now(),
        expires_at: None,
        uses: None,
    };
    serving.hub.store.add_token(token).await.map_err(|error| Failure::Refused(format!("cannot make an API token: {error}")))?;
    let token = Token(text.as_str().to_owned());
    write_context(folder, &url, &token)?;
    client(&url, &token, folder)
}

fn client(url: &str, token: &Token, folder: &Folder) -> Result<Api, Failure> {
    let url = Url::parse(url).map_err(|error| Failure::Refused(format!("{url} is no address: {error}")))?;
    Ok(Api::new(&Context { url, token: token.clone(), authority: None, path: folder.context_path(), exposed: false })?)
}

fn write_context(folder: &Folder, url: &str, token: &Token) -> Result<(), Failure> {
    let path = folder.context_path();
    context::write(&path, url, token).map_err(|error| Failure::Refused(format!("cannot write {}: {error}", path.display())))
}

/// The port on loopback, or the next one that nobody listens on.
fn free_port(wished: u16, taken: &[u16]) -> Result<SocketAddr, Failure> {
    (wished..=wished.saturating_add(200))
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .find(|address| !taken.contains(&address.port()) && TcpListener::bind(address).is_ok())
        .ok_or_else(|| Failure::Refused(format!("no free port from {wished} on, on 127.0.0.1")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_gives_way_to_the_next() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        let next = free_port(port, &[]).unwrap().port();
        assert!(next > port);
        assert!(free_port(next, &[next]).unwrap().port() > next);
    }
}
