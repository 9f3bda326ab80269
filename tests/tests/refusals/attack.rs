//! What a hostile or broken peer may do at the agents' ports, over real connections.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Status};
use trueline_proto::MESSAGE_LIMIT;
use trueline_proto::v1::{self, Frame, enrolment_client::EnrolmentClient};
use trueline_tests::collector::Collector;
use trueline_tests::fleet::Member;
use trueline_tests::numbered::{member, numbered};
use trueline_tests::tls::{ClientTls, dial};
use trueline_tests::tree::Numbers;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attack {
    PlainText,
    RandomBytes,
    NoCertificate,
    OtherCa,
    Expired,
    Revoked,
    TokenUnknown,
    TokenUsedUp,
    TokenExpired,
    Oversized,
    NotProtobuf,
    Gap,
    BrokenChain,
    Bomb,
}

impl Attack {
    pub const ALL: [Self; 14] = [
        Self::PlainText,
        Self::RandomBytes,
        Self::NoCertificate,
        Self::OtherCa,
        Self::Expired,
        Self::Revoked,
        Self::TokenUnknown,
        Self::TokenUsedUp,
        Self::TokenExpired,
        Self::Oversized,
        Self::NotProtobuf,
        Self::Gap,
        Self::BrokenChain,
        Self::Bomb,
    ];

    /// The reason as the collector logs it.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::PlainText | Self::RandomBytes => "not_tls",
            Self::NoCertificate => "no_certificate",
            Self::OtherCa => "certificate_of_other_ca",
            Self::Expired => "certificate_expired",
            Self::Revoked => "host_revoked",
            Self::TokenUnknown => "token_unknown",
            Self::TokenUsedUp => "token_used_up",
            Self::TokenExpired => "token_expired",
            Self::Oversized => "message_too_large",
            Self::NotProtobuf => "message_invalid",
            Self::Gap => "sequence_gap",
            Self::BrokenChain => "chain_broken",
            Self::Bomb => "frame_invalid",
        }
    }

    /// What the peer is told of it; a peer that speaks no TLS can be told nothing.
    pub const fn told(self) -> &'static str {
        match self {
            Self::PlainText | Self::RandomBytes => "hung up",
            Self::NoCertificate => "CertificateRequired",
            Self::OtherCa => "UnknownCA",
            Self::Expired => "CertificateExpired",
            Self::Revoked => "this host's certificate was revoked",
            Self::TokenUnknown => "the join token is unknown here",
            Self::TokenUsedUp => "the join token is used up",
            Self::TokenExpired => "the join token has expired",
            Self::Oversized => "too large",
            Self::NotProtobuf => "failed to decode Protobuf message",
            Self::Gap => "sequence gap: expected 1, got 2",
            Self::BrokenChain => "the hash chain is broken at sequence 1",
            Self::Bomb => "decompresses to more than",
        }
    }

    /// Each attack comes from an address of its own.
    pub fn source(self) -> IpAddr {
        Ipv4Addr::new(127, 0, 1, 10 + self as u8).into()
    }
}

/// All that the attacks need, made before they begin.
pub struct Attacker {
    agents: SocketAddr,
    enrolment: SocketAddr,
    ca_sha256: [u8; 32],
    /// With two frames that wait, of which nothing is ever sent as it should be.
    enrolled: Member,
    revoked: Member,
    of_other_ca: ClientTls,
    expired: ClientTls,
    used_token: String,
    expired_token: String,
    bomb: Vec<u8>,
    noise: Numbers,
}

impl Attacker {
    /// `stranger` belongs to another collector, `late` has a certificate that has run out or will at once.
    pub async fn new(collector: &Collector, stranger: &Member, late: &Member, expired_token: String) -> anyhow::Result<Self> {
        let mut enrolled = member(collector, "hostile").await?;
        for number in 0..2 {
            enrolled.append(numbered(number..number + 1))?;
        }
        let revoked = member(collector, "revoked").await?;
        collector.rest().post(&format!("/hosts/{}/revoke", revoked.host_id), &serde_json::Value::Null).await?;
        let used_token = collector.join_token(1).await?;
        Member::enrol(collector.enrolment(), collector.ca_sha256()?, &used_token, "spent").await?;
        Ok(Self {
            agents: collector.agents(),
            enrolment: collector.enrolment(),
            ca_sha256: collector.ca_sha256()?,
            of_other_ca: stranger.shown_to(enrolled.ca())?,
            expired: late.shown_to(enrolled.ca())?,
            enrolled,
            revoked,
            used_token,
            expired_token,
            bomb: zstd::encode_all(std::io::Read::take(std::io::repeat(0), 64 * 1024 * 1024), 3)?,
            noise: Numbers::from_seed(7),
        })
    }

    /// Of the collector's CA.
    pub fn ca(&self) -> &[u8] {
        self.enrolled.ca()
    }

