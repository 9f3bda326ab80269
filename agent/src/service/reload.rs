//! A configuration that is read again while the agent runs.
//!
//! Invariants: one with faults changes nothing and is a trouble until one without is read, also when the agent starts
//! over meanwhile; what changes the watch list goes through the observer, which reads again what the change may hide and says so as a gap.

use std::sync::mpsc::{Receiver, TryRecvError};

use tracing::{error, info, warn};

use crate::config::{Config, ConfigError};
use crate::link::Configured;
use crate::run::RunningAgent;

/// What a reload came to, and what counts from then on.
#[derive(Debug, Clone)]
pub struct Taken {
    pub config: Config,
    /// What an operator should still know.
    pub trouble: Option<String>,
}

impl Taken {
    /// What was read at the start.
    pub fn whole(config: Config) -> Self {
        Self { config, trouble: None }
    }

    /// Tells an agent's status of it.
    pub fn tell(&self, agent: &RunningAgent) {
        agent.status().trouble("configuration", self.trouble.clone());
    }
}

/// A reload under way.
pub struct Reload {
    /// What counts once it is over.
    config: Config,
    step: Step,
}

enum Step {
    Refused(ConfigError),
    /// Not told to the observer yet.
    Ask {
        only_at_start: Vec<&'static str>,
    },
    Wait {
        only_at_start: Vec<&'static str>,
        answer: Receiver<Configured>,
    },
}

impl Reload {
    pub fn begin(read: Result<Config, ConfigError>, present: &Config) -> Self {
        match read {
            Err(error) => Self { config: present.clone(), step: Step::Refused(error) },
            Ok(read) => {
                let only_at_start = present.needs_start_for(&read);
                let config = Config { scan_threads: read.scan_threads, watch: read.watch, ..present.clone() };
                Self { config, step: Step::Ask { only_at_start } }
            }
        }
    }

    /// Ends it where its agent has ended before it; the next start takes it up.
    pub fn cut_short(self) -> Taken {
        let trouble = match &self.step {
            Step::Refused(refused) => Some(refuse(refused)),
            Step::Ask { only_at_start } | Step::Wait { only_at_start, .. } => of_start(only_at_start),
        };
        Taken { config: self.config, trouble }
    }

    /// Takes the next step, without waiting; what it came to once the last is taken.
    pub fn go_on(&mut self, agent: &RunningAgent) -> Option<Taken> {
        match &self.step {
            Step::Refused(refused) => Some(Taken { config: self.config.clone(), trouble: Some(refuse(refused)) }),
            Step::Ask { only_at_start } => {
                if let Some(answer) = agent.configure(self.config.watch.clone(), self.config.scan_threads) {
                    self.step = Step::Wait { only_at_start: only_at_start.clone(), answer };
                }
                None
            }
            Step::Wait { only_at_start, answer } => {
                let configured = match answer.try_recv() {
                    Ok(configured) => configured,
                    Err(TryRecvError::Empty) => return None,
                    Err(TryRecvError::Disconnected) => Configured::Failed { reason: "the observer has ended".to_owned() },
                };
                Some(Taken { config: self.config.clone(), trouble: conclude(&configured, only_at_start) })
            }
        }
    }
}

/// Says so in the log; what an operator should know.
fn refuse(refused: &ConfigError) -> String {
    error!(error = %refused, "the configuration is refused; the present one stays");
    format!("the configuration was read again and refused, the present one stays: {refused}")
}

fn of_start(keys: &[&str]) -> Option<String> {
    if keys.is_empty() {
        return None;
    }
    let keys = keys.join(", ");
    warn!(keys, "a part of the configuration counts from the next start on");
    Some(format!("{keys}: what the configuration says now counts from the next start on"))
}

/// Says in the log what came of it; what an operator should still know.
fn conclude(configured: &Configured, only_at_start: &[&str]) -> Option<String> {
    let trouble = match configured {
        Configured::InForce => {
            info!("the configuration was read again and is in force");
            None
        }
        Configured::Overruled { version } => {
            info!(version, "the configuration was read again; the watch list stays the collector's, which goes before the host's own");
            None
        }
        Configured::Failed { reason } => {
            warn!(reason, "the configuration was read again and could not be taken up");
            Some(format!("the configuration was read again and could not be taken up: {reason}"))
        }
    };
    let of_start = of_start(only_at_start);
    trouble.or(of_start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_start_takes_up_stays_as_it_is_and_is_said() {
        let present = Config::default();
        let read = Config { spool_mib: 7, scan_threads: 5, ..Config::default() };
        let reload = Reload::begin(Ok(read), &present);
        assert_eq!((reload.config.spool_mib, reload.config.scan_threads), (present.spool_mib, 5));
        let cut_short = Reload::begin(Ok(Config { spool_mib: 7, ..Config::default() }), &present).cut_short();
        assert!(cut_short.trouble.unwrap().starts_with("spool_mib: "));
        let Step::Ask { only_at_start } = &reload.step else { panic!("it was refused") };
        let trouble = conclude(&Configured::InForce, only_at_start).unwrap();
        assert!(trouble.starts_with("spool_mib: "), "{trouble}");
        assert_eq!(conclude(&Configured::Overruled { version: 3 }, &[]), None);
        assert!(conclude(&Configured::Failed { reason: "x".to_owned() }, &[]).is_some());
    }
}
