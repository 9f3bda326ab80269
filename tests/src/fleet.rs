//! Simulated agents: many in one process, each with a key, a certificate and a mutual TLS connection
//! of its own, speaking the real protocol to a real collector.
//!
//! Invariant: what a member has framed stays in its memory until it is acknowledged, so that a member
//! that loses its collector resumes exactly as an agent with a spool does.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use trueline_drift::{Epoch, RecordBody, Sequence};
use trueline_proto::frame::FrameEncoder;
use trueline_proto::v1::{self, enrolment_client::EnrolmentClient, from_agent, from_collector, link_client::LinkClient};
use trueline_proto::{ChainLink, PROTOCOL};

use crate::tls::ClientTls;

/// Payload bytes sent and not yet acknowledged, unless a test sets another window: enough to keep the
/// collector busy, few enough that a slow one pushes back here and not into its own memory.
const WINDOW: usize = 512 * 1024;
/// For one thing that the collector says, or takes: far beyond what a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(120);

/// One simulated agent.
#[derive(Debug)]
pub struct Member {
    pub host_id: String,
    /// Payload bytes on their way at once.
    pub window: usize,
    /// Counts the records that became durable; shared by those who watch a fleet's progress.
    pub durable: Arc<AtomicU64>,
    /// Where it dials from; the system's choice where not given.
    pub source: Option<IpAddr>,
    facts: v1::Facts,
    credential: Credential,
    tls: ClientTls,
    spool: Spool,
}

/// What a member was given at its enrolment, with the key that it is for.
#[derive(Clone)]
struct Credential {
    ca: Vec<u8>,
    chain: Vec<Vec<u8>>,
    key: Vec<u8>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(..)")
    }
}

impl Member {
    /// Makes a key here and has it certified, trusting the CA with this digest.
    pub async fn enrol(enrolment: SocketAddr, ca_sha256: [u8; 32], join_token: &str, hostname: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate().context("making a key")?;
        let csr = CertificateParams::new(vec![hostname.to_owned()])?.serialize_request(&key).context("making a certificate request")?;
        let facts = v1::Facts {
            hostname: hostname.to_owned(),
            os: Some("Debian GNU/Linux 12 (bookworm)".to_owned()),
            kernel: Some("6.1.0-simulated".to_owned()),
            architecture: Some("x86_64".to_owned()),
            ..v1::Facts::default()
        };
        let channel = ClientTls::pinned(ca_sha256)?.channel(enrolment).await?;
        let request = v1::EnrolRequest { join_token: join_token.to_owned(), csr: csr.der().to_vec().into(), facts: Some(facts.clone()) };
        let response = EnrolmentClient::new(channel).enrol(request).await.with_context(|| format!("enrolling {hostname}"))?.into_inner();
        let chain: Vec<Vec<u8>> = response.certificates.iter().map(|certificate| certificate.to_vec()).collect();
        let credential = Credential { ca: response.ca_certificate.to_vec(), chain, key: key.serialize_der() };
        let tls = ClientTls::mutual(&credential.ca, &credential.chain, &credential.key)?;
        Ok(Self {
            host_id: response.host_id,
            window: WINDOW,
            durable: Arc::default(),
            source: None,
            facts,
            credential,
            tls,
            spool: Spool::new(Epoch(1))?,
        })
    }

    /// The certificate of the CA that it trusts, DER.
    pub fn ca(&self) -> &[u8] {
        &self.credential.ca
    }

    /// Its own certificate, shown to a server of this CA.
    pub fn shown_to(&self, ca: &[u8]) -> anyhow::Result<ClientTls> {
        ClientTls::mutual(ca, &self.credential.chain, &self.credential.key)
    }

    pub async fn channel(&self, agents: SocketAddr) -> anyhow::Result<Channel> {
        self.tls.channel_from(self.source, agents).await
    }

    /// What waits to be acknowledged.
    pub fn framed(&self) -> impl Iterator<Item = &v1::Frame> {
        self.spool.frames.iter()
    }

    /// Frames these records behind all that was framed before.
    pub fn append(&mut self, records: Vec<RecordBody>) -> anyhow::Result<()> {
        self.spool.append(records)
    }

    pub fn newest(&self) -> Sequence {
        Sequence(self.spool.next.0 - 1)
    }

