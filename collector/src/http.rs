//! Serving HTTP on the connections that a door has let in.
//!
//! Invariants: a connection whose first request is not there in time is ended, and so is one on which no later one comes for
//! much longer, as a proxy's that keeps it; at shutdown what was asked is answered, and nothing new is taken.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::tls::{PeerStream, Refusal, Refusals};

/// How many times the patience for the first request a later one has.
const LATER: u32 = 4;
const KEEPALIVE: Duration = Duration::from_secs(20);
const STREAMS: u32 = 64;
const HEADER_LIMIT: u32 = 16 * 1024;

/// How a server treats its connections.
#[derive(Clone)]
pub struct HttpServer {
    builder: Builder<TokioExecutor>,
    router: Router,
    refusals: Arc<Refusals>,
    patience: Duration,
    shutdown: CancellationToken,
}

impl HttpServer {
    /// `patience` is for the head of the first request of a connection.
    pub fn new(router: Router, refusals: Arc<Refusals>, patience: Duration, shutdown: CancellationToken) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(patience * LATER);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEADER_LIMIT);
        Self { builder, router, refusals, patience, shutdown }
    }

    /// Serves until shutdown or until nothing comes in any more.
    pub async fn serve(self, mut incoming: mpsc::Receiver<io::Result<PeerStream>>) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                Some(_) = connections.join_next() => {}
                next = incoming.recv() => match next {
                    Some(Ok(stream)) => {
                        connections.spawn(self.clone().serve_one(stream));
                    }
                    Some(Err(_)) => {}
                    None => break,
                },
            }
        }
        while connections.join_next().await.is_some() {}
    }

    async fn serve_one(self, stream: PeerStream) {
        let peer = stream.peer().clone();
        let asked = Arc::new(AtomicBool::new(false));
        let service = service_fn({
            let (router, asked) = (self.router, Arc::clone(&asked));
            move |request: Request<Incoming>| {
                asked.store(true, Ordering::Relaxed);
                router.clone().oneshot(request)
            }
        });
        let mut connection = std::pin::pin!(self.builder.serve_connection(TokioIo::new(stream), service));
        let mut first = std::pin::pin!(tokio::time::sleep(self.patience));
        let mut is_waited_for = true;
        let mut is_ending = false;
        loop {
            tokio::select! {
                // What breaks a connection is its peer's affair.
                _ = connection.as_mut() => return,
                () = &mut first, if is_waited_for => {
                    is_waited_for = false;
                    if !asked.load(Ordering::Relaxed) {
                        self.refusals.note(&peer, Refusal::Slow, format_args!("no request within {} s", self.patience.as_secs()));
                        return;
                    }
                }
                () = self.shutdown.cancelled(), if !is_ending => {
                    is_ending = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }
}
