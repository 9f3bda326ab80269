//! Putting the collector together: store, CA, listeners, services, tasks. Taking it apart is [`crate::running`]'s matter.
//!
//! Invariant: everything that is started is joined before [`Serving::join`] resolves.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use trueline_proto::MESSAGE_LIMIT;
use trueline_proto::v1::enrolment_server::EnrolmentServer;
use trueline_proto::v1::link_server::LinkServer;
use trueline_store::{SchemaStep, Store, StoreError};

use crate::ca::{CaError, CertificateAuthority};
use crate::config::{Config, ConfigError, read_policy};
use crate::enrolment::{EnrolmentService, Tries};
use crate::http::HttpServer;
use crate::hub::{Hub, now};
use crate::ingest::ingest;
use crate::link::{LinkService, Policy, Sessions, renewals};
use crate::rest;
use crate::running::{PartEnded, Running};
use crate::tls::{Door, DoorLimits, PeerStream, Refusals, ServerLeaf, TlsError, agents_config, enrolment_config, rest_config};

/// The port agents assume for the link.
const LINK_PORT: u16 = 9440;
/// Accepted connections that no server has taken yet.
const ACCEPTED: usize = 64;
/// A fleet may be behind one address, and each of its connections shows a certificate. HTTP/2 sees to it that something
/// passes on every connection whose peer lives.
const AGENTS: DoorLimits =
    DoorLimits { connections: 65_536, connections_each: 32_768, handshakes: 1_024, patience: Duration::from_secs(90) };
const ENROLMENT: DoorLimits = DoorLimits { connections: 4_096, connections_each: 512, handshakes: 512, patience: Duration::from_secs(30) };
/// All may come through one proxy, which keeps its connections. Nothing passes while a long request is worked on.
const REST: DoorLimits = DoorLimits { connections: 4_096, connections_each: 1_024, handshakes: 256, patience: Duration::from_secs(360) };
/// For the head of the first request.
const REST_PATIENCE: Duration = Duration::from_secs(20);
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Enrolment is one call; a connection that stays is of no use.
const ENROLMENT_AGE: Duration = Duration::from_secs(60);
const ENROLMENT_REQUEST_LIMIT: usize = 64 * 1024;
const HEADER_LIMIT: u32 = 16 * 1024;
/// How much of a stream may lie in the collector unread, in bytes.
const WINDOW: u32 = 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot create {}: {source}", path.display())]
    DataDir { path: PathBuf, source: io::Error },
    #[error("cannot listen on {address} for {subject}: {source}")]
    Listen { subject: &'static str, address: SocketAddr, source: io::Error },
    #[error(
        "this database belongs to collectors with the CA {kept}, here is the CA {found}: copy ca/root.key from one of them into the data directory"
    )]
    OtherCa { kept: String, found: String },
}

impl ServeError {
    /// Whether another start would end in the same way until somebody changed what the collector is told to do.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Config(error) => error.is_lasting(),
            Self::Store(error) => matches!(error, StoreError::Invalid { .. } | StoreError::Migration(_)),
            Self::OtherCa { .. } => true,
            Self::Ca(_) | Self::Tls(_) | Self::DataDir { .. } | Self::Listen { .. } => false,
        }
    }
}

/// Where the collector listens.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Addresses {
    pub agents: SocketAddr,
    pub enrolment: SocketAddr,
    pub rest: SocketAddr,
}

/// A running collector. Cancel the token given to [`serve`], then await `join`. Where a part of it ends before, the token is
/// cancelled, and `join` says so.
#[derive(Debug)]
pub struct Serving {
    pub addresses: Addresses,
    pub hub: Arc<Hub>,
    /// What agents pin, hexadecimal.
    pub ca_sha256: String,
    pub join: JoinHandle<Result<(), PartEnded>>,
    policy: watch::Sender<Policy>,
}

impl Serving {
    /// Reads the watch policy again from where it is configured now, and sends it to the agents; none withdraws it. A policy
    /// with faults changes nothing.
    pub async fn reload(&self, path: Option<PathBuf>) -> Result<(), ConfigError> {
        let fresh = policy_at(path, self.hub.store.as_ref()).await?;
        self.policy.send_if_modified(|current| {
            let differs = *current != fresh;
            *current = fresh;
            differs
        });
        Ok(())
    }
}

