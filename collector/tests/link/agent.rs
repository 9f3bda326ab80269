//! A collector on loopback and an agent made by hand, speaking real TLS.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};
use trueline_collector::ca::CertificateAuthority;
use trueline_collector::config::{Config, Settings};
use trueline_collector::hub::now;
use trueline_collector::serve::{Serving, serve};
use trueline_collector::token::TokenText;
use trueline_drift::{Epoch, Fields, Observation, RecordBody, Sequence, TenantId, Time};
use trueline_proto::frame::FrameEncoder;
use trueline_proto::v1::enrolment_client::EnrolmentClient;
use trueline_proto::v1::link_client::LinkClient;
use trueline_proto::{ChainLink, PROTOCOL, v1};
use trueline_store::{DriftFilter, DriftRow, NewToken, Page, Role, Store, TokenKind};

/// Guards against a test that would hang; nothing is measured.
pub const GUARD: Duration = Duration::from_secs(30);

pub struct Collector {
    pub serving: Serving,
    pub ca: Arc<CertificateAuthority>,
    shutdown: CancellationToken,
    folder: TempDir,
}

impl Collector {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(folder: TempDir) -> Self {
        let any = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let config: Config = Settings {
            data_dir: Some(folder.path().to_owned()),
            listen_agents: any,
            listen_enrolment: any,
            listen_rest: any,
            ..Settings::default()
        }
        .into_config()
        .unwrap();
        let shutdown = CancellationToken::new();
        let serving = serve(config, shutdown.clone()).await.unwrap();
        let ca = Arc::new(CertificateAuthority::open(folder.path(), now()).unwrap());
        Self { serving, ca, shutdown, folder }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(GUARD, self.serving.join).await.expect("the collector stops").unwrap().unwrap();
    }

    pub async fn restart(self) -> Self {
        self.shutdown.cancel();
        tokio::time::timeout(GUARD, self.serving.join).await.expect("the collector stops").unwrap().unwrap();
        Self::start_in(self.folder).await
    }

    pub fn store(&self) -> &dyn Store {
        self.serving.hub.store.as_ref()
    }

    pub async fn join_token(&self, uses: Option<u32>, expires_at: Option<Time>) -> String {
        let text = TokenText::random(TokenKind::Join);
        let token = NewToken {
            tenant: TenantId::main(),
            kind: TokenKind::Join,
            role: Role::Viewer,
            name: "test".to_owned(),
            digest: text.digest(),
            created_at: now(),
            expires_at,
            uses,
        };
        self.store().add_token(token).await.unwrap();
        text.as_str().to_owned()
    }

    pub async fn enrol(&self, token: &str) -> Result<Agent, Status> {
        self.enrol_as(token, KeyPair::generate().unwrap()).await
    }

    pub async fn enrol_as(&self, token: &str, key: KeyPair) -> Result<Agent, Status> {
        let response = self.enrol_with(token, request(&key)).await?;
        assert_eq!(response.ca_certificate, self.ca.root().to_vec());
        let address = response.link_address.unwrap().parse().unwrap();
        assert_eq!(address, self.serving.addresses.agents);
        Ok(Agent {
            key: Arc::new(key),
            certificates: response.certificates.iter().map(|certificate| CertificateDer::from(certificate.to_vec())).collect(),
            host: response.host_id,
            address,
            root: self.ca.root().clone(),
        })
    }

    pub async fn enrol_with(&self, token: &str, csr: Vec<u8>) -> Result<v1::EnrolResponse, Status> {
        let channel = channel(self.serving.addresses.enrolment, client_config(self.ca.root(), None)).await?;
        let facts = v1::Facts { hostname: "web1".to_owned(), ..v1::Facts::default() };
        let request = v1::EnrolRequest { join_token: token.to_owned(), csr: csr.into(), facts: Some(facts) };
        Ok(answered(EnrolmentClient::new(channel).enrol(request)).await?.into_inner())
    }

    pub async fn enrolled(&self) -> Agent {
        let token = self.join_token(None, None).await;
        self.enrol(&token).await.unwrap()
    }

    pub async fn steady(&self) -> Steady {
        let stream = self.enrolled().await.stream(1).await.unwrap();
        Steady { stream, chain: Chain::new(1) }
    }

