//! Telling the service manager how the service is: sd_notify(3).
//!
//! Invariants: without a service manager every call does nothing; a call takes a second at most, whatever the
//! manager does; a status is one line, so that no text can smuggle in another assignment.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use tracing::{debug, warn};

/// How long one notification may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes of a status that are sent; `systemctl status` shows it on one line.
const STATUS_LIMIT: usize = 500;

/// The way to the service manager, where there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    /// What the manager shows now.
    status: Mutex<String>,
}

impl Notifier {
    /// As `$NOTIFY_SOCKET` says; silent without it.
    pub fn from_environment() -> Self {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return Self::default() };
        Self::connect(&address).unwrap_or_else(|error| {
            warn!(%error, "the service manager cannot be told anything: NOTIFY_SOCKET cannot be reached");
            Self::default()
        })
    }

    /// `address`: a path, or `@` and a name of the abstract namespace.
    pub fn connect(address: &OsStr) -> io::Result<Self> {
        let bytes = address.as_bytes();
        let address = match bytes.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None if bytes.starts_with(b"/") => SocketAddr::from_pathname(address)?,
            None => return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.connect_addr(&address)?;
        Ok(Self { socket: Some(socket), status: Mutex::default() })
    }

    /// Whether anybody listens.
    pub fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// Start-up, or a reload, is done.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The configuration is being read again; [`Self::ready`] ends it.
    pub fn reloading(&self) {
        // The manager tells by it that this answers its own request (Type=notify-reload).
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// What the service is doing, for people. Sent only where it differs from the last; whether it was.
    pub fn status(&self, text: &str) -> bool {
        let line = one_line(text);
        let mut last = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == line || !self.send(&format!("STATUS={line}")) {
            return false;
        }
        *last = line;
        true
    }

    /// The service lives: see [`crate::watchdog`].
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    /// The present start, reload or stop needs this much longer, counted from now.
    pub fn extend_timeout(&self, by: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()));
    }

    fn send(&self, assignments: &str) -> bool {
        let Some(socket) = &self.socket else { return false };
        match socket.send(assignments.as_bytes()) {
            Ok(_) => true,
            Err(error) => {
                debug!(%error, assignments, "the service manager did not take a notification");
                false
            }
        }
    }
}

/// The text without line breaks and other control characters, of bounded length.
fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    if line.len() > STATUS_LIMIT {
        line.truncate(line.floor_char_boundary(STATUS_LIMIT - '…'.len_utf8()));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service manager's end, and a notifier connected to it.
    fn pair() -> (tempfile::TempDir, UnixDatagram, Notifier) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let notifier = Notifier::connect(path.as_os_str()).unwrap();
        (folder, manager, notifier)
    }

    fn next(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 4096];
        let length = manager.recv(&mut buffer).expect("a notification");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn each_notification_is_a_datagram_of_assignments() {
        let (_folder, manager, notifier) = pair();
        notifier.ready();
        assert_eq!(next(&manager), "READY=1");
        notifier.reloading();
        let text = next(&manager);
        let micros: u64 = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&text).parse().unwrap();
        assert!(micros > 0);
        notifier.stopping();
        assert_eq!(next(&manager), "STOPPING=1");
        notifier.watchdog();
        assert_eq!(next(&manager), "WATCHDOG=1");
        notifier.extend_timeout(Duration::from_secs(3));
        assert_eq!(next(&manager), "EXTEND_TIMEOUT_USEC=3000000");
    }

    #[test]
    fn a_status_is_sent_once_on_one_line() {
        let (_folder, manager, notifier) = pair();
        assert!(notifier.status("watching 3 files"));
        assert!(!notifier.status("watching 3 files"), "nothing new");
        assert!(notifier.status("name with\nMAINPID=1 in it"));
        assert_eq!(next(&manager), "STATUS=watching 3 files");
        assert_eq!(next(&manager), "STATUS=name with MAINPID=1 in it");
        assert!(notifier.status(&"é".repeat(1000)));
        let long = next(&manager);
        assert!(long.ends_with("é…") && long.len() <= "STATUS=".len() + STATUS_LIMIT, "{long}");
    }

    #[test]
    fn a_manager_that_takes_nothing_does_not_hold_the_service_up_for_ever() {
        let (_folder, manager, notifier) = pair();
        let mut sent = 0;
        while notifier.status(&format!("{sent}{}", "x".repeat(400))) {
            sent += 1;
            assert!(sent < 1_000_000, "the manager's queue never filled");
        }
        assert_eq!(next(&manager), format!("STATUS=0{}", "x".repeat(400)));
        assert!(notifier.status(&format!("{sent}{}", "x".repeat(400))), "what was not taken is sent again");
    }

    #[test]
    fn an_abstract_name_and_a_missing_socket_are_understood() {
        let name = format!("trueline-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Notifier::connect(OsStr::new(&format!("@{name}"))).unwrap().ready();
        assert_eq!(next(&manager), "READY=1");
        assert!(Notifier::connect(OsStr::new("/nowhere/at/all")).is_err());
        assert!(Notifier::connect(OsStr::new("vsock:2:1")).is_err());
        let silent = Notifier::default();
        silent.ready();
        assert!(!silent.status("nobody hears this") && !silent.is_connected());
    }
}