/// Starts a collector and returns once it takes connections.
pub async fn serve(config: Config, shutdown: CancellationToken) -> Result<Serving, ServeError> {
    serve_telling(config, shutdown, &|_| {}).await
}

/// As [`serve`], and tells which step of the schema is under way, and that none is any more. May be dropped: nothing runs before it returns.
pub async fn serve_telling(
    config: Config,
    shutdown: CancellationToken,
    tell: &(dyn Fn(Option<SchemaStep>) + Send + Sync),
) -> Result<Serving, ServeError> {
    create_data_dir(&config)?;
    let store = trueline_store::open_telling(&config.database, &|step| tell(Some(step))).await?;
    tell(None);
    let policy = policy_at(config.watch_policy.clone(), store.as_ref()).await?;
    let ca = Arc::new(CertificateAuthority::open(&config.data_dir, now())?);
    share_ca(store.as_ref(), &ca).await?;
    let (leaf, leaf_due) = ServerLeaf::issue(&ca, config.names.clone(), config.server_certificate_lifetime, now())?;
    let leaf = Arc::new(leaf);

    let agents = listen("agents", config.listen_agents).await?;
    let enrolment = listen("enrolment", config.listen_enrolment).await?;
    let rest_listener = listen("REST", config.listen_rest).await?;
    let addresses = Addresses { agents: agents.1, enrolment: enrolment.1, rest: rest_listener.1 };
    let rest_tls = config.rest_tls.as_ref().map(rest_config).transpose()?;
    let agents_tls = agents_config(&ca, Arc::clone(&leaf))?;
    let enrolment_tls = enrolment_config(Arc::clone(&leaf))?;

    let hub = Hub::new(store, shutdown.clone());
    let refusals = Arc::new(Refusals::default());
    let sessions = Arc::new(Sessions::default());
    let (intake_for_links, intake) = ingest();
    let (policy, policies) = watch::channel(policy);
    let link = LinkService {
        hub: Arc::clone(&hub),
        ca: Arc::clone(&ca),
        refusals: Arc::clone(&refusals),
        ingest: intake_for_links,
        policy: policies,
        sessions: Arc::clone(&sessions),
        heartbeat_seconds: config.heartbeat_seconds,
        certificate_lifetime: config.certificate_lifetime,
        renewals: renewals(config.certificate_lifetime),
    };
    let enrol = EnrolmentService {
        hub: Arc::clone(&hub),
        ca: Arc::clone(&ca),
        refusals: Arc::clone(&refusals),
        certificate_lifetime: config.certificate_lifetime,
        link_address: config.link_address.clone(),
        link_port: (addresses.agents.port() != LINK_PORT).then_some(addresses.agents.port()),
        tries: Tries::default(),
    };

    let mut running = Running { sessions, ..Running::default() };
    let servers = &mut running.servers;
    let incoming = accept(servers, Door::for_hosts(agents.0, agents_tls, Arc::clone(&hub), Arc::clone(&refusals), AGENTS), &shutdown);
    servers.spawn(serve_agents(link, incoming, shutdown.clone()));
    let door = Door::for_anyone("enrolment", enrolment.0, Some(enrolment_tls), Arc::clone(&refusals), ENROLMENT);
    let incoming = accept(servers, door, &shutdown);
    servers.spawn(serve_enrolment(enrol, incoming, shutdown.clone()));
    let scheme = if rest_tls.is_some() { "https" } else { "http" };
    let context = rest::RestContext {
        metrics: Some(recorder()),
        version: env!("CARGO_PKG_VERSION"),
        public_url: format!("{scheme}://{}", addresses.rest),
    };
    let router = rest::router(Arc::clone(&hub), context);
    let incoming = accept(servers, Door::for_anyone("REST", rest_listener.0, rest_tls, Arc::clone(&refusals), REST), &shutdown);
    servers.spawn(HttpServer::new(router, refusals, REST_PATIENCE, shutdown.clone()).serve(incoming));

    running.intake.spawn(intake.run(Arc::clone(&hub), running.handed_in.clone()));
    running.tasks = crate::tasks::start(&hub, Arc::clone(&ca), leaf, leaf_due);
    running.tasks.spawn(keep_metrics(shutdown.clone()));
    let join = tokio::spawn(running.attend(shutdown));
    let ca_sha256 = ca.sha256();
    tracing::info!(agents = %addresses.agents, enrolment = %addresses.enrolment, rest = %addresses.rest, ca_sha256, "the collector serves");
    Ok(Serving { addresses, hub, ca_sha256, join, policy })
}

