//! A connection that a door has let in: what it carries, whose it is, and how long it may stay.
//!
//! Invariant: a connection on which nothing passes for [`PeerStream`]'s patience is ended, and so is one whose host may
//! speak no longer.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::census::{HostConnection, Place};
use super::{Peer, Refusal, Refusals};

/// For what a host is told before its connection is ended.
const FAREWELL: Duration = Duration::from_secs(5);

/// Plain, or encrypted.
#[derive(Debug)]
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What a connection counts as, given back when it ends.
#[derive(Debug)]
pub struct Counted {
    port: &'static str,
    host: Option<HostConnection>,
    _connection: OwnedSemaphorePermit,
    _address: Place<IpAddr>,
}

impl Counted {
    pub fn new(port: &'static str, connection: OwnedSemaphorePermit, address: Place<IpAddr>, host: Option<HostConnection>) -> Self {
        metrics::gauge!("trueline_connections", "port" => port).increment(1.0);
        Self { port, host, _connection: connection, _address: address }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("trueline_connections", "port" => self.port).decrement(1.0);
    }
}

/// A connection with the name of its peer.
pub struct PeerStream {
    wire: Wire,
    peer: Peer,
    patience: Duration,
    passed_at: Instant,
    idle: Pin<Box<Sleep>>,
    /// Resolves when the host has had the time to hear why.
    ended: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    refusals: Arc<Refusals>,
    _counted: Counted,
}

impl std::fmt::Debug for PeerStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerStream").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl PeerStream {
    /// `patience` is how long nothing may pass.
    pub fn new(wire: Wire, peer: Peer, patience: Duration, refusals: Arc<Refusals>, counted: Counted) -> Self {
        let ended = counted.host.as_ref().map(|host| {
            let end = host.end.clone();
            let farewell = async move {
                end.cancelled().await;
                tokio::time::sleep(FAREWELL).await;
            };
            Box::pin(farewell) as Pin<Box<dyn Future<Output = ()> + Send>>
        });
        let now = Instant::now();
        let idle = Box::pin(tokio::time::sleep_until(now + patience));
        Self { wire, peer, patience, passed_at: now, idle, ended, refusals, _counted: counted }
    }

    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// An error once the host may speak no longer.
    fn poll_ended(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(ended) = &mut self.ended else { return Ok(()) };
        if ended.as_mut().poll(cx).is_pending() {
            return Ok(());
        }
        self.ended = None;
        Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the host may speak no longer"))
    }

    /// An error once nothing has passed for too long.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.idle.as_mut().poll(cx).is_ready() {
            let until = self.passed_at + self.patience;
            if until <= Instant::now() {
                self.refusals.note(&self.peer, Refusal::Idle, format_args!("nothing passed for {} s", self.patience.as_secs()));
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.idle.as_mut().reset(until);
        }
        Ok(())
    }

    fn noting<T>(&mut self, passed: Poll<io::Result<T>>, is_something: impl Fn(&T) -> bool) -> Poll<io::Result<T>> {
        if let Poll::Ready(Ok(passed)) = &passed
            && is_something(passed)
        {
            self.passed_at = Instant::now();
        }
        passed
    }
}

impl Connected for PeerStream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

macro_rules! on_wire {
    ($stream:expr, $wire:ident => $call:expr) => {
        match &mut $stream.wire {
            Wire::Plain($wire) => {
                let $wire = Pin::new($wire);
                $call
            }
            Wire::Tls($wire) => {
                let $wire = Pin::new(&mut **$wire);
                $call
            }
        }
    };
}

impl AsyncRead for PeerStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_ended(cx)?;
        let before = buffer.filled().len();
        let read = on_wire!(self, wire => wire.poll_read(cx, buffer));
        if read.is_pending() {
            return match self.poll_idle(cx) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            };
        }
        let after = buffer.filled().len();
        self.noting(read, |()| after > before)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = on_wire!(self, wire => wire.poll_write(cx, bytes));
        self.noting(written, |count| *count > 0)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = on_wire!(self, wire => wire.poll_write_vectored(cx, slices));
        self.noting(written, |count| *count > 0)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Plain(wire) => wire.is_write_vectored(),
            Wire::Tls(wire) => wire.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, wire => wire.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, wire => wire.poll_shutdown(cx))
    }
}