    /// Reads the drifts after each piece of news until they are as wanted.
    pub async fn drifts_until(&self, filter: &DriftFilter, wanted: impl Fn(&[DriftRow]) -> bool) -> Vec<DriftRow> {
        let mut news = self.serving.hub.news.listen();
        let page = || Page { limit: 100, after: None };
        tokio::time::timeout(GUARD, async {
            loop {
                let drifts = self.store().drifts(&TenantId::main(), filter, page()).await.unwrap().items;
                if wanted(&drifts) {
                    return drifts;
                }
                news.changed().await.unwrap();
            }
        })
        .await
        .expect("the drifts become as wanted")
    }
}

/// An agent that does nothing wrong.
pub struct Steady {
    stream: Stream,
    chain: Chain,
}

impl Steady {
    /// Its next frame is taken on the stream it has had all along.
    pub async fn goes_on(&mut self) {
        let frame = self.chain.frame(vec![observed("/etc/steady")]);
        let last = frame.first_sequence;
        self.stream.send(vec![frame]).await;
        self.stream.acknowledged_up_to(last).await.expect("the steady agent is undisturbed");
    }
}

#[derive(Debug, Clone)]
pub struct Agent {
    pub key: Arc<KeyPair>,
    pub certificates: Vec<CertificateDer<'static>>,
    pub host: String,
    address: SocketAddr,
    root: CertificateDer<'static>,
}

impl Agent {
    /// The same host and key with a certificate the collector did not issue by itself.
    pub fn with_certificate(&self, ca: &CertificateAuthority, lifetime: Duration, at: Time) -> Self {
        let issued = ca.sign_host(&request(&self.key), self.host.parse().unwrap(), &TenantId::main(), lifetime, at).unwrap();
        Self { certificates: vec![issued.certificate], ..self.clone() }
    }

    /// A certificate for this host's identity in another tenant.
    pub fn of_other_tenant(&self, ca: &CertificateAuthority) -> Self {
        let tenant = TenantId("other".to_owned());
        let issued = ca.sign_host(&request(&self.key), self.host.parse().unwrap(), &tenant, Duration::from_secs(3600), now()).unwrap();
        Self { certificates: vec![issued.certificate], ..self.clone() }
    }

    /// The same host, dialling a collector that moved.
    pub fn dialling(self, address: SocketAddr) -> Self {
        Self { address, ..self }
    }

    fn config(&self) -> ClientConfig {
        client_config(&self.root, Some(self))
    }

    /// A connection on which nothing is said.
    pub async fn connected(&self) -> io::Result<TlsStream<TcpStream>> {
        connect(self.address, self.config()).await
    }

    pub async fn stream(&self, epoch: u64) -> Result<Stream, Status> {
        self.stream_with(|hello| hello.epoch = epoch).await
    }

    pub async fn stream_with(&self, change: impl FnOnce(&mut v1::Hello)) -> Result<Stream, Status> {
        let mut client = LinkClient::new(channel(self.address, self.config()).await?);
        let (outbox, messages) = mpsc::channel(8);
        let mut hello = v1::Hello {
            protocol: PROTOCOL,
            agent_version: "test".to_owned(),
            facts: Some(v1::Facts { hostname: "web1".to_owned(), ..v1::Facts::default() }),
            epoch: 1,
            ..v1::Hello::default()
        };
        change(&mut hello);
        outbox.send(v1::FromAgent { message: Some(v1::from_agent::Message::Hello(hello)) }).await.unwrap();
        let mut inbound = answered(client.stream(ReceiverStream::new(messages))).await?.into_inner();
        match next(&mut inbound).await? {
            v1::from_collector::Message::Welcome(welcome) => {
                Ok(Stream { outbox, inbound, acknowledged: welcome.acknowledged_sequence, epoch: welcome.epoch })
            }
            other => panic!("not Welcome: {other:?}"),
        }
    }

    pub async fn renew(&self) -> Result<Self, Status> {
        let mut client = LinkClient::new(channel(self.address, self.config()).await?);
        let response = answered(client.renew(v1::RenewRequest { csr: request(&self.key).into() })).await?.into_inner();
        let certificates = response.certificates.iter().map(|certificate| CertificateDer::from(certificate.to_vec())).collect();
        Ok(Self { certificates, ..self.clone() })
    }
}

#[derive(Debug)]
pub struct Stream {
    outbox: mpsc::Sender<v1::FromAgent>,
    inbound: Streaming<v1::FromCollector>,
    pub acknowledged: u64,
    pub epoch: u64,
}

impl Stream {
    pub async fn send(&mut self, frames: Vec<v1::Frame>) {
        let message = v1::from_agent::Message::Frames(v1::Frames { frames });
        answered(self.outbox.send(v1::FromAgent { message: Some(message) })).await.unwrap();
    }