    /// A stream on which the collector has said welcome; what it holds already leaves the spool.
    pub async fn connect(&mut self, agents: SocketAddr) -> anyhow::Result<Session> {
        let channel = self.channel(agents).await?;
        let (outgoing, receiver) = mpsc::channel(16);
        let hello = v1::Hello {
            protocol: PROTOCOL,
            agent_version: "simulated".to_owned(),
            facts: Some(self.facts.clone()),
            epoch: self.spool.epoch.0,
            oldest_sequence: self.spool.oldest().0,
            newest_sequence: self.newest().0,
            policy_version: 0,
            run_id: None,
        };
        outgoing.send(from_agent(from_agent::Message::Hello(hello))).await?;
        let client = LinkClient::new(channel);
        let mut client = client.max_decoding_message_size(trueline_proto::MESSAGE_LIMIT);
        let incoming = client.stream(ReceiverStream::new(receiver)).await.context("opening the stream")?.into_inner();
        let mut session = Session { outgoing, incoming };
        match session.next().await? {
            from_collector::Message::Welcome(welcome) => self.acknowledge(welcome.acknowledged_sequence),
            other => bail!("the collector said {other:?} before its welcome"),
        }
        Ok(session)
    }

    fn acknowledge(&mut self, upto: u64) {
        let records = self.spool.acknowledge(Sequence(upto));
        self.durable.fetch_add(records, Ordering::Relaxed);
    }

    /// Sends all that is framed and waits until it is durable at the collector.
    pub async fn deliver(&mut self, session: &mut Session) -> anyhow::Result<()> {
        let mut sent = Sequence::default();
        while !self.spool.frames.is_empty() {
            let flying: usize =
                self.spool.frames.iter().filter(|frame| frame.first_sequence <= sent.0).map(|frame| frame.payload.len()).sum();
            let waiting = self.spool.frames.iter().find(|frame| frame.first_sequence > sent.0);
            match waiting {
                Some(frame) if flying < self.window => {
                    sent = Sequence(frame.first_sequence);
                    session.send(vec![frame.clone()]).await?;
                }
                _ => {
                    if let from_collector::Message::Acknowledgement(acknowledged) = session.next().await? {
                        self.acknowledge(acknowledged.sequence);
                    }
                }
            }
        }
        Ok(())
    }

    /// The same through losses of the connection, until the deadline: what a real agent does.
    pub async fn deliver_through_faults(&mut self, agents: SocketAddr, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let attempt = async {
                let mut session = self.connect(agents).await?;
                self.deliver(&mut session).await
            };
            let tried = timeout_at(deadline, attempt).await.unwrap_or_else(|_| Err(anyhow!("it was still at it")));
            match tried {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error.context("the collector did not take everything in time")),
                // The pause between two attempts to connect.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// An open stream.
#[derive(Debug)]
pub struct Session {
    outgoing: mpsc::Sender<v1::FromAgent>,
    incoming: Streaming<v1::FromCollector>,
}

impl Session {
    /// Sends these frames as they are, right or wrong.
    pub async fn send(&self, frames: Vec<v1::Frame>) -> anyhow::Result<()> {
        let sending = self.outgoing.send(from_agent(from_agent::Message::Frames(v1::Frames { frames })));
        timeout(PATIENCE, sending).await.context("the collector took nothing")?.context("the stream has ended")
    }

    /// The next thing the collector says.
    pub async fn next(&mut self) -> anyhow::Result<from_collector::Message> {
        let message = timeout(PATIENCE, self.incoming.message()).await.context("the collector said nothing")?;
        let message = message.context("the collector ended the stream")?;
        message.and_then(|message| message.message).context("the collector closed the stream")
    }
}

fn from_agent(message: from_agent::Message) -> v1::FromAgent {
    v1::FromAgent { message: Some(message) }
}

/// Frames in memory, chained, until they are acknowledged.
struct Spool {
    epoch: Epoch,
    next: Sequence,
    link: ChainLink,
    frames: VecDeque<v1::Frame>,
    encoder: FrameEncoder,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("epoch", &self.epoch).field("next", &self.next).field("frames", &self.frames.len()).finish()
    }
}

impl Spool {
    fn new(epoch: Epoch) -> anyhow::Result<Self> {
        Ok(Self { epoch, next: Sequence(1), link: ChainLink::START, frames: VecDeque::new(), encoder: FrameEncoder::new()? })
    }

    fn oldest(&self) -> Sequence {
        self.frames.front().map_or(self.next, |frame| Sequence(frame.first_sequence))
    }

    fn append(&mut self, records: Vec<RecordBody>) -> anyhow::Result<()> {
        let count = u32::try_from(records.len())?;
        let records = v1::Records { records: records.into_iter().map(Into::into).collect() };
        let payload = self.encoder.encode(&records)?;
        self.link = self.link.next(self.epoch, self.next, count, &payload);
        let frame = v1::Frame { first_sequence: self.next.0, count, payload: payload.into(), link: self.link.0.to_vec().into() };
        self.frames.push_back(frame);
        self.next = self.next.plus(u64::from(count));
        Ok(())
    }

    /// How many records left.
    fn acknowledge(&mut self, upto: Sequence) -> u64 {
        let before = self.oldest();
        while self.frames.front().is_some_and(|frame| frame.first_sequence + u64::from(frame.count) <= upto.0 + 1) {
            self.frames.pop_front();
        }
        self.oldest().0 - before.0
    }
}
