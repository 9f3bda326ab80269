//! Accepting connections: TCP, then TLS within limits, then a stream that knows its peer.
//!
//! Invariants: at most [`DoorLimits::connections`] connections and [`DoorLimits::handshakes`] handshakes at once; one address
//! gets at most half of the handshakes; a handshake that does not end within [`HANDSHAKE_TIMEOUT`] is dropped. What one
//! peer does wrong has no effect on the others.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use super::{Peer, PeerIdentity, Refusal, Refusals};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause when the system has no descriptor left for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy)]
pub struct DoorLimits {
    pub connections: usize,
    pub handshakes: usize,
}

/// A listener behind TLS.
pub struct Door {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    asks_identity: bool,
    refusals: Arc<Refusals>,
    limits: DoorLimits,
}

/// An encrypted connection with the name of its peer.
#[derive(Debug)]
pub struct PeerStream {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _connection: OwnedSemaphorePermit,
}

impl Door {
    /// Every peer must show a certificate that carries an identity.
    pub fn for_hosts(listener: TcpListener, config: ServerConfig, refusals: Arc<Refusals>, limits: DoorLimits) -> Self {
        Self { listener, acceptor: Arc::new(config).into(), asks_identity: true, refusals, limits }
    }

    pub fn for_anyone(listener: TcpListener, config: ServerConfig, refusals: Arc<Refusals>, limits: DoorLimits) -> Self {
        Self { listener, acceptor: Arc::new(config).into(), asks_identity: false, refusals, limits }
    }

    /// Accepts until `shutdown` or until nobody takes connections any more.
    pub async fn accept(self, accepted: mpsc::Sender<io::Result<PeerStream>>, shutdown: CancellationToken) {
        let connections = Arc::new(Semaphore::new(self.limits.connections));
        let handshakes = Arc::new(Semaphore::new(self.limits.handshakes));
        let knocks = Arc::new(Knocks { each: (self.limits.handshakes / 2).max(1), count: Mutex::default() });
        let mut running = JoinSet::new();
        loop {
            let next = async {
                let permits = (Arc::clone(&connections).acquire_owned().await, Arc::clone(&handshakes).acquire_owned().await);
                (permits, self.listener.accept().await)
            };
            let ((connection, handshake), socket) = tokio::select! {
                () = shutdown.cancelled() => break,
                () = accepted.closed() => break,
                next = next => next,
                Some(_) = running.join_next() => continue,
            };
            let (Ok(connection), Ok(handshake)) = (connection, handshake) else { break };
            let (socket, address) = match socket {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(knock) = knocks.enter(address.ip()) else {
                self.refusals.note(address.ip(), Refusal::TooManyHandshakes, "too many handshakes of this address at once");
                continue;
            };
            let local = socket.local_addr().unwrap_or(address);
            let acceptor = self.acceptor.clone();
            let refusals = Arc::clone(&self.refusals);
            let accepted = accepted.clone();
            let asks_identity = self.asks_identity;
            running.spawn(async move {
                let shaken = shake(acceptor, socket, asks_identity).await;
                drop((handshake, knock));
                match shaken {
                    Ok((stream, identity)) => {
                        let stream = PeerStream { stream, peer: Peer { address, local, identity }, _connection: connection };
                        // Fails only when the server is gone, and the connection with it.
                        let _ = accepted.send(Ok(stream)).await;
                    }
                    Err((refusal, detail)) => refusals.note(address.ip(), refusal, detail),
                }
            });
        }
        running.shutdown().await;
    }
}

async fn shake(
    acceptor: TlsAcceptor,
    socket: TcpStream,
    asks_identity: bool,
) -> Result<(TlsStream<TcpStream>, Option<PeerIdentity>), (Refusal, String)> {
    // Only latency depends on it.
    let _ = socket.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
        Err(_) => return Err((Refusal::Slow, format!("no TLS handshake within {} s", HANDSHAKE_TIMEOUT.as_secs()))),
        Ok(Err(error)) => return Err((Refusal::of_handshake(&error), format!("TLS handshake: {error}"))),
        Ok(Ok(stream)) => stream,
    };
    if !asks_identity {
        return Ok((stream, None));
    }
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    match certificate.and_then(PeerIdentity::from_certificate) {
        Some(identity) => Ok((stream, Some(identity))),
        None => Err((Refusal::CertificateWithoutIdentity, "the client certificate names no host".to_owned())),
    }
}

/// Handshakes under way, by address.
#[derive(Debug)]
struct Knocks {
    each: usize,
    count: Mutex<HashMap<IpAddr, usize>>,
}

struct Knock {
    knocks: Arc<Knocks>,
    address: IpAddr,
}

impl Knocks {
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Knock> {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let here = count.entry(address).or_default();
        if *here >= self.each {
            return None;
        }
        *here += 1;
        Some(Knock { knocks: Arc::clone(self), address })
    }
}

impl Drop for Knock {
    fn drop(&mut self) {
        let mut count = self.knocks.count.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = count.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                count.remove(&self.address);
            }
        }
    }
}

impl PeerStream {
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for PeerStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
