//! Opening what is on disk, on a thread of its own, so that the service manager hears meanwhile that it goes on: state and
//! spool are read whole, and a slow disk may take longer over that than the manager's patience.
//!
//! Invariants: the manager is told only where the thread has worked since the last time, by the processor time that it
//! used: one that waits for a dead disk or a lock uses none. What spins is not told from what works, so nothing is
//! told after [`LIMIT`].

use std::io;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use trueline_systemd::notify::Notifier;
use trueline_systemd::watchdog::{self, Heartbeat, Watchdog};

use crate::kernel::thread::CpuClock;

/// How long it may take, at most.
const LIMIT: Duration = Duration::from_secs(600);
/// How long it may stand still where the manager does not say.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the manager waits for meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Awaited {
    /// The start: it is asked for more time.
    Start,
    /// A sign of life alone.
    Life,
}

/// What `open` returns, run on a thread of this name that is confined as far as `open` confines it.
pub fn attend<T: Send + 'static>(
    notifier: &Notifier,
    name: &'static str,
    awaited: Awaited,
    open: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    attend_within(notifier, name, awaited, watchdog::interval().unwrap_or(PATIENCE), LIMIT, open)
}

fn attend_within<T: Send + 'static>(
    notifier: &Notifier,
    name: &'static str,
    awaited: Awaited,
    interval: Duration,
    limit: Duration,
    open: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let extend = || {
        if awaited == Awaited::Start {
            notifier.extend_timeout(interval);
        }
    };
    let clock: Arc<OnceLock<CpuClock>> = Arc::default();
    let (done, opened) = sync_channel(1);
    let used = Arc::clone(&clock);
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Without a clock nothing is told, and the manager's patience is all there is.
        if let Ok(own) = CpuClock::of_this_thread() {
            let _ = used.set(own);
        }
        // Its receiver waits below.
        let _ = done.send(open());
    })?;
    let heartbeat = Arc::new(Heartbeat::default());
    let mut watchdog = Watchdog::new(interval, [(name, Arc::clone(&heartbeat))]);
    let (began, mut worked) = (Instant::now(), Duration::ZERO);
    extend();
    loop {
        match opened.recv_timeout(watchdog.every()) {
            Ok(opened) => {
                // It has nothing left to do.
                let _ = thread.join();
                return Ok(opened);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => unreachable!("it ends after what it opened was taken"),
            },
        }
        let now = clock.get().and_then(CpuClock::read).unwrap_or(worked);
        if now > worked && began.elapsed() < limit {
            worked = now;
            heartbeat.beat();
        }
        if watchdog.tend(notifier) {
            extend();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(400);

    struct Manager {
        socket: UnixDatagram,
        notifier: Notifier,
        _folder: tempfile::TempDir,
    }

    impl Manager {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            Self { socket, notifier: Notifier::connect(path.as_os_str()).unwrap(), _folder: folder }
        }

        /// What it hears next, within so long.
        fn hears(&self, patience: Duration) -> Option<String> {
            let mut buffer = [0; 4096];
            self.socket.set_read_timeout(Some(patience)).unwrap();
            self.socket.recv(&mut buffer).ok().map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned())
        }

        /// Opens with `open` while `look` looks on.
        fn attended<T: Send + 'static>(
            &self,
            awaited: Awaited,
            limit: Duration,
            open: impl FnOnce() -> T + Send + 'static,
            look: impl FnOnce(),
        ) -> T {
            std::thread::scope(|scope| {
                let opening = scope.spawn(|| attend_within(&self.notifier, "opening", awaited, INTERVAL, limit, open).unwrap());
                look();
                opening.join().unwrap()
            })
        }
    }

    #[test]
    fn the_manager_hears_of_an_opening_that_goes_on_and_gives_it_time() {
        for (awaited, expected) in [(Awaited::Start, &["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=400000"][..]), (Awaited::Life, &["WATCHDOG=1"])] {
            let (manager, enough) = (Manager::new(), Arc::new(AtomicBool::new(false)));
            let ends = Arc::clone(&enough);
            let work = move || {
                while !ends.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
                "opened"
            };
            let opened = manager.attended(awaited, LIMIT, work, || {
                if awaited == Awaited::Start {
                    assert_eq!(manager.hears(PATIENCE).as_deref(), Some("EXTEND_TIMEOUT_USEC=400000"), "from the beginning");
                }
                for said in expected.iter().cycle().take(3 * expected.len()) {
                    assert_eq!(manager.hears(PATIENCE).as_deref(), Some(*said));
                }
                enough.store(true, Ordering::Relaxed);
            });
            assert_eq!(opened, "opened");
        }
    }

    #[test]
    fn the_manager_does_not_hear_of_one_that_stands_still_or_goes_on_for_too_long() {
        for (spins, limit) in [(false, LIMIT), (true, Duration::ZERO)] {
            let (manager, (end, ended)) = (Manager::new(), sync_channel::<()>(0));
            let work = move || {
                while spins && ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    std::hint::spin_loop();
                }
                // Until the other end is dropped.
                let _ = ended.recv();
            };
            manager.attended(Awaited::Life, limit, work, || {
                // What it used before it stood still may be told of once.
                let heard = manager.hears(3 * INTERVAL).is_some() && manager.hears(3 * INTERVAL).is_some();
                drop(end);
                assert!(!heard, "spins: {spins}");
            });
        }
    }

    #[test]
    fn an_opening_that_panics_panics_where_it_is_waited_for() {
        let attended =
            std::panic::catch_unwind(|| attend(&Notifier::default(), "opening", Awaited::Life, || -> () { panic!("an expected panic") }));
        assert!(attended.is_err());
    }
}