pub fn create_data_dir(config: &Config) -> Result<(), ServeError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.data_dir)
        .map_err(|source| ServeError::DataDir { path: config.data_dir.clone(), source })
}

/// Collectors of one database must show agents one CA.
async fn share_ca(store: &dyn Store, ca: &CertificateAuthority) -> Result<(), ServeError> {
    let found = ca.sha256();
    let kept = String::from_utf8_lossy(&store.keep("ca.sha256", found.as_bytes()).await?).into_owned();
    if kept == found { Ok(()) } else { Err(ServeError::OtherCa { kept, found }) }
}

/// An agent that is away has what it was told under a version, and is told nothing while the version is the same: one
/// version is one text, for every collector of the database and for good.
async fn policy_at(path: Option<PathBuf>, store: &dyn Store) -> Result<Policy, ConfigError> {
    let Some(path) = path else { return Ok(None) };
    let subject = path.clone();
    let read = tokio::task::spawn_blocking(move || read_policy(&path)).await;
    let failed = |error: tokio::task::JoinError| ConfigError::File { path: subject.clone(), source: io::Error::other(error) };
    let policy = read.map_err(failed)??;
    let text = Sha256::digest(policy.text.as_bytes());
    let kept = store.keep(&format!("watch_policy.{}", policy.version), &text).await;
    let kept = kept.map_err(|source| ConfigError::PolicyVersion { path: subject.clone(), source })?;
    if kept[..] != text[..] {
        let version = policy.version;
        let fault = format!("version: the policy has changed and is still version {version}, which agents have: give a greater one");
        return Err(ConfigError::Policy { path: subject, fault });
    }
    Ok(Some(Arc::new(policy)))
}

async fn listen(subject: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |source| ServeError::Listen { subject, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn accept(servers: &mut JoinSet<()>, door: Door, shutdown: &CancellationToken) -> mpsc::Receiver<io::Result<PeerStream>> {
    let (sender, receiver) = mpsc::channel(ACCEPTED);
    servers.spawn(door.accept(sender, shutdown.clone()));
    receiver
}

async fn serve_agents(link: LinkService, incoming: mpsc::Receiver<io::Result<PeerStream>>, shutdown: CancellationToken) {
    let service = LinkServer::new(link).max_decoding_message_size(MESSAGE_LIMIT).max_encoding_message_size(MESSAGE_LIMIT);
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_max_header_list_size(HEADER_LIMIT)
        .max_concurrent_streams(16)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .serve_with_incoming_shutdown(service, ReceiverStream::new(incoming), shutdown.cancelled_owned());
    if let Err(error) = server.await {
        tracing::error!(%error, "the server for agents failed");
    }
}

async fn serve_enrolment(enrol: EnrolmentService, incoming: mpsc::Receiver<io::Result<PeerStream>>, shutdown: CancellationToken) {
    let service = EnrolmentServer::new(enrol).max_decoding_message_size(ENROLMENT_REQUEST_LIMIT);
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_max_header_list_size(HEADER_LIMIT)
        .max_concurrent_streams(4)
        .max_connection_age(ENROLMENT_AGE)
        .max_connection_age_grace(ENROLMENT_AGE)
        .timeout(ENROLMENT_AGE)
        .serve_with_incoming_shutdown(service, ReceiverStream::new(incoming), shutdown.cancelled_owned());
    if let Err(error) = server.await {
        tracing::error!(%error, "the server for enrolment failed");
    }
}

/// The process's metrics, recorded from the first call on.
fn recorder() -> PrometheusHandle {
    static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();
    RECORDER
        .get_or_init(|| {
            let recorder = PrometheusBuilder::new().build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another part of this process records metrics; those of the collector are not shown");
            }
            handle
        })
        .clone()
}

/// Folds recorded values together now and then, so that they do not pile up between scrapes.
async fn keep_metrics(shutdown: CancellationToken) {
    let handle = recorder();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(5)) => handle.run_upkeep(),
        }
    }
}
