//! The agent's status over a Unix socket: one JSON document for each connection.
//!
//! Invariants: root and the agent's own user may connect, nobody else (mode 0600); one connection is answered at a
//! time and none may take longer than its time limit; what is sent is never read from the peer; a socket that another
//! agent serves is neither replaced nor removed.

use std::fs::File;
use std::io::{self, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use tracing::debug;

use super::report::Report;

const NAME: &str = "status.sock";
/// Where the packaged service has it.
const SERVICE: &str = "/run/trueline-agent/status.sock";
/// For one connection.
const PATIENCE: Duration = Duration::from_secs(5);
const ANSWER_LIMIT: u64 = 4 * 1024 * 1024;

/// Where the running agent serves: in the service manager's folder for it, else in the data directory.
pub fn path(data_dir: &Path) -> PathBuf {
    runtime_folder().unwrap_or_else(|| data_dir.to_owned()).join(NAME)
}

/// The service manager's folder for the service that this process is part of (systemd.exec(5)).
fn runtime_folder() -> Option<PathBuf> {
    // More than one may be named, separated by colons.
    let folder = PathBuf::from(std::env::var("RUNTIME_DIRECTORY").ok()?.split(':').next()?);
    folder.is_absolute().then_some(folder)
}

/// Serves until dropped, which also removes the socket.
#[derive(Debug)]
pub struct StatusSocket {
    thread: Option<JoinHandle<()>>,
    /// Closing it ends the thread's waiting.
    wake: Option<PipeWriter>,
    path: PathBuf,
    /// Device and inode: whatever else is at the path by then is another's.
    own: (u64, u64),
}

impl StatusSocket {
    /// `confine` is called on the serving thread, first. `report` makes the document. Where another agent serves there
    /// already, it goes on undisturbed.
    pub fn serve(path: &Path, confine: impl FnOnce() + Send + 'static, report: impl Fn() -> Report + Send + 'static) -> io::Result<Self> {
        // Of two that start at once, one looks at what the other made.
        let folder = File::open(path.parent().unwrap_or(Path::new("/")))?;
        folder.lock()?;
        if is_served(path)? {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent answers there"));
        }
        // Left by an agent that was killed.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // The process makes nothing that others may use (umask), so nobody can connect in between.
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        let own = inode(path)?;
        drop(folder);
        listener.set_nonblocking(true)?;
        let (woken, wake) = io::pipe()?;
        let thread = std::thread::Builder::new().name("status".to_owned()).spawn(move || {
            confine();
            loop {
                let mut waiting = [PollFd::new(woken.as_fd(), PollFlags::POLLIN), PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
                match poll(&mut waiting, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(_) => return,
                }
                if waiting[0].revents().is_some_and(|events| !events.is_empty()) {
                    return;
                }
                if let Ok((stream, _)) = listener.accept()
                    && let Err(error) = answer(stream, &report())
                {
                    debug!(%error, "a status could not be sent");
                }
            }
        })?;
        Ok(Self { thread: Some(thread), wake: Some(wake), path: path.to_owned(), own })
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if inode(&self.path).is_ok_and(|present| present == self.own) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let found = path.symlink_metadata()?;
    Ok((found.dev(), found.ino()))
}

/// Whether somebody listens. Not waited for: one whose queue of connections is full listens too.
fn is_served(path: &Path) -> io::Result<bool> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    match connect(socket.as_raw_fd(), &UnixAddr::new(path)?) {
        Ok(()) | Err(Errno::EAGAIN | Errno::EINPROGRESS) => Ok(true),
        // Nothing is there, nobody listens there any more, or it is no socket.
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn answer(mut stream: UnixStream, report: &Report) -> io::Result<()> {
    // Not inherited from the listener everywhere.
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut text = serde_json::to_vec(report).map_err(io::Error::other)?;
    text.push(b'\n');
    stream.write_all(&text)
}

/// What the agent that runs on this data, or as the host's service, says of itself; `None` where none does.
pub fn ask(data_dir: Option<&Path>) -> io::Result<Option<Report>> {
    let places = [runtime_folder().map(|folder| folder.join(NAME)), data_dir.map(|folder| folder.join(NAME)), Some(PathBuf::from(SERVICE))];
    for path in places.into_iter().flatten() {
        let stream = match UnixStream::connect(&path) {
            Ok(stream) => stream,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => continue,
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = Vec::new();
        stream.take(ANSWER_LIMIT).read_to_end(&mut text)?;
        let report: Report = serde_json::from_slice(&text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{} answered with no report: {error}", path.display())))?;
        // The service's socket may be that of an agent with other data.
        if data_dir.is_none_or(|data_dir| report.data_dir == data_dir) {
            return Ok(Some(report));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::report::Health;
    use super::*;

    fn report(data_dir: &Path) -> Report {
        Report { health: Health::Healthy, ..Report::of_disk(data_dir, None) }
    }

    #[test]
    fn each_connection_gets_the_document_and_nobody_else_may_connect() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().to_owned();
        let path = data_dir.join(NAME);
        std::fs::write(&path, "left behind").unwrap();
        assert!(ask(Some(&data_dir)).unwrap().is_none(), "nobody listens");
        let shown = report(&data_dir);
        let socket = StatusSocket::serve(&path, || {}, move || shown.clone()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // One that says nothing and takes nothing holds nobody up.
        let _idle: Vec<_> = (0..8).map(|_| UnixStream::connect(&path).unwrap()).collect();
        for _ in 0..2 {
            assert_eq!(ask(Some(&data_dir)).unwrap(), Some(report(&data_dir)));
        }
        drop(socket);
        assert!(!path.exists());
        assert!(ask(Some(&data_dir)).unwrap().is_none());
    }

    #[test]
    fn the_socket_of_another_agent_is_neither_replaced_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().to_owned();
        let path = data_dir.join(NAME);
        let shown = report(&data_dir);
        let first = StatusSocket::serve(&path, || {}, move || shown.clone()).unwrap();
        let second = StatusSocket::serve(&path, || {}, || unreachable!("nobody asks the second"));
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(ask(Some(&data_dir)).unwrap().is_some(), "the first is still asked");

        // Its own was removed by hand, and another agent has put its own there.
        std::fs::remove_file(&path).unwrap();
        let shown = report(&data_dir);
        let third = StatusSocket::serve(&path, || {}, move || shown.clone()).unwrap();
        drop(first);
        assert!(ask(Some(&data_dir)).unwrap().is_some());
        drop(third);
        assert!(!path.exists());
    }

    #[test]
    fn one_that_answers_nobody_for_now_is_another_agent_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        let listener = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        nix::sys::socket::bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        // Its queue holds one.
        let _waits = UnixStream::connect(&path).unwrap();
        assert!(is_served(&path).unwrap());
    }

    #[test]
    fn what_is_no_report_is_said_to_be_none() {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join(NAME)).unwrap();
        let thread = std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"{}").unwrap());
        let error = ask(Some(folder.path())).unwrap_err();
        assert!(error.to_string().contains("answered with no report"), "{error}");
        thread.join().unwrap();
    }
}
