//! The ports' connections over real sockets: how many each peer has, how long a silent one stays, and that none takes the
//! place of another.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use trueline_collector::http::HttpServer;
use trueline_collector::tls::{Door, DoorLimits, Refusals};

/// Guards against a test that would hang; nothing is measured.
const GUARD: Duration = Duration::from_secs(60);
const FOR_EVER: Duration = Duration::from_secs(3_600);
/// Passes in a test, and is long enough for a request that must be served within it.
const SHORT: Duration = Duration::from_secs(2);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// A port that answers `here` to who asks, with limits of a test's own.
struct Port {
    at: SocketAddr,
    shutdown: CancellationToken,
}

impl Port {
    async fn open(limits: DoorLimits, patience: Duration) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
        let shutdown = CancellationToken::new();
        let refusals = Arc::new(Refusals::default());
        let (sender, incoming) = mpsc::channel(4);
        let router = Router::new().route("/", get(|| async { "here" }));
        tokio::spawn(Door::for_anyone("test", listener, None, Arc::clone(&refusals), limits).accept(sender, shutdown.clone()));
        tokio::spawn(HttpServer::new(router, refusals, patience, shutdown.clone()).serve(incoming));
        Self { at, shutdown }
    }

    /// From an address of the loopback network.
    async fn dial(&self, from: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 2, from), 0))).unwrap();
        socket.connect(self.at).await.unwrap()
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn limits(connections: usize, connections_each: usize, patience: Duration) -> DoorLimits {
    DoorLimits { connections, connections_each, handshakes: 64, patience }
}

/// Whether the connection is served; it is not once the other end has closed it.
async fn is_served(stream: &mut TcpStream) -> bool {
    let asked = async {
        stream.write_all(REQUEST).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"here") {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        io::Result::Ok(())
    };
    tokio::time::timeout(GUARD, asked).await.expect("an answer or an end").is_ok()
}

/// Waits until the other end has closed the connection.
async fn ends(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    // Closed in order or by a reset.
    let _ = tokio::time::timeout(GUARD, stream.read_to_end(&mut rest)).await.expect("the connection ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_has_so_many_connections_and_leaves_the_others_theirs() {
    let port = Port::open(limits(100, 3, FOR_EVER), FOR_EVER).await;
    let mut greedy = Vec::new();
    for _ in 0..3 {
        let mut stream = port.dial(1).await;
        assert!(is_served(&mut stream).await);
        greedy.push(stream);
    }
    assert!(!is_served(&mut port.dial(1).await).await, "the fourth of one address");
    assert!(is_served(&mut port.dial(2).await).await, "the first of another");
    drop(greedy.pop());
    let again = async {
        while !is_served(&mut port.dial(1).await).await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(GUARD, again).await.expect("a place that was given back is had again");
    for stream in &mut greedy {
        assert!(is_served(stream).await, "those that were there before are undisturbed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_all_its_connections_a_port_turns_away_and_serves_on() {
    let port = Port::open(limits(4, 2, FOR_EVER), FOR_EVER).await;
    let mut taken = Vec::new();
    for from in [1, 1, 2, 2] {
        let mut stream = port.dial(from).await;
        assert!(is_served(&mut stream).await);
        taken.push(stream);
    }
    assert!(!is_served(&mut port.dial(3).await).await);
    for stream in &mut taken {
        assert!(is_served(stream).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_or_dawdles_over_a_head_loses_its_connection() {
    let port = Port::open(limits(100, 100, FOR_EVER), SHORT).await;
    let mut silent = port.dial(1).await;
    let mut dawdling = port.dial(1).await;
    dawdling.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ").await.unwrap();
    let mut began = port.dial(1).await;
    began.write_all(b"PRI * HT").await.unwrap();
    let mut later = port.dial(1).await;
    assert!(is_served(&mut later).await);
    later.write_all(b"GET / HTTP/1.1\r\nX-Slow: ").await.unwrap();
    for stream in [&mut silent, &mut dawdling, &mut began, &mut later] {
        ends(stream).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_on_which_nothing_passes_is_ended() {
    let port = Port::open(limits(100, 100, SHORT), FOR_EVER).await;
    let mut silent = port.dial(1).await;
    let mut kept = port.dial(1).await;
    assert!(is_served(&mut kept).await);
    ends(&mut silent).await;
    ends(&mut kept).await;
}
