//! Accepting connections: TCP, then TLS where the port speaks it, within limits, then a stream that knows its peer.
//!
//! Invariants: at most [`DoorLimits`] say how many connections and handshakes there are at once, in all and of one address;
//! who comes beyond that is turned away and hears nothing. A handshake that does not end within [`HANDSHAKE_TIMEOUT`] is
//! dropped. A host that was revoked is let in only to be told so. What one peer does wrong has no effect on the others.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::census::{Census, HostConnection, Place, neighbourhood};
use super::stream::{Counted, Wire};
use super::{Peer, PeerIdentity, PeerStream, Refusal, Refusals};
use crate::hub::Hub;
use crate::link::check_credential;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause when the system has no descriptor left for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy)]
pub struct DoorLimits {
    pub connections: usize,
    /// Of one address, or of one network of IPv6.
    pub connections_each: usize,
    /// Of which one address may have half.
    pub handshakes: usize,
    /// How long nothing may pass on a connection.
    pub patience: Duration,
}

/// A listener with its limits.
pub struct Door {
    /// For measurements.
    port: &'static str,
    listener: TcpListener,
    way_in: WayIn,
    refusals: Arc<Refusals>,
    limits: DoorLimits,
}

/// What a peer must do to come in.
#[derive(Clone)]
enum WayIn {
    /// Nothing.
    Plain,
    Tls(TlsAcceptor),
    /// Show a certificate that carries an identity.
    Identity(TlsAcceptor, Arc<Hub>),
}

impl Door {
    /// Every peer must show a certificate that carries an identity.
    pub fn for_hosts(listener: TcpListener, config: ServerConfig, hub: Arc<Hub>, refusals: Arc<Refusals>, limits: DoorLimits) -> Self {
        Self { port: "agents", listener, way_in: WayIn::Identity(Arc::new(config).into(), hub), refusals, limits }
    }

    /// Without a configuration the port speaks no TLS.
    pub fn for_anyone(
        port: &'static str,
        listener: TcpListener,
        config: Option<ServerConfig>,
        refusals: Arc<Refusals>,
        limits: DoorLimits,
    ) -> Self {
        let way_in = config.map_or(WayIn::Plain, |config| WayIn::Tls(Arc::new(config).into()));
        Self { port, listener, way_in, refusals, limits }
    }

    /// Accepts until `shutdown` or until nobody takes connections any more.
    pub async fn accept(self, accepted: mpsc::Sender<io::Result<PeerStream>>, shutdown: CancellationToken) {
        let connections = Arc::new(Semaphore::new(self.limits.connections));
        let handshakes = Arc::new(Semaphore::new(self.limits.handshakes));
        let (places, knocks) = (Census::new(self.limits.connections_each), Census::new(self.limits.handshakes / 2));
        let mut running = JoinSet::new();
        loop {
            let next = async { (Arc::clone(&handshakes).acquire_owned().await, self.listener.accept().await) };
            let (handshake, socket) = tokio::select! {
                () = shutdown.cancelled() => break,
                () = accepted.closed() => break,
                next = next => next,
                Some(_) = running.join_next() => continue,
            };
            let Ok(handshake) = handshake else { break };
            let (socket, address) = match socket {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let peer = Peer { address, local: socket.local_addr().unwrap_or(address), identity: None };
            let neighbours = neighbourhood(address.ip());
            let refuse = |refusal, what| self.refusals.note(&peer, refusal, format_args!("{what} at the port for {}", self.port));
            let Some(knock) = knocks.enter(neighbours) else {
                refuse(Refusal::TooManyHandshakes, "too many handshakes of this address at once");
                continue;
            };
            let Some(place) = places.enter(neighbours) else {
                refuse(Refusal::TooManyConnectionsOfAddress, "too many connections of this address at once");
                continue;
            };
            let Ok(connection) = Arc::clone(&connections).try_acquire_owned() else {
                refuse(Refusal::TooManyConnections, "too many connections at once");
                continue;
            };
            let (way_in, refusals, accepted) = (self.way_in.clone(), Arc::clone(&self.refusals), accepted.clone());
            let (port, patience) = (self.port, self.limits.patience);
            running.spawn(async move {
                let entered = enter(way_in, socket, (handshake, knock), peer.address, peer.local, &refusals).await;
                match entered {
                    Ok((wire, identity, host)) => {
                        let counted = Counted::new(port, connection, place, host);
                        let peer = Peer { identity, ..peer };
                        let stream = PeerStream::new(wire, peer, patience, refusals, counted);
                        // Fails only when the server is gone, and the connection with it.
                        let _ = accepted.send(Ok(stream)).await;
                    }
                    Err((identity, refusal, detail)) => {
                        refusals.note(&Peer { identity, ..peer }, refusal, detail);
                    }
                }
            });
        }
        running.shutdown().await;
    }
}

/// A place among the handshakes; over once TLS is, for what follows may wait for the database.
type Shaking = (OwnedSemaphorePermit, Place<IpAddr>);
type Entered = (Wire, Option<PeerIdentity>, Option<HostConnection>);
type TurnedAway = (Option<PeerIdentity>, Refusal, String);

async fn enter(
    way_in: WayIn,
    socket: TcpStream,
    shaking: Shaking,
    address: SocketAddr,
    local: SocketAddr,
    refusals: &Refusals,
) -> Result<Entered, TurnedAway> {
    // Only latency depends on it.
    let _ = socket.set_nodelay(true);
    match way_in {
        WayIn::Plain => Ok((Wire::Plain(socket), None, None)),
        WayIn::Tls(acceptor) => {
            let stream = shake(acceptor, socket).await.map_err(|(refusal, detail)| (None, refusal, detail))?;
            Ok((Wire::Tls(Box::new(stream)), None, None))
        }
        WayIn::Identity(acceptor, hub) => {
            let stream = shake(acceptor, socket).await.map_err(|(refusal, detail)| (None, refusal, detail))?;
            drop(shaking);
            let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            let Some(identity) = certificate.and_then(PeerIdentity::from_certificate) else {
                return Err((None, Refusal::CertificateWithoutIdentity, "the client certificate names no host".to_owned()));
            };
            let host = identity.host;
            let Some(place) = hub.connections.enter(host) else {
                return Err((Some(identity), Refusal::TooManyConnectionsOfHost, format!("host {host}: too many connections at once")));
            };
            // A database that is away is asked again before a stream begins. Who is refused hears it over HTTP, which has
            // words for it, and then the connection is over.
            if let Err((Some(refusal), status)) = check_credential(&hub, &identity).await {
                let peer = Peer { address, local, identity: Some(identity.clone()) };
                refusals.note(&peer, refusal, format_args!("host {host}: {}", status.message()));
                place.end.cancel();
            }
            Ok((Wire::Tls(Box::new(stream)), Some(identity), Some(place)))
        }
    }
}

async fn shake(acceptor: TlsAcceptor, socket: TcpStream) -> Result<TlsStream<TcpStream>, (Refusal, String)> {
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
        Err(_) => Err((Refusal::Slow, format!("no TLS handshake within {} s", HANDSHAKE_TIMEOUT.as_secs()))),
        Ok(Err(error)) => Err((Refusal::of_handshake(&error), format!("TLS handshake: {error}"))),
        Ok(Ok(stream)) => Ok(stream),
    }
}
