//! A way to the test's PostgreSQL on which the server can vanish: from then on it takes what it is sent and says nothing,
//! as one whose power, network or proxy is gone. What it held before, its server goes on holding.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::{Postgres, USER};

/// The statement, with the character that ends it on the wire: READ COMMITTED is none.
pub const COMMIT: &str = "COMMIT\0";

/// Dropping it ends its connections and threads.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// A connection on which the client says this falls silent.
    trigger: Mutex<Option<&'static str>>,
    silenced: AtomicU32,
    ended: AtomicBool,
    passing: Mutex<Passing>,
}

/// Kept for the end.
#[derive(Default)]
struct Passing {
    sockets: Vec<(TcpStream, UnixStream)>,
    threads: Vec<JoinHandle<()>>,
}

impl Proxy {
    /// # Errors
    /// Where it cannot listen.
    pub fn start(server: &Postgres) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let accepting = std::thread::spawn({
            let (shared, server) = (Arc::clone(&shared), server.folder.path().join(".s.PGSQL.5432"));
            move || shared.accept(&listener, &server)
        });
        Ok(Self { address, shared, accepting: Some(accepting) })
    }

    /// The address of a fresh database of `server` by this way.
    pub fn uri(&self, server: &Postgres, name: &str) -> String {
        let direct = server.uri(name);
        let database = direct.rsplit('/').find_map(|part| part.split_once('?')).map_or("", |(database, _)| database);
        format!("postgres://{USER}@{}/{database}", self.address)
    }

    /// Silences each connection on which the client says this. Those that are silent stay so.
    pub fn silence_on(&self, words: Option<&'static str>) {
        *self.shared.trigger.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }

    /// How many connections fell silent.
    pub fn silenced(&self) -> u32 {
        self.shared.silenced.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        let passing = std::mem::take(&mut *self.shared.passing());
        for (client, server) in passing.sockets {
            let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
        }
        for thread in passing.threads {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn passing(&self) -> MutexGuard<'_, Passing> {
        self.passing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, server: &Path) {
        while let Ok((client, _)) = listener.accept() {
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            // A server that cannot be reached shows as a connection that ends.
            let _ = self.pass_between(client, server);
        }
    }

    fn pass_between(self: &Arc<Self>, client: TcpStream, server: &Path) -> io::Result<()> {
        let server = UnixStream::connect(server)?;
        let silent = Arc::new(AtomicBool::new(false));
        let (to_server, to_client) = (server.try_clone()?, client.try_clone()?);
        let (from_client, from_server) = (client.try_clone()?, server.try_clone()?);
        let up = std::thread::spawn({
            let (shared, silent) = (Arc::clone(self), Arc::clone(&silent));
            move || {
                shared.pass(from_client, &to_server, &silent, true);
                if !silent.load(Ordering::Relaxed) {
                    let _ = to_server.shutdown(Shutdown::Both);
                }
            }
        });
        let down = std::thread::spawn({
            let shared = Arc::clone(self);
            move || {
                shared.pass(from_server, &to_client, &silent, false);
                if !silent.load(Ordering::Relaxed) {
                    let _ = to_client.shutdown(Shutdown::Both);
                }
            }
        });
        let mut passing = self.passing();
        passing.sockets.push((client, server));
        passing.threads.extend([up, down]);
        Ok(())
    }

    fn pass(&self, mut from: impl Read, mut to: impl Write, silent: &AtomicBool, is_client: bool) {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let words = &buffer[..length];
            if is_client && self.is_trigger(words) && !silent.swap(true, Ordering::Relaxed) {
                self.silenced.fetch_add(1, Ordering::Relaxed);
            }
            if !silent.load(Ordering::Relaxed) && to.write_all(words).is_err() {
                return;
            }
        }
    }

    fn is_trigger(&self, words: &[u8]) -> bool {
        let trigger = *self.trigger.lock().unwrap_or_else(PoisonError::into_inner);
        trigger.is_some_and(|trigger| words.windows(trigger.len()).any(|window| window == trigger.as_bytes()))
    }
}
