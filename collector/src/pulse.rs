//! Whether the background tasks go on, for the service manager's watchdog.
//!
//! Invariant: a task that rests, or that waits for the database, is never taken for stuck: to begin again would mend
//! neither, and each wait for the database has an end of its own (`collector/store/src/postgres/transaction.rs`). What must
//! come to an end is the collector's own work between two waits.
//!
//! Not covered: what a stream does for itself. Opening a frame and encoding its records is work of that stream's task, and
//! `ingest` is only what gathers batches, has them committed and answers them.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use trueline_systemd::watchdog::Heartbeat;

/// One task's sign of life.
#[derive(Debug, Default)]
pub struct Pulse {
    heartbeat: Arc<Heartbeat>,
    works: AtomicBool,
}

#[derive(Debug, Default)]
pub struct Pulses {
    pub ingest: Pulse,
    pub judge: Pulse,
    pub compare: Pulse,
}

impl Pulses {
    fn all(&self) -> [(&'static str, &Pulse); 3] {
        [("ingest", &self.ingest), ("judge", &self.judge), ("compare", &self.compare)]
    }

    /// What the watchdog looks at.
    pub fn heartbeats(&self) -> Vec<(&'static str, Arc<Heartbeat>)> {
        self.all().map(|(name, pulse)| (name, Arc::clone(&pulse.heartbeat))).to_vec()
    }

    /// Speaks for the tasks that wait. To be called more often than the watchdog must be told.
    pub fn speak_for_the_waiting(&self) {
        for (_, pulse) in self.all() {
            if !pulse.works.load(Ordering::Relaxed) {
                pulse.heartbeat.beat();
            }
        }
    }
}

impl Pulse {
    /// The task's own work.
    pub async fn at_work<T>(&self, work: impl Future<Output = T>) -> T {
        let _turn = self.turn(true);
        work.await
    }

    /// A wait within such work: for the database, or a pause.
    pub async fn waiting<T>(&self, wait: impl Future<Output = T>) -> T {
        let _turn = self.turn(false);
        wait.await
    }

    /// The task's own work within such a wait: the database calls back.
    pub fn working<T>(&self, work: impl FnOnce() -> T) -> T {
        let _turn = self.turn(true);
        work()
    }

    fn turn(&self, works: bool) -> Turn<'_> {
        let before = self.works.swap(works, Ordering::Relaxed);
        self.heartbeat.beat();
        Turn { pulse: self, before }
    }
}

/// Ends with what was before it, also where the future in it is dropped.
struct Turn<'a> {
    pulse: &'a Pulse,
    before: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.pulse.works.store(self.before, Ordering::Relaxed);
        self.pulse.heartbeat.beat();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use futures_util::FutureExt;
    use trueline_systemd::notify::Notifier;
    use trueline_systemd::watchdog::Watchdog;

    use super::*;

    /// Whether the manager is told, some interval after the last time.
    fn is_told(watchdog: &mut Watchdog, pulses: &Pulses) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        let notifier = Notifier::connect(folder.path().join("notify").as_os_str()).unwrap();
        pulses.speak_for_the_waiting();
        let told = watchdog.tend(&notifier);
        manager.set_nonblocking(true).unwrap();
        assert_eq!(manager.recv(&mut [0; 64]).is_ok(), told);
        told
    }

    #[test]
    fn a_task_stuck_in_its_own_work_silences_the_watchdog_and_one_that_waits_for_the_database_does_not() {
        let pulses = Pulses::default();
        let mut watchdog = Watchdog::new(Duration::ZERO, pulses.heartbeats());
        assert!(is_told(&mut watchdog, &pulses), "all rest");

        let mut stuck = Box::pin(pulses.judge.at_work(std::future::pending::<()>()));
        assert!(stuck.as_mut().now_or_never().is_none());
        assert!(is_told(&mut watchdog, &pulses), "it has just begun");
        assert!(!is_told(&mut watchdog, &pulses), "it goes on and on");
        drop(stuck);
        assert!(is_told(&mut watchdog, &pulses), "it ended");

        let asks = pulses.judge.at_work(async { pulses.judge.waiting(std::future::pending::<()>()).await });
        let mut asks = Box::pin(asks);
        assert!(asks.as_mut().now_or_never().is_none());
        for _ in 0..3 {
            assert!(is_told(&mut watchdog, &pulses), "the database does not answer");
        }
    }

    #[test]
    fn a_task_stuck_in_what_the_database_calls_back_silences_the_watchdog() {
        let pulses = Pulses::default();
        let mut watchdog = Watchdog::new(Duration::ZERO, pulses.heartbeats());
        let compares = pulses.compare.at_work(pulses.compare.waiting(async {
            pulses.compare.working(|| {
                assert!(is_told(&mut watchdog, &pulses), "it has just begun");
                assert!(!is_told(&mut watchdog, &pulses), "it goes on and on");
            });
            for _ in 0..3 {
                assert!(is_told(&mut watchdog, &pulses), "it waits for what it gave back");
            }
        }));
        compares.now_or_never().unwrap();
    }
}
