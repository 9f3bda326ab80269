//! Where the agent can be asked how it is doing, in every phase of its life.
//!
//! Invariants: nothing waits for the disk under the lock of the situation, which the service's own thread takes; whoever
//! asks holds the spool while it reads and no longer, and before an agent is started anew that is waited for.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::identity::Identity;
use crate::run::{Draft, RunningAgent};
use crate::status::report::{Health, Report};

pub struct Desk {
    data_dir: PathBuf,
    pub confinement: String,
    situation: Mutex<Situation>,
    /// Held while a report is made.
    reading: Mutex<()>,
}

/// What a report is made of outside the lock.
enum Shown {
    Draft(Box<Draft>),
    Idle(Health, Vec<String>),
}

enum Situation {
    /// Opening what is on disk, or about to end.
    Between,
    Enrolling {
        trouble: String,
    },
    Running(Box<RunningAgent>),
}

impl Desk {
    pub fn new(data_dir: PathBuf, confinement: String) -> Self {
        Self { data_dir, confinement, situation: Mutex::new(Situation::Between), reading: Mutex::default() }
    }

    fn situation(&self) -> MutexGuard<'_, Situation> {
        self.situation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn enrol(&self, trouble: String) {
        *self.situation() = Situation::Enrolling { trouble };
    }

    pub fn open(&self) {
        *self.situation() = Situation::Between;
    }

    pub fn run(&self, agent: RunningAgent) {
        *self.situation() = Situation::Running(Box::new(agent));
    }

    /// Takes the running agent away, to be stopped.
    pub fn close(&self) -> Option<RunningAgent> {
        match std::mem::replace(&mut *self.situation(), Situation::Between) {
            Situation::Running(agent) => Some(*agent),
            _ => None,
        }
    }

    pub fn with_agent<T>(&self, look: impl FnOnce(&RunningAgent) -> T) -> Option<T> {
        match &*self.situation() {
            Situation::Running(agent) => Some(look(agent)),
            _ => None,
        }
    }

    /// Whether an agent runs and no part of it has ended by itself.
    pub fn is_going_on(&self) -> bool {
        self.with_agent(|agent| !agent.has_ended()).unwrap_or(false)
    }

    pub fn report(&self) -> Report {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = match &*self.situation() {
            Situation::Running(agent) => Shown::Draft(Box::new(agent.draft())),
            Situation::Between => Shown::Idle(Health::Starting, Vec::new()),
            Situation::Enrolling { trouble } => Shown::Idle(Health::Enrolling, vec![trouble.clone()]),
        };
        let mut report = match shown {
            Shown::Draft(draft) => draft.finish(),
            Shown::Idle(health, troubles) => self.idle(health, troubles),
        };
        report.confinement = Some(self.confinement.clone());
        report
    }

    /// Waits, for as long as the disk takes, until nobody holds anything of an agent that was closed.
    pub fn let_go(&self) {
        drop(self.reading.lock());
    }

    fn idle(&self, health: Health, troubles: Vec<String>) -> Report {
        let report = Report::of_disk(&self.data_dir, Identity::load(&self.data_dir).ok().as_ref());
        Report { health, pid: Some(std::process::id()), troubles, ..report }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn whoever_asks_and_waits_for_the_disk_holds_nobody_else_up() {
        let folder = tempfile::tempdir().unwrap();
        let identity = folder.path().join("identity");
        std::fs::create_dir(&identity).unwrap();
        // Whoever reads it waits until somebody has written and closed it.
        let slow = identity.join("membership.json");
        nix::unistd::mkfifo(&slow, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let desk = Arc::new(Desk::new(folder.path().to_owned(), "none".to_owned()));
        let asked = Arc::clone(&desk);
        let asking = std::thread::spawn(move || asked.report());
        // Opens once it is being read.
        let writer = std::fs::OpenOptions::new().write(true).open(&slow).unwrap();

        let (service, (passed, has_passed)) = (Arc::clone(&desk), channel());
        std::thread::spawn(move || {
            service.enrol("not enrolled yet".to_owned());
            let _ = passed.send(service.is_going_on());
        });
        let passed = has_passed.recv_timeout(Duration::from_secs(10));
        drop(writer);
        assert_eq!(asking.join().unwrap().health, Health::Starting, "as it was when it asked");
        assert_eq!(passed, Ok(false));
        std::fs::remove_file(&slow).unwrap();
        assert_eq!(desk.report().health, Health::Enrolling);
        desk.let_go();
    }
}