    /// One attempt; what the collector answered to it.
    pub async fn attempt(&mut self, attack: Attack) -> anyhow::Result<String> {
        let source = Some(attack.source());
        match attack {
            Attack::PlainText => self.without_tls(source, b"GET /api/v1/hosts HTTP/1.1\r\nHost: collector\r\n\r\n").await,
            Attack::RandomBytes => {
                let noise: Vec<u8> = (0..512).flat_map(|_| self.noise.draw().to_le_bytes()).collect();
                self.without_tls(source, &noise).await
            }
            Attack::NoCertificate => shaken(ClientTls::anonymous(self.enrolled.ca())?.shake(source, self.agents).await),
            Attack::OtherCa => shaken(self.of_other_ca.shake(source, self.agents).await),
            Attack::Expired => shaken(self.expired.shake(source, self.agents).await),
            Attack::Revoked => {
                self.revoked.source = source;
                refusal(self.revoked.connect(self.agents).await.map(drop))
            }
            Attack::TokenUnknown => self.enrol(source, "tl_join_0000000000000000000000000000000000000000").await,
            Attack::TokenUsedUp => self.enrol(source, &self.used_token).await,
            Attack::TokenExpired => self.enrol(source, &self.expired_token).await,
            Attack::NotProtobuf => self.not_protobuf(source).await,
            Attack::Oversized => self.send(source, |frames| frames[0].payload = vec![7; MESSAGE_LIMIT + 1].into()).await,
            Attack::Gap => self.send(source, |frames| drop(frames.remove(0))).await,
            Attack::BrokenChain => self.send(source, |frames| frames[0].link = vec![7; 32].into()).await,
            Attack::Bomb => {
                let bomb = self.bomb.clone();
                self.send(source, |frames| frames[0].payload = bomb.into()).await
            }
        }
    }

    /// Bytes that are no handshake; the collector is to end the connection, with an alert at most.
    async fn without_tls(&self, source: Option<IpAddr>, bytes: &[u8]) -> anyhow::Result<String> {
        let mut socket = dial(source, self.agents).await?;
        // The collector may have hung up before it has all of it.
        let _ = socket.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        if answer.len() < 64 { Ok("hung up".to_owned()) } else { bail!("{} bytes were answered: {answer:?}", answer.len()) }
    }

    async fn enrol(&self, source: Option<IpAddr>, token: &str) -> anyhow::Result<String> {
        let channel = ClientTls::pinned(self.ca_sha256)?.channel_from(source, self.enrolment).await?;
        let facts = v1::Facts { hostname: "hostile".to_owned(), ..v1::Facts::default() };
        let request = v1::EnrolRequest { join_token: token.to_owned(), csr: vec![0].into(), facts: Some(facts) };
        refusal(EnrolmentClient::new(channel).enrol(request).await.map(drop).map_err(Into::into))
    }

    /// An enrolled host's frames, spoilt.
    async fn send(&mut self, source: Option<IpAddr>, spoil: impl FnOnce(&mut Vec<Frame>)) -> anyhow::Result<String> {
        self.enrolled.source = source;
        let mut session = self.enrolled.connect(self.agents).await.context("the hostile member's own stream")?;
        let mut frames: Vec<Frame> = self.enrolled.framed().cloned().collect();
        spoil(&mut frames);
        session.send(frames).await?;
        refusal(session.next().await.map(drop))
    }

    /// A message of gRPC whose content is no message of ours.
    async fn not_protobuf(&mut self, source: Option<IpAddr>) -> anyhow::Result<String> {
        self.enrolled.source = source;
        let mut client = Grpc::new(self.enrolled.channel(self.agents).await?);
        client.ready().await?;
        let messages = tokio_stream::iter([vec![0xff; 64]]);
        let path = PathAndQuery::from_static("/trueline.v1.Link/Stream");
        let answered = async {
            let mut answer = client.streaming(Request::new(messages), path, Raw).await?.into_inner();
            answer.message().await.map(drop)
        };
        refusal(answered.await.map_err(Into::into))
    }
}

/// What a handshake was refused for.
fn shaken(shaken: std::io::Result<()>) -> anyhow::Result<String> {
    match shaken {
        Err(error) => Ok(error.to_string()),
        Ok(()) => bail!("the collector let it in"),
    }
}

/// The words of a refusal; anything else is an error.
fn refusal(outcome: anyhow::Result<()>) -> anyhow::Result<String> {
    match outcome {
        Ok(()) => bail!("the collector took it"),
        Err(error) => match error.downcast_ref::<Status>() {
            Some(status) => Ok(status.message().to_owned()),
            None => Err(error.context("the connection broke without a word")),
        },
    }
}

/// Bytes as they are, in the place of a message.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ();
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put_slice(to, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ();
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<()>, Status> {
        prost::bytes::Buf::advance(from, prost::bytes::Buf::remaining(from));
        Ok(Some(()))
    }
}