    /// The next watch policy: its version and its text.
    pub async fn policy(&mut self) -> (u64, String) {
        loop {
            if let v1::from_collector::Message::Policy(policy) = next(&mut self.inbound).await.unwrap() {
                return (policy.version, policy.document);
            }
        }
    }

    pub async fn acknowledged_up_to(&mut self, sequence: u64) -> Result<(), Status> {
        loop {
            if let v1::from_collector::Message::Acknowledgement(acknowledgement) = next(&mut self.inbound).await? {
                assert!(acknowledgement.sequence <= sequence, "acknowledged {} of {sequence}", acknowledgement.sequence);
                if acknowledgement.sequence == sequence {
                    return Ok(());
                }
            }
        }
    }
}

/// What the collector answers, which it must do.
async fn answered<T>(asking: impl Future<Output = T>) -> T {
    tokio::time::timeout(GUARD, asking).await.expect("the collector answers")
}

async fn next(inbound: &mut Streaming<v1::FromCollector>) -> Result<v1::from_collector::Message, Status> {
    let message = answered(inbound.message()).await?;
    message.and_then(|message| message.message).ok_or_else(|| Status::new(Code::Unknown, "the stream ended without a word"))
}

/// Frames with their numbers and hash chain.
pub struct Chain {
    epoch: Epoch,
    next: Sequence,
    link: ChainLink,
}

impl Chain {
    pub fn new(epoch: u64) -> Self {
        Self { epoch: Epoch(epoch), next: Sequence(1), link: ChainLink::START }
    }

    pub fn frame(&mut self, records: Vec<RecordBody>) -> v1::Frame {
        self.wire_frame(records.into_iter().map(Into::into).collect())
    }

    pub fn wire_frame(&mut self, records: Vec<v1::Record>) -> v1::Frame {
        let count = records.len() as u32;
        let payload = FrameEncoder::new().unwrap().encode(&v1::Records { records }).unwrap();
        self.raw_frame(count, payload)
    }

    pub fn raw_frame(&mut self, count: u32, payload: Vec<u8>) -> v1::Frame {
        let first = self.next;
        self.link = self.link.next(self.epoch, first, count, &payload);
        self.next = first.plus(u64::from(count));
        v1::Frame { first_sequence: first.0, count, payload: payload.into(), link: self.link.0.to_vec().into() }
    }
}

pub fn observed(path: &str) -> RecordBody {
    RecordBody::Observed(Observation {
        item: format!("file:{path}").parse().unwrap(),
        fields: Fields::new().with("mode", "0644"),
        observed_at: Time::from_seconds(1),
    })
}

pub fn request(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

/// A request whose signature is of no use: its last byte was turned.
pub fn forged_request() -> Vec<u8> {
    let mut forged = request(&KeyPair::generate().unwrap());
    *forged.last_mut().unwrap() ^= 1;
    forged
}

fn client_config(root: &CertificateDer<'static>, agent: Option<&Agent>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match agent {
        Some(agent) => {
            let key = PrivatePkcs8KeyDer::from(agent.key.serialize_der());
            builder.with_client_auth_cert(agent.certificates.clone(), key.into()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn connect(address: SocketAddr, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
    let connecting = async {
        let socket = TcpStream::connect(address).await?;
        TlsConnector::from(Arc::new(config)).connect(ServerName::from(address.ip()), socket).await
    };
    answered(connecting).await
}

async fn channel(address: SocketAddr, config: ClientConfig) -> Result<Channel, Status> {
    let dial = tower::service_fn(move |_| {
        let config = config.clone();
        async move { connect(address, config).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://collector");
    endpoint.connect_with_connector(dial).await.map_err(|error| Status::unavailable(format!("{error:?}")))
}

/// Waits until the collector has closed the connection.
pub async fn ended(stream: &mut TlsStream<TcpStream>) {
    // In order or by a reset.
    let _ = tokio::time::timeout(GUARD, stream.read_to_end(&mut Vec::new())).await.expect("the connection ends");
}

/// A handshake as this agent, or as nobody; what the collector says to it is the result.
pub async fn shake(collector: &Collector, agent: Option<&Agent>) -> io::Result<()> {
    let config = client_config(collector.ca.root(), agent);
    let mut stream = connect(collector.serving.addresses.agents, config).await?;
    // With TLS 1.3 the collector's refusal comes after the client's last word.
    answered(stream.read(&mut [0; 1])).await.map(|_| ())
}
